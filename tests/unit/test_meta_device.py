"""An update and two steps of sampling of every preset on the meta device, where there are no numbers.

Whatever would make a GPU wait for an answer (`.item()`, `.tolist()`, a branch on a number) fails there, and so does
arithmetic between two devices.
"""

import dataclasses

import pytest
import torch

from rin import RIN, Condition, Diffusion, preset
from rin.data import Batch, OpenedData
from rin.data.feeding.media_sets import MediaInMemory
from rin.presets import preset_names
from rin.training.trainer import Trainer

BATCH = 2
OPTIMISERS = {"digits": ("lamb", "muon")}
"""By preset, where they are not its own alone; PyTorch's fused AdamW is not there for the meta device."""

CASES = [
    (name, optimiser)
    for name in preset_names()
    for optimiser in OPTIMISERS.get(name, (preset(name).training.optimiser,))
]


def trainer_of(experiment, folder):
    kind = experiment.model.kind
    media = MediaInMemory(
        torch.zeros(BATCH, *kind.data_shape, dtype=torch.uint8),
        torch.zeros(BATCH, dtype=torch.int64),
        tuple(map(str, range(kind.num_classes))),
    )
    with torch.device("meta"):
        model = RIN(experiment.model)
    diffusion, data = Diffusion(experiment.diffusion), OpenedData(training=media, held_out=media)
    return Trainer(experiment.training, kind, model, diffusion, data, folder, experiment.seed, flip=False)


@pytest.mark.parametrize(("name", "optimiser"), CASES)
def test_nothing_waits_for_a_number_or_is_elsewhere(monkeypatch, tmp_path, name, optimiser):
    device = torch.device("meta")
    monkeypatch.setattr("rin.training.trainer.device", lambda: device)
    experiment = preset(name)
    depths = tuple(min(depth, 1) for depth in experiment.model.compute_depth[:2])  # the further ones are like these
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, compute_depth=depths),
        training=dataclasses.replace(experiment.training, batch_size=BATCH, optimiser=optimiser),
    )
    trainer = trainer_of(experiment, tmp_path)
    media, labels = trainer.data.training.get(torch.arange(BATCH))
    trainer.update(Batch(media, labels, torch.arange(BATCH)))
    model = experiment.model
    labels = torch.zeros(BATCH, dtype=torch.int64, device=device) if model.num_classes else None
    frames = (BATCH, model.shape[0], model.num_context_frames, *model.shape[2:])
    context = torch.zeros(frames, device=device) if model.num_context_frames else None
    samples = trainer.diffusion.sample(
        trainer.average.model, (BATCH, *model.shape), Condition(labels=labels, context=context), num_steps=2,
        seeds=[0, 1], guidance=0.5 if experiment.diffusion.label_drop_rate else 0.0,
    )  # fmt: skip
    assert samples.is_meta
    assert samples.shape == (BATCH, *model.shape)
