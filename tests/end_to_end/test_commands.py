"""The command line from training to samples, on pictures as people have them."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import rin as library
from rin.sampling.pictures import to_image
from tests.end_to_end.commands import TINY, rin


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--training.num-steps", "4", "--training.sample-every", "4", "--diffusion.label-drop-rate", "0.2"]
    result = rin("train", "digits", *TINY, *options, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


def load_arrays(path):
    with np.load(path) as archive:
        return dict(archive)


def frames(path):
    with Image.open(path) as picture:
        return getattr(picture, "n_frames", 1), picture.size


def test_a_run_leaves_what_is_promised(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all({"step", "loss", "lr"} <= set(line) for line in lines)
    assert lines[0]["lr"] == 0
    assert (run / "samples" / "step-000000004.png").exists()
    assert list(run.glob("events.out.tfevents.*"))
    assert not list(run.rglob("*.pkl")) + list(run.rglob("*.pt"))


def test_samples_as_a_grid_an_animation_arrays_and_a_folder(run, tmp_path):
    for out in ("grid.png", "denoising.gif", "arrays.npz", "folder"):
        result = rin("sample", run, "--classes", "0-9", "--num", "20", "--steps", "3", "--out", tmp_path / out)
        assert result.returncode == 0, result.stderr
    _, (width, height) = frames(tmp_path / "grid.png")
    assert width < height  # ten rows of two
    assert frames(tmp_path / "denoising.gif")[0] == 3  # the clean estimate of each step
    arrays = load_arrays(tmp_path / "arrays.npz")
    assert arrays["images"].shape == (20, 8, 8, 1)
    assert arrays["labels"].tolist() == [label for label in range(10) for _ in range(2)]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [str(label) for label in range(10)]
    with Image.open(tmp_path / "folder" / "0" / "000000.png") as picture:
        first = np.array(picture)
    assert (first == arrays["images"][0, ..., 0]).all()


def test_a_picture_is_the_same_at_any_number_and_batch_size(run, tmp_path):
    for batch_size, num in ((3, 7), (64, 7)):
        out = tmp_path / f"{batch_size}.npz"
        command = ["sample", run, "--classes", "4", "--num", num, "--seed", "9", "--batch-size", batch_size]
        assert rin(*command, "--steps", "3", "--out", out).returncode == 0
    few, many = (load_arrays(tmp_path / f"{size}.npz")["images"].astype(int) for size in (3, 64))
    assert abs(few - many).max() <= 1


def test_samplers_guidance_and_seeds_are_followed(run, tmp_path):
    results = []
    for number, options in enumerate(([], ["--sampler", "ddpm"], ["--guidance", "2.0"], ["--seed", "1"])):
        out = tmp_path / f"{number}.npz"
        assert rin("sample", run, "--num", "4", "--steps", "3", "--out", out, *options).returncode == 0
        results.append(load_arrays(out)["images"])
    for number, images in enumerate(results[1:], start=1):
        assert (images != results[0]).any(), number


def test_the_library_opens_what_the_command_made(run, tmp_path):
    trained = library.load(run)
    assert trained.class_names == tuple("0123456789")
    images = trained.sample(labels=[3, 3], seed=0, num_steps=3)
    assert images.shape == (2, 1, 8, 8)
    assert images.abs().max() <= 1
    trained.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again = library.load(tmp_path / "model")
    assert (again.sample(labels=[3, 3], seed=0, num_steps=3) == images).all()
    assert to_image(library.to_pictures(images)).size == (8, 8)


def test_pictures_as_people_have_them(tmp_path):
    folder = tmp_path / "my pictures"
    for name in ("Katzen ß", "dogs"):
        (folder / name).mkdir(parents=True)
    colours = Image.effect_noise((70, 50), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(folder / "dogs" / "ROTATED.JPG", exif=exif)
    colours.convert("CMYK").save(folder / "dogs" / "print.jpeg")
    Image.fromarray(np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 20).save(folder / "dogs" / "deep.png")
    colours.convert("P").save(folder / "Katzen ß" / "palette.gif")
    colours.convert("RGBA").save(folder / "Katzen ß" / "glass [1] #2.png")
    colours.save(folder / "Katzen ß" / "moving.gif", save_all=True, append_images=[colours.rotate(90)])
    (folder / "Katzen ß" / ".DS_Store").write_bytes(b"\0")
    (folder / "notes.txt").write_text("not a picture")
    out = tmp_path / "run"
    options = ["--model.shape", "3", "24", "16", "--model.patch-size", "8", "--training.batch-size", "4"]
    result = rin("train", "small-32", *TINY, *options, "--data.path", folder, "--training.num-steps", "2", "--out", out)
    assert result.returncode == 0, result.stderr
    assert json.loads((out / "config.json").read_text())["class_names"] == ["Katzen ß", "dogs"]
    sampled = rin("sample", out, "--classes", "Katzen ß", "--num", "2", "--steps", "2", "--out", tmp_path / "s.png")
    assert sampled.returncode == 0, sampled.stderr


def test_info_tells_the_cost_of_presets_and_runs(run):
    table = rin("info")
    assert table.returncode == 0
    rows = [re.split(" {2,}", line) for line in table.stdout.partition("\n\n")[0].splitlines()]
    assert {len(row) for row in rows} == {6}, "columns run together"
    assert [row[0] for row in rows[1:]] == library.preset_names()
    assert "395,928,256" in rin("info", "imagenet-256").stdout
    assert "parameters" in rin("info", run).stdout


def test_info_tells_how_samples_are_drawn(run):
    """By a model's own guidance too, of a name that is a preset's and of a model that comes along."""
    own = r"samples +dpmpp-2m in 20 steps, guidance 4 at noise levels sigma 0.2 to 2\n"
    assert re.search(own, rin("info", "cifar10-small").stdout)
    assert re.search(r"samples +ddpm in 1000 steps\n", rin("info", "cifar10").stdout)
    assert re.search(r"samples +\S+ in \d+ steps\n", rin("info", run).stdout)


def test_help_and_version():
    assert "rin train" in rin("--help").stdout
    for command in (["train", "digits"], ["sample"], ["info"]):
        result = rin(*command, "--help")
        assert result.returncode == 0
        assert "usage: rin" in result.stdout
    assert "[PRESET|RUN]" in result.stdout  # which may be left out
    assert rin("--version", afresh=True).stdout.startswith("rin ")
    assert json.loads(rin("train", "cifar10", "--dry-run").stdout)["model"]["shape"] == [3, 32, 32]
