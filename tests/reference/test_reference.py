"""Every reference case, compared within the tolerances that its README states.

The folder comes from RIN_REFERENCE_CASES; a file is understood by its name's first word and its stored options.
"""

import math

import numpy as np
import pytest
import torch

from rin.core.denoiser import Condition
from rin.diffusion import Diffusion, DiffusionConfig, parse_schedule
from rin.diffusion.parametrisation import estimate
from rin.interop import pix2seq
from rin.nn import RIN, linear
from rin.training.average import Average
from rin.training.lr_schedules import learning_rate
from rin.training.optim import Lamb, parameter_groups
from tests.reference.case import FOLDER, Case, case_files

OUTPUT, LOSS, GRADIENT, WEIGHT, DEVIATION = 2e-5, 5e-6, 1e-4, 1e-3, 0.03


def close(ours, theirs, tolerance, what):
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)}, reference {tuple(theirs.shape)}"
    difference = (ours.double() - theirs.double()).abs().max().item()
    assert difference <= tolerance, f"{what}: differs by {difference:.3g}, tolerance {tolerance:.3g}"


def load(case):
    return pix2seq.load(case.config, case.variables("w/"))


def check_forward(case):
    model, interfaces = load(case), []
    model.tokenizer.read_out_norm.register_forward_pre_hook(lambda _, inputs: interfaces.append(inputs[0]))
    context = case.data("in/cond") if "in/cond" in case else None
    condition = Condition(labels=case.labels(), context=context)
    passes = {"out": case.flat("in/latent_prev"), "out_cold": None}
    for prefix, latents_prev in passes.items():
        if prefix == "out_cold" and not case.names("out_cold/"):
            continue
        with torch.no_grad():
            out = model(case.data("in/x"), case.flat("in/gamma"), condition, latents_prev)
        close(out.prediction, case.data(f"{prefix}/x"), OUTPUT, f"{prefix}/x")
        close(out.latents, case.flat(f"{prefix}/latent"), OUTPUT, f"{prefix}/latent")
        if f"{prefix}/tape" in case:
            close(interfaces[-1], case.flat(f"{prefix}/tape"), OUTPUT, f"{prefix}/tape")


def check_schedules(case):
    t = case.flat("t")
    assert case.config["schedules"]
    for name in case.config["schedules"]:
        gamma = parse_schedule(pix2seq.schedule(name))(t)
        close(gamma, case.flat(f"gamma/{name}"), OUTPUT, name)


def check_parametrisations(case):
    low, high = case.config["clip"]
    assert low == -high
    x_t, gamma, output = case.flat("xt"), case.flat("gamma").flatten(), case.flat("out")
    cases = sorted({name.rsplit("/", 1)[0] for name in case.arrays if name.count("/") == 2})
    assert cases
    for name in cases:
        space, recompute = name.split("/")
        found = estimate(output, x_t, gamma, pix2seq.space(space), float(high), recompute_eps=recompute == "1")
        close(found.x_0, case.flat(f"{name}/x0"), OUTPUT, f"{name}/x0")
        close(found.eps, case.flat(f"{name}/eps"), OUTPUT, f"{name}/eps")


def check_sample(case):
    config = case.config
    # the original lets anyone guide; here a model must have been trained for it
    config = config | {"cond_dropout": 0.1} if config["guidance"] else config
    noise = [draw if config["kind"] == "tokens" else draw.movedim(-1, 1) for draw in case.flat("in/noise")]
    diffusion = Diffusion(pix2seq.diffusion_config(config))
    samples = diffusion.sample(
        load(case),
        noise[0].shape,
        Condition(labels=case.labels()),
        num_steps=config["steps"],
        guidance=config["guidance"],
        td=config["td"],
        noise=noise,
    )
    # the original scales back only afterwards, in its sample()
    close(samples * config["b_scale"], case.data("out/x0"), OUTPUT, "out/x0")


def check_train(case):
    config, model = case.config, load(case).train()
    diffusion = Diffusion(pix2seq.diffusion_config(config))
    optimiser = Lamb(
        parameter_groups(model.parameters(), config["weight_decay"]),
        lr=config["learning_rate"],
        betas=(config["beta1"], config["beta2"]),
        eps=config["eps"],
    )
    average = Average(model, config["ema_decay"], warmup=False)
    assert config["steps"] >= 1
    for step in range(config["steps"]):
        loss = training_loss(case, diffusion, model, step)
        assert abs(loss.item() - case.number(f"step{step}/loss")) <= LOSS, f"loss of step {step}: {loss.item()}"
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            check_gradients(case, model)
        optimiser.step()
        average.update(step)
    for prefix, ours in (("end/", model.state_dict()), ("ema/", average.model.state_dict())):
        for name, theirs in pix2seq.state_dict(model, case.variables(prefix)).items():
            if not name.endswith("key.bias"):
                # below 1e-3, so that so small a change shows in the scales of LayerNorm too
                close(ours[name], theirs, WEIGHT * min(theirs.abs().max().item(), 0.9), prefix + name)


