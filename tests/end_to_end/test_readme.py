"""What the README says works as it is written."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from rin.cli.arguments import parse
from rin.cli.evaluate import EvaluateArguments
from rin.cli.info import InfoArguments
from rin.cli.prepare import PrepareArguments
from rin.cli.sample import SampleArguments
from rin.cli.status import StatusArguments
from rin.cli.train import train
from tests.end_to_end.commands import TINY, rin

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


GUIDES = [
    (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("scale.md", "video.md", "evaluation.md", "reliability.md", "extending.md")
]
ARGUMENTS = {
    "sample": SampleArguments,
    "evaluate": EvaluateArguments,
    "info": InfoArguments,
    "prepare": PrepareArguments,
    "status": StatusArguments,
}


def blocks(text, language):
    """The contents of the fenced blocks of a language, or of none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [content for name, content in fenced if name == language]


def commands(text):
    """Every `rin ...` in a block or between backticks that is a whole command, under torchrun or not."""
    lines = [line.partition("  #")[0] for block in blocks(text, "sh") for line in block.splitlines()]
    in_blocks = [re.sub(r"^torchrun .* -m (?:-- )?rin\.cli ", "rin ", line) for line in lines]
    in_text = [word for word in re.findall(r"`(rin (?:\w+) [^`]*)`", text) if not re.search("PRESET|RUN|GPUS| N", word)]
    return [line for line in in_blocks if line.startswith("rin ")] + in_text


EVERY_COMMAND = list(dict.fromkeys(command for text in (README, *GUIDES) for command in commands(text)))


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_a_command_of_the_readme_is_understood(command, capsys):
    _, name, *arguments = shlex.split(command)
    if name != "train":
        parse(ARGUMENTS[name], arguments, f"rin {name}")
    elif "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            train(arguments)
    else:
        train([*arguments, "--dry-run"])
    assert name != "train" or capsys.readouterr().out


def test_the_make_targets_of_the_readme_are_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([\w-]+)$|`make ([\w-]+)`", README, flags=re.MULTILINE))
    assert {first or second for first, second in named} <= targets
    assert {"demo", "test"} <= targets


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    run = tmp_path / "demo" / "run"
    result = rin("train", "digits", *TINY, "--training.num-steps", "2", "--out", run, afresh=True)
    assert result.returncode == 0, result.stderr
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(README, "python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    names = {}
    exec(block, names)
    assert names["images"].shape == (3, 1, 8, 8)
    assert (tmp_path / "demo" / "model" / "model.safetensors").exists()
    assert names["loss"].isfinite()


def test_the_tree_of_contributing_is_there():
    (tree,) = blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "")
    paths = [path for line in tree.splitlines() for path in line.split("  ")[0].split(", ")]
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "src" / "rin" / path).exists(), path
    for folder in (ROOT / "src" / "rin").iterdir():
        if folder.is_dir() and not folder.name.startswith("__"):
            assert f"src/rin/{folder.name}" in paths, folder.name


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_page_of_docs_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert page.name == "index.md" or f"{page.name})" in index, page.name


def test_no_import_of_the_package_points_upwards_and_the_figure_shows_all():
    figure = runpy.run_path(str(ROOT / "docs" / "layers.py"))
    assert figure["page"]() == (ROOT / "docs" / "layers.md").read_text(encoding="utf-8"), "python docs/layers.py"


def kinds():
    """The rows of docs/reliability.md: what was tried, how many cases, and the tests, as (file, name), in its links."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| (.*) \|$", text, flags=re.MULTILINE):
        tried, count, _, links = row.split(" | ")
        if count.isdecimal():
            files = re.findall(r'\]\(\.\./tests/([\w/.]+) "([\w ]+)"\)', links)
            yield pytest.param(int(count), [(file, name) for file, names in files for name in names.split()], id=tried)


@pytest.mark.parametrize(("count", "tests"), list(kinds()))
def test_a_row_of_the_reliability_table_has_the_tests_that_it_names(count, tests, request):
    assert tests
    for file, name in tests:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), flags=re.MULTILINE), name
    names = [item.nodeid.removeprefix("tests/").partition("[")[0] for item in request.session.items]
    collected = [tuple(name.split("::")) for name in names]
    is_whole = not request.config.option.keyword and not any("::" in arg for arg in request.config.args)
    if is_whole and {file for file, _ in tests} <= {file for file, _ in collected}:
        assert sum(map(collected.count, tests)) == count
