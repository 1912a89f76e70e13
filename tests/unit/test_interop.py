"""The original's options and variables."""

import numpy as np
import pytest
import torch

from rin import RIN, RinError
from rin.interop import pix2seq

OPTIONS = {
    "num_layers": "1,2", "latent_slots": 12, "latent_dim": 32, "latent_mlp_ratio": 4, "latent_num_heads": 4,
    "tape_dim": 16, "tape_mlp_ratio": 2, "rw_num_heads": 2, "drop_units": 0.1, "drop_path": 0.2, "time_scaling": 500,
    "self_cond": "latent", "num_classes": 5, "cond_on_latent_n": 1,
}  # fmt: skip
IMAGE = OPTIONS | {"height": 8, "width": 12, "channels": 3, "patch_size": 2}
KINDS = {
    "image": IMAGE,
    "no classes": IMAGE | {"cond_on_latent_n": 0},
    "no interface MLP": IMAGE | {"tape_mlp_ratio": 0},
    "read-only tail": IMAGE | {"num_layers": "2,0"},
    "video": OPTIONS | {
        "cond_on_latent_n": 0, "frames": 6, "cond_frames": 2, "temporal_patch": 2, "height": 8, "width": 8,
        "channels": 3, "patch_size": 4,
    },
    "tokens": OPTIONS | {"num_tokens": 9, "token_dim": 7},
}  # fmt: skip


def variables(model, seed=0):
    """Random variables as the original would store them: kernels input first."""
    draw, state = np.random.default_rng(seed), model.state_dict()
    return {
        theirs: draw.normal(size=tuple(state[ours].shape)[::-1]).astype(np.float32)
        for ours, theirs in pix2seq.variable_names(model).items()
    }


