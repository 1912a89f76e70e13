"""The streams of batches of every kind of set, to the last bit: runs that were begun before go on with the same data.

    python -m tests.unit.data.test_golden_streams

writes the digests anew. They change only with a reason that stands in the changelog.
"""

import hashlib
import io
import itertools
import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rin.data import DataConfig, joint_batches, open_data
from rin.data.prepared.shard_writing import Preparation
from rin.data.preparing import prepare_set
from tests.unit.data.test_tars import write_tar

GOLDEN = Path(__file__).with_name("golden_streams.json")
COUNT, BATCH, STEPS, SHAPE, SEED = 23, 5, 14, (3, 8, 8), 11
"""Fourteen batches of five are three epochs of 21 pictures and a part of the fourth."""


def picture(number):
    """A picture of its own size, mode and format."""
    draw = np.random.default_rng(number)
    size = (8 + number % 3, 8 + number % 5)
    image = Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8))
    return image.convert(("RGB", "L", "RGBA", "P")[number % 4])


def encoded(number):
    buffer = io.BytesIO()
    picture(number).save(buffer, "png")
    return buffer.getvalue()


def folder(path):
    for number in range(COUNT):
        place = path / "set" / ("cat", "dog", "fox")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(encoded(number))
    return path / "set"


def parquet(path):
    (path / "set").mkdir()
    for split, numbers in (("train", range(COUNT)), ("test", range(100, 106))):
        columns = {
            "img": [{"bytes": encoded(number), "path": None} for number in numbers],
            "label": [number % 4 for number in numbers],
        }
        pq.write_table(pa.table(columns), path / "set" / f"{split}-00000-of-00001.parquet", row_group_size=4)
    return path / "set"


def tar(path):
    for shard in range(2):
        numbers = range(shard, COUNT, 2)
        members = {
            f"{n:03d}.{end}": part for n in numbers for end, part in (("png", encoded(n)), ("cls", b"%d" % (n % 3)))
        }
        write_tar(path / "set" / f"train-{shard}.tar", members)
    return path / "set"


def prepared(path):
    prepare_set(Preparation(source=str(folder(path)), shape=SHAPE), path / "prepared")
    return path / "prepared"


SETS = {"folder": folder, "parquet": parquet, "tar": tar, "prepared": prepared}
WAYS = {"memory": {}, "on demand": {"memory_gib": 0.0}, "streamed": {"stream": True}, "no classes": {"labels": False}}
CASES = [(kind, way) for kind in SETS for way in WAYS if way != "streamed" or kind == "parquet"]


def stream(path, way, first_step=0, places=range(BATCH), steps=STEPS, **options):
    """Digests of some steps, each of pictures, classes and numbers."""
    data = open_data(DataConfig(path=str(path), num_held_out=2, **WAYS[way], **options), SHAPE)
    places = torch.tensor(list(places))
    with closing(
        joint_batches(data, seed=SEED, batch_size=BATCH, places=places, first_step=first_step, flip=True)
    ) as batches:
        return [
            [hashlib.sha256(part.numpy().tobytes()).hexdigest()[:16] for part in batch[:3]]
            for batch in itertools.islice(batches, steps)
        ]


def held_out(path, way):
    media, labels = open_data(DataConfig(path=str(path), num_held_out=2, **WAYS[way]), SHAPE).held_out.get(
        torch.arange(2)
    )
    return [hashlib.sha256(part.numpy().tobytes()).hexdigest()[:16] for part in (media, labels)]


@pytest.mark.parametrize(("kind", "way"), CASES, ids=str)
def test_the_stream_is_what_it_was(kind, way, tmp_path):
    golden = json.loads(GOLDEN.read_text())[f"{kind}, {way}"]
    path = SETS[kind](tmp_path)
    assert stream(path, way) == golden["batches"]
    assert stream(path, way, first_step=6, steps=STEPS - 6) == golden["batches"][6:]
    assert held_out(path, way) == golden["held_out"]


@pytest.mark.parametrize(("kind", "way"), CASES, ids=str)
def test_two_processes_have_the_parts_of_the_same_batches(kind, way, tmp_path):
    path = SETS[kind](tmp_path)
    data = open_data(DataConfig(path=str(path), num_held_out=2, **WAYS[way]), SHAPE)
    shares = [torch.tensor([0, 1, 2]), torch.tensor([3, 4]), torch.arange(BATCH)]
    streams = [
        joint_batches(data, seed=SEED, batch_size=BATCH, places=places, first_step=3, flip=True) for places in shares
    ]
    for first, second, whole in itertools.islice(zip(*streams, strict=True), 6):
        for parts, together in zip(zip(first[:3], second[:3], strict=True), whole[:3], strict=True):
            assert torch.equal(torch.cat(parts), together)
    for each in streams:
        each.close()


def main():
    """Writes the digests."""
    found = {}
    for kind, way in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = SETS[kind](Path(folder))
            found[f"{kind}, {way}"] = {"batches": stream(path, way), "held_out": held_out(path, way)}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} streams in {GOLDEN}", file=sys.stderr)


if __name__ == "__main__":
    main()
