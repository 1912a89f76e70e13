"""Arrays as data sets: every layout, every type of number, their ranges, their splits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import rin
from rin import DataConfig, RinError, open_data
from rin.core.values import PICTURES, Values
from rin.data.files.arrays import are_arrays
from rin.evaluation.sets import describe_sets, measured_sets

CHANCE = np.random.default_rng(0)


def opened(path, shape, **options):
    """The training set of a path."""
    return open_data(DataConfig(path=str(path), **{"num_held_out": 0, **options}), shape)


def everything(data):
    """All examples to train on."""
    return data.training.get(torch.arange(len(data.training)))


@pytest.mark.parametrize("memory_gib", [4.0, 0.0], ids=["in memory", "in place"])
@pytest.mark.parametrize(
    ("stored", "shape"),
    [((20, 3, 4, 6), (3, 4, 6)), ((20, 4, 6, 3), (3, 4, 6)), ((20, 4, 6), (1, 4, 6)), ((20, 7, 4, 6), (7, 4, 6)),
     ((20, 3, 8), (3, 1, 8)), ((20, 8, 3), (3, 1, 8)), ((20, 8), (1, 1, 8)), ((20, 8, 1), (1, 1, 8)),
     ((20, 1, 8), (1, 1, 8)), ((20, 3, 1, 8), (3, 1, 8)),
     ((20, 3, 2, 4, 6), (3, 2, 4, 6)), ((20, 2, 4, 6, 3), (3, 2, 4, 6)), ((20, 9, 2), (9, 2))],
)  # fmt: skip
def test_eight_bits_come_as_they_are_with_channels_first(tmp_path, stored, shape, memory_gib):
    x = CHANCE.integers(0, 256, stored, dtype=np.uint8)
    np.save(tmp_path / "a.npy", x)
    data = opened(tmp_path / "a.npy", shape, memory_gib=memory_gib)
    found, labels = everything(data)
    is_last = x.shape[1:] != shape and x.ndim > 2 and x.shape[-1] == shape[0] and x.shape[1:] != shape[1:]
    expected = (np.moveaxis(x, -1, 1) if is_last else x).reshape(20, *shape)
    assert torch.equal(found, torch.from_numpy(np.ascontiguousarray(expected)))
    assert found.dtype == torch.uint8
    assert (labels == -1).all()
    assert data.values == PICTURES


@pytest.mark.parametrize("memory_gib", [4.0, 0.0], ids=["in memory", "in place"])
@pytest.mark.parametrize(
    ("dtype", "value_range", "low", "high"),
    [("uint16", None, 0, 65535), ("int16", None, -32768, 32767), ("uint16", (100.0, 400.0), 100, 400),
     ("bool", None, 0, 1), ("float32", (-3.0, 5.0), -3, 5), ("float64", (0.0, 1.0), 0, 1),
     ("float16", (0.0, 1.0), 0, 1), ("int64", (0.0, 9.0), 0, 9), ("uint8", (0.0, 100.0), 0, 100)],
)  # fmt: skip
def test_other_numbers_are_seen_in_their_range_and_given_back_in_their_type(
    tmp_path, dtype, value_range, low, high, memory_gib
):
    x = CHANCE.uniform(low, high, (20, 2, 4, 4))
    x = (x if np.dtype(dtype).kind == "f" else x.round()).astype(dtype)
    np.save(tmp_path / "a.npy", x)
    data = opened(tmp_path / "a.npy", (2, 4, 4), value_range=value_range, memory_gib=memory_gib)
    found, _ = everything(data)
    expected = (x.astype(np.float64) - low) / (high - low) * 2 - 1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6 * 10)
    back = data.values.to_data(found)
    assert back.dtype == x.dtype
    step = np.finfo(np.float32).eps * max(abs(low), abs(high)) * 4 if np.dtype(dtype).kind == "f" else 0
    assert np.abs(back.astype(np.float64) - x.astype(np.float64)).max() <= max(step, 1e-3 if dtype == "float16" else 0)


def test_sixteen_bits_of_low_contrast_come_back_to_the_level(tmp_path):
    x = CHANCE.integers(30_000, 30_300, (50, 1, 8, 8), dtype=np.uint16)
    np.save(tmp_path / "a.npy", x)
    for value_range in (None, (30_000.0, 30_300.0)):
        data = opened(tmp_path / "a.npy", (1, 8, 8), value_range=value_range)
        back = data.values.to_data(everything(data)[0])
        assert np.abs(back.astype(int) - x.astype(int)).max() <= 1


def test_an_npz_of_medmnists_shape_has_splits_and_classes(tmp_path):
    arrays = {}
    for split, count in (("train", 30), ("val", 6), ("test", 8)):
        arrays[f"{split}_images"] = CHANCE.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = CHANCE.integers(0, 3, (count, 1), dtype=np.uint8)
    arrays["train_labels"][:3, 0] = [0, 1, 2]
    np.savez(tmp_path / "a.npz", **arrays)
    data = opened(tmp_path / "a.npz", (3, 4, 4), num_held_out=100)
    assert (len(data.training), len(data.held_out)) == (30, 8)
    assert data.training.class_names == ("0", "1", "2")
    assert everything(data)[1].tolist() == arrays["train_labels"][:, 0].tolist()
    assert len(opened(tmp_path / "a.npz", (3, 4, 4), split="val").training) == 6


def test_a_folder_of_columns_has_names_and_splits(tmp_path):
    for split, count in (("train", 12), ("test", 5)):
        (tmp_path / "set" / split).mkdir(parents=True)
        np.save(tmp_path / "set" / split / "x.npy", CHANCE.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8))
        np.save(tmp_path / "set" / split / "labels.npy", np.arange(count) % 2)
        (tmp_path / "set" / split / "class_names.txt").write_text("cat\ndog\n")
    data = opened(tmp_path / "set", (1, 4, 4), num_held_out=100)
    assert (len(data.training), len(data.held_out)) == (12, 5)
    assert data.training.class_names == ("cat", "dog")
    assert everything(opened(tmp_path / "set" / "train", (1, 4, 4)))[1].tolist() == [0, 1] * 6


@pytest.mark.parametrize("memory_gib", [4.0, 0.0], ids=["in memory", "in place"])
def test_an_example_keeps_its_class_when_some_are_held_out(tmp_path, memory_gib):
    numbers = np.arange(200)
    np.savez(tmp_path / "a.npz", images=numbers.astype(np.uint8).reshape(-1, 1, 1, 1), labels=numbers % 7)
    data = opened(tmp_path / "a.npz", (1, 1, 1), num_held_out=20, memory_gib=memory_gib)
    seen = []
    for part in (data.training, data.held_out):
        x, labels = part.get(torch.arange(len(part)).flip(0))
        assert torch.equal(labels, x.flatten().long() % 7)
        seen += x.flatten().tolist()
    assert sorted(seen) == list(range(200))
    assert len(data.held_out) == 20


def test_what_is_no_array_set_is_none(tmp_path):
    np.save(tmp_path / "x.npz.txt.npy", np.zeros(2))
    assert are_arrays(str(tmp_path / "x.npz.txt.npy"))
    assert not are_arrays(str(tmp_path))
    assert not are_arrays(str(tmp_path / "nothing.npy"))
    assert not are_arrays("digits")


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (np.zeros((4, 1, 4, 4), np.float32), {}, "give --data.value-range"),
        (np.zeros((4, 1, 4, 4), np.int32), {}, "give --data.value-range"),
        (np.zeros((4, 1, 4, 4), np.complex64), {}, "complex64"),
        (np.array(["a"] * 4), {}, "give --model.shape|no numbers"),
        (np.zeros((4, 1, 5, 5), np.uint8), {}, r"give --model.shape 1 5 5"),
        (np.zeros(4, np.uint8), {}, "the model takes"),
        (np.array([{}], object), {}, "cannot read the array"),
        (np.zeros((0, 1, 4, 4), np.uint8), {}, "holds no pictures"),
        (np.zeros((4, 1, 4, 4), np.uint8), {"column": "image"}, "data.column is for tables"),
        (np.zeros((4, 1, 4, 4), np.uint8), {"stream": True}, "data.stream is for tables"),
        (np.zeros((4, 1, 4, 4), np.uint8), {"split": "val"}, None),
    ],
)
def test_wrong_arrays_are_one_line(tmp_path, x, options, said):
    np.save(tmp_path / "a.npy", x)
    if said is None:
        assert len(opened(tmp_path / "a.npy", (1, 4, 4), **options).training) == 4
        return
    with pytest.raises(RinError, match=said) as refused:
        opened(tmp_path / "a.npy", (1, 4, 4), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("memory_gib", [4.0, 0.0], ids=["in memory", "in place"])
@pytest.mark.parametrize("wrong", [1.1, -0.2, np.nan, np.inf])
def test_a_value_outside_the_range_is_an_error_with_its_index(tmp_path, wrong, memory_gib):
    x = np.full((9, 1, 4, 4), 0.5, np.float32)
    x[5, 0, 2, 2] = wrong
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(RinError, match=r"example 5 of .*its range is 0 to 1"):
        everything(opened(tmp_path / "a.npy", (1, 4, 4), value_range=(0.0, 1.0), memory_gib=memory_gib))


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.zeros(3, int), "for 4 examples"), (np.zeros(4), "float64"), (np.array([0, 1, -2, 0]), "whole number"),
     (np.array([0, 1, 2, 0]), "2 names of classes and labels up to 2")],
)  # fmt: skip
def test_wrong_labels_are_one_line(tmp_path, labels, said):
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 4, 4), np.uint8))
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "class_names.txt").write_text("cat\ndog\n")
    with pytest.raises(RinError, match=said):
        opened(tmp_path, (1, 4, 4))


def test_a_truncated_file_is_one_line(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 1, 4, 4), np.uint8))
    whole = (tmp_path / "a.npy").read_bytes()
    for kept in (0, 5, 100, len(whole) - 1):
        (tmp_path / "a.npy").write_bytes(whole[:kept])
        with pytest.raises(RinError, match="cannot read the array"):
            opened(tmp_path / "a.npy", (1, 4, 4))


def test_a_run_on_arrays_knows_their_values_and_its_own_samples_are_such_arrays(tmp_path):
    x = CHANCE.uniform(-3, 5, (40, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    digits = rin.preset("digits")
    experiment = replace(
        digits,
        model=replace(digits.model, num_classes=0),
        data=DataConfig(path=str(tmp_path / "a.npy"), value_range=(-3.0, 5.0), num_held_out=4),
        training=replace(digits.training, num_steps=1, sample_every=0),
    )
    trained = rin.train(experiment, tmp_path / "run")
    assert trained.values == Values(low=-3.0, high=5.0, dtype="float32")
    trained.save(tmp_path / "saved")
    assert rin.load(tmp_path / "saved").values == trained.values
    samples = trained.sample(num=4, num_steps=2)
    rin.save(samples, tmp_path / "samples.npz", values=trained.values)
    data = opened(tmp_path / "samples.npz", (1, 8, 8), value_range=(-3.0, 5.0))
    torch.testing.assert_close(everything(data)[0], samples.clamp(-1, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("damage", [{"low": 1.0, "high": 1.0}, {"dtype": "object"}, {"low": "none"}])
def test_damaged_values_of_a_model_are_one_line(tmp_path, damage):
    import json

    model = rin.load("digits")
    rin.TrainedModel(
        model.model, model.diffusion, model.config, model.class_names, values=Values(low=0.0, high=1.0, dtype="float32")
    ).save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["values"] |= damage
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(RinError):
        rin.load(tmp_path)


def test_signals_from_an_array_to_a_measured_run(tmp_path):
    times = np.linspace(0, 12, 64)
    waves = np.stack([np.sin(times * (1 + number % 3) + number) for number in range(60)]).astype(np.float32)
    np.savez(tmp_path / "a.npz", train_x=waves[:40], train_labels=np.arange(40) % 3, test_x=waves[40:],
             test_labels=np.arange(40, 60) % 3)  # fmt: skip
    digits = rin.preset("digits")
    experiment = replace(
        digits,
        model=replace(digits.model, shape=(1, 1, 64), patch_size=8, num_classes=3, mixing_size=3),
        data=DataConfig(path=str(tmp_path / "a.npz"), value_range=(-1.0, 1.0), num_held_out=100, flip=True),
        training=replace(digits.training, num_steps=2, sample_every=2),
    )
    trained = rin.train(experiment, tmp_path / "run")
    assert trained.kind.noun == "signals"
    assert trained.model.tokenizer.num_tokens((1, 1, 64)) == 8
    drawn = trained.sample(num=6, num_steps=2, labels=[0, 1, 2] * 2)
    assert drawn.shape == (6, 1, 1, 64)
    assert (tmp_path / "run" / "samples" / "step-000000002.png").is_file()
    found = measured_sets(trained, tmp_path / "run", 20, 5, num_steps=2)
    assert found["squared"]["nearest_neighbour_accuracy"] > 0.9
    assert found["class_accuracy"]["held_out"] > 0.6
    assert "mean squared difference" in describe_sets(found)
    plain = replace(experiment, data=replace(experiment.data, flip=False))
    same = rin.train(plain, tmp_path / "plain")
    for one, other in zip(trained.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(one, other), "signals are never mirrored"


def test_clips_of_floats_go_on_from_their_own_frames(tmp_path):
    """What is in [-1, 1] already is not taken for 8 bits a second time."""
    x = CHANCE.uniform(0, 1, (30, 1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    held_out = open_data(DataConfig(path=str(tmp_path / "a.npy"), value_range=(0.0, 1.0)), (1, 3, 8, 8)).held_out
    frames, _ = held_out.get(torch.arange(len(held_out)))
    assert torch.equal(rin.to_floats(frames), frames)
    assert torch.equal(rin.to_pictures(rin.to_floats(rin.to_pictures(frames))), rin.to_pictures(frames))
