"""The studies undo what they say, and their report says what its rule says."""

import dataclasses
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.axes import Axes

import rin
from benchmarks.harness import Bench
from rin import RIN, Condition
from rin.data import DataConfig
from rin.data.prepared.shard_writing import Preparation
from rin.data.preparing import prepare_set
from rin.experiment import to_dict
from rin.model_files import read_experiment
from rin.nn.attention import Attention
from rin.training import optim
from studies import __main__ as command
from studies import arms, finetuning, queue, report, rivals
from tests.unit.models import moved, small


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
    assert report.verdict(differences) == said
    if len(differences) > 1:
        low, high = scipy.stats.t.interval(
            0.95, len(differences) - 1, np.mean(differences), scipy.stats.sem(differences)
        )
        assert said.startswith("no effect") == (low < 0 < high)


def test_what_a_study_undoes_is_undone_and_put_back():
    experiment = arms.small_base(Path("x"), 10)
    weights, moves = [torch.full((2, 2), 50.0), torch.zeros(2, 2)], [torch.ones(2, 2), torch.ones(2, 2)]
    honest = optim.trust_ratios(weights, moves).tolist()
    assert honest == [50, 1]
    for name, ratios in (("clamped-ratio", [10, 1]), ("no-ratio", [1, 1])):
        with arms.ARMS[name].undone():
            assert optim.trust_ratios(weights, moves).tolist() == ratios
    assert optim.trust_ratios(weights, moves).tolist() == honest

    def largest_key() -> float:
        torch.manual_seed(0)
        model = RIN(experiment.model)
        return max(
            float(module.key.weight.detach().abs().max()) for module in model.modules() if isinstance(module, Attention)
        )

    ours = largest_key()
    with arms.ARMS["plain-glorot"].undone():
        assert largest_key() > 1.5 * ours
    assert largest_key() == ours
    assert arms.ARMS["rate-0"].change(experiment).diffusion.self_cond_rate == 0
    assert arms.ARMS["dropout"].change(experiment).model.dropout_rate == 0.1


@pytest.mark.parametrize("scale", arms.SCALES.values(), ids=list(arms.SCALES))
def test_every_arm_is_a_run_of_its_own(scale):
    """No two are configured the same, but where something is undone."""
    base = scale.base(Path("x"), 1_500)
    names = arms.arms_of((1, 3, 4, 5, 6), base)
    runs = [arms.ARMS[name] for name in names]
    configured = [
        json.dumps(to_dict(arm.change(base))) for arm in runs if arm.undone is nullcontext and arm.network is None
    ]
    assert len(configured) > 12
    assert len(set(configured)) == len(configured)


def test_a_third_of_the_preset_is_a_third():
    with torch.device("meta"):
        sizes = [
            sum(weight.numel() for weight in RIN(arms.SCALES[name].base(Path("x"), 1_500).model).parameters())
            for name in ("gpu", "gpu-third")
        ]
    assert sizes[1] / sizes[0] == pytest.approx(1 / 3, rel=0.02)


