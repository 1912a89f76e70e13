"""The network: attention, tokens, blocks, conditions, initial weights, sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rin import RIN, Condition, Diffusion, DiffusionConfig, RINConfig, RinError, preset
from rin.costs.operations import cost
from rin.nn.attention import Attention
from rin.nn.blocks import MLP, ComputeLayer, CrossLayer, LocalMixing, StochasticDepth
from rin.nn.embeddings import NoiseLevelEmbedding, sinusoids
from rin.nn.initialisation import attention_, initialise_, positions_
from rin.nn.rin import make_tokenizer
from rin.nn.tokenizers import ImageTokenizer
from tests.unit.models import KINDS, VIDEO, inputs, moved, new, small

every_kind = pytest.mark.parametrize("kind", KINDS)


def random_(module):
    """Every weight of a module away from zeros and ones."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight))
    return module


# Attention and blocks


def einsum_attention(layer, queries, memory):
    def project(part, tokens):
        projected = torch.einsum("bnc,oc->bno", tokens, part.weight) + part.bias
        return projected.unflatten(2, (layer.num_heads, -1))

    q, k, v = project(layer.query, queries), project(layer.key, memory), project(layer.value, memory)
    shares = (torch.einsum("bqhc,bkhc->bhqk", q, k) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    answer = torch.einsum("bhqk,bkhc->bqhc", shares, v).flatten(2)
    return torch.einsum("bnc,oc->bno", answer, layer.out.weight) + layer.out.bias


@pytest.mark.parametrize(("query_dim", "memory_dim"), [(16, 16), (32, 16), (16, 32)])
def test_attention_is_what_einsum_says(query_dim, memory_dim):
    torch.manual_seed(0)
    layer = Attention(query_dim, memory_dim, 16, 4).double()
    queries, memory = torch.randn(2, 5, query_dim).double(), torch.randn(2, 7, memory_dim).double()
    torch.testing.assert_close(layer(queries, memory), einsum_attention(layer, queries, memory), rtol=0, atol=1e-12)


def test_under_a_cpus_autocast_attention_and_mixing_compute_in_float32():
    torch.manual_seed(0)
    attention, mixing = Attention(16, 16, 16, 4), random_(LocalMixing(16, (3, 3), 3))
    tokens = torch.randn(2, 9, 16)
    q, k, v = (torch.randn(2, 4, 9, 4) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        found, mixed = attention.attend(q.bfloat16(), k.bfloat16(), v.bfloat16()), mixing(tokens)
        assert (tokens @ tokens.mT).dtype == torch.bfloat16, "autocast goes on after it"
    q, k, v = (tokens.bfloat16().float() for tokens in (q, k, v))
    assert torch.equal(found, F.scaled_dot_product_attention(q, k, v))
    with torch.autocast("cpu", torch.bfloat16):
        assert attention.eval().attend(q, k, v).dtype == torch.bfloat16, "only its backward pass is slower"
    assert torch.equal(mixed, mixing(tokens))


@pytest.mark.parametrize(("dim", "memory_dim"), [(32, 16), (16, 32), (16, 16)])
def test_read_and_write_attend_at_the_smaller_width_to_a_memory_as_it_is(dim, memory_dim):
    torch.manual_seed(0)
    layer = random_(CrossLayer(dim, memory_dim, 2, 2).double())
    assert layer.attention.query.out_features == layer.attention.out.in_features == min(dim, memory_dim)
    tokens, memory = torch.randn(2, 5, dim).double(), torch.randn(2, 7, memory_dim).double()
    normed = F.layer_norm(tokens, (dim,), layer.norm.weight, layer.norm.bias, 1e-6)
    asked = tokens + einsum_attention(layer.attention, normed, memory)
    torch.testing.assert_close(layer(tokens, memory), layer.mlp(asked), rtol=0, atol=1e-9)


def test_compute_attends_among_normalised_latents():
    torch.manual_seed(0)
    layer = random_(ComputeLayer(16, 4, 2, 0.0, 0.0).double())
    latents = torch.randn(2, 5, 16).double()
    normed = F.layer_norm(latents, (16,), layer.norm.weight, layer.norm.bias, 1e-6)
    asked = latents + einsum_attention(layer.attention, normed, normed)
    torch.testing.assert_close(layer(latents), layer.mlp(asked), rtol=0, atol=1e-9)


def test_an_mlp_is_pre_norm_with_the_exact_gelu():
    torch.manual_seed(0)
    mlp = random_(MLP(8, 3).double())
    tokens = torch.randn(2, 4, 8).double()
    normed = F.layer_norm(tokens, (8,), mlp.norm.weight, mlp.norm.bias, 1e-6)
    hidden = normed @ mlp.up.weight.T + mlp.up.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(mlp(tokens), tokens + hidden @ mlp.down.weight.T + mlp.down.bias, rtol=0, atol=1e-12)


def test_every_layer_norm_has_epsilon_1e_6():
    assert {module.eps for module in new(small()).modules() if isinstance(module, nn.LayerNorm)} == {1e-6}


def test_blocks_share_no_weights():
    model = new(small(compute_depth=(2, 2, 2)))
    places = [weight.data_ptr() for _, weight in model.named_parameters(remove_duplicate=False)]
    assert len(set(places)) == len(places)
    assert [len(block.compute) for block in model.blocks] == [2, 2, 2]


def test_a_block_of_depth_0_only_reads():
    model = moved(small(compute_depth=(1, 0, 1)))
    tail = model.blocks[1]
    assert tail.write is None
    latents, interface = torch.randn(2, 8, 32), torch.randn(2, 16, 16)
    read, same = tail(latents, interface)
    assert same is interface
    assert torch.equal(read, tail.read(latents, interface))


def test_a_block_reads_computes_and_writes_in_this_order():
    block = moved(small(compute_depth=(2,))).blocks[0]
    latents, interface = torch.randn(2, 8, 32), torch.randn(2, 16, 16)
    expected = block.compute[1](block.compute[0](block.read(latents, interface)))
    found, written = block(latents, interface)
    assert torch.equal(found, expected)
    assert torch.equal(written, block.write(interface, expected))


# Mixing of neighbours


@pytest.mark.parametrize("size", [1, 3, 5])
def test_mixing_adds_a_depthwise_convolution_of_the_normalised_grid_with_zeros_around_it(size):
    torch.manual_seed(0)
    rows, columns, dim, half = 4, 6, 8, size // 2
    mixing = random_(LocalMixing(dim, (rows, columns), size).double())
    tokens = torch.randn(2, rows * columns, dim).double()
    normed = F.layer_norm(tokens, (dim,), mixing.norm.weight, mixing.norm.bias, 1e-6)
    padded = F.pad(normed.view(2, rows, columns, dim), (0, 0, half, half, half, half))
    kernel = mixing.convolution.weight[:, 0]
    expected = sum(padded[:, i : i + rows, j : j + columns] * kernel[:, i, j] for i in range(size) for j in range(size))
    torch.testing.assert_close(mixing(tokens), tokens + expected.flatten(1, 2), rtol=0, atol=1e-12)


def test_a_block_mixes_after_its_latents_have_read_and_before_it_writes():
    block = moved(small(mixing_size=3)).blocks[0]
    latents, interface = torch.randn(2, 8, 32), torch.randn(2, 16, 16)
    expected = block.compute[0](block.read(latents, interface))
    found, written = block(latents, interface)
    assert torch.equal(found, expected)
    assert torch.equal(written, block.write(block.mixing(interface), expected))


def test_without_positions_the_order_of_a_set_means_nothing():
    order = torch.tensor([4, 0, 8, 2, 6, 1, 7, 3, 5])
    for has_positions in (False, True):
        config = small(shape=(9, 7), set_positions=has_positions)
        model = moved(config).double()
        x, gamma, condition = inputs(config)
        first, other = model(x.double(), gamma, condition), model(x[:, order].double(), gamma, condition)
        is_same = torch.allclose(other.prediction, first.prediction[:, order], rtol=0, atol=1e-10)
        assert is_same is not has_positions
        assert torch.allclose(other.latents, first.latents, rtol=0, atol=1e-10) is not has_positions


def test_positions_can_be_left_out_of_sets_alone():
    with pytest.raises(RinError, match=r"model\.set_positions is for sets"):
        small(set_positions=False)


def test_mixing_begins_small_and_only_blocks_that_write_mix():
    model = new(small(mixing_size=5, interface_dim=64, compute_depth=(1, 0, 1)))
    assert [block.mixing is not None for block in model.blocks] == [True, False, True]
    weights = model.blocks[0].mixing.convolution.weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing_size": 2}, "take an odd number"),
        ({"mixing_size": -1}, "take an odd number"),
        ({"mixing_size": 3, "shape": (9, 7)}, "is for images"),
        ({"mixing_size": 3, **VIDEO}, "is for images"),
    ],
    ids=str,
)
def test_mixing_that_is_none_is_refused(changes, message):
    with pytest.raises(RinError, match=message):
        small(**changes)


