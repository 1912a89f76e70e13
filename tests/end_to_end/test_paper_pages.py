"""What docs/paper-map.md and docs/departures.md name is there, and the paper's presets are as departures.md says."""

import pkgutil
import re
import shlex

import pytest

from rin.cli import COMMANDS
from rin.cli.arguments import parse
from rin.cli.train import TrainArguments
from rin.experiment import to_dict
from rin.interop import pix2seq
from rin.preset_sources import SOURCES
from rin.presets import preset, preset_names
from studies.arms import ARMS
from tests.end_to_end.documentation import PAGES, ROOT, between_backticks
from tests.mutants import MUTANTS

PAPER_PAGES = {page.name: page.read_text("utf-8") for page in PAGES if page.name in ("paper-map.md", "departures.md")}
NAMES = sorted({name for text in PAPER_PAGES.values() for name in between_backticks(text) if name[:2] != "--"})
TESTS = sorted(
    {
        (file, name)
        for text in PAPER_PAGES.values()
        for file, names in re.findall(r'\]\(\.\./(tests/[\w/.]+) "([\w ]+)"\)', text)
        for name in names.split()
    }
)
WORDS = {
    *preset_names(),
    *ARMS,
    *(mutant.name for mutant in MUTANTS),
    *(f"rin {command}" for command in COMMANDS),
    *pix2seq.ARCHITECTURE, *pix2seq.DIFFUSION, *pix2seq.TRAINING, *pix2seq.LEFT_OUT, *pix2seq.WITHOUT_EFFECT,
}  # fmt: skip
"""Presets, arms of studies, mutants, commands, and options of the original."""


def is_option(name):
    """Whether a dotted name is an option, as in model.mixing_size."""
    options = to_dict(preset("small-32"))
    for part in name.split("."):
        if not isinstance(options, dict) or part not in options:
            return False
        options = options[part]
    return True


def is_there(name):
    """Whether a name stands for a file, something in the code, an option, or one of `WORDS`."""
    if name in WORDS or is_option(name):
        return True
    if re.fullmatch(r"rin(\.\w+)+", name):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            return False
        return True
    return ("/" in name or "." in name) and (ROOT / name).exists()


def options_taken_back():
    """The options in the last column of the table of what is only done if asked for."""
    table = PAPER_PAGES["departures.md"].partition("\n## If asked for")[2].partition("\n## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", table, flags=re.MULTILINE)]
    return [option for row in rows for option in between_backticks(row[-1]) if option.startswith("--")]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_is_there(name):
    assert is_there(name)


@pytest.mark.parametrize(
    "name",
    ["rin.nn.blocks.Blok", "rin.nn.block", "src/rin/nn/block.py", "model.mixing", "seed.mixing", "imagenet-65", "time"],
)
def test_what_is_misnamed_is_not(name):
    assert not is_there(name)


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_test_that_is_named_is_there(file, name):
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), flags=re.MULTILINE)


def test_there_are_many():
    assert len(PAPER_PAGES) == 2
    assert len(NAMES) > 100
    assert len(TESTS) > 60


@pytest.mark.parametrize("option", options_taken_back())
@pytest.mark.parametrize("name", SOURCES)
def test_presets_of_the_paper_do_nothing_that_is_only_done_if_asked_for(name, option):
    default = TrainArguments(experiment=preset(name), out=ROOT)
    assert parse(TrainArguments, shlex.split(option), "rin train", default) == default


def test_there_are_options_to_take_back():
    assert len(options_taken_back()) > 10
