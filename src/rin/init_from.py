"""Training that starts from the weights of another model: all that fit are taken over, some are resized.

| what differs | what happens |
|---|---|
| classes | a class of the same name keeps its embedding, the others start anew |
| height and width | positions are interpolated over the grid of patches |
| images to clips | every frame starts with the image's positions |
| latents | the first ones are taken over, further ones start as near copies of them |
| blocks, layers of a block | the first ones are taken over, further ones start anew |
| captions or embeddings where there were none | their layer starts anew |
| channels, patch size | the patch layer and the read-out start anew, and positions are interpolated |

Widths, heads and what the network predicts have to be the same. Averages start from what was taken over, as the
weights do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.errors import RinError
from rin.core.kind import is_set, is_video
from rin.core.progress import LOGGER
from rin.core.strict_json import read_json
from rin.data.files.encoded import listed
from rin.experiment import ExperimentConfig
from rin.nn import RINConfig
from rin.trained_model import TrainedModel, load

INIT_FROM = "init_from.json"
"""The file of a run's folder that tells what was taken over, as `TakenOver` does."""

_SAME = (
    "latent_dim", "interface_dim", "num_heads", "num_read_write_heads", "latent_mlp_ratio", "interface_mlp_ratio",
    "gamma_scale",
)  # fmt: skip
"""Fields of the network that have to be the same."""

_SAME_CONDITION = ("num_condition_tokens", "condition_dim", "caption_length", "text_encoder")
"""Those that have to be the same if both networks draw by captions or embeddings."""

_LATENTS, _POSITIONS, _CLASSES = "latents", "tokenizer.positions", "condition.label.weight"


@dataclass
class TakenOver:
    """What became of the weights of a model that training starts from."""

    source: str
    """The model."""

    taken: int = 0
    """Tensors that were taken over as they are."""

    resized: list[str] = field(default_factory=list)
    """Those that were taken over in part, or interpolated."""

    new: list[str] = field(default_factory=list)
    """Those that start anew."""

    unused: list[str] = field(default_factory=list)
    """The model's own that found no place."""

    def changed(self) -> list[str]:
        """The weights that are not the model's as they were."""
        return [*self.new, *self.resized]

    def describe(self) -> str:
        """In words."""
        text = f"starting from the averaged weights of {self.source}: {self.taken} tensors taken over"
        for words, names in (("resized", self.resized), ("new", self.new), ("left out", self.unused)):
            if names:
                text += f"; {words}: {listed(names)}"
        return text


def start_from(source: str, model: nn.Module, experiment: ExperimentConfig, class_names: Sequence[str]) -> TakenOver:
    """Gives a network what it can take over of the averaged weights of a trained one, and says what that was.

    Args:
        source: a run, a saved model, or the name of one, see `rin.load`.
        model: what gets the weights; the others stay as they are.
        experiment: what is to be trained.
        class_names: of its data, in the order of their numbers.

    Raises:
        RinError: there is no such model, or its widths, heads or what it predicts are others.
    """
    begun = load(source, device="cpu")
    _check(source, begun, experiment)
    old, found = dict(begun.model.state_dict()), TakenOver(source)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            before = old.pop(name, None)
            fitted = None if before is None else _fitted(name, before, weight, begun, experiment.model, class_names)
            if fitted is None:
                found.new.append(name)
                found.unused += [] if before is None else [name]
                continue
            weight.copy_(fitted)
            if fitted is before:
                found.taken += 1
            else:
                found.resized.append(name)
    found.unused += list(old)
    LOGGER.info("%s", found.describe())
    return found


def read_taken_over(folder: Path) -> TakenOver:
    """What became of the weights of the model that a run started from, as its folder tells.

    Raises:
        RinError: it does not.
    """
    path = folder / INIT_FROM
    try:
        stored = read_json(path)
        if not all(isinstance(stored[name], list) for name in ("new", "resized")):
            raise TypeError("its names are no lists")
        return TakenOver(**stored)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RinError(
            f"{path} does not tell what was taken over ({error}): restore it, or take another --out"
        ) from error