def test_mixing_is_refused_where_a_tokenizer_has_no_such_grid():
    config = small(mixing_size=3)
    model = RIN(config, tokenizer=make_tokenizer(small(patch_size=4)))
    x, gamma, condition = inputs(config)
    with pytest.raises(RinError, match=r"makes 4 tokens, and model\.mixing_size is for 4 rows of 4 patches"):
        model(x, gamma, condition)


# Tokens


@pytest.mark.parametrize(
    "changes",
    [
        *({"shape": (channels, 8, 12), "patch_size": patch} for channels in (1, 3, 5) for patch in (1, 2, 4)),
        *({"shape": (2, f, 8, 4), "patch_size": 4, "temporal_patch_size": r} for f in (1, 3, 4, 5) for r in (1, 2, 3)),
        {"shape": (6, 5)},
    ],
    ids=str,
)
def test_joining_undoes_cutting(changes):
    config = small(**changes)
    tokenizer = make_tokenizer(config)
    x = torch.randn(2, *config.shape)
    patches = tokenizer.cut(x)
    assert patches.shape == (2, *tokenizer.positions.shape[:1], tokenizer.patch.in_features)
    assert torch.equal(tokenizer.join(patches, config.shape), x)


def test_patches_of_an_image_go_row_by_row_with_channels_fastest():
    image = torch.randn(1, 3, 4, 6)
    patches = ImageTokenizer((3, 4, 6), (2, 2), 16).cut(image)
    assert torch.equal(patches[0, 4], image[0, :, 2:4, 2:4].permute(1, 2, 0).flatten())


