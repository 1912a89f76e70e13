"""Data that breaks under a run, or does not fit: it stops with a name, goes on once mended, and streams."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rin.data import Order
from tests.end_to_end.commands import TINY, rin
from tests.end_to_end.test_resume import files

COUNT = 24
TRAIN = [
    *("train", "small-32", *TINY, "--model.shape", "3", "8", "8", "--training.batch-size", "8"),
    *("--training.num-steps", "7", "--training.checkpoint-every", "2", "--training.keep-checkpoints", "1"),
    *("--data.num-held-out", "0", "--data.memory-gib", "0"),
]
"""24 pictures in batches of 8: the second epoch is steps 3 to 5, counted from 0."""

IN_SECOND_EPOCH = 5
"""The part of a batch, counted from 1, at which a run is killed: step 4, with a checkpoint of step 4 behind it."""


def pictures(folder, count=COUNT):
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of pictures, a run on them that was killed in its second epoch, and one that was not."""
    folder = tmp_path_factory.mktemp("broken")
    command = [*TRAIN, "--data.path", pictures(folder / "pictures"), "--out"]
    result = rin(*command, folder / "whole")
    assert result.returncode == 0, result.stderr
    killed = rin(*command, folder / "killed", kill_at=IN_SECOND_EPOCH)
    assert killed.returncode == -9, killed.stderr
    return folder


def picture_of_second_epoch(folder):
    """One that is seen after the last checkpoint before the kill."""
    return sorted(folder.iterdir(), key=lambda path: int(path.stem))[int(Order(COUNT, 0).at(4 * 8 + 5, 1))]


@pytest.fixture
def damaged(home):
    """The damaged picture, until the test mends it or is over."""
    picture = picture_of_second_epoch(home / "pictures")
    intact = picture.read_bytes()
    picture.write_bytes(intact[: len(intact) // 2])
    yield picture, lambda: picture.write_bytes(intact)
    picture.write_bytes(intact)


def assert_stopped(result, *words):
    """The process left with status 2, and the last thing it said has all these words."""
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("rin: "), result.stderr
    for word in words:
        assert word in last, last


def test_a_picture_damaged_between_two_epochs_stops_the_run_which_goes_on_once_it_is_mended(home, damaged):
    picture, mend = damaged
    run = shutil.copytree(home / "killed", home / "mended")
    command = [*TRAIN, "--data.path", home / "pictures", "--out", run]
    assert_stopped(rin(*command), picture.name, "--data.skip-broken")
    mend()
    assert rin(*command).returncode == 0
    assert files(run) == files(home / "whole")


def test_a_picture_damaged_between_two_epochs_is_passed_over_if_asked(home, damaged):
    picture, _ = damaged
    run = shutil.copytree(home / "killed", home / "passed over")
    result = rin(*TRAIN, "--data.path", home / "pictures", "--data.skip-broken", "--out", run)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(f"{picture.name}, which cannot be read") == 1
    logs = [[json.loads(line) for line in (of / "log.jsonl").read_text().splitlines()] for of in (run, home / "whole")]
    assert len(logs[0]) == len(logs[1]) == 7
    assert logs[0][:4] == logs[1][:4]
    assert logs[0][4:] != logs[1][4:]


def test_a_set_with_too_many_broken_pictures_stops_the_run(tmp_path):
    folder = pictures(tmp_path / "pictures")
    for number in range(0, 12, 2):
        (folder / f"{number}.png").write_bytes(b"nothing")
    result = rin(*TRAIN, "--data.path", folder, "--data.skip-broken", "--out", tmp_path / "run")
    assert_stopped(result, "of 24 pictures (", "cannot be read", "more than 10% are too many")
    assert "Traceback" not in result.stderr


def parquet(folder):
    """The pictures of a folder in two parquet files, in row groups of five."""
    target = folder.parent / "parquet"
    target.mkdir()
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(folder.iterdir())]
    for number, part in enumerate((images[:14], images[14:])):
        pq.write_table(pa.table({"image": part}), target / f"train-{number}-of-2.parquet", row_group_size=5)
    return target


def test_a_streamed_run_that_is_killed_ends_as_the_uninterrupted_one(tmp_path):
    command = [*TRAIN, "--data.path", parquet(pictures(tmp_path / "pictures")), "--data.stream"]
    result = rin(*command, "--out", tmp_path / "whole")
    assert result.returncode == 0, result.stderr
    assert rin(*command, "--out", tmp_path / "broken", kill_at=IN_SECOND_EPOCH).returncode == -9
    assert rin(*command, "--out", tmp_path / "broken").returncode == 0
    assert files(tmp_path / "whole") == files(tmp_path / "broken")
