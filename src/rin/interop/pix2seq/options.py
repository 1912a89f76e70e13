"""The original's options, read as ours; what is left out is refused by name.

Every option is read by one of `model_config`, `diffusion_config`, `sampling_options` and `training_options`, has one
value that is taken, or is known to change nothing: none is passed over without a word.
"""

from collections.abc import Mapping
from typing import Any

from rin.core.errors import RinError, unknown
from rin.core.progress import LOGGER
from rin.diffusion import DiffusionConfig
from rin.interop.pix2seq.names import lr_schedule, sampler, schedule, space
from rin.interop.pix2seq.values import check_values
from rin.nn import RINConfig

Options = Mapping[str, Any]
"""Options under the original's names, flat."""

LEFT_OUT: dict[str, tuple[Any, str]] = {
    "arch_name": ("tape", "other architectures than the RIN"),
    "latent_pos_encoding": ("learned", "fixed positions"),
    "tape_pos_encoding": ("learned", "fixed positions"),
    "time_on_latent": (True, "the noise level in the interface"),
    "cond_on_latent": (True, "the condition in the interface"),
    "cond_tape_writable": (False, "the condition in the interface"),
    "cond_decoupled_read": (False, "the condition in the interface"),
    "cond_proj": (True, "conditions without a projection"),
    "conv_kernel_size": (0, "convolutions"),
    "conv_drop_units": (0, "convolutions"),
    "xattn_enc_ln": (False, "normalised keys"),
    "self_cond": ("latent", "other self-conditioning than the latents'"),
    "drop_att": (0, "dropout in attention"),
    "drop_sc": (0, "dropout of self-conditioning"),
    "cond_dim": (0, "conditions of a width of their own"),
    "x0_clip": ("auto", "other clipping than to the input scale"),
    "pretrained_ckpt": ("", "beginning from a checkpoint of the original's"),
    "tail_steps": (0, "a tail of small rates"),
}
"""Options that we leave out, with the one value that is ours and what any other would ask for."""

ARCHITECTURE = {
    "num_layers", "latent_slots", "latent_dim", "latent_mlp_ratio", "latent_num_heads", "tape_dim",
    "tape_mlp_ratio", "rw_num_heads", "drop_units", "drop_path", "time_scaling", "cond_on_latent_n", "conditional",
    "num_classes", "patch_size", "height", "width", "channels", "image_height", "image_width", "image_channels",
    "image_size", "frames", "cond_frames", "temporal_patch", "seq_len", "seq_cond", "seq_stride", "num_tokens",
    "token_dim", "token_output_dim",
}  # fmt: skip
"""Options that `model_config` reads."""

DIFFUSION = {
    "train_schedule", "infer_schedule", "schedule", "pred_type", "loss_type", "b_scale", "normalize_noisy_input",
    "self_cond_rate", "self_cond_share", "self_cond_by_masking", "cond_dropout", "sampler_name", "sampler",
    "infer_iterations", "guidance", "td",
}  # fmt: skip
"""Options that `diffusion_config` reads; the last two `sampling_options` does."""

TRAINING = {
    "optimizer", "learning_rate", "learning_rate_schedule", "learning_rate_scaling", "warmup_steps", "warmup_epochs",
    "end_lr_factor", "weight_decay", "beta1", "beta2", "eps", "global_clipnorm", "ema_decay",
    "exclude_from_weight_decay", "batch_size", "steps",
}  # fmt: skip
"""Options that `training_options` reads."""

WITHOUT_EFFECT = {
    "kind": "the shape tells it",
    "name": "of the model or the set",
    "ema_name_exact_match": "averages are matched by name",
    "momentum": "of an optimiser that is left out",
    "total_time_steps": "the original does not read it",
}
"""Options that change nothing, with why."""

_FLOATS = ("lr_end_factor", "weight_decay", "eps", "average_decay")
"""Our options of training that are no whole numbers, which the original's may be written as."""

_EXCLUDED = ("bias", "beta", "gamma")

_KNOWN = {*ARCHITECTURE, *DIFFUSION, *TRAINING, *WITHOUT_EFFECT, *LEFT_OUT}


