"""The authors' own TensorFlow code (google-research/pix2seq): its option names, its variable names, its layouts.

There the interface is called tape, latents are slots, compute layers are latent processing units, and kernels are
stored input first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rin.core.errors import RinError, unknown
from rin.diffusion import DiffusionConfig
from rin.nn import RIN, RINConfig

Options = Mapping[str, Any]
"""Options under the original's names, flat."""

Arrays = Mapping[str, NDArray[Any]]
"""Variables under the original's names."""

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
    "x0_clip": ("auto", "other clipping than to the input scale"),
}
"""Options that we leave out, with the one value that is ours and what any other would ask for."""

ARCHITECTURE = {
    "kind", "num_layers", "latent_slots", "latent_dim", "latent_mlp_ratio", "latent_num_heads", "tape_dim",
    "tape_mlp_ratio", "rw_num_heads", "drop_units", "drop_path", "time_scaling", "cond_on_latent_n", "cond_dim",
    "num_classes", "patch_size", "height", "width", "channels", "image_height", "image_width", "image_channels",
    "image_size", "frames", "cond_frames", "temporal_patch", "seq_len", "seq_cond", "seq_stride", "num_tokens",
    "token_dim", "token_output_dim",
}  # fmt: skip
DIFFUSION = {
    "train_schedule", "infer_schedule", "schedule", "pred_type", "loss_type", "b_scale", "normalize_noisy_input",
    "self_cond_rate", "self_cond_share", "self_cond_by_masking", "cond_dropout", "sampler_name", "sampler",
    "infer_iterations", "steps", "guidance", "td", "conditional",
}  # fmt: skip
TRAINING = {
    "optimizer", "learning_rate", "learning_rate_schedule", "learning_rate_scaling", "warmup_steps", "warmup_epochs",
    "end_lr_factor", "weight_decay", "beta1", "beta2", "eps", "momentum", "global_clipnorm", "ema_decay",
    "ema_name_exact_match", "exclude_from_weight_decay", "tail_steps", "batch_size", "name", "pretrained_ckpt",
    "total_time_steps",
}  # fmt: skip


def load(config: Options, weights: Arrays) -> RIN:
    """The original's network, in evaluation mode.

    Args:
        config: its options under their own names, flat (others than the network's may be among them).
        weights: its variables under their own names.

    Raises:
        RinError: an option that we leave out or do not know, or a variable that is missing, too many or misshapen.
    """
    model = RIN(model_config(config))
    model.load_state_dict(state_dict(model, weights))
    return model.eval()


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
        dropout_rate=config.get("drop_units", 0.0),
        depth_drop_rate=config.get("drop_path", 0.0),
        gamma_scale=float(config.get("time_scaling", 1000)),
    )


def diffusion_config(config: Options) -> DiffusionConfig:
    """The diffusion's configuration from the original's options; what is absent has its defaults.

    Raises:
        RinError: an option that we leave out or do not know.
    """
    _refuse(config)
    prediction = space(config.get("pred_type", "eps"))
    share = config.get("self_cond_share", -1.0)
    by_mask = config.get("self_cond_by_masking", share < 0)
    return DiffusionConfig(
        schedule=schedule(config.get("train_schedule", "cosine")),
        sampling_schedule=schedule(config.get("infer_schedule", config.get("schedule", "cosine"))),
        prediction=prediction,
        loss_space=space(config.get("loss_type", prediction)),
        input_scale=config.get("b_scale", 1.0),
        normalise_input=config.get("normalize_noisy_input", False),
        self_cond_rate=config.get("self_cond_rate", share if share >= 0 else 0.5),
        self_cond_by="mask" if by_mask else "share",
        label_drop_rate=config.get("cond_dropout", 0.0),
        sampler=_sampler(config.get("sampler_name", config.get("sampler", "ddpm"))),
        num_steps=config.get("infer_iterations", 100),
    )


def state_dict(model: RIN, arrays: Arrays) -> dict[str, Tensor]:
    """The original's variables, or their gradients or averages, under our names and in our layouts.

    Raises:
        RinError: a variable is missing, too many or misshapen.
    """
    given = {name.removesuffix(":0"): array for name, array in arrays.items()}
    names = variable_names(model)
    for problem, which in (
        ("is missing", set(names.values()) - set(given)),
        ("is none of this network's", set(given) - set(names.values())),
    ):
        if which:
            raise RinError(f"variable {min(which)!r} {problem} ({len(which)} in all): configuration and weights differ")
    return {ours: _to_layout(given[names[ours]], ours, value) for ours, value in model.state_dict().items()}


