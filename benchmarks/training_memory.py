"""An update of whole presets on one device: images a second and memory, with blocks kept and with blocks computed anew.

At full size these are the presets at the batch a card holds, 1024x1024 among them.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import Bench, Step
from rin import RIN, Diffusion, ExperimentConfig, preset
from rin.core.compute import uses_bfloat16
from rin.costs.operations import cost
from rin.data import Batch, OpenedData
from rin.data.feeding.media_sets import MediaInMemory
from rin.training.trainer import Trainer

BATCHES = {
    "cifar10-modern": 256, "cifar10": 256, "imagenet-64": 256, "imagenet-128": 128, "imagenet-256": 256,
    "imagenet-512": 64, "imagenet-1024": 16, "moving-shapes-64": 64, "kinetics-600": 64,
}  # fmt: skip
SMALL_BATCHES = {"digits": 32, "small-32": 32}


def training_memory(bench: Bench) -> None:
    """Records a line a preset and way; what does not fit the device is recorded as such, and halved."""
    for name, batch in (BATCHES if bench.full else SMALL_BATCHES).items():
        if bench.presets and name not in bench.presets:
            continue
        for recompute in (False, True) if name.startswith("imagenet") else (False,):
            _measure(bench, name, batch, recompute)


def _measure(bench: Bench, name: str, batch: int, recompute: bool) -> None:
    label = "computed anew" if recompute else "kept"
    try:
        step = preset_update(bench, name, batch, recompute)
        memory = bench.peak_memory(step)
        seconds = bench.interleave({name: step}, min_rounds=3)[name]
    except torch.OutOfMemoryError:
        bench.record("training memory", preset=name, blocks=label, batch=batch, out_of_memory=True)
        torch.cuda.empty_cache()
        if batch > 1:
            _measure(bench, name, batch // 2, recompute)
        return
    bfloat16 = uses_bfloat16("auto", bench.device)
    rate = bench.matmul_rate(torch.bfloat16 if bfloat16 else torch.float32)
    share = 4 * cost(preset(name).model).operations * batch / seconds / rate  # first pass, main pass, backward
    bench.record(
        "training memory", preset=name, blocks=label, batch=batch, images_per_second=batch / seconds,
        step_seconds=seconds, peak_bytes=memory, share_of_matmul=share,
    )  # fmt: skip


def preset_update(bench: Bench, name: str, batch: int, recompute: bool) -> Step:
    """An update of a preset as `rin train` makes it, on random pictures."""
    experiment = preset(name)
    training = replace(experiment.training, batch_size=batch, accumulation_steps=1, recompute_blocks=recompute)
    with bench.device:
        images = torch.randint(0, 256, (batch, *experiment.model.kind.data_shape), dtype=torch.uint8)
        pictures = Batch(images, torch.randint(max(experiment.model.num_classes, 1), (batch,)), torch.arange(batch))
    return update(replace(experiment, training=training), pictures, bench.path.parent)


def update(experiment: ExperimentConfig, pictures: Batch, folder: Path) -> Step:
    """An update of an experiment by the trainer itself, of the same pictures each time."""
    seen = MediaInMemory(pictures.media, pictures.labels, ())
    diffusion, data = Diffusion(experiment.diffusion), OpenedData(training=seen, held_out=seen)
    trainer = Trainer(
        experiment.training, experiment.model.kind, RIN(experiment.model), diffusion, data, folder, seed=0, flip=False
    )
    return partial(trainer.update, pictures)
