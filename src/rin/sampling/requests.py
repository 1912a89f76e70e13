"""What is requested of sampling, in the forms that people give it: checked once, and brought into one form."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.denoiser import Condition, check_labels
from rin.core.errors import RinError, unknown
from rin.core.kind import Kind
from rin.core.seeds import picture_seeds
from rin.core.shapes import Clips
from rin.core.texts import EmbeddedCaptions
from rin.diffusion import DiffusionConfig
from rin.diffusion.checks import whole_number

LabelsLike = int | str | np.generic | Sequence[Any] | npt.NDArray[Any] | Tensor
"""Classes by number or by name, or captions: one for all samples, or a list, an array or a tensor with one a sample."""

SeedsLike = Sequence[Any] | npt.NDArray[Any] | Tensor
"""A seed a sample."""


def label_list(
    labels: object, num_classes: int, class_names: Sequence[str] = (), num: int | None = None
) -> list[int] | None:
    """Labels as numbers; None stays None.

    Args:
        labels: see `LabelsLike`.
        num_classes: of the model.
        class_names: of its classes.
        num: how many samples a single label is for; None for one.

    Raises:
        RinError: they are no labels, or of classes that there are not.
    """
    if labels is None:
        return None
    values: Any = labels.tolist() if isinstance(labels, (np.ndarray, np.generic, Tensor)) else labels
    if isinstance(values, str) or not isinstance(values, Sequence):
        values = [values] * (1 if num is None else num)
    numbers = [_class_number(value, class_names) for value in values]
    check_labels(numbers, num_classes)
    return numbers


def text_list(texts: object, num: int | None = None) -> list[str] | None:
    """Captions, one a sample; None stays None.

    Args:
        texts: a text for all samples, or a list with one a sample.
        num: how many samples a single text is for; None for one.

    Raises:
        RinError: they are no texts.
    """
    if texts is None:
        return None
    every: Any = [texts] * (1 if num is None else num) if isinstance(texts, str) else texts
    if not isinstance(every, Sequence) or not all(isinstance(text, str) for text in every):
        raise RinError("this model draws by captions: give a text for all samples, or a list with one a sample")
    return list(every)


def embedded(kind: Kind, condition: Condition, num: int | None = None) -> tuple[Kind, list[int]]:
    """A kind whose labels stand for the embeddings of a condition, and these labels, one a sample.

    Args:
        kind: of a model that draws by embeddings.
        condition: embeddings, and perhaps a mask, of one example for all samples or of one each.
        num: how many samples those of one example are for; None for one.

    Raises:
        RinError: the model draws by none, or the condition has other parts or another shape.
    """
    embeddings, mask = condition.embeddings, condition.embedding_mask
    if not kind.num_condition_tokens:
        raise RinError("this model does not draw by embeddings: leave the condition out")
    if embeddings is None or condition.labels is not None or condition.context is not None:
        raise RinError("give embeddings, and perhaps embedding_mask, in rin.Condition, and no other part")
    if mask is None:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool)
    wanted = (kind.num_condition_tokens, kind.condition_dim)
    if mask.dtype != torch.bool:
        raise RinError(
            f"embedding_mask is {str(mask.dtype).removeprefix('torch.')}: give booleans, True where one counts"
        )
    if embeddings.shape[1:] != wanted or mask.shape != embeddings.shape[:2] or not len(embeddings):
        raise RinError(
            f"the embeddings are {tuple(embeddings.shape)}, with a mask of {tuple(mask.shape)}: this model draws by "
            f"(b {wanted[0]} {wanted[1]}), with one of (b {wanted[0]})"
        )
    if not torch.isfinite(embeddings[mask]).all():
        raise RinError("the embeddings are not finite: give others, or leave these tokens out by embedding_mask")
    known = EmbeddedCaptions(embeddings.float().cpu().numpy(), mask.cpu().numpy())
    labels = list(range(len(embeddings))) if len(embeddings) > 1 or num is None else [0] * num
    return replace(kind, captions=known), labels


def _class_number(value: object, class_names: Sequence[str]) -> int:
    if isinstance(value, (np.generic, Tensor)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str) and class_names:
        if value not in class_names:
            raise unknown("class", value, class_names)
        return class_names.index(value)
    if type(value) is not int:
        names = " or names" if class_names else ""
        raise RinError(f"label {value!r}: give whole numbers{names} of classes, one for all or one a sample")
    return value


def seeds_of(seed: object, seeds: object, first: object, num: int) -> Int[Tensor, " num"]:
    """The seed of each sample.

    Args:
        seed: of all of them: sample p of a seed is the same whatever is drawn with it; None for 0.
        seeds: one a sample, each the first one of its seed, instead.
        first: the number of the first sample of `seed`.
        num: samples.

    Raises:
        RinError: both are given, or they are no seeds.
    """
    first = whole_number("first", first, least=0)
    if seeds is None:
        return picture_seeds(whole_number("seed", 0 if seed is None else seed, least=0), first, num)
    if seed is not None or first:
        raise RinError("seed (with first) and seeds are two ways to say the same: give one of them")
    if isinstance(seeds, (np.ndarray, Tensor)):
        seeds = seeds.tolist()
    if isinstance(seeds, str) or not isinstance(seeds, Sequence):
        raise RinError(f"seeds {seeds!r}: give a list of whole numbers, one a sample")
    return torch.cat([picture_seeds(whole_number("seeds:", each, least=0), 0, 1) for each in seeds])


def count_of(num: object, **given: Sequence[Any] | npt.NDArray[Any] | Tensor | None) -> int:
    """How many samples are requested: `num`, or one for each of what is given by name; 1 without any of them.

    Raises:
        RinError: they disagree, or there are none.
    """
    counts = {name: len(each) for name, each in given.items() if each is not None}
    if num is not None:
        counts = {"num": whole_number("num", num, least=1), **counts}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} by {name}" for name, count in counts.items())
        raise RinError(f"it is not clear how many samples are wanted ({listed}): give one of each a sample")
    return whole_number("the number of samples", next(iter(counts.values()), 1), least=1)


def check_conditioned(kind: Kind, diffusion: DiffusionConfig, labels: Sequence[int] | None, guidance: float) -> None:
    """Refuses samples without the condition that a model has always had, and guidance without one.

    Raises:
        RinError: labels or embeddings are missing.
    """
    if guidance and labels is None:
        way_out = "give labels, or leave it at 0" if kind.is_labelled else "this model has no classes: leave it at 0"
        raise RinError(f"guidance {guidance} does nothing without labels: {way_out}")
    if diffusion.label_drop_rate:
        return
    if kind.num_classes and labels is None:
        raise RinError("this model has never gone without its class in training (label_drop_rate 0): give labels")
    if kind.has_captions and labels is None:
        raise RinError("this model has never gone without its caption in training (label_drop_rate 0): give texts")
    if kind.num_condition_tokens and kind.captions is None:
        raise RinError(
            "this model has never gone without its embeddings in training (label_drop_rate 0): give "
            "rin.Condition(embeddings=...)"
        )


def check_context(kind: Kind, context: Clips | None) -> None:
    """Refuses frames that a model cannot go on from.

    Raises:
        RinError: there are too few of them, none are taken, or they have another size.
    """
    given, needed = 0 if context is None else context.shape[2], kind.num_context_frames
    if given and not needed:
        raise RinError("this model goes on from no frames: leave the context out")
    if given < needed:
        raise RinError(f"{given} frames are given: this model goes on from {needed}")
    if context is not None and (context.shape[1], *context.shape[3:]) != kind.frame_shape:
        shape = (context.shape[1], *context.shape[3:])
        raise RinError(f"the given frames are {shape} (c h w): this model takes {kind.frame_shape}")


def spread_labels(classes: Sequence[int], num: int) -> list[int]:
    """`num` labels spread evenly over `classes`, in their order; the first classes get one more if need be.

    Raises:
        RinError: there are no classes.
    """
    if not classes:
        raise RinError("no classes to spread labels over: give one or more")
    share, more = divmod(num, len(classes))
    return [label for place, label in enumerate(classes) for _ in range(share + (place < more))]
