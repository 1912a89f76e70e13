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
from rin.core.errors import RinError, StoppedError
from rin.data import MediaSet
from rin.sampling.requests import spread_labels

SHOWN, MEASURED, SEED, GUIDANCE = 100, 1000, 1, 0.5


def everything(images: MediaSet):
    """All pictures and labels of a set as arrays."""
    pictures, labels = images.get(torch.arange(len(images)))
    return pictures.numpy(), labels.numpy()


def main(folder: Path) -> None:
    """Trains, samples and measures."""
    started = time.perf_counter()
    experiment = rin.preset("digits")
    print(f"Training the digits preset for {experiment.training.num_steps} updates ...", flush=True)
    print(
        f"where it stands: .venv/bin/rin status {folder / 'run'}; Ctrl-C stops it, the same command goes on", flush=True
    )
    trained = rin.train(experiment, folder / "run")
    trained_in = time.perf_counter() - started

    print("Sampling ...", flush=True)
    labels = spread_labels(range(10), SHOWN)
    denoising = []
    shown = trained.sample(
        labels, seed=SEED, guidance=GUIDANCE, batch_size=SHOWN, callback=lambda _, x_0: denoising.append(x_0)
    )
    for name in ("samples.png", "denoising.gif"):
        rin.save(shown, folder / name, columns=SHOWN // 10, denoising=denoising[:: max(1, len(denoising) // 40)])
    measured_labels = spread_labels(range(10), MEASURED)
    drawn = rin.to_pictures(trained.sample(measured_labels, seed=SEED + 1, guidance=GUIDANCE))

    data = rin.open_data(experiment.data, experiment.model.shape)
    measures = measure(
        drawn.numpy(),
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
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
    except (RinError, StoppedError) as end:
        sys.exit(str(end))
    except KeyboardInterrupt:
        sys.exit("interrupted")
