"""What networks, losses and sampling are given: what does not fit is one line, and nothing of it passes for another."""

import dataclasses
import math

import pytest
import torch

from rin import RIN, Condition, Diffusion, DiffusionConfig, RinError
from tests.unit.models import KINDS, Answering, inputs, moved, small

pytestmark = pytest.mark.usefixtures("unhooked")

X = torch.zeros(2, 3, 8, 8)
V = DiffusionConfig(prediction="v", loss_space="eps", num_steps=2, label_drop_rate=0.1)


def refused(call):
    with pytest.raises(RinError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# Networks

EMBEDDINGS = torch.zeros(2, 3, 6)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("image", {"labels": torch.tensor([0, 5])}, "labels [0, 5]: give classes 0 to 4"),
        ("image", {"labels": torch.tensor([-2, 0])}, "labels [-2, 0]"),
        ("image", {"labels": torch.tensor([3])}, "labels are int64 (1,)"),
        ("image", {"labels": torch.tensor(3)}, "labels are int64 ()"),
        ("image", {"labels": torch.tensor([[0], [1]])}, "labels are int64 (2, 1)"),
        ("image", {"labels": torch.tensor([0, 1, 2])}, "labels are int64 (3,)"),
        ("image", {"labels": torch.tensor([0.0, 1.0])}, "labels are float32"),
        ("image", {"labels": torch.tensor([False, True])}, "labels are bool"),
        ("image", {"labels": torch.tensor([0, 1], dtype=torch.uint8)}, "labels are uint8"),
        ("embeddings", {"embeddings": EMBEDDINGS[:1]}, "embeddings are float32 (1, 3, 6)"),
        ("embeddings", {"embeddings": EMBEDDINGS.long()}, "embeddings are int64"),
        ("embeddings", {"embeddings": EMBEDDINGS, "embedding_mask": torch.ones(1, 3).bool()}, "embedding_mask is bool"),
        ("embeddings", {"embeddings": EMBEDDINGS, "embedding_mask": torch.ones(2, 3)}, "embedding_mask is float32"),
        ("embeddings", {"embedding_mask": torch.ones(2, 3).bool()}, "without embeddings"),
        ("video", {"context": torch.zeros(2, 3, 3, 4, 8)}, "context of shape (3, 3, 4, 8)"),
        ("video", {"context": torch.zeros(2, 3, 3, 16, 4)}, "context of shape"),
        ("video", {"context": torch.zeros(1, 3, 3, 8, 8)}, "context is float32 (1,"),
        ("video", {"context": torch.zeros(2, 1, 3, 8, 8)}, "context of shape"),
        ("video", {"context": torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8)}, "context is uint8"),
        ("image", {"x": X.byte()}, "examples of uint8"),
        ("image", {"x": X.long()}, "examples of int64"),
        ("image", {"gamma": torch.rand(1)}, "gamma is float32 (1,)"),
        ("image", {"gamma": torch.rand(2, 1)}, "gamma is float32 (2, 1)"),
        ("image", {"gamma": torch.tensor([0, 1])}, "gamma is int64"),
        ("image", {"gamma": torch.tensor([0.5, 1.5])}, "give numbers in [0, 1]"),
        ("image", {"gamma": torch.tensor([0.5, math.nan])}, "give numbers in [0, 1]"),
        ("image", {"latents_prev": torch.zeros(1, 8, 32)}, "previous latents of shape (1, 8, 32)"),
    ],
)
def test_a_network_takes_what_it_was_made_for(kind, change, words):
    config = small(**KINDS[kind])
    x, gamma, condition = inputs(config)
    given = {"x": x, "gamma": gamma, "condition": condition, "latents_prev": None}
    parts = {name: value for name, value in change.items() if name not in given}
    if "embedding_mask" in parts and "embeddings" not in parts:
        condition = Condition()
    given["condition"] = dataclasses.replace(condition, **parts)
    given |= {name: value for name, value in change.items() if name in given}
    assert words in refused(lambda: moved(config)(**given))


