"""Training on data sets that are given in Python, in a process of its own.

    python -m tests.end_to_end.own_data KIND RUN COUNT

kills itself before the COUNT-th part of a batch, if that is not 0.
"""

import sys

import datasets
import torch

import rin
from tests.end_to_end.faults import Countdown, at_a_part
from tests.unit.models import small

SHAPE = (3, 8, 8)
PICTURES = torch.arange(40 * 192).mul(31).remainder(256).byte().unflatten(0, (40, *SHAPE))
LABELS = torch.arange(40) % 2


class Ten:
    """A data set of ten lines."""

    def __len__(self):
        return len(PICTURES)

    def __getitem__(self, number):
        return PICTURES[number], int(LABELS[number])


KINDS = {
    "ten lines": Ten,
    "datasets": lambda: datasets.Dataset.from_dict({"x": PICTURES.tolist(), "label": LABELS.tolist()}).with_format(
        "numpy", dtype="uint8"
    ),
    "TensorDataset": lambda: torch.utils.data.TensorDataset(PICTURES, LABELS),
}


def main(arguments):
    """Trains a small network for six updates."""
    kind, run, count = arguments
    if int(count):
        at_a_part(Countdown(int(count)))
    experiment = rin.ExperimentConfig(
        model=small(shape=SHAPE, patch_size=4, num_classes=2),
        data=rin.DataConfig(num_held_out=4, num_workers=1),
        training=rin.TrainingConfig(
            num_steps=6, batch_size=8, learning_rate=1e-3, lr_schedule="constant", warmup_steps=0, average_decay=0.5,
            log_every=1, held_out_every=3, checkpoint_every=2, sample_every=0, compile="off", precision="float32",
        ),
    )  # fmt: skip
    rin.train(experiment, run, data=KINDS[kind]())


if __name__ == "__main__":
    main(sys.argv[1:])
