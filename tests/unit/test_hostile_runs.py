"""Runs from strangers: what is wrong in their folders is one line, at once, and nothing of it steers a terminal."""

import dataclasses
import json
import os
import shutil
import time

import pytest
import torch

from rin import DiffusionConfig, RinError, TrainedModel, TrainingConfig, load, save, to_pictures
from rin.cli import main
from rin.cli.sample import parse_classes
from rin.core.errors import unknown
from rin.data.config import DataConfig, MovingShapesConfig
from rin.data.decoding.videos import ClipsConfig
from rin.diffusion import Diffusion
from rin.experiment import ExperimentConfig, to_dict
from rin.model_files import write_config
from rin.nn import RINConfig
from rin.training import checkpoint
from rin.training.status_file import STATUS
from tests.unit.models import moved, small
from tests.unit.test_hostile_models import refusal
from tests.unit.training.test_status import status
from tests.unit.training.test_training import batch_of, trainer

NAMES = ("ant", "bee", "cat", "dog", "elk")
SAVED = "checkpoints/step-000000005"


def make_run(folder, average=lambda weights: weights):
    """A run's folder, whose average may be changed."""
    experiment = ExperimentConfig(model=small(), diffusion=DiffusionConfig(num_steps=2))
    folder.mkdir(parents=True)
    write_config(folder / "config.json", {"format_version": 1, "class_names": list(NAMES)} | to_dict(experiment))
    weights = moved(small()).state_dict()
    tensors = {"model": weights, "average": average(dict(weights))}
    checkpoint.save(folder / "checkpoints", 5, tensors, {"step": 5}, keep=3)
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def reseal(run, **changes):
    """Changes what a checkpoint says of itself, checksum and all."""
    path = run / SAVED / "state.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(checkpoint.sealed(content | changes)))


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


def ring(path):
    path.symlink_to(path)


def large(path):
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no disk


def deep(path):
    path.write_text("[" * 200_000)


# --- what is no file ---


@pytest.mark.parametrize("put", [pipe, endless, folder, ring, large, deep])
@pytest.mark.parametrize("name", ["config.json", f"{SAVED}/state.json", f"{SAVED}/average.safetensors"])
def test_what_is_no_file_is_one_line_at_once(run, name, put):
    (run / name).unlink()
    put(run / name)
    refusal(load, run)


@pytest.mark.parametrize("put", [pipe, endless, folder, large])
def test_a_saved_models_weights_are_a_file(tmp_path, put):
    TrainedModel(moved(small()), Diffusion(DiffusionConfig()), small(), NAMES).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    put(tmp_path / "model.safetensors")
    assert "damaged" in refusal(load, tmp_path)


@pytest.mark.parametrize("put", [pipe, endless, folder, deep])
@pytest.mark.parametrize("name", [STATUS, "log.jsonl"])
def test_where_a_run_stands_is_told_whatever_lies_there(run, name, put, capsys):
    put(run / name)
    code, out, error = command(capsys, "status", run)
    assert (code == 0 and "step" in out) or (code == 2 and "it is no file" in error)


def command(capsys, *arguments):
    """The status of a command, what it says, and what it complains of; it takes no time, and steers no terminal."""
    begun = time.monotonic()
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert time.monotonic() - begun < 10
    out, error = capsys.readouterr()
    assert all(letter.isprintable() or letter == "\n" for letter in out + error)
    return left.value.code, out, error


# --- checkpoints ---


@pytest.mark.parametrize("shards", [10**18, 2, 0, -1, "1", True, 1.0, None, [1]])
def test_shards_are_as_many_as_there_are_files(run, shards):
    reseal(run, shards=shards)
    assert "damaged" in refusal(load, run)


@pytest.mark.parametrize("files", [{}, [], 3, None, {"../../x": "a"}, {"average.safetensors": 3}])
def test_files_of_a_checkpoint_are_those_that_it_names(run, files):
    reseal(run, files=files)
    assert "damaged" in refusal(load, run)


AVERAGES = {
    "NaN": lambda weights: weights | {"latents": weights["latents"] * float("nan")},
    "whole": lambda weights: weights | {"latents": weights["latents"].long()},
    "one more": lambda weights: weights | {"x\x1b[2J" * 10_000: torch.zeros(1)},
    "one less": lambda weights: {name: weights[name] for name in weights if name != "latents"},
    "another shape": lambda weights: weights | {"latents": weights["latents"][1:].clone()},
}


@pytest.mark.parametrize("average", AVERAGES)
def test_a_runs_average_is_checked_as_a_saved_models_weights_are(tmp_path, average):
    line = refusal_of_any_length(load, make_run(tmp_path / "run", AVERAGES[average]))
    assert "damaged or of another configuration" in line
    assert len(line) < 2100


