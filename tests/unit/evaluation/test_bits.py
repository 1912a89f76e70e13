"""Bits per dimension of held-out data of every kind, beside those that Python tells of the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rin
from rin import RinError, to_floats
from rin.data import held_out_degraded
from rin.evaluation import likelihood
from rin.evaluation.likelihood import measured_bits
from tests.unit.models import VIDEO, moved, small, trained

CAPTIONS = ("a red disc", "two bars")


class HeldOut:
    """Examples in memory."""

    def __init__(self, media, labels, class_names=()):
        self.media, self.labels, self.class_names = media, labels, class_names

    def __len__(self):
        return len(self.media)

    def get(self, index):
        return self.media[index], self.labels[index]


def bits_of_both(monkeypatch, changes, media, labels, names=(), degrade="", asked=None, **given):
    """What is measured of held-out examples, and what `rin.bits_per_dim` says of them."""
    model = trained(moved(small(**changes)))
    monkeypatch.setattr(likelihood, "held_out_of", lambda *_: HeldOut(media, labels, names))
    experiment = rin.preset("digits")
    experiment = replace(experiment, data=replace(experiment.data, degrade=degrade))
    found = measured_bits(model, Path("run"), experiment, 3, num_steps=2, seed=7, batch_size=2)
    x = media[:3, :, VIDEO["num_context_frames"] :] if "temporal_patch_size" in changes else media[:3]
    return found, rin.bits_per_dim(model, x, asked, num_steps=2, seed=7, **given)


def pixels(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).byte()


LABELS = torch.tensor([1, 0, 1, 0])


def assert_same(found, expected):
    assert found["bits_per_dim"] == pytest.approx(expected.bits.mean().item(), rel=1e-5)
    assert found["standard_error"] == pytest.approx(expected.bits.std().item() / 3**0.5, rel=1e-3)
    assert found["step_error"] == pytest.approx(expected.step_error.mean().item(), rel=1e-3)
    assert found["num_evaluations"] == expected.num_evaluations == 2 * (5 + 3)


def test_of_images_of_classes(monkeypatch):
    found, expected = bits_of_both(monkeypatch, {}, pixels(4, 3, 8, 8), LABELS, asked=[1, 0, 1])
    assert_same(found, expected)
    assert found["dequantised"]


def test_of_sets_of_floats(monkeypatch):
    points = torch.rand(4, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found, expected = bits_of_both(monkeypatch, {"shape": (9, 7), "num_classes": 0}, points, LABELS)
    assert_same(found, expected)
    assert not found["dequantised"]


def test_of_clips_after_their_context(monkeypatch):
    clips = pixels(4, 3, 6, 8, 8)
    changes, context = VIDEO | {"num_classes": 0}, to_floats(clips[:3, :, :3])
    assert_same(*bits_of_both(monkeypatch, changes, clips, LABELS, context=context))


def test_of_pictures_of_smaller_ones(monkeypatch):
    pictures, degrade = pixels(4, 3, 8, 8), "downscale 2"
    low = to_floats(held_out_degraded(pictures[:3], degrade, torch.arange(3)))
    changes = {"num_classes": 0, "condition_shape": (3, 4, 4)}
    assert_same(*bits_of_both(monkeypatch, changes, pictures, LABELS, degrade=degrade, condition=low))


def test_of_pictures_of_captions(monkeypatch):
    changes, asked = (
        {"num_classes": 0, "caption_length": 12, "num_latents": 16},
        [CAPTIONS[label] for label in (1, 0, 1)],
    )
    assert_same(*bits_of_both(monkeypatch, changes, pixels(4, 3, 8, 8), LABELS, CAPTIONS, asked=asked))


@pytest.mark.parametrize("num", [1, 5])
def test_as_many_as_are_held_out(monkeypatch, num):
    monkeypatch.setattr(likelihood, "held_out_of", lambda *_: HeldOut(pixels(4, 3, 8, 8), LABELS))
    with pytest.raises(RinError, match=f"--num {num}: run holds out 4 examples"):
        measured_bits(trained(moved(small())), Path("run"), rin.preset("digits"), num)
