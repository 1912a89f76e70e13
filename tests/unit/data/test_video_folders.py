"""Folders of videos, and files among them that are not as they should be."""

import builtins
import logging
import subprocess
import sys

import pytest
import torch
from PIL import Image

from rin.core.errors import RinError
from rin.data import DataConfig, batches, open_data
from rin.data.decoding.videos import ClipsConfig
from tests.unit.data.test_videos import SHAPE, stretches
from tests.unit.data.videos import numbers, sound_only, truncated, video


def opened(path, shape=SHAPE, **options):
    clips = ClipsConfig(**options.pop("clips", {}))
    return open_data(DataConfig(path=str(path), clips=clips, **{"num_held_out": 0, **options}), shape)


def everything(media):
    return media.get(torch.arange(len(media)))


def all_numbers(media):
    return [numbers(clip) for clip in everything(media)[0]]


def test_a_folder_of_videos_is_a_set_of_clips(tmp_path):
    for number, name in enumerate(["10/b.mp4", "2/a.mkv", "2/c.MP4", "2/notes.txt", "10/.hidden.mp4"]):
        file = video(tmp_path / name.replace("txt", "mp4").lower(), range(40 * number, 40 * number + 20))
        file.rename(tmp_path / name)
    training = opened(tmp_path).training
    assert training.shape == SHAPE
    assert training.class_names == ("2", "10")
    assert all_numbers(training) == stretches(40, 48, 80, 88, 0, 8)
    assert everything(training)[1].tolist() == [0, 0, 0, 0, 1, 1]
    assert everything(opened(tmp_path, labels=False).training)[1].tolist() == [-1] * 6


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_batches_of_clips_are_the_same_in_memory_and_on_demand(tmp_path, memory_gib):
    for number in range(3):
        video(tmp_path / f"{number}.mp4", range(40 * number, 40 * number + 17))
    media = opened(tmp_path, memory_gib=memory_gib, clips={"every": 4}).training
    assert len(media) == 9
    stream = batches(media, seed=0, batch_size=9, places=torch.arange(9), first_step=0, flip=False)
    batch = next(stream)
    stream.close()
    begins = [40 * number + 4 * clip for number in range(3) for clip in range(3)]
    assert [numbers(clip) for clip in batch.media] == [stretches(begins[place])[0] for place in batch.examples]
    assert sorted(batch.examples.tolist()) == list(range(9))


def test_clips_of_one_video_are_not_both_trained_on_and_held_out(tmp_path):
    for number in range(12):
        video(tmp_path / f"{number}.mp4", [number] * 12)
    data = opened(tmp_path, num_held_out=5, clips={"every": 2})
    trained, held_out = ({clip[0] for clip in all_numbers(media)} for media in (data.training, data.held_out))
    assert (len(data.held_out), len(data.training)) == (3, 33)  # whole videos of three clips, at most a tenth of 36
    assert len(held_out) == 1
    assert held_out | trained == set(range(12))
    assert not held_out & trained


def test_a_single_video_is_held_out_in_part(tmp_path):
    video(tmp_path / "a.mp4", 80, codec="mpeg4")
    data = opened(tmp_path, (1, 2, 16, 24), num_held_out=3)
    assert all_numbers(data.held_out) == stretches(0, 2, 4, num_frames=2)
    assert all_numbers(data.training) == stretches(*range(6, 80, 2), num_frames=2)


