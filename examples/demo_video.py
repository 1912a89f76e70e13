"""The video demo: trains the moving-shapes preset on a CPU, predicts clips, and measures where the shapes are.

    python examples/demo_video.py [FOLDER]

Leaves FOLDER/run (the run), FOLDER/clips.gif (predicted clips above what truly happens; blue borders are given frames,
orange ones predicted), FOLDER/clips.png (their frames in rows), FOLDER/measures.json.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

import rin
from rin.core.errors import RinError, StoppedError
from rin.evaluation.videos import measured_shapes
from rin.sampling.pictures import bordered, contact_sheet, playing, save_animation, save_image
from rin.toys.moving_shapes import draw_scenes

SHOWN, MEASURED, SEED, FRAME_MS = 8, 256, 1, 150


def show(trained: rin.TrainedModel, experiment: rin.ExperimentConfig, folder: Path) -> None:
    """Predicted clips of scenes that the set does not hold, and their true course."""
    kind, shapes = trained.kind, experiment.data.moving_shapes
    (_, length, height, width), given = kind.data_shape, kind.num_context_frames
    rows = np.arange(shapes.num_clips + MEASURED, shapes.num_clips + MEASURED + SHOWN)
    true = torch.from_numpy(draw_scenes(shapes, (height, width), length, rows).draw(range(length)))
    context = true[:, :, :given]
    drawn = rin.to_pictures(trained.sample(context=rin.to_floats(context), seed=SEED))
    both = torch.cat([bordered(torch.cat([context, drawn], dim=2), given), bordered(true, length)])
    save_animation(playing(both, columns=SHOWN), folder / "clips.gif", FRAME_MS, last_ms=1000)
    pairs = both.unflatten(0, (2, SHOWN)).transpose(0, 1).flatten(0, 1)  # each true clip below its prediction
    save_image(contact_sheet(pairs), folder / "clips.png")


def main(folder: Path) -> None:
    """Trains, shows and measures."""
    started = time.perf_counter()
    experiment = rin.preset("moving-shapes")
    print(f"Training the moving-shapes preset for {experiment.training.num_steps} updates ...", flush=True)
    print(
        f"where it stands: .venv/bin/rin status {folder / 'run'}; Ctrl-C stops it, the same command goes on", flush=True
    )
    trained = rin.train(experiment, folder / "run")
    trained_in = time.perf_counter() - started

    print("Predicting ...", flush=True)
    show(trained, experiment, folder)
    measures = measured_shapes(trained, folder / "run", MEASURED, None, seed=SEED)
    (folder / "measures.json").write_text(json.dumps(measures.to_json(), indent=1) + "\n")
    print(f"\n{measures.describe()}\n")
    print(f"predictions above the truth   {folder / 'clips.gif'}, {folder / 'clips.png'}")
    print(f"the run                       {folder / 'run'}")
    print(f"took {time.perf_counter() - started:.0f} s, {trained_in:.0f} s of it training")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-video"))
    except (RinError, StoppedError) as end:
        sys.exit(str(end))
    except KeyboardInterrupt:
        sys.exit("interrupted")
