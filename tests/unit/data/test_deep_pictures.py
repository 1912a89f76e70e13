"""Pictures of 16 bits that are trained on, and written, at 16 bits."""

import io
import struct
import sys
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from rin import DataConfig, RinError, open_data, save
from rin.data.decoding.deep_pictures import decode_at_16_bits, values_at_16_bits
from rin.data.decoding.pictures import BrokenMediaError
from rin.sampling.pictures import save_deep_image
from tests.unit.data.test_deep_grey import DECLARED, OVERRIDDEN, png, tiff

CHANCE = np.random.default_rng(0)

FAINT = CHANCE.integers(30_000, 30_300, (40, 1, 12, 12), dtype=np.uint16)
"""Pictures (b c h w) of 300 levels of 65,536; 8 bits have two of these."""

COLOURED = {
    channels: CHANCE.integers(0, 65_536, (channels, 9, 7), dtype=np.uint16) for channels in (3, 4)
}  # fmt: skip


def png_16(picture, tmp_path):
    """A PNG of 16 bits of a picture (c h w)."""
    save_deep_image(picture, tmp_path / "made.png")
    return (tmp_path / "made.png").read_bytes()


def tiff_16(picture, planar=False):
    """An uncompressed TIFF of 16 bits of a picture (c h w), its numbers pixel by pixel or channel by channel."""
    channels, height, width = picture.shape
    parts = [
        np.ascontiguousarray(part, "<u2").tobytes() for part in (picture if planar else [np.moveaxis(picture, 0, -1)])
    ]
    lists = 8 + 2 + 12 * 11 + 4
    starts = [lists + 10 * channels + sum(map(len, parts[:number])) for number in range(len(parts))]
    shorts, longs = struct.pack(f"<{channels}H", *[16] * channels), struct.pack(f"<{len(parts)}I", *starts)
    lengths = struct.pack(f"<{len(parts)}I", *map(len, parts))
    several = len(parts) > 1
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, lists), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, len(parts), lists + 2 * channels if several else starts[0]), (277, 3, 1, channels),
        (279, 4, len(parts), lists + 6 * channels if several else len(parts[0])), (278, 3, 1, height),
        (284, 3, 1, 2 if planar else 1),
        (338, 3, 1, 2) if channels == 4 else (339, 3, 1, 1),
    ]  # fmt: skip
    ifd = struct.pack("<H", 11) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return (
        b"II*\0" + struct.pack("<I", 8) + ifd + (shorts + longs + lengths).ljust(10 * channels, b"\0") + b"".join(parts)
    )


def in_folder(path, files):
    path.mkdir()
    for number, data in enumerate(files):
        (path / f"{number:03d}.png").write_bytes(data)
    return path


