"""Where every figure of a preset that follows the paper comes from, field by field; the tests see that none is missing.

A figure that is not known is guessed, and said to be ours, even where it is what the authors' files have for another
size.
"""

WORDS = {
    "released": "Released (the authors' configuration files and code, google-research/pix2seq)",
    "paper": "Paper (text and tables of arXiv 2212.11972)",
    "scaling": "Paper (arXiv 2301.10972)",
    "recalled": "Recalled (from arXiv 2301.10972's table of hyper-parameters; not checked against it)",
    "ours": "Ours (guessed, or carried over from what was released for another size)",
}
"""Where a field can come from."""

MECHANICS = {
    "accumulation_steps", "further_decays", "parallel", "precision", "compile", "recompute_blocks", "deterministic",
    "noise_version", "log_every", "held_out_every", "sample_every", "checkpoint_every", "keep_checkpoints",
    "keep_checkpoint_every", "trackers", "freeze", "rates",
    "adapter_rank", "all_latents_every",
}  # fmt: skip
"""Fields of training that are no part of a recipe: how it is computed, what is written down, and what is for those who
go on from the weights of another model."""


def _of(group: str, names: str) -> list[str]:
    return [f"{group}.{name}" for name in names.split()]


_NETWORK = _of(
    "model",
    "shape patch_size temporal_patch_size num_context_frames num_classes num_condition_tokens condition_dim "
    "condition_shape condition_in_place text_encoder caption_length num_latents num_latents_min latent_dim "
    "interface_dim compute_depth num_heads num_read_write_heads",
)
_NETWORK_IN_DETAIL = _of(
    "model",
    "latent_mlp_ratio interface_mlp_ratio dropout_rate depth_drop_rate position_deviation gamma_scale mixing_size "
    "set_positions",
)
_DIFFUSION = _of(
    "diffusion",
    "schedule sampling_schedule prediction loss_space input_scale normalise_input self_cond_rate self_cond_by "
    "label_drop_rate guidance_latents guidance guidance_interval sampler num_steps",
)
_TRAINING = _of(
    "training",
    "num_steps batch_size optimiser learning_rate lr_schedule warmup_steps lr_end_factor weight_decay betas eps "
    "clip_norm average_decay average_warmup",
)
_ALL = [*_NETWORK, *_NETWORK_IN_DETAIL, *_DIFFUSION, *_TRAINING, "data.flip"]
_PAPER = [*_NETWORK, "training.batch_size", "training.optimiser", "diffusion.prediction", "diffusion.self_cond_rate"]


def _sources(default: str, **fields: list[str]) -> dict[str, str]:
    """A source for each field: those that are named, and the default of the others."""
    named = {field: source for source, names in fields.items() for field in names}
    return dict.fromkeys(_ALL, default) | named


SOURCES: dict[str, dict[str, str]] = {
    "cifar10": _sources("released"),
    "imagenet-64-p8": _sources("released"),
    "imagenet-64": _sources(
        "ours", paper=[field for field in _PAPER if not field.endswith(("latent_dim", "face_dim"))]
    ),
    "imagenet-128": _sources("ours", paper=_PAPER),
    "imagenet-256": _sources("ours", paper=[*_PAPER, "training.num_steps"]),
    **{
        name: _sources(
            "ours", paper=_PAPER, scaling=[*_NETWORK, "diffusion.normalise_input"], recalled=["diffusion.input_scale"]
        )
        for name in ("imagenet-512", "imagenet-1024")
    },
    "kinetics-600": _sources(
        "ours", paper=[field for field in _PAPER if field != "training.batch_size"], released=["data.flip"]
    ),
}
"""Preset -> field -> key of `WORDS`; the other presets are ours as a whole."""


def sources_of(name: str) -> str:
    """A line for each source with the fields of a preset that come from there; nothing for one that is all ours."""
    fields = SOURCES.get(name, {})
    lines = ((words, [field for field, source in fields.items() if source == key]) for key, words in WORDS.items())
    return "\n".join(f"{words}: {', '.join(names)}." for words, names in lines if names)
