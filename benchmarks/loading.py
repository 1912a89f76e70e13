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
from benchmarks.jpegs import write_jpegs
from benchmarks.loading_paths import loading_paths
from rin.data import OpenedData, batches
from rin.data.preparing import Preparation, prepare_set
from rin.training.trainer import Trainer

JPEG_SIZE, NUM_JPEGS = (500, 375), 256
"""Width and height: files of about the size of ImageNet's."""

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
    """"memory", "JPEG" for files that are decoded when needed, or "prepared" for a set made of these."""

    experiment: rin.ExperimentConfig
    """What is trained, at the batch to measure."""


def loading(bench: Bench) -> None:
    """Measures the loader alone, the update alone, and training from the loader, where both may share the processor.

    With another tree beside this one: how fast both read each kind of set, and no more.

    The update is the trainer's own, with the way of a batch to the device and all. Files are read from the system's
    cache: what is measured is decoding, not a disk.
    """
    if bench.beside is not None:
        loading_paths(bench, bench.beside)
        return
    with tempfile.TemporaryDirectory() as folder:
        for feed in feeds(bench.full):
            experiment, size = feed.experiment, feed.experiment.model.shape
            batch = experiment.training.batch_size
            data = open_pictures(feed.source, size, Path(folder))
            model, diffusion = rin.RIN(experiment.model), rin.Diffusion(experiment.diffusion)
            trainer = Trainer(
                experiment.training, experiment.model.kind, model, diffusion, data, Path(folder), seed=0, flip=True
            )
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
        presets = (
            ("cifar10", "memory", 256),
            ("imagenet-64", "JPEG", 64),
            ("imagenet-256", "JPEG", 32),
            ("imagenet-256", "prepared", 32),
        )
        return [Feed(network=name, source=source, experiment=preset_at(name, batch)) for name, source, batch in presets]
    small = [
        rin.ExperimentConfig(model=replace(SMALL, shape=(3, size, size)), training=rin.TrainingConfig(batch_size=batch))
        for size, batch in ((64, 16), (256, 8))
    ]
    return [
        Feed(network="small-32", source="memory", experiment=preset_at("small-32", 32)),
        *(
            Feed(network="small RIN", source=source, experiment=experiment)
            for experiment in small
            for source in ("JPEG", "prepared")
        ),
    ]


def preset_at(name: str, batch: int) -> rin.ExperimentConfig:
    """A preset with another batch, in one part."""
    experiment = rin.preset(name)
    return replace(experiment, training=replace(experiment.training, batch_size=batch, accumulation_steps=1))


def open_pictures(source: str, shape: tuple[int, ...], folder: Path) -> OpenedData:
    """Pictures at a network's shape from a sub-folder, filled at the first call; JPEGs come before sets of them."""
    channels, height, width = shape
    if source == "prepared":
        prepared = folder / f"prepared-{height}"
        prepare_set(Preparation(source=str(folder / "JPEG"), shape=(channels, height, width)), prepared)
        config = rin.DataConfig(path=str(prepared), num_held_out=0)
    elif source == "JPEG":
        if not (folder / source).exists():
            write_jpegs(folder / source, NUM_JPEGS, JPEG_SIZE)
        config = rin.DataConfig(path=str(folder / source), num_held_out=0, memory_gib=0.0)
    else:
        write_noise(folder / source, NUM_IN_MEMORY, (height, width, channels))
        config = rin.DataConfig(path=str(folder / source), num_held_out=0)
    return rin.open_data(config, (channels, height, width))


def write_noise(folder: Path, count: int, size: tuple[int, int, int]) -> None:
    """Small pictures of noise: what is in memory takes the same time whatever it shows."""
    folder.mkdir()
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
