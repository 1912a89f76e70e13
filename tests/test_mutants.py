"""Undoing any detail that ports get wrong must turn a test red."""

import pytest

from tests.mutants import MUTANTS
from tests.mutants.running import ROOT, copy_code, killer


def marked(mutant):
    return pytest.param(mutant, id=mutant.name, marks=[] if mutant.quick else [pytest.mark.slow])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """One for all: what Python has compiled of it, and the checks of its signatures, are made once."""
    folder = tmp_path_factory.mktemp("copy")
    copy_code(folder)
    return folder


@pytest.mark.parametrize("mutant", [marked(mutant) for mutant in MUTANTS])
def test_a_test_notices(mutant, copy):
    assert killer(mutant, copy), f"no test notices that this is undone: {mutant.undoes}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_it_undoes_is_in_the_code_once(mutant):
    assert (ROOT / "src" / "rin" / mutant.file).read_text().count(mutant.original) == 1


def test_mutants_have_names_of_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
