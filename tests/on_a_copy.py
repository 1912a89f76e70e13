"""Pytest on a copy of the code, in a fork of a process that has none of the code yet: see tests/mutants."""

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments):
    """Runs pytest in the current folder, after making sure that the copy there is what gets imported."""
    import pytest

    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    others = [path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "src")]
    sys.path[:] = [str(Path("src").resolve()), *others]
    importlib.invalidate_caches()
    assert "rin" not in sys.modules
    found = Path(importlib.util.find_spec("rin").origin).resolve()
    assert found.is_relative_to(Path("src").resolve()), f"{found} is not the copy"
    sys.exit(int(pytest.main(arguments)))
