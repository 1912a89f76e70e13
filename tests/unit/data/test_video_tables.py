"""Parquet files and sets on the Hub with a column of videos."""

import datasets
import pytest
import torch

from rin.core.errors import RinError
from rin.data import DataConfig, open_data
from rin.data.decoding.videos import ClipsConfig
from tests.unit.data.test_tables import CATS_AND_DOGS, GREY, IMAGE, labels, levels, opened, png, structs, write
from tests.unit.data.videos import SIZE, numbers, video

CLIP = (1, 8, SIZE[1], SIZE[0])
VIDEO = {"_type": "Video"}


def cells(folder, *begins, frames=20):
    """Cells with a video each, whose numbers begin at some number."""
    files = [video(folder / f"{begin}.mp4", range(begin, begin + frames)) for begin in begins]
    return [{"bytes": file.read_bytes(), "path": file.name} for file in files]


def opened_clips(path, **options):
    return open_data(DataConfig(path=str(path), num_held_out=0, **options), CLIP).training


def beginnings(clips):
    """The number that the first frame of each clip shows, if the others show those that follow."""
    shown = [numbers(clip) for clip in clips.get(torch.arange(len(clips)))[0]]
    assert all(clip == list(range(clip[0], clip[0] + 8)) for clip in shown)
    return [clip[0] for clip in shown]


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_each_row_of_videos_gives_all_its_clips(tmp_path, monkeypatch, memory_gib):
    """Also those of tables that do not fit into memory, which are mapped."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    columns = {"what": cells(tmp_path, 0, 40, 80), "image": structs([1, 2, 3]), "label": [1, 0, 1]}
    write(tmp_path / "set/train.parquet", columns, {"what": VIDEO, "image": IMAGE, "label": CATS_AND_DOGS})
    clips = opened_clips(tmp_path / "set", memory_gib=memory_gib, clips=ClipsConfig(every=4))
    assert beginnings(clips) == [0, 4, 8, 12, 40, 44, 48, 52, 80, 84, 88, 92]
    assert labels(clips) == [1] * 4 + [0] * 4 + [1] * 4
    assert clips.class_names == ("cat", "dog")
    assert levels(open_data(DataConfig(path=str(tmp_path / "set"), num_held_out=0), GREY).training) == [1, 2, 3]


def test_a_streamed_row_of_videos_gives_its_first_clip(tmp_path):
    write(tmp_path / "train.parquet", {"video": cells(tmp_path, 0, 40, 80), "label": [2, 0, 1]})
    clips = opened_clips(tmp_path / "train.parquet", stream=True, clips=ClipsConfig(start=3))
    assert beginnings(clips) == [3, 43, 83]
    assert labels(clips) == [2, 0, 1]
    assert clips.group_sizes == (3,)


def test_a_streamed_video_shorter_than_a_clip_is_broken(tmp_path):
    short = cells(tmp_path, 200, frames=5)
    write(tmp_path / "train.parquet", {"video": [*cells(tmp_path, 0), *short], "label": [0, 0]})
    with pytest.raises(RinError, match=r"cannot read the clip 1 of .*200\.mp4.*: it is shorter than a clip"):
        beginnings(opened_clips(tmp_path / "train.parquet", stream=True))
    clips = opened_clips(tmp_path / "train.parquet", stream=True, skip_broken=True)
    assert beginnings(clips) == [0, 0]
    assert clips.num_broken == 1


@pytest.mark.parametrize("name", ["video", "clip", "mp4", "anything"])
def test_columns_of_bytes_can_be_videos(tmp_path, name):
    content = [cell["bytes"] for cell in cells(tmp_path, 40)]
    write(tmp_path / "train.parquet", {"id": ["a"], name: content, "image": [png(3)]})
    assert beginnings(opened_clips(tmp_path / "train.parquet")) == [40, 48]
    if name != "anything":
        assert levels(opened(tmp_path / "train.parquet", num_held_out=0).training) == [3]


def test_tables_without_videos_are_one_line(tmp_path):
    write(tmp_path / "set.parquet", {"image": structs([1]), "label": [0]}, {"image": IMAGE, "label": CATS_AND_DOGS})
    with pytest.raises(RinError, match=r"has no column of videos: its columns are image, label"):
        opened_clips(tmp_path / "set.parquet")
    write(tmp_path / "plain.parquet", {"image": structs([1])})
    with pytest.raises(RinError, match=r"has no column of videos: its columns are image"):
        opened_clips(tmp_path / "plain.parquet")
    write(tmp_path / "other.parquet", {"video": cells(tmp_path, 0)}, {"video": VIDEO})
    with pytest.raises(RinError, match=r"has no column of images: its columns are video"):
        opened(tmp_path / "other.parquet")


def test_a_set_of_videos_on_the_hub(tmp_path, monkeypatch):
    columns = {"video": cells(tmp_path, 0, 40), "label": [0, 1]}
    whole = datasets.Dataset.from_dict(
        columns, datasets.Features({"video": datasets.Video(), "label": datasets.Value("int64")})
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict({"train": whole}))
    clips = opened_clips("somebody/videos")
    assert beginnings(clips) == [0, 8, 40, 48]
    assert labels(clips) == [0, 0, 1, 1]


def test_a_row_without_a_video_stream_is_named(tmp_path):
    write(tmp_path / "train.parquet", {"video": [*cells(tmp_path, 0), {"bytes": b"torn", "path": "torn.mp4"}]})
    with pytest.raises(RinError, match=r"cannot read the video 1 of .*train\.parquet \(torn\.mp4\): Invalid data"):
        opened_clips(tmp_path / "train.parquet")
