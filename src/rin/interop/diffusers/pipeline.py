"""The pipeline of diffusers that draws by a RIN."""

# pyright: reportPrivateImportUsage=false
# diffusers exports its names when they are asked for.

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError, unknown
from rin.core.kind import Kind
from rin.core.pixels import check_numbers
from rin.core.seeds import picture_seeds
from rin.core.shapes import Examples
from rin.diffusion import SamplingStep
from rin.diffusion.checks import whole_number
from rin.experiment import to_dict
from rin.interop.diffusers.components import RINDenoiser, RINScheduler
from rin.model_files import check_class_names
from rin.sampling import to_pil
from rin.sampling.given import ConditionLike, conditions_of
from rin.sampling.pipeline import Pipeline
from rin.sampling.requests import check_conditioned, count_of
from rin.trained_model import TrainedModel

OutputType = Literal["pil", "np", "pt"]
"""Pillow images; an array (b h w c) or a tensor (b c h w) of floats in [0, 1]."""

Generators = torch.Generator | Sequence[torch.Generator]

StepCallback = Callable[["RINPipeline", int, float, dict[str, Any]], object]
"""(pipeline, step from 0, time at which it began, {"pred_original_sample": clean estimates in [-1, 1] (b c h w)});
what it returns changes nothing."""

_CODE = """\
try:
    from {module} import {name}  # noqa: F401
except ImportError as error:
    raise ImportError('this model needs rin: pip install "rin-diffusion[diffusers]"') from error
"""
"""What diffusers runs when it opens a folder: it takes classes from files in there, which are named in
`model_index.json`."""

_FILE = "pipeline"
"""The file of the pipeline's class, by the name that diffusers gives to such; those of components are called as the
module that has them here, since diffusers writes that into `model_index.json`."""


