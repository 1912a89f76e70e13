"""The notebooks run from top to bottom, with fewer updates, and hold what a whole run of them gave."""

import json
import re
import tempfile

import pytest

from tests.end_to_end.documentation import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def cells(notebook):
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_there_are_some():
    assert [notebook.stem for notebook in NOTEBOOKS] == ["digits", "own_network", "points"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = {"__name__": "notebook"}
    for number, cell in enumerate(cells(notebook), start=1):
        code = re.sub(r"num_steps=\d+", "num_steps=4", "".join(cell["source"]))
        exec(compile(code, f"{notebook.name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_holds_what_a_whole_run_gave(notebook):
    code = cells(notebook)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not re.search(r'"/(?:tmp|root|home|work)/', notebook.read_text(encoding="utf-8"))
