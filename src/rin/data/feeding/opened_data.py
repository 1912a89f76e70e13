"""The sets of a run, opened: what its trainer is fed from."""

from dataclasses import dataclass, replace

import torch

from rin.core.kind import Kind
from rin.core.texts import EmbeddedCaptions
from rin.core.values import PICTURES, Values
from rin.data.feeding.media_sets import MediaSet
from rin.data.files.identity import DataIdentity


@dataclass(frozen=True, kw_only=True)
class OpenedData:
    """The sets of a run, which share no picture."""

    training: MediaSet
    """The pictures to train on."""

    held_out: MediaSet
    """The pictures to measure on; none if the set is too small or none are asked for."""

    pictures: MediaSet | None = None
    """What a model of clips also learns from, as clips of one frame."""

    pictures_rate: float = 0.0
    """The share of the updates that are on these."""

    identity: DataIdentity | None = None
    """What tells these sets from others; None for sets that come from no source."""

    values: Values = PICTURES
    """What the numbers of the examples mean."""

    notes: tuple[str, ...] = ()
    """What the sources hold and is not used, and why: a line each."""

    degrade: str = ""
    """How the pictures that a model draws from are made of its examples, see `DataConfig`."""

    num_workers: int | None = None
    """Processes that make the examples that are not in memory; None is one a core, 0 a thread."""

    has_captions: bool = False
    """Whether the names of the classes are captions."""

    embedded: EmbeddedCaptions | None = None
    """What labels stand for, where the data has embeddings of that."""

    def with_captions(self, kind: Kind, device: torch.device | None = None) -> Kind:
        """A model's kind that knows what the labels of these data stand for, if that is captions or embeddings.

        Raises:
            RinError: a caption is longer than the model reads, or its text encoder cannot be opened.
        """
        known = self.embedded
        if known is None or (kind.text_encoder, kind.num_condition_tokens) != (known.encoder, known.mask.shape[1]):
            return kind.reading(self.training.class_names, device)
        return replace(kind, captions=known)
