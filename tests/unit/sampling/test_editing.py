"""Pictures changed with a model: on data whose best denoiser is known, and what is no picture refused in one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from rin import Diffusion, DiffusionConfig, Given, RinError, edit, inpaint, interpolate, invert, to_pictures
from rin.core.kind import Kind
from rin.diffusion.samplers import SAMPLERS
from rin.sampling import Pipeline
from rin.sampling.editing import spherical
from tests.unit.models import VIDEO, Answering, moved, small, trained

DROPPED = DiffusionConfig(num_steps=3, label_drop_rate=0.1)
DEVIATION, CORRELATION = 0.3, 0.8
"""Of two pixels that are normal with mean 0."""


def best_of_two_pixels(x, gamma, _condition):
    """E[x_0 | x_t] of the two pixels."""
    share = gamma[0].item()
    covariance = DEVIATION**2 * torch.tensor([[1, CORRELATION], [CORRELATION, 1]])
    of_x_t = share * covariance + (1 - share) * torch.eye(2)
    return (x.flatten(1) @ (share**0.5 * covariance @ torch.linalg.inv(of_x_t)).T).reshape(x.shape)


def second_pixel(num_rounds, known=0.4, sampler="ddim", num_steps=20, count=500):
    """The second pixel, drawn where the first is known."""
    x_0 = torch.full((count, 1, 1, 2), known)
    redrawn = torch.tensor([False, True]).expand(x_0.shape)
    config = DiffusionConfig(prediction="x", sampler=sampler, num_steps=num_steps, sampling_schedule="karras")
    given = Given(x_0=x_0, redrawn=redrawn, num_rounds=num_rounds)
    drawn = Diffusion(config).sample(Answering(best_of_two_pixels), x_0.shape, seeds=range(count), given=given)
    assert torch.equal(drawn[..., 0], x_0[..., 0])
    return drawn[..., 1]


def own(config=DROPPED, **changes):
    return trained(moved(small(**changes)), config)


def example(model, num=None, seed=0):
    """Data of a model's shape; a batch if `num` is given."""
    shape = model.kind.shape if num is None else (num, *model.kind.shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def square(*sides):
    """A mask of these sides, true in its middle."""
    mask = torch.zeros(sides, dtype=torch.bool)
    mask[tuple(slice(side // 3, -(side // 3)) for side in sides)] = True
    return mask


def refused(act):
    with pytest.raises(RinError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


# Inpainting


def test_what_is_redrawn_has_the_distribution_that_the_known_part_leaves_it():
    drawn = second_pixel(num_rounds=40, count=1000)
    assert drawn.mean().item() == pytest.approx(CORRELATION * 0.4, abs=0.02)
    assert drawn.std().item() == pytest.approx(DEVIATION * (1 - CORRELATION**2) ** 0.5, rel=0.15)


def test_putting_the_known_part_back_alone_does_not_make_them_agree():
    shares = [second_pixel(rounds).mean().item() / (CORRELATION * 0.4) for rounds in (1, 4, 16)]
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert shares[2] > 0.9


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_agrees_with_the_known_part(sampler):
    assert second_pixel(10, sampler=sampler).mean().item() == pytest.approx(CORRELATION * 0.4, abs=0.05)


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_known_pixels_stay_to_the_grey_level_at_every_step(input_scale):
    model = own(DiffusionConfig(num_steps=3, label_drop_rate=0.1, input_scale=input_scale))
    picture, mask, seen = example(model), square(8, 8), []
    drawn = inpaint(model, picture, mask, 2, num=3, callback=lambda _, x_0: seen.append(x_0))
    for x_0 in (*seen, drawn):
        levels, before = to_pictures(x_0), to_pictures(picture[None])
        assert torch.equal(levels[:, :, ~mask], before[:, :, ~mask].expand(3, -1, -1))
        assert not torch.equal(levels[:, :, mask], before[:, :, mask].expand(3, -1, -1))
    assert len(seen) == 3
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mask_of_all_taken_once_is_sampling(sampler):
    model, everywhere = own(), torch.ones(8, 8, dtype=torch.bool)
    drawn = inpaint(model, example(model), everywhere, [1, 2], num_rounds=1, seed=3, sampler=sampler)
    assert torch.equal(drawn, model.sample([1, 2], seed=3, sampler=sampler))


def test_each_step_is_taken_so_many_times_at_its_own_level():
    model = Answering()
    x_0 = torch.zeros(2, 1, 2, 2)
    given = Given(x_0=x_0, redrawn=torch.ones_like(x_0, dtype=torch.bool), num_rounds=3)
    steps = Diffusion(DiffusionConfig(num_steps=2)).steps(model, x_0.shape, seeds=[0, 1], given=given)
    assert len(list(steps)) == 2
    gammas = [gamma[0].item() for gamma in model.recorded("gamma")]
    assert gammas[:3] == [gammas[0]] * 3
    assert gammas[3:] == [gammas[3]] * 3
    assert gammas[0] < gammas[3]
    inputs = model.recorded("x")
    assert not torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[1], inputs[2])


def test_the_network_is_shown_the_known_part_with_fresh_noise_of_the_level():
    model, x_0 = Answering(), torch.full((4, 1, 24, 24), 0.5)
    redrawn = torch.arange(24).expand(x_0.shape) >= 12
    given = Given(x_0=x_0, redrawn=redrawn, num_rounds=2)
    Diffusion(DiffusionConfig(num_steps=4)).sample(model, x_0.shape, seeds=range(4), given=given)
    levels, parts = [gamma[0] for gamma in model.recorded("gamma")], [x[~redrawn] for x in model.recorded("x")]
    for level, part in zip(levels, parts, strict=True):
        assert part.mean().item() == pytest.approx(0.5 * level.sqrt().item(), abs=0.1)
        assert part.std().item() == pytest.approx((1 - level).sqrt().item(), rel=0.1)
    alike = torch.corrcoef(torch.stack(parts)).fill_diagonal_(0)  # fresh, but for what going back adds to
    assert alike.abs().max() < 0.95
    assert len(parts) == 8


@pytest.mark.parametrize("shape", ["image", "not square", "set", "video"])
def test_pictures_sets_and_clips_are_redrawn_where_the_mask_says(shape):
    changes = {"image": {}, "not square": {"shape": (1, 8, 12)}, "set": {"shape": (9, 7)}, "video": VIDEO}[shape]
    model = own(**changes)
    x = example(model, 2)
    context = {"context": torch.zeros(2, 3, 3, 8, 8)} if shape == "video" else {}
    sides = model.kind.shape[:1] if shape == "set" else model.kind.shape[1:]
    if shape == "video":
        x = to_pictures(x).float() / 127.5 - 1
    of_pixels = square(*sides)
    mask = (of_pixels[:, None] if shape == "set" else of_pixels[None]).expand(model.kind.shape)
    drawn = inpaint(model, x, of_pixels, [0, 1], **context)
    assert drawn.shape == x.shape
    torch.testing.assert_close(drawn[:, ~mask], x[:, ~mask], rtol=0, atol=1e-6)
    assert (drawn[:, mask] != x[:, mask]).float().mean() > 0.9
    for same in (mask, mask[None], mask.expand(x.shape)):
        assert torch.equal(inpaint(model, x, same, [0, 1], **context), drawn)


# Editing


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_at_the_end_of_time_an_edit_is_a_sample(sampler):
    model = own()
    drawn = edit(model, example(model), [1, 2], t=1.0, seed=3, sampler=sampler)
    assert torch.equal(drawn, model.sample([1, 2], seed=3, sampler=sampler))


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_the_shorter_the_time_the_nearer_is_the_picture(input_scale):
    config = DiffusionConfig(prediction="x", num_steps=20, sampler="ddim", input_scale=input_scale)
    x_0 = DEVIATION * torch.randn(500, 1, 1, 2, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)

    def distance(t):
        model = Answering(lambda x, gamma, _: input_scale * best_of_two_pixels(x / input_scale, gamma, None))
        drawn = Diffusion(config).sample(model, x_0.shape, seeds=range(500), given=Given(x_0=x_0, t=t))
        return (drawn - x_0).square().mean().sqrt().item()

    distances = [distance(t) for t in (0.001, 0.1, 0.3, 0.7)]
    assert distances == sorted(distances)
    assert distances[0] < 0.005
    assert distances[-1] > DEVIATION / 2


def test_all_steps_are_taken_below_the_time():
    model = Answering()
    x_0 = torch.zeros(1, 1, 2, 2)
    list(Diffusion(DiffusionConfig(num_steps=4)).steps(model, x_0.shape, seeds=[0], given=Given(x_0=x_0, t=0.5)))
    gammas = torch.cat(model.recorded("gamma"))
    times = torch.tensor([0.5, 0.375, 0.25, 0.125])
    torch.testing.assert_close(gammas, Diffusion(DiffusionConfig()).schedule(times))


@pytest.mark.parametrize("how", ["edit", "inpaint"])
def test_a_picture_of_a_seed_is_the_same_at_any_batch_size(how):
    model = own()
    x = example(model, 5)

    def changed(batch_size):
        options = {"seed": 7, "batch_size": batch_size, "precision": "float32"}
        if how == "edit":
            return edit(model, x, [0, 1, 2, 3, 4], sampler="ddpm", **options)
        return inpaint(model, x, square(8, 8), [0, 1, 2, 3, 4], **options)

    torch.testing.assert_close(changed(2), changed(5), rtol=0, atol=1e-4)
    assert torch.equal(changed(5), changed(5))


def test_one_picture_makes_variants_and_a_batch_makes_one_each():
    model = own()
    assert len(edit(model, example(model))) == 1
    assert len(edit(model, example(model), num=3)) == 3
    assert len(edit(model, example(model), [0, 1])) == 2
    assert len(edit(model, example(model, 4))) == 4
    assert "3 by num, 4 by given" in refused(lambda: edit(model, example(model, 4), num=3))


# What people give


def files(folder):
    """A picture and a mask as files, and the tensors that they stand for."""
    levels = torch.randint(256, (8, 8, 3), generator=torch.Generator().manual_seed(0)).byte()
    Image.fromarray(levels.numpy()).save(folder / "picture.png")
    mask = square(8, 8)
    Image.fromarray((mask * 255).byte().numpy()).save(folder / "mask.png")
    return levels.permute(2, 0, 1).float() / 127.5 - 1, mask


def test_files_pillow_images_and_tensors_are_the_same_picture(tmp_path):
    model, (x, mask) = own(), files(tmp_path)
    drawn = inpaint(model, x, mask)
    picture, white = tmp_path / "picture.png", tmp_path / "mask.png"
    assert torch.equal(inpaint(model, picture, str(white)), drawn)
    assert torch.equal(inpaint(model, Image.open(picture), Image.open(white).convert("RGBA")), drawn)
    assert torch.equal(inpaint(model, x[None], mask), drawn)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (torch.zeros(3, 8, 9), "(3, 8, 9): this model draws pictures (3, 8, 8)"),
        (torch.zeros(1, 8, 8), "(1, 8, 8)"),
        (torch.zeros(8, 8), "(8, 8)"),
        (torch.full((3, 8, 8), 255, dtype=torch.uint8), "rin.to_floats"),
        (torch.full((3, 8, 8), 255.0), "give numbers in [-1, 1]"),
        (torch.full((3, 8, 8), torch.nan), "nan"),
        (np.zeros((3, 8, 8)), "give a file, a Pillow image, or a tensor"),
        (None, "NoneType"),
        ("nowhere.png", "nowhere.png: No such file"),
        (Image.new("RGB", (9, 8)), "9x8 pixels and 3 channels (colour), and this model draws 8x8"),
        (Image.new("L", (8, 8)), "1 channel (grey)"),
        (Image.new("RGBA", (8, 8)), "colour and opacity"),
        (Image.new("LA", (8, 8)), "colour and opacity"),
        (Image.new("I;16", (8, 8)), "not of 8 bits"),
        (Image.new("CMYK", (8, 8)), "mode CMYK"),
    ],
)
def test_what_is_no_picture_of_the_model_is_one_line(picture, words):
    assert words in refused(lambda: edit(own(), picture))


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(8, 8, dtype=torch.bool), "is empty"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), "is empty"),
        (Image.new("L", (8, 8), 127), "is empty"),
        (torch.ones(8, 9, dtype=torch.bool), "(8, 9): give one of (8, 8), (3, 8, 8) or (2, 3, 8, 8)"),
        (torch.ones(3, 3, 8, 8, dtype=torch.bool), "(3, 3, 8, 8)"),
        (torch.ones(8, 8), "float32: give truths"),
        (Image.new("L", (9, 8), 255), "9x8 pixels, and the picture 8x8"),
        ("nowhere.png", "nowhere.png: No such file"),
        (None, "mask of NoneType"),
    ],
)
def test_what_is_no_mask_of_the_picture_is_one_line(mask, words):
    model = own()
    assert words in refused(lambda: inpaint(model, example(model, 2), mask))


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("t", [0, -0.5, 1.5, float("nan"), "half", None])
def test_what_is_no_time_is_one_line(t):
    model = own()
    assert "take a number above 0" in refused(lambda: edit(model, example(model), t=t))


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": 5}, "class 5 is out of range"),
        ({"labels": "cat"}, "'cat'"),
        ({"guidance": 1.0}, "does nothing without labels"),
        ({"num_stpes": 3}, "num_steps"),
        ({"num_rounds": 0}, "num_rounds 0"),
        ({"num_frames": 2}, "draws no clips"),
        ({"seeds": [1, 2, 3]}, "3 by seeds"),
    ],
)
def test_options_are_those_of_sampling_and_refused_as_there(options, words):
    model = own()
    assert words in refused(lambda: inpaint(model, example(model, 2), square(8, 8), **options))


