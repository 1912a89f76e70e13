"""What docs/extending.md says works as it is written, and goes on after a stop."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rin
from rin.cli import main
from rin.core.errors import StoppedError
from rin.training.trainer import Trainer
from tests.end_to_end.documentation import ROOT, blocks

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names of the page after its last line, and the folder that it ran in."""
    folder, before, names = tmp_path_factory.mktemp("page"), Path.cwd(), {"__name__": "page"}
    os.chdir(folder)
    try:
        for block in blocks(PAGE, "python"):
            exec(compile(block, "docs/extending.md", "exec"), names)
    finally:
        os.chdir(before)
    return names | {"folder": folder}


def seeded(make):
    torch.manual_seed(0)
    return make()


CASES = {
    "bars": lambda page: (page["experiment"], page["data"], lambda: None),
    "convolutions": lambda page: (page["experiment"], page["data"], lambda: seeded(page["Convolutions"])),
    "summary": lambda page: (page["experiment"], page["data"], lambda: seeded(page["Summary"])),
    "tones": lambda page: (page["tones"], page["waves"], page["network"]),
}


@pytest.fixture(params=CASES)
def case(page, request):
    """A run of the page: its folder, and what it was made with."""
    return page["folder"] / "runs" / request.param, *CASES[request.param](page)


def weights(run):
    return {path.name: load_file(path) for path in sorted(run.glob("checkpoints/*6/*.safetensors"))}


def assert_same(one, other):
    assert one
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].keys() == other[name].keys()
        assert all(torch.equal(value, other[name][key]) for key, value in one[name].items()), name


def test_the_same_call_again_changes_nothing(case):
    run, experiment, data, network = case
    before = weights(run)
    trained = rin.train(experiment, run, data=data, model=network())
    assert_same(weights(run), before)
    labels = [0, 1]
    assert torch.equal(trained.sample(labels, seed=3), rin.load(run, model=network()).sample(labels, seed=3))


def test_a_run_that_was_stopped_half_way_ends_with_the_same_weights(case, tmp_path, monkeypatch):
    run, experiment, data, network = case
    update = Trainer.update

    def stopping(trainer, batch):
        if trainer.step == 3:  # between two checkpoints
            signal.raise_signal(signal.SIGTERM)
        return update(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopping)
        with pytest.raises(StoppedError):
            rin.train(experiment, tmp_path / "run", data=data, model=network())
    rin.train(experiment, tmp_path / "run", data=data, model=network())
    assert_same(weights(tmp_path / "run"), weights(run))


def test_a_saved_model_is_the_runs(case, tmp_path):
    run, _, _, network = case
    trained = rin.load(run, model=network())
    trained.save(tmp_path / "model")
    again = rin.load(tmp_path / "model", model=network())
    assert torch.equal(again.sample([0, 1], seed=3), trained.sample([0, 1], seed=3))


def test_the_held_out_loss_is_logged(case):
    run, experiment, _, _ = case
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    assert len(losses) == experiment.training.num_steps // experiment.training.held_out_every
    assert all(0 < loss < 10 for loss in losses)


def test_a_loop_of_ones_own_goes_on_after_a_stop(page):
    average, _ = page["loop"](num_steps=6)
    _, state = page["loop"](num_steps=3)
    torch.save(state, page["folder"] / "half.pt")
    resumed, _ = page["loop"](num_steps=6, state=torch.load(page["folder"] / "half.pt", weights_only=True))
    assert_same({"": resumed.state_dict()}, {"": average.state_dict()})
    assert_same({"": page["trained"].model.state_dict()}, {"": average.state_dict()})
    assert 0 < page["held_out_loss"] < 10


def test_what_the_page_draws_has_the_shape_that_it_says(page):
    assert page["signals"].shape == (3, 64, 1)
    assert page["images"].shape == (2, 1, 8, 8)
    assert (page["folder"] / "bars.png").is_file()


def status(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code or 0


def test_the_command_line_samples_and_measures_a_run_on_data_of_ones_own(page, tmp_path, capsys):
    run = page["folder"] / "runs" / "bars"
    assert status("sample", run, "--num", "4", "--out", tmp_path / "reference") == 0
    network = torch.jit.trace(Sums(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    network.save(str(tmp_path / "features.pt"))
    measures = (
        *("evaluate", run, "--features", tmp_path / "features.pt", "--num", "4"),
        *("--reference", tmp_path / "reference", "--out", tmp_path / "measures.json"),
    )
    assert status(*measures) == 0
    assert "frechet_distance" in (tmp_path / "measures.json").read_text()
    capsys.readouterr()
    assert status("sample", page["folder"] / "runs" / "convolutions") == 2
    assert "holds a network of its own" in capsys.readouterr().err


class Sums(torch.nn.Module):
    """Features of pictures: their rows' sums."""

    def forward(self, x):
        return x.float().sum(dim=(1, 3)) / 255


def test_the_networks_of_the_page_are_short():
    for name in ("Convolutions", "Windows", "Summary"):
        (block,) = (block for block in blocks(PAGE, "python") if f"class {name}(" in block)
        body = block.partition(f"class {name}(")[2].partition("\n\n\n")[0]
        assert len([line for line in body.splitlines() if line.strip()]) <= 22, name
