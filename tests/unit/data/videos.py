"""Small videos whose frames carry their number in their pixels."""

from fractions import Fraction

import av
import numpy as np

SIZE = (48, 32)
"""Width and height."""


def numbered(number, size=SIZE):
    """A frame that shows a number below 256: sixteens in the grey of its left half, ones in that of its right."""
    width, height = size
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = number // 16 * 15, number % 16 * 15
    return pixels


def numbers(clip):
    """What the frames of a clip (1, f, h, w) show."""
    levels = clip[0].double()
    half = levels.shape[-1] // 2
    left, right = (part.mean(dim=(1, 2)).div(15).round().long() for part in (levels[..., :half], levels[..., half:]))
    return (16 * left + right).tolist()


def video(
    path, frames=40, *, codec="libx264", rate=25, ticks=None, frame=numbered, change=None, audio=False, **options
):
    """A video file of numbered frames.

    Args:
        path: where it is made.
        frames: how many, or the numbers that they show.
        codec: what they are encoded with.
        rate: frames a second.
        ticks: when each is shown, in 1/rate seconds; one after the other if not given.
        frame: the pixels (h, w, 3) that show a number.
        change: called with the stream before the first frame.
        audio: whether there is a tone beside, half a second longer.
        options: the container's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = list(range(frames)) if isinstance(frames, int) else list(frames)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        first = frame(0)
        stream.width, stream.height = first.shape[1], first.shape[0]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.options = {
            "libx264": {"bf": "3", "g": "100", "qp": "10"}, "mpeg4": {"bf": "2", "g": "100", "qmin": "1", "qmax": "2"},
        }.get(codec, {})  # fmt: skip
        tone = container.add_stream("aac", rate=16_000, layout="mono") if audio else None
        if change is not None:
            change(stream)
        for place, number in enumerate(shown):
            picture = av.VideoFrame.from_ndarray(frame(number), "rgb24")
            picture.pts, picture.time_base = place if ticks is None else ticks[place], 1 / Fraction(rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if tone is not None:
            write_tone(container, tone, len(shown) / rate + 0.5)
    return path


def write_tone(container, stream, seconds):
    for start in range(0, int(16_000 * seconds), 1024):
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.pts, sound.sample_rate, sound.time_base = start, 16_000, Fraction(1, 16_000)
        container.mux(stream.encode(sound))
    container.mux(stream.encode())


def sound_only(path, seconds=1):
    """A file with a tone and no video stream."""
    with av.open(str(path), "w") as container:
        write_tone(container, container.add_stream("aac", rate=16_000, layout="mono"), seconds)
    return path


def truncated(path, share=0.6, **options):
    """A video file that opens, and then ends early."""
    chance = np.random.default_rng(0)
    noise = chance.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)

    def noisy(number):  # noise above, which takes bytes
        pixels = numbered(number)
        pixels[:8] = np.roll(noise, number, axis=1)[:8]
        return pixels

    video(path, frame=noisy, **({"movflags": "faststart"} if path.suffix == ".mp4" else {}), **options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path
