"""The quarter of an hour on a GPU, rehearsed with toys on this machine."""

import io
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import rin
from rin.core.pixels import to_pictures
from rin.data.preparing import Preparation, prepare_set
from tests.end_to_end.commands import ROOT


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean(dim=(2, 3)) / 255


def picture(number):
    """A picture of 32x32 in one colour, as a parquet file has it."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (6 * number, 128, 255 - 6 * number)).save(file, format="png")
    return {"bytes": file.getvalue(), "path": None}


def rehearse(folder, *parts):
    """The script's answer."""
    environment = {**os.environ, "REHEARSAL": "1", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    script = [ROOT / "examples/gpu_quarter_hour.sh", folder / "cifar10", folder / "features.pt", folder / "out", *parts]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=1200)


@pytest.fixture
def inputs(tmp_path):
    """A folder with a set of CIFAR-10's kind and a feature network."""
    (tmp_path / "cifar10").mkdir()
    table = pa.table({"img": [picture(number) for number in range(40)], "label": [number % 10 for number in range(40)]})
    pq.write_table(table, tmp_path / "cifar10/train-00000-of-00001.parquet")
    torch.jit.script(Mean()).save(str(tmp_path / "features.pt"))
    return tmp_path


def test_a_model_is_trained_and_its_weights_are_saved(inputs):
    prepare_set(Preparation(source=str(inputs / "cifar10"), shape=(3, 32, 32)), inputs / "out/set")  # without a process
    answer = rehearse(inputs, "training", "weights")
    assert answer.returncode == 0, answer.stdout
    assert [line.split(":")[0] for line in answer.stdout.splitlines()] == ["training", "weights"]
    trained = rin.load(inputs / "out/model")
    assert trained.config.mixing_size == rin.preset("cifar10-modern").model.mixing_size
    assert to_pictures(trained.sample(num=2, num_steps=1)).shape == (2, 3, 32, 32)


def test_a_part_that_fails_is_named(inputs):
    answer = rehearse(inputs, "weights")
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-1] == "failed: weights"
    assert "give a run, a saved model or a Hub name" in answer.stdout


@pytest.mark.slow
def test_all_of_it_ends_well(inputs):
    answer = rehearse(inputs)
    assert answer.returncode == 0, answer.stdout
    left = {path.name for path in (inputs / "out").iterdir()}
    assert {"measures.json", "steps-ddim-25.json", "results.jsonl", "samples.png", "model"} <= left