def test_patches_of_a_clip_go_frame_by_frame_and_its_end_is_padded_with_zeros():
    config = small(shape=(3, 3, 4, 8), patch_size=4, temporal_patch_size=2)
    clip = torch.randn(1, *config.shape)
    patches = make_tokenizer(config).cut(clip)
    assert patches.shape == (1, 4, 96)
    assert torch.equal(patches[0, 1], clip[0, :, 0:2, :, 4:].permute(1, 2, 3, 0).flatten())
    assert torch.equal(patches[0, 3, :48], clip[0, :, 2, :, 4:].permute(1, 2, 0).flatten())
    assert not patches[0, 3, 48:].any()


@pytest.mark.parametrize(("frames", "context", "slots"), [(11, 5, 9), (3, 3, 4), (4, 1, 3), (2, 0, 1)])
def test_predicted_and_context_frames_fill_temporal_patches_of_their_own(frames, context, slots):
    config = small(
        shape=(3, frames, 4, 4), patch_size=4, temporal_patch_size=2, num_context_frames=context, num_classes=0
    )
    model = moved(config)
    assert model.tokenizer.positions.shape[0] == slots
    seen = []
    model.blocks[0].read.register_forward_hook(lambda _, arguments, __: seen.append(arguments[1]))
    x, gamma, condition = inputs(config)
    assert model(x, gamma, condition).prediction.shape == x.shape
    assert seen[0].shape[1] == slots


def test_tokens_are_normalised_patches_plus_positions_and_context_has_those_that_follow():
    config = small(**KINDS["video"])
    model = moved(config)
    seen = []
    model.blocks[0].read.register_forward_hook(lambda _, arguments, __: seen.append(arguments[1]))
    x, gamma, condition = inputs(config)
    model(x, gamma, condition)
    tokens, tokenizer = seen[0], model.tokenizer
    for first, clip in ((0, x), (8, condition.context)):
        positions = tokenizer.positions[first : first + 8]
        expected = tokenizer.norm(tokenizer.patch(tokenizer.cut(clip))) + positions
        torch.testing.assert_close(tokens[:, first : first + 8], expected)
    assert tokens.shape[1] == 16


def test_clean_and_noisy_frames_touch_through_the_latents_alone():
    config = small(**KINDS["video"])
    model = moved(config)
    x, gamma, condition = inputs(config)
    seen = []
    model.blocks[0].read.register_forward_hook(lambda _, arguments, __: seen.append(arguments[1]))
    plain = model(x, gamma, condition).prediction
    other = model(x, gamma, Condition(labels=condition.labels, context=condition.context + 1)).prediction
    assert torch.equal(seen[0][:, :8], seen[1][:, :8])
    assert not torch.equal(plain, other)


# Self-conditioning


@every_kind
def test_self_conditioning_is_a_no_op_before_training(kind):
    config = small(**KINDS[kind])
    model, asked = new(config), inputs(config)
    cold = model(*asked)
    warm = model(*asked, torch.randn_like(cold.latents))
    assert torch.equal(cold.prediction, warm.prediction)
    assert torch.equal(cold.latents, warm.latents)


@every_kind
def test_previous_latents_matter_once_their_norm_has_moved(kind):
    config = small(**KINDS[kind])
    model, asked = new(config), inputs(config)
    previous = torch.randn(2, config.num_latents, config.latent_dim)
    nn.init.constant_(model.self_conditioning.norm.weight, 0.1)
    assert not torch.allclose(model(*asked).latents, model(*asked, previous).latents)


