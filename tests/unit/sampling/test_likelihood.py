"""Bits per dimension of data whose density is known."""

import math

import pytest
import torch

import rin
from rin import Diffusion, DiffusionConfig, RinError
from rin.core.denoiser import Denoised
from rin.core.kind import Kind
from rin.core.seeds import Chance, picture_seeds
from rin.diffusion.likelihood import LEAST_SIGMA, dequantised, log_likelihood, probes_of
from rin.sampling.likelihood import bits_of
from rin.sampling.pipeline import Pipeline
from tests.unit.models import Answering, inputs, moved, small, trained

MEAN, DEVIATION = 0.1, 0.15
SHAPE = (1, 4, 4)


def pipeline(answer, shape=SHAPE, **config):
    return Pipeline(answer, Diffusion(DiffusionConfig(**config)), Kind(shape=shape))


def best_of_normal_data(space, scale=1.0, mean=MEAN):
    """The best prediction for numbers of a mean and deviation DEVIATION, multiplied by the input scale."""
    mean, variance = scale * mean, (scale * DEVIATION) ** 2

    def answer(x, gamma, _condition):
        gamma, x = gamma.double().reshape(-1, *[1] * (x.ndim - 1)), x.double()
        eps = (1 - gamma).sqrt() * (x - gamma.sqrt() * mean) / (gamma * variance + 1 - gamma)
        x_0 = mean + variance * gamma.sqrt() * (x - gamma.sqrt() * mean) / (gamma * variance + 1 - gamma)
        return {"eps": eps, "x": x_0, "v": gamma.sqrt() * eps - (1 - gamma).sqrt() * x_0}[space].float()

    return answer


def normal_data(count=64, shape=SHAPE):
    return MEAN + DEVIATION * torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def bits_of_normal_data(x, mean=MEAN):
    densities = torch.distributions.Normal(mean, DEVIATION).log_prob(x.double())
    return -densities.flatten(1).mean(1) / math.log(2)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("space", ["eps", "x", "v"])
def test_normal_data_have_the_bits_of_the_closed_form(space, scale):
    x = normal_data()
    model = pipeline(Answering(best_of_normal_data(space, scale)), prediction=space, input_scale=scale)
    found = rin.bits_per_dim(model, x, batch_size=64)
    torch.testing.assert_close(found.bits, bits_of_normal_data(x), rtol=0, atol=0.01)


def test_the_method_is_of_second_order_and_tells_its_error():
    x, model = normal_data(), pipeline(Answering(best_of_normal_data("eps")))
    coarse, fine = (rin.bits_per_dim(model, x, num_steps=steps, batch_size=64) for steps in (30, 60))
    errors = [(found.bits - bits_of_normal_data(x)).abs() for found in (coarse, fine)]
    assert math.log2(errors[0].mean() / errors[1].mean()) == pytest.approx(2, abs=0.35)
    assert (errors[1] < fine.step_error).all()
    assert errors[1].mean() > fine.step_error.mean() / 6
    torch.testing.assert_close((coarse.bits - fine.bits).abs(), fine.step_error, rtol=1e-6, atol=1e-9)


MIXTURE = torch.tensor([[0.3, -0.5, 0.1], [0.7, 0.4, 0.2]], dtype=torch.float64)
"""Share, mean and deviation of each part."""


def parts_of_mixture(y, sigma):
    """log (share times density) of each part, of numbers with noise of deviation sigma."""
    share, mean, deviation = MIXTURE.T
    return share.log() + torch.distributions.Normal(mean, (deviation**2 + sigma**2).sqrt()).log_prob(y[..., None])


def best_of_mixture(x, gamma, _condition):
    gamma = gamma.double().reshape(-1, 1, 1, 1)
    sigma, y = ((1 - gamma) / gamma).sqrt(), x.double() / gamma.sqrt()
    mean, variance = MIXTURE[:, 1], MIXTURE[:, 2] ** 2
    noise = sigma[..., None] ** 2
    parts = (mean * noise + variance * y[..., None]) / (variance + noise)
    return (parts_of_mixture(y, sigma[..., None]).softmax(-1) * parts).sum(-1).float()