class RINPipeline(DiffusionPipeline):
    """Draws pictures by a RIN, of a folder that `rin.interop.diffusers.save` has written.

    Args:
        denoiser: the network.
        scheduler: how it samples.
        id2label: names of its classes by number, if they have names.
    """

    def __init__(
        self, denoiser: RINDenoiser, scheduler: RINScheduler, id2label: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(id2label=None if id2label is None else dict(id2label))

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | Tensor | None = None,
        *,
        prompt: str | Sequence[str] | None = None,
        image: ConditionLike | None = None,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generators | None = None,
        seed: int | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draws pictures, all of them at once, in the precision of the network's weights.

        Args:
            class_labels: the class of each picture, by number or name, or one for all; of a model with classes.
            prompt: the caption of each picture, or one for all; of a model with captions.
            image: the picture, or a list with one each, that is drawn from, see `rin.sampling.given.ConditionLike`; of
                a model with condition pictures.
            batch_size: how many pictures; if None, as many as there are classes, prompts, images or generators, or 1.
            num_inference_steps: as many as the model was saved with if None.
            guidance_scale: from 1, which is none, on: the `guidance` of rin is less by 1; the model's own if None.
            generator: what the seeds of the pictures are drawn from, one for all or one each; PyTorch's own if None.
            seed: of the pictures instead, from 0 to below 2**31: they are those that `trained.sample(seed=seed)` draws.
            output_type: see `OutputType`.
            return_dict: return an `ImagePipelineOutput`, and a tuple otherwise.
            callback_on_step_end: see `StepCallback`.

        Returns:
            The pictures, `images` of an `ImagePipelineOutput`.

        Raises:
            RinError: a class or prompt that the model does not have or needs, numbers that disagree, options that
                cannot be, or a scheduler that is no `RINScheduler`.
        """
        if output_type not in get_args(OutputType):
            raise unknown("output_type", str(output_type), get_args(OutputType))
        if not isinstance(self.scheduler, RINScheduler):
            raise RinError(f"{type(self.scheduler).__name__} cannot carry the latents of a RIN: take a RINScheduler")
        diffusion, pictures = self.scheduler.diffusion, conditions_of(image, self._kind)
        kind, labels = self._asked(class_labels, prompt, batch_size)
        count = count_of(
            None,
            batch_size=None if batch_size is None else range(batch_size),
            **{"class_labels" if prompt is None else "prompt": labels},
            image=None if pictures is None or len(pictures) == 1 else pictures,
            generator=None if generator is None or isinstance(generator, torch.Generator) else generator,
        )
        guidance = _guidance(guidance_scale, labels is not None, bool(diffusion.config.label_drop_rate))
        check_conditioned(kind, diffusion.config, labels, 0.0)
        self.scheduler.set_timesteps(num_inference_steps)

        context = None if pictures is None else pictures.expand(count, -1, -1, -1)
        condition = kind.condition(None if labels is None else torch.tensor(labels), context).to(self.device)
        steps = diffusion.steps(
            self.denoiser, (count, *kind.shape), condition,
            num_steps=len(self.scheduler.timesteps), guidance=guidance, seeds=_seeds(seed, generator, count),
        )  # fmt: skip
        step: SamplingStep | None = None
        with cast(Any, self).progress_bar(total=len(self.scheduler.timesteps)) as bar:  # diffusers' types are wrong
            for number, (t, step) in enumerate(zip(self.scheduler.timesteps.tolist(), steps, strict=True)):
                if callback_on_step_end is not None:
                    callback_on_step_end(self, number, t, {"pred_original_sample": step.x_0})
                bar.update()
        assert step is not None  # one is the least
        images: Any = _as(output_type, step.x_0)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def save_config(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **options: Any) -> None:
        """Writes `model_index.json`, and beside it the files by which diffusers finds the classes."""
        super().save_config(save_directory, push_to_hub, **options)
        index = Path(save_directory) / self.config_name
        content = json.loads(index.read_text("utf-8"))
        content["_class_name"] = [_FILE, RINPipeline.__name__]
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
        for kind, file in (
            (RINPipeline, f"{_FILE}.py"),
            (RINDenoiser, f"denoiser/{RINDenoiser.__module__}.py"),
            (RINScheduler, f"scheduler/{RINScheduler.__module__}.py"),
        ):
            code = _CODE.format(module=kind.__module__, name=kind.__name__)
            (index.parent / file).write_text(code, "utf-8")

    @property
    def _kind(self) -> Kind:
        return self.denoiser.network.config.kind

    def _asked(self, class_labels: Any, prompt: Any, num: int | None) -> tuple[Kind, list[int] | None]:
        """The classes or captions as numbers, and a kind that knows what they stand for.

        Raises:
            RinError: they are none of this model.
        """
        if self._kind.caption_length and class_labels is not None:
            raise RinError("this model draws by captions: give prompt, and leave class_labels out")
        if not self._kind.caption_length and prompt is not None:
            instead = "give class_labels, and leave prompt out" if self._kind.num_classes else "leave prompt out"
            raise RinError(f"this model reads no captions: {instead}")
        num = None if num is None else whole_number("batch_size", num, least=1)
        names: Mapping[str, str] = self.config["id2label"] or {}
        every = check_class_names([names[number] for number in sorted(names, key=int)], self._kind.num_classes)
        pipeline = Pipeline(self.denoiser, self.scheduler.diffusion, self._kind, every)
        return pipeline.asked(class_labels if prompt is None else prompt, num)


def pipeline_of(trained: TrainedModel) -> RINPipeline:
    """The pipeline of a trained model, with a copy of its network on the CPU."""
    denoiser = RINDenoiser(**to_dict(trained.config))
    denoiser.network.load_state_dict(trained.model.state_dict())
    scheduler = RINScheduler(**to_dict(trained.diffusion.config))
    names = {str(number): name for number, name in enumerate(trained.class_names)}
    return RINPipeline(denoiser.eval(), scheduler, names or None)


def _guidance(scale: object, is_conditioned: bool, has_gone_without: bool) -> float | None:
    """Guidance as rin has it: 0 is none; None is the model's own.

    Raises:
        RinError: it is no number from 1 on, or the model or the request has nothing to be guided by.
    """
    if scale is None:
        return None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not (1 <= scale < math.inf):
        raise RinError(f"guidance_scale {scale!r}: take a number from 1, which is none, on")
    if scale > 1 and not has_gone_without:
        raise RinError(
            "guidance needs a model trained with label dropping (--diffusion.label-drop-rate 0.1): "
            "leave guidance_scale at 1"
        )
    if scale > 1 and not is_conditioned:
        raise RinError(f"guidance_scale {scale} does nothing without a class or a prompt: give one, or leave it at 1")
    return float(scale) - 1


def _seeds(seed: int | None, generator: Generators | None, count: int) -> Int[Tensor, " count"]:
    """A seed a picture.

    Raises:
        RinError: both are given, or the seed is none.
    """
    if seed is not None:
        if generator is not None:
            raise RinError("seed and generator are two ways to say the same: give one of them")
        return picture_seeds(whole_number("seed", seed, least=0), 0, count)
    if generator is None or isinstance(generator, torch.Generator):
        return _drawn(generator, count)
    return torch.cat([_drawn(each, 1) for each in generator])


def _drawn(generator: torch.Generator | None, count: int) -> Int[Tensor, " count"]:
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (count,), generator=generator, device=device).cpu()


def _as(output_type: OutputType, x_0: Examples) -> list[Image.Image] | np.ndarray | Float[Tensor, "b c h w"]:
    """Pictures in [-1, 1] in the form that is asked for.

    Raises:
        RinError: there are NaN among their numbers.
    """
    check_numbers(x_0)
    if output_type == "pil":
        return [picture for picture in to_pil(x_0) if isinstance(picture, Image.Image)]
    images = (x_0 / 2 + 0.5).clamp(0, 1)
    return images if output_type == "pt" else images.cpu().permute(0, 2, 3, 1).numpy()
