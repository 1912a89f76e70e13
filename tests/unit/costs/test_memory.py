"""What a run will cost: operations of an update, memory of a GPU, and what fits."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rin import RIN, Condition, Diffusion, DiffusionConfig, RINConfig, RinError
from rin.cli import main
from rin.costs import memory
from rin.costs.memory import Held, Passing, held, needed, passing, plan
from rin.costs.operations import cost, counting, gpu_hours, num_estimated, peak_operations, update_operations
from rin.training.config import TrainingConfig
from rin.training.optim import make_optimiser
from tests.unit.models import KINDS, small

WITHOUT = DiffusionConfig(self_cond_rate=0.0)


def counted(config, diffusion=WITHOUT, batch=1, recompute=False):
    return update_operations(config, diffusion, batch, recompute) / cost(config).operations


# Operations


def test_a_gradient_takes_twice_its_forward_pass_but_for_what_needs_none():
    # of the network's inputs no gradient is asked: patches in (n tokens of 12 numbers to 16), the noise level's
    # sinusoids (8 to 32) and the class (5 to 32)
    config = small()
    forward, inputs = cost(config).operations, 2 * (16 * 12 * 16 + 8 * 32 + 5 * 32)
    assert update_operations(config, WITHOUT, 1) == 3 * forward - inputs


def test_a_depthwise_convolution_takes_thrice_its_forward_pass():
    x, weight = torch.ones(2, 4, 8, 8, requires_grad=True), torch.ones(4, 1, 3, 3, requires_grad=True)
    with counting() as counter:
        answer = torch.nn.functional.conv2d(x, weight, padding=1, groups=4)
        assert counter.get_total_flops() == 2 * x.numel() * 9
        answer.sum().backward()
    assert counter.get_total_flops() == 3 * 2 * x.numel() * 9


def test_the_estimate_pass_leaves_out_the_last_write_and_the_read_out():
    config, n, m, d, e = small(), 16, 8, 16, 32
    projections = n * d * d + 2 * m * e * d + n * d * d
    write = projections + 2 * n * m * d + 2 * n * d * d * config.interface_mlp_ratio
    left_out = 2 * (write + n * d * 12)
    everyone = update_operations(config, DiffusionConfig(self_cond_rate=0.01), 7)
    assert everyone - update_operations(config, WITHOUT, 7) == 7 * (cost(config).operations - left_out)


def test_blocks_computed_anew_take_another_pass_through_them():
    assert 3.7 < counted(small(), recompute=True) < 4
    assert 2.9 < counted(small()) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_updates_of_every_kind_of_network_are_counted(kind):
    assert 1.5 < counted(small(**KINDS[kind])) < 3.1


@pytest.mark.parametrize(
    ("rate", "by", "count"),
    [(0.0, "mask", 0), (0.0, "share", 0), (0.5, "mask", 9), (0.5, "share", 4), (1.0, "share", 9)],
)
def test_a_mask_estimates_every_example_and_a_share_its_own(rate, by, count):
    diffusion = DiffusionConfig(self_cond_rate=rate, self_cond_by=by)
    assert num_estimated(diffusion, 9) == count
    asked = []

    def model(x, gamma, condition=None, latents_prev=None, latents_only=False):
        asked.append(x.shape[0] if latents_only else 0)
        return network(x, gamma, condition, latents_prev, latents_only)

    network = RIN(small())
    Diffusion(diffusion).loss(model, torch.zeros(9, 3, 8, 8), Condition(labels=torch.zeros(9, dtype=torch.int64)))
    assert sum(asked) == count


def test_counting_draws_no_random_numbers():
    before = torch.get_rng_state()
    update_operations(small(), DiffusionConfig(), 4, True)
    course(small(dropout_rate=0.1), WITHOUT, 2, True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835.5), ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA A10", 125), ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362), ("Tesla V100-SXM2-16GB", 125), ("Tesla V100-PCIE-32GB", 112), ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 3090", 71), ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA RTX A6000", 154.8), ("NVIDIA RTX 6000 Ada Generation", 364.2), ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA A10G", None), ("NVIDIA GH200 480GB", None), ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Quadro RTX 6000", None),
        ("NVIDIA RTX PRO 6000 Blackwell", None), ("AMD Instinct MI300X", None), ("", None),
    ],
)  # fmt: skip
def test_peaks_are_those_of_the_data_sheets(name, teraflops):
    assert peak_operations(name) == (None if teraflops is None else pytest.approx(teraflops * 1e12))


def test_gpu_hours_are_operations_over_a_share_of_the_peak():
    assert gpu_hours(10**21) == pytest.approx(1e21 / (989.4e12 * 0.3) / 3600)


# Memory


def test_what_is_held_is_what_training_makes():
    config = small()
    model = RIN(config)
    (
        model(torch.randn(2, 3, 8, 8), torch.rand(2), Condition(labels=torch.zeros(2, dtype=torch.int64)))[0]
    ).sum().backward()
    weights = list(model.parameters())
    for name in ("lamb", "adamw", "muon"):
        optimiser = make_optimiser(TrainingConfig(optimiser=name), weights)
        optimiser.step()
        moments = [value for state in optimiser.state.values() for value in state.values() if value.numel() > 1]
        found = held(config, optimiser=name)
        assert found.weights == found.average == sum(weight.nbytes for weight in weights)
        assert found.gradients == sum(weight.grad.nbytes for weight in weights)
        assert found.optimiser == sum(moment.nbytes for moment in moments)
        assert found.gathered == 0
        matrices = sum(weight.nbytes for weight in weights if weight.ndim > 1)
        assert {"lamb": found.update == matrices, "adamw": found.update == 0, "muon": found.update < 6 * matrices}[name]
        assert found.always == 5 * found.weights - (matrices if name == "muon" else 0)


def test_fsdp_holds_a_part_and_gathers_the_largest_block_twice():
    config = small(compute_depth=(1, 3))
    model = RIN(config)
    blocks = [sum(weight.numel() for weight in block.parameters()) for block in model.blocks]
    numbers = sum(weight.numel() for weight in model.parameters())
    found = held(config, parallel="fsdp", num_gpus=4)
    assert found.weights == found.gradients == found.average == 4 * -(-numbers // 4)
    assert found.gathered == 8 * (2 * blocks[1] + numbers - sum(blocks))
    assert held(config, parallel="ddp", num_gpus=4) == held(config)


def course(config, diffusion, examples, recompute, bfloat16=False, fake=True):
    """The most bytes in use: on fake tensors, or on real ones."""
    if fake:
        return max(memory._course(config, diffusion, examples, recompute, bfloat16))
    model = RIN(config).train()
    model.recompute_blocks = recompute
    memory.compute_as_gpus(model)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    chance, everyone = memory.Chance(0, 0, torch.arange(examples)), torch.ones(examples, dtype=torch.bool)
    known = [*model.parameters(), *(weight.grad for weight in model.parameters()), *model.buffers()]
    with memory._Watch(known) as watch:
        x_0, _, condition = memory.example_inputs(config, examples)
        with memory.autocast_to(bfloat16, torch.device("cpu")):
            loss = Diffusion(diffusion).loss(model, x_0, condition, self_cond=everyone, chance=chance)
        loss.backward()
    return max(watch.course)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_fake_tensors_take_the_memory_that_real_ones_take(recompute, bfloat16):
    config, diffusion = small(num_latents=16, compute_depth=(2, 1)), DiffusionConfig()
    found = course(config, diffusion, 6, recompute, bfloat16)
    assert found == pytest.approx(course(config, diffusion, 6, recompute, bfloat16, fake=False), rel=0.002)


@pytest.mark.parametrize("recompute", [False, True])
def test_two_runs_tell_the_peak_at_any_number_of_examples(recompute):
    config = small(dropout_rate=0.1)
    lines = passing(config, DiffusionConfig(), recompute_blocks=recompute)
    for examples in (1, 17):
        assert lines.peak(examples) == course(config, DiffusionConfig(), examples, recompute, bfloat16=True)


def test_memory_is_followed_from_where_it_is_taken_to_where_it_is_given_back():
    x, weight = torch.ones(5, 4), torch.ones(4, 8, requires_grad=True)
    piece = 5 * 8 * 4
    with memory._Watch([x, weight]) as watch:
        hidden = x @ weight  # kept for the gradient of GELU
        assert watch.course[-1] == piece
        shown = torch.nn.functional.gelu(hidden).view(8, 5)  # a view is no memory
        assert watch.course[-1] == 2 * piece
        del hidden
        total = shown.sum()
        assert watch.course[-1] == 2 * piece + 4
        del shown
        total.backward()
    # the gradient of the sum (4), spread out by no memory; GELU's; the weight's
    assert max(watch.course) == 2 * piece + 4 + 4
    del total
    x.add_(1)
    assert weight.grad.nbytes == 4 * 8 * 4


def test_blocks_computed_anew_take_less_memory():
    kept, anew = (course(small(compute_depth=(1,) * 3), WITHOUT, 64, way) for way in (False, True))
    assert anew < 0.6 * kept


LARGER = {
    "shape": (3, 32, 32), "patch_size": 4, "num_classes": 10, "num_latents": 48, "latent_dim": 128,
    "interface_dim": 128, "compute_depth": (1, 1), "num_heads": 4, "num_read_write_heads": 4,
}  # fmt: skip
MEASURE = """
import json, sys, torch
from pathlib import Path
from benchmarks.harness import Bench
from rin import RIN, Condition, Diffusion, DiffusionConfig, RINConfig
from rin.experiment import from_dict
from rin.costs.memory import compute_as_gpus

