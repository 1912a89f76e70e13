"""What is requested of sampling: followed, or refused in one line; and the model is left as it was."""

import numpy as np
import pytest
import torch

from rin import Diffusion, DiffusionConfig, RinError, TrainedModel
from rin.core.denoiser import Condition
from rin.core.seeds import picture_seeds
from rin.data.feeding.media_sets import MediaInMemory
from rin.diffusion.checks import check_data, whole_number
from rin.sampling.requests import count_of, label_list
from rin.training.held_out import held_out_losses
from tests.unit.models import VIDEO, moved, small

PROCESS = Diffusion(DiffusionConfig(num_steps=2))
DROPPED = Diffusion(DiffusionConfig(num_steps=2, label_drop_rate=0.1))
NAMES = ("ant", "bee", "cat", "dog", "elk")
CLIPS = {**VIDEO, "num_classes": 0}


def trained(diffusion=PROCESS, **changes):
    config = small(**changes)
    return TrainedModel(moved(config), diffusion, config, NAMES if config.num_classes else ())


def frames(num=2, count=3, height=8):
    return torch.rand(num, 3, count, height, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def refused(act):
    with pytest.raises(RinError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


# The mode of the model

DROPOUT = {"dropout_rate": 0.5, "depth_drop_rate": 0.5}
WAYS = {
    "Diffusion.sample": lambda it: DROPPED.sample(
        it.model, (2, 3, 8, 8), Condition(labels=torch.tensor([1, 2])), seeds=[0, 1]
    ),
    "Diffusion.sample, guided": lambda it: DROPPED.sample(
        it.model, (2, 3, 8, 8), Condition(labels=torch.tensor([1, 2])), seeds=[0, 1], guidance=2.0
    ),
    "TrainedModel.sample": lambda it: it.sample([1, 2]),
    "TrainedModel.sample, batch by batch": lambda it: it.sample([1, 2], batch_size=1),
    "held_out_losses": lambda it: torch.tensor(
        list(
            held_out_losses(
                it.model, it.diffusion, it.kind, MediaInMemory(torch.full((2, 3, 8, 8), 9, dtype=torch.uint8),
                torch.tensor([1, 2]), NAMES), 2, torch.device("cpu"),
            ).values()
        )
    ),
}  # fmt: skip
WAYS_OF_CLIPS = {
    "TrainedModel.sample": lambda it: it.sample(context=frames()),
    "TrainedModel.sample, block by block": lambda it: it.sample(context=frames(), num_frames=4),
}


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize(
    ("draw", "changes"),
    [*((draw, {}) for draw in WAYS.values()), *((draw, CLIPS) for draw in WAYS_OF_CLIPS.values())],
    ids=[*WAYS, *(f"{name}, clips" for name in WAYS_OF_CLIPS)],
)
def test_a_model_in_train_mode_is_sampled_in_evaluation_mode_and_left_as_it_was(draw, changes):
    it = trained(**DROPOUT, **changes)
    expected = draw(it)
    it.model.train()
    it.model.blocks[0].eval()  # by its owner, and to be left so
    before = modes(it.model)
    assert torch.equal(draw(it), expected)
    assert modes(it.model) == before


def test_the_mode_is_left_as_it_was_after_an_error():
    it = trained(**DROPOUT)
    it.model.train()
    it.model.blocks[1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        it.sample([1])
    assert all(modes(it.model))


def test_the_mode_is_the_owners_between_steps():
    it, seen = trained(**DROPOUT), []
    it.model.train()
    it.sample([1], callback=lambda *_: seen.append(all(modes(it.model))))
    assert seen == [True, True]


# Labels


@pytest.mark.parametrize(
    "labels",
    [
        [1, 2], (1, 2), range(1, 3), np.array([1, 2]), np.array([1, 2], dtype=np.uint8), torch.tensor([1, 2]),
        torch.tensor([1, 2], dtype=torch.int32), [np.int64(1), 2], [torch.tensor(1), torch.tensor(2)], ["bee", "cat"],
        ["bee", 2], np.array(["bee", "cat"]),
    ],
    ids=repr,
)  # fmt: skip
def test_labels_are_taken_in_every_form(labels):
    it = trained()
    assert torch.equal(it.sample(labels), it.sample([1, 2]))
    clips = trained(**VIDEO)
    assert torch.equal(clips.sample(labels, context=frames()), clips.sample([1, 2], context=frames()))


@pytest.mark.parametrize("label", [3, "dog", np.array(3), np.int64(3), torch.tensor(3)], ids=repr)
def test_one_label_is_for_all_samples(label):
    it = trained()
    assert torch.equal(it.sample(label, 2), it.sample([3, 3]))
    assert it.sample(label).shape == (1, 3, 8, 8)
    assert "2 by labels" not in refused(lambda: it.sample([3], 2))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({1, 2}, "label {1, 2}"),
        ([1.0, 2.0], "label 1.0"),
        (np.array([1.0]), "label 1.0"),
        (torch.tensor([1.5]), "label 1.5"),
        ([True], "label True"),
        (torch.tensor([True, False]), "label True"),
        ([None], "label None"),
        ([[1, 2]], r"label [1, 2]"),
        (torch.eye(5, dtype=torch.int64), "label [1, 0, 0, 0, 0]"),
        ([5], "out of range"),
        ([-1], "out of range"),
        (torch.tensor([7]), "out of range"),
        (["bear"], "did you mean 'bee'?"),
    ],
    ids=repr,
)
def test_what_are_no_labels_is_one_line(labels, words):
    assert words in refused(lambda: label_list(labels, 5, NAMES))


def test_a_name_of_a_model_without_names_is_one_line():
    assert "label 'bee'" in refused(lambda: label_list(["bee"], 5))


# How many


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"num": 0}, "num 0: take a whole number from 1 on"),
        ({"num": -2}, "num -2"),
        ({"num": 10, "labels": [3]}, "10 by num, 1 by labels"),
        ({"num": 1, "labels": [3, 4]}, "1 by num, 2 by labels"),
        ({"labels": []}, "the number of samples 0"),
        ({"labels": [3], "first": -1}, "first -1: take a whole number from 0 on"),
        ({"labels": [3], "first": 2**32}, "below 2**32"),
        ({"labels": [3], "seed": -1}, "seed -1"),
        ({"labels": [3], "seed": 2**31}, f"seed {2**31}"),
        ({"labels": [3], "seed": 0, "seeds": [3]}, "give one of them"),
        ({"labels": [3], "first": 2, "seeds": [3]}, "give one of them"),
        ({"labels": [3], "seeds": [3, 4]}, "1 by labels, 2 by seeds"),
        ({"labels": [3], "seeds": [0.5]}, "seeds: 0.5"),
        ({"labels": [3], "seeds": [-1]}, "seeds: -1"),
        ({"labels": [3], "batch_size": 0}, "batch_size 0"),
    ],
    ids=repr,
)
def test_how_many_and_which_are_clear_or_refused(request_, words):
    assert words in refused(lambda: trained(DROPPED).sample(**request_))


