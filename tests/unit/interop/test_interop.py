"""The original's options and variables."""

import dataclasses
from contextlib import suppress

import numpy as np
import pytest
import torch

from rin import RIN, RinError, TrainingConfig
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
        theirs: draw.normal(size=tuple(state[ours].shape)[:: -1 if theirs.endswith("/kernel") else 1]).astype(
            np.float32
        )
        for ours, theirs in pix2seq.variable_names(model).items()
    }


def model_of(kind):
    return RIN(pix2seq.model_config(KINDS[kind]))


def test_a_weight_that_the_original_has_not_is_one_line():
    config = dataclasses.replace(pix2seq.model_config(KINDS["image"]), mixing_size=3)
    with pytest.raises(RinError, match=r"the original has no variable for blocks.0.mixing.convolution.weight"):
        pix2seq.state_dict(RIN(config), {})


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


SCOPES = {
    "tape/": lambda _: "tape/",
    "model/denoiser/tape/": lambda _: "model/denoiser/tape/",
    "a layer's own": lambda name: "tape/" if name.endswith("vis_pos_embedding") else "image_tape_denoiser/tape/",
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_keras_writes_before_a_name_is_taken_off(kind, scope):
    model = model_of(kind)
    arrays = variables(model)
    prefixed = {f"{SCOPES[scope](name)}{name}:0": array for name, array in arrays.items()}
    plain = pix2seq.state_dict(model, arrays)
    assert all(
        torch.equal(value, plain[name]) for name, value in pix2seq.load(KINDS[kind], prefixed).state_dict().items()
    )


@pytest.mark.parametrize("second", ["denoiser_ema/stem/kernel:0", "stem/kernel:0"])
def test_a_variable_that_is_there_twice_is_refused_with_both_names(second):
    arrays = {f"denoiser/{name}": array for name, array in variables(model_of("image")).items()}
    with pytest.raises(RinError, match=f"'stem/kernel' is there twice, as 'denoiser/stem/kernel' and as '{second}'"):
        pix2seq.load(IMAGE, arrays | {second: arrays["denoiser/stem/kernel"]})


@pytest.mark.parametrize("name", pix2seq.LEFT_OUT)
@pytest.mark.parametrize("read", [pix2seq.model_config, pix2seq.diffusion_config])
def test_options_that_are_left_out_are_refused_by_name_and_taken_at_our_value(name, read):
    ours, _ = pix2seq.LEFT_OUT[name]
    read(IMAGE | {name: ours})
    other = (not ours) if isinstance(ours, bool) else "sin_cos" if isinstance(ours, str) else 3
    with pytest.raises(RinError, match=f"option {name} = {other!r}: rin leaves out"):
        read(IMAGE | {name: other})


READERS = {
    "model": pix2seq.model_config,
    "diffusion": pix2seq.diffusion_config,
    "sampling": pix2seq.sampling_options,
    "training": pix2seq.training_options,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "options",
    [
        {"pred_type": "x_softmax_xent"},
        {"loss_type": "x_sigmoid_xent"},
        {"pred_type": "x0"},
        {"conditional": "text"},
        {"conditional": "seq@x"},
        {"cond_on_latent_n": 2},
        {"optimizer": "momentum"},
        {"warmup_epochs": 5},
        {"exclude_from_weight_decay": ""},
        {"pretrained_ckpt": "gs://somewhere"},
    ],
    ids=str,
)
def test_what_would_be_another_model_or_run_is_refused_by_name_whoever_reads(options, read):
    ((name, value),) = options.items()
    words = f"{'pred_type or loss_type' if name.endswith('_type') else f'option {name} ='} {value!r}"
    with pytest.raises(RinError, match=words):
        read(IMAGE | options)


def test_frames_that_are_given_twice_must_agree():
    video = {name: value for name, value in KINDS["video"].items() if name != "cond_frames"}
    assert pix2seq.model_config(video | {"conditional": "seq@2"}).num_context_frames == 2
    with pytest.raises(RinError, match="'seq@3', and 2 frames are given"):
        pix2seq.model_config(video | {"conditional": "seq@3", "cond_frames": 2})
    with pytest.raises(RinError, match="leaves out the class in the noise level of clips"):
        pix2seq.model_config(video | {"conditional": "class"})


class Recording(dict):
    """Options that remember which of them somebody looked up."""

    def __init__(self, options):
        super().__init__(options)
        self.read = set()

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        self.read.add(name)
        return super().__contains__(name)


OTHER_NAMES = {
    "height": "image_height", "width": "image_width", "channels": "image_channels", "frames": "seq_len",
    "cond_frames": "seq_cond", "temporal_patch": "seq_stride", "token_dim": "token_output_dim",
}  # fmt: skip


def everything(options):
    """What all readers make of options; where one refuses them, that."""
    return [outcome(reader, options) for reader in READERS.values()]


def outcome(reader, options):
    try:
        return reader(options)
    except RinError as error:
        return str(error)


def test_no_option_is_passed_over():
    read, training = set(), {"learning_rate": 0.1, "learning_rate_scaling": "linear", "batch_size": 64}
    for kind in KINDS.values():
        for names in ({}, OTHER_NAMES, {"height": "image_size"}):
            named = {names.get(name, name): value for name, value in kind.items()}
            options = Recording(named | training | {"optimizer": "adamw", "global_clipnorm": 1.0})
            everything(options)
            read |= options.read
    assert read >= pix2seq.ARCHITECTURE | pix2seq.DIFFUSION | pix2seq.TRAINING
    assert not read & pix2seq.WITHOUT_EFFECT.keys()


@pytest.mark.parametrize("name", pix2seq.WITHOUT_EFFECT)
def test_options_that_change_nothing_are_listed(name):
    assert everything(IMAGE | {name: "other"}) == everything(IMAGE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"infer_iterations": 7, "guidance": 1.5, "td": 1.0}, {"num_steps": 7, "guidance": 1.5, "td": 1.0}),
        ({"guidance": 0.0}, {"guidance": 0.0}),
    ],
)
def test_what_is_given_to_each_sampling_is_read_and_told_of_elsewhere(options, expected, caplog):
    assert pix2seq.sampling_options(options) == expected
    pix2seq.diffusion_config(options)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"option {name} = {options[name]} is given to each sampling: sampling_options(config) has it"
        for name in ("guidance", "td")
        if options.get(name)
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"optimizer": "lamb", "global_clipnorm": 1.0}, {"optimiser": "lamb"}),
        ({"optimizer": "adamw", "global_clipnorm": 1.0}, {"optimiser": "adamw", "clip_norm": 1.0}),
        ({"optimizer": "adamw", "global_clipnorm": -1.0}, {"optimiser": "adamw", "clip_norm": 0.0}),
        ({"learning_rate": 1e-3, "learning_rate_scaling": "none"}, {"learning_rate": 1e-3}),
        (
            {"learning_rate": 1e-3, "learning_rate_scaling": "linear", "batch_size": 512},
            {"learning_rate": 2e-3, "batch_size": 512},
        ),
        (
            {"learning_rate": 1e-3, "learning_rate_scaling": "sqrt", "batch_size": 4},
            {"learning_rate": 2e-3, "batch_size": 4},
        ),
        ({"beta2": 0.99}, {"betas": (0.9, 0.99)}),
        (
            {"learning_rate_schedule": "cosine@0.7", "end_lr_factor": 0.1, "warmup_steps": 5, "warmup_epochs": 3},
            {"lr_schedule": "cosine@0.7", "lr_end_factor": 0.1, "warmup_steps": 5},
        ),
        (
            {"steps": 9, "weight_decay": 0.1, "eps": 1e-6, "ema_decay": 0.9},
            {"num_steps": 9, "weight_decay": 0.1, "eps": 1e-6, "average_decay": 0.9},
        ),
    ],
    ids=str,
)
def test_training_is_read_from_the_originals_options(options, expected):
    assert pix2seq.training_options(options) == expected
    TrainingConfig(**expected)


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


