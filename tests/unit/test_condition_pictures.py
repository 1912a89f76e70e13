"""Models of images that draw from a clean picture: network, loss, samples, runs."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import rin
from rin import Condition, Diffusion, DiffusionConfig, Given, RinError
from rin.core.pixels import to_pictures
from rin.core.seeds import Chance
from rin.data import OpenedData
from rin.data.degrading import downscaled, parse_degrade
from rin.data.feeding.media_sets import MediaInMemory
from rin.evaluation.restored import bicubic, measured_restored, psnr
from rin.experiment import ExperimentConfig
from rin.nn.tokenizers import ConditionInPlace, image_patches
from rin.run_data import with_condition
from rin.training.checks import check_condition
from rin.training.config import TrainingConfig
from rin.training.held_out import held_out_losses
from rin.training.trainer import Trainer
from tests.unit.models import inputs, moved, new, small, trained

LOW = small(num_classes=0, condition_shape=(3, 4, 4))
HOLE = small(num_classes=0, condition_shape=(4, 8, 8))
AS_TOKENS = dataclasses.replace(LOW, condition_in_place=False)
TRAINING = TrainingConfig(
    num_steps=4, batch_size=6, warmup_steps=0, log_every=2, held_out_every=2, sample_every=0, checkpoint_every=2
)
DIFFUSION = DiffusionConfig(num_steps=2)


def pictures(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=draw, dtype=torch.uint8)


def media(count, seed=0):
    return MediaInMemory(pictures(count, seed), torch.zeros(count, dtype=torch.int64), ("a",))


def low_pictures(count, seed=2):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def interface_of(model, config):
    """What the first block reads, and the condition."""
    seen = []
    model.blocks[0].read.register_forward_hook(lambda _, arguments, __: seen.append(arguments[1]))
    x, gamma, condition = inputs(config)
    model(x, gamma, condition)
    return seen[0], x, condition


@pytest.mark.parametrize(
    ("shape", "box", "patch"),
    [((3, 8, 8), 1, 2), ((1, 4, 4), 1, 1), ((2, 2, 2), 2, 1), ((1, 16, 16), 1, 4), ((1, 3, 3), 4, 3)],
)
def test_each_token_has_the_part_of_the_condition_that_lies_where_its_patch_does(shape, box, patch):
    config = small(num_classes=0, condition_shape=shape)
    model = moved(config)
    tokens, x, condition = interface_of(model, config)
    own, tokenizer = model.tokenizer.condition, model.tokenizer
    assert tokens.shape[1] == 16
    enlarged = condition.context.repeat_interleave(box, 2).repeat_interleave(box, 3)
    added = tokens - tokenizer.norm(tokenizer.patch(tokenizer.cut(x))) - tokenizer.positions
    for row, column in ((0, 0), (0, 3), (2, 1), (3, 3)):
        part = enlarged[:, :, patch * row : patch * (row + 1), patch * column : patch * (column + 1)]
        expected = own.norm(own.patch(part.permute(0, 2, 3, 1).flatten(1)))
        torch.testing.assert_close(added[:, 4 * row + column], expected, atol=1e-5, rtol=1e-5)


def test_pictures_are_enlarged_to_whole_boxes_by_any_factor():
    """By 41 among them, at which PyTorch's nearest neighbours are off by a pixel."""
    for side, rows in ((2, 41), (3, 47), (5, 12), (6, 8)):
        part = math.lcm(side, rows) // rows
        own, seen = ConditionInPlace((1, side, side), (rows, rows), (part, part), 8), []
        own.patch.register_forward_hook(lambda _, arguments, __, seen=seen: seen.append(arguments[0]))
        picture = torch.arange(side * side).reshape(1, 1, side, side).float()
        own(picture)
        boxes = picture.repeat_interleave(rows * part // side, 2).repeat_interleave(rows * part // side, 3)
        assert torch.equal(seen[0], image_patches(boxes, (part, part)))


def test_tokens_of_the_condition_have_weights_positions_and_a_marker_of_their_own():
    model = moved(AS_TOKENS)
    tokens, _, condition = interface_of(model, AS_TOKENS)
    own = model.tokenizer.condition
    assert tokens.shape[1] == 16 + 4
    patches = condition.context.unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 12)
    expected = own.norm(own.patch(patches)) + own.positions + own.marker
    torch.testing.assert_close(tokens[:, 16:], expected)


@pytest.mark.parametrize("config", [LOW, AS_TOKENS], ids=["in place", "as tokens"])
def test_the_condition_changes_the_output(config):
    model = moved(config)
    x, gamma, condition = inputs(config)
    other = Condition(context=-condition.context)
    plain, changed = (model(x, gamma, each) for each in (condition, other))
    assert (plain.prediction - changed.prediction).abs().max() > 1e-4
    assert plain.prediction.shape == x.shape


