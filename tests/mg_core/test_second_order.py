"""Cheap double backward: the same values as PyTorch's own functions, checked twice over."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from mg_core.attributions.second_order import channel_dot, second_order

DOUBLE = torch.float64


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def cheap(function):
    """Run a function of tensors inside `second_order`."""

    def run(*tensors):
        with second_order():
            return function(*tensors)

    return run


def batch_norm(x, weight, bias):
    return F.batch_norm(x, None, None, weight, bias, training=True)


CONVOLUTIONS = {
    "plain": ((2, 3, 5, 4), (4, 3, 3, 3), {"padding": 1}),
    "strided": ((2, 3, 6, 5), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    "pointwise": ((2, 3, 3, 3), (4, 3, 1, 1), {"stride": 2}),
    "dilated": ((1, 2, 6, 6), (2, 2, 2, 2), {"dilation": 2}),
    "grouped": ((2, 4, 4, 4), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "padding_by_name": ((1, 2, 4, 4), (2, 2, 3, 3), {"padding": "same"}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_convolution(name, with_bias):
    inputs, weight, options = CONVOLUTIONS[name]
    tensors = [draw(*inputs), draw(*weight), *([draw(weight[0])] if with_bias else [])]

    def convolve(x, weight, bias=None):
        return F.conv2d(x, weight, bias, **options)

    torch.testing.assert_close(cheap(convolve)(*tensors), convolve(*tensors))
    assert gradcheck(cheap(convolve), tensors)
    assert gradgradcheck(cheap(convolve), tensors)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 5), (3, 2, 3, 4), (2, 2, 2, 3, 2)])
def test_batch_norm(shape):
    tensors = [draw(*shape), draw(shape[1]), draw(shape[1])]
    torch.testing.assert_close(cheap(batch_norm)(*tensors), batch_norm(*tensors))
    assert gradcheck(cheap(batch_norm), tensors)
    assert gradgradcheck(cheap(batch_norm), tensors)


def test_batch_norm_of_large_offsets_is_as_stable_as_pytorchs():
    x = torch.randn(8, 3, 6, 6) * 0.1 + 1000
    weight, bias = torch.rand(3) + 0.5, torch.randn(3)
    v, g = torch.randn(2, *x.shape)

    def second_derivatives(function, dtype):
        leaf = x.to(dtype).requires_grad_()
        scale = weight.to(dtype).requires_grad_()
        outputs = function(leaf, scale, bias.to(dtype))
        (first,) = torch.autograd.grad(outputs, leaf, g.to(dtype), create_graph=True)
        return torch.autograd.grad(first, (leaf, scale), v.to(dtype))

    exact = second_derivatives(batch_norm, DOUBLE)
    theirs = second_derivatives(batch_norm, torch.float32)
    ours = second_derivatives(cheap(batch_norm), torch.float32)
    for a, b, c in zip(ours, theirs, exact, strict=True):
        error, tolerated = (float((t.double() - c).abs().max()) for t in (a, b))
        assert error <= 4 * tolerated + 1e-6 * float(c.abs().max())


def test_running_statistics_are_pytorchs():
    ours, theirs = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    for _ in range(3):
        x = draw(4, 3, 2, 2)
        with second_order():
            ours(x)
        theirs(x)
    for (name, found), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


def test_evaluation_and_single_values_are_left_to_pytorch():
    norm = nn.BatchNorm2d(3).double()
    x = draw(1, 3, 1, 1)
    with second_order():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm(x)
        torch.testing.assert_close(norm.eval()(x), x / (1 + norm.eps) ** 0.5)
        assert nn.Conv2d(3, 2, 1).double()(x[0]).shape == (2, 1, 1)


def test_no_weight_gradients_while_explaining():
    convolution = nn.Conv2d(2, 3, 3).double()
    x = draw(1, 2, 4, 4)
    with second_order() as explaining:
        score = convolution(x).square().sum()
    with explaining():
        gradients = torch.autograd.grad(
            score, [x, convolution.weight], retain_graph=True, allow_unused=True
        )
    assert gradients[0].any()
    assert gradients[1] is None
    expected = torch.autograd.grad(convolution(x).square().sum(), [x, convolution.weight])
    for found, right in zip(
        torch.autograd.grad(score, [x, convolution.weight]), expected, strict=True
    ):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision(channels_last):
    """Under bf16 autocast all gradients agree with PyTorch's own to bf16's precision."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Softplus(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)
    )
    x = torch.randn(4, 3, 9, 9).requires_grad_()
    weights = torch.randn(4, 4, 5, 5)

    def gradients(function):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        with torch.autocast("cpu", torch.bfloat16):
            outputs = function(x.contiguous(memory_format=layout))
        (first,) = torch.autograd.grad((outputs * weights).sum(), x, create_graph=True)
        found = torch.autograd.grad(
            first.square().sum(), list(model.parameters()), allow_unused=True
        )
        return torch.cat([g.flatten() for g in found if g is not None])

    ours, theirs = gradients(cheap(model)), gradients(model)
    assert ours.dtype == torch.float32
    assert float(F.cosine_similarity(ours, theirs, dim=0)) > 0.99


def test_channel_dot():
    a, b = draw(3, 4, 2, 5), draw(3, 4, 2, 5)
    torch.testing.assert_close(channel_dot(a, b), (a * b).sum((0, 2, 3)))
    low = a.bfloat16(), b.bfloat16()
    assert channel_dot(*low).dtype == torch.float32