@pytest.fixture
def mixed(tmp_path):
    """Forty good videos, and one of each kind that is not."""
    good = video(tmp_path / "good.mp4", 8).read_bytes()
    (tmp_path / "set").mkdir()
    for number in range(40):
        (tmp_path / "set" / f"{number}.mp4").write_bytes(good)
    truncated(tmp_path / "set" / "truncated.mp4", 0.6)
    (tmp_path / "set" / "torn.mp4").write_bytes(good[: len(good) // 2])
    sound_only(tmp_path / "set" / "sound.mp4")
    video(tmp_path / "set" / "short.mp4", 7)
    video(tmp_path / "set" / "unequal.mp4", 12, ticks=[0, 1, 2, 6, 8, 10, 11, 12, 20, 21, 22, 23])
    video(tmp_path / "set" / "turned.mp4", 8, change=lambda stream: stream.set_display_rotation(180))
    return tmp_path / "set"


def test_a_file_without_a_video_stream_ends_the_run_by_its_name(mixed):
    with pytest.raises(RinError, match=r"cannot read the video .*sound\.mp4: it has no video stream; .*--data\.skip"):
        opened(mixed)


def test_a_file_that_cannot_be_opened_ends_the_run_by_its_name(mixed):
    (mixed / "sound.mp4").unlink()
    with pytest.raises(RinError, match=r"cannot read the video .*torn\.mp4: .*; replace or remove it, or skip"):
        opened(mixed)


def test_a_truncated_file_ends_the_run_by_its_name(mixed):
    for name in ("sound.mp4", "torn.mp4"):
        (mixed / name).unlink()
    with pytest.raises(
        RinError, match=r"cannot read the clip .*truncated\.mp4 at 0\.64 s: it ends after 5 of 8 frames: truncated"
    ):
        opened(mixed)


def test_what_cannot_be_read_is_passed_over_by_name(mixed, caplog):
    caplog.set_level(logging.WARNING, "rin")
    training = opened(mixed, skip_broken=True, clips={"rate": 25.0}).training
    said = caplog.text
    for told in (
        *(
            r"sound.mp4, which cannot be read: it has no video stream",
            r"torn.mp4, which cannot be read: there is nothing in it",
        ),
        *("left out 1 video that is shorter than a clip, 8 frames: ", "short.mp4", "truncated.mp4 at 0.64 s, which"),
    ):
        assert told in said
    assert len(training) == 40 + 5 + 3 + 1  # good, truncated, unequal and turned
    assert [name.rsplit("/", 1)[-1] for name in training.broken][:5] == [
        *("sound.mp4", "torn.mp4"),
        *("truncated.mp4 at 0.64 s", "truncated.mp4 at 0.96 s", "truncated.mp4 at 1.28 s"),
    ]
    clips = all_numbers(training)
    assert clips[:40] == stretches(0) * 40
    assert clips[-3:] == [[0, 1, 2, 2, 2, 2, 3, 3], [4, 4, 5, 6, 7, 7, 7, 7], [7, 7, 7, 7, 8, 9, 10, 11]]


def test_too_many_that_cannot_be_opened_end_the_run(tmp_path):
    video(tmp_path / "good.mp4", 8)
    for number in range(4):
        (tmp_path / f"{number}.mp4").write_bytes(b"torn")
    with pytest.raises(RinError, match=r"4 of 5 videos \(80%\) cannot be read, .*0\.mp4"):
        opened(tmp_path, skip_broken=True)
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(RinError, match="none of 4 videos can be read"):
        opened(tmp_path, skip_broken=True)


def test_many_short_ones_are_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "rin")
    for number in range(8):
        video(tmp_path / f"{number}.mp4", 4, codec="mpeg4")
    with pytest.raises(RinError, match=r"no video is as long as a clip, 15 frames, .*0\.mp4.*: take .*clips\.stride"):
        opened(tmp_path, clips={"stride": 2})
    video(tmp_path / "long.mp4", 8)
    assert all_numbers(opened(tmp_path).training) == stretches(0)
    assert "left out 8 videos that are shorter than a clip, 8 frames: " in caplog.text
    assert "4.mp4 and 3 more" in caplog.text


def test_splits_for_classes_are_refused(tmp_path):
    for split in ("train", "test"):
        video(tmp_path / split / "a.mp4", 8)
    with pytest.raises(RinError, match="are splits"):
        opened(tmp_path)


def test_the_other_kind_of_folder_is_one_line(tmp_path):
    video(tmp_path / "videos" / "a.mp4", 8)
    (tmp_path / "pictures").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "pictures" / "a.png")
    with pytest.raises(RinError, match=r"videos holds videos, and pictures are wanted: .*--model\.shape"):
        opened(tmp_path / "videos", (1, 16, 24))
    with pytest.raises(RinError, match="pictures holds pictures and no videos, and clips of several frames are wanted"):
        opened(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RinError, match=r"holds no videos: give a folder with \.mp4"):
        opened(tmp_path / "empty")
    with pytest.raises(RinError, match="digits are pictures"):
        opened("digits")
    with pytest.raises(RinError, match="no video by its name: give one, a folder of videos"):
        opened(tmp_path / "pictures" / "a.png")
    with pytest.raises(RinError, match="is a single file: give a folder of images"):
        opened(tmp_path / "videos" / "a.mp4", (1, 16, 24))


def test_a_video_is_a_set_of_its_clips(tmp_path):
    data = opened(video(tmp_path / "a.mp4", 20), clips={"every": 4})
    assert all_numbers(data.training) == stretches(0, 4, 8, 12)
    assert data.training.class_names == ()
    with pytest.raises(RinError, match=r"a\.mp4 has no columns"):
        opened(tmp_path / "a.mp4", column="video")
    (tmp_path / "b.mp4").write_bytes(b"torn")
    with pytest.raises(RinError, match=r"cannot read the video .*b\.mp4"):
        opened(tmp_path / "b.mp4")


def test_tars_are_for_pictures(tmp_path):
    (tmp_path / "a.tar").touch()
    for path in (tmp_path, tmp_path / "a.tar"):
        with pytest.raises(RinError, match="pictures only, as every tar is"):
            opened(path)


def test_libav_keeps_silent(mixed):
    code = f"""if True:
        from tests.unit.data.test_video_folders import opened
        opened({str(mixed)!r}, skip_broken=True)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(".mp4" in line for line in done.stderr.splitlines())  # our own warnings
    assert "moov" not in done.stderr


def test_without_pyav_one_line_tells_what_to_install(tmp_path, monkeypatch):
    file, honest = video(tmp_path / "set" / "a.mp4", 8), builtins.__import__

    def without(name, *rest, **options):
        if name == "av" or name.startswith("av."):
            raise ImportError(name)
        return honest(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RinError, match=r'pip install "rin-diffusion\[video\]"$'):
        opened(file.parent, skip_broken=True)
