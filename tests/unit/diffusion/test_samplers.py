"""Samplers on data whose best denoiser is known: normal numbers, and an ODE of noise with a closed form."""

import math
import re

import pytest
import torch

from rin import Diffusion, DiffusionConfig, RinError
from rin.core.denoiser import Condition, Denoised
from rin.diffusion import parse_schedule
from rin.diffusion.samplers import SAMPLERS, extrapolation, noise_levels
from tests.unit.models import Answering

MEAN, DEVIATION = 0.1, 0.15
FIRST_ORDER, SECOND_ORDER = ("ddim",), ("dpmpp-2m", "heun")


def best_of_normal_data(x, gamma, _condition):
    """E[x_0 | x_t] of numbers with mean MEAN and deviation DEVIATION."""
    gamma = gamma[:, None, None, None].double()
    share = DEVIATION**2 * gamma.sqrt() / (gamma * DEVIATION**2 + 1 - gamma)
    return (MEAN + share * (x - gamma.sqrt() * MEAN)).float()


def drawn(sampler, num_steps, schedule="cosine", count=256, **changes):
    """Samples of normal data, and the noise that they started from."""
    noise = [torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(n)) for n in range(num_steps + 1)]
    config = DiffusionConfig(prediction="x", sampler=sampler, num_steps=num_steps, sampling_schedule=schedule)
    model = Answering(best_of_normal_data)
    return Diffusion(config).sample(model, (count, 1, 2, 2), noise=noise, **changes), noise[0]


def error(sampler, num_steps, schedule):
    """Root mean squared distance to where the noise leads without any steps: MEAN + DEVIATION z, whatever the grid."""
    samples, noise = drawn(sampler, num_steps, schedule)
    return (samples - (MEAN + DEVIATION * noise)).square().mean().sqrt().item()


@pytest.mark.parametrize("schedule", ["karras", "log-snr"])
@pytest.mark.parametrize("sampler", FIRST_ORDER + SECOND_ORDER)
def test_samplers_without_noise_follow_the_ode_in_the_order_that_they_claim(sampler, schedule):
    order = 1 if sampler in FIRST_ORDER else 2
    coarse, fine = (error(sampler, steps, schedule) for steps in (32, 64))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)
    assert fine < DEVIATION / 15


@pytest.mark.parametrize("sampler", SECOND_ORDER)
def test_on_other_schedules_the_last_step_of_first_order_is_what_is_left(sampler):
    for schedule in ("cosine", "sigmoid@-3,3,0.9"):
        errors = [error(sampler, steps, schedule) for steps in (16, 64)]
        assert errors[1] < min(errors[0] / 3, error("ddim", 64, schedule))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_recovers_mean_and_variance(sampler):
    samples, _ = drawn(sampler, 400, count=2000)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.005)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.03)


@pytest.mark.parametrize("sampler", SECOND_ORDER)
def test_the_second_order_is_worth_its_evaluations(sampler):
    evaluations = 64
    steps = evaluations // 2 if sampler == "heun" else evaluations
    assert error(sampler, steps, "karras") < error("ddim", evaluations, "karras") / 2


@pytest.mark.parametrize("sampler", SECOND_ORDER)
def test_the_last_step_is_of_first_order(sampler):
    torch.testing.assert_close(drawn(sampler, 1)[0], drawn("ddim", 1)[0], rtol=0, atol=0)


def test_heun_looks_twice_but_for_the_last_step_and_each_look_goes_on_from_the_latents_before():
    model = Answering(best_of_normal_data)
    config = DiffusionConfig(prediction="x", sampler="heun", num_steps=3)
    steps = list(Diffusion(config).steps(model, (2, 1, 2, 2), seeds=[0, 1]))
    gammas = [gamma[0].item() for gamma in model.recorded("gamma")]
    assert len(gammas) == 5
    assert gammas[1] == gammas[2]
    assert gammas[3] == gammas[4]
    before = [None if latents is None else latents[0, 0, 0].item() for latents in model.recorded("latents_prev")]
    assert before == [None, 1.0, 2.0, 3.0, 4.0]
    assert [step.latents[0, 0, 0].item() for step in steps] == [2.0, 4.0, 5.0]


def test_dpm_solver_extrapolates_by_the_ratio_of_its_steps_in_log_snr():
    before, now, then = (1 / (1 + math.exp(-2 * half_log_snr)) for half_log_snr in (-2.0, -1.0, 1.0))
    assert extrapolation(before, now, then) == pytest.approx(1.0)  # r is 1/2
    assert extrapolation(before, now, 1.0) == 0
    levels = noise_levels(parse_schedule("log-snr"), 10, 0.0)
    torch.testing.assert_close(levels[1:, 2], torch.full((9,), 0.5), rtol=0, atol=5e-3)
    assert levels[0, 2] == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_known_clean_datum_is_found_by_every_sampler(sampler):
    model = Answering(lambda x, *_: torch.full_like(x, 0.3))
    config = DiffusionConfig(prediction="x", sampler=sampler, num_steps=4, input_scale=0.5)
    samples = Diffusion(config).sample(model, (2, 1, 2, 2), seeds=[0, 1])
    torch.testing.assert_close(samples, torch.full_like(samples, 0.6))


