"""`rin inpaint`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rin.cli.arguments import parse
from rin.cli.editing import EditingArguments, change
from rin.core.launch import processes
from rin.diffusion.checks import whole_number
from rin.sampling import editing


@dataclass(frozen=True, kw_only=True)
class InpaintArguments(EditingArguments):
    """Draws a part of a picture anew; the rest stays as it is, to the grey level."""

    mask: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """A picture of the same size: what is white in it is redrawn."""

    num_rounds: int = editing.NUM_ROUNDS
    """How often each step is taken, going back by noise in between, so that the new part comes to agree with the rest;
    as many times as long. 1 only puts the rest back after each step."""


def inpaint(arguments: list[str]) -> None:
    """Draws a part of a picture anew and writes the picture."""
    chosen = parse(InpaintArguments, arguments, "rin inpaint")
    whole_number("--num-rounds", chosen.num_rounds, least=1)
    with processes():
        change(chosen, editing.inpaint, mask=chosen.mask, num_rounds=chosen.num_rounds)
