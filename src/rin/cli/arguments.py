"""Arguments to dataclasses, with every mistake in one line."""

import ast
import contextlib
import dataclasses
import io
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from rin.core.compute import Compile, Precision
from rin.core.errors import RinError
from rin.diffusion import SamplerName
from rin.diffusion.latent_counts import parse_num_latents

Arguments = TypeVar("Arguments")


_RULE = "[─-]{20,}"


@dataclass(frozen=True, kw_only=True)
class SamplingArguments:
    """How samples are drawn, by all who draw some."""

    num_steps: Annotated[int | None, tyro.conf.arg(aliases=["--steps"])] = None
    """Steps of sampling; the network is evaluated once a step, by heun twice; the model's own if absent."""

    sampler: SamplerName | None = None
    """ddpm, ddpm-small, ddim, dpmpp-2m or heun; the model's own if absent."""

    schedule: str | None = None
    """gamma(t) of sampling, as in cosine, sigmoid@-3,3,0.9, karras or log-snr; the model's own if absent."""

    num_latents: str | None = None
    """Latents that each step works with, of an elastic model: a number, or numbers by time, as in 0.5:16,1:128 for 16
    in the steps that begin at t = 0.5 or below, the last ones, and 128 before; all if absent."""

    guidance: float | None = None
    """Strength g of classifier-free guidance, p + g (p - p without the label): 0 is none; the model's own if absent. It
    is the guidance_scale of diffusers less 1: its 7.5 is 6.5 here. Needs a model trained with label dropping."""

    num_guide_latents: int | None = None
    """Guide by the same model with so few latents, in place of the model without the label: any elastic model."""

    guidance_interval: tuple[float, float] | None = None
    """Guidance only at noise levels sigma = sqrt((1 - gamma) / gamma) between these two, as in 0.3 3; 0 inf for
    all; the model's own if absent."""

    consistent: bool = False
    """Of a model that draws from a smaller picture: the mean over each box of pixels is what the picture tells."""

    seed: int = 0
    """Of the noise: picture 17 of seed 3 is the same at any --num and --batch-size."""

    batch_size: int | None = None
    """How many at a time; what fits into memory if absent."""

    precision: Precision = "auto"
    """Of the network: bfloat16 autocast, float32, or auto: bfloat16 where it is faster."""

    compile: Compile = "auto"
    """Go through torch.compile and CUDA graphs; auto: on a CUDA device."""

    @property
    def options(self) -> dict[str, Any]:
        """The same as `TrainedModel.sample` takes it."""
        return {**dataclasses.asdict(self), "num_latents": parse_num_latents(self.num_latents)}


def parse(kind: type[Arguments], arguments: list[str], prog: str, default: Arguments | None = None) -> Arguments:
    """The arguments as an instance of `kind`, whose fields and docstrings make the options and their help.

    "~/" at the beginning of a value is the home folder, also in --out=~/x, where a shell leaves it as it is.

    Raises:
        RinError: the arguments are off; tyro's box, put into one line.
        SystemExit: help was asked for and has been printed.
    """
    arguments = [re.sub(r"^(--[\w.-]+=)?(~[^/]*)(?=/|$)", _expanded, argument) for argument in arguments]
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


def command_of(prog: str, arguments: list[str]) -> str:
    """A command as a shell takes it again, from any folder: what is there has its whole path."""
    words: list[str] = []
    for word in arguments:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        local = os.path.expanduser(value)
        words.append(f"{option}{equals}{os.path.realpath(local) if value and os.path.exists(local) else value}")
    return f"{prog} {shlex.join(words)}"


def _expanded(tilde: re.Match[str]) -> str:
    return (tilde[1] or "") + os.path.expanduser(tilde[2])


def quoted(path: str | Path) -> str:
    """A path as a shell takes it in a command, also if it has spaces, or bytes that are no text."""
    text = os.fspath(path)
    if text.isprintable():
        return shlex.quote(text)
    plain = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in "\\'"}
    return "$'" + "".join(plain.get(byte, f"\\x{byte:02x}") for byte in os.fsencode(text)) + "'"


_REFUSALS = (
    (
        r"no type matching (?:\{None\}\|)?\{?(.*?)\}? could be instantiated from \[(.*?)\]\. Got errors: .*",
        r"\2 is no \1",
    ),
    (r"(?<=: )(.+) is no FLOAT FLOAT", r"two numbers are needed, not \1"),
    (r"(\S+) is no FLOAT", r"no number: \1"),
    (r"(\S+) is no INT", r"no whole number: \1"),
    (r"invalid literal for int\(\) with base 10: ", "no whole number: "),
    (r"could not convert string to float: ", "no number: "),
)
"""What tyro and Python say of a value of another kind, and what is said instead."""


def _without_none(choices: re.Match[str]) -> str:
    """The choices of an option that may be left out: in order, which tyro's are not, and without None."""
    return str(tuple(sorted(set(ast.literal_eval(choices.group())) - {"None"})))


def _one_line(box: str, prog: str) -> str:
    """The message of one of tyro's boxes, with the first option that it thinks was meant."""
    box = re.sub(r"\[/?bold\]", "", box)  # which it leaves where a value is one of several kinds
    framed = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    lines = framed or box.splitlines()[2:]  # without a frame, where the terminal has no UTF-8, below a title and a rule
    message, *rest = (" ".join(part.split()) for part in re.split(_RULE, " ".join(lines)) if part.strip())
    refused = re.match(r"Error parsing experiment[\w.]*: ", message)  # by a configuration, in words of its own
    if refused:
        return message[refused.end() :]
    for pattern, words in _REFUSALS:
        message = re.sub(pattern, words, message)
    message = re.sub(r"(?<=Expected one of )\(.*\)", _without_none, message)
    meant = re.search(r"--[\w.-]+", rest[0]) if message.startswith("Unrecognized") and len(rest) > 1 else None
    hint = f"did you mean {meant.group()}? " if meant else ""
    return f"{message.rstrip('.')}; {hint}{prog} --help lists all"
