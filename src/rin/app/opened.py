"""The model that a page shows: its weights, what its samples go on from, and what its latents cost."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rin.core.compute import device_of
from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.core.pixels import to_floats, to_pictures
from rin.core.shapes import Examples
from rin.costs.operations import cost
from rin.data import held_out_degraded
from rin.evaluation.videos import held_out_frames
from rin.model_files import WEIGHTS, model_folder, read_experiment
from rin.nn import RINConfig
from rin.run_data import held_out_of
from rin.trained_model import TrainedModel, load

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's names of pictures by their channels."""


class Opened:
    """A run or a saved model, opened for a page.

    One average of the weights is held at a time. Whoever computes holds `computing` while he does.

    Args:
        source: as `rin.load` takes it.

    Raises:
        RinError: it cannot be opened, or draws clips that go on from others, of which there are none.
    """

    def __init__(self, source: str) -> None:
        self.source, self.folder = source, model_folder(source)
        self.computing = threading.Lock()
        self._average: float | None = None
        self._trained = load(source)
        self.kind: Kind = self._trained.kind
        self.config: RINConfig = self._trained.config
        self.own = self._trained.diffusion.config
        self.device = device_of(self._trained.model)
        self.averages = _averages(self.folder)
        self.values = self._trained.values
        names = self._trained.class_names
        self.class_names = names or tuple(map(str, range(self.kind.num_classes)))
        self.condition, self.caption = _example(self.folder, self.kind)
        if self.kind.num_context_frames:
            try:
                self.context(self._trained, 1, None)
            except RinError as error:
                raise RinError(
                    f"there is nothing that clips could go on from in a page: {error} of rin sample"
                ) from error

    def trained(self, average: float | None = None) -> TrainedModel:
        """The model with one of the averages of its weights; call it within `computing`.

        Raises:
            RinError: there is no such average, or it cannot be read.
        """
        if average is not None and average not in self.averages:
            kept = ", ".join(map(str, self.averages)) or "one alone"
            raise RinError(f"{self.source} has no average of decay {average}: it has {kept}")
        wanted = None if self.averages and average == self.averages[0] else average
        if wanted != self._average:
            self._trained, self._average = load(self.source, average_decay=wanted), wanted
        return self._trained

    def context(self, trained: TrainedModel, num: int, labels: Sequence[int] | None) -> Examples | None:
        """The frames that clips go on from (num c given h w): held-out ones; None of other models.

        Raises:
            RinError: there are none.
        """
        if not self.kind.num_context_frames:
            return None
        return to_floats(held_out_frames(trained, self.folder, num, labels))

    @property
    def is_elastic(self) -> bool:
        """Whether it has learned to work with fewer latents than it has."""
        return 0 < self.config.num_latents_min < self.config.num_latents


def _averages(folder: Path) -> tuple[float, ...]:
    """The decays of a run's averages, the first one first; none of a saved model, which has one average."""
    if not os.path.isdir(folder) or (folder / WEIGHTS).exists():
        return ()
    experiment = read_experiment(folder)
    return () if experiment is None else (experiment.training.average_decay, *experiment.training.further_decays)


def _example(folder: Path, kind: Kind) -> tuple[Image.Image | None, str]:
    """A condition picture and a caption to begin with, of a run's first held-out example; nothing where none is read.

    Only models that are drawn from by such need them, and a person can give his own.
    """
    if not (kind.condition_shape or kind.has_captions):
        return None, ""
    try:
        experiment = read_experiment(folder)
        held_out = None if experiment is None else held_out_of(folder, experiment)
    except RinError:
        return None, ""
    if experiment is None or held_out is None or not len(held_out):
        return None, ""
    places = torch.zeros(1, dtype=torch.int64)
    stored, labels = held_out.get(places)
    label = int(labels[0])
    caption = held_out.class_names[label] if kind.has_captions and label >= 0 else ""
    degraded = held_out_degraded(stored, experiment.data.condition_by, places)
    return (None if degraded is None else _to_image(to_pictures(to_floats(degraded))[0].cpu().numpy())), caption


def _to_image(picture: np.ndarray) -> Image.Image | None:
    """A picture (c h w) with all its channels; None where Pillow has no name for so many."""
    mode = _MODES.get(len(picture))
    if mode is None:
        return None
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(picture, 0, -1).squeeze(-1) if mode == "L" else
                                                np.moveaxis(picture, 0, -1)))  # fmt: skip


def shares_of_operations(config: RINConfig) -> dict[int, float]:
    """The operations of a pass with each number of latents of an elastic network, over those with all of them.

    They are a polynomial of degree 2 in that number (latents meet weights, tokens, and one another), so three counted
    networks tell all.
    """
    least, most = config.num_latents_min, config.num_latents
    counted = sorted({least, (least + most) // 2, most})
    operations = [cost(config, count).operations for count in counted]
    counts = range(least, most + 1)
    through = np.polynomial.Polynomial.fit(counted, operations, len(counted) - 1)
    return {count: float(through(count)) / operations[-1] for count in counts}
