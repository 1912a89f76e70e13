"""Runs opened for a page: averages, and what samples begin from."""

import shutil
import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image

import rin
from rin.app.drawing import Choices, drawn
from rin.app.opened import Opened
from rin.app.results import files, picture
from rin.app.routing import explained

SMALL = {
    "num_latents": 8, "latent_dim": 32, "interface_dim": 16, "compute_depth": (1,), "num_heads": 2,
    "num_read_write_heads": 2,
}  # fmt: skip


def run(folder, name, model=None, data=None, **training):
    """A run of a preset so small that it takes moments."""
    experiment = rin.preset(name)
    begun = replace(
        experiment,
        model=replace(experiment.model, **(SMALL | (model or {}))),
        diffusion=replace(experiment.diffusion, num_steps=3),
        data=replace(experiment.data, num_held_out=4, **(data or {})),
        training=replace(
            experiment.training,
            **{
                "num_steps": 2,
                "batch_size": 4,
                "warmup_steps": 0,
                "held_out_every": 0,
                "sample_every": 0,
                **training,
            },
        ),
    )
    rin.train(begun, folder)
    return folder


def last(opened, **choices):
    *_, end = drawn(opened, Choices(**choices), threading.Event())
    return end


def test_averages_are_read_as_they_are_asked_for(tmp_path):
    folder = run(tmp_path / "run", "digits", further_decays=(0.5,), num_steps=20, learning_rate=0.02)
    opened = Opened(str(folder))
    first, *others = opened.averages
    assert others == [0.5]
    seen = []
    for decay in (None, 0.5, first, 0.5, None):
        expected = rin.load(folder, average_decay=decay).sample([0], seed=1)
        assert last(opened, classes=(0,), num=1, seed=1, average=decay).samples.equal(expected)
        seen.append(expected)
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_clips_go_on_from_held_out_ones(tmp_path):
    shapes = replace(rin.preset("moving-shapes").data.moving_shapes, num_clips=20)
    folder = run(tmp_path / "run", "moving-shapes", {"patch_size": 16}, {"moving_shapes": shapes})
    opened = Opened(str(folder))
    kind = opened.kind
    end = last(opened, num=2)
    context = opened.context(opened.trained(), 2, None)
    assert end.samples.shape[2] == kind.num_context_frames + kind.num_frames
    torch.testing.assert_close(end.samples[:, :, : kind.num_context_frames], context)
    assert picture(end, kind) is not None
    assert files(end, kind, opened.values, (), tmp_path)[0].name == "clips.gif"
    assert len(explained(opened, Choices(), 2).moments) == 3
    opened.trained().save(tmp_path / "saved")
    with pytest.raises(rin.RinError, match=r"nothing that clips could go on from in a page.*--context of rin sample"):
        Opened(str(tmp_path / "saved"))


def test_pictures_and_captions_to_begin_with_are_held_out_ones(tmp_path):
    larger = Opened(str(run(tmp_path / "larger", "digits", data={"degrade": "downscale 2"})))
    assert larger.condition.size == (4, 4)
    assert last(larger, num=2, condition=larger.condition).samples.shape == (2, 1, 8, 8)
    holes = Opened(str(run(tmp_path / "holes", "digits", data={"degrade": "mask free-form"})))
    assert (holes.condition.mode, holes.condition.size) == ("LA", (8, 8))
    assert last(holes, num=2, condition=holes.condition).samples.shape == (2, 1, 8, 8)
    folder = run(tmp_path / "captions", "captions", {"num_latents": 80, "patch_size": 8})
    captions = Opened(str(folder))
    assert captions.caption.startswith("a ")
    assert last(captions, num=1, prompt=captions.caption).samples.shape[0] == 1
    captions.trained().save(tmp_path / "saved")
    assert Opened(str(tmp_path / "saved")).caption == ""


def test_data_that_is_gone_is_no_hindrance(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / f"images/{number}.png")
    changes = {"shape": (3, 8, 8), "patch_size": 4, "num_classes": 0}
    folder = run(tmp_path / "run", "small-32", changes, {"path": str(tmp_path / "images"), "degrade": "grey"})
    assert Opened(str(folder)).condition.mode == "L"
    shutil.rmtree(tmp_path / "images")
    opened = Opened(str(folder))
    assert opened.condition is None
    with pytest.raises(rin.RinError, match="draws from a picture"):
        last(opened)
