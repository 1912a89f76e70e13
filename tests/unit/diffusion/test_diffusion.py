"""Diffusion: predictions, the loss, self-conditioning, samplers, guidance."""

import math

import pytest
import torch

from rin import Condition, Diffusion, DiffusionConfig, RinError
from rin.core.progress import warn_once
from rin.core.seeds import Chance, Purpose
from rin.diffusion import parse_schedule
from rin.diffusion.given import Given
from rin.diffusion.loss import fixed_share
from rin.diffusion.parametrisation import corrupt, estimate, velocity
from rin.diffusion.samplers import ddim_step, ddpm_step, noise_source, step_times
from tests.unit.models import KINDS, Answering, inputs, moved, small

SPACES = ("eps", "x", "v")
LEVELS = torch.tensor([0.1, 0.5, 0.9])
every_space = pytest.mark.parametrize("space", SPACES)


def chance(batch, step=0):
    return Chance(11, step, torch.arange(batch))


def example(batch=3, scale=0.4):
    """Clean data inside the clip, its noise and its levels."""
    draw = torch.Generator().manual_seed(0)
    shape = (batch, 2, 4, 4)
    return (torch.randn(shape, generator=draw) * scale).clamp(-1, 1), torch.randn(shape, generator=draw)


def column(gamma):
    return gamma[:, None, None, None]


def truth(space, x_0, eps, gamma):
    return {"eps": eps, "x": x_0, "v": velocity(x_0, eps, gamma)}[space]


# Schedules and predictions


@pytest.mark.parametrize("text", ["cosine", "cosine@0.2,1,1", "sigmoid@-3,3,0.9", "linear"])
def test_gamma_falls_from_1_to_0_inside_its_interval(text):
    gamma = parse_schedule(text)(torch.linspace(0, 1, 101))
    assert gamma[0].item() == pytest.approx(1, abs=1e-5)
    assert gamma[-1].item() == pytest.approx(0, abs=1e-5)
    assert (gamma.diff() < 0).all()
    assert gamma.min() > 0
    assert gamma.max() <= 1


LOW, HIGH = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("linear", 0.7),
        ("cosine", math.cos(0.3 * math.pi / 2) ** 2),
        ("cosine@0,1,1", math.cos(0.3 * math.pi / 2) ** 2),
        ("cosine@0,1,2", math.cos(0.3 * math.pi / 2) ** 4),
        ("cosine@0.5,1,1", 2 * math.cos(0.65 * math.pi / 2) ** 2),
        ("sigmoid@-3,3,1", (HIGH - 1 / (1 + math.exp(1.2))) / (HIGH - LOW)),
    ],
)
def test_schedules_have_their_closed_form(text, value):
    assert parse_schedule(text)(torch.tensor([0.3])).item() == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cosin", "did you mean 'cosine'"),
        ("zzz", "there are"),
        ("sigmoid", "write start, end and tau"),
        ("sigmoid@1,2", "write start, end and tau"),
        ("sigmoid@1,2,3,4", "write start, end and tau"),
        ("cosine@a,b,c", "write start, end and tau"),
        ("sigmoid@2,2,1", "must differ"),
        ("sigmoid@-3,3,0", "tau be above 0"),
        ("cosine@0,1,-1", "tau be above 0"),
        ("linear@0,1,1", "linear takes no numbers"),
    ],
)
def test_texts_that_are_no_schedule_are_refused(text, words):
    with pytest.raises(RinError, match=words):
        parse_schedule(text)
    with pytest.raises(RinError, match=words):
        DiffusionConfig(sampling_schedule=text)


@pytest.mark.parametrize("tau", [0.3, 0.5, 0.75, 0.9, 1, 1.2, 1.5, 2, 2.25, 3])
@pytest.mark.parametrize("edges", ["0,1", "0.2,1", "1,0", "0.5,1", "-0.5,1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gamma_of_a_cosine_is_inside_its_interval_up_to_the_right_angle(edges, tau, dtype):
    try:
        schedule = parse_schedule(f"cosine@{edges},{tau}")
    except RinError:
        assert edges == "-0.5,1"  # which rises before it falls
        return
    gamma = schedule(torch.linspace(0, 1, 1001, dtype=dtype))
    assert ((gamma > 0) & (gamma <= 1)).all()
    assert gamma[-1] < 1e-6 < gamma[0]


@pytest.mark.parametrize(
    "text",
    ["cosine@0,2,1", "cosine@0,3,0.7", "cosine@-1,1,1", "cosine@1,3,1", "sigmoid@-3,3,1e12",
     "sigmoid@1e30,2e30,1"],
)  # fmt: skip
def test_a_curve_that_does_not_fall_from_1_to_0_is_no_schedule(text):
    with pytest.raises(RinError, match=r"does not fall from 1 to 0"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "cosin"}, "did you mean"),
        ({"input_scale": 0.0}, "diffusion.input_scale 0.0"),
        ({"self_cond_rate": 1.5}, "diffusion.self_cond_rate 1.5"),
        ({"label_drop_rate": -0.1}, "diffusion.label_drop_rate -0.1"),
        ({"num_steps": 0}, "diffusion.num_steps 0"),
    ],
    ids=str,
)
def test_options_that_make_no_diffusion_are_refused_by_name(changes, words):
    with pytest.raises(RinError, match=words):
        DiffusionConfig(**changes)