def test_a_network_that_only_reads_writes_once():
    with arms.ARMS["read-only"].undone():
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
    told = report.report(tmp_path)
    assert "| rate 0 | 3 | 13.01 (sd 1) | worse: +2.01 +- 0.025 |" in told
    assert (
        "| no ratio, a tenth of the rate | 3 | 21 (sd 1) | no effect above 0 (+0 +- 0) |" in told
    )  # to LAMB's base, not to ours
    assert "| ddim 10 | 3 | 11 (sd 1) | 11 (sd 1) | no effect above 0" in told
    kept = tmp_path / "kept.jsonl"
    for _ in range(2):
        report.keep(tmp_path, kept)
    assert len(kept.read_text().splitlines()) == 12
    assert report.measured(kept, "lamb").keys() == {"seed-0", "seed-1", "seed-2"}
    assert report.report(kept) == told
    report.draw(tmp_path, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_report_sets_elastic_networks_beside_those_of_each_size(tmp_path):
    def measured(arm, seed, distance, **more):
        run = {
            "frechet_distance": distance, "held_out_loss": {"0.1": 1.0}, "class_accuracy": 0.5, "seconds": 60, **more,
        }  # fmt: skip
        queue_folder = tmp_path / arm / f"seed-{seed}"
        queue_folder.mkdir(parents=True)
        (queue_folder / "measures.json").write_text(json.dumps(run))

    for seed in range(2):
        measured("base", seed, 10.0)
        measured("latents-3", seed, 12.0)
        by_latents = {"3": 14.0 + 0.2 * seed, "5": 13.0, "9": 12.0}
        measured("elastic", seed, 11.0, by_latents={k: {"frechet_distance": v} for k, v in by_latents.items()})
    measured("unmixed", 0, 15.0)
    measured("unmixed-elastic", 0, 16.0, by_latents={k: {"frechet_distance": 18.0} for k in by_latents})
    _, mixed, unmixed = report.report(tmp_path).split("| latents | seeds | elastic, ")
    assert "| 3 | 2 | 14.1 (sd 0.14) | 2 | 12 (sd 0) | worse: +2.1 +- 1.3 |" in mixed
    assert "| all | 2 | 11 (sd 0) | 2 | 10 (sd 0) | worse: +1 +- 0 |" in mixed
    assert "| 5 | 2 | 13 (sd 0) | 0 | - | - |" in mixed  # no network of 5 latents was made yet
    assert "| 3 | 1 | 18 | 0 | - | - |" in unmixed
    assert "| all | 1 | 16 | 1 | 15 | - |" in unmixed


def test_losses_over_time_are_those_of_the_log(tmp_path, monkeypatch):
    lines = [{"step": 100 * number, "loss": 1.0 / number} for number in range(1, 42)]
    lines.insert(7, {"step": 700, "held_out_loss": 5.0})
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    losses = queue.training_losses(tmp_path)
    assert len(losses) == 14
    assert losses["300"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert losses["4100"] == pytest.approx((1 / 40 + 1 / 41) / 2)
    run = {"training_loss": losses, "updates": 4100, "cpu_seconds": 410.0}
    runs = {"base": {"seed-0": run, "seed-1": run}, "grown": {"seed-0": run}, "mask": {"seed-0": {}}}
    monkeypatch.setattr(report, "measured", lambda _, arm: runs.get(arm, {}))
    drawn = []
    honest = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda axis, *of, **options: drawn.append(of) or honest(axis, *of, **options))
    report.draw_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert len(drawn) == 2, "those of the base"
    assert drawn[0][0][::13] == pytest.approx([30.0, 410.0])
    runs.clear()
    with pytest.raises(SystemExit, match="has its training losses"):
        report.draw_curves(tmp_path, tmp_path / "none.png")


def short(base):
    """A run of 8 updates that is soon over."""
    training = dataclasses.replace(base.training, num_steps=8, batch_size=8, warmup_steps=2)
    return dataclasses.replace(base, training=training)


def test_a_grown_run_has_its_first_half_with_fewer_latents(tmp_path):
    prepare_set(Preparation(source="digits", shape=(3, 16, 16)), tmp_path / "set")
    first = arms.ARMS["grown"].grown_from
    assert first is not None
    grown = queue._grown(first, short(arms.small_base(tmp_path / "set", 8)), tmp_path / "first")
    begun = read_experiment(tmp_path / "first")
    assert begun is not None
    assert (begun.model.num_latents, begun.training.num_steps, begun.training.lr_schedule) == (5, 4, "constant")
    assert (grown.model.num_latents, grown.training.num_steps, grown.training.warmup_steps) == (16, 4, 1)
    trained = rin.train(grown, tmp_path / "run")
    kept = rin.load(tmp_path / "first").model.get_parameter("latents")
    assert len(kept) == 3
    assert len(trained.model.get_parameter("latents")) == 14


def test_a_run_that_was_cut_off_does_not_say_what_its_last_part_took(tmp_path, monkeypatch):
    at_work = queue.Queue.__new__(queue.Queue)  # without its network and reference
    at_work.scale, at_work.set, at_work.device = arms.SCALES["cpu"], tmp_path / "set", torch.device("cpu")
    prepare_set(Preparation(source="digits", shape=(3, 16, 16)), tmp_path / "set")
    monkeypatch.setattr(queue.Queue, "_experiment", lambda *_: short(arms.small_base(tmp_path / "set", 8)))
    monkeypatch.setattr(queue.Queue, "_measures", lambda *_, **__: {"frechet_distance": 1.0, "class_accuracy": 0.5})
    monkeypatch.setattr(queue, "held_out_loss", lambda *_: {"0.5": 1.0})
    for seed in range(2):
        at_work._train("base", seed, tmp_path / "base" / f"seed-{seed}")
    (tmp_path / "base" / "seed-1" / "measures.json").unlink()
    at_work._train("base", 1, tmp_path / "base" / "seed-1")
    whole, cut_off = report.measured(tmp_path, "base").values()
    assert 0 < whole["cpu_seconds"] < 60
    assert cut_off["seconds"] is cut_off["cpu_seconds"] is None
    assert f"| {whole['seconds'] / 60:.1f} |" in report.report(tmp_path)
    drawn = []
    honest = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda axis, *of, **options: drawn.append(of) or honest(axis, *of, **options))
    report.draw_curves(tmp_path, tmp_path / "curves.png")
    assert len(drawn) == 1, "its curve would end too soon"


