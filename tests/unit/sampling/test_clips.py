"""Clips: drawn in one block or many, shown with borders, written down in every way."""

from contextlib import nullcontext

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rin import Condition, Diffusion, DiffusionConfig, RinError, save
from rin.core.seeds import picture_seeds
from rin.data import to_floats, to_pictures
from rin.data.config import DataConfig, MovingShapesConfig
from rin.data.feeding.media_sets import MediaInMemory
from rin.data.opening import open_data
from rin.evaluation import videos as prediction
from rin.sampling.drawing import num_blocks
from rin.sampling.outputs import check_output
from rin.sampling.pictures import DRAWN, GIVEN, bordered, contact_sheet, playing, save_video, sheet_size
from rin.sampling.pipeline import Pipeline
from rin.sampling.previews import NUM_CLIPS, draw_previews, write_previews
from tests.unit.models import VIDEO, moved, small, trained

GOING_ON = {**VIDEO, "num_classes": 0}  # three frames of 8x8 after three given ones
FROM_NOTHING = {**GOING_ON, "num_context_frames": 0}
CONFIG = DiffusionConfig(num_steps=3)


def given(num, frames=3, size=8, channels=3):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num, channels, frames, size, size), dtype=torch.uint8, generator=draw)


def roll(model, context, num_frames, num=2, batch_size=8):
    given = None if context is None else to_floats(context)
    it = trained(model, CONFIG)
    options = {"seed": 5, "batch_size": batch_size, "precision": "float32"}
    return to_pictures(it.sample(num=num, context=given, num_frames=num_frames, **options))


def block(model, context, number):
    """One block, by hand."""
    condition, seeds = Condition(context=to_floats(context)), picture_seeds(5, 0, 2)
    shape = (2, *model.config.shape)
    return to_pictures(Diffusion(CONFIG).sample(model, shape, condition, seeds=seeds, block=number))


def test_each_block_goes_on_from_the_last_frames_of_the_one_before():
    model, context = moved(small(**GOING_ON)), given(2)
    first = block(model, context, 0)
    second = block(model, first, 1)
    assert torch.equal(roll(model, context, 5), torch.cat([first, second], dim=2)[:, :, :5])


def test_blocks_have_noise_of_their_own():
    model, context = moved(small(**GOING_ON)), given(2)
    assert not torch.equal(block(model, context, 0), block(model, context, 1))


def test_a_block_shorter_than_what_is_given_goes_on_from_both():
    model = moved(small(**{**GOING_ON, "shape": (3, 2, 8, 8)}))
    context = given(2)
    first = block(model, context, 0)
    second = block(model, torch.cat([context[:, :, 2:], first], dim=2), 1)
    assert torch.equal(roll(model, context, 4), torch.cat([first, second], dim=2))


def test_of_more_given_frames_the_last_ones_count():
    model, context = moved(small(**GOING_ON)), given(2, frames=7)
    assert torch.equal(roll(model, context, 4), roll(model, context[:, :, 4:], 4))


def test_clips_do_not_depend_on_the_batch_size():
    model, context = moved(small(**GOING_ON)), given(5)
    together, apart = (roll(model, context, 3, num=5, batch_size=size).int() for size in (5, 2))
    assert (together - apart).abs().max() <= 1


def test_clips_are_drawn_from_nothing_and_pictures_too():
    model = moved(small(**FROM_NOTHING))
    assert roll(model, None, 3).shape == (2, 3, 3, 8, 8)
    assert roll(model, None, 2).shape == (2, 3, 2, 8, 8)
    picture = roll(model, None, 1)
    assert picture.shape == (2, 3, 1, 8, 8)
    assert not torch.equal(picture, roll(model, None, 2)[:, :, :1])  # a picture has no frames after it to look at


@pytest.mark.parametrize(
    ("changes", "context", "frames", "words"),
    [
        (GOING_ON, None, 3, "0 frames are given: this model goes on from 3"),
        (GOING_ON, given(2, frames=2), 3, "2 frames are given: this model goes on from 3"),
        (FROM_NOTHING, given(2), 3, "goes on from no frames"),
        (FROM_NOTHING, None, 4, "draws clips of 3 frames and goes on from none"),
        (GOING_ON, given(2, size=16), 3, "the given frames are"),
        (GOING_ON, given(2, channels=1), 3, "the given frames are"),
        (GOING_ON, given(2), 0, "num_frames 0"),
    ],
)
def test_what_a_model_cannot_go_on_from_is_one_line(changes, context, frames, words):
    with pytest.raises(RinError, match=words):
        roll(moved(small(**changes)), context, frames)


