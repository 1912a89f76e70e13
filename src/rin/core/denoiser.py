"""A denoiser's condition and its output: all that networks and diffusion know of one another."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rin.core.errors import RinError
from rin.core.shapes import Examples, Labels, Latents, Mask, PerExample


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the examples of a batch are to show; every part may be absent.

    A label of -1 and a masked-out embedding token say nothing: their vectors are zero, their tokens stay
    (the original drops labels so, too).
    """

    labels: Labels | None = None
    """Classes from 0, or -1 for a dropped label (b)."""

    embeddings: Float[Tensor, "b k condition_dim"] | None = None
    """Embedding tokens, of a text for example (b k condition_dim)."""

    embedding_mask: Bool[Tensor, "b k"] | None = None
    """True where an embedding token counts (b k); None means that all do."""

    context: Examples | None = None
    """Clean data that are given, in [-1, 1]: frames that come before those to predict (b c f h w), or for a model of
    images the condition picture, of a size and channels of its own (b c h w)."""

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels or embeddings, which guidance is by."""
        return self.labels is not None or self.embeddings is not None

    def keep(self, kept: Mask) -> "Condition":
        """This condition with labels and embeddings dropped where `kept` (b) is False; context stays."""
        labels = None if self.labels is None else torch.where(kept, self.labels, -1)
        mask = self.embedding_mask
        if self.embeddings is not None:
            everywhere = torch.ones(self.embeddings.shape[:2], dtype=torch.bool, device=kept.device)
            mask = (everywhere if mask is None else mask) & kept[:, None]
        return replace(self, labels=labels, embedding_mask=mask)

    def null(self) -> "Condition":
        """This condition with every label and embedding dropped: the other side of guidance."""
        values = self.labels if self.labels is not None else self.embeddings
        if values is None:
            return self
        return self.keep(torch.zeros(values.shape[0], dtype=torch.bool, device=values.device))

    def rows(self, index: slice | Tensor) -> "Condition":
        """The condition of some of the examples."""
        parts = (self.labels, self.embeddings, self.embedding_mask, self.context)
        labels, embeddings, mask, context = (None if part is None else part[index] for part in parts)
        return Condition(labels=labels, embeddings=embeddings, embedding_mask=mask, context=context)

    def to(self, device: torch.device | str) -> "Condition":
        """The same condition on another device."""
        parts = (self.labels, self.embeddings, self.embedding_mask, self.context)
        labels, embeddings, mask, context = (None if part is None else part.to(device) for part in parts)
        return Condition(labels=labels, embeddings=embeddings, embedding_mask=mask, context=context)


class Denoised(NamedTuple):
    """A denoiser's answer."""

    prediction: Tensor | None
    """eps, x_0 or v, of the shape of the noisy input; None if only the latents were asked for."""

    latents: Latents | None
    """Z after the last block, to warm-start the next step (b m e); None of a network that has no latents."""


@runtime_checkable
class Denoiser(Protocol):
    """Anything that maps (x_t, gamma, condition, latents_prev) to (prediction, latents).

    A network without latents is given None for them and returns None; asked for the latents alone, it need not compute.
    """

    def __call__(
        self,
        x: Examples,
        gamma: PerExample,
        condition: Condition | None = None,
        latents_prev: Latents | None = None,
        latents_only: bool = False,
    ) -> Denoised:
        """See `rin.nn.RIN.forward`."""
        ...


def working_with(model: Denoiser, num_latents: int | None) -> Denoiser:
    """A denoiser that works with so many latents; itself for None, since not all denoisers have a choice."""
    return model if num_latents is None else partial(cast(Any, model), num_latents=num_latents)


class EvaluationMode:
    """A denoiser in evaluation mode: nothing is dropped while it lasts, and each module is left in the mode it had.

    It can be entered again and again, for each step of sampling: between them a denoiser is as its owner has it.
    """

    def __init__(self, model: Denoiser) -> None:
        self.modules = list(model.modules()) if isinstance(model, nn.Module) else []
        self.training: list[nn.Module] = []

    def __enter__(self) -> None:
        self.training = [module for module in self.modules if module.training]
        for module in self.training:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.training = True


def check_labels(labels: list[int], num_classes: int) -> None:
    """Refuses labels that a model of `num_classes` classes does not know.

    Raises:
        RinError: a label is out of range, or the model knows no classes.
    """
    if labels and num_classes == 0:
        raise RinError("this model was trained without classes: leave the classes out")
    wrong = [label for label in labels if not 0 <= label < num_classes]
    if wrong:
        raise RinError(f"class {wrong[0]} is out of range: this model has classes 0 to {num_classes - 1}")
