"""Image sequences: folders of numbered pictures as clips."""

import numpy as np
import pytest
import torch
from PIL import Image

from rin.cli.prepare import prepare
from rin.core.errors import RinError
from rin.data import DataConfig, open_data
from tests.unit.data.test_video_folders import all_numbers, everything, opened
from tests.unit.data.test_videos import SHAPE, stretches
from tests.unit.data.videos import SIZE, numbered, numbers


def sequence(folder, frames, name="frame_{:04d}.png", first=1, size=SIZE):
    """A folder of pictures that show numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(frames):
        Image.fromarray(numbered(number, size)).save(folder / name.format(first + place))
    return folder


def test_each_folder_is_a_clip_with_its_frames_by_number(tmp_path):
    sequence(tmp_path / "clip_10", range(20, 30), "{}.png", first=95)  # 95 to 104: 100 comes after 99
    sequence(tmp_path / "clip_9", range(17), "frame_{:04d}.png", first=0)
    (tmp_path / "clip_9" / "notes.txt").write_text("x")
    data = opened(tmp_path)
    assert data.training.shape == SHAPE
    assert data.training.class_names == ()
    assert all_numbers(data.training) == stretches(0, 8, 20)
    assert any("taken for the frames of clips, a folder each: 2 folders" in note for note in data.notes)
    assert any("passed over 1 files" in note for note in data.notes)


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_frames_are_those_of_the_files_to_the_bit(tmp_path, memory_gib):
    chance = np.random.default_rng(0)
    frames = chance.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    (tmp_path / "set" / "a").mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "set" / "a" / f"{number}.png")
    data = opened(tmp_path / "set", (3, 3, 6, 5), memory_gib=memory_gib)
    clip = data.training.get(torch.tensor([0]))[0][0]
    assert (clip.permute(1, 2, 3, 0).numpy() == frames).all()


def test_clips_are_cut_as_those_of_videos(tmp_path):
    sequence(tmp_path / "a", range(40))
    assert all_numbers(opened(tmp_path, clips={"stride": 2, "start": 3}).training) == stretches(3, 18, stride=2)
    assert all_numbers(opened(tmp_path, clips={"every": 16}).training) == stretches(0, 16, 32)
    with pytest.raises(RinError, match=r"clips\.rate is 10, and the image sequences in .* tell no rate"):
        opened(tmp_path, clips={"rate": 10.0})


def test_folders_of_clips_are_classes_and_splits_are_not(tmp_path):
    for number, name in enumerate(("run/a", "run/b", "walk/c")):
        sequence(tmp_path / "set" / name, [number] * 8)
    data = opened(tmp_path / "set")
    assert data.training.class_names == ("run", "walk")
    assert everything(data.training)[1].tolist() == [0, 0, 1]
    for split in ("train", "test"):
        sequence(tmp_path / "splits" / split / "a", range(8))
    with pytest.raises(RinError, match="are splits"):
        opened(tmp_path / "splits")


def test_clips_of_one_sequence_are_not_both_trained_on_and_held_out(tmp_path):
    for number in range(12):
        sequence(tmp_path / str(number), [number] * 16)
    data = open_data(DataConfig(path=str(tmp_path), num_held_out=2), SHAPE)
    trained, held_out = ({clip[0] for clip in all_numbers(media)} for media in (data.training, data.held_out))
    assert held_out
    assert not held_out & trained


def missing(folder):
    (folder / "frame_0004.png").unlink()


def empty(folder):
    (folder / "frame_0004.png").write_bytes(b"")


def torn(folder):
    whole = (folder / "frame_0004.png").read_bytes()
    (folder / "frame_0004.png").write_bytes(whole[: len(whole) - 40])


def larger(folder):
    Image.new("RGB", (64, 32)).save(folder / "frame_0004.png")


def without_number(folder):
    Image.new("RGB", SIZE).save(folder / "poster.png")


def of_another_name(folder):
    Image.new("RGB", SIZE).save(folder / "mask_0001.png")


def twice(folder):
    Image.new("RGB", SIZE).save(folder / "frame_4.png")


BROKEN = {
    missing: "bad: frame 4 is missing, after frame_0003.png",
    empty: "bad: its frame frame_0004.png: it is empty, 0 bytes",
    torn: "bad from frame 1: its frame frame_0004.png: ",
    larger: "bad: its frames have different sizes, frame_0001.png 48x32 pixels and frame_0004.png 64x32",
    without_number: r"bad: poster\.png has no number, as frames have \(frame_0001\.png\)",
    of_another_name: "bad: it holds frames of several names, frame_0001.png and mask_0001.png",
    twice: "bad: frame 4 is there twice, after frame_",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_what_is_wrong_with_frames_is_one_line_and_can_be_passed_over(tmp_path, damage):
    for number in range(3):
        sequence(tmp_path / f"good_{number}", [number] * 8)
    damage(sequence(tmp_path / "bad", range(8)))
    with pytest.raises(RinError, match=BROKEN[damage]) as told:
        everything(opened(tmp_path, memory_gib=0.0).training)
    assert "\n" not in str(told.value)
    training = opened(tmp_path, skip_broken=True).training
    assert {clip[0] for clip in all_numbers(training)} == {0, 1, 2}
    assert all(len(set(clip)) == 1 for clip in all_numbers(training))
    assert len(training.broken) == 1


def test_short_ones_are_left_out_by_name(tmp_path, caplog):
    caplog.set_level("WARNING", "rin")
    sequence(tmp_path / "a", range(8))
    sequence(tmp_path / "b", range(7))
    assert all_numbers(opened(tmp_path).training) == stretches(0)
    assert "left out 1 video that is shorter than a clip, 8 frames: " in caplog.text


def test_pictures_beside_the_folders_are_no_sequences(tmp_path):
    sequence(tmp_path / "a", range(8))
    Image.new("L", (8, 8)).save(tmp_path / "cover.png")
    with pytest.raises(RinError, match=r"pictures and no videos, .*a folder of numbered pictures for each clip"):
        opened(tmp_path)


def test_a_prepared_set_holds_them_and_is_made_anew_when_a_frame_has_changed(tmp_path):
    for number in range(2):
        sequence(tmp_path / "set" / str(number), [number] * 8)
    words = [str(tmp_path / "set"), str(tmp_path / "out"), "--size", "16x24", "--channels", "1", "--frames", "8"]
    prepare(words)
    data = open_data(DataConfig(path=str(tmp_path / "out"), num_held_out=0), SHAPE)
    assert [numbers(clip) for clip in data.training.get(torch.arange(2))[0]] == [[0] * 8, [1] * 8]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(
        tmp_path / "set" / "0" / "frame_0003.png"
    )
    with pytest.raises(RinError, match="files or classes have changed since"):
        prepare(words)