def model_config(config: Options) -> RINConfig:
    """The network's configuration from the original's options.

    Raises:
        RinError: an option that we leave out, do not know or miss.
    """
    _refuse(config)
    depth = tuple(int(depth) for depth in str(_need(config, "num_layers")).split(","))
    classes = int(config.get("num_classes", 0)) if _has_classes(config) else 0
    return RINConfig(
        **_shape(config),
        num_classes=classes,
        num_latents=_need(config, "latent_slots"),
        latent_dim=_need(config, "latent_dim"),
        interface_dim=_need(config, "tape_dim"),
        compute_depth=depth,
        num_heads=_need(config, "latent_num_heads"),
        num_read_write_heads=_need(config, "rw_num_heads"),
        latent_mlp_ratio=_need(config, "latent_mlp_ratio"),
        interface_mlp_ratio=_need(config, "tape_mlp_ratio"),
        dropout_rate=float(config.get("drop_units", 0.0)),
        depth_drop_rate=float(config.get("drop_path", 0.0)),
        gamma_scale=float(config.get("time_scaling", 1000)),
    )


def diffusion_config(config: Options) -> DiffusionConfig:
    """The diffusion's configuration from the original's options; what is absent has its defaults.

    Guidance and td are no part of it: they are logged if they are not 0, see `sampling_options`.

    Raises:
        RinError: an option that we leave out or do not know.
    """
    _refuse(config)
    for name, value in sampling_options(config).items():
        if name != "num_steps" and value:
            LOGGER.warning("option %s = %s is given to each sampling: sampling_options(config) has it", name, value)
    prediction = space(config.get("pred_type", "eps"))
    share = config.get("self_cond_share", -1.0)
    by_mask = config.get("self_cond_by_masking", share < 0)
    return DiffusionConfig(
        schedule=schedule(config.get("train_schedule", "cosine")),
        sampling_schedule=schedule(config.get("infer_schedule", config.get("schedule", "cosine"))),
        prediction=prediction,
        loss_space=space(config.get("loss_type", prediction)),
        input_scale=float(config.get("b_scale", 1.0)),
        normalise_input=config.get("normalize_noisy_input", False),
        self_cond_rate=float(config.get("self_cond_rate", share if share >= 0 else 0.5)),
        self_cond_by="mask" if by_mask else "share",
        label_drop_rate=float(config.get("cond_dropout", 0.0)),
        sampler=sampler(config.get("sampler_name", config.get("sampler", "ddpm"))),
        num_steps=config.get("infer_iterations", 100),
    )


def sampling_options(config: Options) -> dict[str, Any]:
    """What `Diffusion.sample` is given of the original's options: num_steps, guidance and td.

    Raises:
        RinError: an option that we leave out or do not know.
    """
    _refuse(config)
    names = {"infer_iterations": "num_steps", "guidance": "guidance", "td": "td"}
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}


def training_options(config: Options) -> dict[str, Any]:
    """What the original's options say of a `TrainingConfig`, by its names; what is absent is left out.

    Raises:
        RinError: an option that we leave out or do not know.
    """
    _refuse(config)
    names = {
        "steps": "num_steps", "batch_size": "batch_size", "optimizer": "optimiser", "warmup_steps": "warmup_steps",
        "end_lr_factor": "lr_end_factor", "weight_decay": "weight_decay", "eps": "eps", "ema_decay": "average_decay",
    }  # fmt: skip
    options = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    options |= {name: float(options[name]) for name in names.values() if name in options and name in _FLOATS}
    if "beta1" in config or "beta2" in config:
        options["betas"] = (float(config.get("beta1", 0.9)), float(config.get("beta2", 0.999)))
    if "learning_rate_schedule" in config:
        options["lr_schedule"] = lr_schedule(config["learning_rate_schedule"])
    if "learning_rate" in config:
        options["learning_rate"] = _learning_rate(config)
    if config.get("optimizer") == "adamw" and "global_clipnorm" in config:  # its LAMB does not clip
        options["clip_norm"] = max(float(config["global_clipnorm"]), 0.0)
    return options


def _learning_rate(config: Options) -> float:
    scaling = config.get("learning_rate_scaling") or "none"
    if scaling == "none":
        return float(config["learning_rate"])
    batch_size = _need(config, "batch_size")
    factors = {"linear": batch_size / 256, "sqrt": batch_size**0.5}
    if scaling not in factors:
        raise unknown("learning_rate_scaling", scaling, ["none", *factors])
    return config["learning_rate"] * factors[scaling]