@pytest.mark.parametrize("value", [2.0, 2.5, float("nan"), True, "2", None], ids=repr)
def test_what_is_no_whole_number_is_one_line(value):
    assert "take a whole number" in refused(lambda: whole_number("num", value, least=1))


def test_as_many_samples_as_labels_or_frames():
    assert count_of(None) == 1
    assert count_of(np.int64(3)) == 3
    assert count_of(2, labels=[1, 2], context=frames()) == 2
    assert "2 by labels, 1 by context" in refused(lambda: trained(**VIDEO).sample([1, 2], context=frames(1)))


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (2**32, 1), (2**32 - 1, 2)])
def test_pictures_of_a_seed_are_none_of_another(first, count):
    assert "2**32" in refused(lambda: picture_seeds(3, first, count))


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidence": 1.0}, "unknown option of sampling 'guidence': did you mean 'guidance'?"),
        ({"nums_steps": 3}, "did you mean 'num_steps'?"),
        ({"steps": 3, "num_steps": 3}, "give one of them"),
        ({"steps": 0}, "num_steps 0"),
        ({"label": [3]}, "did you mean 'labels'?"),
        ({"sead": 3}, "did you mean 'seed'?"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"guidance": float("inf")}, "guidance inf"),
        ({"guidance": "2"}, "guidance '2'"),
        ({"td": None}, "td None"),
        ({"td": float("nan")}, "td nan"),
    ],
    ids=repr,
)
def test_options_that_there_are_not_are_one_line(options, words):
    assert words in refused(lambda: trained(DROPPED).sample([3], **options))


# Conditions


