"""LAMB, learning rates, the average of the weights, and the optimiser's state on disk."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from rin import RinError, TrainingConfig
from rin.training import muon
from rin.training.average import Average, average_decay
from rin.training.lr_schedules import learning_rate, parse_lr_schedule
from rin.training.muon import Muon, orthogonal
from rin.training.optim import (
    Lamb,
    clip,
    make_optimiser,
    optimiser_tensors,
    parameter_groups,
    restore_optimiser,
    trust_ratios,
)
from tests.unit.models import KINDS, moved, new, small

# LAMB


class OneTensorLamb:
    """LAMB as its paper writes it, for one tensor."""

    def __init__(self, weight, lr, betas, eps, decay, adapt):
        self.weight, self.lr, self.betas, self.eps = weight.copy(), lr, betas, eps
        self.decay, self.adapt, self.step = decay, adapt, 0
        self.first, self.second = np.zeros_like(weight), np.zeros_like(weight)

    def update(self, gradient):
        self.step += 1
        (b1, b2), t = self.betas, self.step
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * gradient**2
        direction = self.first / (1 - b1**t) / (np.sqrt(self.second / (1 - b2**t)) + self.eps)
        direction = direction + self.decay * self.weight
        ratio, norm, length = 1.0, np.linalg.norm(self.weight), np.linalg.norm(direction)
        if self.adapt and norm > 0 and length > 0:
            ratio = norm / length
        self.weight = self.weight - self.lr * ratio * direction


STARTS = {
    "a kernel": (lambda draw: draw.normal(size=(3, 4)), 1.0, True),
    "a tiny kernel": (lambda draw: draw.normal(size=(3, 4)) * 1e-6, 1.0, True),
    "a huge kernel": (lambda draw: draw.normal(size=(3, 4)) * 1e5, 1.0, True),
    "a kernel of zeros": (lambda _: np.zeros((3, 4)), 1.0, True),
    "small gradients": (lambda draw: draw.normal(size=(3, 4)), 1e-8, True),
    "a vector without ratio": (lambda draw: draw.normal(size=5) * 10, 1.0, False),
}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("start", STARTS)
def test_lamb_is_lamb(start, decay):
    make, scale, adapt = STARTS[start]
    draw = np.random.default_rng(0)
    weight = nn.Parameter(torch.from_numpy(make(draw)))
    theirs = OneTensorLamb(weight.detach().numpy(), 0.01, (0.8, 0.95), 1e-8, decay, adapt)
    group = {"params": [weight], "weight_decay": decay, "adapt": adapt}
    ours = Lamb([group], lr=0.01, betas=(0.8, 0.95), eps=1e-8)
    for _ in range(6):
        gradient = draw.normal(size=tuple(weight.shape)) * scale
        weight.grad = torch.from_numpy(gradient)
        ours.step()
        theirs.update(gradient)
        np.testing.assert_allclose(weight.detach().numpy(), theirs.weight, rtol=1e-9, atol=1e-18)


def test_lamb_takes_a_ratio_of_its_own_for_each_tensor():
    big, little = nn.Parameter(torch.full((2, 2), 10.0)), nn.Parameter(torch.full((2, 2), 0.1))
    optimiser = Lamb([{"params": [big, little], "weight_decay": 0.0}], lr=0.01)
    big.grad = little.grad = torch.ones(2, 2)
    optimiser.step()
    assert (10.0 - big).unique().item() == pytest.approx(0.1, rel=1e-4)
    assert (0.1 - little).unique().item() == pytest.approx(0.001, rel=1e-4)


def test_the_trust_ratio_is_not_clamped_and_is_1_where_a_norm_is_0():
    weights = [torch.tensor([[3e4, 4e4]]), torch.tensor([[1e-6, 0.0]]), torch.zeros(1, 2), torch.ones(1, 2)]
    directions = [torch.tensor([[1e-3, 0.0]]), torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, 2)]
    ratios = [ratio.item() for ratio in trust_ratios(weights, directions)]
    assert ratios == pytest.approx([5e7, 1e-6 / math.sqrt(2), 1, 1], rel=1e-5)


def test_weights_without_a_gradient_stay():
    kept, moving = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimiser = Lamb([{"params": [kept, moving], "weight_decay": 0.5}], lr=0.1)
    moving.grad = torch.ones(2, 2)
    optimiser.step()
    assert torch.equal(kept, torch.ones(2, 2))
    assert not torch.equal(moving, torch.ones(2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_biases_and_norms_alone_are_free_of_decay_and_ratio(kind):
    model = new(small(**KINDS[kind]))
    treated = {
        id(w): (g["weight_decay"], g["adapt"]) for g in parameter_groups(model.parameters(), 0.01) for w in g["params"]
    }
    norms = {id(w) for m in model.modules() if isinstance(m, nn.LayerNorm) for w in m.parameters()}
    names = {name: id(weight) for name, weight in model.named_parameters()}
    plain = {name for name, key in names.items() if key in norms or name.endswith("bias")}
    assert {"latents", "tokenizer.positions", "blocks.0.read.attention.query.weight"} & plain == set()
    expected = {name: (0.0, False) if name in plain else (0.01, True) for name in names}
    assert {name: treated[key] for name, key in names.items()} == expected
    assert sum(len(group["params"]) for group in parameter_groups(model.parameters(), 0.01)) == len(names)


def test_query_key_and_value_are_tensors_of_their_own():
    attention = new(small()).blocks[0].read.attention
    assert {name for name, _ in attention.named_parameters()} == {
        f"{part}.{kind}" for part in ("query", "key", "value", "out") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(("name", "kind"), [("lamb", Lamb), ("adamw", torch.optim.AdamW), ("muon", Muon)])
def test_the_configured_optimiser_is_made(name, kind):
    config = TrainingConfig(optimiser=name, learning_rate=0.5, betas=(0.7, 0.8), eps=1e-3, weight_decay=0.2)
    optimiser = make_optimiser(config, new(small()).parameters())
    assert type(optimiser) is kind
    decays = []
    for group in optimiser.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.7, 0.8), 1e-3)
        decays.append(group["weight_decay"])
    assert decays == [0.2, 0.0]


def test_the_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.optimiser, config.learning_rate, config.weight_decay) == ("lamb", 3e-3, 1e-2)
    assert (config.betas, config.eps, config.lr_schedule) == ((0.9, 0.999), 1e-8, "cosine@0.8")
    assert (config.average_decay, config.average_warmup, config.warmup_steps) == (0.9999, False, 10_000)


def give_gradients(model, step):
    draw = torch.Generator().manual_seed(step)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=draw)


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon"])
def test_an_optimiser_restored_from_its_tensors_goes_on_bit_by_bit(name):
    config = TrainingConfig(optimiser=name, learning_rate=0.01)
    model = moved(small())
    optimiser = make_optimiser(config, model.parameters())
    for step in range(3):
        give_gradients(model, step)
        optimiser.step()
    tensors = {
        key: value.clone() for key, value in optimiser_tensors(optimiser, dict(model.named_parameters())).items()
    }
    assert {key.rpartition("/")[0] for key in tensors} == {key for key, _ in model.named_parameters()}

    other = new(small(), seed=9)
    other.load_state_dict(model.state_dict())
    restored = make_optimiser(config, other.parameters())
    restore_optimiser(restored, dict(other.named_parameters()), tensors, 3)
    for step in range(3, 5):
        for one, its in ((model, optimiser), (other, restored)):
            give_gradients(one, step)
            its.step()
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    again = optimiser_tensors(restored, dict(other.named_parameters()))
    assert all(
        torch.equal(value, again[key])
        for key, value in optimiser_tensors(optimiser, dict(model.named_parameters())).items()
    )


# Updates that are skipped


def as_on_metal(monkeypatch):
    """Fused kernels that take `found_inf` and do not look at it, as Apple's Metal has them, on the CPU."""
    honest = torch._fused_adamw_

    def kernel(*arguments, **options):
        honest(*arguments, **(options | {"found_inf": None}))

    monkeypatch.setattr(torch, "_fused_adamw_", kernel)
    monkeypatch.setattr("rin.training.optim.IGNORES_FOUND_INF", ("cpu",), raising=False)