@every_space
@pytest.mark.parametrize("recompute", [True, False])
def test_the_true_prediction_gives_back_clean_data_and_noise(space, recompute):
    x_0, eps = example()
    x_t = corrupt(x_0, eps, LEVELS)
    found = estimate(truth(space, x_0, eps, LEVELS), x_t, LEVELS, space, 1.0, recompute)
    torch.testing.assert_close(found.x_0, x_0, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-5)


@every_space
def test_clean_data_is_clipped_and_the_noise_follows_only_if_asked(space):
    x_0, eps = example(scale=2.0)
    x_0 = x_0 * 3
    x_t = corrupt(x_0, eps, LEVELS)
    prediction = truth(space, x_0, eps, LEVELS)
    again = estimate(prediction, x_t, LEVELS, space, 1.0, True)
    assert again.x_0.abs().max() == 1
    torch.testing.assert_close(corrupt(again.x_0, again.eps, LEVELS), x_t)
    estimated = estimate(prediction, x_t, LEVELS, space, 1.0, False)
    torch.testing.assert_close(estimated.x_0, again.x_0)
    torch.testing.assert_close(estimated.eps, again.eps if space == "x" else eps, rtol=0, atol=1e-5)


def test_noisy_data_has_its_share_of_variance_and_v_is_the_rotated_direction():
    x_0, eps = example()
    x_t, v = corrupt(x_0, eps, LEVELS), velocity(x_0, eps, LEVELS)
    torch.testing.assert_close(x_t, column(LEVELS).sqrt() * x_0 + (1 - column(LEVELS)).sqrt() * eps)
    torch.testing.assert_close(x_t**2 + v**2, x_0**2 + eps**2)


# The loss


def expected_loss(space, loss_space, output, clean, noise, x_t, gamma, scale):
    a, s = column(gamma).sqrt(), (1 - column(gamma)).sqrt()
    x_0 = {"eps": (x_t - s * output) / a, "x": output, "v": a * x_t - s * output}[space]
    clipped = x_0.clamp(-scale, scale)
    if loss_space == "x":
        error = (clipped - clean) / scale
    elif loss_space == "v":
        eps = (x_t - a * x_0) / s
        error = (a * eps - s * x_0) - (a * noise - s * clean)
    else:
        error = (x_t - a * clipped) / s - noise if space == "x" else {"eps": output, "v": s * x_t + a * output}[space]
        error = error if space == "x" else error - noise
    return (error**2).flatten(1).mean(1)


@every_space
@pytest.mark.parametrize("loss_space", SPACES)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_loss_is_the_squared_error_in_its_space(space, loss_space, scale):
    x_0, noise = example()
    t = torch.tensor([0.2, 0.5, 0.8])
    gamma = parse_schedule("linear")(t)
    config = DiffusionConfig(schedule="linear", prediction=space, loss_space=loss_space, input_scale=scale)
    output = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(5))
    model = Answering(lambda _x, _gamma, _condition: output)
    loss = Diffusion(config).losses(model, x_0, t=t, noise=noise)
    x_t = corrupt(x_0 * scale, noise, gamma)
    expected = expected_loss(space, loss_space, output, x_0 * scale, noise, x_t, gamma, scale)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.calls[-1]["x"], x_t)
    torch.testing.assert_close(model.calls[-1]["gamma"], gamma)


@pytest.mark.parametrize(("loss_space", "inside", "outside"), [("x", True, False), ("v", True, True)])
@every_space
def test_an_x_loss_has_no_gradient_outside_the_clip_and_a_v_loss_has(loss_space, inside, outside, space):
    x_0, noise = example(batch=1)
    config = DiffusionConfig(schedule="linear", prediction=space, loss_space=loss_space, input_scale=0.5)
    t = torch.tensor([0.5])
    x_t = corrupt(x_0 * 0.5, noise, 1 - t)
    for wanted, size in ((inside, 0.2), (outside, 3.0)):
        # the output that tells x_0 = size everywhere
        target = torch.full_like(x_0, size)
        eps = (x_t - (1 - t).sqrt() * target) / t.sqrt()
        output = truth(space, target, eps, 1 - t).requires_grad_()
        loss = Diffusion(config).losses(Answering(lambda *_, output=output: output), x_0, t=t, noise=noise)
        (gradient,) = torch.autograd.grad(loss.sum(), output)
        assert gradient.any().item() is wanted


def test_the_loss_is_one_number_an_example():
    x_0, _ = example()
    output = torch.zeros_like(x_0)
    noise = torch.stack([torch.full_like(x_0[0], size) for size in (0.0, 1.0, 2.0)])
    loss = Diffusion(DiffusionConfig()).losses(Answering(lambda *_: output), x_0, noise=noise)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0, 4.0]))


