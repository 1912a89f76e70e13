"""Clips out of video files: which frames they have, how these look, and files that are not as they should be."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from rin.data.decoding.cutting import FirstClip, cut
from rin.data.decoding.pictures import BrokenMediaError, decode
from rin.data.decoding.videos import ClipsConfig, look_into
from tests.unit.data.videos import SIZE, numbered, numbers, truncated, video

SHAPE = (1, 8, 16, 24)
"""Of clips of eight frames, in grey."""


def clips_of(source, num_frames=8, size=(SIZE[1], SIZE[0]), channels=1, **config):
    """All clips of one video."""
    config, looked = ClipsConfig(**config), look_into(source)
    count = looked.num_clips(num_frames, config)
    return [cut(looked, clip, num_frames, config).decode((channels, num_frames, *size)) for clip in range(count)]


def shown(source, num_frames=8, **config):
    """The numbers that the frames of each clip of a video show."""
    return [numbers(clip) for clip in clips_of(source, num_frames, **config)]


def stretches(*begins, stride=1, num_frames=8):
    return [list(range(begin, begin + num_frames * stride, stride)) for begin in begins]


# --- which frames ---


@pytest.mark.parametrize("rate", [25, 30, Fraction(30000, 1001)])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.flv", "libx264"), ("a.avi", "mpeg4")),
        *(("a.webm", "libvpx-vp9"), ("a.y4m", "rawvideo"), ("mjpeg.avi", "mjpeg"), ("a.m4v.mov", "mpeg4")),
    ],
)
def test_a_constant_rate_gives_exactly_its_frames(tmp_path, name, codec, rate):
    """Also far into a long group of pictures with B-frames, from .ts and .flv, whose clocks do not begin at 0."""
    file = video(tmp_path / name, 100, codec=codec, rate=rate)
    assert shown(file) == stretches(*range(0, 96, 8))
    assert shown(file, start=92) == stretches(92)
    assert shown(file, start=93) == []


def test_frames_are_taken_with_stride_start_and_every(tmp_path):
    file = video(tmp_path / "a.mp4", 40)
    assert shown(file, stride=3) == stretches(0, stride=3)
    assert shown(file, stride=2, start=3) == stretches(3, 18, stride=2)
    assert shown(file, every=16) == stretches(0, 16, 32)
    assert shown(file, every=3, start=20) == stretches(20, 23, 26, 29, 32)
    assert shown(file, 1, every=39) == [[0], [39]]
    assert shown(file, 40) == [list(range(40))]


def test_a_rate_is_met_by_leaving_out_or_repeating_frames(tmp_path):
    file = video(tmp_path / "a.mp4", 40, rate=20)
    assert shown(file, rate=10.0) == stretches(0, 16, stride=2)
    assert shown(file, rate=40.0)[1] == [4, 4, 5, 5, 6, 6, 7, 7]
    assert len(shown(file, rate=40.0)) == 10


def test_unequal_frames_come_out_at_a_constant_speed(tmp_path):
    """Frame n is shown from tick ticks[n] on, so at tick t the last frame whose tick is at most t."""
    ticks = [0, 1, 2, 6, 8, 10, 11, 12, 20, 21, 22, 23]
    at_tick = [max(number for number, tick in enumerate(ticks) if tick <= time) for time in range(24)]
    for name in ("a.mp4", "a.mkv"):
        file = video(tmp_path / name, 12, ticks=ticks)
        assert list(itertools.chain(*shown(file, rate=25.0))) == at_tick
        assert list(itertools.chain(*shown(file, 4, rate=12.5))) == at_tick[::2]


def test_a_clock_that_begins_late_is_no_matter(tmp_path):
    file = video(tmp_path / "a.mkv", 40, ticks=range(1000, 1040))
    assert look_into(file).begin == pytest.approx(40)
    assert shown(file) == stretches(0, 8, 16, 24, 32)


def test_sound_that_is_longer_than_the_frames_is_no_matter(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.ts", "a.flv"):
        assert shown(video(tmp_path / name, 40, audio=True)) == stretches(0, 8, 16, 24, 32)


def test_a_header_without_a_length_is_no_matter(tmp_path):
    """As in recordings of browsers, which are written to a pipe."""
    assert shown(video(tmp_path / "a.mkv", 40, live="1")) == stretches(0, 8, 16, 24, 32)
    assert shown(video(tmp_path / "parts.mp4", 40, movflags="frag_keyframe+empty_moov")) == stretches(0, 8, 16, 24, 32)


def test_a_guessed_length_is_not_taken(tmp_path):
    """libav tells less than the truth of short .mpg files, and of .wmv files the length of the longest stream."""
    assert look_into(video(tmp_path / "a.mpg", 40, codec="mpeg2video")).length == pytest.approx(1.6)
    assert shown(video(tmp_path / "a.wmv", 40, codec="wmv2", audio=True)) == stretches(0, 8, 16, 24, 32)


def test_animated_gifs_are_videos(tmp_path):
    assert shown(video(tmp_path / "a.gif", 16, codec="gif")) == stretches(0, 8)


def gif(path, durations):
    """A GIF of numbered frames, each of a duration in milliseconds."""
    first, *rest = [Image.fromarray(numbered(number)) for number in range(len(durations))]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)
    return path


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("duration", [0, 10, 40, 70, 1000])
def test_a_gif_gives_each_frame_once_and_the_last_one_too(tmp_path, duration, count):
    """Also one that says 0 of each, which is a tenth of a second then."""
    file = gif(tmp_path / "a.gif", [duration] * count)
    assert look_into(file).rate == pytest.approx(1000 / (duration or 100))
    assert look_into(file).num_frames(ClipsConfig()) == count
    assert shown(file, count) == [list(range(count))]


def test_a_gif_that_says_0_of_some_frames_shows_them_for_a_tenth_of_a_second(tmp_path):
    file = gif(tmp_path / "a.gif", [0, 0, 200, 0])
    assert shown(file, 5, rate=10.0) == [[0, 1, 2, 2, 3]]


def test_bytes_are_as_good_as_a_file(tmp_path):
    assert shown(video(tmp_path / "a.mp4", 16).read_bytes()) == stretches(0, 8)


# --- how they look ---


def corners(_):
    """Red at the upper left, green at the upper right, blue at the lower left, grey elsewhere."""
    pixels = np.full((32, 48, 3), 128, np.uint8)
    pixels[:12, :12], pixels[:12, -12:], pixels[-12:, :12] = (230, 20, 20), (20, 230, 20), (20, 20, 230)
    return pixels


def corner_colours(picture):
    """The letter of the colour in each corner of a picture (3, h, w): upper left, upper right, lower left and right."""
    found = ""
    for y, x in ((3, 3), (3, -4), (-4, 3), (-4, -4)):
        colour = picture[:, y, x].int()
        found += "." if colour.max() - colour.min() < 60 else "rgb"[int(colour.argmax())]
    return found


@pytest.mark.parametrize(
    ("degrees", "flip", "expected"),
    [
        *((0, False, "rgb."), (90, False, "g.rb"), (180, False, ".bgr"), (270, False, "br.g")),
        *((0, True, "gr.b"), (90, True, ".gbr"), (180, True, "b.rg"), (270, True, "rbg.")),
    ],
)
def test_rotation_in_the_metadata_is_followed(tmp_path, degrees, flip, expected):
    """Degrees are counted against the clock; the flip comes after the turn."""
    file = video(
        tmp_path / "a.mp4", 8, frame=corners, change=lambda stream: stream.set_display_rotation(degrees, hflip=flip)
    )
    size = (48, 32) if degrees % 180 else (32, 48)
    clip = clips_of(file, size=size, channels=3)[0]
    assert {corner_colours(frame) for frame in clip.unbind(1)} == {expected}


def test_a_telephone_held_upright_is_upright(tmp_path):
    """The matrix that telephones write in the track's header: the sensor's frames are to be turned with the clock."""
    file = video(tmp_path / "a.mp4", 8, frame=corners)
    unit, stored = (1 << 16).to_bytes(4, "big"), file.read_bytes()
    place = stored.index(b"tkhd") + 4 + 40
    upright = unit + bytes(12) + unit + bytes(12) + (1 << 30).to_bytes(4, "big")
    assert stored[place : place + 36] == upright
    turned = bytes(4) + unit + bytes(4) + (-(1 << 16)).to_bytes(4, "big", signed=True) + bytes(16) + upright[-4:]
    file.write_bytes(stored[:place] + turned + stored[place + 36 :])
    assert corner_colours(clips_of(file, size=(48, 32), channels=3)[0][:, 0]) == "br.g"


@pytest.mark.parametrize("degrees", [0, 90])
def test_pixels_that_are_not_square_are_shown_with_their_proportions(tmp_path, degrees):
    """A disc that is stored as an ellipse half as wide as high comes out round."""

    def squeezed(_):
        y, x = np.mgrid[:64, :32]
        inside = ((x - 15.5) / 10) ** 2 + ((y - 31.5) / 20) ** 2 < 1
        return np.repeat(np.where(inside, 235, 16).astype(np.uint8)[..., None], 3, 2)

    def change(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_rotation(degrees)

    file = video(tmp_path / "a.mp4", 8, frame=squeezed, change=change)
    assert look_into(file).pixel_aspect == 2
    disc = clips_of(file, size=(64, 64))[0][0, 0] > 128
    assert abs(int(disc.any(0).sum()) - 40) <= 2
    assert abs(int(disc.any(1).sum()) - 40) <= 2
    assert not disc[:10].any()
    assert not disc[:, :10].any()
    narrow = clips_of(file, size=(64, 32))[0][0, 0] > 128  # the middle half of the width
    assert narrow[32].all()
    assert abs(int(narrow.any(1).sum()) - 40) <= 2


def test_frames_are_made_from_their_pixels_as_pictures_are(tmp_path):
    """Colours within the rounding of the codec's own; crop and resizing to the last digit."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(30, 226, (4, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC))
    file = video(tmp_path / "a.mkv", 8, frame=lambda _: smooth)
    full = clips_of(file, size=(64, 96), channels=3)[0][:, 0]
    difference = full.int() - torch.from_numpy(smooth.copy()).permute(2, 0, 1).int()
    assert difference.abs().double().mean() < 3
    assert difference.double().mean().abs() < 0.3
    png = tmp_path / "frame.png"
    Image.fromarray(full.permute(1, 2, 0).numpy()).save(png)
    for shape in ((3, 20, 20), (1, 16, 40), (4, 64, 96), (3, 100, 30)):
        clip = clips_of(file, size=shape[1:], channels=shape[0])[0]
        assert clip.shape == (shape[0], 8, *shape[1:])
        assert torch.equal(clip[:, 0], decode(png, shape))


