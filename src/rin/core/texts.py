"""Captions as a network is given them: a token each byte, or the tokens of a text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Labels

NUM_BYTES = 256

Texts = UInt8[Tensor, "b length"]
"""Captions in UTF-8, with zeros behind their end."""

Tokens = tuple[Float[Tensor, "b tokens dim"], Bool[Tensor, "b tokens"]]
"""Tokens (b tokens dim), and which of them count (b tokens)."""


@runtime_checkable
class Captions(Protocol):
    """What labels stand for, where they stand for texts or embeddings."""

    def tokens(self, labels: Labels) -> Tokens:
        """The tokens of some labels (b), on their device; of -1 none counts."""
        ...


def text_bytes(texts: Sequence[str], length: int) -> UInt8[Tensor, "texts length"]:
    """Texts in UTF-8, each with zeros behind its end.

    Raises:
        RinError: one is longer than `length` bytes, or has a zero byte in it.
    """
    table = torch.zeros(len(texts), length, dtype=torch.uint8)
    for row, text in enumerate(texts):
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > length or 0 in encoded:
            raise RinError(
                f"the caption {text[:60]!r} has {len(encoded)} bytes, and the model reads {length}: train with "
                "--model.caption-length as long, or give shorter ones"
            )
        table[row, : len(encoded)] = torch.tensor(list(encoded), dtype=torch.uint8)
    return table


def byte_tokens(texts: Texts) -> Float[Tensor, "b length width"]:
    """What a network is given of each byte: which one it is and where, both one-hot; the width is 256 + length."""
    num, length = texts.shape  # not len(texts), which is a plain number where PyTorch traces for any batch size
    places = torch.eye(length, device=texts.device).expand(num, -1, -1)
    return torch.cat([F.one_hot(texts.long(), NUM_BYTES).float(), places], dim=2)


@dataclass(frozen=True)
class ByteCaptions:
    """Captions that a network reads byte by byte."""

    texts: Texts
    """All of them."""

    def tokens(self, labels: Labels) -> Tokens:
        """See `Captions`."""
        labels = labels.to(self.texts.device)
        texts = torch.where(labels[:, None] >= 0, self.texts[labels.clamp(min=0)], 0)
        return byte_tokens(texts), texts > 0


@dataclass(frozen=True)
class EmbeddedCaptions:
    """Embeddings that were made before: of captions by a text encoder, or whatever else a model is to draw by."""

    embeddings: Float[np.ndarray, "texts tokens dim"]
    """All of them, in memory or in a file."""

    mask: Bool[np.ndarray, "texts tokens"]
    """Which of their tokens count."""

    encoder: str = ""
    """The text encoder that made them; empty if it is not known."""

    rows: Int[np.ndarray, " labels"] | None = None
    """The row of each label; None if they are the same."""

    def tokens(self, labels: Labels) -> Tokens:
        """See `Captions`."""
        known = labels >= 0
        places = labels.clamp(min=0).cpu().numpy()
        rows = places if self.rows is None else self.rows[places]
        embeddings = torch.from_numpy(np.asarray(self.embeddings[rows], np.float32)).to(labels.device)
        return embeddings, torch.from_numpy(self.mask[rows]).to(labels.device) & known[:, None]


@dataclass(frozen=True)
class EncodedCaptions:
    """Captions that a text encoder reads whenever they are asked for."""

    texts: tuple[str, ...]
    """All of them."""

    encoder: Any
    """The encoder, see `rin.core.text_encoders`."""

    def tokens(self, labels: Labels) -> Tokens:
        """See `Captions`."""
        known = labels >= 0
        each = labels.clamp(min=0).tolist()
        asked = list(dict.fromkeys(each))
        embeddings, mask = self.encoder.encode([self.texts[label] for label in asked], labels.device)
        rows = torch.tensor([asked.index(label) for label in each], device=labels.device)
        return embeddings[rows], mask[rows] & known[:, None]
