"""The site of the documentation is built from the pages, and a link that leads nowhere is an error."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rin

ROOT = Path(__file__).parents[2]


def build(source, out):
    """Builds it as `make site` does; what it said."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs/site", source, out]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_it(site):
    for page in [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("weights/**/*.md")]:
        assert (site / page.relative_to(ROOT)).with_suffix(".html").exists(), page
    assert "docs/index.html" in (site / "index.html").read_text()


def test_the_reference_has_every_public_name(site):
    reference = (site / "docs/site/reference.html").read_text()
    missing = [name for name in rin.__all__ if f'id="rin.{name}"' not in reference]
    assert missing == ["interop"]  # a module, whose functions are named where they are used


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not re.findall(r'src="https?:[^"]*|<link[^>]* href="https?:[^"]*', page.read_text()), page


def test_a_link_that_leads_nowhere_is_an_error(tmp_path):
    pages = tmp_path / "pages"
    (pages / "docs/site").mkdir(parents=True)
    (pages / "docs/index.md").write_text("# Pages\n\n[one](gone.md)\n")
    (pages / "docs/site/reference.md").write_text("# Reference\n")
    done = build(pages, tmp_path / "out")
    assert done.returncode != 0
    assert "gone.md" in done.stderr