def test_a_loss_is_a_function_of_its_chance():
    config = small()
    model = moved(config)
    _, _, condition = inputs(config, batch=3)
    x_0 = torch.rand(3, *config.shape) * 2 - 1
    diffusion = Diffusion(DiffusionConfig(label_drop_rate=0.5))
    first = diffusion.losses(model, x_0, condition, chance=chance(3))
    assert torch.equal(diffusion.losses(model, x_0, condition, chance=chance(3)), first)
    assert torch.equal(diffusion.loss(model, x_0, condition, chance=chance(3)), first.mean())
    assert not torch.equal(diffusion.losses(model, x_0, condition, chance=chance(3, step=1)), first)
    part = Chance(11, 0, torch.arange(1, 3))
    rows = slice(1, 3)
    torch.testing.assert_close(diffusion.losses(model, x_0[rows], condition.rows(rows), chance=part), first[rows])


def test_what_is_not_given_is_drawn_by_purpose():
    x_0, _ = example()
    model, source = Answering(), chance(3)
    Diffusion(DiffusionConfig(schedule="linear", self_cond_rate=0.5)).losses(model, x_0, chance=source)
    gamma = 1 - source.uniform(Purpose.TIME)
    torch.testing.assert_close(model.calls[0]["gamma"], gamma)
    x_t = corrupt(x_0, source.normal(Purpose.TRAINING_NOISE, x_0.shape[1:]), gamma)
    torch.testing.assert_close(model.calls[0]["x"], x_t)
    kept = source.true(Purpose.SELF_COND, 0.5)
    assert model.calls[1]["latents_prev"].flatten(1).any(1).tolist() == kept.tolist()


def test_the_estimate_is_a_pass_without_gradient_on_the_same_noisy_data_from_no_latents():
    x_0, _ = example()
    model = Answering()
    self_cond = torch.tensor([True, False, True])
    Diffusion(DiffusionConfig()).losses(model, x_0, self_cond=self_cond)
    first, second = model.calls
    assert first["latents_only"]
    assert not second["latents_only"]
    assert not first["gradient"]
    assert second["gradient"]
    assert torch.equal(first["x"], second["x"])
    assert torch.equal(first["gamma"], second["gamma"])
    assert first["latents_prev"] is None
    assert second["latents_prev"][:, 0, 0].tolist() == [1.0, 0.0, 1.0]


def test_without_self_conditioning_there_is_one_pass():
    model = Answering()
    Diffusion(DiffusionConfig(self_cond_rate=0.0)).losses(model, example()[0])
    assert len(model.calls) == 1
    assert model.calls[0]["latents_prev"] is None


def test_the_estimate_pass_has_dropout_of_its_own():
    config = small(dropout_rate=0.3, depth_drop_rate=0.3)
    model, drawn = moved(config).train(), []
    mlp = model.blocks[0].compute[0].mlp
    mlp.down.register_forward_pre_hook(lambda _, arguments: drawn.append(arguments[0].detach() == 0))
    x, _, condition = inputs(config)
    Diffusion(DiffusionConfig()).losses(model, x, condition, t=torch.tensor([0.3, 0.3]))
    estimate_pass, main_pass = drawn
    assert estimate_pass.any()
    assert main_pass.any()
    assert not torch.equal(estimate_pass, main_pass)
    assert model.training


def test_label_drops_of_the_two_passes_are_draws_of_their_own():
    x_0 = torch.zeros(400, 1, 2, 2)
    model = Answering()
    diffusion = Diffusion(DiffusionConfig(label_drop_rate=0.3))
    diffusion.losses(model, x_0, Condition(labels=torch.zeros(400, dtype=torch.int64)), chance=chance(400))
    first, second = (condition.labels == -1 for condition in model.recorded("condition"))
    assert first.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert second.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert (first & second).float().mean().item() == pytest.approx(0.09, abs=0.04)


def test_given_label_drops_are_taken_as_they_are():
    x_0, _ = example()
    model = Answering()
    keep, keep_in_estimate = torch.tensor([True, False, True]), torch.tensor([False, True, True])
    labels = torch.tensor([4, 3, 2])
    Diffusion(DiffusionConfig()).losses(
        model, x_0, Condition(labels=labels), keep=keep, keep_in_estimate=keep_in_estimate
    )
    assert [condition.labels.tolist() for condition in model.recorded("condition")] == [[-1, 3, 2], [4, -1, 2]]


def test_without_label_dropping_every_label_is_told():
    model, labels = Answering(), torch.tensor([4, 3, 2])
    Diffusion(DiffusionConfig()).losses(model, example()[0], Condition(labels=labels))
    assert all(torch.equal(condition.labels, labels) for condition in model.recorded("condition"))


@pytest.mark.parametrize(("rate", "count"), [(0.9, 9), (0.55, 5), (0.0, 0), (1.0, 10)])
def test_a_share_is_exact_and_every_part_of_the_batch_has_its_own(rate, count):
    config, cpu = DiffusionConfig(self_cond_rate=rate, self_cond_by="share"), torch.device("cpu")
    whole = fixed_share(config, range(10), cpu).tolist()
    assert len(whole) == int(10 * rate) == count
    parts = [
        [4 * part + number for number in fixed_share(config, range(4 * part, 4 * part + 4), cpu)] for part in (0, 1)
    ]
    assert parts[0] + parts[1] == [place for place in whole if place < 8]
    assert abs(len(parts[0]) - len(parts[1])) <= 1