def test_a_model_that_always_had_a_class_needs_one():
    model = own(DiffusionConfig(num_steps=3))
    assert "give labels" in refused(lambda: edit(model, example(model)))


def test_clips_and_sets_are_no_pictures(tmp_path):
    files(tmp_path)
    for changes in (VIDEO, {"shape": (9, 7)}):
        assert "give a tensor" in refused(lambda changes=changes: edit(own(**changes), tmp_path / "picture.png"))


def test_clips_are_changed_at_the_length_that_the_model_draws():
    model = own(**VIDEO)
    given = {"context": torch.zeros(1, 3, 3, 8, 8), "num_frames": 6}
    assert "leave num_frames out" in refused(lambda: edit(model, example(model), **given))


# Inversion and interpolation


def round_trip(sampler, num_steps, schedule="karras"):
    """The error of two normal pixels drawn from the noise that they were taken to, and that of the noise."""
    config = DiffusionConfig(prediction="x", sampler=sampler, num_steps=num_steps, sampling_schedule=schedule)
    diffusion, model = Diffusion(config), Answering(best_of_two_pixels)
    x_0 = DEVIATION * torch.randn(200, 1, 1, 2, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    *_, last = diffusion.steps(model, x_0.shape, given=Given(x_0=x_0, to_noise=True))
    again = diffusion.sample(model, x_0.shape, given=Given(noise=last.x_t))
    # the ODE keeps each component of the data at its quantile
    values, vectors = torch.linalg.eigh(DEVIATION**2 * torch.tensor([[1, CORRELATION], [CORRELATION, 1]]))
    noise = x_0.flatten(1) @ vectors / values.sqrt() @ vectors.T
    errors = (again - x_0).flatten(1), last.x_t.flatten(1) - noise
    return tuple(error.square().mean().sqrt().item() for error in errors)


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp-2m", 2), ("heun", 2)])
def test_data_is_taken_to_its_noise_and_found_again_the_nearer_the_more_steps(sampler, order):
    (again, noise), (again_finer, noise_finer) = round_trip(sampler, 20), round_trip(sampler, 80)
    assert noise_finer < noise / 2.5**order
    assert again_finer < again / 2.5**order
    assert again_finer < DEVIATION / (7 if order == 1 else 100)


def test_at_clean_data_the_noise_is_looked_for_where_there_is_some():
    (again, _), (again_finer, noise_finer) = (round_trip("ddim", steps, "linear") for steps in (100, 400))
    assert noise_finer < 0.1  # gamma of that schedule begins at 1
    assert again_finer < min(again / 2.5, 0.015)


def of_normal_pixels(input_scale=1.0, **changes):
    """A model of pixels that are normal and independent, of deviation DEVIATION."""

    def best(x, gamma, _condition):
        gamma, deviation = gamma[:, None, None, None], input_scale * DEVIATION
        return x * deviation**2 * gamma.sqrt() / (gamma * deviation**2 + 1 - gamma)

    options = {"prediction": "x", "num_steps": 40, "sampler": "dpmpp-2m", "input_scale": input_scale}
    return Pipeline(Answering(best), Diffusion(DiffusionConfig(**(options | changes))), Kind(shape=(1, 4, 4)))


def normal_pictures(num):
    return DEVIATION * torch.randn(num, 1, 4, 4, generator=torch.Generator().manual_seed(1)).clamp(-3, 3)


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_noise_of_a_picture_is_what_it_is_drawn_from(input_scale, batch_size):
    model, pictures = of_normal_pixels(input_scale), normal_pictures(3)
    noise = invert(model, pictures, batch_size=batch_size)
    torch.testing.assert_close(noise, pictures / DEVIATION, rtol=0.02, atol=0.02)
    again = model.sample(given=Given(noise=noise), schedule="karras", batch_size=batch_size)
    torch.testing.assert_close(again, pictures, rtol=0, atol=0.01)


def test_a_row_leads_from_one_picture_to_the_other_over_noise_of_the_length_between():
    model, (first, second) = of_normal_pixels(), normal_pictures(2)
    row = interpolate(model, first, second, num=5)
    assert row.shape == (5, 1, 4, 4)
    torch.testing.assert_close(row[[0, -1]], torch.stack([first, second]), rtol=0, atol=0.01)
    distances = [(picture - first).norm() for picture in row]
    assert distances == sorted(distances)
    ends, middle = (first.norm() + second.norm()) / 2, row[2].norm()
    assert middle == pytest.approx(ends.item(), rel=0.05)  # half way on a line it would be shorter
    assert (first + second).norm() / 2 < 0.8 * ends


@pytest.mark.parametrize("sign", [1, -1])
def test_between_noise_of_one_direction_there_is_a_line(sign):
    noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    between = spherical(noise, sign * 3 * noise, torch.tensor([0.0, 0.5, 1.0]))
    factors = [1, (1 + sign * 3) / 2, sign * 3]
    torch.testing.assert_close(between, torch.cat([factor * noise for factor in factors]))


def test_clips_and_sets_are_taken_to_noise_and_back():
    for changes, context in ((VIDEO, torch.zeros(1, 3, 4, 8, 8)), ({"shape": (9, 7)}, None)):
        model = own(**changes)
        noise = invert(model, example(model), 1, context=context)
        assert noise.shape == (1, *model.kind.shape)
        assert noise.isfinite().all()
        assert model.sample(1, given=Given(noise=noise), context=context).shape == noise.shape


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "ddpm"}, "draws fresh noise at each step"),
        ({"sampler": "ddim", "td": 1.0}, "cannot be gone back"),
        ({"labels": 7}, "class 7 is out of range"),
        ({"num_steps": 0}, "num_steps 0"),
    ],
)
def test_a_way_that_cannot_be_gone_back_is_one_line(options, words):
    model = own()
    assert words in refused(lambda: invert(model, example(model), **options))
    assert words in refused(lambda: interpolate(model, example(model), example(model, seed=1), **options))


