"""The command line: arguments in, text out.

A mistake or a mishap is one line on standard error and status 2; an interrupt is status 130; a run that a signal asked
to save and leave has 128 plus the signal's number, 143 for SIGTERM, 130 for Ctrl-C.
"""

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from rin.core.errors import RinError, StoppedError, unknown

USAGE = """\
usage: rin COMMAND ...

Recurrent Interface Networks: train and sample diffusion models of images and video.

  rin train PRESET [options]    train a preset, or go on with a run: the same command resumes
  rin sample RUN [options]      draw samples: a grid, the denoising as a GIF, arrays, a folder; clips as GIF or MP4
  rin edit RUN PICTURE          change a picture: noised, and drawn back as another class or by another prompt
  rin inpaint RUN PICTURE       draw the part of a picture anew that is white in --mask
  rin evaluate RUN              measure what a run draws, or pictures from anywhere
  rin sweep RUN                 measure it at many ways to sample: steps, samplers, guidance, averages
  rin explain RUN               what the latents read while a sample comes about, as a picture
  rin app RUN                   a page in the browser, on this machine: draw, see what the latents read, look at a run
  rin export RUN                the network in ONNX with a sampler in numpy, for programs without PyTorch; for diffusers
  rin push RUN OWNER/NAME       a model sent to the Hugging Face Hub, with a card and samples
  rin status RUN                where a run stands
  rin prepare SOURCE OUT        turn a folder, parquet, tar shards, videos or a Hub name into one memory-mapped set
  rin info [PRESET|RUN]         parameters, operations, tokens, memory, and where each figure comes from

Each has --help. In short:
  rin train digits --out runs/digits
  rin sample runs/digits --classes 0-9 --num 100 --out samples.png
  rin train small-32 --data.path FOLDER-OF-IMAGES --out runs/mine
"""

COMMANDS = (
    "train", "sample", "edit", "inpaint", "evaluate", "sweep", "explain", "app", "export", "push",
    "status", "prepare", "info",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments tell; leaves with its status."""
    status = _run(list(sys.argv[1:] if arguments is None else arguments))
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # with other processes, PyTorch has threads that can still hold Python objects when the interpreter ends, and
        # then abort the process (seen once in some fifty runs): all is written, so leave without that
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: names need not be text
    logger = logging.getLogger("rin")  # that of rin.core.progress, which imports PyTorch
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    try:
        if arguments[0] == "--version":
            from importlib.metadata import version

            print(f"rin {version('rin-diffusion')}")
            return 0
        _command(arguments[0])(arguments[1:])
    except RinError as error:
        print(f"rin: {error}", file=sys.stderr)
        return 2
    except StoppedError as stopped:
        if os.environ.get("RANK", "0") == "0":  # all processes stop together
            print(f"rin: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except BrokenPipeError:  # `rin info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("rin: interrupted", file=sys.stderr)
        return 130
    return 0


def _command(name: str) -> Callable[[list[str]], None]:
    """A command, imported only now: PyTorch takes seconds."""
    if name == "train":
        from rin.cli.train import train as command
    elif name == "sample":
        from rin.cli.sample import sample as command
    elif name == "edit":
        from rin.cli.edit import edit as command
    elif name == "inpaint":
        from rin.cli.inpaint import inpaint as command
    elif name == "evaluate":
        from rin.cli.evaluate import evaluate as command
    elif name == "sweep":
        from rin.cli.sweep import sweep as command
    elif name == "explain":
        from rin.cli.explain import explain as command
    elif name == "app":
        from rin.cli.app import app as command
    elif name == "export":
        from rin.cli.export import export as command
    elif name == "push":
        from rin.cli.push import push as command
    elif name == "status":
        from rin.cli.status import status as command
    elif name == "prepare":
        from rin.cli.prepare import prepare as command
    elif name == "info":
        from rin.cli.info import info as command
    else:
        raise unknown("command", name, COMMANDS)
    return command
