"""What a card tells of a model and of the run that it is from; nothing of the machine, whose paths are nobody's."""

# pyright: reportAttributeAccessIssue=false
# Protocol buffers make their messages when they are imported.

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rin.core.kind import Kind
from rin.core.names import printable
from rin.data.config import BUILT_IN
from rin.diffusion import DiffusionConfig
from rin.experiment import ExperimentConfig
from rin.model_files import CONFIG, models_that_come_along, read_config, read_experiment
from rin.nn import RINConfig
from rin.nn.size import num_tokens
from rin.sharing.card import markdown_table
from rin.sharing.hub import is_hub_name
from rin.training.logging import LOG, read_log

_NAMES, _ROWS = 20, 6
"""Classes that are listed, and rows of the held-out losses."""

_IDENTITY = "data_identity"


class Origin(NamedTuple):
    """Where a model was opened."""

    folder: Path
    """A run's, or a saved model's."""

    num_updates: int | None
    """That a run's weights had; None of a saved model."""


def what_it_draws(kind: Kind, class_names: Sequence[str]) -> str:
    """A model's samples in words."""
    shape, channels = kind.shape, kind.frame_shape[0]
    of_channels = "" if channels in (1, 3) else f" of {channels} channels"
    if kind.is_set:
        words = f"sets of {shape[0]} vectors of {shape[1]} numbers"
    elif kind.is_signal:
        words = f"signals of length {shape[2]}{of_channels}"
    else:
        grey = "grey " if channels == 1 else ""
        words = f"{grey}{kind.noun} of {shape[-2]}x{shape[-1]} pixels{of_channels}"
    if kind.is_video:
        given = f" after {kind.num_context_frames} given ones" if kind.num_context_frames else ""
        words += f", {kind.num_frames} frames{given}"
    if kind.condition_shape:
        size = "x".join(map(str, kind.condition_shape[1:]))
        words += ", from a picture with a hole" if kind.has_hole else f", from a picture of {size} pixels"
    if kind.num_classes:
        listed = ", ".join(map(printable, class_names)) if len(class_names) <= _NAMES else ""
        words += f", by class: {listed}" if listed else f", by class ({kind.num_classes} of them)"
    if kind.has_captions:
        return f"{words}, by a text"
    return f"{words}, by embeddings" if kind.num_condition_tokens else words


def network_in_words(config: RINConfig, diffusion: DiffusionConfig, network: str | None) -> str:
    """A network's sizes, and how it is sampled from if nothing is said."""
    fewest = f" ({config.num_latents_min} at the fewest)" if config.num_latents_min else ""
    words = (
        f"A Recurrent Interface Network ([arXiv 2212.11972](https://arxiv.org/abs/2212.11972)): {num_tokens(config):,} "
        f"tokens of width {config.interface_dim}, {config.num_latents} latents{fewest} of width {config.latent_dim}, "
        f"{len(config.compute_depth)} blocks with {sum(config.compute_depth)} compute layers."
    )
    if network is not None:
        words = f"One of its own, `{network}`, which `rin.load(..., model=...)` is given."
    return (
        f"{words} It predicts {diffusion.prediction}, and samples by {diffusion.sampler} in {diffusion.num_steps} "
        "steps if nothing else is said; the weights are averaged ones."
    )


def public_name(path: str, known: Sequence[str] = ()) -> str | None:
    """A name that means the same to everybody, of a built-in set or on the Hub; None of what is on this machine."""
    if path in known:
        return path
    return path if is_hub_name(path) and not os.path.exists(os.path.expanduser(path)) else None


class RunFacts:
    """What the folder of a run, or of a saved model that tells its run, says of data and training.

    Args:
        origin: where the model was opened; None for one made in Python.

    Raises:
        RinError: its configuration or its log cannot be read.
    """

    def __init__(self, origin: Origin | None) -> None:
        self.origin = origin
        self.stored: dict[str, Any] = {}
        self.experiment: ExperimentConfig | None = None
        if origin is not None and (origin.folder / CONFIG).is_file():
            self.stored = read_config(origin.folder)
            if "training" in self.stored:
                self.experiment = read_experiment(origin.folder)

    @property
    def hub_data(self) -> str | None:
        """The set on the Hub that it was trained on; None for any other."""
        if self.experiment is None or _IDENTITY not in self.stored:  # before, paths were kept as they were given
            return None
        name = public_name(self.experiment.data.path)
        return name if name not in BUILT_IN else None

    def data(self) -> str:
        """The data in words."""
        if self.experiment is None:
            return "Not told by the folder that it was opened from."
        path = self.experiment.data.path
        words = f"`{path}`, which comes with rin" if path in BUILT_IN else "A set of the author's own"
        if self.hub_data is not None:
            words = f"[{path}](https://huggingface.co/datasets/{path}), split {self.experiment.data.split}"
        if identity := self.stored.get(_IDENTITY):
            words += f": {identity['num_training']:,} examples, and {identity['num_held_out']:,} held out"
        by = self.experiment.data.condition_by
        if by == "pair":
            return f"{words}; each has a picture of its own that it is drawn from."
        return words + (f"; the pictures that it draws from are made of them by `{by}`." if by else ".")

    def training(self) -> str:
        """How it was trained, in words, with the held-out losses of the run's log."""
        if self.experiment is None or self.origin is None:
            return "Not told by the folder that it was opened from."
        training, folder = self.experiment.training, self.origin.folder
        updates, before = self.origin.num_updates, ""
        if updates is None:  # a saved model tells one run, and may have had others
            updates, before = training.num_steps, "The last run: "
        hours = hours_trained(folder)
        start = ""
        if self.experiment.init_from:
            name = public_name(self.experiment.init_from, list(models_that_come_along()))
            start = f", from the weights of {f'`{name}`' if name else 'another model'}"
        words = (
            f"{before}{updates:,} updates of {training.batch_size} examples by {training.optimiser}, learning rate "
            f"{training.learning_rate:g} ({training.lr_schedule}, {training.warmup_steps:,} updates of warm-up), "
            f"seed {self.experiment.seed}{start}{f', in {hours:.2g} hours' if hours else ''}."
        )
        losses = [
            (line["step"], line["held_out_loss"])
            for line in read_log(folder / LOG)
            if isinstance(line.get("held_out_loss"), float) and line["step"] <= updates
        ]
        if not losses:
            return words
        shown = [losses[-1 - round(place * (len(losses) - 1) / (_ROWS - 1))] for place in range(_ROWS)]
        rows = [(f"{step:,}", f"{loss:.4f}") for step, loss in sorted(set(shown))]
        return f"{words}\n\n{markdown_table(('updates', 'held-out loss'), rows)}"


def hours_trained(folder: Path) -> float:
    """The hours that a run was at work by TensorBoard's events, updates that were made again among them; 0 if unknown.

    Args:
        folder: of the run, which has a file of events for each time that it was started.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    seconds = 0.0
    for file in folder.glob("events.out.tfevents.*"):
        times = [Event.FromString(record).wall_time for record in RawEventFileLoader(str(file)).Load()]
        seconds += max(times) - min(times) if times else 0.0
    return seconds / 3600
