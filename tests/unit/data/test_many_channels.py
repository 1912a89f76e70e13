"""TIFF of other channels than Pillow knows."""

import io
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import rin
from rin import DataConfig, RinError, open_data
from rin.data.decoding.many_channels import decode_many_channels
from rin.data.decoding.pictures import BrokenMediaError
from tests.unit.models import small

PLANES = np.random.default_rng(0).integers(0, 65536, (5, 8, 8)).astype(np.uint16)


def tiff(planes, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, planes, **options)
    return file.getvalue()


WAYS = {
    "samples": lambda planes: tiff(np.moveaxis(planes, 0, -1), planarconfig="contig", photometric="minisblack"),
    "planes": lambda planes: tiff(planes, planarconfig="separate", photometric="minisblack"),
    "pages": lambda planes: tiff(planes, photometric="minisblack"),
    "ImageJ": lambda planes: tiff(planes, imagej=True, metadata={"axes": "CYX"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_channel_comes_out_as_it_is(way, dtype):
    planes = (PLANES >> (8 if dtype == np.uint8 else 0)).astype(dtype)
    eight = decode_many_channels(WAYS[way](planes), (5, 8, 8), None, 8)
    deep = decode_many_channels(WAYS[way](planes), (5, 8, 8), None, 16)
    white = np.iinfo(dtype).max
    assert np.abs(eight.numpy() - planes / white * 255).max() <= 0.5
    np.testing.assert_allclose((deep.numpy() + 1) / 2 * white, planes, atol=white * 2e-7)


def test_a_range_scales_and_a_value_outside_is_refused():
    floats = PLANES.astype(np.float32) / 65535 * 3 - 1
    found = decode_many_channels(tiff(floats, photometric="minisblack"), (5, 8, 8), (-1.0, 2.0), 16)
    np.testing.assert_allclose((found.numpy() + 1) / 2 * 65535, PLANES, atol=0.1)
    with pytest.raises(BrokenMediaError, match="its type is float32, so what is black and white is to be given"):
        decode_many_channels(tiff(floats, photometric="minisblack"), (5, 8, 8), None, 16)
    with pytest.raises(BrokenMediaError, match="its values go from"):
        decode_many_channels(tiff(floats, photometric="minisblack"), (5, 8, 8), (0.0, 1.0), 16)


def test_pictures_are_cropped_turned_and_resized_as_others_are():
    planes = np.random.default_rng(1).integers(0, 256, (2, 12, 20)).astype(np.uint8)
    turned = tiff(planes, photometric="minisblack", extratags=[(274, "H", 1, 6, True)])
    found = decode_many_channels(turned, (2, 4, 3), None, 8)
    for plane, of_plane in zip(planes, found, strict=True):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(plane).save(file, "png", exif=exif)
        beside = rin.data.decode(file.getvalue(), (1, 4, 3))
        assert (of_plane.int() - beside[0].int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(PLANES[:4], photometric="minisblack"), "it has 4 channels, and the model takes 5"),
        (tiff(PLANES, photometric="minisblack")[:300], "pictures of 5 channels are read from TIFF, or from arrays"),
        (b"\x89PNG", "pictures of 5 channels are read from TIFF"),
        (tiff(np.zeros((2, 5, 8, 8), np.uint8), photometric="minisblack"), "one beside height and width"),
        (tiff(np.zeros((5, 8, 8), np.complex64), photometric="minisblack"), "its numbers are complex64"),
    ],
)
def test_what_is_none_is_one_line(content, words):
    with pytest.raises(BrokenMediaError, match=words):
        decode_many_channels(content, (5, 8, 8), None, 8)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_folder_of_them_is_trained_on_and_drawn_in_its_type(tmp_path, bits, monkeypatch):
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        (tmp_path / "pictures" / f"{number:02}.tif").write_bytes(WAYS["samples"](PLANES // (number + 1)))
    data = DataConfig(path=str(tmp_path / "pictures"), bits=bits, num_held_out=1)
    opened = open_data(data, (5, 8, 8))
    places = torch.arange(len(opened.training))
    assert opened.training.get(places)[0].shape == (11, 5, 8, 8)
    experiment = rin.ExperimentConfig(
        model=small(shape=(5, 8, 8), patch_size=4, num_classes=0),
        diffusion=rin.DiffusionConfig(num_steps=2),
        data=data,
        training=rin.TrainingConfig(num_steps=2, batch_size=4, warmup_steps=0, sample_every=2, compile="off"),
    )
    trained = rin.train(experiment, tmp_path / "run")
    assert trained.values.to_data(trained.sample(num=2)).dtype == (np.uint8 if bits == 8 else np.uint16)
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    (tmp_path / "pictures" / "12.png").write_bytes(b"\x89PNG")
    with pytest.raises(RinError, match=r"12\.png: pictures of 5 channels are read from TIFF"):
        open_data(data, (5, 8, 8))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(RinError, match=r'tifffile is needed .* pip install "rin-diffusion\[tiff\]"'):
        open_data(data, (5, 8, 8))


def test_clips_have_the_channels_that_there_are():
    with pytest.raises(RinError, match="clips of 5 channels"):
        open_data(DataConfig(path="somewhere"), (5, 3, 8, 8))