SPOILED = {
    "transposed": ("cond_proj/kernel", lambda array: array.T, r"has shape \(32, 5\): \(5, 32\)"),
    "transposed in heads": ("HEADS/query/kernel", lambda a: a.T.reshape(2, 8, 32), r"shape \(2, 8, 32\): \(32, 16\)"),
    "transposed positions": ("tape_pos_emb/kernel/vis_pos_embedding", lambda array: array.T, "has shape"),
    "one axis": ("cond_proj/kernel", lambda array: array.ravel(), "has shape"),
    "one more": ("cond_proj/bias", lambda array: np.append(array, 0.0), "has shape"),
    "a number": ("cond_proj/bias", lambda array: array.sum(keepdims=True).reshape(()), "has shape"),
    "not finite": ("cond_proj/bias", lambda array: array * np.nan, "is not finite"),
    "too large": ("cond_proj/bias", lambda array: (array.astype(np.float64) + 1) * 1e300, "is not finite"),
    "whole": ("cond_proj/bias", lambda array: array.astype(np.int64), "is stored as int64"),
    "truths": ("cond_proj/bias", lambda array: array > 0, "is stored as bool"),
    "complex": ("cond_proj/bias", lambda array: array + 1j, "is stored as complex"),
    "texts": ("cond_proj/bias", lambda array: array.astype(str), "is stored as <U"),
    "objects": ("cond_proj/bias", lambda array: array.astype(object), "is stored as object"),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("how", SPOILED)
def test_variables_that_are_another_matrix_or_no_weights_are_refused_by_name(how):
    name, spoil, said = SPOILED[how]
    name = name.replace("HEADS", "read_unit_0/transformer_decoder_layer/cross_mha")
    arrays = variables(model_of("image"))
    with pytest.raises(RinError, match=said):
        pix2seq.load(IMAGE, arrays | {name: spoil(arrays[name])})


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", sorted(pix2seq.ARCHITECTURE | pix2seq.DIFFUSION | pix2seq.TRAINING))
def test_values_of_another_kind_are_refused_by_name_whoever_reads(name, read):
    for value in ({}, b"4", float("nan"), float("inf"), [3]):
        with pytest.raises(RinError, match=name):
            read(IMAGE | {name: value})
    for value in (None, True, 1.5, "four", -1, 0):  # which some may be
        with suppress(RinError):
            read(IMAGE | {name: value})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"image_height": 16}, "height = 8 and image_height = 16 are one"),
        ({"image_size": 8}, "width = 12 and image_size = 8 are one"),
        ({"image_channels": 1}, "channels = 3 and image_channels = 1 are one"),
        ({"schedule": "cosine", "infer_schedule": "linear"}, "infer_schedule = 'linear' and schedule = 'cosine' are"),
        ({"sampler": "ddim", "sampler_name": "ddpm"}, "sampler_name = 'ddpm' and sampler = 'ddim' are one"),
        ({"conditional": "none"}, "conditional = 'none' and cond_on_latent_n = 1 contradict"),
        ({"conditional": "class", "cond_on_latent_n": 0}, "conditional = 'class' and cond_on_latent_n = 0 contradict"),
        ({"cond_frames": 2}, "cond_frames is for another kind of data"),
        ({"temporal_patch": 2}, "temporal_patch is for another kind of data"),
        ({"num_tokens": 4, "token_dim": 2}, "height is for another kind of data"),
        ({"tail_steps": 1000}, "tail_steps = 1000: rin leaves out"),
    ],
    ids=str,
)
def test_options_that_contradict_one_another_are_refused_whoever_reads(options, names):
    for read in READERS.values():
        with pytest.raises(RinError, match=names):
            read(IMAGE | options)