def test_fine_tuning_is_beside_training_anew(tmp_path, monkeypatch):
    prepare_set(Preparation(source="digits", shape=(3, 16, 16)), tmp_path / "set")
    at_work = queue.Queue.__new__(queue.Queue)  # without its network and reference
    at_work.scale, at_work.set, at_work.shape = arms.SCALES["cpu-16-300s"], tmp_path / "set", (3, 16, 16)
    at_work.network = at_work.reference = None  # pyright: ignore[reportAttributeAccessIssue]
    start = short(arms.equal_time_base(16)(tmp_path / "set", 8))
    rin.train(start, tmp_path / "start")
    few = finetuning._three_classes(at_work, "train", tmp_path / "few")
    assert set(np.load(few / "labels.npy").tolist()) == {0, 1, 2}
    monkeypatch.setattr(finetuning, "measures_of", lambda *_: {"frechet_distance": 1.0})
    monkeypatch.setattr(finetuning, "reference_of", lambda *_: (None, None))
    data = DataConfig(path=str(few), num_held_out=8)
    task = finetuning.Task(at_work, data, "the same", updates=3)
    for name, way in finetuning.WAYS.items():
        task.run(way, tmp_path / "start", 0, tmp_path / "out" / "classes" / name / "seed-0")
    found = finetuning.found_in(tmp_path / "out")["classes"]
    assert {name: runs["seed-0"]["updates"] for name, runs in found.items()} == {
        "anew": 3, "anew-longer": 9, "from-model": 3, "from-model-shorter": 1,
    }  # fmt: skip
    begun = {name: read_experiment(tmp_path / "out" / "classes" / name / "seed-0" / "run") for name in finetuning.WAYS}
    assert [bool(one and one.init_from) for one in begun.values()] == [False, False, True, True]
    assert all(one and one.model.num_classes == 3 for one in begun.values())
    assert "| from the model, a third of the updates | 1 | 1 | 1 |" in finetuning.report(tmp_path / "out")


def test_ddpms_unet_is_as_large_as_published():
    with torch.device("meta"):
        network = rivals.DDPM(32, 10, rivals.UNETS[32])
    class_embedding = 10 * 4 * 128
    assert round((sum(weight.numel() for weight in network.parameters()) - class_embedding) / 1e6, 1) == 35.7


def of_seconds(monkeypatch, seconds):
    """Every side takes a step, and is said to take these seconds."""

    def interleave(_, sides, **__):
        for step in sides.values():
            step()
        return seconds

    monkeypatch.setattr(Bench, "interleave", interleave)


@pytest.mark.parametrize("name", rivals.NETWORKS)
def test_other_networks_train_in_the_place_of_a_rin(name, tmp_path, monkeypatch):
    base = arms.small_base(tmp_path / "set", 2)
    prepared = Preparation(source="digits", shape=(3, 16, 16))
    prepare_set(prepared, tmp_path / "set")
    arm = arms.ARMS[f"{name}-0.001" if "small" in name else name]
    experiment = arm.change(base)
    of_seconds(monkeypatch, {"base": 3.0, "other": 0.5})
    assert rivals.updates_in_the_time_of(base, experiment, arm.network(experiment.model)) == 12
    trained = rin.train(experiment, tmp_path / "run", model=arm.network(experiment.model))
    assert isinstance(trained.model, rivals.WithoutLatents)
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
    network = rivals.transformer(arms.small_base(Path("x"), 1).model)
    x, condition = torch.randn(2, 3, 16, 16), Condition(labels=torch.tensor([3, 4]))
    assert not network(x, torch.tensor([0.2, 0.8]), condition).prediction.any()
    zero = {name for name, weight in network.named_parameters() if weight.ndim > 1 and not weight.any()}
    assert {name.split(".")[-2] if "read_out.linear" in name else name.split(".")[-3] for name in zero} == {
        "linear", "modulation",
    }  # fmt: skip


def test_equal_time_is_as_many_updates_as_fit(tmp_path, monkeypatch):
    scale = arms.SCALES["cpu-16-300s"]
    at_work = queue.Queue.__new__(queue.Queue)  # without its set, network and reference
    at_work.scale, at_work.set, at_work.folder, at_work.studies = scale, tmp_path / "set", tmp_path, (7,)
    at_work.arms = None
    base, asked = scale.base(tmp_path / "set", scale.updates), []

    def seconds(sides):
        asked.append(sides)
        return {name: 0.25 * number for number, name in enumerate(sides, start=1)}

    monkeypatch.setattr(rivals, "cpu_seconds_of_updates", seconds)
    for number, name in enumerate(arms.arms_of((7,), base), start=1):
        changed = at_work._in_time(name, arms.ARMS[name].change(base))
        assert changed.training.num_steps == round(300 / (0.25 * number))
        assert changed.training.warmup_steps == round(300 / (0.25 * number)) // 10
        assert changed.training.optimiser == ("adamw" if "small" in name else "muon")
    (sides,) = asked
    assert len(sides) == 12
    for name, (experiment, network) in sides.items():
        is_small = name == "batch-32" or "-0.0" in name
        assert experiment.training.batch_size == (32 if is_small else 64)
        assert experiment.model.shape == (3, 16, 16)
        assert sum(weight.numel() for weight in network.parameters()) < 2.1e6