def refusal_of_any_length(call, *arguments):
    with pytest.raises(RinError) as refused:
        call(*arguments)
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_weights_that_draw_no_numbers_make_no_black_pictures(tmp_path, capsys):
    """They are finite, and what is computed with them is not."""
    run = make_run(tmp_path / "run", lambda weights: {name: value * 1e30 for name, value in weights.items()})
    code, _, error = command(capsys, "sample", run, "--num", 5, "--steps", 2, "--out", tmp_path / "a.png")
    assert code == 2
    assert "nan" in error
    assert not (tmp_path / "a.png").exists()


def test_nan_is_no_colour():
    with pytest.raises(RinError, match="NaN"):
        to_pictures(torch.tensor([0.0, float("nan")]).reshape(1, 1, 1, 2))
    infinite = torch.tensor([-float("inf"), float("inf")]).reshape(1, 1, 1, 2)
    assert to_pictures(infinite).flatten().tolist() == [0, 255]


# --- where a run stands ---


@pytest.mark.parametrize(
    "changes",
    [
        {"written": float("nan")}, {"written": -1e308}, {"written": 1e308}, {"examples_per_second": 1e-320},
        {"examples_per_second": float("inf")}, {"examples_per_second": -1.0}, {"step": 10**25}, {"step": -5},
        {"pid": -1}, {"pid": 10**30}, {"host": "\x1b]0;x\x07"}, {"message": "\x1b[2Jhi\u202e\nthere"},
        {"checkpoint": "\x9b2J"}, {"state": "killed"}, {"loss": "\x1b"}, {"num_steps": 0},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_status_is_told_whatever_it_holds(run, changes, state, capsys):
    (run / STATUS).write_text(json.dumps(dataclasses.asdict(status(state=state)) | changes))
    for option in ([], ["--json"]):
        code, out, _ = command(capsys, "status", run, *option)
        assert code == 0
        assert "150" in out


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 5, "loss": "\\u001b[2J"}', '{"step": 5, "loss": [1]}', '{"step": 5, "lr": {}}', '{"step": true}',
        f'{{"step": 5, "loss": {"9" * 4000}}}', '{"step": 5, "loss": 1e999}', '{"step": 5, "loss": true}',
    ],
)  # fmt: skip
def test_a_log_is_told_whatever_it_holds(run, line, capsys):
    (run / "log.jsonl").write_text(line + "\n")
    assert command(capsys, "status", run)[0] == 0


@pytest.mark.parametrize("value", ["x", True, [1], None, -1, 1.5])
@pytest.mark.parametrize("name", ["num_steps", "batch_size", "keep_checkpoint_every"])
def test_what_is_counted_with_is_a_whole_number(run, name, value, capsys):
    config = json.loads((run / "config.json").read_text())
    config["training"][name] = value
    (run / "config.json").write_text(json.dumps(config))
    code, _, error = command(capsys, "status", run)
    assert code == 2
    assert f"training.{name} is no whole number" in error


def test_names_of_runs_and_of_outputs_are_printed_escaped(run, tmp_path, capsys):
    runs = tmp_path / "runs\x1b[2J"
    for name in ("a\x1b[31m", "b\u202e", os.fsdecode(b"c\xff")):
        shutil.copytree(run, runs / name)
    assert command(capsys, "status", runs)[0] == 0
    for name in ("a\x1b[31m", os.fsdecode(b"d\xff")):
        assert command(capsys, "sample", run, "--num", 5, "--steps", 1, "--out", runs / name / "x")[0] == 0


# --- classes ---


def named(*names):
    config = small(num_classes=len(names))
    return TrainedModel(moved(config), Diffusion(DiffusionConfig()), config, names)


@pytest.mark.parametrize(
    "text", ["0-999999999999", "0-" + "9" * 5000, "9" * 5000, "4-2", "4-2,0", "0-5", "-", "0-", ""]
)
def test_classes_that_there_are_not_are_one_line_at_once(text):
    line = refusal_of_any_length(parse_classes, text, named(*NAMES))
    assert "class" in line
    assert len(line) < 2100


def test_a_number_that_is_a_name_is_that_class_alone_and_in_a_range():
    trained = named("1", "10", "2", "3")  # as folders are sorted by their letters
    assert parse_classes("1,2,3,10", trained) == [0, 2, 3, 1]
    assert parse_classes("1-3", trained) == [0, 2, 3]
    assert parse_classes("0-2", named(*NAMES)) == [0, 1, 2]


