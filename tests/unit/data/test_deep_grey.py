"""Grey pictures of more than 8 bits: what a file declares, or an option, decides what is white, and nothing else."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from rin import DataConfig, ExperimentConfig, RinError, open_data
from rin.cli.prepare import prepare
from rin.data import decode
from rin.experiment import differences, from_dict, to_dict

LEVELS = np.arange(256).reshape(16, 16)
"""The result of a picture that uses its range from end to end."""

LEAST, LARGEST, LEAST_SIGNED, LARGEST_SIGNED, ZERO_IS, NUMBERS = 280, 281, 340, 341, 262, 339


def spread(least, largest, dtype):
    """The 256 values from the least to the largest."""
    return (
        np.linspace(least, largest, 256).round(0 if np.dtype(dtype).kind in "iu" else 9).astype(dtype).reshape(16, 16)
    )


def tiff(values, tags=(), **options):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in dict(tags).items():
        ifd[tag] = value
    file = io.BytesIO()
    Image.fromarray(values).save(file, "tiff", tiffinfo=ifd, **options)
    return file.getvalue()


def with_numbers(data, bits, kind):
    """A TIFF whose header says that its numbers have so many bits, and are unsigned (1) or signed (2)."""
    for tag, value in ((258, bits), (NUMBERS, kind)):
        entry = tag.to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00"
        place = data.index(entry) + len(entry)
        data = data[:place] + value.to_bytes(4, "little") + data[place + 4 :]
    return data


def signed_16(values):
    """A TIFF of signed 16 bits, which Pillow reads and does not write."""
    return with_numbers(tiff(values.astype(np.int16).view(np.uint16), {NUMBERS: 1}), 16, 2)


def signed_8(values):
    return with_numbers(tiff(values.astype(np.int8).view(np.uint8), {NUMBERS: 1}), 8, 2)


def unsigned_32(values):
    return with_numbers(tiff(values.astype(np.uint32).view(np.int32), {NUMBERS: 2}), 32, 1)


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def pgm(values, white):
    return b"P5\n16 16\n%d\n" % white + values.astype(">u2").tobytes()


def levels(data, value_range=None):
    return decode(data, (1, 16, 16), value_range)[0].numpy()


DECLARED = {
    "16 bits, png": png(spread(0, 65535, np.uint16)),
    "16 bits, tiff": tiff(spread(0, 65535, np.uint16)),
    "floats": tiff(spread(0, 1, np.float32)),
    "floats but for rounding": tiff(spread(0, 1.0000002, np.float32)),
    "12 bits by a tag": tiff(spread(0, 4095, np.uint16), {LARGEST: 4095}),
    "both ends by tags": tiff(spread(100, 4000, np.uint16), {LEAST: 100, LARGEST: 4000}),
    "floats by tags": tiff(spread(-1, 1, np.float32), {LEAST_SIGNED: -1.0, LARGEST_SIGNED: 1.0}),
    "32 bits by tags": tiff(spread(-1024, 3071, np.int32), {LEAST_SIGNED: -1024.0, LARGEST_SIGNED: 3071.0}),
    "pgm of 12 bits": pgm(spread(0, 4095, np.uint16), 4095),
    "pgm of 16 bits": pgm(spread(0, 65535, np.uint16), 65535),
    "zero is white": tiff(spread(65535, 0, np.uint16), {ZERO_IS: 0}),
    "zero is white, packed": tiff(spread(65535, 0, np.uint16), {ZERO_IS: 0}, compression="tiff_lzw"),
    "zero is white, 12 bits": tiff(spread(4095, 0, np.uint16), {ZERO_IS: 0, LARGEST: 4095}),
    "zero is white, floats": tiff(spread(1, 0, np.float32), {ZERO_IS: 0}),
}


@pytest.mark.parametrize("kind", DECLARED)
def test_the_declared_range_goes_from_black_to_white(kind):
    assert np.abs(levels(DECLARED[kind]).astype(int) - LEVELS).max() <= 1


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.001])
@pytest.mark.parametrize(("white", "dtype"), [(65535, np.uint16), (1.0, np.float32)])
def test_the_values_of_a_picture_do_not_decide_what_is_white(share, white, dtype):
    """One that is half as bright comes out half as bright."""
    assert levels(tiff(spread(0, white * share, dtype))).max() == pytest.approx(255 * share, abs=1)


OVERRIDDEN = {
    "12 bits in 16": (tiff(spread(0, 4095, np.uint16)), (0.0, 4095.0)),
    "12 bits in 16, png": (png(spread(0, 4095, np.uint16)), (0.0, 4095.0)),
    "pgm": (pgm(spread(0, 1000, np.uint16), 4095), (0.0, 1000.0)),
    "tags": (tiff(spread(0, 1000, np.uint16), {LARGEST: 4095}), (0.0, 1000.0)),
    "signed 8 bits": (signed_8(spread(-128, 127, np.int8)), (-128.0, 127.0)),
    "signed 16 bits": (signed_16(spread(-1024, 3071, np.int16)), (-1024.0, 3071.0)),
    "signed 32 bits": (tiff(spread(-1024, 3071, np.int32)), (-1024.0, 3071.0)),
    "all 32 bits": (unsigned_32(spread(0, 2**32 - 1, np.uint32)), (0.0, 2.0**32 - 1)),
    "floats to 255": (tiff(spread(0, 255, np.float32)), (0.0, 255.0)),
    "floats around 0": (tiff(spread(-1, 1, np.float32)), (-1.0, 1.0)),
    "zero is white": (tiff(spread(4095, 0, np.uint16), {ZERO_IS: 0}), (0.0, 4095.0)),
}


@pytest.mark.parametrize("kind", OVERRIDDEN)
def test_a_range_that_is_given_overrides_what_is_declared(kind):
    data, value_range = OVERRIDDEN[kind]
    assert np.abs(levels(data, value_range).astype(int) - LEVELS).max() <= 1


def test_pictures_of_8_bits_stay_as_they_are_whatever_range_is_given():
    data = png(LEVELS.astype(np.uint8))
    assert (levels(data, (0.0, 4095.0)) == LEVELS).all()


@pytest.mark.parametrize(
    ("data", "value_range", "words"),
    [
        (tiff(spread(0, 1.002, np.float32)), None, "go from 0 to 1.002.*floats.* 0 to 1"),
        (tiff(spread(-0.5, 1, np.float32)), None, "go from -0.5 to 1"),
        (tiff(spread(0, 255, np.float32)), None, "go from 0 to 255"),
        (tiff(np.full((16, 16), np.nan, np.float32)), None, "go from nan"),
        (tiff(np.full((16, 16), np.inf, np.float32)), None, "to inf"),
        (tiff(spread(0, 4096, np.uint16), {LARGEST: 4095}), None, "to 4096, and what its tags declare has 0 to 4095"),
        (tiff(spread(0, 4095, np.uint16), {LEAST: 9, LARGEST: 9}), None, "a range that is none"),
        (signed_8(spread(-128, 127, np.int8)), None, "signed numbers declare no range.* from -128 to 127"),
        (signed_16(spread(-1024, 3071, np.int16)), None, "signed numbers declare no range.* from -1024 to 3071"),
        (tiff(spread(0, 255, np.int32)), None, "signed numbers declare no range"),
        (unsigned_32(spread(0, 255, np.uint32)), None, "whole numbers of 32 bits declare no range"),
        (tiff(spread(0, 4096, np.uint16)), (0.0, 4095.0), "to 4096, and --data.value-range .* has 0 to 4095"),
        (signed_16(spread(-1025, 3071, np.int16)), (-1024.0, 3071.0), "from -1025 to 3071"),
    ],
)  # fmt: skip
def test_a_picture_outside_its_range_or_without_one_is_named(data, value_range, words, tmp_path):
    (tmp_path / "odd.tif").write_bytes(data)
    with pytest.raises(RinError, match=rf"odd\.tif: .*{words}") as refused:
        decode(tmp_path / "odd.tif", (1, 16, 16), value_range)
    assert "--data.value-range (rin prepare: --value-range)" in str(refused.value)


def folder(path, *pictures):
    path.mkdir()
    for number, data in enumerate(pictures):
        (path / f"{number}.tif").write_bytes(data)
    return path


def test_the_option_reaches_every_picture_of_a_set(tmp_path):
    data = tiff(spread(0, 4095, np.uint16))
    config = DataConfig(path=str(folder(tmp_path / "a", *[data] * 20)), value_range=(0.0, 4095.0))
    opened = open_data(config, (1, 16, 16))
    for media in (opened.training, opened.held_out):
        assert (media.pictures.amax((1, 2, 3)) == 255).all()


def test_the_option_reaches_a_prepared_set(tmp_path):
    source, out = folder(tmp_path / "a", tiff(spread(0, 4095, np.uint16))), tmp_path / "set"
    words = [str(source), str(out), "--size", "16", "--channels", "1"]
    prepare([*words, "--value-range", "0", "4095"])
    assert open_data(DataConfig(path=str(out)), (1, 16, 16)).training.get(torch.tensor([0]))[0].max() == 255
    with pytest.raises(RinError, match="value_range was"):
        prepare([*words, "--value-range", "0", "65535"])
    with pytest.raises(RinError, match=r"data\.value_range is for pictures that are decoded"):
        open_data(DataConfig(path=str(out), value_range=(0.0, 4095.0)), (1, 16, 16))


def test_a_picture_outside_is_passed_over_by_name_where_broken_ones_are(tmp_path, caplog):
    path = folder(tmp_path / "a", *[tiff(spread(0, 1, np.float32))] * 5, tiff(spread(0, 1.002, np.float32)))
    with caplog.at_level("WARNING", "rin"):
        opened = open_data(DataConfig(path=str(path), skip_broken=True, num_held_out=0), (1, 16, 16))
    assert opened.training.num_broken == 1
    assert "5.tif" in caplog.text
    assert "--data.value-range" in caplog.text


@pytest.mark.parametrize(
    ("values", "value_range", "note"),
    [
        (LEVELS.astype(np.uint8), (0.0, 4095.0), "0.tif is none"),
        (LEVELS.astype(np.uint8), None, ""),
        (spread(0, 4095, np.uint16), None, "16 bits from 0 to 65535: give --data.value-range"),
        (spread(0, 4095, np.uint16), (0.0, 4095.0), ""),
    ],
)  # fmt: skip
def test_what_is_black_and_white_is_said_by_the_first_picture(tmp_path, values, value_range, note):
    path = folder(tmp_path / "a", tiff(values))
    opened = open_data(DataConfig(path=str(path), value_range=value_range, num_held_out=0), (1, 16, 16))
    assert note in "".join(opened.notes)
    assert bool(opened.notes) == bool(note)


@pytest.mark.parametrize("value_range", [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0), (-np.inf, 0.0)])
def test_a_range_that_is_none_is_refused(value_range):
    with pytest.raises(RinError, match="value_range"):
        DataConfig(value_range=value_range)


def test_the_range_is_a_part_of_what_a_run_is():
    before, after, other = (
        ExperimentConfig(data=DataConfig(value_range=value_range))
        for value_range in (None, (0.0, 255.0), (0.0, 4095.0))
    )
    assert from_dict(ExperimentConfig, to_dict(after)) == after
    assert differences(before, after)
    assert differences(after, other)