def test_where_numbers_are_not_looked_at_a_class_that_there_is_not_is_nan(monkeypatch):
    monkeypatch.setattr("rin.nn.checks.is_at_hand", lambda _: False)
    config = small()
    x, gamma, _ = inputs(config, batch=3)
    out = moved(config)(x, gamma, Condition(labels=torch.tensor([4, 5, -1]))).prediction
    assert out.flatten(1).isfinite().all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_what_is_masked_out_says_nothing_whatever_it_is(what):
    config = small(**KINDS["embeddings"])
    model = moved(config)
    x, gamma, condition = inputs(config)
    mask = torch.tensor([[True, True, False]] * 2)
    spoilt = condition.embeddings.masked_fill(~mask[..., None], what)
    answers = [
        model(x, gamma, Condition(embeddings=embeddings, embedding_mask=mask)).prediction
        for embeddings in (condition.embeddings, spoilt)
    ]
    assert torch.equal(*answers)


@pytest.mark.parametrize("dim", [4, 2, 6])
def test_latents_too_narrow_for_two_sinusoids_are_refused(dim):
    assert "multiple of 4 from 8 on" in refused(
        lambda: small(latent_dim=dim, interface_dim=4, num_heads=2, num_read_write_heads=2)
    )


# Losses


@pytest.mark.parametrize(
    ("x_0", "draws", "words"),
    [
        (X.byte(), {}, "x_0 of uint8 (2, 3, 8, 8): give a float tensor"),
        (X.long(), {}, "x_0 of int64"),
        ([[0.0]], {}, "x_0 of list"),
        (torch.zeros(3), {}, "x_0 of float32 (3,)"),
        (X + 255, {}, "x_0 from 255 to 255: give numbers in [-1, 1]"),
        (X - 1.1, {}, "x_0 from -1.1 to -1.1"),
        (X + math.nan, {}, "x_0 from nan to nan"),
        (X, {"t": torch.tensor([0, 1])}, "t is int64 (2,)"),
        (X, {"t": torch.tensor([0.5])}, "t is float32 (1,)"),
        (X, {"t": torch.tensor([[0.5], [0.5]])}, "t is float32 (2, 1)"),
        (X, {"t": torch.tensor([0.5, 1.5])}, "t from 0.5 to 1.5"),
        (X, {"t": torch.tensor([-0.5, 0.5])}, "t from -0.5 to 0.5"),
        (X, {"t": torch.tensor([math.nan, 0.5])}, "t from nan"),
        (X, {"noise": X[:1]}, "noise is float32 (1, 3, 8, 8)"),
        (X, {"noise": X[:, :1]}, "noise is float32 (2, 1, 8, 8)"),
        (X, {"noise": X.long()}, "noise is int64"),
        (X, {"keep": torch.ones(1).bool()}, "keep is bool (1,)"),
        (X, {"keep": torch.ones(2)}, "keep is float32"),
        (X, {"keep_in_estimate": torch.ones(3).bool()}, "keep_in_estimate is bool (3,)"),
        (X, {"self_cond": torch.ones(1).bool()}, "self_cond is bool (1,)"),
        (X, {"self_cond": torch.ones(2)}, "self_cond is float32"),
        (X, {"nosie": X}, "did you mean 'noise'"),
        (X, {"times": X}, "times"),
    ],
)
@pytest.mark.parametrize("call", ["loss", "losses"])
def test_a_loss_takes_data_and_draws_of_their_shapes(call, x_0, draws, words):
    assert words in refused(lambda: getattr(Diffusion(V), call)(Answering(), x_0, None, **draws))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (torch.full((2, 3, 3, 8, 8), 255.0), "context from 255 to 255"),
        (torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8), "context of uint8"),
        (torch.zeros(2, 3, 8, 8), "context of float32 (2, 3, 8, 8)"),
    ],
)
def test_context_is_data(context, words):
    given, shape = Condition(context=context), (2, 3, 3, 8, 8)
    assert words in refused(lambda: Diffusion(V).loss(Answering(), torch.zeros(shape), given))
    assert words in refused(lambda: Diffusion(V).sample(Answering(), shape, given))


@pytest.mark.parametrize("x_0", [X.double(), X.half(), X.bfloat16()], ids=["double", "half", "bfloat16"])
def test_data_in_other_floats_are_data(x_0):
    noise = torch.randn(X.shape)
    draws = {"noise": noise, "t": torch.tensor([0.5, 0.5])}
    assert torch.equal(Diffusion(V).loss(Answering(), x_0, **draws), Diffusion(V).loss(Answering(), X, **draws))