def test_a_share_computes_the_estimate_of_its_own_examples_alone():
    x_0, _ = example()
    model, labels = Answering(), torch.tensor([2, 1, 0])
    Diffusion(DiffusionConfig(self_cond_rate=0.7, self_cond_by="share")).losses(model, x_0, Condition(labels=labels))
    first, second = model.calls
    assert torch.equal(first["x"], second["x"][1:])
    assert torch.equal(first["gamma"], second["gamma"][1:])
    assert first["condition"].labels.tolist() == [1, 0]
    assert second["latents_prev"][:, 0, 0].tolist() == [0.0, 1.0, 1.0]


def test_a_share_of_nobody_makes_no_estimate():
    model = Answering()
    Diffusion(DiffusionConfig(self_cond_rate=0.3, self_cond_by="share")).losses(model, example()[0])
    assert len(model.calls) == 1


def test_the_estimate_for_some_is_the_estimate_for_all_where_it_counts():
    config = small()
    model = moved(config)
    x_0, _, condition = inputs(config, batch=4)
    diffusion, some = Diffusion(DiffusionConfig()), torch.tensor([0, 3])
    mask = torch.zeros(4, dtype=torch.bool).index_fill(0, some, True)
    by_mask, by_number = (
        diffusion.losses(model, x_0, condition, self_cond=who, chance=chance(4)) for who in (mask, some)
    )
    torch.testing.assert_close(by_number, by_mask)


def test_a_mask_hits_examples_anywhere_at_its_rate():
    x_0, seen = torch.zeros(2000, 1, 2, 2), []
    for step in (0, 1):
        model = Answering()
        Diffusion(DiffusionConfig(self_cond_rate=0.9)).losses(model, x_0, chance=chance(2000, step))
        seen.append(model.calls[1]["latents_prev"].flatten(1).any(1))
    assert seen[0].float().mean().item() == pytest.approx(0.9, abs=0.02)
    assert not torch.equal(*seen)


# Input scale and normalisation


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_and_steps_on_the_way_are_in_public_units_whatever_the_input_scale(sampler):
    config = DiffusionConfig(input_scale=0.25, prediction="x", sampler=sampler, num_steps=8)
    model = Answering(lambda x, *_: torch.full_like(x, 0.2))
    steps = list(Diffusion(config).steps(model, (2, 1, 2, 2), seeds=[0, 1]))
    for step in steps:
        torch.testing.assert_close(step.x_0, torch.full_like(step.x_0, 0.8))
    if sampler == "ddim":
        torch.testing.assert_close(steps[-1].x_t, steps[-1].x_0, rtol=0, atol=0.02)
    for given, step in zip(model.recorded("x")[1:], steps, strict=False):
        torch.testing.assert_close(given, step.x_t * 0.25)


def test_predictions_are_clipped_to_the_input_scale():
    config = DiffusionConfig(input_scale=0.25, prediction="x", sampler="ddim", num_steps=2)
    model = Answering(lambda x, *_: torch.full_like(x, 0.7))
    assert Diffusion(config).sample(model, (1, 1, 2, 2), seeds=[0]).unique().tolist() == [1.0]


@pytest.mark.parametrize("normalise", [True, False])
def test_normalising_divides_what_the_network_sees_by_its_population_deviation(normalise):
    x_0, noise = example()
    noise = noise * 3 + 1
    t = torch.tensor([0.2, 0.5, 0.8])
    config = DiffusionConfig(schedule="linear", normalise_input=normalise, input_scale=0.5)
    model = Answering(lambda _x, _gamma, _condition: torch.zeros_like(x_0))
    loss = Diffusion(config).losses(model, x_0, t=t, noise=noise)
    x_t = corrupt(x_0 * 0.5, noise, 1 - t)
    deviation = x_t.flatten(1).var(1, correction=0).sqrt()
    expected = x_t / column(deviation) if normalise else x_t
    assert len(model.calls) == 2
    for given in model.recorded("x"):
        torch.testing.assert_close(given, expected)
    torch.testing.assert_close(loss, (noise**2).flatten(1).mean(1))


def test_sampling_normalises_what_the_network_sees_alone():
    config = DiffusionConfig(sampler="ddim", num_steps=3, normalise_input=True, schedule="linear")
    noise = [torch.randn(2, 1, 4, 4) * 5 + 1]
    model = Answering()
    steps = list(Diffusion(config).steps(model, (2, 1, 4, 4), noise=noise))
    for x_t, given in zip([noise[0]] + [step.x_t for step in steps], model.recorded("x"), strict=False):
        torch.testing.assert_close(given, x_t / column(x_t.flatten(1).std(1, correction=0)))


def test_normalising_leaves_context_frames_as_they_are():
    config = small(**KINDS["video"])
    model = moved(config)
    x, _, condition = inputs(config)
    cut = []
    model.tokenizer.cut = lambda clip, cut_as_ever=model.tokenizer.cut: (cut.append(clip), cut_as_ever(clip))[1]
    Diffusion(DiffusionConfig(normalise_input=True, self_cond_rate=0.0)).losses(model, x / 4, condition)
    noisy, context = cut
    torch.testing.assert_close(noisy.flatten(1).std(1, correction=0), torch.ones(2))
    assert torch.equal(context, condition.context)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.1])
