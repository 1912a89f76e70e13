"""The demo: trains the digits preset on a CPU for a few minutes, shows what it draws, and measures it.

    python examples/demo.py [FOLDER]

Leaves FOLDER/run (the run), FOLDER/samples.png (ten of each class), FOLDER/denoising.gif (how they came about).
"""

import sys
import time
from pathlib import Path

import torch
from demo_measures import describe, measure

import rin
from rin.data import MediaSet
from rin.evaluation.outputs import write_samples
from rin.evaluation.sampling import sample_pictures, spread_labels

SHOWN, MEASURED, SEED, GUIDANCE = 100, 1000, 1, 1.0


def everything(images: MediaSet):
    """All pictures and labels of a set as arrays."""
    pictures, labels = images.get(torch.arange(len(images)))
    return pictures.numpy(), labels.numpy()


def main(folder: Path) -> None:
    """Trains, samples and measures."""
    started = time.perf_counter()
    experiment = rin.preset("digits")
    print(f"Training the digits preset for {experiment.training.num_steps} steps ...", flush=True)
    trained = rin.train(experiment, folder / "run")
    trained_in = time.perf_counter() - started

    print("Sampling ...", flush=True)
    labels = spread_labels(range(10), SHOWN)
    shown = sample_pictures(
        trained.model, trained.process, labels, SHOWN, seed=SEED, batch_size=SHOWN, num_frames=40, guidance=GUIDANCE
    )
    for name in ("samples.png", "denoising.gif"):
        write_samples(shown, labels, trained.class_names, SHOWN // 10, folder / name)
    measured_labels = spread_labels(range(10), MEASURED)
    drawn = sample_pictures(
        trained.model,
        trained.process,
        measured_labels,
        MEASURED,
        seed=SEED + 1,
        batch_size=MEASURED // 4,
        guidance=GUIDANCE,
    )

    data = rin.open_data(experiment.data, experiment.model.shape)
    measures = measure(
        drawn.pictures.numpy(),
        torch.tensor(measured_labels).numpy(),
        *everything(data.training),
        *everything(data.held_out),
    )
    print(f"\n{describe(measures)}\n")
    print(f"samples, ten of each class   {folder / 'samples.png'}")
    print(f"how they came about          {folder / 'denoising.gif'}")
    print(f"the run                      {folder / 'run'}")
    print(f"took {time.perf_counter() - started:.0f} s, {trained_in:.0f} s of it training")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
