"""Prepared sets of clips: as their sources give them, cut as they were, and whole after an interruption."""

import json
from dataclasses import replace

import pytest

from rin.core import files as files_module
from rin.core.errors import RinError
from rin.data import DataConfig, how_cut, open_data, preparing
from rin.data.config import MovingShapesConfig
from rin.data.decoding.videos import ClipsConfig
from rin.data.prepared.shard_writing import Preparation
from rin.data.prepared_from import open_source
from tests.unit.data.test_prepared import coloured, everything, files, opened, prepared, same, told
from tests.unit.data.test_preparing import stop_at
from tests.unit.data.test_tables import write
from tests.unit.data.test_video_tables import cells
from tests.unit.data.videos import numbers, sound_only, truncated, video


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "MAX_PICTURES", 7)


CLIP = (1, 4, 16, 24)


@pytest.fixture
def videos(tmp_path):
    """Six videos of 10 frames in two classes, which give two clips each."""
    for number in range(6):
        video(tmp_path / "videos" / "ab"[number % 2] / f"{number}.mp4", range(40 * number, 40 * number + 10))
    return tmp_path / "videos"


def shown(media):
    return [numbers(clip) for clip in everything(media)[0]]


def test_prepared_clips_are_those_of_their_source(tmp_path, videos):
    result = prepared(videos, tmp_path / "out", CLIP)
    assert (result.num_pictures, result.num_broken) == ({"train": 12}, 0)
    content = told(tmp_path / "out")
    assert content["shape"] == [1, 4, 16, 24]
    assert content["settings"]["frames"] == 4
    split = content["splits"]["train"]
    assert (split["shards"], split["pictures_a_class"], split["clips_a_video"]) == ([7, 5], [6, 6], [2] * 6)
    for held_out in (0, 5):
        ours = opened(tmp_path / "out", CLIP, num_held_out=held_out)
        theirs = opened(videos, CLIP, num_held_out=held_out)
        assert same(ours.training, theirs.training)
        assert same(ours.held_out, theirs.held_out)
    pixels = everything(opened(tmp_path / "out", CLIP, num_held_out=0).training)[0].double()
    assert split["mean"][0] == pytest.approx(pixels.mean().item())
    assert split["deviation"][0] == pytest.approx(pixels.std(correction=0).item())
    assert prepared(videos, tmp_path / "out", CLIP).was_finished


def test_clips_of_one_video_stay_together_after_broken_ones_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "MAX_PICTURES", 3)  # a video's clips in two shards
    for number in range(1, 12):
        video(tmp_path / "videos" / f"{number}.mp4", [number] * 16)
    truncated(tmp_path / "videos" / "0.mp4", 0.8, frames=range(200, 216))
    sound_only(tmp_path / "videos" / "sound.mp4")
    result = prepared(tmp_path / "videos", tmp_path / "out", CLIP, skip_broken=True)
    split = told(tmp_path / "out")["splits"]["train"]
    lost = split["num_broken"] - 1
    assert 1 <= lost <= 3
    assert split["clips_a_video"] == [4 - lost, *[4] * 11]
    assert split["broken"][0].endswith("sound.mp4")
    assert " at 0." in split["broken"][1]
    assert result.num_broken == 1 + lost
    data = opened(tmp_path / "out", CLIP, num_held_out=4)
    trained, held_out = ({clip[0] for clip in shown(media)} for media in (data.training, data.held_out))
    assert len(data.held_out) >= 1
    assert not trained & held_out
    assert trained | held_out >= set(range(1, 12))


def test_how_clips_are_cut_is_a_part_of_the_set(tmp_path, videos):
    out, options = tmp_path / "out", {"stride": 2, "start": 1, "every": 2, "rate": 25.0}
    prepared(videos, out, CLIP, clips=ClipsConfig(**options))
    assert shown(opened(out, CLIP, num_held_out=0).training)[:2] == [[1, 3, 5, 7], [3, 5, 7, 9]]
    for name, value in (("stride", 1), ("start", 0), ("every", 0), ("rate", 0.0)):
        with pytest.raises(RinError, match=rf"clips\.{name} was {options[name]} and is {value}\)"):
            prepared(videos, out, CLIP, clips=ClipsConfig(**{**options, name: value}))
    with pytest.raises(RinError, match="frames was 4 and is 3"):
        prepared(videos, out, (1, 3, 16, 24), clips=ClipsConfig(**options))
    coloured(videos)
    with pytest.raises(RinError, match="frames was 4 and is None"):
        prepared(videos, out, (1, 16, 24))
    (out / "set.json").unlink()
    (out / "preparing.json").write_text(json.dumps({"format_version": 1, "settings": told_settings(options, videos)}))
    command = "--frames 4 --clips.rate 25.0 --clips.stride 2 --clips.start 1 --clips.every 2"
    with pytest.raises(RinError, match=f"rin prepare .*videos .*out --size 16x24 --channels 1 {command}$"):
        opened(out, CLIP)