def test_a_model_of_pictures_draws_no_clips():
    with pytest.raises(RinError, match="draws no clips"):
        num_blocks(small().kind, 3)


# What a network learns from


def test_a_clip_is_what_is_given_and_what_comes_after():
    config, clip = small(**VIDEO), given(2, frames=6)
    x_0, condition = config.kind.examples(clip, torch.tensor([1, 4]))
    assert torch.equal(x_0, to_floats(clip[:, :, 3:]))
    assert torch.equal(condition.context, to_floats(clip[:, :, :3]))
    assert condition.labels.tolist() == [1, 4]


def test_a_picture_is_a_clip_of_one_frame_to_a_network_of_clips():
    config, picture = small(**GOING_ON), given(2)[:, :, 0]
    x_0, condition = config.kind.examples(picture, torch.tensor([1, 4]))
    assert torch.equal(x_0, to_floats(picture)[:, :, None])
    assert condition.context is None
    assert condition.labels is None
    assert Diffusion(CONFIG).loss(moved(config), x_0, condition).isfinite()


# To be looked at


def test_borders_tell_given_frames_from_drawn_ones():
    clips = given(2, frames=5, size=48)
    shown = bordered(clips, 3)
    assert shown.shape == (2, 3, 5, 52, 52)
    assert torch.equal(shown[..., 2:-2, 2:-2], clips)
    for frame in range(5):
        edge = shown[:, :, frame, 0].permute(0, 2, 1).reshape(-1, 3).unique(dim=0)
        assert edge.tolist() == [list(GIVEN if frame < 3 else DRAWN)]


def test_grey_clips_get_borders_in_colour():
    clips = given(1, channels=1)
    assert torch.equal(bordered(clips, 0)[0, 2, :, 1:-1, 1:-1], clips[0, 0])


def test_a_contact_sheet_has_a_row_of_frames_a_clip():
    clips = given(2, frames=5, size=48)
    sheet = contact_sheet(clips)
    assert sheet.shape == (1, 3, 2 * 54 + 6, 5 * 54 + 6)
    assert torch.equal(sheet[0, :, 60:108, 6 + 3 * 54 : 54 + 3 * 54], clips[1, :, 3])


def test_clips_play_side_by_side():
    clips = given(3, frames=5, size=48)
    frames = playing(clips, columns=3)
    assert len(frames) == 5
    assert torch.equal(frames[2][0, :, 6:54, 60:108], clips[1, :, 2])


def slow(frames=4, height=33, width=21):
    """A picture whose grey grows from frame to frame."""
    return [torch.full((1, 3, height, width), 40 * number, dtype=torch.uint8) for number in range(frames)]


def test_a_video_has_its_frames_at_its_rate(tmp_path):
    save_video(slow(), tmp_path / "deep" / "a.mp4", 12.5)
    with av.open(str(tmp_path / "deep" / "a.mp4")) as opened:
        frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
        assert float(opened.streams.video[0].average_rate) == 12.5
    assert [frame.shape for frame in frames] == [(34, 22, 3)] * 4  # H.264 takes even sides
    assert all(abs(int(np.median(frame)) - 40 * number) <= 3 for number, frame in enumerate(frames))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.mp4"]


def write(path, labels=None, clips=None):
    save(given(4, frames=5) if clips is None else clips, path, labels=labels, class_names=("cat", "dog"), num_context=2)


def test_clips_are_written_in_every_way(tmp_path):
    for name in ("a.gif", "a.mp4", "a.png", "a.npz", "frames"):
        check_output(tmp_path / name, (3, 5, 32, 20), 4, 5, None)
        write(tmp_path / name)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["duration"]) == (5, 120)  # GIF counts in hundredths
    with av.open(str(tmp_path / "a.mp4")) as opened:
        assert len(list(opened.decode(video=0))) == 5
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > image.size[1]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], given(4, frames=5).permute(0, 2, 3, 4, 1).numpy())
        assert int(arrays["num_given"]) == 2
    frames = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "frames").rglob("*.png"))
    assert len(frames) == 20
    assert frames[6] == "frames/000001/0001.png"
    with Image.open(tmp_path / frames[6]) as image:
        assert np.array_equal(np.asarray(image), given(4, frames=5)[1, :, 1].permute(1, 2, 0).numpy())