@pytest.mark.parametrize("metal", [False, True], ids=["as on a CPU", "as on Apple's Metal"])
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("name", ["lamb", "adamw", "muon"])
def test_a_skipped_update_leaves_everything_as_it_is_whatever_the_gradients(monkeypatch, name, first, metal):
    if metal:
        as_on_metal(monkeypatch)
    config = TrainingConfig(optimiser=name, learning_rate=0.1, weight_decay=0.2)
    start = [torch.randn(4, 5), torch.randn(5)]
    skipping, plain = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimisers = make_optimiser(config, skipping), make_optimiser(config, plain)

    def update(*values, skip=False):
        for weights, optimiser in zip((skipping, plain), optimisers, strict=True):
            if skip and weights is plain:
                continue
            for weight, value in zip(weights, values, strict=True):
                weight.grad = value.clone()
            optimiser.found_inf = torch.tensor(float(skip))
            optimiser.step()

    if not first:
        update(torch.randn(4, 5), torch.randn(5))
    update(torch.full((4, 5), math.inf), torch.full((5,), math.nan), skip=True)
    if not first:  # a first step has moments of zeros, which the other does not have yet
        one, other = (
            optimiser_tensors(optimiser, {str(number): weight for number, weight in enumerate(weights)})
            for optimiser, weights in zip(optimisers, (skipping, plain), strict=True)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    update(torch.randn(4, 5), torch.randn(5))
    assert all(torch.equal(*pair) for pair in zip(skipping, plain, strict=True))


# Gradients scaled down


@pytest.mark.parametrize("largest", [0.01, 1.0, 1e6], ids=["far above", "above", "below"])
def test_gradients_are_clipped_as_pytorch_clips_them(largest):
    shapes = [(4, 5), (5,), (), (0, 3)]
    ours, theirs = ([nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn(one.shape)
        other.grad = one.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(theirs, largest)
    clip([weight.grad for weight in ours], norm, largest)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))


# Muon


@pytest.mark.parametrize(("bfloat16", "exact_to"), [(False, 1e-4), (True, 0.03)], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_orthogonal_keeps_the_singular_vectors_and_brings_the_values_near_1(monkeypatch, shape, bfloat16, exact_to):
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda _: bfloat16)
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.einsum("kri,krc,kic->ki", u, orthogonal(matrices), v)
    assert values.min() > 0.6
    assert values.max() < 1.3
    rest = orthogonal(matrices) - torch.einsum("kri,ki,kic->krc", u, values, v)
    assert rest.abs().max() < exact_to
    assert orthogonal(matrices).dtype == torch.float32
    assert not orthogonal(torch.zeros(1, *shape)).any()


def test_muon_moves_a_matrix_by_its_nesterov_momentum_made_orthogonal_and_a_vector_as_adamw_does():
    start, vector = torch.randn(4, 9), torch.randn(5)
    matrix, its_vector = nn.Parameter(start.clone()), nn.Parameter(vector.clone())
    config = TrainingConfig(optimiser="muon", learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.2)
    optimiser = make_optimiser(config, [matrix, its_vector])
    adam_vector = nn.Parameter(vector.clone())
    adam = torch.optim.AdamW([adam_vector], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    momentum = torch.zeros_like(start)
    for _ in range(3):
        matrix.grad, its_vector.grad = torch.randn(4, 9), torch.randn(5)
        adam_vector.grad = its_vector.grad.clone()
        momentum = 0.9 * momentum + 0.1 * matrix.grad
        move = orthogonal((0.1 * matrix.grad + 0.9 * momentum)[None])[0] * 0.2 * 3
        start = start - 0.1 * (move + 0.2 * start)
        optimiser.step()
        adam.step()
        torch.testing.assert_close(matrix.detach(), start)
        torch.testing.assert_close(its_vector, adam_vector)


def test_muon_moves_matrices_of_one_shape_as_it_moves_each_alone():
    start = torch.randn(3, 4, 5)
    gradients = torch.randn(3, 4, 5)
    config = TrainingConfig(optimiser="muon", learning_rate=0.1)
    together, alone = [nn.Parameter(w.clone()) for w in start], [nn.Parameter(w.clone()) for w in start]
    for weight, gradient in zip(together + alone, [*gradients, *gradients], strict=True):
        weight.grad = gradient.clone()
    make_optimiser(config, together).step()
    for weight in alone:
        make_optimiser(config, [weight]).step()
    torch.testing.assert_close(torch.stack(together), torch.stack(alone))


def test_muon_takes_matrices_alone_and_leaves_kernels_of_convolutions_to_adamw():
    start = torch.randn(6, 1, 3, 3)
    kernel, alone = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    config = TrainingConfig(optimiser="muon", learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.2)
    optimiser = make_optimiser(config, [kernel, nn.Parameter(torch.randn(3, 4))])
    adam = torch.optim.AdamW([alone], lr=0.1, betas=(0.9, 0.99), weight_decay=0.2)
    for _ in range(3):
        kernel.grad = torch.randn(6, 1, 3, 3)
        alone.grad = kernel.grad.clone()
        optimiser.step()
        adam.step()
        torch.testing.assert_close(kernel, alone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_muon_in_a_cuda_graph_moves_as_it_does_on_a_cpu():
    config = TrainingConfig(optimiser="muon", learning_rate=0.1, weight_decay=0.2)
    start = [torch.randn(*shape) for shape in ((6, 9), (6, 9), (9, 4), (5,))]
    sides = {where: [nn.Parameter(weight.to(where)) for weight in start] for where in ("cpu", "cuda")}
    optimisers = {where: make_optimiser(config, weights) for where, weights in sides.items()}
    for step in range(5):
        gradients = [torch.randn_like(weight) for weight in start]
        for where, optimiser in optimisers.items():
            for weight, gradient in zip(sides[where], gradients, strict=True):
                weight.grad = gradient.to(where)
            optimiser.param_groups[0]["lr"] = optimiser.param_groups[1]["lr"] = 0.1 / (step + 1)
            optimiser.found_inf = torch.tensor(float(step == 3), device=where)
            optimiser.step()
    for ours, theirs in zip(sides["cuda"], sides["cpu"], strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=0.02)


def test_muon_is_refused_where_processes_hold_rows_alone():
    with pytest.raises(RinError, match="needs whole matrices"):
        make_optimiser(TrainingConfig(optimiser="muon"), [nn.Parameter(torch.ones(2, 2))], sharded=True)


# Learning rates


def rates(schedule, steps, **changes):
    options = {"base": 2.0, "warmup_steps": 10, "num_steps": 110, "end_factor": 0.0} | changes
    return [learning_rate(step, schedule=schedule, **options) for step in steps]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "cosine@0.8"])
def test_the_first_update_under_warm_up_has_rate_0_and_the_warm_up_is_linear(schedule):
    assert rates(schedule, [0, 1, 5, 10]) == pytest.approx([0.0, 0.2, 1.0, 2.0])
    assert rates(schedule, [0], warmup_steps=0) == [2.0]


@pytest.mark.parametrize(
    ("schedule", "end_factor", "middle", "end"),
    [
        ("constant", 0.0, 2.0, 2.0),
        ("linear", 0.0, 1.0, 0.0),
        ("linear", 0.5, 1.5, 1.0),
        ("cosine", 0.0, 1.0, 0.0),
        ("cosine", 0.1, 1.1, 0.2),
        ("cosine@0.5", 0.0, 1 + math.cos(math.pi / 4), 1.0),
        ("cosine@0.8", 0.0, 1 + math.cos(0.4 * math.pi), 1 + math.cos(0.8 * math.pi)),
        ("cosine@0.8", 0.5, 1.5 + math.cos(0.4 * math.pi) / 2, 1.5 + math.cos(0.8 * math.pi) / 2),
    ],
)
def test_rates_have_their_closed_form(schedule, end_factor, middle, end):
    assert rates(schedule, [60, 110], end_factor=end_factor) == pytest.approx([middle, end])


def test_a_rate_never_rises_after_the_warm_up_nor_falls_below_its_end():
    for schedule in ("linear", "cosine", "cosine@0.8"):
        found = rates(schedule, range(10, 200), end_factor=0.1)
        assert all(later <= earlier for earlier, later in itertools.pairwise(found))
        assert min(found) >= 0.2 - 1e-12


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_run_as_short_as_its_warm_up_has_rates(schedule):
    assert rates(schedule, [9, 10], num_steps=10) == pytest.approx([1.8, 0.0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cosin", "did you mean 'cosine'"),
        ("linear@0.5", "unknown learning-rate schedule"),
        ("constant@1", "unknown learning-rate schedule"),
        ("cosine@0", "a share above 0"),
        ("cosine@1.2", "a share above 0"),
        ("cosine@half", "a share above 0"),
        ("cosine@nan", "a share above 0"),
    ],
)
def test_texts_that_are_no_learning_rate_schedule_are_refused(text, words):
    for refuse in (parse_lr_schedule, lambda text: TrainingConfig(lr_schedule=text)):
        with pytest.raises(RinError, match=words):
            refuse(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(
            ({name: 0}, f"training.{name} 0")
            for name in (
                "num_steps", "batch_size", "accumulation_steps", "log_every", "checkpoint_every", "keep_checkpoints",
            )
        ),
        *(({name: -1}, f"training.{name} -1") for name in ("warmup_steps", "held_out_every", "sample_every")),
        ({"weight_decay": -0.1}, "training.weight_decay -0.1"),
        ({"lr_end_factor": -0.1}, "training.lr_end_factor -0.1"),
        ({"accumulation_steps": 3}, "accumulation_steps 3 does not divide training.batch_size 256"),
        ({"learning_rate": 0.0}, "training.learning_rate 0.0"),
        ({"average_decay": 1.0}, "training.average_decay 1.0"),
        *(({"clip_norm": norm}, f"training.clip_norm {norm}") for norm in (-1.0, math.inf, math.nan)),
    ],
    ids=str,
)  # fmt: skip
def test_training_that_cannot_be_is_refused_by_name(changes, words):
    with pytest.raises(RinError, match=words):
        TrainingConfig(**changes)