def test_guidance_keeps_the_picture_on_both_sides():
    config = small(condition_shape=(3, 4, 4))
    condition = inputs(config)[2]
    assert torch.equal(condition.null().context, condition.context)
    assert condition.null().labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("config", "context", "message"),
    [
        (LOW, None, r"no condition picture was given: this network was made for one of \(3, 4, 4\)"),
        (LOW, torch.zeros(2, 3, 8, 8), r"a condition picture of shape \(3, 8, 8\): this network was made for one of"),
        (small(num_classes=0), torch.zeros(2, 3, 4, 4), "this network was made for none"),
    ],
)
def test_a_network_refuses_what_it_was_not_made_for(config, context, message):
    x, gamma, _ = inputs(config)
    with pytest.raises(RinError, match=message):
        new(config)(x, gamma, Condition(context=context))


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (3, 2, 4, 4)])
def test_a_shape_that_is_none_is_one_line(shape):
    with pytest.raises(RinError, match=r"model\.condition_shape"):
        small(condition_shape=shape)
    with pytest.raises(RinError, match=r"model\.condition_shape"):
        small(shape=(3, 4, 8, 8), condition_shape=(3, 4, 4))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_network_learns_to_use_its_condition(in_place):
    """Pictures of one colour each, which the condition tells and pure noise does not."""
    config = small(num_classes=0, condition_shape=(3, 1, 1), condition_in_place=in_place, patch_size=4)
    model, diffusion = (
        new(config).train(),
        Diffusion(DiffusionConfig(prediction="x", loss_space="x", self_cond_rate=0.0)),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)

    def batch():
        colour = torch.rand(32, 3, 1, 1, generator=draw) * 2 - 1
        return colour.expand(-1, -1, 8, 8), colour, torch.ones(32)

    torch.manual_seed(0)
    for _ in range(150):
        x_0, colour, t = batch()
        optimiser.zero_grad()
        diffusion.loss(model, x_0, Condition(context=colour), t=t).backward()
        optimiser.step()
    x_0, colour, t = batch()
    right = diffusion.loss(model, x_0, Condition(context=colour), t=t).item()
    wrong = diffusion.loss(model, x_0, Condition(context=colour.roll(1, 0)), t=t).item()
    assert right < 0.1  # of 1/3, the variance of colours, without the condition
    assert wrong > 0.3


def trainer(folder, degrade, model, **changes):
    torch.manual_seed(0)
    data = OpenedData(training=media(10), held_out=media(4, seed=1), degrade=degrade)
    folder.mkdir(exist_ok=True)
    training = dataclasses.replace(TRAINING, **changes)
    return Trainer(training, model.kind, rin.RIN(model), Diffusion(DIFFUSION), data, folder, seed=7, flip=True)


@pytest.mark.parametrize(("degrade", "model"), [("downscale 2", LOW), ("mask free-form", HOLE)])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path, degrade, model):
    trainer(tmp_path / "whole", degrade, model).run()
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped/checkpoints/step-000000004")
    resumed = trainer(tmp_path / "stopped", degrade, model)
    resumed.resume()
    assert resumed.step == 2
    resumed.run()
    whole, stopped = (tmp_path / name / "checkpoints/step-000000004" for name in ("whole", "stopped"))
    for file in whole.glob("*.safetensors"):
        for name, value in load_file(file).items():
            assert torch.equal(value, load_file(stopped / file.name)[name]), name
    assert list(whole.glob("*.safetensors"))


def test_held_out_losses_are_those_of_the_pictures_own_conditions():
    images, model = media(4), moved(LOW)
    right = held_out_losses(
        model, Diffusion(DIFFUSION), LOW.kind, images, 4, torch.device("cpu"), degrade="downscale 2"
    )
    apart = held_out_losses(
        model, Diffusion(DIFFUSION), LOW.kind, images, 2, torch.device("cpu"), degrade="downscale 2"
    )
    assert right == pytest.approx(apart, rel=1e-5)
    with pytest.raises(RinError, match="no condition picture"):
        held_out_losses(model, Diffusion(DIFFUSION), LOW.kind, images, 4, torch.device("cpu"))


def test_the_data_decide_the_shape_and_another_is_refused():
    experiment = ExperimentConfig(model=small(), data=rin.DataConfig(degrade="mask free-form"))
    assert with_condition(experiment).model.condition_shape == (4, 8, 8)
    with pytest.raises(
        RinError, match=r"pictures of \(4, 8, 8\) to draw from \(mask free-form\): leave model.condition_shape out"
    ):
        with_condition(dataclasses.replace(experiment, model=LOW))
    with pytest.raises(RinError, match=r"give --data\.degrade"):
        check_condition(LOW.kind)
    plain = ExperimentConfig(model=small())
    assert with_condition(plain) == plain