def training_loss(case, diffusion, model, step):
    """The loss of a stored step, with everything random as it was there."""

    def mask(name):
        return case.flat(f"step{step}/{name}").bool() if f"step{step}/{name}" in case else None

    return diffusion.loss(
        model,
        case.data(f"step{step}/image") * 2 - 1,
        Condition(labels=case.labels()),
        t=case.flat(f"step{step}/t"),
        noise=case.data(f"step{step}/noise"),
        self_cond=mask("self_cond_mask"),
        keep=mask("label_keep"),
        keep_in_estimate=mask("label_keep_estimate"),
    )


def check_gradients(case, model):
    # a read-only tail shapes only the carried latents and has no gradient: none may be stored, and none is ours
    none = {name: np.zeros_like(weight) for name, weight in case.variables("w/").items()}
    stored = case.variables("grad/")
    assert stored
    theirs = pix2seq.state_dict(model, none | stored)
    for name, weight in model.named_parameters():
        ours = torch.zeros_like(weight) if weight.grad is None else weight.grad
        if name.endswith("key.bias"):  # zero by mathematics; what is stored is rounding
            assert ours.abs().max() < 1e-6, name
        else:
            close(ours, theirs[name], GRADIENT * theirs[name].abs().max().item() + 1e-9, f"grad/{name}")


def closed_form(name, shape):
    """Deviation and largest magnitude of the original's initial distribution of a variable, and the centre."""
    if name.endswith("vis_pos_embedding"):  # normal, cut at two deviations
        cut = 2 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
        return 0.02 * math.sqrt(1 - 2 * cut), 0.04
    if name.endswith("kernel"):  # Glorot uniform; all but the last two axes multiply both fans
        receptive = math.prod(shape[:-2])
        limit = math.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
        return limit / math.sqrt(3), limit
    return 0.0, 1.0 if name.endswith("gamma") and not name.startswith("latent_prev_ln") else 0.0


def check_init(case):
    torch.manual_seed(0)
    model = RIN(pix2seq.model_config(case.config))
    ours = {theirs: model.state_dict()[name] for name, theirs in pix2seq.variable_names(model).items()}
    assert set(ours) == set(case.names("std/"))
    for name, drawn in ours.items():
        deviation, bound = closed_form(name, case.array(f"shape/{name}").tolist())
        assert drawn.numel() == math.prod(case.array(f"shape/{name}").tolist()), name
        while 0 < drawn.numel() < 20_000 and deviation:  # few numbers say little of their distribution: draw more
            model.initialise()
            again = {theirs: model.state_dict()[own] for own, theirs in pix2seq.variable_names(model).items()}
            drawn = torch.cat([drawn.flatten(), again[name].flatten()])
        spread = drawn.std(correction=0).item()
        for what, std, largest in (
            ("ours", spread, drawn.abs().max().item()),
            ("reference", case.number(f"std/{name}"), case.number(f"absmax/{name}")),
        ):
            assert abs(std - deviation) <= DEVIATION * deviation, f"{what} {name}: deviation {std}, not {deviation}"
            assert largest <= bound * (1 + 1e-5), f"{what} {name}: magnitude {largest} above {bound}"
            assert largest >= 0.9 * bound, f"{what} {name}: magnitude {largest}, far below {bound}"


def check_lr(case):
    config, steps = case.config, case.array("step").tolist()
    assert config["key"] == "schedule|warmup_steps|end_lr_factor"
    cases = [name for name in case.arrays if "|" in name]
    assert cases
    for name in cases:
        schedule, warmup_steps, end_factor = name.split("|")
        rates = [
            learning_rate(
                step,
                base=config["base_lr"],
                schedule=pix2seq.lr_schedule(schedule),
                warmup_steps=int(warmup_steps),
                num_steps=config["total_steps"],
                end_factor=float(end_factor),
            )
            for step in steps
        ]
        close(torch.tensor(rates), case.flat(name), OUTPUT * config["base_lr"], name)


CHECKS = {
    "image": check_forward,
    "video": check_forward,
    "tokens": check_forward,
    "schedules": check_schedules,
    "parametrisations": check_parametrisations,
    "sample": check_sample,
    "train": check_train,
    "init": check_init,
    "lr": check_lr,
}


def check(path):
    case = Case(path)
    assert case.kind in CHECKS, f"{path.name}: no check for a case of kind {case.kind!r}"
    CHECKS[case.kind](case)
    assert not case.unread(), f"{path.name}: nothing checked {case.unread()}"


def test_there_are_cases():
    assert case_files(), f"no reference cases in {FOLDER}"


@pytest.mark.parametrize("path", case_files(), ids=lambda path: path.stem)
def test_case(path):
    check(path)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize(
    "path", [path for path in case_files() if path.stem.split("_")[0] != "init"], ids=lambda path: path.stem
)
def test_case_through_onednn(path, monkeypatch):
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(linear, "_SMALLEST", 1)
    check(path)


def test_the_defaults_of_a_loaded_configuration():
    assert pix2seq.diffusion_config({}) == DiffusionConfig(self_cond_rate=0.5, num_steps=100)
