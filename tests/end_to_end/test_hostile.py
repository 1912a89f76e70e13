"""Files made to run code when they are opened: refused, and the code is not run."""

import hashlib
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

import rin as library
from rin.core.errors import RinError
from rin.training import checkpoint
from tests.end_to_end.commands import TINY, rin

TRAIN = ["train", "digits", *TINY, "--training.num-steps", "2", "--training.checkpoint-every", "1"]


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def as_torch(path, mark):
    torch.save({"latents": Hostile(mark)}, path)


def as_pickle(path, mark):
    path.write_bytes(pickle.dumps(Hostile(mark)))


def as_numpy(path, mark):
    with path.open("wb") as file:
        np.save(file, np.array([Hostile(mark)], dtype=object), allow_pickle=True)


def as_zip(path, mark):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(mark)))


WAYS = pytest.mark.parametrize("write", [as_torch, as_pickle, as_numpy, as_zip])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    result = rin(*TRAIN, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@WAYS
def test_a_model_cannot_run_code(run, tmp_path, file, write):
    library.load(run).save(tmp_path / "model")
    write(tmp_path / "model" / file, tmp_path / "mark")
    with pytest.raises(RinError, match=r"damaged|no configuration"):
        library.load(tmp_path / "model")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("file", ["average.safetensors", "state.json"])
@WAYS
def test_a_checkpoint_cannot_run_code_even_with_checksums_that_fit(run, tmp_path, file, write):
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-000000002").mkdir(parents=True)
    (folder / "config.json").write_bytes((run / "config.json").read_bytes())
    kept = folder / "checkpoints" / "step-000000002"
    for part in (run / "checkpoints" / kept.name).iterdir():
        (kept / part.name).write_bytes(part.read_bytes())
    write(kept / file, tmp_path / "mark")
    if file != checkpoint.STATE:
        stored = json.loads((kept / checkpoint.STATE).read_text())
        stored["files"][file] = hashlib.sha256((kept / file).read_bytes()).hexdigest()
        stored.pop("sha256")
        (kept / checkpoint.STATE).write_text(json.dumps(checkpoint.sealed(stored)))
        assert checkpoint.damage(kept) is None
    with pytest.raises(RinError, match="damaged"):
        library.load(folder)
    with pytest.raises(RinError, match="damaged"):
        checkpoint.read(kept, checkpoint.AVERAGE)
    if write is as_torch:
        refused = rin(*TRAIN, "--training.num-steps", "3", "--out", folder)
        assert refused.returncode == 2
        assert "damaged" in refused.stderr
    assert not (tmp_path / "mark").exists()


def test_the_files_made_here_do_run_code(tmp_path):
    """Or the tests above would show nothing."""
    as_pickle(tmp_path / "file", tmp_path / "mark")
    pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "mark").exists()