def test_a_run_by_degrade_samples_from_a_picture(tmp_path):
    experiment = ExperimentConfig(
        model=small(num_classes=0), diffusion=DIFFUSION, data=rin.DataConfig(degrade="downscale 2", num_held_out=4),
        training=dataclasses.replace(TRAINING, num_steps=2, sample_every=2),
    )  # fmt: skip
    array = pictures(40).numpy()
    opened = rin.train(experiment, tmp_path / "run", data=array)
    assert opened.config.condition_shape == (3, 4, 4)
    assert (tmp_path / "run/samples/step-000000002.png").is_file()
    condition = low_pictures(1)
    drawn = opened.sample(condition=condition, num=2)
    opened.save(tmp_path / "saved")
    assert torch.equal(rin.load(tmp_path / "saved").sample(condition=condition, num=2), drawn)
    assert rin.train(experiment, tmp_path / "run", data=array).sample(condition=condition, num=2).equal(drawn)


def test_models_and_runs_of_before_have_the_condition_as_tokens_and_go_on_so(tmp_path):
    model = small(num_classes=0, condition_in_place=False)
    experiment = ExperimentConfig(
        model=model, diffusion=DIFFUSION, data=rin.DataConfig(degrade="downscale 2", num_held_out=4), training=TRAINING
    )
    array, condition = pictures(40).numpy(), low_pictures(1)
    opened = rin.train(experiment, tmp_path / "run", data=array)
    drawn = opened.sample(condition=condition, num=2)
    opened.save(tmp_path / "saved")
    for name in ("run", "saved"):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["model"].pop("condition_in_place") is False
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        assert rin.load(tmp_path / name).sample(condition=condition, num=2).equal(drawn)
    shutil.rmtree(tmp_path / "run/checkpoints/step-000000004")
    today = dataclasses.replace(experiment, model=small(num_classes=0))
    rin.train(today, tmp_path / "today", data=array)
    with pytest.raises(RinError, match="condition_in_place was True and is False"):
        rin.train(experiment, tmp_path / "today", data=array)
    assert rin.train(today, tmp_path / "run", data=array).sample(condition=condition, num=2).equal(drawn)


def test_one_picture_stands_for_all_samples_and_several_for_one_each():
    model = trained(moved(LOW), DIFFUSION)
    several = low_pictures(3)
    drawn = model.sample(condition=several, seed=4)
    assert len(drawn) == 3
    assert len(model.sample(condition=several[:1])) == 1
    alone = model.sample(condition=several[1:2], num=3, seed=4)
    torch.testing.assert_close(alone[1], drawn[1])
    assert not torch.allclose(alone[0], drawn[0])
    batched = model.sample(condition=several, seed=4, batch_size=2)
    torch.testing.assert_close(batched, drawn)


def test_files_are_condition_pictures(tmp_path):
    model = trained(moved(LOW), DIFFUSION)
    levels = to_pictures(low_pictures(2))
    for number, picture in enumerate(levels):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    assert torch.equal(model.sample(condition=files), model.sample(condition=rin.to_floats(levels)))


def test_what_lies_in_a_hole_is_put_out(tmp_path):
    model = trained(moved(HOLE), DIFFUSION)
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    levels[..., 3] = 200  # more opaque than not
    levels[2:5, 2:5, 3] = 100
    Image.fromarray(levels).save(tmp_path / "hole.png")
    clean = levels.copy()
    clean[..., 3], clean[2:5, 2:5] = 255, 0
    expected = model.sample(condition=rin.to_floats(torch.from_numpy(clean).permute(2, 0, 1)[None]))
    assert torch.equal(model.sample(condition=tmp_path / "hole.png"), expected)


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (LOW, {}, r"this model draws from a picture of 4x4 pixels and 3 channels \(colour\): give one"),
        (LOW, {"condition": []}, "no condition pictures are given"),
        (LOW, {"condition": torch.zeros(1, 3, 8, 8)}, r"condition of shape .*this model takes pictures \(3, 4, 4\)"),
        (LOW, {"condition": Image.new("L", (4, 4))}, "the condition has 4x4 pixels and 1 channel.*this model takes"),
        (LOW, {"condition": torch.full((3, 4, 4), 9.0)}, r"condition from 9 to 9: give numbers in \[-1, 1\]"),
        (LOW, {"condition": low_pictures(3), "num": 2}, "2 by num, 3 by condition"),
        (small(num_classes=0), {"condition": low_pictures(1)}, "draws from no picture: leave the condition out"),
        (small(num_classes=0), {"consistent": True}, "consistent is for models that draw a picture from a smaller"),
        (HOLE, {"condition": torch.zeros(4, 8, 8), "consistent": True}, "consistent is for condition pictures that"),
    ],
)
def test_wrong_conditions_are_one_line(config, given, message):
    with pytest.raises(RinError, match=message):
        trained(new(config), DIFFUSION).sample(**given)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-2m", "heun"])
