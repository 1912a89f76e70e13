"""Routing while samples come about, and the sheet that shows it."""

import pytest
import torch

import rin
from rin.diffusion import Diffusion, DiffusionConfig
from rin.nn import RIN, RINConfig
from rin.sampling.explaining import Routing, routing
from rin.sampling.routing_sheet import moments, most_concentrated, sheet
from rin.trained_model import TrainedModel


def toy(**sizes):
    torch.manual_seed(0)
    config = RINConfig(**{
        "shape": (3, 8, 12), "patch_size": 4, "num_latents": 6, "num_classes": 2, "latent_dim": 8, "interface_dim": 8,
        "compute_depth": (1, 1), "num_heads": 2, "num_read_write_heads": 2, **sizes,
    })  # fmt: skip
    return TrainedModel(RIN(config).eval(), Diffusion(DiffusionConfig(num_steps=5, label_drop_rate=0.1)), config)


def test_it_is_what_ordinary_sampling_draws_step_by_step():
    trained = toy()
    steps = rin.routing(trained, [0, 1], seed=3, num_times=3)
    assert [step.t for step in steps] == pytest.approx([1.0, 0.6, 0.2])
    torch.testing.assert_close(steps[-1].x_0, trained.sample([0, 1], seed=3))
    for step in steps:
        assert step.read.shape == (2, 2, 6, 6)
        assert step.write.shape == (2, 2, 6, 6)
        torch.testing.assert_close(step.computation.mean(-1), torch.ones(2))
    assert len(routing(trained, [0], num_times=100)) == 5
    assert len(routing(trained, [0], sampler="heun", guidance=1.0, num_steps=3)) == 3


@pytest.mark.parametrize("option", [{"compile": "on"}, {"batch_size": 1}, {"num_frames": 2}])
def test_what_it_cannot_look_at_is_refused(option):
    with pytest.raises(rin.RinError, match="leave"):
        routing(toy(), [0], **option)


def test_networks_without_latents_are_refused():
    trained = toy()
    trained.model = torch.nn.Linear(1, 1)
    with pytest.raises(rin.RinError, match="has no latents"):
        routing(trained, [0])


def reading(token, tokens=6, latents=6):
    """A step whose first latent reads nothing but one token, and whose others read all alike."""
    read = torch.full((1, 1, latents, tokens), 1 / tokens)
    read[0, 0, 2] = torch.nn.functional.one_hot(torch.tensor(token), tokens)
    return Routing(0.5, torch.zeros(1, 3, 8, 12), read, torch.full((1, 1, tokens, latents), 1 / latents), 2)


def test_latents_that_change_their_places_between_steps_are_not_shown():
    few, many = reading(4, latents=4), reading(4, latents=8)
    assert most_concentrated([few, few], 0, 9) == [2, 0, 1, 3]
    assert sorted(most_concentrated([few, many], 0, 9)) == [0, 1], "of 4 and of 8, two each are the condition's"


def test_the_sheet_is_bright_where_the_patch_is_that_is_read():
    trained, step = toy(), reading(4)  # of 2 by 3 patches the middle one below
    assert most_concentrated([step], 0, 1) == [2]
    picture = sheet([step], trained.model.tokenizer, num_latents=1)[0].float().mean(0)
    side = 96  # 8 pixels enlarged twelve times
    gap = (picture.shape[0] - 3 * side) // 4
    of_latent = picture[-gap - side : -gap, gap : gap + side * 3 // 2]
    bright = of_latent.reshape(2, 48, 3, 48).mean((1, 3)).flatten()
    assert bright.argmax() == 4
    assert (bright > 100).sum() == 1
    assert step.computation[0].argmax() == 4


def test_clips_have_a_column_a_frame_and_sets_are_points():
    clips = toy(shape=(1, 3, 8, 8), num_context_frames=2, patch_size=4, num_classes=0)
    steps = routing(clips, context=torch.zeros(1, 1, 2, 8, 8), num_times=2)
    assert steps[0].read.shape[-1] == 20, "the context's tokens are there, behind those of the clip"
    wide = sheet(steps, clips.model.tokenizer, num_latents=2)
    assert wide.shape[3] // 96 == 3
    assert wide.shape[2] // 96 == 4
    sets = toy(shape=(7, 2), set_positions=False)
    steps = routing(sets, [1], num_times=2)
    assert sheet(steps, sets.model.tokenizer, num_latents=2).shape[3] // 96 == 2
    of_sets = moments(steps, sets.model.tokenizer, num_latents=2)
    assert len(of_sets) == 2
    assert [side // 96 for side in of_sets[0].shape[2:]] == [2, 2], "four panels, about a square"
    signals = toy(shape=(1, 1, 12), patch_size=4)
    steps = routing(signals, [1], num_times=1)
    assert steps[0].read.shape[-1] == 3