def test_no_previous_latents_are_zeros_on_the_same_path():
    config = small()
    model, asked = moved(config), inputs(config)
    zeros = torch.zeros(2, config.num_latents, config.latent_dim)
    assert torch.equal(model(*asked).prediction, model(*asked, zeros).prediction)
    start = model.initial_latents(asked[1], asked[2], None)
    added = model.self_conditioning(zeros)
    assert added.abs().max() > 0.01
    tokens = torch.cat([model.latents.expand(2, -1, -1), model.noise_level(asked[1]), model.condition(asked[2], 2)], 1)
    torch.testing.assert_close(start, tokens + added)


def test_previous_latents_pass_norm_mlp_residual_and_norm():
    model = moved(small())
    part = model.self_conditioning
    previous = torch.randn(2, 8, 32)
    residual = previous + part.mlp.down(F.gelu(part.mlp.up(part.mlp.norm(previous))))
    torch.testing.assert_close(part(previous), part.norm(residual))


def test_the_estimate_passes_no_gradient():
    config = small()
    model = moved(config)
    x, _, condition = inputs(config)
    given = []
    model.self_conditioning.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    diffusion = Diffusion(DiffusionConfig(self_cond_rate=1.0))
    diffusion.loss(model, x, condition).backward()
    estimate_start, main_start = given
    assert not estimate_start.any()
    assert main_start.any()
    assert not main_start.requires_grad


@every_kind
def test_a_gradient_reaches_every_weight(kind):
    config = small(**KINDS[kind])
    model = moved(config)
    x, _, condition = inputs(config)
    Diffusion(DiffusionConfig()).loss(model, x, condition).backward()
    without = [
        name
        for name, weight in model.named_parameters()
        if not name.endswith("key.bias") and (weight.grad is None or not weight.grad.any())
    ]
    # the latents that a read-only tail makes are carried to the next step, and no loss sees them
    assert all(kind == "read-only tail" and name.startswith("blocks.1.") for name in without), without


# The whole network


@every_kind
def test_a_prediction_has_the_shape_of_the_data_and_there_are_all_latents(kind):
    config = small(**KINDS[kind])
    out = new(config)(*inputs(config, batch=3))
    assert out.prediction.shape == (3, *config.shape)
    assert out.latents.shape == (3, config.num_latents, config.latent_dim)


@every_kind
def test_latents_alone_are_those_of_a_whole_pass(kind):
    config = small(**KINDS[kind])
    model, asked = moved(config), inputs(config)
    alone = model(*asked, latents_only=True)
    assert alone.prediction is None
    assert torch.equal(alone.latents, model(*asked).latents)


def test_examples_of_a_batch_do_not_touch():
    config = small()
    model = moved(config)
    x, gamma, condition = inputs(config, batch=3)
    together = model(x, gamma, condition).prediction
    alone = model(x[1:2], gamma[1:2], condition.rows(slice(1, 2))).prediction
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_latents_start_learned_then_noise_level_then_label_then_embeddings():
    config = small(**KINDS["embeddings"])
    model = moved(config)
    nn.init.zeros_(model.self_conditioning.norm.weight)
    nn.init.zeros_(model.self_conditioning.norm.bias)
    _, gamma, condition = inputs(config)
    start = model.initial_latents(gamma, condition, None)
    assert torch.equal(start[:, :3], model.latents.expand(2, 3, -1))
    assert torch.equal(start[:, 3:4], model.noise_level(gamma))
    label = model.condition.label
    torch.testing.assert_close(start[:, 4], label.weight.T[condition.labels] + label.bias)
    torch.testing.assert_close(start[:, 5:], model.condition.token(condition.embeddings))


def test_a_dropped_label_is_no_label_is_minus_1():
    config = small()
    model = moved(config)
    x, gamma, condition = inputs(config)
    nothing = model(x, gamma).prediction
    for silent in (
        Condition(),
        Condition(labels=torch.tensor([-1, -1])),
        condition.null(),
        condition.keep(torch.tensor([False, False])),
    ):
        assert torch.equal(model(x, gamma, silent).prediction, nothing)
    assert not torch.allclose(model(x, gamma, condition).prediction, nothing)


def test_a_dropped_label_keeps_its_token_with_the_bias():
    model = moved(small())
    token = model.condition(Condition(labels=torch.tensor([-1, 2])), 2)
    assert token.shape == (2, 1, 32)
    assert torch.equal(token[0, 0], model.condition.label.bias)
    assert not torch.equal(token[1, 0], model.condition.label.bias)


