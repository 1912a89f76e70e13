"""Weights that stay as they are, and learning rates by group."""

import dataclasses
import logging
import shutil

import pytest
import torch

import rin
from rin import RinError, TrainingConfig
from rin.training import checkpoint
from rin.training.groups import freeze, matches, parse_rate, rate_factors
from tests.unit.models import new, small
from tests.unit.training.test_training import TRAINING, batch_of, trainer

OPTIMISERS = ["lamb", "adamw", "muon"]
FROZEN, RATES = ("blocks.0", "tokenizer.positions"), ("condition=0.25", "blocks.1.*.bias=0.5")


def made(folder, optimiser="lamb", **changes):
    return trainer(folder, dataclasses.replace(TRAINING, optimiser=optimiser, **changes))


def is_frozen(name):
    return name == "tokenizer.positions" or name.startswith("blocks.0.")


def factor_of(name):
    if name.startswith("condition."):
        return 0.25
    return 0.5 if name.startswith("blocks.1.") and name.endswith(".bias") else 1.0


def copied(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(
    ("pattern", "name", "does"),
    [
        ("blocks.1", "blocks.1.read.attention.query.weight", True),
        ("blocks.1", "blocks.10.read.attention.query.weight", False),
        ("blocks", "blocks.1.read.attention.query.weight", True),
        ("block", "blocks.1.read.attention.query.weight", False),
        ("blocks.*.read", "blocks.1.read.attention.query.weight", True),
        ("*.bias", "blocks.1.read.attention.query.weight", False),
        ("*.weight", "blocks.1.read.attention.query.weight", True),
        ("blocks.[12]", "blocks.1.read.attention.query.weight", True),
        ("latents", "latents", True),
        ("Latents", "latents", False),
    ],
)
def test_a_pattern_names_weights_and_modules(pattern, name, does):
    assert matches(pattern, name) == does


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_frozen_weights_and_their_averages_stay_and_the_others_move_as_before(tmp_path, optimiser):
    changes = {"weight_decay": 0.1, "average_decay": 0.5}
    free, held = made(tmp_path / "a", optimiser, **changes), made(tmp_path / "b", optimiser, freeze=FROZEN, **changes)
    before = copied(held.model)
    for each in (free, held):
        each.update(batch_of(each))
    for name, weight in held.model.named_parameters():
        average = held.average.model.get_parameter(name)
        if is_frozen(name):
            assert torch.equal(weight, before[name])
            assert torch.equal(average, before[name])
            assert weight not in held.optimiser.state
        else:
            assert torch.equal(weight, free.model.get_parameter(name)), name
    assert held.gradient_norm < free.gradient_norm
    held.update(batch_of(held))
    assert all(torch.equal(weight, before[name]) for name, weight in held.model.named_parameters() if is_frozen(name))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_weights_move_by_their_factor_of_the_rate(tmp_path, optimiser):
    changes = {"weight_decay": 0.1}
    plain, slower = made(tmp_path / "a", optimiser, **changes), made(tmp_path / "b", optimiser, rates=RATES, **changes)
    before = copied(plain.model)
    for each in (plain, slower):
        each.update(batch_of(each))
    after, seen = dict(plain.model.named_parameters()), set()
    for name, weight in slower.model.named_parameters():
        factor, move = factor_of(name), after[name] - before[name]
        seen |= {factor} if move.abs().max() > 1e-5 else set()
        torch.testing.assert_close(weight - before[name], factor * move, rtol=1e-3, atol=1e-7)
        if factor == 1:
            assert torch.equal(weight, after[name]), name
    assert seen == {0.25, 0.5, 1.0}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_run_with_groups_that_was_cut_off_ends_as_the_uninterrupted_one(tmp_path, optimiser):
    options = {"freeze": FROZEN, "rates": RATES, "warmup_steps": 1, "further_decays": (0.5,)}
    whole = made(tmp_path / "whole", optimiser, **options)
    whole.run()
    first, last = sorted((tmp_path / "whole" / checkpoint.FOLDER).iterdir())
    shutil.copytree(first, tmp_path / "cut" / checkpoint.FOLDER / first.name)
    made(tmp_path / "cut", optimiser, **options).run()
    written = [path.name for path in sorted(last.glob("*.safetensors"))]
    assert len(written) == 4
    for name in written:
        assert (last / name).read_bytes() == (tmp_path / "cut" / checkpoint.FOLDER / last.name / name).read_bytes()
    stored = checkpoint.read(last, checkpoint.OPTIMISER)
    assert stored
    assert not [name for name in stored if is_frozen(name)]
    frozen = copied(made(tmp_path / "new").model)
    for name, weight in whole.model.named_parameters():
        assert torch.equal(weight, frozen[name]) == is_frozen(name), name


def test_blocks_computed_anew_have_the_gradients_behind_frozen_ones(tmp_path):
    kept, anew = (
        made(tmp_path / str(recompute), freeze=("tokenizer", "latents", "blocks.0"), recompute_blocks=recompute)
        for recompute in (False, True)
    )
    for each in (kept, anew):
        each.update(batch_of(each))
    for one, other in zip(kept.model.parameters(), anew.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_last_pattern_counts():
    names = ["blocks.0.a", "blocks.1.a", "latents"]
    assert rate_factors(names, ("blocks=0.1", "blocks.1=3")) == {"blocks.0.a": 0.1, "blocks.1.a": 3.0, "latents": 1.0}
    assert rate_factors(names, ("blocks.1=3", "*=0.1")) == dict.fromkeys(names, 0.1)
    assert rate_factors(names, ()) == dict.fromkeys(names, 1.0)


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ("tokenizer", "a pattern and a factor above 0"),
        ("=0.1", "a pattern and a factor above 0"),
        ("tokenizer=", "a pattern and a factor above 0"),
        ("tokenizer=-1", "a pattern and a factor above 0"),
        ("tokenizer=nan", "a pattern and a factor above 0"),
        ("tokenizer=inf", "a pattern and a factor above 0"),
        ("tokenizer=0", "by --training.freeze tokenizer"),
    ],
)
def test_what_is_no_rate_is_refused(rate, said):
    for act in (parse_rate, lambda rate: TrainingConfig(rates=(rate,))):
        with pytest.raises(RinError, match=f"training.rates '{rate}'.*{said}"):
            act(rate)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        (
            "freeze",
            ("tokeniser",),
            "unknown weight or module in training.freeze 'tokeniser': did you mean 'tokenizer'?",
        ),
        ("freeze", ("latents", "blocks.2.*"), "unknown weight or module in training.freeze 'blocks.2.*': did you mean"),
        ("freeze", ("",), "unknown weight or module in training.freeze ''"),
        ("rates", ("latent=0.5",), "unknown weight or module in training.rates 'latent': did you mean 'latents'?"),
        ("freeze", ("*",), "nothing is left to train"),
    ],
)
def test_a_pattern_that_matches_nothing_and_one_that_matches_all_are_refused(tmp_path, option, value, said):
    with pytest.raises(RinError) as refused:
        made(tmp_path / "run", **{option: value})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_freezing_tells_what_it_froze():
    model = new(small())
    assert freeze(model, ("latents", "blocks.*.bias"))[0] == "latents"
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == {
        name
        for name, _ in model.named_parameters()
        if name == "latents" or (name.startswith("blocks.") and "bias" in name)
    }


