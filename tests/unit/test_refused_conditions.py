"""Conditions that no data has, and pictures that no model has learned from: refused in one line."""

import dataclasses
import json
import logging

import pytest
import torch

import rin
from rin import Diffusion, DiffusionConfig, RinError
from rin.cli import main
from rin.data import OpenedData
from rin.data.config import DataConfig
from rin.data.feeding.media_sets import MediaInMemory
from rin.evaluation.videos import check_pictures
from rin.experiment import ExperimentConfig, to_dict
from rin.training.config import TrainingConfig
from rin.training.trainer import Trainer
from tests.unit.models import new, small

EMBEDDINGS = small(num_condition_tokens=3, condition_dim=6)


def trainer(folder):
    media = MediaInMemory(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a",))
    data = OpenedData(training=media, held_out=media)
    return Trainer(
        TrainingConfig(), EMBEDDINGS.kind, new(EMBEDDINGS), Diffusion(DiffusionConfig()), data, folder, 0, False
    )


@pytest.mark.parametrize(
    "start", [lambda out: rin.train(ExperimentConfig(model=EMBEDDINGS), out), trainer], ids=["run", "Trainer"]
)
def test_a_condition_that_no_data_has_is_refused_before_anything_is_written(tmp_path, start):
    with pytest.raises(RinError, match=r"model\.num_condition_tokens 3: the data has no embeddings"):
        start(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_line_refuses_it_too(tmp_path, capsys):
    options = ["--model.num-condition-tokens", "3", "--model.condition-dim", "6", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as left:
        main(["train", "digits", *options])
    assert left.value.code == 2
    assert "model.num_condition_tokens 3: the data has no embeddings" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "refused"),
    [({}, True), ({"pictures_path": "x", "pictures_rate": 0.0}, True), ({"pictures_path": "x"}, False)],
)
def test_pictures_of_a_run_that_has_learned_from_clips_alone_are_refused(tmp_path, data, refused):
    experiment = dataclasses.replace(ExperimentConfig(), data=DataConfig(**data))
    stored = {"format_version": 1, "class_names": []} | to_dict(experiment)
    (tmp_path / "config.json").write_text(json.dumps(stored))
    (tmp_path / "checkpoints").mkdir()
    if refused:
        with pytest.raises(RinError, match="has learned from clips alone: take 2 to 8 frames"):
            check_pictures(tmp_path, 8)
    else:
        check_pictures(tmp_path, 8)


def test_of_a_saved_model_it_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        check_pictures(tmp_path, 8)
    assert "only if the model has learned from some" in caplog.text