# Schedules for sampling


@pytest.mark.parametrize(("text", "step"), [("karras", lambda s: s ** (1 / 7)), ("log-snr", math.log),
                                            ("karras@0.01,50,3", lambda s: s ** (1 / 3))])  # fmt: skip
def test_steps_of_the_schedules_by_sigma_are_equal(text, step):
    gamma = parse_schedule(text)(torch.linspace(0, 1, 11, dtype=torch.float64))
    sigmas = ((1 - gamma) / gamma).sqrt().tolist()
    ends = (0.01, 50) if "@" in text else (0.002, 80)
    assert (sigmas[0], sigmas[-1]) == pytest.approx(ends, rel=1e-6)
    steps = torch.tensor([step(sigma) for sigma in sigmas]).diff()
    torch.testing.assert_close(steps, steps[0].expand(10), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("text", ["karras@1,2", "karras@80,0.002,7", "karras@0,80,7", "karras@0.1,80,-1",
                                  "karras@0.1,inf,7", "log-snr@1,2,3", "log-snr@5", "log-snr@0.5,2"])  # fmt: skip
def test_sigmas_that_make_no_schedule_are_refused(text):
    with pytest.raises(RinError, match=r"schedule '.*': "):
        parse_schedule(text)


# Guidance for a part of the noise


def test_guidance_is_for_its_interval_alone_and_costs_nothing_elsewhere():
    model = Answering(lambda x, _gamma, condition: torch.full_like(x, 0.4 if condition.labels[0] >= 0 else 0.2))
    config = DiffusionConfig(prediction="x", sampler="ddim", num_steps=20, label_drop_rate=0.1)
    condition, interval = Condition(labels=torch.zeros(2, dtype=torch.int64)), (0.5, 3.0)
    steps = list(
        Diffusion(config).steps(model, (2, 1, 2, 2), condition, seeds=[0, 1], guidance=1.0, guidance_interval=interval)
    )
    gammas = parse_schedule("cosine")(torch.tensor([1 - step / 20 for step in range(20)]))
    inside = [0.5 < math.sqrt((1 - gamma) / gamma) <= 3.0 for gamma in gammas.tolist()]
    assert 0 < sum(inside) < 20
    assert [step.x_0.mean().item() for step in steps] == pytest.approx([0.6 if guided else 0.4 for guided in inside])
    assert len(model.calls) == 20 + sum(inside)


@pytest.mark.parametrize("interval", [(3.0, 0.5), (1.0,), (-1.0, 2.0), "0.5", (0.5, float("nan")), ("a", "b")])
def test_intervals_that_are_none_are_refused(interval):
    with pytest.raises(RinError, match="guidance_interval"):
        Diffusion(DiffusionConfig()).sample(Answering(), (1, 1, 2, 2), guidance_interval=interval)


@pytest.mark.parametrize(
    ("interval", "nearest"),
    [((20.0, 100.0), "begin at sigma 12.7 and 1.28e+04"), ((0.0, 0.01), "begins at sigma 0.079"),
     ((1e10, 1e11), "begins at sigma 1.28e+04")],
)  # fmt: skip
def test_an_interval_in_which_no_step_begins_is_refused(interval, nearest):
    diffusion = Diffusion(DiffusionConfig(num_steps=20, label_drop_rate=0.1))
    options = {"condition": Condition(labels=torch.zeros(1, dtype=torch.int64)), "guidance_interval": interval}
    model = Answering()
    with pytest.raises(RinError, match=f"guides none of the 20 steps: the nearest {re.escape(nearest)}"):
        diffusion.sample(model, (1, 1, 2, 2), **options, guidance=1.0)
    assert not model.calls


def test_an_interval_without_guidance_is_refused():
    with pytest.raises(RinError, match="guidance_interval does nothing without guidance"):
        Diffusion(DiffusionConfig()).sample(Answering(), (1, 1, 2, 2), guidance_interval=(0.3, 3.0))


def test_a_network_without_latents_is_sampled_by_every_sampler():
    def answer(x, _gamma, _condition=None, _latents=None):
        return Denoised(torch.zeros_like(x), None)

    for sampler in SAMPLERS:
        samples = Diffusion(DiffusionConfig()).sample(answer, (1, 1, 2, 2), seeds=[0], sampler=sampler, num_steps=3)
        assert samples.isfinite().all()
