"""`rin edit` and `rin inpaint`: what they write, and a person's mistakes, one line each."""

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.commands import assert_one_line, rin


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures for the digits that come along, 8x8 and grey, and others."""
    folder = tmp_path_factory.mktemp("pictures")
    levels = np.random.default_rng(0).integers(256, size=(8, 8), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "digit.png")
    Image.fromarray(levels[:, :7]).save(folder / "narrow.png")
    Image.fromarray(levels).convert("RGB").save(folder / "colour.png")
    (folder / "text.png").write_text("no picture")
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, 2:6] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:, :7]).save(folder / "narrow-mask.png")
    Image.fromarray(0 * mask).save(folder / "empty.png")
    return folder


def changed(pictures, command, *options):
    """The result of a command on the digits, whose paths are those of the pictures."""
    words = [pictures / word if word.endswith(".png") and "=" not in word else word for word in options]
    return rin(command, "digits", *words, "--num-steps", "2")


def test_a_picture_is_written_as_large_as_it_was_and_can_be_changed_again(pictures, tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    result = changed(pictures, "edit", "digit.png", "--classes", "3", "--guidance", "1", f"--out={first}")
    assert (result.returncode, result.stdout) == (0, f"1 picture in {first}\n"), result.stderr
    result = rin("inpaint", "digits", first, "--mask", pictures / "mask.png", "--num-steps", "2", "--out", second)
    assert result.returncode == 0, result.stderr
    before, after, mask = (np.array(Image.open(path)) for path in (first, second, pictures / "mask.png"))
    assert before.shape == after.shape == (8, 8)
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert not np.array_equal(before[mask == 255], after[mask == 255])


def test_several_are_a_grid_a_folder_arrays_or_come_about(pictures, tmp_path):
    for out in ("grid.png", "folder", "arrays.npz", "coming.gif"):
        result = changed(pictures, "edit", "digit.png", "--classes", "3,5", "--num", "4", f"--out={tmp_path / out}")
        assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "grid.png") as grid, Image.open(tmp_path / "coming.gif") as coming:
        assert grid.size[0] > 16
        assert coming.n_frames == 2
    assert len(list((tmp_path / "folder").rglob("*.png"))) == 4
    with np.load(tmp_path / "arrays.npz") as arrays:
        assert arrays["images"].shape == (4, 8, 8, 1)
        assert arrays["labels"].tolist() == [3, 3, 5, 5]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["edit", "narrow.png"], ["narrow.png has 7x8 pixels", "8x8"]),
        (["edit", "colour.png"], ["colour.png", "3 channels (colour)", "1 channel (grey)"]),
        (["edit", "text.png"], ["text.png", "no format that Pillow knows"]),
        (["edit", "nowhere.png"], ["nowhere.png", "No such file"]),
        (["edit", "digit.png", "--t", "0"], ["t 0", "above 0"]),
        (["edit", "digit.png", "--t", "1.5"], ["t 1.5", "up to 1"]),
        (["edit", "digit.png", "--classes", "10"], ["class 10", "0 to 9"]),
        (["edit", "digit.png", "--prompt", "a three"], ["--prompt", "captions"]),
        (["edit", "digit.png", "--num", "0"], ["--num 0"]),
        (["edit", "digit.png", "--guidance", "1"], ["guidance", "labels"]),
        (["edit", "digit.png", "--out", "x.xyz"], [".xyz"]),
        (["edit"], ["PICTURE"]),
        (["inpaint", "digit.png"], ["--mask"]),
        (["inpaint", "digit.png", "--mask", "narrow-mask.png"], ["narrow-mask.png has 7x8 pixels", "8x8"]),
        (["inpaint", "digit.png", "--mask", "empty.png"], ["empty.png is empty"]),
        (["inpaint", "digit.png", "--mask", "nowhere.png"], ["nowhere.png", "No such file"]),
        (["inpaint", "narrow.png", "--mask", "mask.png"], ["narrow.png has 7x8 pixels"]),
        (["inpaint", "digit.png", "--mask", "mask.png", "--num-rounds", "0"], ["--num-rounds 0"]),
    ],
)
def test_a_mistake_is_one_line(pictures, command, words):
    assert_one_line(changed(pictures, *command), *words)


def test_a_model_of_sets_has_no_pictures_to_change(pictures, tmp_path):
    tiny = ["--model.latent-dim", "32", "--model.interface-dim", "16", "--model.num-latents", "6"]
    more = ["--model.compute-depth", "1", "--model.num-heads", "2", "--model.num-read-write-heads", "2"]
    steps = ["--training.num-steps", "1", "--training.batch-size", "8", "--data.num-held-out", "8"]
    trained = rin("train", "points", *tiny, *more, *steps, "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert_one_line(rin("edit", tmp_path / "run", pictures / "digit.png"), "sets", "from Python")