def test_clips_with_classes_get_a_folder_a_class(tmp_path):
    write(tmp_path / "frames", labels=[0, 1, 1, 0])
    assert {path.name: len(list(path.iterdir())) for path in (tmp_path / "frames").iterdir()} == {"cat": 2, "dog": 2}


def test_a_run_shows_the_same_clips_every_time_and_goes_on_from_held_out_ones(tmp_path):
    config = MovingShapesConfig(num_clips=40)
    data = open_data(DataConfig(path="moving-shapes", num_held_out=4, moving_shapes=config), (3, 12, 32, 32))
    model = moved(small(**{**GOING_ON, "shape": (3, 8, 32, 32), "num_context_frames": 4}))
    shown, again = (
        draw_previews(Pipeline(model, Diffusion(CONFIG), model.config.kind), data, 0, "float32") for _ in range(2)
    )
    assert torch.equal(shown.sheet, again.sheet)
    clips = data.held_out.get(torch.arange(NUM_CLIPS) % 4)[0]
    expected, width = contact_sheet(bordered(clips, 4)), 4 * (34 * 2 + 8)
    assert torch.equal(shown.sheet[..., :width], expected[..., :width])
    assert not torch.equal(shown.sheet, expected)
    write_previews(shown, tmp_path, 7)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-000000007.gif",
        "step-000000007.png",
    ]
    with Image.open(tmp_path / "samples" / "step-000000007.gif") as image:
        assert image.n_frames == 12


def test_frames_with_opacity_are_shown_in_their_colours():
    clips = torch.tensor([200, 100, 50, 7], dtype=torch.uint8).reshape(1, 4, 1, 1, 1).expand(1, 4, 2, 8, 8)
    assert bordered(clips, 1)[0, :, 0, 4, 4].tolist() == [200, 100, 50]


def test_a_video_may_have_a_colon_in_its_name(tmp_path):
    save_video(slow(), tmp_path / "take:1.mp4", 8.0)
    assert [path.name for path in tmp_path.iterdir()] == ["take:1.mp4"]


@pytest.mark.parametrize(
    ("name", "num", "num_frames", "words"),
    [
        ("a.gif", 4, 4, None),
        ("a.gif", 10**7, 4, "a.gif: it would be [0-9]+ pixels wide or high, and .gif has 65535"),
        ("a.mp4", 10**6, 4, "and .mp4 has 16384"),
        ("a.webp", 1, 1000, "and .webp has 16383"),
        ("a.mp4", 4, 10**6, None),
    ],
)
def test_sheets_that_a_format_does_not_take_are_refused_before_the_work(tmp_path, name, num, num_frames, words):
    with nullcontext() if words is None else pytest.raises(RinError, match=words):
        check_output(tmp_path / name, (3, 8, 32, 32), num, num_frames, None)


def test_a_sheet_has_the_size_that_is_foretold():
    clips = given(5, frames=3)
    sides = clips.shape[1:]
    assert tuple(contact_sheet(bordered(clips, 2)).shape[2:]) == sheet_size(15, sides, 3)
    assert tuple(playing(bordered(clips, 2))[0].shape[2:]) == sheet_size(5, sides)


def test_samples_are_not_mixed_with_what_is_in_a_folder(tmp_path):
    (tmp_path / "old.png").touch()
    with pytest.raises(RinError, match="something in it already"):
        check_output(tmp_path, (3, 8, 8), 4, 1, None)


def test_frames_that_no_memory_takes_are_refused():
    model = moved(small(**GOING_ON))
    with pytest.raises(RinError, match="do not fit into memory"):
        roll(model, given(2), 10**16)


def test_clips_of_a_class_go_on_from_held_out_ones_of_it(monkeypatch, tmp_path):
    clips = given(5, frames=6)
    held_out = MediaInMemory(clips, torch.tensor([0, 1, 1, 0, 1]), ("cat", "dog", "owl"))
    monkeypatch.setattr(prediction, "held_out_clips", lambda _: held_out)
    it = trained(moved(small(**{**GOING_ON, "num_classes": 3})), CONFIG, held_out.class_names)
    for labels, places in ((None, [0, 1, 2, 3, 4, 0]), ([1, 1, 1, 1, 0, 0], [1, 2, 4, 1, 0, 3])):
        found = prediction.held_out_frames(it, tmp_path, 6, labels)
        assert torch.equal(found, clips[places][:, :, :3])
    with pytest.raises(RinError, match="holds no clips of class owl out: give --classes without it, or give a video"):
        prediction.held_out_frames(it, tmp_path, 2, [1, 2])
