"""Linear layers through oneDNN are PyTorch's own, to rounding, and take that way only where it pays."""

import pytest
import torch
import torch.nn.functional as F

from rin.nn import linear
from rin.nn.linear import Linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.fixture(autouse=True)
def _faster_everywhere(monkeypatch):
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(linear, "_SMALLEST", 1)


def both_ways(x, layer, gradient):
    """Answer and gradients of x, weight and bias through oneDNN and through PyTorch."""
    for answer in (layer, lambda tokens: F.linear(tokens, layer.weight, layer.bias)):
        tokens = x.clone().requires_grad_()
        out = answer(tokens)
        yield (out.detach(), *torch.autograd.grad(out, (tokens, layer.weight, layer.bias), gradient))


@pytest.mark.parametrize("shape", [(5, 7, 24), (7, 24), (1, 24)])
@pytest.mark.parametrize("transposed", [False, True])
def test_answers_and_gradients_are_pytorchs(shape, transposed):
    torch.manual_seed(0)
    layer, x, gradient = Linear(24, 40), torch.randn(shape), torch.randn(*shape[:-1], 40)
    if transposed:  # the same numbers, laid out otherwise
        x, gradient = (value.transpose(0, -1).contiguous().transpose(0, -1) for value in (x, gradient))
    for ours, theirs in zip(*both_ways(x, layer, gradient), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_only_the_gradients_that_are_asked_for_are_computed():
    layer, x = Linear(24, 40), torch.randn(3, 24)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    layer.requires_grad_(False)
    layer.weight.grad = None
    tokens = x.requires_grad_()
    layer(tokens).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(tokens.grad, layer.weight.sum(0).expand(3, -1))
    layer.zero_grad()
    layer.bias.requires_grad_()
    layer(tokens).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((40,), 3.0))
    layer.requires_grad_(True)
    layer.bias.requires_grad_(False).grad = None
    layer(tokens).sum().backward()
    assert layer.bias.grad is None
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(40, -1))


def test_small_products_and_other_precisions_take_pytorchs_own_way(monkeypatch):
    taken = []
    monkeypatch.setattr(
        linear._OneDNNLinear, "apply", lambda x, weight, bias: taken.append(x) or F.linear(x, weight, bias)
    )
    layer, x = Linear(24, 40), torch.randn(3, 24)
    layer(x)
    assert len(taken) == 1
    layer.double()(x.double())
    layer.float()
    exact = F.linear(x, layer.weight, layer.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), exact)  # too small to be worth a cast
        assert layer(x.bfloat16()).dtype == torch.float32
        monkeypatch.setattr(linear, "_SMALLEST_BFLOAT16", 3 * 24 * 40)
        assert layer(x).dtype == torch.bfloat16
    layer.to("meta")(x.to("meta"))
    monkeypatch.setattr(linear, "_SMALLEST", 3 * 24 * 40 + 1)
    Linear(24, 40)(x)
    assert len(taken) == 1


def test_where_it_is_not_faster_the_answer_is_pytorchs_to_the_bit(monkeypatch):
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)
    layer, x = Linear(512, 512), torch.randn(128, 512)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_gradients_of_gradients_are_refused():
    layer, x = Linear(24, 40), torch.randn(3, 24, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
