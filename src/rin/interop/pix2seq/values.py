"""What an option of the original's may be: a text, a truth, a whole number or a number; and its other names."""

import math
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

from rin.core.errors import RinError

ALSO = (
    ("height", "image_height", "image_size"),
    ("width", "image_width", "image_size"),
    ("channels", "image_channels"),
    ("frames", "seq_len"),
    ("cond_frames", "seq_cond"),
    ("temporal_patch", "seq_stride"),
    ("token_dim", "token_output_dim"),
    ("infer_schedule", "schedule"),
    ("sampler_name", "sampler"),
)
"""Names that the original has for one thing, in one denoiser or another."""

_TEXTS = {
    "train_schedule", "infer_schedule", "schedule", "pred_type", "loss_type", "sampler_name", "sampler", "conditional",
    "optimizer", "learning_rate_schedule",
}  # fmt: skip

_TRUTHS = {"normalize_noisy_input", "self_cond_by_masking"}

_NUMBERS = {
    "drop_units", "drop_path", "time_scaling", "b_scale", "self_cond_rate", "self_cond_share", "cond_dropout",
    "guidance", "td", "learning_rate", "end_lr_factor", "weight_decay", "beta1", "beta2", "eps", "global_clipnorm",
    "ema_decay", "warmup_epochs",
}  # fmt: skip

_WHOLE = {
    "latent_slots", "latent_dim", "latent_mlp_ratio", "latent_num_heads", "tape_dim", "tape_mlp_ratio", "rw_num_heads",
    "cond_on_latent_n", "num_classes", "patch_size", "height", "width", "channels", "image_height", "image_width",
    "image_channels", "image_size", "frames", "cond_frames", "temporal_patch", "seq_len", "seq_cond", "seq_stride",
    "num_tokens", "token_dim", "token_output_dim", "infer_iterations", "warmup_steps", "batch_size", "steps",
}  # fmt: skip

_DEPTHS = re.compile(r"\d{1,9}(,\d{1,9})*", re.ASCII)


def _is_whole(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Integral)


def _is_number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)


def _is_a_list_of_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value))


_KINDS: tuple[tuple[set[str], str, Callable[[Any], bool]], ...] = (
    (_TEXTS, "a text", lambda value: isinstance(value, str)),
    (_TRUTHS, "True or False", lambda value: isinstance(value, bool)),
    (_NUMBERS, "a finite number", _is_number),
    (_WHOLE, "a whole number", _is_whole),
    ({"num_layers"}, "the depth of each block, as in '4,4'", lambda value: bool(_DEPTHS.fullmatch(str(value)))),
    ({"learning_rate_scaling"}, "a text or None", lambda value: value is None or isinstance(value, str)),
    ({"exclude_from_weight_decay"}, "a text, or a list of them", _is_a_list_of_names),
)
"""Options, what they are, and whether a value is that."""


def check_values(config: Mapping[str, Any]) -> None:
    """Refuses values of another kind than their options have, and one thing under two names with two values.

    Raises:
        RinError: there is such a one.
    """
    values = dict(config)
    for names, kind, fits in _KINDS:
        for name in sorted(names & values.keys()):
            if not fits(values[name]):
                raise RinError(f"option {name} = {values[name]!r}: it is {kind}")
    for names in ALSO:
        first, *others = [name for name in names if name in values] or [""]
        for other in others:
            if values[other] != values[first]:
                raise RinError(
                    f"options {first} = {values[first]!r} and {other} = {values[other]!r} are one: give one of them"
                )
