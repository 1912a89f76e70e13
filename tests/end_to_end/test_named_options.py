"""Every option that the pages name is one, and takes the value that stands beside it."""

import re
import shlex
from functools import cache

import pytest

from rin.cli.app import AppArguments
from rin.cli.arguments import parse
from rin.cli.edit import EditArguments
from rin.cli.evaluate import EvaluateArguments
from rin.cli.explain import ExplainArguments
from rin.cli.export import ExportArguments
from rin.cli.info import InfoArguments
from rin.cli.inpaint import InpaintArguments
from rin.cli.prepare import PrepareArguments
from rin.cli.push import PushArguments
from rin.cli.sample import SampleArguments
from rin.cli.status import StatusArguments
from rin.cli.sweep import SweepArguments
from rin.cli.train import train
from rin.core.errors import RinError
from tests.end_to_end.documentation import PAGES, PLACEHOLDERS, ROOT, between_backticks

COMMANDS = {
    "sample": (SampleArguments, ["runs/mine"]),
    "edit": (EditArguments, ["runs/mine", "picture.png"]),
    "inpaint": (InpaintArguments, ["runs/mine", "picture.png", "--mask", "mask.png"]),
    "evaluate": (EvaluateArguments, ["runs/mine"]),
    "sweep": (SweepArguments, ["runs/mine", "--features", "features.pt"]),
    "explain": (ExplainArguments, ["runs/mine"]),
    "app": (AppArguments, ["runs/mine"]),
    "export": (ExportArguments, ["runs/mine"]),
    "push": (PushArguments, ["runs/mine", "owner/name"]),
    "prepare": (PrepareArguments, ["path/to/images", "sets/mine", "--size", "64"]),
    "info": (InfoArguments, []),
    "status": (StatusArguments, ["runs"]),
}
"""All but `rin train`, with what each needs."""

STANDING = {"c": "3", "f": "8", "h": "32", "w": "32", "n": "4", "N": "4", "GIB": "80", "PRESET": "small-32"}
"""What to put in for what pages write in its place."""


def understood(name, words):
    """Holds a command to take these words after what it needs."""
    if name == "train":
        is_of_clips = "--model.num-context-frames" in words or (words[0] == "--model.shape" and len(words) == 5)
        preset = "moving-shapes" if is_of_clips else "small-32"
        train([preset, *words, "--dry-run"])
    else:
        kind, needed = COMMANDS[name]
        parse(kind, [*needed, *words], f"rin {name}")


@cache
def options(name):
    """All that a command's help lists."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("sys.stdout.write", lines.append)
        with pytest.raises(SystemExit, match="0"):
            understood(name, ["--help"])
    return set(re.findall(r"--[a-z][\w.-]*", "".join(lines)))


@cache
def other_options():
    """Those of what is no `rin`: benchmarks, studies, the scripts of docs and tests."""
    files = (
        file
        for folder in ("benchmarks", "studies", "docs", "tests", "src/rin/interop/exporting")
        for file in (ROOT / folder).glob("*.py")
    )
    return set(re.findall(r'"(--[a-z][\w-]*)"', "".join(file.read_text(encoding="utf-8") for file in files)))


EVERYTHING = list(dict.fromkeys(words for page in PAGES for words in between_backticks(page.read_text("utf-8"))))
EVERY_OPTION = [words for words in EVERYTHING if re.match(r"--[a-z]", words)]
EVERY_OUTLINE = [words for words in EVERYTHING if re.match(r"rin \w+ ", words) and re.search(PLACEHOLDERS, words)]
"""Commands in which a reader puts something in; test_docs.py runs the others."""


def check(text):
    words = shlex.split(text)
    names = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    taking = [name for name in ("train", *COMMANDS) if names <= options(name)]
    assert taking or names <= other_options(), f"no command has {text}"
    has_value = len(words) > len(names) or all(re.search(r"--(\w+\.)*no-", name) for name in names)
    if taking and has_value:
        refusals = [refusal for name in taking if (refusal := refused(name, words))]
        if len(refusals) == len(taking):
            raise refusals[0]


def refused(name, words):
    """Why a command does not take these words; None if it does."""
    try:
        understood(name, [STANDING.get(word, word) for word in words])
    except RinError as refusal:
        return refusal
    return None


def test_there_are_many():
    assert len(EVERY_OPTION) > 40
    assert len(EVERY_OUTLINE) > 5


@pytest.mark.parametrize("text", EVERY_OPTION)
def test_an_option_that_is_named_is_one(text):
    check(text)


@pytest.mark.parametrize("text", EVERY_OUTLINE)
def test_a_command_in_outline_is_understood(text):
    _, name, *words = text.replace(" ...", "").split()
    name = "train" if name == "COMMAND" else name
    words = [STANDING.get(word, word) for word in words]
    if "--help" in words:
        options(name)
    elif name == "train":
        train([*words, "--dry-run"])
    else:
        parse(COMMANDS[name][0], words, f"rin {name}")


@pytest.mark.parametrize("text", ["--data.pth PATH", "--training.compil", "--clips.rat 8"])
def test_a_misspelt_option_is_none(text):
    with pytest.raises(AssertionError, match="no command has"):
        check(text)


@pytest.mark.parametrize("text", ["--training.optimiser adam", "--sampler dddim", "--training.further-decays 0.999"])
def test_a_value_that_an_option_does_not_take_is_refused(text):
    with pytest.raises(RinError):
        check(text)