def _check(source: str, begun: TrainedModel, experiment: ExperimentConfig) -> None:
    both_have_tokens = begun.config.embedding_shape[0] and experiment.model.embedding_shape[0]
    same = (*_SAME, *(_SAME_CONDITION if both_have_tokens else ()))
    pairs = {f"model.{name}": (getattr(begun.config, name), getattr(experiment.model, name)) for name in same}
    pairs["diffusion.prediction"] = (begun.diffusion.config.prediction, experiment.diffusion.prediction)
    if is_set(begun.config.shape) != is_set(experiment.model.shape):
        pairs["model.shape"] = (begun.config.shape, experiment.model.shape)
    changed = [f"{name} was {before} and is {now}" for name, (before, now) in pairs.items() if before != now]
    if changed:
        raise RinError(f"init_from {source}: its network is another ({'; '.join(changed)}): give the same options")


def _fitted(
    name: str, before: Tensor, weight: Tensor, begun: TrainedModel, config: RINConfig, class_names: Sequence[str]
) -> Tensor | None:
    """What takes a weight's place: the one before as it is, or resized; None if it fits in no way."""
    if name == _CLASSES and begun.class_names and list(begun.class_names) != list(class_names):
        return _by_class(before, weight, begun.class_names, class_names)
    if name == _POSITIONS and not is_set(config.shape) and _slots(begun.config) != _slots(config):
        return _interpolated(before, begun.config, config)
    if name == _LATENTS and before.shape != weight.shape:
        return _as_many(before, weight)
    return before if before.shape == weight.shape else None


_APART = 0.1
"""How far copies of latents start from one another, over the latents' own deviation."""


def _as_many(before: Float[Tensor, "old e"], weight: Float[Tensor, "new e"]) -> Float[Tensor, "new e"]:
    """Learned latents, as many as the new ones are: further ones start beside the first ones, round and round.

    Among equals attention is shared and the network says nearly what it said, where latents drawn anew would disturb
    it; a little noise lets them part.
    """
    copies = before.repeat(-(-len(weight) // len(before)), 1)[len(before) : len(weight)]
    apart = _APART * before.std() * weight[len(before) :] / weight.std()
    return torch.cat([before[: len(weight)], copies + apart])


def _by_class(
    before: Float[Tensor, "e old"], weight: Float[Tensor, "e new"], old: Sequence[str], new: Sequence[str]
) -> Float[Tensor, "e new"] | None:
    """The embeddings of the classes that are known by their names, and new ones of the others."""
    places: Mapping[str, int] = {name: place for place, name in enumerate(old)}
    known = [name in places for name in new]
    if not any(known):
        return None
    fitted = weight.clone()
    for place, name in enumerate(new):
        if known[place]:
            fitted[:, place] = before[:, places[name]]
    return fitted


def _slots(config: RINConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Slots of frames to predict and of context frames; rows and columns of patches in each. An image fills one."""
    if not is_video(config.shape):
        return (1, 0), config.grid
    predicted, context = (
        -(-count // config.temporal_patch_size) for count in (config.shape[1], config.num_context_frames)
    )
    return (predicted, context), config.grid


def _interpolated(before: Float[Tensor, "old d"], old: RINConfig, new: RINConfig) -> Float[Tensor, "new d"] | None:
    """Positions over another grid, those of an image for every frame of a clip; None for clips of other frames."""
    (slots, grid), (new_slots, new_grid) = _slots(old), _slots(new)
    if slots not in ((1, 0), new_slots):
        return None
    frames = before.unflatten(0, (sum(slots), *grid)).movedim(3, 1)  # (slots d rows columns)
    smaller = any(one < other for one, other in zip(new_grid, grid, strict=True))
    frames = F.interpolate(frames, new_grid, mode="bicubic", antialias=smaller)
    return frames.movedim(1, 3).expand(sum(new_slots), -1, -1, -1).reshape(-1, before.shape[1])