def test_context_frames_are_scaled_as_those_after_them(scale):
    config = small(**KINDS["video"])
    model = moved(config)
    x, _, condition = inputs(config)
    cut = []
    model.tokenizer.cut = lambda clip, cut_as_ever=model.tokenizer.cut: (cut.append(clip), cut_as_ever(clip))[1]
    diffusion = Diffusion(DiffusionConfig(input_scale=scale, prediction="v", self_cond_rate=0.0, num_steps=1))
    diffusion.losses(model, x, condition)
    diffusion.sample(model, x.shape, condition)
    for context in cut[1::2]:
        assert torch.equal(context, condition.context * scale)
    assert len(cut) == 4


# Samplers

MEAN, DEVIATION = 0.1, 0.1


def gaussian(space):
    """The best denoiser there is for numbers from N(MEAN, DEVIATION^2)."""

    def answer(x, gamma, _condition):
        g = column(gamma)
        eps = (1 - g).sqrt() * (x - g.sqrt() * MEAN) / (g * DEVIATION**2 + 1 - g)
        x_0 = MEAN + g.sqrt() * DEVIATION**2 * (x - g.sqrt() * MEAN) / (g * DEVIATION**2 + 1 - g)
        return truth(space, x_0, eps, gamma)

    return Answering(answer)


@pytest.mark.parametrize(
    ("sampler", "num_steps", "schedule", "space"),
    [
        ("ddim", 400, "cosine", "eps"),
        ("ddim", 400, "cosine", "x"),
        ("ddim", 400, "cosine", "v"),
        ("ddim", 1000, "sigmoid@-3,3,0.9", "eps"),
        ("ddpm", 400, "cosine", "eps"),
        ("ddpm-small", 1000, "cosine", "v"),
    ],
)
def test_samplers_recover_a_gaussian(sampler, num_steps, schedule, space):
    diffusion = Diffusion(DiffusionConfig(prediction=space))
    samples = diffusion.sample(
        gaussian(space), (2000, 1, 2, 2), sampler=sampler, num_steps=num_steps, schedule=schedule, seeds=range(2000)
    )
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.004)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.035)
    assert ((samples - MEAN) ** 4).mean().item() / DEVIATION**4 == pytest.approx(3, abs=0.5)


def test_the_ancestral_steps_have_their_variances():
    x_t, eps, noise = (torch.randn(4, 3) for _ in range(3))
    gamma, after = torch.tensor(0.3), torch.tensor(0.6)
    found = estimate(eps, x_t, torch.full((4,), 0.3), "eps", float("inf"), False)
    alpha = 0.3 / 0.6
    mean = (x_t - (1 - alpha) / math.sqrt(0.7) * eps) / math.sqrt(alpha)
    torch.testing.assert_close(ddpm_step(x_t, found, gamma, after, torch.zeros(4, 3), False), mean)
    large = ddpm_step(x_t, found, gamma, after, noise, False) - mean
    torch.testing.assert_close(large, math.sqrt(1 - alpha) * noise)
    posterior = ddpm_step(x_t, found, gamma, after, noise, True) - mean
    torch.testing.assert_close(posterior, math.sqrt((1 - alpha) * 0.4 / 0.7) * noise)


def test_the_deterministic_step_mixes_clean_data_and_noise_anew():
    x_0, eps = example()
    found = estimate(eps, corrupt(x_0, eps, LEVELS), LEVELS, "eps", 1.0, True)
    torch.testing.assert_close(ddim_step(found, torch.tensor(0.25)), 0.5 * x_0 + math.sqrt(0.75) * eps)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_noise_is_recomputed_after_clipping_in_every_step(sampler):
    diffusion = Diffusion(DiffusionConfig(sampler=sampler, sampling_schedule="cosine@0,1,1"))
    noise = [torch.full((1, 1, 2, 2), 2.0), *[torch.zeros(1, 1, 2, 2)] * 3]
    model = Answering(lambda x, *_: torch.full_like(x, -3.0))
    first, second, _ = diffusion.steps(model, (1, 1, 2, 2), num_steps=3, noise=noise)
    x_t, gamma, after = first.x_t.unique().item(), 0.25, 0.75
    if sampler == "ddim":  # the noise that leads from clean data of 1 to the starting point is 2, not -3
        assert x_t == pytest.approx(math.sqrt(gamma) + math.sqrt(1 - gamma) * 2, abs=1e-3)
    assert second.x_0.unique().item() == 1.0
    eps = (x_t - math.sqrt(gamma)) / math.sqrt(1 - gamma)
    alpha = gamma / after
    expected = {
        "ddim": math.sqrt(after) + math.sqrt(1 - after) * eps,
        "ddpm": (x_t - (1 - alpha) / math.sqrt(1 - gamma) * eps) / math.sqrt(alpha),
    }
    assert second.x_t.unique().item() == pytest.approx(expected[sampler], rel=1e-4)