# The average


def shifted(model, by):
    with torch.no_grad():
        for weight in model.parameters():
            weight += by


def test_the_average_starts_at_the_weights_before_the_first_update():
    model = moved(small()).train()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    average = Average(model, 0.75, warmup=False)
    assert all(torch.equal(value, start[name]) for name, value in average.model.state_dict().items())
    shifted(model, 1.0)
    average.update(0)
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, start[name] + 0.25)
    shifted(model, 1.0)
    average.update(1)
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, start[name] + 0.75 * 0.25 + 0.25 * 2)


def test_the_averaged_model_is_apart_evaluates_and_learns_nothing():
    model = moved(small()).train()
    average = Average(model, 0.5, warmup=False)
    assert model.training
    assert not any(module.training for module in average.model.modules())
    assert not any(weight.requires_grad for weight in average.model.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    before = average.model.latents.clone()
    shifted(model, 1.0)
    assert torch.equal(average.model.latents, before)


def test_the_decay_is_plain_or_warmed_up():
    assert [average_decay(update, 0.9999, False) for update in (0, 1, 10**6)] == [0.9999] * 3
    warm = [average_decay(update, 0.9999, True) for update in (0, 1, 90, 10**6)]
    assert warm == pytest.approx([1 / 10, 2 / 11, 91 / 100, 0.9999])


def test_a_warmed_up_average_forgets_its_start():
    model = moved(small())
    average, plain = Average(model, 0.9999, warmup=True), Average(model, 0.9999, warmup=False)
    start = model.latents.detach().clone()
    shifted(model, 1.0)
    for update in range(100):
        average.update(update)
        plain.update(update)
    assert (average.model.latents - start).mean().item() > 0.99
    assert (plain.model.latents - start).mean().item() < 0.02
