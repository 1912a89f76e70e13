"""`rin edit`."""

from dataclasses import dataclass

from rin.cli.arguments import parse
from rin.cli.editing import EditingArguments, change
from rin.core.launch import processes
from rin.diffusion.checks import check_time
from rin.sampling import editing


@dataclass(frozen=True, kw_only=True)
class EditArguments(EditingArguments):
    """Changes a picture: noises it to a time and samples back from there, as another class or by another prompt."""

    t: float = 0.5
    """The time that the picture is noised to, above 0 and up to 1, which is noise alone: the more, the less is left."""


def edit(arguments: list[str]) -> None:
    """Changes a picture and writes it."""
    chosen = parse(EditArguments, arguments, "rin edit")
    check_time(chosen.t)
    with processes():
        change(chosen, editing.edit, t=chosen.t)
