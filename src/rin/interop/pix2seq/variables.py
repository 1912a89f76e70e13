"""The original's variables, in our layout.

There kernels are stored input first, and Keras may put the names of layers and models before a variable's own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rin.core.errors import RinError
from rin.nn import RIN

Arrays = Mapping[str, NDArray[Any]]
"""Variables under the original's names."""


def state_dict(model: RIN, arrays: Arrays) -> dict[str, Tensor]:
    """The original's variables, or their gradients or averages, under our names and in our layouts.

    Args:
        model: the network.
        arrays: by name; Keras's `:0` behind it and the names of layers and models before it, as in
            `tape/stem/kernel:0`, are taken off.

    Raises:
        RinError: a variable is missing, too many, there twice or misshapen.
    """
    names = variable_names(model)
    if unknown := set(model.state_dict()) - set(names):
        raise RinError(f"the original has no variable for {min(unknown)}: load its weights into a network without")
    short = _without_prefixes(arrays, set(names.values()))
    for problem, which in (
        ("is missing", set(names.values()) - set(short)),
        ("is none of this network's", set(short) - set(names.values())),
    ):
        if which:
            raise RinError(f"variable {min(which)!r} {problem} ({len(which)} in all): configuration and weights differ")
    return {ours: _to_layout(short[names[ours]], ours, value) for ours, value in model.state_dict().items()}


def _without_prefixes(arrays: Arrays, names: set[str]) -> dict[str, NDArray[Any]]:
    """Variables by the names of a network's; those that end in none of them by their own."""
    short: dict[str, NDArray[Any]] = {}
    full_names: dict[str, str] = {}
    for full, array in arrays.items():
        parts = full.removesuffix(":0").split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name = next((end for end in ends if end in names), "/".join(parts))
        if name in short:
            raise RinError(
                f"variable {name!r} is there twice, as {full_names[name]!r} and as {full!r}: give one network's"
            )
        short[name], full_names[name] = array, full
    return short


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
    array = np.asarray(array)
    if array.dtype.kind != "f":
        raise RinError(f"the variable for {name!r} is stored as {array.dtype}, and weights are floats")
    is_kernel = name.endswith(".weight") and like.ndim == 2
    inputs_first = tuple(like.shape[::-1]) if is_kernel else tuple(like.shape)
    if not _is_cut_into(inputs_first, array.shape):
        raise RinError(f"the variable for {name!r} has shape {array.shape}: {inputs_first} is needed")
    value = torch.from_numpy(np.array(array, dtype=np.float32)).reshape(inputs_first)
    return value.T.contiguous() if is_kernel else value


def _is_cut_into(whole: tuple[int, ...], parts: tuple[int, ...]) -> bool:
    """Whether a shape is another one, each axis whole or cut into several: (32, 16) as (32, 2, 8)."""
    left = list(parts)
    for size in whole:
        product = left.pop(0) if left else 0
        while 0 < product < size and left:
            product *= left.pop(0)
        if product != size:
            return False
    return all(size == 1 for size in left)