def test_a_masked_embedding_token_is_a_zero_vector_whose_token_stays():
    config = small(**KINDS["embeddings"])
    model = moved(config)
    x, gamma, condition = inputs(config)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    masked = Condition(labels=condition.labels, embeddings=condition.embeddings, embedding_mask=mask)
    zeroed = Condition(labels=condition.labels, embeddings=condition.embeddings * mask[..., None])
    assert torch.equal(model(x, gamma, masked).prediction, model(x, gamma, zeroed).prediction)
    assert not torch.equal(model(x, gamma, masked).prediction, model(x, gamma, condition).prediction)
    none = Condition(labels=condition.labels)
    dropped = Condition(labels=condition.labels, embeddings=condition.embeddings, embedding_mask=mask & False)
    assert torch.equal(model(x, gamma, none).prediction, model(x, gamma, dropped).prediction)


def test_the_noise_level_is_a_thousand_gamma_in_normalised_sinusoids():
    torch.manual_seed(0)
    embedding = random_(NoiseLevelEmbedding(32, 1000.0)).double()
    gamma = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    rates = 10_000.0 ** -(torch.arange(4).double() / 4)
    angles = 1000 * gamma[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    waves = (waves - waves.mean(1, keepdim=True)) / waves.var(1, correction=0, keepdim=True).sqrt()
    expected = embedding.down(F.silu(embedding.up(waves)))
    # sinusoids are float32 by design
    embedding.float()
    found = embedding(gamma.float())
    torch.testing.assert_close(found[:, 0].double(), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("dim", [8, 7])
def test_sinusoids_are_sines_then_cosines(dim):
    x = torch.tensor([0.0, 2.0])
    waves = sinusoids(x, dim)
    assert waves.shape == (2, dim)
    half = (dim + 1) // 2
    assert waves[0].tolist() == [0.0] * half + [1.0] * (dim - half)
    assert waves[1, 0].item() == pytest.approx(math.sin(2.0), abs=1e-6)
    assert waves[1, half].item() == pytest.approx(math.cos(2.0), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "call", "words"),
    [
        ("image", lambda m, x, g, _: m(x[:, :2], g), "examples of shape"),
        ("image", lambda m, x, g, _: m(x[..., :4], g), "made for"),
        ("set", lambda m, x, g, _: m(x[:, :5], g), "examples of shape"),
        ("no classes", lambda m, x, g, _: m(x, g, Condition(labels=torch.tensor([0, 1]))), "without classes"),
        ("image", lambda m, x, g, _: m(x, g, Condition(embeddings=torch.ones(2, 3, 6))), "num_condition_tokens is 0"),
        (
            "embeddings",
            lambda m, x, g, _: m(x, g, Condition(embeddings=torch.ones(2, 4, 6))),
            r"\(2, 3, 6\) are needed",
        ),
        (
            "embeddings",
            lambda m, x, g, _: m(x, g, Condition(embeddings=torch.ones(2, 3, 5))),
            r"\(2, 3, 6\) are needed",
        ),
        ("video", lambda m, x, g, _: m(x, g), "0 context frames .* made for 3"),
        ("video", lambda m, x, g, c: m(x, g, Condition(context=c.context[:, :, :2])), "2 context frames"),
        (
            "image",
            lambda m, x, g, _: m(x, g, Condition(context=torch.ones(2, 3, 1, 8, 8))),
            "context frames were given",
        ),
    ],
)
def test_inputs_that_a_network_was_not_made_for_are_refused(kind, call, words):
    config = small(**KINDS[kind])
    with pytest.raises(RinError, match=words):
        call(new(config), *inputs(config))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": 0}, "model.patch_size 0"),
        ({"patch_size": 3}, r"patch_size 3 does not divide the height 8: take one of \[1, 2, 4, 8\]"),
        ({"shape": (3, 8, 9)}, "the width 9"),
        ({"shape": (8, 8, 3)}, r"the width 3: .*; channels come first, as in \(3, 8, 8\)"),
        ({"shape": (3,)}, "model.shape"),
        ({"shape": (3, 1, 2, 8, 8)}, "model.shape"),
        ({"shape": (3, 0, 8)}, "every size"),
        ({"shape": ()}, "model.shape"),
        ({"temporal_patch_size": 0}, "temporal_patch_size 0"),
        ({"temporal_patch_size": 2}, "for video"),
        ({"num_context_frames": 2}, "for video"),
        ({"num_context_frames": -1}, "num_context_frames -1"),
        ({"num_classes": -1}, "num_classes -1"),
        ({"num_condition_tokens": -1}, "num_condition_tokens -1"),
        ({"condition_dim": -1}, "condition_dim -1"),
        ({"num_condition_tokens": 2}, "go together"),
        ({"condition_dim": 2}, "go together"),
        ({"num_latents": 2}, "num_latents 2 leaves no latent .* more than 2"),
        ({"latent_dim": 0}, "latent_dim 0"),
        ({"interface_dim": -16}, "interface_dim -16"),
        ({"num_heads": 0}, "num_heads 0"),
        ({"num_heads": 5}, "num_heads 5 does not divide the attention width 32"),
        ({"num_read_write_heads": 0}, "num_read_write_heads 0"),
        ({"num_read_write_heads": 32}, "num_read_write_heads 32 does not divide the attention width 16"),
        ({"latent_dim": 34, "num_heads": 2}, "multiple of 4"),
        ({"compute_depth": ()}, "compute_depth"),
        ({"compute_depth": (1, -1)}, "compute_depth"),
        ({"latent_mlp_ratio": 0}, "latent_mlp_ratio 0"),
        ({"interface_mlp_ratio": -1}, "interface_mlp_ratio -1"),
        ({"dropout_rate": 1.0}, "dropout_rate 1.0"),
        ({"depth_drop_rate": -0.1}, "depth_drop_rate -0.1"),
    ],
    ids=str,
)
def test_sizes_that_make_no_network_are_refused_by_name(changes, words):
    with pytest.raises(RinError, match=words):
        small(**changes)


