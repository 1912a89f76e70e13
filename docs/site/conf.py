"""The pages and the reference as a site: `make site`.

The pages are taken as they are, and the table of docs/index.md is the site's contents.
"""

import re
from importlib.metadata import version as version_of
from itertools import groupby
from pathlib import Path
from typing import Any

project = "rin"
release = version_of("rin-diffusion")
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/site/reference.md",
    "weights/**.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
suppress_warnings = ["misc.highlighting_failure"]  # the drawing of layers.md is GitHub's kind

myst_heading_anchors = 4
autodoc_member_order = "bysource"
default_role = "code"

html_theme = "furo"
html_title = "rin"
html_copy_source = False


def _with_contents(_: Any, docname: str, source: list[str]) -> None:
    """Makes the pages of the table the contents at the side."""
    if docname == root_doc:
        pages = re.findall(r"^\| \[.*?\]\((.*?)\.md\)", source[0], re.MULTILINE)
        entries = "\n".join(page.replace("../", "/") for page in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{entries}\n/weights/*/README\nsite/reference\n```\n"


def _tables(_: Any, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    """Docstrings are Markdown, and Sphinx reads another markup: only tables differ."""
    parts = [(is_table, list(rows)) for is_table, rows in groupby(lines, lambda line: line.startswith("|"))]
    lines[:] = [line for is_table, rows in parts for line in (_table(rows) if is_table else rows)]


def _table(rows: list[str]) -> list[str]:
    table = [".. list-table::", "   :header-rows: 1", ""]
    for row in (rows[0], *rows[2:]):  # not the line below the names
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        table += [f"   {'*' if not place else ' '} - {cell}" for place, cell in enumerate(cells)]
    return [*table, ""]


def _first_page(app: Any, failure: Exception | None) -> None:
    """Sends those who open the site's folder to its first page."""
    if failure is None and app.builder.name == "html":
        Path(app.outdir, "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n')


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _with_contents)
    app.connect("autodoc-process-docstring", _tables, priority=100)  # before Google's sections are read
    app.connect("build-finished", _first_page)