found = []
for recompute in (False, True):
    model = RIN(from_dict(RINConfig, json.loads(sys.argv[1]))).train()
    model.recompute_blocks = recompute
    compute_as_gpus(model)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    def step():
        x_0, labels = torch.zeros(24, 3, 32, 32), torch.zeros(24, dtype=torch.int64)
        everyone = torch.ones(24, dtype=torch.bool)
        Diffusion(DiffusionConfig()).loss(model, x_0, Condition(labels=labels), self_cond=everyone).backward()
    step()
    found.append(Bench(device=torch.device("cpu"), full=False, path=Path("none")).peak_memory(step))
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system tells no peak")
def test_the_calculated_memory_is_the_measured_one():
    """With every tensor in pages of its own, so that nothing fragments."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_MMAP_MAX_": "1000000",
    }
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(LARGER)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    for recompute, bytes_measured in zip((False, True), json.loads(measured.stdout), strict=True):
        lines = passing(RINConfig(**LARGER), DiffusionConfig(), recompute_blocks=recompute, bfloat16=False)
        assert bytes_measured == pytest.approx(lines.peak(24), rel=0.03)


# Plans

HELD = Held(weights=10, gradients=10, optimiser=20, average=10, gathered=0, update=30)


def test_what_is_needed_is_what_is_held_and_the_larger_of_batch_and_update():
    lines = Passing(((5.0, 4.0), (20.0, 1.0)))
    assert [lines.peak(part) for part in (1, 5, 10)] == [21, 25, 45]
    assert [needed(HELD, lines, part) for part in (1, 10)] == [50 + 30, 50 + 45]


@pytest.mark.parametrize(
    ("gigabytes", "expected"),
    [  # 100 MB held whole, 40 sharded; an example takes 10, or 2 with blocks computed anew; a tenth is left free
        (1000, ("ddp", False, 64, 1)), (400, ("ddp", False, 16, 4)), (123, ("ddp", False, 1, 64)),
        (118, ("ddp", True, 2, 32)), (90, ("fsdp", False, 4, 16)), (55, ("fsdp", True, 4, 16)),
        (50, ("fsdp", True, 2, 32)), (44, None),
    ],
)  # fmt: skip
def test_the_first_way_that_fits_is_taken_with_its_largest_part(monkeypatch, gigabytes, expected):
    sizes = {"ddp": 100, "fsdp": 40}
    monkeypatch.setattr(memory, "held", lambda *_, parallel, **__: replace(
        HELD, weights=sizes[parallel] - 40, update=1))  # fmt: skip
    monkeypatch.setattr(
        memory, "passing", lambda *_, recompute_blocks: Passing(((0.0, 2.0 if recompute_blocks else 10.0),))
    )
    found = plan(small(), WITHOUT, batch_size=256, optimiser="lamb", num_gpus=4, memory=gigabytes)
    assert expected == (found and (found.parallel, found.recompute_blocks, found.part, found.accumulation_steps))


def test_gpus_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(RinError, match="3 GPUs do not divide"):
        plan(small(), WITHOUT, batch_size=256, optimiser="lamb", num_gpus=3, memory=2**40)


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        main(["info", *arguments])
    captured = capsys.readouterr()
    return leaving.value.code, captured.out, captured.err


def test_info_has_the_command_that_fits(capsys, monkeypatch):
    """291 MiB for all 64 examples, so half of them fit into 0.3 GiB, and nothing into a fifteenth of that."""
    once = functools.cache(passing)  # of the same network every time
    monkeypatch.setattr(memory, "passing", once)
    monkeypatch.setattr("rin.cli.info.passing", once)
    out = told(capsys, "small-32", "--gpus", "16", "--memory", "2")[1]
    assert (
        "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --nproc-per-node 8 -m rin.cli train "
        "small-32 --data.path PATH --out runs/small-32\n"
    ) in out
    out = told(capsys, "small-32", "--gpus", "1", "--memory", "0.3")[1]
    assert "rin train small-32 --data.path PATH --training.accumulation-steps 2 --out runs/small-32\n" in out
    assert (
        "fits                     nothing: one example"
        in told(capsys, "small-32", "--gpus", "2", "--memory", "0.02")[1]
    )
    assert "training on" not in told(capsys, "small-32")[1]


@pytest.mark.parametrize(
    "arguments",
    [["cifar10", "--gpus", "0"], ["cifar10", "--gpus", "12"], ["cifar10", "--gpus", "1", "--memory", "0"],
     ["cifar10", "--gpus", "3"], ["tests", "--gpus", "1"]],
)  # fmt: skip
def test_what_cannot_be_planned_is_one_line(capsys, arguments):
    code, _, error = told(capsys, *arguments)
    assert (code, error.count("\n")) == (2, 1)