# Dropout and stochastic depth


def test_dropout_falls_on_what_leaves_the_gelu():
    torch.manual_seed(0)
    mlp = MLP(16, 4, dropout_rate=0.5).eval()
    tokens, hidden = torch.randn(8, 16, 16), []
    mlp.down.register_forward_pre_hook(lambda _, arguments: hidden.append(arguments[0]))
    mlp(tokens)
    out = mlp.train()(tokens)
    whole, dropped = hidden
    gone = dropped == 0
    assert gone.float().mean().item() == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(dropped[~gone], 2 * whole[~gone])
    assert torch.equal(out, tokens + mlp.down(dropped))


def test_dropout_is_in_the_compute_mlps_alone():
    config = small(compute_depth=(2, 1), dropout_rate=0.3)
    model = moved(config).train()
    dropping = set()

    def note(name):
        return lambda _, arguments: dropping.add(name) if (arguments[0] == 0).any() else None

    names = {name: module for name, module in model.named_modules() if isinstance(module, MLP)}
    for name, module in names.items():
        module.down.register_forward_pre_hook(note(name))
    model(*inputs(config))
    assert dropping == {name for name in names if ".compute." in name}
    assert len(dropping) == 3
    assert len(names) == 8


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    torch.manual_seed(0)
    depth = StochasticDepth(0.25).train()
    branch = torch.randn(4000, 3, 2)
    out = depth(branch)
    kept = (out != 0).flatten(1)
    assert torch.equal(kept.any(1), kept.all(1))
    assert kept.all(1).float().mean().item() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(out[kept.all(1)], branch[kept.all(1)] / 0.75)
    assert torch.equal(depth.eval()(branch), branch)


@pytest.mark.parametrize("silent", ["attention.out", "mlp.down"])
def test_stochastic_depth_is_on_both_branches_of_a_compute_layer(silent):
    torch.manual_seed(0)
    layer = ComputeLayer(16, 4, 2, 0.0, 0.5)
    nn.init.zeros_(layer.get_submodule(silent).weight)
    nn.init.zeros_(layer.get_submodule(silent).bias)
    latents = torch.randn(64, 3, 16)
    branch = layer.eval()(latents) - latents
    dropped = layer.train()(latents) - latents
    kept = dropped.flatten(1).any(1)
    assert 16 < kept.sum() < 48
    torch.testing.assert_close(dropped[kept], 2 * branch[kept], rtol=0, atol=1e-5)


def test_stochastic_depth_has_one_rate_in_every_compute_layer_and_none_elsewhere():
    model = new(small(compute_depth=(2, 3), depth_drop_rate=0.2))
    rates = {name: module.rate for name, module in model.named_modules() if isinstance(module, StochasticDepth)}
    assert {rate for name, rate in rates.items() if ".compute." in name} == {0.2}
    assert {rate for name, rate in rates.items() if ".compute." not in name} == {0.0}
    assert sum(rate > 0 for rate in rates.values()) == 10


def test_evaluation_is_deterministic_and_training_is_not():
    config = small(dropout_rate=0.2, depth_drop_rate=0.2)
    model, asked = moved(config), inputs(config)
    assert torch.equal(model(*asked).prediction, model(*asked).prediction)
    model.train()
    assert not torch.equal(model(*asked).prediction, model(*asked).prediction)


# Initial weights