@pytest.mark.parametrize("schedule", ["cosine@0,1,1", "cosine", "linear", "sigmoid@-3,3,0.9"])
@pytest.mark.parametrize("loss_space", ["eps", "x", "v"])
@pytest.mark.parametrize("prediction", ["eps", "x", "v"])
def test_losses_are_finite_at_both_ends(prediction, loss_space, schedule):
    config = DiffusionConfig(prediction=prediction, loss_space=loss_space, schedule=schedule, self_cond_rate=0.0)
    model = moved(small())
    x_0, _, condition = inputs(small(), batch=3)
    losses = Diffusion(config).losses(model, x_0, condition, t=torch.tensor([0.0, 1e-5, 1.0]))
    losses.mean().backward()
    assert losses.isfinite().all()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


# Sampling


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((2, 3, 8, 8), {"num_step": 5}, "did you mean 'num_steps'"),
        ((2, 3, 8, 8), {"guidance_scale": 5}, "did you mean 'guidance'"),
        ((2, 3, 8, 8), {"guidance": math.nan}, "guidance nan"),
        ((2, 3, 8, 8), {"guidance": "3"}, "guidance '3'"),
        ((2, 3, 8, 8), {"td": math.inf}, "td inf"),
        ((2, 3, 8, 8), {"num_steps": 2.5}, "num_steps 2.5"),
        ((2, 3, 8, 8), {"num_steps": True}, "num_steps True"),
        ((2, 3, 8, 8), {"block": -1}, "block -1"),
        ((2, 3, 8, 8), {"sampler": "ddmp"}, "did you mean 'ddpm'"),
        ((2, 3, 8, 8), {"schedule": "cosine@1,1,1"}, "schedule"),
        ((2, 3, 8, 8), {"seeds": [1]}, "1 seeds for 2 samples"),
        ((2, 3, 8, 8), {"seeds": [0.5, 1]}, "seeds [0.5, 1]"),
        ((2, 3, 8, 8), {"seeds": torch.tensor([True, False])}, "give whole numbers"),
        ((2, 3, 8, 8), {"noise": [X[:1]]}, "noise of shape (1, 3, 8, 8)"),
        ((0, 3, 8, 8), {}, "samples of shape (0, 3, 8, 8)"),
        ((-1, 3, 8, 8), {}, "samples of shape"),
        ((2.0, 3, 8, 8), {}, "samples of shape"),
        ((3,), {}, "samples of shape"),
    ],
)
def test_sampling_takes_options_that_there_are(shape, options, words):
    assert words in refused(lambda: Diffusion(V).sample(Answering(), shape, **options))


def test_steps_are_refused_before_the_first_one():
    assert "num_steps 0" in refused(lambda: Diffusion(V).steps(Answering(), (2, 3, 8, 8), num_steps=0))


# Precisions


def drawn(model, **options):
    labels = Condition(labels=torch.tensor([0, 3]))
    return Diffusion(V).sample(model, (2, 3, 8, 8), labels, seeds=[0, 1], num_steps=3, **options)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_network_in_other_floats_samples(dtype, sampler):
    expected = drawn(moved(small()), sampler=sampler)
    found = drawn(moved(small()).to(dtype), sampler=sampler)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol={torch.float64: 1e-4, torch.float16: 0.02}.get(dtype, 0.1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_network_of_any_kind_takes_any_floats_in_any_other(dtype, kind):
    config = small(**KINDS[kind])
    model = moved(config).to(dtype)
    x, gamma, condition = inputs(config)
    latents = torch.zeros(2, 8, 32)
    first = model(x, gamma, condition, latents)
    assert first.prediction.dtype == dtype
    others = Condition(
        labels=condition.labels,
        embeddings=None if condition.embeddings is None else condition.embeddings.double(),
        context=None if condition.context is None else condition.context.double(),
    )
    torch.testing.assert_close(model(x.double(), gamma.double(), others, latents.double())[0], first[0])


def test_under_a_double_default_type_nothing_changes():
    expected = drawn(moved(small()))
    model = moved(small())
    try:
        torch.set_default_dtype(torch.float64)
        found, made_there = drawn(model), RIN(small())
        assert Diffusion(V).loss(made_there, torch.zeros(2, 3, 8, 8)).isfinite()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("sampler", ["ddpm", "ddpm-small", "ddim"])
def test_under_a_callers_autocast_a_sample_is_that_of_bfloat16(sampler):
    model = moved(small())
    with torch.autocast("cpu", torch.bfloat16):
        found = drawn(model, sampler=sampler)
    assert found.dtype == torch.float32
    assert torch.equal(found, drawn(model, sampler=sampler, bfloat16=True))