@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_consistent_samples_made_smaller_are_the_condition(sampler, input_scale):
    config = dataclasses.replace(DIFFUSION, num_steps=4, input_scale=input_scale)
    model, low = trained(moved(LOW), config), to_pictures(low_pictures(4).mul(1.5).clamp(-1, 1))
    drawn = {
        consistent: model.sample(condition=rin.to_floats(low), sampler=sampler, consistent=consistent)
        for consistent in (False, True)
    }
    assert drawn[True].abs().max() <= 1 + 1e-6
    away = {name: (downscaled(to_pictures(each), 2).float() - low.float()).abs() for name, each in drawn.items()}
    assert away[True].max() <= 1
    assert away[False].mean() > 10
    assert drawn[True].std(dim=(2, 3)).min() > 0


def test_consistent_samples_keep_no_other_picture():
    model, low = trained(new(LOW), DIFFUSION), low_pictures(1)
    x_0 = torch.zeros(1, 3, 8, 8)
    given = Given(x_0=x_0, redrawn=torch.ones_like(x_0, dtype=torch.bool))
    with pytest.raises(RinError, match="consistent changes all of a picture"):
        model.sample(condition=low, given=given, consistent=True)
    inverted = rin.invert(model, x_0, condition=low)
    assert inverted.shape == x_0.shape


def test_psnr_and_bicubic_are_what_they_are_called():
    originals = pictures(2)
    one_off = torch.where(originals < 255, originals + 1, originals - 1)
    assert psnr(one_off, originals).tolist() == pytest.approx([48.1308, 48.1308], abs=1e-3)
    low = downscaled(originals, 2)
    expected = np.asarray(Image.fromarray(low[0].permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.BICUBIC))
    away = bicubic(low, 2)[0].permute(1, 2, 0).int() - torch.from_numpy(expected.astype(np.int32))
    assert away.abs().max() <= 1


def test_restored_pictures_are_measured_beside_bicubic(tmp_path):
    for number, picture in enumerate(pictures(40)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    data = rin.DataConfig(path=str(tmp_path), degrade="downscale 2", num_held_out=4)
    experiment = ExperimentConfig(
        model=small(num_classes=0), diffusion=DIFFUSION, data=data, training=dataclasses.replace(TRAINING, num_steps=2)
    )
    experiment = with_condition(experiment)
    run = tmp_path / "run"
    opened = rin.train(experiment, run)
    found = measured_restored(opened, run, experiment, None, consistent=True)
    assert found["num"] == 4
    assert found["levels_away_from_condition"] <= 1
    assert 5 < found["psnr_of_bicubic"] < 20
    with pytest.raises(RinError, match="holds out 4 pictures"):
        measured_restored(opened, run, experiment, 5)


def test_accumulation_changes_a_batch_by_rounding_alone(tmp_path):
    levels = pictures(6)
    degraded = parse_degrade("downscale 2")(levels, Chance(0, 0, torch.arange(6)))
    batch = rin.data.Batch(levels, torch.zeros(6, dtype=torch.int64), torch.arange(6), degraded)
    whole, parts = (trainer(tmp_path / str(steps), "downscale 2", LOW, accumulation_steps=steps) for steps in (1, 3))
    for made in (whole, parts):
        made.update(batch)
    torch.testing.assert_close(parts.loss_sum, whole.loss_sum)
    torch.testing.assert_close(parts.gradient_norm, whole.gradient_norm, rtol=1e-4, atol=1e-6)


def test_training_gives_each_part_of_a_batch_its_own_condition_pictures(tmp_path, monkeypatch):
    made, seen = trainer(tmp_path, "downscale 2", LOW, accumulation_steps=3), []
    monkeypatch.setattr(
        made.diffusion, "loss", lambda _, x_0, condition, **_draws: seen.append((x_0, condition)) or x_0.sum()
    )
    levels = pictures(6)
    degraded = parse_degrade("downscale 2")(levels, Chance(0, 0, torch.arange(6)))
    batch = rin.data.Batch(levels, torch.zeros(6, dtype=torch.int64), torch.arange(6), degraded)
    for number in range(3):
        made.loss.of_part(batch, number, step=0)
    assert torch.equal(torch.cat([x_0 for x_0, _ in seen]), rin.to_floats(levels))
    assert torch.equal(torch.cat([condition.context for _, condition in seen]), rin.to_floats(degraded))