def test_a_run_says_what_is_frozen_and_warns_of_what_nothing_has_trained(tmp_path, caplog):
    digits = rin.preset("digits")
    training = dataclasses.replace(
        digits.training, num_steps=1, checkpoint_every=1, held_out_every=0, sample_every=0, freeze=("condition.label",)
    )
    first = dataclasses.replace(digits, training=training)
    anew = dataclasses.replace(
        first, init_from=str(tmp_path / "a"), model=dataclasses.replace(digits.model, patch_size=2)
    )
    further = dataclasses.replace(
        anew, training=dataclasses.replace(training, freeze=("condition.label", "tokenizer.patch"))
    )
    with caplog.at_level(logging.INFO, logger="rin"):
        rin.train(first, tmp_path / "a")
        assert "frozen: 2 of" in caplog.text
        assert "frozen though drawn at random: condition.label.weight, condition.label.bias" in caplog.text
        caplog.clear()
        rin.train(anew, tmp_path / "b")
        assert "frozen: 2 of" in caplog.text
        assert "frozen though" not in caplog.text
        caplog.clear()
        rin.train(further, tmp_path / "c")
        assert "frozen though not taken over as they were: tokenizer.patch" in caplog.text
        assert "condition.label" not in caplog.text.partition("frozen though")[2]
        caplog.clear()
        rin.train(further, tmp_path / "c")
        assert "frozen though" not in caplog.text
    before, after = (rin.load(tmp_path / name, device="cpu").model.state_dict() for name in "ab")
    assert torch.equal(before["condition.label.weight"], after["condition.label.weight"])
    with pytest.raises(RinError, match=r"training.freeze was .* and is \[\]"):
        rin.train(dataclasses.replace(first, training=dataclasses.replace(training, freeze=())), tmp_path / "a")
