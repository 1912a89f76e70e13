"""The names of `rin` itself, and what does without them."""

import subprocess
import sys

import pytest

import rin
from rin import public


def without_torch(code):
    """What a new interpreter says in which importing PyTorch is an error."""
    code = f"import sys; sys.modules['torch'] = None\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_what_needs_no_pytorch_does_not_wait_for_it(arguments):
    done = without_torch(f"from rin.cli import main; main({arguments})")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_misspelt_command_needs_no_pytorch():
    done = without_torch("from rin.cli import main; main(['smaple'])")
    assert (done.returncode, done.stderr) == (2, "rin: unknown command 'smaple': did you mean 'sample'?\n")


def test_rin_has_the_public_names():
    assert all(getattr(rin, name) is getattr(public, name) for name in public.__all__)
    assert {*public.__all__} <= {*dir(rin)}


def test_all_of_rin_is_its_public_names():
    names = {}
    exec("from rin import *", names)
    assert {*public.__all__} == names.keys() - {"__builtins__"}


@pytest.mark.parametrize("name", ["Rin", "_RIN", "__wrapped__"])
def test_other_names_are_refused(name):
    with pytest.raises(AttributeError, match=f"module 'rin' has no attribute '{name}'"):
        getattr(rin, name)


def test_parts_can_be_had_without_being_imported():
    code = "import rin; print(rin.data.Batch.__name__, rin.RIN.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "Batch RIN\n")
