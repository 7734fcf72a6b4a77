"""Fused B-cos layers: the numbers of the package's layers, in all three ways to differentiate."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from bcos.common import explanation_mode
from bcos.modules import BcosConv2d, norms
from torch.autograd import gradcheck, gradgradcheck

from mg_core.attributions.dynamic_weights import dynamic_weights
from mg_core.models.bcos_layers import FusedBatchNormUncentered2d, FusedBcosConv2d


def convolution(kind, **options):
    torch.manual_seed(0)
    return kind(4, 6, **{"kernel_size": 3, "padding": 1, "stride": 2, **options}).double()


def norm(kind):
    torch.manual_seed(0)
    module = norms.NoBias(kind)(4).double()
    torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    return module


LAYERS = {
    "convolution": (partial(convolution, FusedBcosConv2d), partial(convolution, BcosConv2d)),
    "pointwise": (
        partial(convolution, FusedBcosConv2d, kernel_size=1, padding=0),
        partial(convolution, BcosConv2d, kernel_size=1, padding=0),
    ),
    "maxout": (
        partial(convolution, FusedBcosConv2d, max_out=2),
        partial(convolution, BcosConv2d, max_out=2),
    ),
    "steep": (
        partial(convolution, FusedBcosConv2d, b=2.5),
        partial(convolution, BcosConv2d, b=2.5),
    ),
    "grouped": (
        partial(convolution, FusedBcosConv2d, groups=2),
        partial(convolution, BcosConv2d, groups=2),
    ),
    "norm": (
        partial(norm, FusedBatchNormUncentered2d),
        partial(norm, norms.BatchNormUncentered2d),
    ),
}


def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 4, 4, dtype=torch.float64, generator=generator).requires_grad_()


def held_gradient(module, x, create_graph=False):
    """Differentiate a weighted sum of outputs by x with the dynamic weights held."""
    with dynamic_weights(module) as weights:
        outputs = module(x)
    score = (outputs * torch.linspace(-1, 2, outputs.numel()).view_as(outputs)).sum()
    with weights.held():
        (found,) = torch.autograd.grad(score, x, create_graph=create_graph)
    return found, outputs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_the_packages(name, training):
    ours, theirs = (make().train(training) for make in LAYERS[name])
    x = inputs()
    for explaining in (False, True):
        found, expected = [], []
        for module, results in ((ours, found), (theirs, expected)):
            if explaining:
                with explanation_mode(module):
                    outputs = module(x)
            else:
                outputs = module(x)
            results += [
                outputs,
                *torch.autograd.grad(outputs.sin().sum(), [x, *module.parameters()]),
            ]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_held_gradients_and_their_gradients_are_the_packages_with_gates(name, training):
    x = inputs()
    results = []
    for make in LAYERS[name]:
        module = make().train(training)
        held, outputs = held_gradient(module, x, create_graph=True)
        loss = held.sin().sum() + outputs.cos().sum()
        results.append([held, *torch.autograd.grad(loss, [x, *module.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["convolution", "norm"])
def test_ordinary_derivatives_agree_with_finite_differences(name):
    module = LAYERS[name][0]().train()

    def forward(x):
        return module(x)

    assert gradcheck(forward, (inputs(),))
    assert gradgradcheck(forward, (inputs(),))


@pytest.mark.parametrize("name", ["convolution", "norm"])
def test_derivatives_of_held_gradients_agree_with_finite_differences(name):
    module = LAYERS[name][0]().train()
    assert gradcheck(lambda x: held_gradient(module, x, create_graph=True)[0], (inputs(),))


@pytest.mark.parametrize("name", LAYERS)
def test_bf16_stays_close(name):
    module = LAYERS[name][0]().float().train()
    x = inputs().detach().float()
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(x)
    assert float((low - exact).detach().abs().max()) < 0.03 * float(exact.detach().abs().max())
