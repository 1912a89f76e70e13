"""What the pages say is there, and the README's Python runs; their commands are run in test_docs.py."""

import re
import runpy

import pytest

from tests.end_to_end.commands import TINY, rin
from tests.end_to_end.documentation import PAGES, ROOT, blocks


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    run = tmp_path / "demo" / "run"
    result = rin("train", "digits", *TINY, "--training.num-steps", "2", "--out", run)
    assert result.returncode == 0, result.stderr
    monkeypatch.chdir(tmp_path)
    (block,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def anchors(page):
    """What a page's headings are linked to by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_heading_that_a_page_links_to_is_there(page):
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


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
