"""Whether the data keeps up: images a second out of the loader, against what a training step takes of them."""

import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import rin
from benchmarks.growth import SMALL
from benchmarks.harness import Bench, Step, timed
from rin.data import OpenedData, batches
from rin.training.trainer import Trainer

JPEG_SIZE, JPEG_QUALITY, NUM_JPEGS = (500, 375), 90, 256
OCTAVES = ((4, 45.0), (16, 25.0), (64, 14.0), (250, 20.0), (500, 8.0))
"""Cells across and deviation in grey levels, from gradients to grain: files of 90 kB, ImageNet's mean is 110 kB."""

NUM_IN_MEMORY = 2048
ROUNDS = 3
WARM_UP_STEPS = 6
"""More than are decoded ahead: from there on a loader shows the rate that it can hold."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A network and the pictures that it is fed."""

    network: str
    """What a person calls it."""

    source: str
    """"memory", or "JPEG" for files that are decoded when needed."""

    experiment: rin.ExperimentConfig
    """What is trained, at the batch to measure."""


def loading(bench: Bench) -> None:
    """Measures the loader alone, the update alone, and training from the loader, where both may share the processor.

    The update is the trainer's own, with the way of a batch to the device and all. Files are read from the system's
    cache: what is measured is decoding, not a disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        for feed in feeds(bench.full):
            experiment, size = feed.experiment, feed.experiment.model.shape
            batch = experiment.training.batch_size
            data = open_pictures(feed.source, size, Path(folder))
            model, process = rin.RIN(experiment.model), rin.Diffusion(experiment.diffusion)
            trainer = Trainer(experiment.training, model, process, data, Path(folder), seed=0, flip=True)
            rates = {name: batch / seconds for name, seconds in _seconds(bench, trainer).items()}
            bench.record(
                "loading",
                size=f"{size[1]}x{size[2]}",
                source=feed.source,
                network=feed.network,
                batch=batch,
                loader_images_per_second=rates["loader"],
                step_images_per_second=rates["step"],
                loader_over_step=rates["loader"] / rates["step"],
                together_images_per_second=rates["together"],
            )


def feeds(full: bool) -> list[Feed]:
    """What is fed with what: presets on a GPU; on a CPU, RINs whose step is not all that one waits for."""
    if full:
        presets = (("cifar10", "memory", 256), ("imagenet-64", "JPEG", 64), ("imagenet-256", "JPEG", 32))
        return [Feed(network=name, source=source, experiment=preset_at(name, batch)) for name, source, batch in presets]
    small = [
        rin.ExperimentConfig(model=replace(SMALL, shape=(3, size, size)), training=rin.TrainingConfig(batch_size=batch))
        for size, batch in ((64, 16), (256, 8))
    ]
    return [
        Feed(network="small-32", source="memory", experiment=preset_at("small-32", 32)),
        *(Feed(network="small RIN", source="JPEG", experiment=experiment) for experiment in small),
    ]


def preset_at(name: str, batch: int) -> rin.ExperimentConfig:
    """A preset with another batch, in one part."""
    experiment = rin.preset(name)
    return replace(experiment, training=replace(experiment.training, batch_size=batch, accumulation_steps=1))


def open_pictures(source: str, shape: tuple[int, ...], folder: Path) -> OpenedData:
    """Pictures at a network's shape from the files in a sub-folder, which are made at the first call."""
    channels, height, width = shape
    files = folder / source
    if not files.exists():
        files.mkdir()
        if source == "JPEG":
            write_jpegs(files, NUM_JPEGS)
        else:
            write_noise(files, NUM_IN_MEMORY, (height, width, channels))
    config = rin.DataConfig(path=str(files), num_held_out=0, memory_gib=0.0 if source == "JPEG" else 4.0)
    return rin.open_data(config, (channels, height, width))


def write_jpegs(folder: Path, count: int) -> None:
    """Smooth random pictures with texture, of the size and weight of ImageNet's."""
    random = np.random.default_rng(0)
    width, height = JPEG_SIZE
    for number in range(count):
        levels = np.full((3, height, width), 127.0, np.float32)
        for cells, deviation in OCTAVES:
            grid = random.normal(0, deviation, (3, cells * height // width, cells)).astype(np.float32)
            for channel in range(3):
                levels[channel] += np.asarray(
                    Image.fromarray(grid[channel]).resize(JPEG_SIZE, Image.Resampling.BICUBIC)
                )
        picture = Image.fromarray(levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        picture.save(folder / f"{number}.jpg", quality=JPEG_QUALITY)


def write_noise(folder: Path, count: int, size: tuple[int, int, int]) -> None:
    """Small pictures of noise: what is in memory takes the same time whatever it shows."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def _seconds(bench: Bench, trainer: Trainer) -> dict[str, float]:
    """The time of a batch from the loader, of an update, and of both together.

    They take turns by the stretch, and no stream is open for the update: a thread that waits with a batch decoded
    ahead is enough to slow the others down.
    """
    stretches: dict[str, list[float]] = {"loader": [], "together": [], "step": []}
    for _ in range(ROUNDS):
        batch_size = trainer.config.batch_size
        stream = batches(
            trainer.data.training,
            seed=0,
            batch_size=batch_size,
            places=torch.arange(batch_size),
            first_step=0,
            flip=trainer.flip,
        )
        batch = next(stream)
        stretches["loader"].append(_mean_seconds(bench, lambda stream=stream: next(stream)))
        stretches["together"].append(_mean_seconds(bench, lambda stream=stream: trainer.update(next(stream))))
        stream.close()
        stretches["step"].append(_mean_seconds(bench, lambda batch=batch: trainer.update(batch)))
    return {name: statistics.median(seconds) for name, seconds in stretches.items()}


def _mean_seconds(bench: Bench, step: Step) -> float:
    """The mean of a stretch and not the median: a loader's stalls count."""
    for _ in range(WARM_UP_STEPS):
        step()
    times: list[float] = []
    while len(times) < 5 or sum(times) < bench.seconds / ROUNDS / 2:
        times.append(timed(step, bench.device))
    return statistics.mean(times)