def check_uniform(draw, limit):
    numbers = torch.cat([draw().detach().flatten() for _ in range(20)])
    assert numbers.abs().max().item() <= limit * (1 + 1e-6)
    assert numbers.abs().max().item() > 0.98 * limit
    assert numbers.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert numbers.mean().abs().item() < 0.02 * limit


def kernel_limit(*shape):
    """Glorot's bound for a kernel of any number of axes: all but the last two multiply both fans."""
    return math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))


@pytest.mark.parametrize(("query_dim", "memory_dim", "heads"), [(64, 64, 8), (64, 32, 2), (32, 64, 4)])
def test_attention_starts_as_kernels_of_three_axes(query_dim, memory_dim, heads):
    torch.manual_seed(0)
    width = min(query_dim, memory_dim)
    attention = Attention(query_dim, memory_dim, width, heads)
    shapes = {
        "query": (query_dim, heads, width // heads),
        "key": (memory_dim, heads, width // heads),
        "value": (memory_dim, heads, width // heads),
        "out": (heads, width // heads, query_dim),
    }
    for name, shape in shapes.items():
        layer = getattr(attention, name)

        def draw(layer=layer):
            attention_(attention)
            return layer.weight.clone()

        check_uniform(draw, kernel_limit(*shape))
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("changes", "kernel"),
    [
        ({"shape": (3, 8, 8), "patch_size": 4, "interface_dim": 64}, (4, 4, 3, 64)),
        ({"shape": (5, 8, 8), "patch_size": 2, "interface_dim": 64}, (2, 2, 5, 64)),
        ({"shape": (3, 2, 4, 4), "patch_size": 4, "temporal_patch_size": 2, "interface_dim": 64}, (2, 4, 4, 3, 64)),
        ({"shape": (4, 32), "interface_dim": 64}, (32, 64)),
    ],
    ids=["image", "five channels", "video", "set"],
)
def test_the_patch_layer_starts_as_a_convolution(changes, kernel):
    torch.manual_seed(0)
    tokenizer = make_tokenizer(small(**changes))

    def draw():
        initialise_(tokenizer, 0.02)
        return tokenizer.patch.weight.clone()

    check_uniform(draw, kernel_limit(*kernel))


def test_every_other_linear_layer_starts_as_a_plain_glorot_matrix():
    model = new(small(num_condition_tokens=2, condition_dim=16))
    special = {id(layer) for module in model.modules() if isinstance(module, Attention) for layer in module.children()}
    special.add(id(model.tokenizer.patch))
    checked = 0
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and id(layer) not in special:
            limit = kernel_limit(*layer.weight.shape)
            assert 0.9 * limit < layer.weight.abs().max().item() <= limit * (1 + 1e-6)
            assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.12)
            checked += 1
    assert checked == 1 + 2 + 2 + 2 + 2 * 3 * 2
    assert not any(module.bias.any() for module in model.modules() if isinstance(module, nn.Linear))


@pytest.mark.parametrize("deviation", [0.02, 1.0])
def test_positions_start_normal_and_cut_at_two_deviations(deviation):
    torch.manual_seed(0)
    positions = torch.empty(200, 200)
    positions_(positions, deviation)
    cut = 2 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
    assert 1.995 < positions.abs().max().item() / deviation <= 2.00001
    assert positions.std().item() / deviation == pytest.approx(math.sqrt(1 - 2 * cut), rel=0.02)


@pytest.mark.parametrize(("changes", "deviation"), [({}, 0.02), ({"position_deviation": 1.0}, 1.0)])
def test_learned_latents_and_positions_of_a_network_are_drawn_as_positions(changes, deviation):
    model = new(small(num_latents=64, shape=(3, 16, 16), **changes))
    for drawn in (model.latents, model.tokenizer.positions):
        assert 1.9 < drawn.abs().max().item() / deviation <= 2.00001
        assert drawn.std().item() / deviation == pytest.approx(0.88, rel=0.05)


def test_norms_start_at_one_and_zero_but_that_of_the_previous_latents_at_zero():
    model = new(small())
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.weight.unique().tolist() == [0.0 if name == "self_conditioning.norm" else 1.0]
            assert not module.bias.any()


def test_drawing_anew_forgets_the_weights_and_follows_the_generator():
    model, config = moved(small()), small()
    torch.manual_seed(0)
    model.initialise()
    fresh = new(config).state_dict()
    torch.manual_seed(0)
    again = RIN(config)
    assert all(torch.equal(value, fresh[name]) for name, value in again.state_dict().items())
    assert not model.self_conditioning.norm.weight.any()
    assert model.blocks[0].read.norm.weight.unique().tolist() == [1.0]


# Sizes

PARAMETERS = {
    "cifar10": 31.0, "imagenet-64-p8": 157.8, "imagenet-64": 267.0, "imagenet-128": 396.0, "imagenet-256": 396.0,
    "imagenet-512": 320.6, "imagenet-1024": 412.0, "kinetics-600": 396.0,
}  # fmt: skip
OPERATIONS = {"imagenet-128": 139, "imagenet-256": 243, "imagenet-512": 341, "kinetics-600": 300}
TOKENS = {"cifar10": 256, "imagenet-64-p8": 64, "imagenet-64": 256, "imagenet-1024": 16384, "kinetics-600": 2304}


@pytest.mark.parametrize("name", PARAMETERS)
def test_presets_have_the_sizes_that_are_published(name):
    found = cost(preset(name).model)
    millions = PARAMETERS[name]
    assert found.parameters / 1e6 == pytest.approx(millions, abs=0.05 if millions % 1 or millions < 100 else 0.6)
    if name in OPERATIONS:
        assert found.operations / 1e9 == pytest.approx(OPERATIONS[name], abs=0.6)
    if name in TOKENS:
        assert found.tokens == TOKENS[name]
    assert found.latents == preset(name).model.num_latents


def multiply_adds(config, n, patch_values):
    """Of one pass over one example, layer by layer."""
    m, e, d = config.num_latents, config.latent_dim, config.interface_dim

    def attention(queries, query_dim, memory, memory_dim, width):
        projections = queries * query_dim * width * 2 + memory * memory_dim * width * 2
        return projections + 2 * queries * memory * width

    def mlp(tokens, dim, ratio):
        return 2 * tokens * dim * dim * ratio

    total = 2 * n * patch_values * d  # patches in and out
    total += (e // 4) * e + e * e + config.num_classes * e  # noise level, class
    total += mlp(m, e, config.latent_mlp_ratio)  # previous latents
    for depth in config.compute_depth:
        total += attention(m, e, n, d, min(d, e)) + mlp(m, e, config.latent_mlp_ratio)
        total += depth * (attention(m, e, m, e, e) + mlp(m, e, config.latent_mlp_ratio))
        total += (attention(n, d, m, e, min(d, e)) + mlp(n, d, config.interface_mlp_ratio)) if depth else 0
    return total


@pytest.mark.parametrize("changes", [{}, {"compute_depth": (2, 0)}, {"interface_mlp_ratio": 0, "interface_dim": 64}])
def test_operations_are_two_a_multiply_add_summed_by_hand(changes):
    config = small(**changes)
    assert cost(config).operations == 2 * multiply_adds(config, n=16, patch_values=12)


@every_kind
def test_a_network_is_counted_without_being_made(kind):
    config = small(**KINDS[kind])
    assert cost(config).parameters == sum(weight.numel() for weight in RIN(config).parameters())


def test_defaults_make_a_network():
    assert RINConfig().num_learned_latents == 127


# An image is a clip of one frame


CLIPS = {**VIDEO, "num_classes": 0}


@pytest.mark.parametrize("temporal_patch_size", [1, 2, 3])
def test_a_network_of_clips_takes_an_image_as_the_first_slot_without_a_context(temporal_patch_size):
    model = moved(small(**{**CLIPS, "temporal_patch_size": temporal_patch_size}))
    image, gamma = torch.randn(2, 3, 1, 8, 8), torch.rand(2)
    prediction = model(image, gamma).prediction
    assert prediction.shape == image.shape
    interface = model.tokenizer.tokenize(image)
    assert interface.shape[1] == 4
    assert torch.allclose(
        interface,
        model.tokenizer.norm(model.tokenizer.patch(model.tokenizer.cut(image))) + model.tokenizer.positions[:4],
    )


@pytest.mark.parametrize("frames", [2, 4])
def test_fewer_frames_than_all_and_more_than_one_are_no_image(frames):
    with pytest.raises(RinError, match="this network was made for"):
        moved(small(**CLIPS))(torch.randn(2, 3, frames, 8, 8), torch.rand(2))


def test_a_clip_still_needs_its_context():
    with pytest.raises(RinError, match="0 context frames were given"):
        moved(small(**CLIPS))(torch.randn(2, 3, 3, 8, 8), torch.rand(2))


def test_an_image_has_no_context():
    context = Condition(context=torch.randn(2, 3, 3, 8, 8))
    with pytest.raises(RinError, match="this network was made for"):
        moved(small(**CLIPS))(torch.randn(2, 3, 1, 8, 8), torch.rand(2), context)


def test_a_single_predicted_frame_is_no_image_and_needs_its_context():
    with pytest.raises(RinError, match="0 context frames were given"):
        moved(small(**{**CLIPS, "shape": (3, 1, 8, 8)}))(torch.randn(2, 3, 1, 8, 8), torch.rand(2))
