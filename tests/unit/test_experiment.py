"""Experiments: presets, JSON, what differs."""

import dataclasses
import json
import re

import pytest

import rin
from rin import DataConfig, DiffusionConfig, ExperimentConfig, RINConfig, RinError, TrainingConfig, preset, preset_names
from rin.cli import main
from rin.core.configs import changeable_fields
from rin.data.config import MovingShapesConfig
from rin.experiment import differences, from_dict, to_dict
from rin.model_files import models_that_come_along, read_experiment
from rin.preset_sources import MECHANICS, SOURCES, WORDS
from rin.presets import preset_source


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_survives_json(name):
    experiment = preset(name)
    assert from_dict(ExperimentConfig, json.loads(json.dumps(to_dict(experiment)))) == experiment


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_where_it_comes_from(name):
    words = ("ours", "Ours", "Released", "Paper")
    assert any(word in preset_source(name) for word in words)


def flat(tree, prefix=""):
    found = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_presets_that_follow_the_paper_are_those_with_sources():
    words = {name: preset_source(name).splitlines()[0] for name in preset_names()}
    paper = {name for name, text in words.items() if "Released." in text or "Paper" in text}
    assert paper == set(SOURCES)
    assert all(("All of it is ours" in preset_source(name)) == (name not in SOURCES) for name in words)


@pytest.mark.parametrize("name", SOURCES)
def test_every_figure_of_a_recipe_has_a_source_that_is_told(name):
    fields = flat(to_dict(preset(name)))
    recipe = {
        field
        for field in fields
        if field.startswith(("model.", "diffusion."))
        or (field.startswith("training.") and field.partition(".")[2] not in MECHANICS)
    }
    assert set(SOURCES[name]) == recipe | {"data.flip"}
    lines = preset_source(name).splitlines()
    for field, source in SOURCES[name].items():
        (line,) = (line for line in lines if line.startswith(f"{WORDS[source]}: "))
        assert field in line.rstrip(".").replace(",", "").split()


def test_clips_are_not_flipped_and_large_pictures_are_scaled():
    assert not preset("kinetics-600").data.flip
    for name in preset_names():
        scaled = {"imagenet-512": (0.2, True), "imagenet-1024": (0.1, True)}.get(name, (1.0, False))
        diffusion = preset(name).diffusion
        assert (diffusion.input_scale, diffusion.normalise_input) == scaled, name


def test_the_released_recipes_are_the_released_ones():
    cifar, imagenet = preset("cifar10"), preset("imagenet-64-p8")
    assert cifar.model == RINConfig(num_classes=10, dropout_rate=0.1, depth_drop_rate=0.1)
    assert (cifar.diffusion.schedule, cifar.diffusion.sampling_schedule) == ("sigmoid@-3,3,0.9", "cosine")
    assert (cifar.diffusion.self_cond_rate, cifar.diffusion.self_cond_by) == (0.9, "mask")
    assert (cifar.training.learning_rate, cifar.training.lr_schedule) == (3e-3, "cosine@0.8")
    assert (cifar.training.num_steps, cifar.training.batch_size, cifar.training.warmup_steps) == (150_000, 256, 10_000)
    assert (imagenet.model.interface_mlp_ratio, imagenet.model.dropout_rate) == (4, 0.0)
    assert (imagenet.diffusion.schedule, imagenet.training.learning_rate) == ("linear", 2e-3)
    assert (imagenet.training.lr_schedule, imagenet.training.batch_size) == ("cosine@0.7", 1024)


@pytest.mark.parametrize(("name", "nearest"), [("cifr10", "cifar10"), ("imagenet-65", "imagenet-64")])
def test_a_preset_that_there_is_not_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(RinError, match=f"unknown preset '{name}': did you mean '{nearest}"):
        preset(name)


def test_what_json_does_not_tell_has_its_default():
    assert from_dict(ExperimentConfig, {}) == ExperimentConfig()
    assert from_dict(ExperimentConfig, {"training": {"batch_size": 8}}).training == TrainingConfig(batch_size=8)