def test_greys_are_exact(tmp_path):
    """Grey 17 * n is stored as 16 + 14.6 * n, so it comes back within a level of that rounding."""
    file = video(tmp_path / "a.y4m", 16, codec="rawvideo", frame=lambda number: np.full((32, 48, 3), 17 * number, "u1"))
    clip = clips_of(file, 16)[0]
    levels = clip.double().mean(dim=(0, 2, 3))
    assert (levels - 17 * torch.arange(16)).abs().max() <= 1
    assert clip.amax(dim=(2, 3)).equal(clip.amin(dim=(2, 3)))


# --- files that are not as they should be ---


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
def test_a_truncated_file_gives_the_clips_before_its_end(tmp_path, name, codec):
    file = truncated(tmp_path / name, codec=codec)
    looked, config = look_into(file), ClipsConfig()
    assert looked.num_clips(8, config) == 5
    first = cut(looked, 0, 8, config).decode((1, 8, SIZE[1], SIZE[0]))
    assert numbers(first[:, :, 10:]) == list(range(8))
    with pytest.raises(BrokenMediaError, match=r"it ends after [1-7] of 8 frames: truncated"):
        cut(looked, 2, 8, config).decode(SHAPE)
    with pytest.raises(BrokenMediaError, match=r"it ends after 0 of 8 frames: truncated"):
        cut(looked, 4, 8, config).decode(SHAPE)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_frame_that_is_missing_at_the_end_is_not_made_up(tmp_path, missing):
    looked = look_into(video(tmp_path / "whole.mkv", 40))
    short = video(tmp_path / "short.mkv", 40 - missing)
    clip = cut(type(looked)(**{**vars(looked), "source": short}), 4, 8, ClipsConfig())
    with pytest.raises(BrokenMediaError, match=f"ends after {8 - missing} of 8"):
        clip.decode(SHAPE)


