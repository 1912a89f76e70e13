"""The benchmarks count what was published, and their tables say what was measured."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import rin
from benchmarks import studies, study_arms, study_report, study_rivals
from benchmarks.figure_1 import NETWORKS, count, small_networks
from benchmarks.harness import Bench
from benchmarks.report import tables
from benchmarks.transformers import dit, jit
from benchmarks.unets import Layout
from rin import RIN, Condition
from rin.data.preparing import prepare_set
from rin.data.shard_writing import Preparation
from rin.evaluation.cost import cost
from rin.experiment import to_dict
from rin.nn.attention import Attention
from rin.training import optim
from tests.unit.models import moved, small

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


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([-1.0, -1.1, -0.9, -1.0, -1.05], "better: -1.01 +- 0.092"),
        ([1.0, 1.1, 0.9, 1.0, 1.05], "worse: +1.01 +- 0.092"),
        ([0.5, -0.4, 0.3, -0.2, 0.1], "no effect above 0.51 (+0.06 +- 0.45)"),
        ([0.5], "-"),
    ],
)
def test_a_study_says_what_its_rule_says(differences, said):
    assert study_report.verdict(differences) == said
    if len(differences) > 1:
        low, high = scipy.stats.t.interval(
            0.95, len(differences) - 1, np.mean(differences), scipy.stats.sem(differences)
        )
        assert said.startswith("no effect") == (low < 0 < high)


def test_what_a_study_undoes_is_undone_and_put_back():
    experiment = study_arms.small_base(Path("x"), 10)
    weights, moves = [torch.full((2, 2), 50.0), torch.zeros(2, 2)], [torch.ones(2, 2), torch.ones(2, 2)]
    honest = optim.trust_ratios(weights, moves).tolist()
    assert honest == [50, 1]
    for name, ratios in (("clamped-ratio", [10, 1]), ("no-ratio", [1, 1])):
        with study_arms.ARMS[name].undone():
            assert optim.trust_ratios(weights, moves).tolist() == ratios
    assert optim.trust_ratios(weights, moves).tolist() == honest

    def largest_key() -> float:
        torch.manual_seed(0)
        model = RIN(experiment.model)
        return max(
            float(module.key.weight.detach().abs().max()) for module in model.modules() if isinstance(module, Attention)
        )

    ours = largest_key()
    with study_arms.ARMS["plain-glorot"].undone():
        assert largest_key() > 1.5 * ours
    assert largest_key() == ours
    assert study_arms.ARMS["rate-0"].change(experiment).diffusion.self_cond_rate == 0
    assert study_arms.ARMS["dropout"].change(experiment).model.dropout_rate == 0.1


@pytest.mark.parametrize("scale", study_arms.SCALES.values(), ids=list(study_arms.SCALES))
def test_every_arm_is_a_run_of_its_own(scale):
    """No two are configured the same, but where something is undone."""
    base = scale.base(Path("x"), 1_500)
    names = study_arms.arms_of((1, 3, 4, 5, 6), base)
    arms = [study_arms.ARMS[name] for name in names]
    configured = [json.dumps(to_dict(arm.change(base))) for arm in arms if arm.undone is nullcontext]
    assert len(configured) > 12
    assert len(set(configured)) == len(configured)


def test_a_third_of_the_preset_is_a_third():
    with torch.device("meta"):
        sizes = [
            sum(weight.numel() for weight in RIN(study_arms.SCALES[name].base(Path("x"), 1_500).model).parameters())
            for name in ("gpu", "gpu-third")
        ]
    assert sizes[1] / sizes[0] == pytest.approx(1 / 3, rel=0.02)


def test_a_network_that_only_reads_writes_once():
    with study_arms.ARMS["read-only"].undone():
        writes = [block.write is not None for block in RIN(small(compute_depth=(1, 1, 1))).blocks]
    assert writes == [False, False, True]
    assert all(block.write is not None for block in RIN(small(compute_depth=(1, 1, 1))).blocks)


def test_the_report_says_what_was_measured(tmp_path):
    def measured(arm, seed, distance):
        run = {
            "frechet_distance": distance, "held_out_loss": {"0.1": distance}, "class_accuracy": 0.5, "seconds": 60,
        }  # fmt: skip
        folder = tmp_path / arm / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "measures.json").write_text(json.dumps(run))
        ways = {f"ddim 10 {latents}": run for latents in ("carried", "cold")}
        (folder / "sampling.json").write_text(json.dumps(ways))

    for seed in range(3):
        measured("base", seed, 10 + seed)
        measured("rate-0", seed, 12.0 + seed + 0.01 * seed)
        measured("lamb", seed, 20.0 + seed)
        measured("no-ratio", seed, 20.0 + seed)
    told = study_report.report(tmp_path)
    assert "| rate 0 | 3 | 13.01 (sd 1) | worse: +2.01 +- 0.025 |" in told
    assert (
        "| no ratio, a tenth of the rate | 3 | 21 (sd 1) | no effect above 0 (+0 +- 0) |" in told
    )  # to LAMB's base, not to ours
    assert "| ddim 10 | 3 | 11 (sd 1) | 11 (sd 1) | no effect above 0" in told
    study_report.draw(tmp_path, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_ddpms_unet_is_as_large_as_published():
    with torch.device("meta"):
        network = study_rivals.DDPM(32, num_classes=10)
    class_embedding = 10 * 4 * 128
    assert round((sum(weight.numel() for weight in network.parameters()) - class_embedding) / 1e6, 1) == 35.7


def of_seconds(monkeypatch, seconds):
    """Every side takes a step, and is said to take these seconds."""

    def interleave(_, sides, **__):
        for step in sides.values():
            step()
        return seconds

    monkeypatch.setattr(Bench, "interleave", interleave)


@pytest.mark.parametrize("name", study_rivals.NETWORKS)
def test_other_networks_train_in_the_place_of_a_rin(name, tmp_path, monkeypatch):
    base = study_arms.small_base(tmp_path / "set", 2)
    prepared = Preparation(source="digits", shape=(3, 16, 16))
    prepare_set(prepared, tmp_path / "set")
    arm = study_arms.ARMS[name]
    experiment = arm.change(base)
    of_seconds(monkeypatch, {"base": 3.0, "other": 0.5})
    assert study_rivals.updates_in_the_time_of(base, experiment, arm.undone) == 12
    with arm.undone():
        trained = rin.train(experiment, tmp_path / "run")
    assert isinstance(trained.model, study_rivals.InPlaceOfRIN)
    pictures = trained.sample(labels=[0, 9], num_steps=2)
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures.isfinite().all()
    model = trained.model
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)  # gates start at zero, and hide what the network is told
    x, gamma, labels = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.8]), torch.tensor([3, 4])
    first, swapped, other = (
        model(x, *given).prediction
        for given in (
            (gamma, Condition(labels=labels)), (gamma.flip(0), Condition(labels=labels)),
            (gamma, Condition(labels=labels.flip(0))),
        )
    )  # fmt: skip
    assert not torch.equal(first, swapped)
    assert not torch.equal(first, other)


def test_transformers_start_at_nothing():
    """Gates and read-out are zero, as published, and everything else is not."""
    torch.manual_seed(0)
    network = study_rivals.transformer(study_arms.small_base(Path("x"), 1).model)
    x, condition = torch.randn(2, 3, 16, 16), Condition(labels=torch.tensor([3, 4]))
    assert not network(x, torch.tensor([0.2, 0.8]), condition).prediction.any()
    zero = {name for name, weight in network.named_parameters() if weight.ndim > 1 and not weight.any()}
    assert {name.split(".")[-2] if "read_out.linear" in name else name.split(".")[-3] for name in zero} == {
        "linear", "modulation",
    }  # fmt: skip


def test_a_cold_network_forgets():
    model = moved(small(shape=(3, 8, 8), patch_size=4, num_classes=0))
    x, gamma = torch.randn(2, 3, 8, 8), torch.full((2,), 0.5)
    first = model(x, gamma, Condition(), None)
    assert not torch.equal(model(x, gamma, Condition(), first.latents).prediction, first.prediction)
    assert torch.equal(studies.Cold(model)(x, gamma, Condition(), first.latents).prediction, first.prediction)