def test_a_message_lists_no_thousand_names():
    names = [f"name {number}" for number in range(5000)]
    assert str(unknown("class", "zebra", names)).endswith("and 4960 more")
    assert len(str(unknown("class", "x" * 10**6, ["\x1b" * 10**6]))) < 9000
    assert len(str(RinError("begins " + "x" * 10**6 + " ends"))) < 2100
    assert str(RinError("begins " + "x" * 10**6 + " ends")).endswith(" ends")


def test_samples_of_many_odd_names_are_in_a_folder_each(tmp_path):
    names = [
        "é",
        "e\u0301",
        "E\u0301",
        "a\u200db",
        "ab",
        "con",
        "COM¹",
        "nul .txt",
        "猫" * 200,
        "猫" * 200 + "x",
        "...",
    ]
    pictures = torch.zeros(len(names), 3, 4, 4, dtype=torch.uint8)
    save(pictures, tmp_path / "out", labels=range(len(names)), class_names=names)
    made = [path.name for path in (tmp_path / "out").iterdir()]
    assert len({name.casefold() for name in made}) == len(names)
    assert not {"con", "COM¹", "nul .txt", "..."} & set(made)


# --- numbers of a configuration ---


CONFIGS = [RINConfig, DiffusionConfig, TrainingConfig, DataConfig, ClipsConfig, MovingShapesConfig]
FLOATS = [(kind, field.name) for kind in CONFIGS for field in dataclasses.fields(kind) if field.type is float]
WHOLE = [(kind, field.name) for kind in CONFIGS for field in dataclasses.fields(kind) if field.type is int]


@pytest.mark.parametrize(("kind", "name"), FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_configuration_holds_what_is_no_number(kind, name, value):
    with pytest.raises(RinError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), WHOLE)
def test_no_configuration_holds_a_number_that_its_file_could_not(kind, name):
    for value in (2**63, -(2**63) - 1, 10**400):
        with pytest.raises(RinError):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TrainingConfig, {"betas": (0.9, float("nan"))}), (TrainingConfig, {"further_decays": (float("nan"),)}),
        (TrainingConfig, {"eps": 0.0}), (TrainingConfig, {"eps": -1e-8}), (TrainingConfig, {"eps": 1e300}),
        (TrainingConfig, {"weight_decay": 1e300}), (TrainingConfig, {"lr_end_factor": 1e300}),
        (TrainingConfig, {"learning_rate": 1e300}), (TrainingConfig, {"batch_size": 2**40}),
        (DiffusionConfig, {"input_scale": 1e300}), (DiffusionConfig, {"input_scale": 1e-300}),
        (RINConfig, {"gamma_scale": 1e300}), (RINConfig, {"position_deviation": 1e300}),
        (MovingShapesConfig, {"num_clips": 2**40}), (MovingShapesConfig, {"speed": (0.1, float("nan"))}),
        (DataConfig, {"value_range": (float("nan"), 1.0)}),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_no_float32_or_memory_holds_are_refused(kind, options):
    with pytest.raises(RinError, match=next(iter(options)) if "clips" not in str(options) else "clips"):
        kind(**options)


# --- going on from a checkpoint ---


STATES = {
    "no step": lambda state, _: state.pop("step"),
    "no examples": lambda state, _: state.pop("examples"),
    "another step": lambda state, _: state.update(step=10**12),
    "a step that is none": lambda state, _: state.update(step="4"),
    "skips that are none": lambda state, _: state.update(skips=None),
    "a loss that is none": lambda state, _: state.update(loss_sum=[1]),
    "weights that are whole": lambda _, files: spoil(files["model"], torch.Tensor.long),
    "weights of another shape": lambda _, files: spoil(files["average"], lambda value: value[:1]),
    "moments that are whole": lambda _, files: spoil(files["optimiser"], torch.Tensor.long),
    "moments of another shape": lambda _, files: spoil(files["optimiser"], lambda value: value[..., :1]),
    "moments of no weight": lambda _, files: files["optimiser"].update({"nothing/exp_avg": torch.zeros(3)}),
    "no moments": lambda _, files: files.pop("optimiser"),
}


def spoil(tensors, change):
    tensors.update({name: change(value).clone() if value.ndim > 1 else value for name, value in tensors.items()})


@pytest.mark.parametrize("how", STATES)
def test_a_checkpoint_that_is_no_runs_is_not_gone_on_from(tmp_path, how):
    made = trainer(tmp_path)
    made.update(batch_of(made))
    written = made.save()
    files = {name: checkpoint.read(written, name) for name in ("model", "average", "optimiser")}
    state = checkpoint.state(written)
    STATES[how](state, files)
    shutil.rmtree(written)
    checkpoint.save(made.checkpoints, made.step, files, state, keep=3)
    assert str(written) in refusal_of_any_length(trainer(tmp_path).resume)
