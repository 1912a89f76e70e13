"""Pictures as people have them, decoded one by one."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from rin.core.errors import RinError
from rin.data import decode, to_floats, to_pictures


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(picture):
    """(c h w) as NumPy (h w c)."""
    return picture.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "gif"])
def test_lossless_pictures_of_the_right_size_are_passed_on_bit_by_bit(kind):
    grey = Image.fromarray(noise(6, 9))
    options = {"lossless": True} if kind == "webp" else {}
    picture = decode(encoded(grey, kind, **options), (1, 6, 9))
    assert picture.dtype == torch.uint8
    assert (pixels(picture)[..., 0] == np.asarray(grey)).all()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_choose_grey_colour_or_opacity(channels, mode):
    image = Image.fromarray(noise(8, 8, 3))
    picture = decode(encoded(image), (channels, 8, 8))
    expected = np.asarray(image.convert(mode)).reshape(8, 8, channels)
    assert (pixels(picture) == expected).all()


def test_opacity_is_kept_for_four_channels():
    rgba = noise(8, 8, 4)
    assert (pixels(decode(encoded(Image.fromarray(rgba)), (4, 8, 8))) == rgba).all()


@pytest.mark.parametrize("shape", [(2, 8, 8), (5, 8, 8), (3, 0, 8)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(RinError, match="pictures of"):
        decode(encoded(Image.new("L", (8, 8))), shape)


@pytest.mark.parametrize("kind", ["jpeg", "tiff", "png", "webp"])
def test_exif_orientation_6_is_turned_upright(kind):
    # Stored on its side: what is at the top of the stored picture belongs at the right.
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8] = 255
    exif = Image.Exif()
    exif[274] = 6
    picture = decode(encoded(Image.fromarray(stored), kind, exif=exif), (3, 24, 16)).float()
    assert picture[:, :, 8:].mean() > 250
    assert picture[:, :, :8].mean() < 5


def test_exif_data_that_cannot_be_read_is_passed_over():
    picture = decode(encoded(Image.new("RGB", (16, 16), "white"), "jpeg", exif=b"Exif\0\0nonsense"), (3, 16, 16))
    assert picture.float().mean() > 250


def test_cmyk_jpeg_becomes_rgb():
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    picture = decode(encoded(red, "jpeg", quality=100), (3, 16, 16)).float()
    assert picture[0].min() > 245
    assert picture[1:].max() < 10


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    picture = decode(encoded(Image.fromarray(levels), kind), (1, 16, 16))
    assert picture.flatten().tolist() == list(range(256))


def test_one_bit_pictures_are_black_and_white():
    bits = noise(8, 8) > 127
    picture = decode(encoded(Image.fromarray(bits)), (1, 8, 8))
    assert (pixels(picture)[..., 0] == bits * 255).all()


def palette_picture():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    ImageDraw.Draw(image).rectangle((4, 0, 7, 7), fill=1)
    return image


def test_palettes_give_their_colours():
    picture = decode(encoded(palette_picture()), (3, 8, 8))
    assert picture[:, 0, 0].tolist() == [255, 0, 0]
    assert picture[:, 0, 7].tolist() == [0, 0, 255]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entries_lie_on_white(transparency):
    picture = decode(encoded(palette_picture(), transparency=transparency), (3, 8, 8))
    assert picture[:, 0, 0].tolist() == [255, 255, 255]
    assert picture[:, 0, 7].tolist() == [0, 0, 255]


def test_rgba_lies_on_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[..., 3] = [0, 51, 255, 255]
    picture = decode(encoded(Image.fromarray(rgba)), (3, 4, 4))
    assert picture[0, 0].tolist() == [255] * 4
    assert picture[1, 0].tolist() == [255, 204, 0, 0]


def test_grey_with_opacity_lies_on_white():
    image = Image.merge("LA", (Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 0)))
    assert decode(encoded(image), (1, 4, 4)).unique().tolist() == [255]
    image.putalpha(255)
    assert decode(encoded(image), (1, 4, 4)).unique().tolist() == [10]


def test_a_transparent_colour_lies_on_white():
    picture = decode(encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)), (3, 4, 4))
    assert picture.unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animations_give_their_first_frame(kind):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "webp" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert decode(data, (3, 8, 8))[:, 4, 4].tolist() == [255, 0, 0]


def test_wide_and_tall_pictures_are_cropped_to_the_centre():
    middle = np.zeros((8, 24), np.uint8)
    middle[:, 8:16] = 255
    assert decode(encoded(Image.fromarray(middle)), (1, 8, 8)).unique().tolist() == [255]
    assert decode(encoded(Image.fromarray(middle.T.copy())), (1, 8, 8)).unique().tolist() == [255]


def test_resizing_is_antialiased_and_bicubic():
    image = Image.fromarray(noise(64, 64, 3))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    assert (pixels(decode(encoded(image), (3, 16, 16))) == expected).all()
    assert to_floats(decode(encoded(Image.fromarray(noise(64, 64))), (1, 4, 4))[None]).abs().max() < 0.4


def test_extreme_proportions_work():
    assert decode(encoded(Image.new("L", (1, 1000), 7)), (1, 8, 8)).unique().tolist() == [7]
    assert decode(encoded(Image.new("L", (1000, 3), 7)), (1, 5, 9)).unique().tolist() == [7]


def test_large_jpegs_are_shrunk_while_decoding_without_a_visible_difference():
    image = Image.fromarray(noise(32, 32, 3)).resize((800, 1000), Image.Resampling.BICUBIC)
    data = encoded(image, "jpeg", quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        exact = np.asarray(opened.resize((32, 32), Image.Resampling.BICUBIC, box=(0, 100, 800, 900))).astype(int)
    difference = np.abs(pixels(decode(data, (3, 32, 32))) - exact)
    assert 0 < difference.max() <= 6


def test_jpegs_that_are_not_large_are_decoded_in_full():
    image = Image.fromarray(noise(16, 16, 3)).resize((170, 170), Image.Resampling.BICUBIC)
    data = encoded(image, "jpeg")
    with Image.open(io.BytesIO(data)) as opened:
        exact = np.asarray(opened.resize((32, 32), Image.Resampling.BICUBIC))
    assert (pixels(decode(data, (3, 32, 32))) == exact).all()


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_truncated_pictures_are_broken(kind):
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    with pytest.raises(RinError, match="cannot read a picture in memory"):
        decode(data[: len(data) // 2], (3, 64, 64))


@pytest.mark.parametrize("size", [(8, 8), (64, 64)])
def test_programs_are_never_run(monkeypatch, size):
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(RinError, match="it is PostScript, which is a program"):
        decode(encoded(Image.new("RGB", size), "eps"), (3, 8, 8))


def test_what_is_empty_is_called_so(tmp_path):
    (tmp_path / "a.png").touch()
    for empty in (b"", tmp_path / "a.png"):
        with pytest.raises(RinError, match="it is empty, 0 bytes"):
            decode(empty, (3, 8, 8))


def large(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    return encoded(Image.new("L", (8, 8), 7))


def with_a_tag_that_is_cut_off(monkeypatch):
    del monkeypatch
    exif = Image.Exif()
    exif[270] = "a description"
    data = encoded(Image.new("L", (8, 8), 7), "tiff", exif=exif)
    place = data.index(b"\x0e\x01\x02\x00") + 4  # of the description's length
    return data[:place] + (10_000).to_bytes(4, "little") + data[place + 4 :]


def with_transparent_palette(monkeypatch):
    del monkeypatch
    return encoded(palette_picture(), transparency=b"\x00\xff")


@pytest.mark.parametrize("made", [large, with_a_tag_that_is_cut_off, with_transparent_palette])
def test_what_pillow_only_warns_of_is_read_and_never_reaches_the_terminal(made, monkeypatch, recwarn):
    data = made(monkeypatch)
    recwarn.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert decode(data, (1, 8, 8)).shape == (1, 8, 8)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: decode(data, (1, 8, 8)), range(8)))
    assert not recwarn.list


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_bytes_that_are_no_picture_are_broken(data):
    with pytest.raises(RinError, match="cannot read a picture in memory"):
        decode(data, (3, 8, 8))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RinError, match=r"gone\.png: No such file"):
        decode(tmp_path / "gone.png", (3, 8, 8))


def test_pictures_too_large_for_pillow_are_named(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RinError, match=r"huge\.png.*exceeds limit"):
        decode(Path(tmp_path / "huge.png"), (1, 8, 8))


def test_floats_and_back_is_exact():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = to_floats(levels)
    assert (floats.min(), floats.max()) == (-1, 1)
    assert (to_pictures(floats) == levels).all()
    assert (to_pictures(floats + 0.003) == levels).all()


def test_pictures_are_cut_to_the_range():
    assert to_pictures(torch.tensor([-3.0, -1.0, 0.003, 1.0, 7.0]).reshape(1, 1, 1, 5)).flatten().tolist() == [
        *(0, 0, 128, 255, 255)
    ]
