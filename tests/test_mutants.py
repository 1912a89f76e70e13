"""Undoing any detail that ports get wrong must turn a test red."""

import pytest

from tests.mutants import MUTANTS
from tests.mutants.running import copy_code, killer


def marked(mutant):
    return pytest.param(mutant, id=mutant.name, marks=[] if mutant.quick else [pytest.mark.slow])


@pytest.mark.parametrize("mutant", [marked(mutant) for mutant in MUTANTS])
def test_a_test_notices(mutant, tmp_path):
    copy_code(tmp_path)
    assert killer(mutant, tmp_path), f"no test notices that this is undone: {mutant.undoes}"


def test_mutants_have_names_of_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