def in_tar(path, files):
    with tarfile.open(path.with_suffix(".tar"), "w") as tar:
        for number, data in enumerate(files):
            member = tarfile.TarInfo(f"{number:03d}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path.with_suffix(".tar")


def in_parquet(path, files):
    import pyarrow
    import pyarrow.parquet

    cells = [{"bytes": data, "path": None} for data in files]
    pyarrow.parquet.write_table(pyarrow.table({"image": cells}), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def opened(path, shape, **options):
    return open_data(DataConfig(path=str(path), num_held_out=0, **{"bits": 16, **options}), shape)


def everything(data):
    return data.training.get(torch.arange(len(data.training)))[0]


def off(found, expected):
    return np.abs(found.astype(int) - expected.astype(int)).max()


@pytest.mark.parametrize("memory_gib", [4.0, 0.0], ids=["in memory", "when needed"])
@pytest.mark.parametrize("stored", [in_folder, in_tar, in_parquet])
def test_300_levels_go_through_training_and_come_back_to_the_level(tmp_path, stored, memory_gib):
    path = stored(tmp_path / "set", [png(picture[0]) for picture in FAINT])
    data = opened(path, (1, 12, 12), memory_gib=memory_gib)
    assert off(data.values.to_data(everything(data)), FAINT) == 0
    save(everything(data), tmp_path / "drawn", values=data.values)
    again = opened(tmp_path / "drawn", (1, 12, 12))
    with Image.open(tmp_path / "drawn" / "000000.png") as written:
        assert written.mode == "I;16"
    assert off(again.values.to_data(everything(again)), FAINT) == 0


def test_a_tiff_and_a_stream_are_read_at_16_bits_too(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.tif").write_bytes(tiff(FAINT[0, 0]))
    data = opened(folder, (1, 12, 12))
    assert off(data.values.to_data(everything(data)), FAINT[:1]) == 0
    stream = opened(in_parquet(tmp_path / "streamed", [png(FAINT[0, 0])]), (1, 12, 12), stream=True)
    assert off(stream.values.to_data(everything(stream)), FAINT[:1]) == 0


def test_samples_have_the_range_that_is_given(tmp_path):
    path = in_folder(tmp_path / "set", [png(FAINT[0, 0] - 30_000)])
    data = opened(path, (1, 12, 12), value_range=(0.0, 4095.0))
    assert (data.values.low, data.values.high, data.values.dtype) == (0.0, 4095.0, "uint16")
    assert off(data.values.to_data(everything(data)), FAINT[:1] - 30_000) == 0


@pytest.mark.parametrize("value_range", [(-1024.0, 3071.0), (0.0, 0.5), (0.0, 70_000.0)])
def test_a_range_that_16_bits_do_not_have_comes_back_as_all_of_them(value_range):
    assert (values_at_16_bits(value_range).low, values_at_16_bits(value_range).high) == (0.0, 65_535.0)


@pytest.mark.parametrize(
    ("kind", "given"), [*((kind, False) for kind in DECLARED), *((kind, True) for kind in OVERRIDDEN)]
)
def test_the_range_goes_from_black_to_white_as_at_8_bits(kind, given):
    data, value_range = OVERRIDDEN[kind] if given else (DECLARED[kind], None)
    found = decode_at_16_bits(data, (1, 16, 16), value_range)
    expected = torch.linspace(-1, 1, 256).view(1, 16, 16)
    step = 1e-2 if kind in ("floats", "signed 8 bits") else 2e-3  # whole numbers were rounded to the file's own
    torch.testing.assert_close(found, expected, rtol=0, atol=step)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("form", ["png", "tiff", "planar tiff"])
def test_colours_come_through_to_the_level(tmp_path, channels, form):
    picture = COLOURED[channels]
    data = png_16(picture, tmp_path) if form == "png" else tiff_16(picture, planar=form == "planar tiff")
    found = decode_at_16_bits(data, picture.shape, None)[None]
    assert off(values_at_16_bits(None).to_data(found), picture[None]) == 0


def test_without_pyav_a_colour_of_16_bits_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = in_folder(tmp_path / "set", [png_16(COLOURED[3], tmp_path)])
    with pytest.raises(
        RinError, match=r"000\.png: PyAV is needed for colours at 16 bits, of which Pillow keeps 8"
    ) as told:
        everything(opened(path, (3, 9, 7)))
    assert "\n" not in str(told.value)


def test_opacity_lies_on_white_and_grey_is_that_of_pillow(tmp_path):
    picture = COLOURED[4].copy()
    picture[3] = 0
    data = png_16(picture, tmp_path)
    assert (decode_at_16_bits(data, (3, 9, 7), None) == 1).all()
    flat = np.full((3, 8, 8), 0, np.uint16)
    flat[:] = np.array([60_000, 20_000, 5_000], np.uint16)[:, None, None]
    grey = (decode_at_16_bits(png_16(flat, tmp_path), (1, 8, 8), None) + 1) * 127.5
    of_pillow = Image.new("RGB", (1, 1), tuple(round(level / 257) for level in (60_000, 20_000, 5_000))).convert("L")
    assert abs(float(grey[0, 0, 0]) - of_pillow.getpixel((0, 0))) < 1


def test_a_resized_picture_stays_within_black_and_white_and_is_not_rounded_to_8_bits():
    edge = np.zeros((32, 32), np.uint16)
    edge[:, 16:] = 65_535
    found = decode_at_16_bits(png(edge), (1, 12, 12), None)
    assert float(found.min()) == -1
    assert float(found.max()) == 1
    slope = np.linspace(20_000, 20_100, 64 * 64).astype(np.uint16).reshape(64, 64)
    assert len(decode_at_16_bits(png(slope), (1, 32, 32), None).unique()) > 50


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_turned_upright(tmp_path, channels):
    picture = CHANCE.integers(0, 65_536, (channels, 9, 7), dtype=np.uint16)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = png_16(picture, tmp_path)
    # the chunk with the EXIF data, before that with the pixels
    chunk = b"eXIf" + exif.tobytes()[6:]
    place = data.index(b"IDAT") - 4
    data = (
        data[:place] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[place:]
    )
    found = decode_at_16_bits(data, (channels, 7, 9), None)
    turned = np.rot90(picture, -1, (1, 2))
    assert off(values_at_16_bits(None).to_data(found[None]), turned[None]) == 0


def test_pictures_of_8_bits_are_taken_as_they_are_and_told_of(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = opened(in_folder(tmp_path / "set", [png(levels)]), (1, 16, 16))
    assert any("data.bits is 16, and" in note and "000.png has no more than 8" in note for note in data.notes)
    assert off(data.values.to_data(everything(data)), levels[None, None].astype(int) * 257) == 0


def test_colours_of_which_8_bits_are_read_are_told_of(tmp_path):
    path = in_folder(tmp_path / "set", [png_16(COLOURED[3], tmp_path)])
    assert any("colours of more than 8 bits are read in 8" in note for note in opened(path, (3, 9, 7), bits=8).notes)
    (note,) = opened(path, (3, 9, 7)).notes
    assert note.startswith("pictures of more than 8 bits are black to white as each declares")


def pages(tmp_path, count):
    first, *others = [Image.fromarray(FAINT[number, 0]) for number in range(count)]
    first.save(tmp_path / "pages.tif", save_all=True, append_images=others)
    return (tmp_path / "pages.tif").read_bytes()


def test_what_would_be_read_in_part_is_one_line(tmp_path):
    ppm = b"P6\n2 2\n65535\n" + bytes(24)
    header = struct.pack(">4sIIBBBBB", b"IHDR", 14, 9, 16, 4, 0, 0, 0)  # a row has as many bytes as 7 pixels of RGBA
    whole = png_16(COLOURED[4], tmp_path)
    grey_and_opacity = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    for data, words in (
        (pages(tmp_path, 5), "it has 5 pages, of which one would count"),
        (
            tiff_16(np.zeros((5, 9, 7), np.uint16)),
            "channels or numbers that Pillow does not read: give as many channels",
        ),
        (grey_and_opacity, "in a form .ya16be. that is not read"),
        (ppm, "colours of more than 8 bits, which are read from PNG and unsigned TIFF"),
    ):
        with pytest.raises(BrokenMediaError, match=words):
            decode_at_16_bits(data, (3, 9, 7), None)


@pytest.mark.parametrize(
    ("path", "shape"), [("digits", (1, 8, 8)), ("points", (128, 2)), ("moving-shapes", (3, 4, 8, 8))]
)
def test_sets_that_are_not_decoded_have_no_such_option(path, shape):
    with pytest.raises(RinError, match=r"data\.bits is for pictures that are decoded"):
        opened(path, shape)


def test_other_bits_are_refused():
    with pytest.raises(RinError, match="bits is 12: give 8 or 16"):
        DataConfig(bits=12)