def test_the_result_is_the_last_prediction_of_clean_data():
    diffusion = Diffusion(DiffusionConfig(sampler="ddpm", prediction="x"))
    model = Answering(lambda x, *_: torch.full_like(x, 0.1 * len(model.calls)))
    samples = diffusion.sample(model, (1, 1, 2, 2), num_steps=4, seeds=[0])
    torch.testing.assert_close(samples, torch.full_like(samples, 0.4))


@pytest.mark.parametrize(
    ("td", "times"),
    [
        (0.0, [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]),
        (1.0, [(1.0, 0.5), (0.75, 0.25), (0.5, 0), (0.25, 0)]),
    ],
)
def test_a_step_leads_one_step_on_or_td_steps_further(td, times):
    assert [step_times(step, 4, td) for step in range(4)] == times
    model, diffusion = Answering(), Diffusion(DiffusionConfig(sampling_schedule="linear", sampler="ddim"))
    noise = [torch.ones(1, 1, 1, 1)]
    steps = list(diffusion.steps(model, (1, 1, 1, 1), num_steps=4, td=td, noise=noise))
    gammas = [gamma.item() for gamma in model.recorded("gamma")]
    assert gammas == pytest.approx([0.0, 0.25, 0.5, 0.75], abs=1e-6)
    clean = (noise[0] / 1e-9**0.5).clamp(-1, 1)
    after = 1 - times[0][1]
    eps = (noise[0] - 1e-9**0.5 * clean) / (1 - 1e-9) ** 0.5
    torch.testing.assert_close(steps[0].x_t, after**0.5 * clean + (1 - after) ** 0.5 * eps)


def test_latents_are_carried_from_step_to_step():
    model = Answering()
    steps = list(Diffusion(DiffusionConfig(sampler="ddim")).steps(model, (2, 1, 2, 2), num_steps=3, seeds=[0, 1]))
    carried = model.recorded("latents_prev")
    assert carried[0] is None
    assert [latents.unique().item() for latents in carried[1:]] == [1.0, 2.0]
    assert [step.latents.unique().item() for step in steps] == [1.0, 2.0, 3.0]
    assert not any(model.recorded("latents_only"))
    assert not any(model.recorded("gradient"))


def test_the_first_step_starts_from_given_latents():
    model, given = Answering(), torch.full((2, 2, 3), 7.0)
    Diffusion(DiffusionConfig()).sample(model, (2, 3, 4, 4), num_steps=2, latents=given)
    assert [latents.unique().item() for latents in model.recorded("latents_prev")] == [7.0, 1.0]


def test_too_few_draws_of_recorded_noise_are_refused():
    diffusion, noise = Diffusion(DiffusionConfig(sampler="ddpm")), torch.zeros(2, 1, 1, 2, 2)
    with pytest.raises(RinError, match="draw 3 is missing"):
        diffusion.sample(Answering(), (1, 1, 2, 2), num_steps=3, noise=list(noise))


def guided(guidance, conditioned=0.2, unconditioned=-0.1, **config):
    """A run under guidance, of a model that answers by whether it is told a label."""

    def answer(x, _gamma, condition):
        return torch.full_like(x, unconditioned if (condition.labels == -1).all() else conditioned)

    model = Answering(answer)
    diffusion = Diffusion(DiffusionConfig(sampler="ddim", prediction="x", label_drop_rate=0.1, **config))
    steps = list(
        diffusion.steps(
            model,
            (2, 1, 2, 2),
            Condition(labels=torch.tensor([3, 1])),
            num_steps=3,
            guidance=guidance,
            seeds=[0, 1],
        )
    )
    return model, steps


@pytest.mark.parametrize("guidance", [0.5, 1.5, -0.5])
def test_guidance_adds_g_times_the_difference(guidance):
    _, steps = guided(guidance)
    for step in steps:
        torch.testing.assert_close(step.x_0, torch.full_like(step.x_0, 0.2 + guidance * 0.3))


def test_guidance_acts_before_clipping():
    _, steps = guided(10.0)
    assert steps[-1].x_0.unique().tolist() == [1.0]


def test_guidance_in_the_space_of_the_prediction():
    x_t = torch.randn(2, 1, 2, 2)
    model = Answering(lambda x, _gamma, condition: x * (0.5 if (condition.labels == -1).all() else 0.9))
    diffusion = Diffusion(
        DiffusionConfig(sampler="ddim", prediction="v", label_drop_rate=0.1, sampling_schedule="cosine@0.5,1,1")
    )
    first = next(
        diffusion.steps(model, (2, 1, 2, 2), Condition(labels=torch.tensor([1, 2])), guidance=2.0, noise=[x_t])
    )
    v = 0.9 * x_t + 2 * 0.4 * x_t
    torch.testing.assert_close(first.x_0, (-v).clamp(-1, 1), rtol=0, atol=1e-3)


