"""Runs the tests on a copy of the code with one place changed."""

import os
import shutil
from pathlib import Path

from tests.forking import Forking

ROOT = Path(__file__).resolve().parents[2]
FORKING = Forking(["pytest", "torch", "torch._dynamo", "sklearn.datasets"])


def copy_code(folder):
    """The code and its tests, copied into a folder."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder, tests):
    """Pytest's exit status on a copy, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    for name in ("RIN_REFERENCE_CASES", "PYTEST_ADDOPTS", "JAXTYPING_DISABLE", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    # without the shape checks' hook, which takes most of a short run: what a mutant breaks, the tests see by themselves
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=-ra --strict-markers", *tests]
    running = FORKING.start("tests.on_a_copy", arguments, cwd=folder, environment=environment)
    out, err = running.communicate()
    return running.returncode, out + err


def killer(mutant, folder):
    """The test that notices a mutant, None if none does; works on a fresh copy of the code in `folder`."""
    file = folder / "src" / "rin" / mutant.file
    code = file.read_text()
    assert code.count(mutant.original) == 1, f"{mutant.name}: its text stands {code.count(mutant.original)} times"
    file.write_text(code.replace(mutant.original, mutant.mutated))
    try:
        status, output = run_tests(folder, mutant.tests)
    finally:
        file.write_text(code)
    if status == 0:
        return None
    assert status == 1, f"{mutant.name}: pytest ended with {status}\n{output}"
    failed = [line.split()[1] for line in output.splitlines() if line.startswith("FAILED ")]
    assert failed, f"{mutant.name}: red, but no test failed\n{output}"
    return failed[0]
