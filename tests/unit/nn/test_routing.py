"""The attention that is looked at is the one that the network computes with."""

import torch

from rin.nn import RIN, RINConfig
from rin.nn.attention import Attention
from rin.nn.routing import recorded

TINY = RINConfig(
    shape=(3, 8, 12), patch_size=4, num_latents=5, latent_dim=8, interface_dim=8, compute_depth=(1, 1, 0), num_heads=2,
    num_read_write_heads=2,
)  # fmt: skip


def test_the_weights_are_those_of_the_answer():
    attention = Attention(8, 6, 6, num_heads=2)
    queries, memory = torch.randn(2, 3, 8), torch.randn(2, 4, 6)
    weights = attention.weights(queries, memory)
    value = attention.value(memory).unflatten(2, (2, 3)).transpose(1, 2)
    by_hand = attention.out((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(queries, memory), by_hand)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3))


def test_every_block_is_recorded_and_nothing_else_changes():
    torch.manual_seed(0)
    model = RIN(TINY).eval()
    x, gamma = torch.randn(2, 3, 8, 12), torch.tensor([0.3, 0.6])
    alone = model(x, gamma)
    with recorded(model) as recorder:
        first, second = model(x, gamma), model(x.flip(0), gamma)
        attended = recorder.first()
        model(x.flip(0), gamma)
        after = recorder.first()
    assert torch.equal(first.prediction, alone.prediction)
    assert torch.equal(model(x, gamma).prediction, alone.prediction)
    assert not any(module._forward_hooks for module in model.modules()), "the hooks are gone"
    assert attended.read.shape == (3, 2, 5, 6)
    assert attended.write.shape == (2, 2, 6, 5), "the last block does not write"
    assert not torch.equal(attended.read, after.read), "the first pass since the last call, whose input was another"
    assert not torch.equal(second.prediction, first.prediction)
    for weights in attended:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_a_latent_that_looks_for_one_token_is_seen_to_read_it():
    torch.manual_seed(0)
    model = RIN(TINY).eval()
    with torch.no_grad():
        for block in model.blocks:  # keys tell token 4 apart from all others, and every query asks for it
            attention = block.read.attention
            attention.query.weight.zero_()
            attention.query.bias.fill_(30.0)
            attention.key.weight.zero_()
            attention.key.weight[:, 0] = 1.0
            attention.key.bias.zero_()
            if block.write is not None:  # so that the tokens stay as they are
                block.write.attention.out.weight.zero_()
                block.write.mlp.down.weight.zero_()
        model.tokenizer.positions.zero_()
        model.tokenizer.positions[4, 0] = 50.0
        with recorded(model) as recorder:
            model(torch.randn(2, 3, 8, 12), torch.tensor([0.5, 0.5]))
    read = recorder.first().read
    assert read[..., 4].min() > 0.99