def test_both_passes_of_guidance_start_from_the_latents_of_the_conditional_one():
    model, steps = guided(1.5)
    carried = [None if latents is None else latents.unique().item() for latents in model.recorded("latents_prev")]
    # the conditional passes are calls 1, 3 and 5
    assert carried == [None, None, 1.0, 1.0, 3.0, 3.0]
    assert [condition.labels.tolist() for condition in model.recorded("condition")] == [[3, 1], [-1, -1]] * 3
    assert [step.latents.unique().item() for step in steps] == [1.0, 3.0, 5.0]
    given = model.recorded("x")
    assert all(torch.equal(given[2 * step], given[2 * step + 1]) for step in range(3))


def test_the_unconditional_pass_can_go_on_from_its_own_latents():
    model, steps = guided(1.5, guidance_latents="own")
    carried = [None if latents is None else latents.unique().item() for latents in model.recorded("latents_prev")]
    # the unconditional passes are calls 2, 4 and 6
    assert carried == [None, None, 1.0, 2.0, 3.0, 4.0]
    assert [step.latents.unique().item() for step in steps] == [1.0, 3.0, 5.0]


def test_own_latents_begin_from_zeros_where_an_interval_of_guidance_begins():
    model = Answering(lambda x, _gamma, _condition: torch.zeros_like(x))
    config = DiffusionConfig(prediction="x", label_drop_rate=0.1, guidance_latents="own", sampling_schedule="linear")
    options = {"num_steps": 4, "guidance": 1.0, "guidance_interval": (0.1, 1.5), "seeds": [0, 1]}
    Diffusion(config).sample(model, (2, 1, 2, 2), Condition(labels=torch.tensor([3, 1])), **options)
    unconditional = [bool((condition.labels == -1).all()) for condition in model.recorded("condition")]
    carried = [None if latents is None else latents.unique().item() for latents in model.recorded("latents_prev")]
    # sigma = inf, 1.73, 1, 0.58 where the steps begin
    assert unconditional == [False, False, False, True, False, True]
    assert carried == [None, 1.0, 2.0, None, 3.0, 4.0]


# Guidance of the model's own

OWN = DiffusionConfig(
    prediction="x", sampler="ddim", num_steps=4, sampling_schedule="linear", label_drop_rate=0.1,
    guidance=2.0, guidance_interval=(0.8, 1.5),
)  # fmt: skip
LABELLED = Condition(labels=torch.tensor([3, 1]))


def guided_steps(condition=LABELLED, config=OWN, **options):
    """The strength of guidance of each step, of sigma = inf, 1.73, 1, 0.58, by its clean estimate: 1 / 8 a unit."""
    model = Answering(lambda x, _gamma, condition: torch.full_like(x, (condition.labels[0] >= 0) / 8))
    unlabelled = Answering(lambda x, _gamma, _condition: torch.full_like(x, 1 / 8))
    model = model if condition is not None and condition.labels is not None else unlabelled
    steps = list(Diffusion(config).steps(model, (2, 1, 2, 2), condition, **options))
    return [step.x_0.mean().item() * 8 - 1 for step in steps]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 0, 2, 0]),
        ({"guidance": None, "guidance_interval": None}, [0, 0, 2, 0]),
        ({"guidance_interval": (0.8, 2.0)}, [0, 2, 2, 0]),
        ({"guidance": 1.0}, [0, 0, 1, 0]),
        ({"guidance": 1.0, "guidance_interval": (0.0, math.inf)}, [1, 1, 1, 1]),
        ({"guidance_interval": (0.0, math.inf)}, [2, 2, 2, 2]),
        ({"guidance": 1.0, "guidance_interval": (0.5, 0.8)}, [0, 0, 0, 1]),
        ({"guidance": 0.0}, [0, 0, 0, 0]),
        ({"condition": Condition()}, [0, 0, 0, 0]),
        ({"condition": None}, [0, 0, 0, 0]),
        ({"num_steps": 1}, [0]),  # it begins outside: nobody has asked for guidance
        ({"given": Given(noise=torch.zeros(2, 1, 2, 2))}, [0, 0, 0, 0]),  # of a picture, to which it is to lead back
        ({"given": Given(x_0=torch.zeros(2, 1, 2, 2), to_noise=True)}, [0, 0, 0, 0]),
        ({"given": Given(t=0.3, x_0=torch.zeros(2, 1, 2, 2))}, [0, 0, 0, 0]),  # all of them begin below
    ],
    ids=repr,
)
def test_what_nobody_asks_for_is_guided_as_the_model_has_it(options, expected):
    assert guided_steps(**options) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "is_warned_of"),
    [
        ({}, False),
        ({"num_steps": 1}, True),
        ({"given": Given(t=0.3, x_0=torch.zeros(2, 1, 2, 2))}, True),
        ({"condition": None, "num_steps": 1}, False),
        ({"guidance": 0.0, "num_steps": 1}, False),
    ],
    ids=repr,
)
def test_a_model_whose_own_guidance_guides_no_step_says_so_once(options, is_warned_of, caplog):
    warn_once.cache_clear()
    for _ in range(2):
        guided_steps(**options)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == is_warned_of
    assert all(
        line.startswith("not guided: the model's own guidance_interval 0.8 to 1.5 guides none") for line in warned
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": 0.0, "guidance_interval": (0.5, 2.0)}, "guidance_interval does nothing without guidance"),
        ({"condition": None, "guidance_interval": (0.5, 2.0)}, "guidance_interval does nothing without guidance"),
        ({"guidance_interval": (5.0, 6.0)}, "^guidance_interval 5 to 6 guides none of the 4 steps"),
        (
            {"guidance": 1.0, "given": Given(t=0.3, x_0=torch.zeros(2, 1, 2, 2))},
            "^the model's own guidance_interval 0.8",
        ),
    ],
    ids=repr,
)
def test_an_interval_that_guides_nothing_is_refused(options, words):
    with pytest.raises(RinError, match=words):
        guided_steps(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": 1.0}, "diffusion.guidance 1.0 needs a diffusion.label_drop_rate"),
        ({"guidance_interval": (2.0, 1.0)}, r"diffusion.guidance_interval \(2.0, 1.0\): take two numbers, 0 <= low"),
        ({"guidance": math.nan}, "diffusion.guidance nan"),
    ],
    ids=repr,
)
def test_guidance_that_no_model_can_have_is_refused(options, words):
    with pytest.raises(RinError, match=words):
        DiffusionConfig(**options)


