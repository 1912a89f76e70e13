"""Captions as a network reads them: their bytes, each a token of its own."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from rin.core.errors import RinError

NUM_BYTES = 256

Texts = UInt8[Tensor, "b length"]
"""Captions in UTF-8, with zeros behind their end."""


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