def test_a_run_with_an_option_that_is_no_more_is_drawn_from_and_goes_on_if_it_was_off(tmp_path):
    training = dataclasses.replace(preset("digits").training, num_steps=2, batch_size=4, checkpoint_every=1)
    whole = dataclasses.replace(preset("digits"), training=training)
    begun = dataclasses.replace(whole, training=dataclasses.replace(training, num_steps=1))
    rin.train(begun, tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    for lag in (0.1, 0.0):
        stored["diffusion"]["self_cond_lag"] = lag
        (tmp_path / "config.json").write_text(json.dumps(stored))
        assert rin.load(tmp_path).diffusion.config == begun.diffusion
        if lag:
            with pytest.raises(RinError, match=r"begun with diffusion\.self_cond_lag, which is no more"):
                rin.train(whole, tmp_path)
    rin.train(whole, tmp_path)
    assert "self_cond_lag" not in json.loads((tmp_path / "config.json").read_text())["diffusion"]
    with pytest.raises(SystemExit):
        main(["train", "digits", "--out", str(tmp_path / "anew"), "--diffusion.self-cond-lag", "0.1"])


def test_json_has_lists_and_whole_numbers_where_options_have_tuples_and_floats():
    model = from_dict(RINConfig, {"shape": [1, 8, 8], "compute_depth": [1, 2], "dropout_rate": 0})
    assert model.shape == (1, 8, 8)
    assert model.compute_depth == (1, 2)
    assert type(model.dropout_rate) is float
    assert from_dict(TrainingConfig, {"betas": [0.5, 0.6]}).betas == (0.5, 0.6)


@pytest.mark.parametrize(
    ("kind", "stored", "words"),
    [
        (ExperimentConfig, {"modle": {}}, "unknown option of ExperimentConfig 'modle': did you mean 'model'"),
        (ExperimentConfig, {"training": {"bach_size": 3}}, "TrainingConfig 'bach_size': did you mean 'batch_size'"),
        (ExperimentConfig, {"model": [1]}, "option model .* group of options"),
    ],
    ids=str,
)
def test_unknown_options_are_named_with_the_nearest(kind, stored, words):
    with pytest.raises(RinError, match=words):
        from_dict(kind, stored)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RINConfig, "patch_size", True),
        (RINConfig, "patch_size", "2"),
        (RINConfig, "patch_size", 2.5),
        (RINConfig, "patch_size", None),
        (RINConfig, "shape", 3),
        (RINConfig, "shape", "3,8,8"),
        (RINConfig, "shape", ["a", 8, 8]),
        (RINConfig, "compute_depth", [1.5, True]),
        (TrainingConfig, "betas", [0.5]),
        (RINConfig, "dropout_rate", "0.1"),
        (RINConfig, "dropout_rate", False),
        (DiffusionConfig, "normalise_input", 1),
        (DiffusionConfig, "prediction", "epsilon"),
        (DiffusionConfig, "sampler", "ddmp"),
        (DiffusionConfig, "schedule", 3),
        (TrainingConfig, "optimiser", "sgd"),
        (TrainingConfig, "deterministic", "yes"),
        (ExperimentConfig, "seed", 1.5),
        (ExperimentConfig, "seed", True),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(kind, name, value):
    with pytest.raises(RinError, match=f"option {name} = "):
        from_dict(kind, {name: value})


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(RinError, match=f"seed {seed}"):
        ExperimentConfig(seed=seed)


def test_values_that_make_no_experiment_are_refused_from_json_too():
    with pytest.raises(RinError, match="num_heads"):
        from_dict(ExperimentConfig, {"model": {"num_heads": 7}})


def changed(experiment, group, **changes):
    return dataclasses.replace(experiment, **{group: dataclasses.replace(getattr(experiment, group), **changes)})


def test_equal_experiments_do_not_differ():
    assert differences(preset("digits"), preset("digits")) == []


def test_changed_options_are_told_by_their_dotted_names():
    before = preset("cifar10")
    after = changed(changed(before, "training", batch_size=64), "model", compute_depth=(2, 3))
    after = dataclasses.replace(after, seed=4)
    assert differences(before, after) == [
        "model.compute_depth was [2, 2, 2] and is [2, 3]",
        "seed was 0 and is 4",
        "training.batch_size was 256 and is 64",
    ]


OTHER = {
    "training.num_steps": 9, "training.log_every": 9, "training.held_out_every": 9, "training.sample_every": 9,
    "training.checkpoint_every": 250, "training.keep_checkpoints": 9, "training.compile": "off",
    "training.recompute_blocks": True, "training.keep_checkpoint_every": 4_000, "training.trackers": ("wandb",),
    "training.parallel": "fsdp", "training.accumulation_steps": 2, "data.memory_gib": 9.0, "data.num_workers": 0,
    "data.skip_broken": True,
    "diffusion.sampler": "ddpm-small", "diffusion.num_steps": 9, "diffusion.sampling_schedule": "linear",
    "diffusion.guidance_latents": "shared", "diffusion.guidance": 0.5, "diffusion.guidance_interval": (0.5, 3.0),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_a_resumed_run_may_change_is_no_difference(name):
    group, option = name.split(".")
    before = preset("digits")
    after = changed(before, group, **{option: OTHER[name]})
    assert after != before
    assert differences(before, after) == []


def test_nothing_else_may_change():
    assert set(OTHER) == changeable_fields(ExperimentConfig)
    assert DataConfig().path == "digits"


def test_options_of_moving_shapes_are_those_of_runs_on_them_alone():
    assert "moving_shapes" not in to_dict(preset("digits"))["data"]
    assert to_dict(DataConfig(path="moving-shapes"))["moving_shapes"]["num_clips"] == 20_000
    older = to_dict(preset("digits"))
    older["data"]["moving_shapes"] = to_dict(MovingShapesConfig(num_clips=9))  # every run's had them once
    assert differences(from_dict(ExperimentConfig, older), preset("digits")) == []


def test_options_of_moving_shapes_are_listed_for_their_presets_alone(capsys):
    for name, listed in (("digits", False), ("moving-shapes", True)):
        with pytest.raises(SystemExit):
            main(["train", name, "--help"])
        assert ("--data.moving-shapes.num-clips" in capsys.readouterr().out) == listed


@pytest.mark.parametrize(
    ("group", "option", "value", "wanted"),
    [
        ("diffusion", "sampler", "ddmp", r"option sampler = 'ddmp': give one of 'ddpm', .*'heun'"),
        ("diffusion", "num_steps", "many", "option num_steps = 'many': give a whole number below"),
        ("data", "path", 3, "option path = 3: give a text"),
        ("training", "optimiser", "sgd", "option optimiser = 'sgd': give one of 'lamb'"),
        ("diffusion", "step", 4, "unknown option of DiffusionConfig 'step'"),
    ],
)
def test_a_wrong_option_on_disk_is_named_with_its_file_and_what_it_takes(tmp_path, group, option, value, wanted):
    stored = json.loads((models_that_come_along()["digits"] / "config.json").read_text())
    stored[group][option] = value
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(RinError, match=f"^{re.escape(str(tmp_path / 'config.json'))}: {wanted}"):
        read_experiment(tmp_path)