def test_no_guidance_is_one_pass_a_step():
    model, _ = guided(0.0)
    assert len(model.calls) == 3
    assert [condition.labels.tolist() for condition in model.recorded("condition")] == [[3, 1]] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": 1.0}, "label-drop-rate"),
        ({"sampler": "ddmp"}, "unknown sampler 'ddmp': did you mean 'ddpm'"),
        ({"num_steps": 0}, "num_steps 0"),
        ({"num_steps": -3}, "num_steps -3"),
        ({"schedule": "cosin"}, "unknown schedule"),
        ({"seeds": [1, 2, 3]}, "3 seeds for 2 samples"),
        ({"noise": [torch.zeros(2, 1, 2, 3)]}, "noise of shape"),
    ],
    ids=str,
)
def test_sampling_that_cannot_be_is_refused(options, words):
    diffusion = Diffusion(DiffusionConfig())
    with pytest.raises(RinError, match=words):
        diffusion.sample(Answering(), (2, 1, 2, 2), **options)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "ddpm-small"])
def test_options_that_are_absent_or_none_are_the_configurations(sampler):
    config = DiffusionConfig(sampler=sampler, num_steps=5, sampling_schedule="linear")
    noise = [torch.randn(2, 1, 2, 2) for _ in range(6)]

    def sample(**options):
        return Diffusion(config).sample(Answering(), (2, 1, 2, 2), noise=noise, **options)

    plain = sample()
    assert torch.equal(sample(sampler=None, num_steps=None, schedule=None, seeds=None), plain)
    assert torch.equal(sample(sampler=sampler, num_steps=5, schedule="linear", guidance=0.0, td=0.0), plain)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_seed_starts_from_the_same_noise_in_any_batch(sampler):
    config = small()
    model = moved(config)
    diffusion = Diffusion(DiffusionConfig(sampler=sampler, num_steps=4))

    def sample(seeds):
        condition = Condition(labels=torch.tensor([seed % 5 for seed in seeds]))
        return diffusion.sample(model, (len(seeds), *config.shape), condition, seeds=seeds)

    together = sample([7, 8, 9, 2**40])
    for place, seed in enumerate([7, 8, 9, 2**40]):
        torch.testing.assert_close(sample([seed])[0], together[place], rtol=0, atol=1e-4)
    torch.testing.assert_close(sample([9, 7]), together[[2, 0]], rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_every_draw_of_a_sampling_run_is_its_own_and_seeds_may_be_a_tensor():
    draw = noise_source((2, 3), [5, 6], None, torch.device("cpu"))
    again = noise_source((2, 3), torch.tensor([5, 6]), None, torch.device("cpu"))
    draws = [draw(number) for number in range(4)]
    assert all(torch.equal(again(number), draws[number]) for number in range(4))
    assert len({row for numbers in draws for row in numbers.flatten().tolist()}) == 4 * 6


def test_samples_without_seeds_differ_from_call_to_call():
    diffusion = Diffusion(DiffusionConfig(sampler="ddim", num_steps=2, prediction="v"))
    first, second = (diffusion.sample(Answering(), (1, 1, 2, 2)) for _ in range(2))
    assert not torch.equal(first, second)


# bfloat16


def test_under_autocast_every_weight_gets_its_gradient():
    config = small()
    x_0, _, condition = inputs(config, batch=4)
    gradients = []
    for enabled in (False, True):
        model = moved(config).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            Diffusion(DiffusionConfig()).loss(model, x_0, condition, chance=chance(4)).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    exact, rounded = gradients
    for name in exact:
        if not name.endswith("key.bias"):  # zero by mathematics: rounding alone
            assert (rounded[name] - exact[name]).norm() < 0.1 * exact[name].norm(), name


def test_casts_of_the_estimate_are_not_kept_for_the_main_pass(monkeypatch):
    events = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: events.append("cleared"))
    model = Answering(lambda x, *_: events.append("asked") or x)
    Diffusion(DiffusionConfig()).loss(model, example()[0])
    assert events == ["cleared", "asked"]  # the estimate asks for no prediction