@pytest.mark.parametrize(
    ("diffusion", "changes", "request_", "words"),
    [
        (PROCESS, {}, {}, "never gone without its class"),
        (PROCESS, {}, {"num": 4}, "never gone without its class"),
        (DROPPED, {}, {"guidance": 2.0}, "guidance 2.0 does nothing without labels: give labels"),
        (DROPPED, {"num_classes": 0}, {"guidance": 2.0}, "has no classes: leave it at 0"),
        (PROCESS, {"num_classes": 0}, {"guidance": 2.0}, "has no classes: leave it at 0"),
        (PROCESS, {}, {"labels": [3], "guidance": 2.0}, "label dropping"),
        (PROCESS, {"num_condition_tokens": 3, "condition_dim": 6}, {"labels": [3]}, "Condition(embeddings=...)"),
    ],
)
def test_a_condition_that_is_missing_is_one_line(diffusion, changes, request_, words):
    assert words in refused(lambda: trained(diffusion, **changes).sample(**request_))


@pytest.mark.parametrize(
    ("diffusion", "changes", "request_"),
    [
        (DROPPED, {}, {"num": 1}),
        (DROPPED, {}, {"labels": [3], "guidance": 2.0}),
        (PROCESS, {"num_classes": 0}, {}),
        (DROPPED, {"num_condition_tokens": 3, "condition_dim": 6}, {"labels": [3]}),
    ],
)
def test_a_condition_that_was_dropped_in_training_may_be_missing(diffusion, changes, request_):
    assert trained(diffusion, **changes).sample(**request_).shape == (1, 3, 8, 8)


# Frames to go on from


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (torch.zeros(1, 3, 3, 8, 8, dtype=torch.uint8), "context of uint8 (1, 3, 3, 8, 8)"),
        (torch.zeros(3, 3, 8, 8), "give a float tensor (b c f h w)"),
        (np.zeros((1, 3, 3, 8, 8)), "context of ndarray"),
        (frames() * 255, "in [-1, 1]"),
        (frames() / 0, "in [-1, 1]"),
        (frames() * float("nan"), "from nan to nan"),
    ],
    ids=["uint8", "no batch", "array", "0..255", "infinite", "NaN"],
)
def test_what_are_no_frames_is_one_line(context, words):
    assert words in refused(lambda: check_data("context", context, num_axes=5))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (frames() * 100, "in [-1, 1]"),
        (frames(count=2), "2 frames are given: this model goes on from 3"),
        (frames(height=4), "the given frames are"),
        (None, "0 frames are given"),
    ],
)
def test_frames_that_a_model_cannot_go_on_from_are_one_line(context, words):
    it = trained(**CLIPS)
    assert words in refused(lambda: it.sample(context=context))
    assert words in refused(lambda: it.sample(context=context, num_frames=4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("num_frames", [None, 2, 5])
def test_frames_in_other_precisions_are_taken(dtype, num_frames):
    it, context = trained(**CLIPS), frames().to(dtype)
    drawn = it.sample(context=context, num_frames=num_frames)
    assert torch.equal(drawn, it.sample(context=context.float(), num_frames=num_frames))


# One way to sample


def test_each_seed_is_the_first_sample_of_it():
    it = trained()
    alone = [it.sample([3], seed=seed) for seed in (7, 2**31 - 1)]
    torch.testing.assert_close(it.sample(3, seeds=[7, 2**31 - 1], num=2), torch.cat(alone), rtol=0, atol=1e-5)
    assert torch.equal(it.sample(3, seeds=np.array([7])), alone[0])


@pytest.mark.parametrize("changes", [{}, CLIPS], ids=["images", "clips"])
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_a_callback_sees_every_step_of_every_batch(changes, batch_size):
    it, steps = trained(**changes), []
    options = {"context": frames(5)} if changes else {"labels": 3, "num": 5}
    drawn = it.sample(**options, batch_size=batch_size, callback=lambda step, x_0: steps.append((step, x_0)))
    size = batch_size or 5
    assert [step for step, _ in steps] == [0, 1] * -(-5 // size)
    assert [len(x_0) for _, x_0 in steps[::2]] == [min(size, 5 - begin) for begin in range(0, 5, size)]
    last = torch.cat([x_0 for _, x_0 in steps[1::2]])
    torch.testing.assert_close(last, drawn, rtol=0, atol=1 / 127 if changes else 0)  # clips are rounded to 8 bits


def test_steps_is_short_for_num_steps():
    it = trained()
    assert torch.equal(it.sample([3], steps=4), it.sample([3], num_steps=4))
    assert not torch.equal(it.sample([3], steps=4), it.sample([3]))


def test_a_sample_is_moved_to_the_device_that_is_named():
    it = trained()
    assert it.sample([3], device="cpu", precision="float32", compile="off").shape == (1, 3, 8, 8)
    with pytest.raises(RuntimeError, match="nowhere"):
        it.sample([3], device="nowhere")
