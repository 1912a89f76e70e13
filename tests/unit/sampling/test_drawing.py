"""Samples: drawn batch by batch, put into grids and animations, written down."""

import numpy as np
import pytest
import torch
from PIL import Image

from rin import DiffusionConfig, RinError, save, to_pictures
from rin.sampling.outputs import check_output, shows_denoising
from rin.sampling.pictures import grid, save_animation, save_image, save_video, to_image
from rin.sampling.requests import spread_labels
from tests.unit.models import moved, small, trained


def plain(count, channels=3, size=48):
    """Pictures each of one grey level: the first 0, the second 10, and so on."""
    return (torch.arange(count, dtype=torch.uint8) * 10).reshape(-1, 1, 1, 1).expand(count, channels, size, size)


@pytest.mark.parametrize(("count", "columns", "rows_columns"), [(5, 2, (3, 2)), (5, None, (2, 3)), (2, 8, (1, 2))])
def test_a_grid_puts_pictures_row_by_row_with_grey_gaps(count, columns, rows_columns):
    rows, across = rows_columns
    canvas = grid(plain(count), columns)
    assert canvas.shape == (1, 3, rows * 54 + 6, across * 54 + 6)
    covered = torch.zeros(canvas.shape[2:], dtype=torch.bool)
    for place in range(count):
        top, left = 6 + place // across * 54, 6 + place % across * 54
        assert canvas[0, :, top : top + 48, left : left + 48].unique().tolist() == [place * 10]
        covered[top : top + 48, left : left + 48] = True
    assert canvas[0, :, ~covered].unique().tolist() == [128]


def test_a_grid_enlarges_small_pictures_pixel_by_pixel():
    picture = torch.arange(8 * 12, dtype=torch.uint8).reshape(1, 1, 8, 12)
    canvas = grid(picture)
    assert canvas.shape == (1, 1, 48 + 12, 72 + 12)
    assert torch.equal(canvas[:, :, 6:54:6, 6:78:6], picture)
    assert torch.equal(canvas[:, :, 11:54:6, 11:78:6], picture)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA"), (5, "L")])
def test_an_image_has_the_colours_of_its_channels(channels, mode):
    picture = torch.randint(0, 256, (2, channels, 4, 6), dtype=torch.uint8)
    image = to_image(picture)
    assert (image.mode, image.size) == (mode, (6, 4))
    expected = picture[0].permute(1, 2, 0) if channels in (3, 4) else picture[0, 0]
    assert np.array_equal(np.asarray(image), expected.numpy())


def test_a_saved_image_is_read_back(tmp_path):
    picture = torch.randint(0, 256, (1, 3, 4, 6), dtype=torch.uint8)
    save_image(picture, tmp_path / "deep" / "one.png")
    with Image.open(tmp_path / "deep" / "one.png") as image:
        assert np.array_equal(np.asarray(image), picture[0].permute(1, 2, 0).numpy())


def test_an_animation_has_its_frames_and_rests_on_the_last(tmp_path):
    frames = [picture[None] for picture in plain(4, channels=1)]
    save_animation(frames, tmp_path / "deep" / "a.gif", frame_ms=50, last_ms=900)
    with Image.open(tmp_path / "deep" / "a.gif") as image:
        assert image.n_frames == 4
        assert image.info["loop"] == 0
        durations, levels = [], []
        for number in range(4):
            image.seek(number)
            durations.append(image.info["duration"])
            levels.append(image.convert("L").getpixel((0, 0)))
    assert durations == [50, 50, 50, 900]
    assert levels == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda p: save_image(plain(1), p), "taken/x.gif"),
        (lambda p: save_image(plain(1), p), "x.unknown"),
        (lambda p: save_animation([plain(1)], p), "taken/x.gif"),
        (lambda p: save_video([plain(1)], p, 8.0), "taken/x.mp4"),
    ],
)
def test_pictures_that_cannot_be_written_are_one_line(tmp_path, write, name):
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(RinError, match="cannot write"):
        write(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "b.GIF", "c.npz", "folder", "deep/d.webp"])