def model_of(kind):
    return RIN(pix2seq.model_config(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_variable_names_map_one_to_one_onto_the_weights(kind):
    model = model_of(kind)
    names = pix2seq.variable_names(model)
    assert set(names) == set(model.state_dict())
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_weights_are_the_variables_in_our_layout(kind):
    arrays = variables(model_of(kind))
    model = pix2seq.load(KINDS[kind], {f"{name}:0": array for name, array in arrays.items()})
    assert not model.training
    kernel = model.blocks[0].read.attention.query.weight
    theirs = arrays["read_unit_0/transformer_decoder_layer/cross_mha/query/kernel"]
    assert np.array_equal(kernel.detach().numpy(), theirs.T)
    assert np.array_equal(model.noise_level.up.bias.detach().numpy(), arrays["time_emb/dense0/bias"])


def test_kernels_of_attention_may_have_three_axes_and_patches_four():
    model = model_of("image")
    arrays = variables(model)
    plain = pix2seq.state_dict(model, arrays)
    unit = "read_unit_0/transformer_decoder_layer/cross_mha"
    shapes = {f"{unit}/query/kernel": (32, 2, 8), f"{unit}/attention_output/kernel": (2, 8, 32)}
    shapes |= {"stem/kernel": (2, 2, 3, 16), f"{unit}/query/bias": (2, 8)}
    deep = arrays | {name: arrays[name].reshape(shape) for name, shape in shapes.items()}
    assert all(torch.equal(value, plain[name]) for name, value in pix2seq.state_dict(model, deep).items())


def test_a_configuration_is_read_whole():
    config = pix2seq.model_config(IMAGE)
    assert (config.shape, config.patch_size, config.num_classes) == ((3, 8, 12), 2, 5)
    assert (config.num_latents, config.latent_dim, config.interface_dim) == (12, 32, 16)
    assert (config.compute_depth, config.num_heads, config.num_read_write_heads) == ((1, 2), 4, 2)
    assert (config.latent_mlp_ratio, config.interface_mlp_ratio, config.gamma_scale) == (4, 2, 500.0)
    assert (config.dropout_rate, config.depth_drop_rate) == (0.1, 0.2)
    video = pix2seq.model_config(KINDS["video"])
    assert (video.shape, video.patch_size, video.temporal_patch_size) == ((3, 4, 8, 8), 4, 2)
    assert (video.num_context_frames, video.num_classes) == (2, 0)
    assert pix2seq.model_config(KINDS["tokens"]).shape == (9, 7)
    square = {name: value for name, value in IMAGE.items() if name not in ("height", "width", "channels")}
    assert pix2seq.model_config(square | {"image_size": 16}).shape == (3, 16, 16)


@pytest.mark.parametrize("name", pix2seq.LEFT_OUT)
@pytest.mark.parametrize("read", [pix2seq.model_config, pix2seq.diffusion_config])
def test_options_that_are_left_out_are_refused_by_name_and_taken_at_our_value(name, read):
    ours, _ = pix2seq.LEFT_OUT[name]
    read(IMAGE | {name: ours})
    other = (not ours) if isinstance(ours, bool) else "sin_cos" if isinstance(ours, str) else 3
    with pytest.raises(RinError, match=f"option {name} = {other!r}: rin leaves out"):
        read(IMAGE | {name: other})


def test_no_condition_in_the_latents_is_fine_where_there_is_none():
    config = pix2seq.model_config(KINDS["no classes"] | {"cond_on_latent": False})
    assert config.num_classes == 0


@pytest.mark.parametrize("read", [pix2seq.model_config, pix2seq.diffusion_config])
def test_unknown_options_are_refused_with_the_nearest(read):
    with pytest.raises(RinError, match="unknown option of pix2seq 'tape_dims': did you mean 'tape_dim'"):
        read(IMAGE | {"tape_dims": 3})


@pytest.mark.parametrize("name", ["num_layers", "latent_slots", "tape_dim", "rw_num_heads", "patch_size", "height"])
def test_missing_options_are_named(name):
    with pytest.raises(RinError, match=f"option {name} is missing"):
        pix2seq.model_config({key: value for key, value in IMAGE.items() if key != name})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop("stem/kernel"), "'stem/kernel' is missing"),
        (lambda arrays: arrays.update({"stem/kernal": np.zeros(3)}), "'stem/kernal' is none of this network's"),
        (lambda arrays: arrays.update({"stem/bias": np.zeros(3)}), r"'tokenizer.patch.bias' has shape \(3,\)"),
    ],
    ids=["missing", "extra", "misshapen"],
)
def test_variables_that_are_missing_too_many_or_misshapen_are_refused_by_name(change, words):
    model = model_of("image")
    arrays = variables(model)
    change(arrays)
    with pytest.raises(RinError, match=words):
        pix2seq.load(IMAGE, arrays)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"train_schedule": "simple_linear"}, {"schedule": "linear"}),
        ({"infer_schedule": "cosine@0.2,1,1"}, {"sampling_schedule": "cosine@0.2,1,1"}),
        ({"pred_type": "x_start"}, {"prediction": "x", "loss_space": "x"}),
        ({"pred_type": "v", "loss_type": "eps"}, {"prediction": "v", "loss_space": "eps"}),
        ({"sampler_name": "ddpm@small"}, {"sampler": "ddpm-small"}),
        ({"sampler": "ddpm@large"}, {"sampler": "ddpm"}),
        ({"sampler": "ddim", "infer_iterations": 7}, {"sampler": "ddim", "num_steps": 7}),
        ({"self_cond_share": 0.25}, {"self_cond_rate": 0.25, "self_cond_by": "share"}),
        ({"self_cond_rate": 0.9, "self_cond_by_masking": True}, {"self_cond_rate": 0.9, "self_cond_by": "mask"}),
        ({"cond_dropout": 0.1, "b_scale": 0.5}, {"label_drop_rate": 0.1, "input_scale": 0.5}),
        ({"normalize_noisy_input": True}, {"normalise_input": True}),
    ],
    ids=str,
)
def test_a_diffusion_is_read_from_the_originals_options(options, expected):
    config = pix2seq.diffusion_config(options)
    assert {name: getattr(config, name) for name in expected} == expected


def test_schedules_that_are_left_out_are_refused():
    with pytest.raises(RinError, match="leaves out the logarithmic schedule"):
        pix2seq.schedule("log@3")
    with pytest.raises(RinError, match="leaves out the exponential schedule"):
        pix2seq.lr_schedule("exp@0.9")


def test_learning_rate_schedules_have_our_names():
    names = [pix2seq.lr_schedule(name) for name in ("none", "linear", "cosine@0.8")]
    assert names == ["constant", "linear", "cosine@0.8"]