def _refuse(config: Options) -> None:
    """Refuses, by name, options that we leave out or do not know, and values that they cannot have."""
    check_values(config)
    for name, (ours, other) in LEFT_OUT.items():
        value = config.get(name, ours)
        needless = name == "cond_on_latent" and not _has_classes(config)
        if value != ours and not needless:
            raise RinError(f"option {name} = {value!r}: rin leaves out {other}; only {name} = {ours!r} is taken")
    for name in config:
        if name not in _KNOWN:
            raise unknown("option of pix2seq", name, _KNOWN)
    for name in ("pred_type", "loss_type"):
        if name in config:
            space(config[name])
    _refuse_conditions(config)
    _refuse_training(config)


def _refuse_conditions(config: Options) -> None:
    tokens, conditional = config.get("cond_on_latent_n", 0), config.get("conditional", "none")
    if tokens not in (0, 1):
        raise RinError(f"option cond_on_latent_n = {tokens!r}: rin has one token of a class: take 0 or 1")
    if conditional not in ("class", "none") and _frames_in(conditional) is None:
        raise RinError(f"option conditional = {conditional!r}: take 'class', 'none', or 'seq@5' for five given frames")
    if conditional == "class" and _is_video(config):
        raise RinError("option conditional = 'class': rin leaves out the class in the noise level of clips")
    if {"conditional", "cond_on_latent_n"} <= set(config) and (conditional == "class") != bool(tokens):
        raise RinError(f"options conditional = {conditional!r} and cond_on_latent_n = {tokens!r} contradict each other")
    of_clips, of_pictures = {"cond_frames", "seq_cond", "temporal_patch", "seq_stride"}, {"frames", "seq_len", "height"}
    others = of_clips | of_pictures if "num_tokens" in config else set() if _is_video(config) else of_clips
    if stray := sorted(others & set(config)):
        raise RinError(f"option {stray[0]} is for another kind of data than the rest of the options: leave it out")


def _refuse_training(config: Options) -> None:
    if config.get("optimizer", "lamb") not in ("lamb", "adamw"):
        raise RinError(f"option optimizer = {config['optimizer']!r}: rin has lamb and adamw of the original's")
    if config.get("warmup_epochs") and not config.get("warmup_steps"):
        raise RinError(f"option warmup_epochs = {config['warmup_epochs']!r}: give warmup_steps, in updates")
    excluded = config.get("exclude_from_weight_decay", _EXCLUDED)
    names = excluded.split(",") if isinstance(excluded, str) else excluded
    if set(names) != set(_EXCLUDED):
        raise RinError(f"option exclude_from_weight_decay = {excluded!r}: rin excludes {','.join(_EXCLUDED)}")


def _frames_in(conditional: str) -> int | None:
    """The given frames in seq or seq@5; None if it is of another kind."""
    name, _, count = conditional.partition("@")
    return int(count or 0) if name == "seq" and (not count or count.isdecimal()) else None


def _is_video(config: Options) -> bool:
    return bool({"frames", "seq_len"} & set(config))


def _has_classes(config: Options) -> bool:
    if "cond_on_latent_n" in config:
        return bool(config["cond_on_latent_n"])
    return config.get("conditional", "class") == "class" and bool(config.get("num_classes", 0))


def _need(config: Options, *names: str) -> Any:
    """The value of an option, under any of the names that the original gives it."""
    for name in names:
        if name in config:
            return config[name]
    raise RinError(f"option {names[0]} is missing from the pix2seq configuration")


def _shape(config: Options) -> dict[str, Any]:
    """Shape, patches and context frames, from the options of the original's three denoisers."""
    if "num_tokens" in config:
        return {"shape": (config["num_tokens"], _need(config, "token_dim", "token_output_dim"))}
    height = _need(config, "height", "image_height", "image_size")
    width = _need(config, "width", "image_width", "image_size")
    channels = config.get("channels", config.get("image_channels", 3))
    patch_size = _need(config, "patch_size")
    if not _is_video(config):
        return {"shape": (channels, height, width), "patch_size": patch_size}
    given = _frames_in(config.get("conditional", "none"))
    context = config.get("cond_frames", config.get("seq_cond", given or 0))
    if given not in (None, context):
        raise RinError(f"option conditional = {config['conditional']!r}, and {context} frames are given")
    return {
        "shape": (channels, _need(config, "frames", "seq_len") - context, height, width),
        "patch_size": patch_size,
        "temporal_patch_size": _need(config, "temporal_patch", "seq_stride"),
        "num_context_frames": context,
    }
