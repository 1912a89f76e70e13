"""What models that draw by captions are asked for while they are measured: the captions of what they are beside."""

import numpy as np
import pytest
import torch
from PIL import Image

import rin
from rin import DataConfig, RinError
from rin.data.feeding.media_sets import MediaInMemory
from rin.evaluation.restored import measured_restored
from rin.evaluation.sets import measured_sets
from rin.evaluation.video_distance import _drawn
from rin.model_files import read_experiment
from tests.unit.models import short_run, small

READS = {"num_classes": 0, "caption_length": 12, "num_latents": 16}


@pytest.fixture
def asked(monkeypatch):
    """The captions of all samples that are drawn, in place of drawing them."""
    heard = list[str]()

    def sample(model, labels, _=None, **__):
        texts = model.kind.captions.texts[labels]
        heard.extend(bytes(text[text > 0].tolist()).decode() for text in texts)
        return torch.zeros(len(labels), *model.kind.shape)

    monkeypatch.setattr(rin.TrainedModel, "sample", sample)
    return heard


def run_on(data, folder, **model):
    experiment = rin.ExperimentConfig(
        model=small(**READS, **model),
        diffusion=rin.DiffusionConfig(num_steps=2, label_drop_rate=0.1),
        data=data,
        training=short_run(1),
    )
    return rin.train(experiment, folder), read_experiment(folder)


def texts_of(media, num):
    return [media.class_names[label] for label in media.get(torch.arange(num))[1].tolist()]


def test_sets_are_drawn_by_the_captions_of_those_beside_them(tmp_path, asked):
    x = np.random.default_rng(0).normal(size=(60, 6, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, captions=np.array([f"number {row}" for row in range(60)]))
    data = DataConfig(path=str(tmp_path / "a.npz"), num_held_out=6, value_range=(-5.0, 5.0))
    trained, experiment = run_on(data, tmp_path / "run", shape=(6, 2), patch_size=1)
    measured_sets(trained, tmp_path / "run", None, 0)
    assert asked == texts_of(rin.open_data(experiment.data, (6, 2)).held_out, 6)
    assert len(set(asked)) == 6


def test_restored_pictures_are_drawn_by_their_captions(tmp_path, asked):
    (tmp_path / "set").mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8), (6 * number, 0, 0)).save(tmp_path / "set" / f"{number}.png")
        (tmp_path / "set" / f"{number}.txt").write_text(f"number {number}")
    data = DataConfig(path=str(tmp_path / "set"), captions="txt", degrade="downscale 2", num_held_out=4)
    trained, experiment = run_on(data, tmp_path / "run")
    measured_restored(trained, tmp_path / "run", experiment, None)
    assert asked == texts_of(rin.open_data(experiment.data, (3, 8, 8)).held_out, 4)
    assert len(set(asked)) == 4


def test_clips_are_drawn_by_the_captions_of_those_beside_them(asked):
    config = small(**READS, shape=(3, 2, 8, 8), num_context_frames=1)
    trained = rin.TrainedModel(rin.RIN(config), rin.Diffusion(rin.DiffusionConfig(num_steps=2)), config)
    clips = torch.zeros(3, 3, 3, 8, 8, dtype=torch.uint8)
    conditions = MediaInMemory(clips, torch.tensor([2, 0, 1]), ("up", "down", "left"))
    assert [part.shape for part in _drawn(trained, conditions, 5, {})] == [(5, 3, 3, 8, 8)]
    assert asked == ["left", "up", "down", "left", "up"]


def test_clips_are_not_drawn_without_their_captions():
    config = small(**READS, shape=(3, 2, 8, 8))
    trained = rin.TrainedModel(rin.RIN(config), rin.Diffusion(rin.DiffusionConfig(num_steps=2)), config)
    with pytest.raises(RinError, match="draws by captions"):
        next(_drawn(trained, None, 5, {}))
    trained.kind = small(num_classes=0, shape=(3, 2, 8, 8), num_condition_tokens=2, condition_dim=8).kind
    with pytest.raises(RinError, match="embeddings of your own"):
        next(_drawn(trained, None, 5, {}))