def test_headers_that_cannot_be_true_are_refused(tmp_path):
    """The clips of ten million hours would not even fit into memory."""
    stored = video(tmp_path / "a.mkv", 8).read_bytes()
    assert stored.count(b"00:00:00.320000000") == 1
    with pytest.raises(BrokenMediaError, match="tells a length that no video has"):
        look_into(stored.replace(b"00:00:00.320000000", b"9999999:00:00.3200"))


def test_odd_names_are_names(tmp_path):
    for name in ("http:a b.mp4", "%03d.mp4", "été — 猫.mkv", "a'b.mp4"):
        assert shown(video(tmp_path / "made.mp4", 8).rename(tmp_path / name)) == stretches(0)


def test_the_first_clip_of_a_video_that_nobody_looked_into(tmp_path):
    file, config = video(tmp_path / "a.mp4", 20), ClipsConfig(start=3)
    assert numbers(FirstClip(source=file, config=config).decode((1, 8, SIZE[1], SIZE[0]))) == stretches(3)[0]
    with pytest.raises(BrokenMediaError, match="shorter than a clip, which spans 18 frames, and has 17"):
        FirstClip(source=file, config=config).decode((1, 18, 8, 8))


def test_numbers_can_be_read_off():
    """The tests' own ruler."""
    frames = torch.from_numpy(np.stack([numbered(number) for number in range(256)])[..., 0])
    assert numbers(frames[None]) == list(range(256))
