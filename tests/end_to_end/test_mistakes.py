"""A person's mistakes: one line each that says what is wrong and what to do, and status 2."""

import io

import pytest
from PIL import Image

from tests.end_to_end.commands import TINY, assert_one_line, ended, rin, start


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--training.num-steps", "2", "--diffusion.label-drop-rate", "0.0"]
    result = rin("train", "digits", *TINY, *options, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


def pictures(folder, count=4):
    folder.mkdir()
    for place in range(count):
        Image.new("RGB", (40, 32), (60 * place, 10, 200)).save(folder / f"{place}.jpg")
    return folder


def truncated(folder):
    """A folder of pictures, one of them cut off in the middle."""
    pictures(folder)
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(whole, "jpeg")
    (folder / "cut off.jpg").write_bytes(whole.getvalue()[:500])
    return folder


SMALL = [
    "train",
    "small-32",
    *TINY,
    "--model.patch-size",
    "8",
    "--training.batch-size",
    "4",
    "--training.num-steps",
    "1",
]


def test_a_folder_that_is_not_there(tmp_path):
    assert_one_line(rin(*SMALL, "--data.path", tmp_path / "nowhere", "--out", tmp_path / "run"), "nowhere")


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_one_line(rin(*SMALL, "--data.path", tmp_path / "empty", "--out", tmp_path / "run"), "empty")


def test_a_truncated_picture_is_named_and_skipped_if_asked(tmp_path):
    folder = truncated(tmp_path / "some")
    assert_one_line(rin(*SMALL, "--data.path", folder, "--out", tmp_path / "run"), "cut off.jpg", "--data.skip-broken")
    skipped = rin(*SMALL, "--data.path", folder, "--data.skip-broken", "--out", tmp_path / "run")
    assert skipped.returncode == 0, skipped.stderr
    assert "cut off.jpg" in skipped.stderr


def test_an_unknown_preset_with_the_nearest_name():
    assert_one_line(rin("train", "cifar"), "cifar10")


def test_an_unknown_command_with_the_nearest_name():
    assert_one_line(rin("trian"), "train")


def test_an_unknown_option():
    assert_one_line(rin("train", "digits", "--traning.num-steps", "3"), "--traning.num-steps")


def test_a_value_of_the_wrong_kind():
    assert_one_line(rin("train", "digits", "--training.num-steps", "many"), "--training.num-steps", "many")


def test_a_patch_size_that_does_not_divide_the_image():
    assert_one_line(rin("train", "digits", "--model.patch-size", "3"), "patch_size 3", "[1, 2, 4, 8]")


def test_a_class_out_of_range(run):
    assert_one_line(rin("sample", run, "--classes", "7-10"), "class 10", "0 to 9")


def test_a_class_of_no_such_name(run):
    assert_one_line(rin("sample", run, "--classes", "cat"), "cat")


def test_a_checkpoint_of_another_configuration(run):
    command = ["train", "digits", *TINY, "--training.num-steps", "2", "--model.latent-dim", "64", "--out", run]
    assert_one_line(rin(*command), "model.latent_dim was 32 and is 64", "--out")


def test_an_output_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert_one_line(rin("sample", run, "--out", tmp_path / "file" / "samples.png"), "cannot write", "file")
    command = ["train", "digits", *TINY, "--training.num-steps", "2"]
    assert_one_line(rin(*command, "--out", tmp_path / "file"), "cannot write", "file")


def test_an_output_of_no_known_kind(run, tmp_path):
    assert_one_line(rin("sample", run, "--out", tmp_path / "samples.xyz"), ".xyz", ".png")


def test_guidance_without_label_dropping(run, tmp_path):
    assert_one_line(rin("sample", run, "--guidance", "1.0", "--out", tmp_path / "a.png"), "label dropping")


def test_a_run_that_is_not_there(tmp_path):
    assert_one_line(rin("sample", tmp_path / "nothing"), "nothing")
    (tmp_path / "empty").mkdir()
    assert_one_line(rin("sample", tmp_path / "empty"), "empty", "neither a run nor a saved model")


def test_damaged_weights(tmp_path):
    run = tmp_path / "run"
    assert rin("train", "digits", *TINY, "--training.num-steps", "1", "--out", run).returncode == 0
    weights = next(run.glob("checkpoints/*/average.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_one_line(rin("sample", run), "average.safetensors", "damaged")


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path):
    run = tmp_path / "run"
    command = ["train", "digits", *TINY, "--training.checkpoint-every", "1", "--out", run]
    assert rin(*command, "--training.num-steps", "1").returncode == 0
    kept = sorted((run / "checkpoints").rglob("*.safetensors"))
    before = [path.read_bytes() for path in kept]
    result = rin(*command, "--training.num-steps", "3", largest_file=20_000)  # stands in for a full disk
    assert result.returncode == 2, result.stderr
    assert "cannot write the checkpoint" in result.stderr.splitlines()[-1]
    assert "step-000000001" in result.stderr.splitlines()[-1]
    assert [path.read_bytes() for path in kept] == before
    assert rin(*command, "--training.num-steps", "3").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_mistakes_are_one_line_whatever_the_terminal_can_show(encoding):
    terminal = {"PYTHONIOENCODING": encoding}
    mistaken = start("train", "digits", "--training.nm-steps", "3", environment=terminal, afresh=True)
    assert_one_line(ended(mistaken), "Unrecognized options: --training.nm-steps", "did you mean --training.num-steps?")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.path", "~nobody-of-that-name/x"], "no such folder"),
        (["--data.path", "x" * 5000], "no such folder"),
        (["--out", "x" * 5000], "cannot write the run to"),
    ],
)
def test_a_path_that_cannot_be(tmp_path, options, words):
    some = pictures(tmp_path / "some")
    assert_one_line(rin(*SMALL, "--data.path", some, "--out", tmp_path / "run", *options), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num", "ten"], "--num: no whole number: 'ten'; "),
        (["--guidance-interval", "3"], "--guidance-interval: two numbers are needed, not '3'; "),
        (["--guidance-interval", "a", "3"], "--guidance-interval: two numbers are needed, not 'a', '3'; "),
        (["--guidance", "high"], "--guidance: no number: 'high'; "),
        (["--seed", "2.5"], "--seed: no whole number: '2.5'; "),
        (["--sampler", "dpm"], "one of ('ddim', 'ddpm', 'ddpm-small', 'dpmpp-2m', 'heun'); "),
    ],
)
def test_a_value_of_another_kind(options, words):
    assert_one_line(rin("sample", "digits", *options), words)


def test_a_folder_of_runs_in_the_place_of_a_run(run):
    assert_one_line(rin("sample", run.parent), "neither a run nor a saved model", f"in it there are {run}")


def test_a_file_in_the_place_of_a_run(tmp_path):
    (tmp_path / "file").touch()
    end = rin(*SMALL, "--data.path", pictures(tmp_path / "some"), "--out", tmp_path / "file")
    assert_one_line(end, "cannot write the run to", "File exists")
    assert "Errno" not in end.stderr