def test_a_mixture_has_its_bits():
    x = torch.linspace(-0.7, 0.9, 40)[:, None, None, None]
    model = pipeline(Answering(best_of_mixture), (1, 1, 1), prediction="x")
    found = rin.bits_per_dim(model, x, num_steps=400, batch_size=40)
    expected = -parts_of_mixture(x.double().flatten(), 0).logsumexp(-1) / math.log(2)
    torch.testing.assert_close(found.bits, expected, rtol=0, atol=0.02)
    assert (found.bits - expected).abs().mean() < 0.005


def test_the_trace_is_right_in_the_mean_where_pixels_depend_on_one_another():
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).Q.double()
    deviations = torch.tensor([0.05, 0.1, 0.3, 0.5], dtype=torch.float64)

    def best(x, gamma, _condition):
        gamma = gamma.double()[:, None]
        x_0 = (x.double().flatten(1) @ turn) * deviations**2 * gamma.sqrt() / (gamma * deviations**2 + 1 - gamma)
        return (x_0 @ turn.T).reshape(x.shape).float()

    x = ((deviations * torch.randn(4, 4, generator=torch.Generator().manual_seed(2))) @ turn.T).reshape(4, 1, 2, 2)
    expected = torch.distributions.Normal(0, deviations).log_prob(x.flatten(1) @ turn).sum(1)
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])  # all that there is to draw
    probes = signs.double().reshape(4, 1, 1, 2, 2).expand(4, 4, 1, 2, 2)
    diffusion = Diffusion(DiffusionConfig(prediction="x"))
    all_, *each = (
        log_likelihood(diffusion, Answering(best), x, None, some, 200)[0] for some in (probes, *probes[:, None])
    )
    torch.testing.assert_close(all_, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(torch.stack(each).mean(0), expected, rtol=0, atol=0.02)
    assert (each[0] - expected).abs().max() > 0.5


class Looking:
    """A denoiser whose latents depend on x, and whose answer depends on them."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, gamma, _condition=None, latents_prev=None, latents_only=False):
        self.calls += 1
        latents = torch.sin(2 * x).reshape(len(x), 1, 1)
        if latents_only:
            return Denoised(None, latents)
        before = latents_prev.reshape(x.shape)
        deviation = (1 - gamma).sqrt().reshape(-1, 1, 1, 1)
        return Denoised(deviation * (x + 0.4 * torch.cos(3 * x) * before), latents)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_density_of_a_network_with_latents_sums_to_one(scale):
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None, None, None]
    diffusion, model = Diffusion(DiffusionConfig(input_scale=scale)), Looking()
    nats, _, num_evaluations = log_likelihood(diffusion, model, x, None, torch.ones(1, *x.shape).double(), 400)
    assert torch.trapezoid(nats.exp(), x.flatten()).item() == pytest.approx(1, abs=2e-3)
    assert num_evaluations == model.calls == 2 * (801 + 401)


def smooth(x, _gamma, _condition):
    return torch.tanh(x)


def test_latents_are_estimated_at_each_point_unless_the_model_never_had_any():
    asked = Answering(smooth)
    rin.bits_per_dim(pipeline(asked), torch.zeros(2, *SHAPE), num_steps=2)
    before, only = asked.recorded("latents_prev"), asked.recorded("latents_only")
    assert only == [True, False] * (len(only) // 2)
    assert [None if latents is None else latents[0, 0, 0].item() for latents in before[:4]] == [None, 1, None, 3]
    never = Answering(smooth)
    found = rin.bits_per_dim(pipeline(never, self_cond_rate=0.0), torch.zeros(2, *SHAPE), num_steps=2)
    assert never.recorded("latents_only") == [False] * found.num_evaluations == [False] * (5 + 3)
    assert never.recorded("latents_prev") == [None] * 8


def test_the_network_is_asked_from_the_least_to_the_most_noise_with_input_as_in_training():
    asked = Answering(smooth)
    model = pipeline(asked, self_cond_rate=0.0, normalise_input=True, input_scale=0.5)
    rin.bits_per_dim(model, normal_data(2), num_steps=2)
    gammas = [gamma[0].item() for gamma in asked.recorded("gamma")]
    least = (0.5 * LEAST_SIGMA) ** 2
    middle = 0.5 * LEAST_SIGMA * 80
    expected = [1 / (1 + sigma) for sigma in (least, middle, middle, 6400, 6400, least, 6400, 6400)]
    assert gammas == pytest.approx(expected, rel=1e-5)
    for x in asked.recorded("x"):
        torch.testing.assert_close(x.flatten(1).std(1, correction=0), torch.ones(2))


# data of 8 bits


def test_8_bit_data_have_the_bits_of_their_own_distribution():
    levels = ((normal_data(256).clamp(-1, 1) + 1) * 127.5).round().byte()
    found = rin.bits_per_dim(pipeline(Answering(best_of_normal_data("x")), prediction="x"), levels, batch_size=256)
    edges = (levels.double()[None] + torch.tensor([-0.5, 0.5]).reshape(2, 1, 1, 1, 1)) / 127.5 - 1
    below, above = torch.distributions.Normal(MEAN, DEVIATION).cdf(edges)
    expected = -(above - below).log2().flatten(1).mean(1)
    assert found.bits.mean().item() == pytest.approx(expected.mean().item(), abs=0.01)
    torch.testing.assert_close(found.bits, expected, rtol=0, atol=0.06)  # of 16 numbers each, at one place of the level


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_dequantised_beyond_1_and_no_estimate_is_clipped(level):
    mean, levels = level / 127.5 - 1, torch.full((32, *SHAPE), level, dtype=torch.uint8)
    model = pipeline(Answering(best_of_normal_data("x", mean=mean)), prediction="x")
    found = rin.bits_per_dim(model, levels, seed=3, batch_size=32)
    chance = Chance(picture_seeds(3, 0, 32), 0, torch.zeros(32, dtype=torch.int64))
    x = dequantised(torch.full((32, *SHAPE), mean), chance)
    torch.testing.assert_close(found.bits, bits_of_normal_data(x, mean) + math.log2(127.5), rtol=0, atol=0.01)


def test_dequantised_data_fill_their_levels_evenly():
    chance = Chance(torch.arange(8), 0, torch.zeros(8, dtype=torch.int64))
    shifts = 127.5 * dequantised(torch.full((8, 3, 64, 64), -1.0), chance) + 127.5
    assert -0.5 < shifts.min() < -0.4999
    assert 0.4999 < shifts.max() < 0.5
    assert shifts.mean().item() == pytest.approx(0, abs=2e-3)
    assert shifts.var().item() == pytest.approx(1 / 12, rel=0.01)
    assert not torch.equal(shifts[0], shifts[1])


def test_probes_are_signs():
    chance = Chance(torch.arange(8), 0, torch.zeros(8, dtype=torch.int64))
    probes = probes_of(chance, torch.Size((8, 3, 16, 16)), 2)
    assert probes.shape == (2, 8, 3, 16, 16)
    assert probes.abs().unique().tolist() == [1]
    means = probes.flatten(2).mean(2)
    assert means.abs().max() < 5 / 768**0.5
    assert len(means.unique()) > 8


# networks


@pytest.mark.parametrize("kind", [{}, {"num_classes": 0}, {"condition_shape": (2, 3, 4)}])
def test_a_rin_has_the_same_bits_at_any_batch_size_and_is_left_as_it_was(kind):
    config = small(**kind)
    model = trained(moved(config).train(), DiffusionConfig(num_steps=3, label_drop_rate=0.1))
    x, _, condition = inputs(config, batch=3)
    options = {"num_steps": 4, "seed": 5, "condition": condition.context}
    labels = None if condition.labels is None else condition.labels.tolist()
    stored = ((x + 1) * 127.5).byte()
    whole = rin.bits_per_dim(model, stored, labels, **options)
    apart = rin.bits_per_dim(model, stored, labels, batch_size=2, **options)
    torch.testing.assert_close(whole.bits, apart.bits, rtol=1e-5, atol=1e-6)
    assert whole.bits.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whole.bits, rin.bits_per_dim(model, stored, labels, **options).bits)
    assert not torch.equal(whole.bits, rin.bits_per_dim(model, stored, labels, **options | {"seed": 6}).bits)
    assert model.model.training
    assert all(weight.grad is None for weight in model.model.parameters())
    if labels:
        others = [(label + 1) % 5 for label in labels]
        assert not torch.allclose(whole.bits, rin.bits_per_dim(model, stored, others, **options).bits, atol=1e-4)


def test_clips_are_given_the_last_frames_before_them():
    config = small(shape=(3, 3, 8, 8), patch_size=4, temporal_patch_size=2, num_context_frames=3, num_classes=0)
    model = trained(moved(config))
    x, _, condition = inputs(config)
    more = torch.cat([torch.zeros(2, 3, 1, 8, 8), condition.context], dim=2)
    found = [rin.bits_per_dim(model, x, context=context, num_steps=2) for context in (condition.context, more)]
    assert torch.equal(found[0].bits, found[1].bits)
    assert not torch.allclose(
        found[0].bits, rin.bits_per_dim(model, x, context=-condition.context, num_steps=2).bits, atol=1e-4
    )


def test_each_example_has_draws_of_its_own_seed():
    model, x = trained(moved(small(num_classes=0))), torch.randint(256, (2, 3, 8, 8)).byte()
    seeds = torch.tensor([3, 4])
    both, last = (
        bits_of(model, x[some], rin.Condition(), seeds[some], num_steps=2) for some in (slice(0, 2), slice(1, 2))
    )
    torch.testing.assert_close(both.bits[1:], last.bits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"x": torch.zeros(2, 3, 8, 9)}, r"x of shape \(2, 3, 8, 9\)"),
        ({"x": torch.zeros(3, 8, 8)}, r"x of shape \(3, 8, 8\)"),
        ({"x": torch.zeros(0, 3, 8, 8)}, r"x of shape \(0, 3, 8, 8\)"),
        ({"x": torch.full((2, 3, 8, 8), 7.0)}, "give numbers in"),
        ({"x": torch.full((2, 3, 8, 8), math.nan)}, "give numbers in"),
        ({"labels": None}, "never gone without its class"),
        ({"labels": [1, 2, 3]}, "not clear how many"),
        ({"labels": [5, 0]}, "out of range"),
        ({"num_steps": 1}, "num_steps 1"),
        ({"num_probes": 0}, "num_probes 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"seed": -1}, "seed"),
        ({"condition": torch.zeros(1, 4, 4)}, "draws from no picture"),
        ({"context": torch.zeros(2, 3, 1, 8, 8)}, "goes on from no frames"),
    ],
)
def test_what_has_no_likelihood_is_refused(options, said):
    options = {"x": torch.zeros(2, 3, 8, 8), "labels": [0, 1]} | options
    with pytest.raises(RinError, match=said):
        rin.bits_per_dim(trained(new_model()), **options)


def test_a_network_that_answers_with_no_numbers_is_refused():
    with pytest.raises(RinError, match="not finite"):
        rin.bits_per_dim(pipeline(Answering(lambda x, *_: x * math.nan)), torch.zeros(1, *SHAPE), num_steps=2)


def test_a_network_without_derivatives_is_refused():
    with pytest.raises(RinError, match="no derivative"):
        rin.bits_per_dim(pipeline(Answering(torch.no_grad()(smooth))), torch.zeros(1, *SHAPE), num_steps=2)


def new_model():
    return moved(small())