def test_prepared_clips_are_cut_no_other_way(tmp_path, videos):
    made = ClipsConfig(stride=2, rate=25.0)
    prepared(videos, tmp_path / "out", CLIP, clips=made)
    config = DataConfig(path=str(tmp_path / "out"))
    assert how_cut(config) == how_cut(replace(config, clips=made)) == made
    assert how_cut(replace(config, path=str(videos))) == ClipsConfig()
    words = r"out was cut when it was prepared \(clips.rate 12.5 is asked for and was 25.0; clips.stride 1 .* was 2\)"
    with pytest.raises(RinError, match=words):
        opened(tmp_path / "out", CLIP, clips=ClipsConfig(rate=12.5))
    prepared(tmp_path / "out", tmp_path / "smaller", (1, 4, 8, 12))
    assert how_cut(replace(config, path=str(tmp_path / "smaller"))) == made


def test_a_prepared_video_held_out_in_part_shares_no_frame_with_what_is_trained_on(tmp_path):
    video(tmp_path / "videos" / "0.mp4", range(60))
    prepared(tmp_path / "videos", tmp_path / "out", CLIP, clips=ClipsConfig(every=1))
    for source in (tmp_path / "out", tmp_path / "videos"):
        data = opened(source, CLIP, num_held_out=5, clips=ClipsConfig(every=1))
        trained, held_out = (
            {frame for clip in shown(part) for frame in clip} for part in (data.training, data.held_out)
        )
        assert held_out == set(range(8))
        assert trained == set(range(8, 60))


def told_settings(options, source):
    cut_by = {f"clips.{name}": value for name, value in options.items()}
    return {"source": str(source), "size": "16x24", "channels": 1, "labels": True, "frames": 4, **cut_by}


@pytest.mark.parametrize("point", ["images-00000.npy", "shard-00000.json", "images-00001.npy", "set.json"])
def test_an_interrupted_set_of_clips_ends_with_the_same_bytes(tmp_path, videos, monkeypatch, point):
    honest = files_module.flush

    def flush(path):
        if path.name.startswith(point):
            raise KeyboardInterrupt
        honest(path)

    with monkeypatch.context() as patched:
        patched.setattr(files_module, "flush", flush)
        with pytest.raises(KeyboardInterrupt):
            prepared(videos, tmp_path / "out", CLIP)
    assert not (tmp_path / "out" / "set.json").exists()
    prepared(videos, tmp_path / "out", CLIP)
    prepared(videos, tmp_path / "at-once", CLIP)
    assert files(tmp_path / "out") == files(tmp_path / "at-once")