def test_places_that_can_be_written_pass_and_are_left_empty(tmp_path, name):
    check_output(tmp_path / name, (3, 8, 8), 4, 1, None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_places_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(RinError, match=r"as \.jpgg: take \.png"):
        check_output(tmp_path / "a.jpgg", (3, 8, 8), 4, 1, None)
    (tmp_path / "taken").write_text("")
    for name in ("taken/a.png", "taken"):
        with pytest.raises(RinError, match="cannot write to"):
            check_output(tmp_path / name, (3, 8, 8), 4, 1, None)
    (tmp_path / "b.png").mkdir()
    with pytest.raises(RinError, match="it is a folder"):
        check_output(tmp_path / "b.png", (3, 8, 8), 4, 1, None)


def test_an_animation_alone_wants_frames(tmp_path):
    names = ("a.gif", "a.GIF", "a.png", "a")
    assert [shows_denoising(tmp_path / name, (3, 8, 8)) for name in names] == [True, True, False, False]
    assert not shows_denoising(tmp_path / "a.gif", (3, 4, 8, 8))


SAMPLES = plain(3, size=8)
DENOISING = [plain(3, size=8) // 2, plain(3, size=8)]


def test_samples_become_a_grid(tmp_path):
    save(SAMPLES, tmp_path / "a.png", columns=3)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), grid(SAMPLES, 3)[0].permute(1, 2, 0).numpy())


def test_samples_become_an_animation_of_grids(tmp_path):
    save(SAMPLES, tmp_path / "a.gif", columns=3, denoising=DENOISING)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 2
        assert image.size == (3 * 54 + 6, 60)


@pytest.mark.parametrize("labels", [[2, 0, 1], None])
def test_samples_become_arrays(tmp_path, labels):
    save(SAMPLES, tmp_path / "a.npz", labels=labels)
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["images"], SAMPLES.permute(0, 2, 3, 1).numpy())
        assert arrays["labels"].tolist() == (labels or [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("labels", "names", "files"),
    [
        (None, [], ["000000.png", "000001.png", "000002.png"]),
        ([1, 0, 1], ["cat", "dog/wolf"], ["cat/000001.png", "dog_wolf/000000.png", "dog_wolf/000002.png"]),
        ([1, 0, 7], ["cat"], ["1/000000.png", "7/000002.png", "cat/000001.png"]),
    ],
)
def test_samples_become_a_folder_with_a_folder_a_class(tmp_path, labels, names, files):
    save(SAMPLES, tmp_path / "out", labels=labels, class_names=names)
    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == files
    for name in files:
        place = int(name[-10:-4])
        with Image.open(out / name) as image:
            assert np.asarray(image).max() == place * 10


@pytest.mark.parametrize(
    ("classes", "num", "labels"),
    [([3, 1], 5, [3, 3, 3, 1, 1]), ([0, 1, 2], 3, [0, 1, 2]), ([0, 1, 2], 2, [0, 1]), ([4], 3, [4, 4, 4])],
)
def test_labels_are_spread_evenly_in_the_order_of_the_classes(classes, num, labels):
    assert spread_labels(classes, num) == labels


def draw(batch_size, **options):
    it = trained(moved(small()), DiffusionConfig(num_steps=4, prediction="v"))
    labels = [place % 5 for place in range(7)]
    return to_pictures(it.sample(labels, seed=3, batch_size=batch_size, **options))


def test_pictures_are_the_same_at_any_batch_size():
    whole = draw(7).int()
    assert whole.shape == (7, 3, 8, 8)
    assert len({tuple(picture.flatten().tolist()) for picture in whole}) == 7
    for batch_size in (1, 3, None):
        assert (draw(batch_size).int() - whole).abs().max() <= 1


def test_compiled_every_batch_has_the_same_shape_and_the_pictures_are_the_same(monkeypatch):
    shapes = []

    def fake(function, *_):
        return lambda *arguments: shapes.append(arguments[2].x_t.shape) or function(*arguments)

    monkeypatch.setattr("rin.diffusion.reverse_process.compiled", fake)
    pictures = draw(batch_size=3, compile="on")
    assert len(set(shapes)) == 1
    assert (pictures.int() - draw(batch_size=3).int()).abs().max() <= 1


def test_a_model_without_classes_draws_without_labels():
    it = trained(moved(small(num_classes=0)))
    assert it.sample(num=2).shape == (2, 3, 8, 8)
    with pytest.raises(RinError, match="without classes"):
        it.sample([0, 0])