def test_a_row_has_two_ends_of_one_picture_each():
    model = own()
    assert "num 1" in refused(lambda: interpolate(model, example(model), example(model), num=1))
    assert "one other" in refused(lambda: interpolate(model, example(model), example(model, 2)))
    assert "second of shape" in refused(lambda: interpolate(model, example(model), torch.zeros(3, 8, 9)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Given(), "nothing is given"),
        (Given(noise=torch.zeros(2, 3, 8, 8), t=0.5), "nothing is given"),
        (Given(noise=torch.zeros(2, 3, 8, 9)), "noise of shape (2, 3, 8, 9)"),
        (Given(x_0=torch.zeros(2, 3, 8, 9)), "x_0 of shape (2, 3, 8, 9)"),
        (Given(x_0=torch.zeros(2, 3, 8, 8), redrawn=torch.ones(2, 8, 8, dtype=torch.bool)), "redrawn is bool"),
        (Given(x_0=torch.zeros(2, 3, 8, 8), num_rounds=0), "num_rounds 0"),
        (Given(x_0=torch.zeros(2, 3, 8, 8), t=0.0), "t 0"),
    ],
)
def test_what_is_given_that_samples_cannot_be_made_of_is_one_line(given, words):
    assert words in refused(lambda: Diffusion(DROPPED).sample(Answering(), (2, 3, 8, 8), given=given))
    assert words in refused(lambda: own().sample(given=given))
