"""Arguments to dataclasses, with every mistake in one line."""

import contextlib
import io
import re
from dataclasses import dataclass
from typing import TypeVar

import torch
import tyro

from rin.core.compute import Compile, Precision, compiles, uses_bfloat16
from rin.core.errors import RinError
from rin.diffusion import SamplerName, SamplingOptions

Arguments = TypeVar("Arguments")


_RULE = "[─-]{20,}"


@dataclass(frozen=True, kw_only=True)
class SamplingArguments:
    """How samples are drawn, by all who draw some."""

    steps: int | None = None
    """Steps of sampling; the model's own if absent."""

    sampler: SamplerName | None = None
    """ddpm, ddpm-small or ddim; the model's own if absent."""

    schedule: str | None = None
    """gamma(t) of sampling, as in cosine or sigmoid@-3,3,0.9; the model's own if absent."""

    guidance: float = 0.0
    """Strength of classifier-free guidance; needs a model trained with label dropping."""

    seed: int = 0
    """Of the noise: picture 17 of seed 3 is the same at any --num and --batch-size."""

    batch_size: int = 64
    """How many at a time."""

    precision: Precision = "auto"
    """Of the network: bfloat16 autocast, float32, or auto: bfloat16 on a CUDA device that has it."""

    compile: Compile = "auto"
    """Go through torch.compile and CUDA graphs; auto: on a CUDA device."""

    def options(self, where: torch.device) -> SamplingOptions:
        """The same as the library has it, but for the seed and the batches, on a device.

        Raises:
            RinError: the device does not have the precision that is asked for.
        """
        return {
            "sampler": self.sampler,
            "num_steps": self.steps,
            "schedule": self.schedule,
            "guidance": self.guidance,
            "bfloat16": uses_bfloat16(self.precision, where),
            "compile": compiles(self.compile, where),
        }


def parse(kind: type[Arguments], arguments: list[str], prog: str, default: Arguments | None = None) -> Arguments:
    """The arguments as an instance of `kind`, whose fields and docstrings make the options and their help.

    Raises:
        RinError: the arguments are off; tyro's box, put into one line.
        SystemExit: help was asked for and has been printed.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(kind, args=arguments, prog=prog)
            return tyro.cli(kind, args=arguments, prog=prog, default=default, config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise RinError(_one_line(complaint.getvalue(), prog)) from None


def _one_line(box: str, prog: str) -> str:
    """The message of one of tyro's boxes, with the first option that it thinks was meant."""
    framed = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    lines = framed or box.splitlines()[2:]  # without a frame, where the terminal has no UTF-8, below a title and a rule
    message, *rest = (" ".join(part.split()) for part in re.split(_RULE, " ".join(lines)) if part.strip())
    refused = re.match(r"Error parsing experiment[\w.]*: ", message)  # by a configuration, in words of its own
    if refused:
        return message[refused.end() :]
    meant = re.search(r"--[\w.-]+", rest[0]) if message.startswith("Unrecognized") and len(rest) > 1 else None
    hint = f"did you mean {meant.group()}? " if meant else ""
    return f"{message.rstrip('.')}; {hint}{prog} --help lists all"