def test_arms_that_were_not_timed_are_timed_beside_the_base(tmp_path, monkeypatch):
    scale = arms.SCALES["cpu-16-300s"]
    at_work = queue.Queue.__new__(queue.Queue)
    at_work.scale, at_work.set, at_work.folder, at_work.studies = scale, tmp_path / "set", tmp_path, (7,)
    at_work.arms = None
    base = scale.base(tmp_path / "set", scale.updates)
    elsewhere = {name: 0.3 for name in arms.arms_of((7,), base) if name != "batch-32"}
    queue.write(tmp_path / "updates.json", {"cpu_seconds_of_update": elsewhere})
    monkeypatch.setattr(rivals, "cpu_seconds_of_updates", lambda sides: dict(zip(sides, (0.2, 0.1), strict=True)))
    assert at_work._in_time("batch-32", base).training.num_steps == 2000  # half of the base's time
    assert at_work._in_time("base", base).training.num_steps == 1000
    monkeypatch.undo()  # whoever times now, takes long
    assert at_work._in_time("batch-32", base).training.num_steps == 2000


def test_only_arms_that_are_run_are_timed(tmp_path, monkeypatch):
    at_work = queue.Queue.__new__(queue.Queue)
    at_work.scale, at_work.set, at_work.folder = arms.SCALES["cpu-16-300s"], tmp_path / "set", tmp_path
    at_work.studies, at_work.arms = (7,), ["small-unet-0.003"]
    monkeypatch.setattr(rivals, "cpu_seconds_of_updates", lambda sides: dict(zip(sides, (0.1, 0.2), strict=True)))
    base = at_work.scale.base(at_work.set, 1)
    assert at_work._in_time("small-unet-0.003", base).training.num_steps == 1500
    assert at_work._names() == ["base", "small-unet-0.003"]


def test_an_arm_of_a_study_not_asked_for_is_refused(tmp_path, monkeypatch, capsys):
    given = ["--out", str(tmp_path / "out"), "--data", "x", "--features", "y", "--studies", "7", "--arms", "elastic"]
    monkeypatch.setattr(sys, "argv", ["studies", *given])
    with pytest.raises(SystemExit):
        command.main()
    assert "elastic is of study 8, and the studies asked for are 7" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_are_of_the_seeds_asked_for_that_are_not_known(tmp_path, monkeypatch):
    at_work = queue.Queue.__new__(queue.Queue)
    at_work.scale, at_work.set, at_work.folder = arms.SCALES["cpu-16-300s"], tmp_path / "set", tmp_path
    at_work.studies, at_work.arms, made = (7,), ["unmixed"], []
    monkeypatch.setattr(queue.Queue, "_train", lambda _, name, seed, __: made.append((name, seed)))
    (tmp_path / "known.jsonl").write_text('{"arm": "base", "seed": "seed-3"}\n')
    at_work.run([3, 4], tmp_path / "known.jsonl")
    assert made == [("unmixed", 3), ("base", 4), ("unmixed", 4)]
    made.clear()
    at_work.run()
    assert made == [(name, seed) for seed in range(5) for name in ("base", "unmixed")]


def test_the_time_of_an_update_is_its_threads_own(tmp_path):
    prepare_set(Preparation(source="digits", shape=(3, 16, 16)), tmp_path / "set")
    base = arms.small_base(tmp_path / "set", 10)
    sides = {
        str(size): (
            dataclasses.replace(base, training=dataclasses.replace(base.training, batch_size=size)),
            RIN(base.model),
        )
        for size in (8, 64)
    }
    begun = time.thread_time()
    found = rivals.cpu_seconds_of_updates(sides, rounds=5)
    assert 0 < found["8"] < found["64"]
    assert sum(found.values()) < time.thread_time() - begun


def test_a_cold_network_forgets():
    model = moved(small(shape=(3, 8, 8), patch_size=4, num_classes=0))
    x, gamma = torch.randn(2, 3, 8, 8), torch.full((2,), 0.5)
    first = model(x, gamma, Condition(), None)
    assert not torch.equal(model(x, gamma, Condition(), first.latents).prediction, first.prediction)
    assert torch.equal(queue.Cold(model)(x, gamma, Condition(), first.latents).prediction, first.prediction)
