"""The one way to sample: a network with its diffusion, as runs, saved models, previews and evaluation have it."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.compute import Compile, Precision, compiles, device_of, uses_bfloat16
from rin.core.denoiser import Condition, Denoiser
from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.core.pixels import to_pictures
from rin.core.shapes import Clips
from rin.costs.memory import sampling_batch
from rin.diffusion import Diffusion, Given
from rin.diffusion.checks import check_data, check_options, whole_number
from rin.diffusion.options import SampleOptions
from rin.sampling.drawing import Callback, Request, draw, num_blocks
from rin.sampling.given import ConditionLike, conditions_of
from rin.sampling.requests import (
    LabelsLike,
    SeedsLike,
    check_conditioned,
    check_context,
    count_of,
    embedded,
    label_list,
    seeds_of,
    text_list,
)

_ARGUMENTS = (
    "labels", "num", "seed", "seeds", "first", "condition", "context", "num_frames", "given", "batch_size", "device",
    "precision", "compile", "callback", "steps",
)  # fmt: skip


class Pipeline:
    """A network, its diffusion and what it draws: all that sampling needs.

    Args:
        model: the network.
        diffusion: its diffusion.
        kind: what it draws: the shape of a sample, and on what condition.
        class_names: the names of the classes; empty if there are none or they have no names.
    """

    def __init__(self, model: Denoiser, diffusion: Diffusion, kind: Kind, class_names: tuple[str, ...] = ()) -> None:
        self.model, self.diffusion, self.kind, self.class_names = model, diffusion, kind, class_names

    def sample(
        self,
        labels: LabelsLike | Condition | None = None,
        num: int | None = None,
        *,
        seed: int | None = None,
        seeds: SeedsLike | None = None,
        first: int = 0,
        condition: ConditionLike | None = None,
        context: Float[Tensor, "b c given h w"] | None = None,
        num_frames: int | None = None,
        given: Given | None = None,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
        compile: Compile = "auto",
        callback: Callback | None = None,
        steps: int | None = None,
        **options: Unpack[SampleOptions],
    ) -> Float[Tensor, "num ..."]:
        """Draws samples in [-1, 1], on the CPU; `rin.save` and `rin.to_pil` make pictures of them.

        Sample p of a seed starts from the same noise whatever is drawn with it: it is the same, but for rounding, at
        any number, batch size and number of processes.

        Args:
            labels: the class of each sample, by number or name, or its caption, or one for all; of a model that draws
                by embeddings a `rin.Condition` with these, of one example for all or of one each. None for a model
                without classes, or for unconditional samples of one whose labels were dropped at times in training.
            num: how many; if None, as many as there are labels, seeds, condition pictures or clips to go on from, 1
                without these.
            seed: of the noise, from 0 to below 2**31; 0 if None.
            seeds: a seed a sample, instead: each sample is the first of its seed.
            first: the number of the first sample of `seed`, from 0 on.
            condition: the clean picture that images are drawn from, of a model that has learned to: one for all samples
                or one each, see `rin.sampling.given.ConditionLike`.
            context: the frames that clips go on from, in [-1, 1], as many as the model takes or more (b c f h w).
            num_frames: frames to draw of each clip, block after block if they are more than the model draws at once;
                the model's own if None. 1 draws an image, if the model has learned from images too.
            given: what samples are made of, one for all or one each: noise, as of `rin.invert`, or what `rin.edit` and
                `rin.inpaint` make of a picture.
            batch_size: samples at a time; what fits into memory if None.
            device: where to compute, and where the network is moved; where it is if None.
            precision: of the network: bfloat16 autocast, float32, or auto: bfloat16 where it is faster.
            compile: go through torch.compile and CUDA graphs: on, off, or auto: on a CUDA device.
            callback: called after each step of each batch with the step's number and the clean estimates (b ...).
            steps: short for `num_steps`.
            **options: see `SampleOptions`.

        Returns:
            Images (num c h w) or sets (num n c); of clips the frames drawn (num c f h w), rounded to 8 bits.

        Raises:
            RinError: a class that the model does not have, none where it always had one or where guidance needs it,
                numbers that disagree, a condition picture or context of another size or outside [-1, 1], or options
                that there are not.
        """
        if steps is not None:
            if options.get("num_steps") is not None:
                raise RinError("steps is short for num_steps: give one of them")
            options["num_steps"] = steps
        check_options(options, SampleOptions.__annotations__, _ARGUMENTS)
        # guidance by fewer latents needs no condition
        guidance = 0.0 if options.get("num_guide_latents") is not None else options.get("guidance") or 0.0
        kind, request = self._request(labels, num, seed, seeds, first, condition, context, num_frames, given, guidance)
        if device is not None and isinstance(self.model, nn.Module):
            self.model.to(device)
        where = device_of(self.model)
        if batch_size is None:
            batch_size = sampling_batch(self.model, where, request.num)
        return draw(
            self.model, self.diffusion, kind, request, whole_number("batch_size", batch_size, least=1), callback,
            bfloat16=uses_bfloat16(precision, where), compile=compiles(compile, where), **options,
        )  # fmt: skip

    def _request(
        self,
        labels: LabelsLike | Condition | None,
        num: int | None,
        seed: int | None,
        seeds: SeedsLike | None,
        first: int,
        condition: ConditionLike | None,
        context: Float[Tensor, "b c given h w"] | None,
        num_frames: int | None,
        given: Given | None,
        guidance: float,
    ) -> tuple[Kind, Request]:
        """What `sample` is asked for, and a kind that knows what its labels stand for.

        Arguments are those of `sample`; `guidance` is its strength if a pass without the condition guides, and else 0.

        Raises:
            RinError: it cannot be drawn.
        """
        num = None if num is None else whole_number("num", num, least=1)
        pictures, before = conditions_of(condition, self.kind), in_8_bits(context)
        check_context(self.kind, before)
        sizes = {"given": 1 if given is None else given.num, "condition": 1 if pictures is None else len(pictures)}
        several = {name: range(size) for name, size in sizes.items() if size > 1}  # a single one is for all samples
        kind, classes = self.asked(labels, next(map(len, several.values()), None) if num is None else num)
        count = count_of(num, labels=classes, context=before, seeds=seeds, **several)
        check_conditioned(kind, self.diffusion.config, classes, guidance)
        frames = self.kind.num_frames if num_frames is None else whole_number("num_frames", num_frames, least=1)
        num_blocks(self.kind, frames)  # refuses what cannot be drawn
        if given is not None and frames != self.kind.num_frames:
            raise RinError(f"given clips have {self.kind.num_frames} frames, as the model draws: leave num_frames out")
        return kind, Request(
            seeds=seeds_of(seed, seeds, first, count),
            labels=classes,
            context=before if pictures is None else pictures.expand(count, -1, -1, -1),
            given=None if given is None else given.expand(count),
            num_frames=frames,
        )

    def asked(self, labels: LabelsLike | Condition | None, num: int | None) -> tuple[Kind, list[int] | None]:
        """The labels as numbers, and a kind that knows what they stand for where they are captions or embeddings.

        Args:
            labels: as of `sample`.
            num: how many samples a single one is for; None for one.

        Raises:
            RinError: they are no labels, captions or embeddings of this model.
        """
        if self.kind.captions is not None and isinstance(labels, list):  # while training, which knows all of them
            return self.kind, labels
        if isinstance(labels, Condition):
            return embedded(self.kind, labels, num)
        if not self.kind.has_captions:
            return self.kind, label_list(labels, self.kind.num_classes, self.class_names, num)
        texts = text_list(labels, num)
        if texts is None:
            return self.kind, None
        every = list(dict.fromkeys(texts))
        if self.kind.text_encoder:
            self.kind.encoder.tell_cut(every)
        return self.kind.reading(every), [every.index(text) for text in texts]


def in_8_bits(context: object) -> Clips | None:
    """Given frames as files hold them.

    Raises:
        RinError: they are no floats in [-1, 1] (b c f h w).
    """
    if context is None:
        return None
    context = context.cpu() if isinstance(context, Tensor) else context
    check_data("context", context, num_axes=5)
    assert isinstance(context, Tensor)  # it is checked
    return to_pictures(context)