def variable_names(model: RIN) -> dict[str, str]:
    """Our name of each weight to the original's."""
    names = {
        "latents": "latent_pos_emb/kernel/vis_pos_embedding",
        "tokenizer.positions": "tape_pos_emb/kernel/vis_pos_embedding",
        **_linear("tokenizer.patch", "stem"),
        **_norm("tokenizer.norm", "stem_ln"),
        **_norm("tokenizer.read_out_norm", "output_ln"),
        **_linear("tokenizer.read_out", "output_linear"),
        **_linear("noise_level.up", "time_emb/dense0"),
        **_linear("noise_level.down", "time_emb/dense1"),
        **_linear("condition.label", "cond_proj"),
        **_mlp("self_conditioning.mlp", "latent_prev_proj"),
        **_norm("self_conditioning.norm", "latent_prev_ln"),
    }
    for number, depth in enumerate(model.config.compute_depth):
        for part in ("read", "write"):
            ours, theirs = f"blocks.{number}.{part}", f"{part}_unit_{number}/transformer_decoder_layer"
            names |= _layer(ours, theirs, "cross_mha")
        for layer in range(depth):
            suffix = f"_{layer}" if layer else ""
            theirs = f"latent_processing_unit{number}/transformer_encoder{suffix}"
            names |= _layer(f"blocks.{number}.compute.{layer}", theirs, "mha")
    return {ours: theirs for ours, theirs in names.items() if ours in model.state_dict()}


def _linear(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.weight": f"{theirs}/kernel", f"{ours}.bias": f"{theirs}/bias"}


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.weight": f"{theirs}/gamma", f"{ours}.bias": f"{theirs}/beta"}


def _mlp(ours: str, theirs: str) -> dict[str, str]:
    return (
        _norm(f"{ours}.norm", f"{theirs}/ffn/ln")
        | _linear(f"{ours}.up", f"{theirs}/ffn/dense1")
        | _linear(f"{ours}.down", f"{theirs}/ffn/dense2")
    )


def _layer(ours: str, theirs: str, attention: str) -> dict[str, str]:
    names = _norm(f"{ours}.norm", f"{theirs}/{attention}/ln") | _mlp(f"{ours}.mlp", f"{theirs}/mlp")
    for part, original in (("query", "query"), ("key", "key"), ("value", "value"), ("out", "attention_output")):
        names |= _linear(f"{ours}.attention.{part}", f"{theirs}/{attention}/{original}")
    return names


def _to_layout(array: NDArray[Any], name: str, like: Tensor) -> Tensor:
    """An original variable in our layout: a kernel (in ..., out ...) becomes a matrix (out, in)."""
    value = torch.from_numpy(np.array(array, dtype=np.float32))
    if value.numel() != like.numel():
        raise RinError(f"the variable for {name!r} has shape {tuple(value.shape)}: {tuple(like.shape)} is needed")
    if name.endswith(".weight") and like.ndim == 2:
        return value.reshape(like.shape[1], like.shape[0]).T.contiguous()
    return value.reshape(like.shape)


def _refuse(config: Options) -> None:
    """Refuses, by name, options that we leave out or do not know."""
    for name, (ours, other) in LEFT_OUT.items():
        value = config.get(name, ours)
        needless = name == "cond_on_latent" and not _has_classes(config)
        if value != ours and not needless:
            raise RinError(f"option {name} = {value!r}: rin leaves out {other}; only {name} = {ours!r} is taken")
    for name in config:
        if name not in ARCHITECTURE | DIFFUSION | TRAINING | LEFT_OUT.keys():
            raise unknown("option of pix2seq", name, ARCHITECTURE | DIFFUSION | TRAINING | LEFT_OUT.keys())


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
    if not {"frames", "seq_len"} & set(config):
        return {"shape": (channels, height, width), "patch_size": patch_size}
    context = config.get("cond_frames", config.get("seq_cond", 0))
    return {
        "shape": (channels, _need(config, "frames", "seq_len") - context, height, width),
        "patch_size": patch_size,
        "temporal_patch_size": _need(config, "temporal_patch", "seq_stride"),
        "num_context_frames": context,
    }


def schedule(text: str) -> str:
    """Our name of one of the original's schedules.

    Raises:
        RinError: it is the logarithmic one, which we leave out.
    """
    if text.startswith("log@"):
        raise RinError(f"schedule {text!r}: rin leaves out the logarithmic schedule")
    return "linear" if text.startswith("simple_linear") else text


def lr_schedule(text: str) -> str:
    """Our name of one of the original's learning-rate schedules.

    Raises:
        RinError: it is the exponential one, which we leave out.
    """
    if text.startswith("exp@"):
        raise RinError(f"learning-rate schedule {text!r}: rin leaves out the exponential schedule")
    return "constant" if text == "none" else text


def space(text: str) -> Any:
    """A prediction or loss type: the original goes by the first letter of x and v."""
    if text != "eps" and text[:1] not in ("x", "v"):
        raise unknown("pred_type or loss_type", text, ["eps", "x", "v"])
    return text if text == "eps" else text[:1]


def _sampler(text: str) -> Any:
    """A sampler; the original writes the variance behind an @, large if absent."""
    names = {"ddpm@small": "ddpm-small", "ddpm@large": "ddpm", "ddpm": "ddpm", "ddim": "ddim"}
    if text not in names:
        raise unknown("sampler", text, names)
    return names[text]
