"""The benchmarks count what was published, and their tables say what was measured."""

import json
from pathlib import Path

import pytest
import torch

import rin
from benchmarks.elastic import by_latents
from benchmarks.figure_1 import NETWORKS, count, small_networks, training_step
from benchmarks.harness import Bench
from benchmarks.report import tables
from benchmarks.training_memory import preset_update
from benchmarks.transformers import dit, jit
from benchmarks.unets import Layout
from rin.costs.operations import cost
from rin.evaluation.sweeping import SWEEP
from tests.end_to_end.commands import ROOT

RINS = [network for network in NETWORKS if network.experiment]
PUBLISHED = {"64": 296, "128": 422, "256": 554, "512": 559}
"""Parameters of ADM's U-Nets in millions (arXiv 2105.05233, table 11, and its code's README)."""


@pytest.mark.parametrize("network", RINS, ids=lambda network: network.name)
def test_rins_are_counted_as_everywhere_else(network):
    ours, counted = cost(network.experiment.model), count(network)
    assert (counted.parameters, counted.operations) == (ours.parameters, ours.operations)
    assert 3.8 * ours.operations < counted.training_operations < 4 * ours.operations


@pytest.mark.parametrize("size", PUBLISHED)
def test_unets_are_as_large_as_published(size):
    unet = next(network for network in NETWORKS if network.name == "U-Net ADM" and network.input == size)
    assert round(count(unet).parameters / 1e6) == PUBLISHED[size]


@pytest.mark.parametrize(
    ("make", "parameters"),
    [(dit, 458), (lambda: dit(width=1152, depth=28), 675), (jit, 459)],
    ids=["DiT-L/2", "DiT-XL/2", "JiT-L/16"],
)
def test_transformers_are_as_large_as_published(make, parameters):
    with torch.device("meta"):
        assert round(sum(weight.numel() for weight in make().parameters()) / 1e6) == parameters


def test_an_update_is_the_trainers_own(tmp_path):
    bench = Bench(device=torch.device("cpu"), full=False, path=tmp_path / "unused", seconds=1.0)
    assert preset_update(bench, "digits", batch=4, recompute=False)() is not None


@pytest.mark.parametrize("name", ["DiT-L/2", "JiT-L/16"])
def test_transformers_take_the_operations_published(name):
    network = next(network for network in NETWORKS if network.name == name)
    (multiply_adds,) = network.published.values()
    assert count(network).operations / 2 == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize(
    "network", small_networks("here", (3, 32, 32), 4, Layout(64, 2, (1, 2, 2))), ids=lambda n: n.name
)
def test_an_example_does_not_depend_on_its_batch(network):
    torch.manual_seed(0)
    model = network.make().eval()
    x, t, labels = torch.randn(3, *network.shape), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([1, 2, 3])
    if network.experiment:
        return  # tested where the network is
    with torch.no_grad():
        together = model(x, t, labels)
        alone = torch.cat([model(x[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(3)])
        other = model(x, t.flip(0), labels.flip(0))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together, other, atol=1e-3)


def test_the_figure_of_elastic_networks_is_of_these_weights_alone():
    trained, path = rin.load("cifar10-small", device="cpu"), ROOT / "weights/cifar10-small" / SWEEP
    found = by_latents(path, trained, 4.0, (0.2, 2.0))
    assert list(found) == [8, 12, 16, 24, 40, 64]
    assert found[8] == pytest.approx(2.394, abs=1e-3)
    assert by_latents(path, trained, 4.0) == {}
    with torch.no_grad():
        next(trained.model.parameters()).add_(1.0)
    assert by_latents(path, trained, 4.0, (0.2, 2.0)) == {}


def test_a_network_of_the_comparison_learns():
    network = next(n for n in small_networks("here", (3, 32, 32), 4, Layout(64, 2, (1, 2, 2))) if n.experiment)
    training_step(network, 2, torch.device("cpu"))()


def test_a_result_is_a_line_of_json_and_the_newest_is_in_the_table(tmp_path):
    bench = Bench(device=torch.device("cpu"), full=False, path=tmp_path / "results" / "all.jsonl")
    bench.record("speed", name="old", step_seconds=2.0)
    bench.record("speed", name="ours", step_seconds=0.5)
    bench.record("speed", name="ours", step_seconds=0.0123)
    lines = [json.loads(line) for line in bench.path.read_text().splitlines()]
    assert len(lines) == 3
    assert all(line["machine"]["cores"] and line["versions"]["torch"] for line in lines)
    table = tables(lines)
    assert "12.3 ms" in table
    assert "500 ms" not in table
    assert "| old" in table


def test_sides_take_turns_and_the_median_counts(monkeypatch, tmp_path):
    turns, durations = [], iter([3.0, 30.0, 1.0, 10.0, 2.0, 20.0])
    monkeypatch.setattr("benchmarks.harness.timed", lambda step, _: (step(), next(durations))[1])
    bench = Bench(device=torch.device("cpu"), full=False, path=tmp_path / "results.jsonl", seconds=0.0)
    sides = {name: lambda name=name: turns.append(name) for name in ("one", "other")}
    assert bench.interleave(sides, min_rounds=3) == {"one": 2.0, "other": 20.0}
    assert turns[4:] == ["one", "other"] * 3


def test_the_kept_results_are_whole():
    kept = Path(__file__).parents[2] / "docs" / "results"
    files = sorted(kept.glob("*.jsonl"))
    assert files
    for file in files:
        assert tables(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