def test_a_shard_of_a_changed_video_is_made_again(tmp_path, videos, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(preparing, "write_json", stop_at("set.json", preparing.write_json))
        with pytest.raises(KeyboardInterrupt):
            prepared(videos, tmp_path / "out", CLIP)
    before = (tmp_path / "out" / "train" / "images-00001.npy").stat().st_mtime_ns
    video(videos / "a" / "0.mp4", range(200, 210))
    prepared(videos, tmp_path / "out", CLIP)
    prepared(videos, tmp_path / "at-once", CLIP)
    assert files(tmp_path / "out") == files(tmp_path / "at-once")
    assert (tmp_path / "out" / "train" / "images-00001.npy").stat().st_mtime_ns == before
    assert shown(opened(tmp_path / "out", CLIP, num_held_out=0).training)[0] == [200, 201, 202, 203]


def test_a_shard_tells_how_its_clips_were_cut(videos):
    """Even where they begin at the same frames."""

    def digest(shape, **clips):
        source = open_source(Preparation(source=str(videos), shape=shape, clips=ClipsConfig(every=4, **clips)))
        return source.digest("train", range(6))

    digests = [digest(CLIP), digest((1, 3, 16, 24)), digest(CLIP, stride=2), digest(CLIP, start=1)]
    assert len(set(digests)) == 4
    assert digest(CLIP) == digests[0]


def test_shards_of_clips_are_bounded(tmp_path, videos, monkeypatch):
    monkeypatch.setattr(preparing, "MAX_BYTES", 2 * 4 * 16 * 24)
    prepared(videos, tmp_path / "out", CLIP)
    assert told(tmp_path / "out")["splits"]["train"]["shards"] == [2] * 6
    with pytest.raises(RinError, match=r"--size 64 --frames 16: a set's clips take at most 0 MiB each"):
        prepared(videos, tmp_path / "large", (3, 16, 64, 64))
    assert not (tmp_path / "large").exists()


def test_moving_shapes_are_prepared(tmp_path, monkeypatch):
    shape = (3, 6, 16, 16)
    config = DataConfig(
        path="moving-shapes", num_held_out=0, moving_shapes=MovingShapesConfig(num_clips=12, min_bounces=0)
    )
    monkeypatch.setattr(
        "rin.data.prepared_from.DataConfig", lambda **options: DataConfig(**options, moving_shapes=config.moving_shapes)
    )
    assert prepared("moving-shapes", tmp_path / "out", shape).num_pictures == {"train": 12}
    assert same(opened(tmp_path / "out", shape, num_held_out=0).training, open_data(config, shape).training)
    assert "clips_a_video" not in told(tmp_path / "out")["splits"]["train"]


def test_each_row_of_a_parquet_file_is_prepared_to_its_first_clip(tmp_path):
    write(tmp_path / "set" / "train.parquet", {"video": cells(tmp_path, 0, 40, 80), "label": [0, 1, 0]})
    prepared(tmp_path / "set", tmp_path / "out", CLIP)
    media = opened(tmp_path / "out", CLIP, num_held_out=0).training
    assert [clip[0] for clip in shown(media)] == [0, 40, 80]
    assert everything(media)[1].tolist() == [0, 1, 0]


def test_a_prepared_set_of_clips_makes_a_smaller_one(tmp_path, videos):
    prepared(videos, tmp_path / "large", (3, 4, 32, 48))
    prepared(tmp_path / "large", tmp_path / "small", CLIP)
    small = opened(tmp_path / "small", CLIP, num_held_out=0).training
    assert shown(small) == shown(opened(videos, CLIP, num_held_out=0).training)
    with pytest.raises(RinError, match=r"holds clips of 4 frames \(3x4x32x48\), which clips of 3 frames .* cannot be"):
        prepared(tmp_path / "large", tmp_path / "other", (3, 3, 32, 48))
    with pytest.raises(RinError, match=r"which pictures of 3x32x48 cannot be made from"):
        prepared(tmp_path / "large", tmp_path / "other", (3, 32, 48))


def test_another_shape_than_the_sets_is_refused_in_terms_of_frames(tmp_path, videos):
    prepared(videos, tmp_path / "out", CLIP)
    with pytest.raises(
        RinError,
        match=r"holds clips of 4 frames .* takes clips of 6 frames .*--size 16x24 --frames 6, or .*num_context_frames",
    ):
        opened(tmp_path / "out", (1, 6, 16, 24))
    with pytest.raises(
        RinError, match=r"takes pictures of 3x16x24: prepare a set with --size 16x24 --channels 3, or give"
    ):
        opened(tmp_path / "out", (3, 16, 24))


@pytest.mark.parametrize("counts", [[2] * 5, "many", [-2, 14], None])
def test_a_set_whose_videos_do_not_add_up_is_one_line(tmp_path, videos, counts):
    prepared(videos, tmp_path / "out", CLIP)
    content = told(tmp_path / "out")
    content["splits"]["train"]["clips_a_video"] = counts
    (tmp_path / "out" / "set.json").write_text(json.dumps(content))
    with pytest.raises(RinError, match=r"set\.json is no prepared set's"):
        opened(tmp_path / "out", CLIP)


def test_what_cannot_be_opened_tells_of_both_ways_out(tmp_path, videos):
    sound_only(videos / "a" / "sound.mp4")
    with pytest.raises(
        RinError, match=r"sound\.mp4: it has no video stream; .*--data\.skip-broken \(rin prepare: --skip"
    ):
        prepared(videos, tmp_path / "out", CLIP)
    assert not (tmp_path / "out").exists()
