"""The kind of data that a model works on, by shape: the one place that tells images, video and sets apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from rin.core.denoiser import Condition
from rin.core.errors import RinError
from rin.core.pixels import to_floats
from rin.core.shapes import Examples, Labels, Stored
from rin.core.text_encoders import TextEncoder, text_encoder
from rin.core.texts import ByteCaptions, Captions, EncodedCaptions, Tokens, text_bytes


def is_video(shape: Sequence[int]) -> bool:
    """Whether it is the shape of a clip (c f h w)."""
    return len(shape) == 4


def is_image(shape: Sequence[int]) -> bool:
    """Whether it is the shape of an image (c h w)."""
    return len(shape) == 3


def is_signal(shape: Sequence[int]) -> bool:
    """Whether it is the shape of a signal (c 1 n): an image of height 1, whose patches are as high."""
    return is_image(shape) and shape[1] == 1 < shape[2]


def is_set(shape: Sequence[int]) -> bool:
    """Whether it is the shape of a set of vectors (n c)."""
    return len(shape) == 2


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a model draws, and on what condition."""

    shape: tuple[int, ...]
    """Of one sample: an image (c h w), a signal (c 1 n), a clip (c f h w) without its context, or a set (n c)."""

    num_classes: int = 0
    """Classes of the condition; 0 for none."""

    num_context_frames: int = 0
    """Clean frames that come before those of a clip."""

    condition_shape: tuple[int, ...] = ()
    """Of the clean picture (c h w) that an image is drawn from; empty for none."""

    num_condition_tokens: int = 0
    """Tokens of an embedding condition; 0 for none."""

    condition_dim: int = 0
    """Width of those tokens."""

    caption_length: int = 0
    """Bytes of a caption that the network reads; 0 where it reads none."""

    text_encoder: str = ""
    """What makes the embedding condition of a caption; empty for none."""

    captions: Captions | None = field(default=None, compare=False)
    """What labels stand for, of a model that draws by captions or by embeddings."""

    @property
    def is_video(self) -> bool:
        """Whether it draws clips."""
        return is_video(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether it draws images."""
        return is_image(self.shape)

    @property
    def is_signal(self) -> bool:
        """Whether it draws signals."""
        return is_signal(self.shape)

    @property
    def is_set(self) -> bool:
        """Whether it draws sets of vectors."""
        return is_set(self.shape)

    @property
    def is_labelled(self) -> bool:
        """Whether it draws by labels, which stand for classes, captions or embeddings."""
        return bool(self.num_classes or self.caption_length or self.num_condition_tokens)

    @property
    def has_captions(self) -> bool:
        """Whether it draws by texts, which it reads itself or through a text encoder."""
        return bool(self.caption_length or self.text_encoder)

    @property
    def noun(self) -> str:
        """What its samples are called, in the plural."""
        if self.is_signal:
            return "signals"
        return "clips" if self.is_video else "pictures" if self.is_image else "sets"

    @property
    def num_frames(self) -> int:
        """Frames of a clip that are drawn at once; 1 for all else."""
        return self.shape[1] if self.is_video else 1

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Of one example of the data to learn from: a clip's context frames and those to predict; a pair's channels."""
        if self.is_paired:
            return 2 * self.shape[0], *self.shape[1:]
        return self.with_frames(self.num_context_frames + self.num_frames) if self.is_video else self.shape

    @property
    def context_shape(self) -> tuple[int, ...]:
        """Of the clean data that are given with one example: frames before a clip, a condition picture; () if none."""
        if self.num_context_frames:
            return self.with_frames(self.num_context_frames)
        return self.condition_shape

    @property
    def is_paired(self) -> bool:
        """Whether the condition is a picture like the image; in the data it is the second half of the channels."""
        return bool(self.shape) and self.condition_shape == self.shape

    @property
    def has_hole(self) -> bool:
        """Whether the condition is a picture with a hole: of the image's size, with a last channel that tells where."""
        return self.condition_shape == (self.shape[0] + 1, *self.shape[1:])

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of one frame of a clip (c h w); of anything else, its shape."""
        return (self.shape[0], *self.shape[2:]) if self.is_video else self.shape

    def with_frames(self, num_frames: int) -> tuple[int, ...]:
        """The shape of a clip of so many frames (c f h w)."""
        return (self.shape[0], num_frames, *self.shape[2:])

    def reading(self, texts: Sequence[str], device: torch.device | None = None) -> "Kind":
        """The same kind, whose labels stand for these captions.

        Raises:
            RinError: one is longer than the model reads, or its text encoder cannot be opened.
        """
        if not self.has_captions or not texts:
            return self
        if self.text_encoder:
            return replace(self, captions=EncodedCaptions(tuple(texts), self.encoder))
        return replace(self, captions=ByteCaptions(text_bytes(texts, self.caption_length).to(device)))

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder that it reads captions by.

        Raises:
            RinError: it cannot be opened, or gives tokens of another width than the model takes.
        """
        encoder = text_encoder(self.text_encoder, self.num_condition_tokens)
        if encoder.width != self.condition_dim:
            raise RinError(
                f"the text encoder {self.text_encoder} gives tokens of width {encoder.width}, and the model takes "
                f"{self.condition_dim}: give the encoder that it was trained with"
            )
        return encoder

    def tokens(self, labels: Labels | None) -> Tokens | None:
        """The tokens of the captions or embeddings of some labels (b), -1 for none; None if there are none."""
        return None if labels is None or self.captions is None else self.captions.tokens(labels)

    def condition(
        self, labels: Labels | None, context: Examples | None = None, tokens: Tokens | None = None
    ) -> Condition:
        """The condition of examples of some labels (b), -1 for none; None of a model without classes and captions.

        `tokens` are those of the labels, if they are at hand.
        """
        tokens = self.tokens(labels) if tokens is None else tokens
        if tokens is not None:
            return Condition(embeddings=tokens[0], embedding_mask=tokens[1], context=context)
        return Condition(labels=labels if self.num_classes else None, context=context)

    def examples(
        self, stored: Stored, labels: Labels, degraded: Stored | None = None, tokens: Tokens | None = None
    ) -> tuple[Examples, Condition]:
        """Data as the model learns from it, in [-1, 1], and its condition.

        The first frames of a clip are the context of those after them. To a model of clips an image is a clip of one
        frame, which has no context. A model without classes is given no labels.

        Args:
            stored: examples of `data_shape`; for a model of clips also images (b c h w).
            labels: their classes, -1 for none (b).
            degraded: the condition pictures of images (b c h w), for a model that draws from such.
            tokens: those of their captions, if they are at hand.
        """
        x = to_floats(stored[:, : self.shape[0]] if self.is_paired else stored)
        if not self.is_video:
            return x, self.condition(labels, None if degraded is None else to_floats(degraded), tokens)
        if is_image(stored.shape[1:]):
            return x[:, :, None], self.condition(labels, None, tokens)
        context = x[:, :, : self.num_context_frames] if self.num_context_frames else None
        return x[:, :, self.num_context_frames :], self.condition(labels, context, tokens)
