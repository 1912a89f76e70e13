"""Models from strangers: what is wrong with their files is one line, before memory or time is spent on it."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from rin import RIN, Diffusion, DiffusionConfig, TrainedModel, TrainingConfig, load, preset, preset_names
from rin.core.errors import RinError
from rin.core.strict_json import parse_json
from rin.experiment import from_dict
from rin.model_files import read_experiment, read_model_config
from rin.nn import size
from rin.training.run_state import run_state
from tests.unit.models import KINDS, moved, small

NAMES = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture
def saved(tmp_path):
    """A saved model's folder."""
    TrainedModel(moved(small()), Diffusion(DiffusionConfig(num_steps=3)), small(), tuple(NAMES)).save(
        tmp_path / "model"
    )
    return tmp_path / "model"


def refusal(call, *arguments):
    """The one line that a call is refused with, at once."""
    begun = time.monotonic()
    with pytest.raises(RinError) as refused:
        call(*arguments)
    assert time.monotonic() - begun < 10
    line = str(refused.value)
    assert line.isprintable()
    assert len(line) < 700
    return line


def change(folder, **groups):
    """Changes options of groups of a config.json, or whole entries."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in groups.items():
        both = isinstance(value, dict) and isinstance(config[name], dict)
        config[name] = config[name] | value if both else value
    path.write_text(json.dumps(config))


# --- class names ---


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([*NAMES[:4], 5], "hold 5, which is no text"),
        ([*NAMES[:4], None], "hold None"),
        ([*NAMES[:4], ["elk"]], "hold ['elk']"),
        ([*NAMES[:4], {"name": "elk"}], "hold {'name'"),
        ([*NAMES[:4], True], "hold True"),
        (NAMES[:4], "are 4 and the model has 5 classes"),
        ([*NAMES, "fox"], "are 6 and the model has 5 classes"),
        ([*NAMES[:4], "ant"], "'ant' is there twice"),
        ([*NAMES[:4], "x" * 10_000], "at most 1000 characters"),
        ([*NAMES[:4], "\ud800"], "at most 1000 characters"),
        ("ant", "class_names is no list"),
        ({"ant": 0}, "class_names is no list"),
    ],
)
def test_class_names_are_texts_one_a_class(saved, names, said):
    change(saved, class_names=names)
    assert said in refusal(load, saved)


@pytest.mark.parametrize("names", [[], NAMES[::-1], ["..", "a/b", "\x1b[2J", "猫", ""]])
def test_any_texts_are_names(saved, names):
    change(saved, class_names=names)
    assert load(saved).class_names == tuple(names)


def test_class_names_that_could_not_be_read_are_not_written(saved):
    trained = load(saved)
    for names in (("ant",), ("ant",) * 5):
        wrong = TrainedModel(trained.model, trained.diffusion, trained.config, names)
        assert "class_names" in refusal(wrong.save, saved) or "twice" in refusal(wrong.save, saved)
    assert load(saved).class_names == tuple(NAMES)


# --- config.json ---


def deep(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": [-Infinity]}', "-Infinity is no number"),
        ('{"a": 1e400}', "1e400 is no number"),
        (f'{{"a": {10**30}}}', "is no number"),
        (f'{{"a": {"9" * 5000}}}', "is no number"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        ('{"a": {"b": 1, "b": 1}}', "'b' is there twice"),
        (deep(200_000), "levels"),
        ('{"a":' * 100_000, "levels"),
        (deep(900), "levels"),
        (deep(40), "levels"),
    ],
)
def test_json_is_read_strictly(text, said):
    with pytest.raises(ValueError, match=said) as refused:
        parse_json(text)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize(
    "text", ["{}", '{"a": [1, -2.5, true, null, "x", {"b": []}]}', deep(20), "9223372036854775807"]
)
def test_json_that_is_none_of_that_is_read_as_ever(text):
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"class_names": [', f'"class_names": [{deep(200_000)}, '),
        ('"format_version": 1', '"format_version": 1, "format_version": 1'),
        ('"gamma_scale": 1000.0', '"gamma_scale": NaN'),
        ('"gamma_scale": 1000.0', '"gamma_scale": 1e400'),
        ('"latent_dim": 32', '"latent_dim": 32, "latent_dim": 32'),
        ('"num_steps": 3', f'"num_steps": {10**400}'),
    ],
)
@pytest.mark.parametrize("read", [load, read_experiment, read_model_config, run_state])
def test_one_reader_reads_every_config(saved, before, after, read):
    path = saved / "config.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    assert "config.json" in refusal(read, saved)


@pytest.mark.parametrize("version", [True, -1, 0, "1", 1.0, None, [1]])
def test_a_format_version_is_a_whole_number_above_0(saved, version):
    change(saved, format_version=version)
    assert "format_version is" in refusal(load, saved)


@pytest.mark.parametrize(
    "groups",
    [{"data": 3}, {"data": ["path"]}, {"clips": 3}, {"model": {"shape": deep(3)}}, {"model": {"num_heads": True}}],
)
def test_groups_of_another_kind_are_one_line(saved, groups):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": {}, "clips": {}}))
    if "clips" in groups:
        path.write_text(path.read_text().replace(', "data": {}', ""))
    change(saved, **groups)
    assert "option" in refusal(load, saved)


def test_what_is_no_file_or_endless_is_one_line(saved):
    (saved / "config.json").unlink()
    (saved / "config.json").mkdir()
    assert "it is no file" in refusal(load, saved)
    (saved / "config.json").rmdir()
    with (saved / "config.json").open("wb") as file:
        file.truncate(10**12)  # takes no disk
    assert "bytes" in refusal(load, saved)


# --- sizes ---

HUGE = 10**12


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_without_building_anything(kind):
    config = small(**KINDS[kind])
    with torch.device("meta"):
        weights = RIN(config).state_dict()
    assert size.num_parameters(config) == sum(weight.numel() for weight in weights.values())


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_is_absurd(name):
    size.check_size(preset(name).model)


@pytest.mark.parametrize(
    "model",
    [
        {"num_latents": HUGE},
        {"num_latents": HUGE, "num_condition_tokens": HUGE - 8, "condition_dim": 1},
        {"latent_dim": HUGE},
        {"interface_dim": HUGE},
        {"num_classes": HUGE},
        {"compute_depth": [10**7]},
        {"compute_depth": [1] * 20_000},
        {"compute_depth": [1] * 300},
        {"compute_depth": [9000]},
        {"compute_depth": [0] * 20_000},
        {"shape": [3, 10**6, 10**6]},
        {"shape": [3, 10**6, 10**6], "patch_size": 10**6},
        {"shape": [HUGE, 8, 8]},
        {"shape": [HUGE, 8]},
        {"shape": [3, HUGE, 8, 8]},
        {"shape": [3, 3, 8, 8], "num_context_frames": HUGE},
        {"shape": [3, 3, 8, 8], "temporal_patch_size": HUGE},
        {"shape": [3, HUGE, 8], "patch_size": 3},
        {"latent_mlp_ratio": HUGE},
        {"interface_mlp_ratio": HUGE},
        {"num_heads": HUGE},
        {"shape": [1, 2**13, 2**13], "patch_size": 1, "num_latents": 2**20, "latent_dim": 4, "interface_dim": 4},
        {"num_latents": 2**20, "latent_dim": 4, "interface_dim": 4, "compute_depth": [1]},
        {"position_deviation": -1.0},
        {"position_deviation": 1e300},
        {"gamma_scale": 0.0},
        {"gamma_scale": 1e300},
    ],
)
@pytest.mark.parametrize("read", [load, read_model_config])
def test_absurd_sizes_are_refused_before_anything_is_allocated(saved, read, model):
    change(saved, model=model, class_names=[])
    assert "config.json" in refusal(read, saved)


@pytest.mark.parametrize("option", [{"num_steps": HUGE}, {"input_scale": 1e300}, {"input_scale": 1e-300}])
def test_absurd_diffusions_are_refused(saved, option):
    change(saved, diffusion=option)
    assert next(iter(option)) in refusal(load, saved)


@pytest.mark.parametrize("version", [True, 1.0, "1"])
def test_a_version_of_the_noise_is_no_truth_and_no_text(saved, version):
    change(saved, diffusion={"self_cond_by": True})
    assert "self_cond_by = True" in refusal(load, saved)
    with pytest.raises(RinError, match="noise_version"):
        from_dict(TrainingConfig, {"noise_version": version})


def test_what_this_machine_has_no_memory_for_is_refused(saved, monkeypatch):
    monkeypatch.setattr(size, "memory_here", lambda: 40_000)
    assert "this machine has" in refusal(load, saved)
    assert read_model_config(saved)[0] == small()


# --- weights ---


def spoil(saved, change):
    path = saved / "model.safetensors"
    weights = load_file(path)
    changed = change(weights["latents"])
    save_file(weights | {"latents": changed}, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved, value):
    spoil(saved, lambda latents: latents.index_fill(0, torch.tensor([1]), value))
    assert "latents is not finite" in refusal(load, saved)


def test_weights_that_float32_does_not_hold_are_refused(saved):
    spoil(saved, lambda latents: latents.double() * 1e60)
    assert "latents is not finite" in refusal(load, saved)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.complex64])
def test_weights_that_are_no_floats_are_refused_by_name(saved, dtype):
    spoil(saved, lambda latents: latents.to(dtype))
    assert "latents is stored as " in refusal(load, saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_weights_become_float32(saved, dtype):
    stored = {name: value.to(dtype) for name, value in load_file(saved / "model.safetensors").items()}
    save_file(stored, saved / "model.safetensors")
    for name, value in load(saved).model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value.cpu(), stored[name].float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: {name: weights[name] for name in weights if name != "latents"}, "latents is missing"),
        (lambda weights: weights | {"latents": weights["latents"][1:]}, r"latents has \(5, 32\)"),
        (lambda weights: weights | {"more\n": weights["latents"].clone()}, "is no weight of the network"),
        (lambda _: {}, "is missing"),
    ],
)
def test_weights_of_another_network_are_named(saved, change, said):
    path = saved / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(RinError, match=said):
        load(saved)


def test_a_file_of_far_more_than_the_network_is_not_read(saved):
    with (saved / "model.safetensors").open("ab") as file:
        file.truncate(10**12)  # takes no disk
    assert "model.safetensors has 1000000000000 bytes" in refusal(load, saved)
