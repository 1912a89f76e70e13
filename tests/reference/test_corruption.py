"""The reference tests can fail: a corrupted copy of any case, a strange one or none at all makes them red."""

from pathlib import Path

import numpy as np
import pytest

from tests.reference import case, test_reference

OWN_CASES = sorted((Path(__file__).parent / "cases").glob("*.npz"))
"""The project's own, whatever RIN_REFERENCE_CASES says: here the tests are tested."""

EXPECTED = {
    "image": ("out/", "out_cold/"),
    "video": ("out/",),
    "tokens": ("out/",),
    "schedules": ("gamma/",),
    "parametrisations": ("eps/", "x/", "v/"),
    "sample": ("out/",),
    "train": ("step0/loss", "grad/", "end/", "ema/"),
    "init": ("std/",),
    "lr": ("cosine", "linear", "none"),
}
"""What a case of each kind expects, by the beginnings of the names."""


def expected_names(arrays, kind):
    """One expected output of each kind in a case, the last one, that is not a key's bias (no output by mathematics)."""
    for beginning in EXPECTED[kind]:
        names = [name for name in arrays if name.startswith(beginning) and not name.endswith("key/bias")]
        names = [name for name in names if np.abs(arrays[name]).max() > 0]
        if names:
            yield names[-1]


def corrupted(array, kind):
    """The array with one number changed by 1e-3 (learning rates are smaller), or an initial deviation by 5 %."""
    changed = np.array(array, copy=True)
    if kind == "init":
        return (changed * 1.05).astype(changed.dtype)
    changed.reshape(-1)[changed.size // 2] += 1e-6 if kind == "lr" else 1e-3
    return changed


@pytest.mark.parametrize("path", OWN_CASES, ids=lambda path: path.stem)
def test_a_corrupted_case_fails(path, tmp_path):
    with np.load(path) as archive:
        arrays = dict(archive)
    kind = path.stem.split("_")[0]
    names = list(expected_names(arrays, kind))
    assert names
    for name in names:
        np.savez(tmp_path / path.name, **(arrays | {name: corrupted(arrays[name], kind)}))
        with pytest.raises(AssertionError):
            test_reference.check(tmp_path / path.name)


def test_a_case_of_an_unknown_kind_fails(tmp_path):
    np.savez(tmp_path / "sculpture_1.npz", config="{}")
    with pytest.raises(AssertionError, match="no check for a case of kind 'sculpture'"):
        test_reference.check(tmp_path / "sculpture_1.npz")


def test_a_case_with_something_that_nothing_checks_fails(tmp_path):
    path = next(path for path in OWN_CASES if path.stem.startswith("schedules"))
    with np.load(path) as archive:
        np.savez(tmp_path / path.name, **archive, more=np.zeros(3))
    with pytest.raises(AssertionError, match="nothing checked"):
        test_reference.check(tmp_path / path.name)


def test_an_empty_folder_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(case, "FOLDER", tmp_path)
    monkeypatch.setattr(test_reference, "FOLDER", tmp_path)
    with pytest.raises(AssertionError, match="no reference cases"):
        test_reference.test_there_are_cases()
