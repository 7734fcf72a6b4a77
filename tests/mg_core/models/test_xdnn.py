"""X-DNNs are homogeneous, so their integrated gradients take one backward pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mg_core.attributions import attribute, explain
from mg_core.models import MODELS, build_model

XDNNS = [name for name, model in MODELS.items() if model.family == "xdnn"]
CLASSES = torch.tensor([1, 0, 1])


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(name, 3).double().eval()
    for parameter in model.parameters():
        if not parameter.any():  # the last layers of Fixup's branches
            torch.nn.init.normal_(parameter, std=0.02)
    torch.nn.init.normal_(model.fc.bias)
    return model


def inputs(model: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return model.encode(torch.rand(3, 3, 40, 40, dtype=torch.float64, generator=generator))


def integrated_gradients(model, x, classes, steps):
    """Average the gradient over a straight line from zero, with the midpoint rule."""
    total = torch.zeros_like(x)
    for i in range(steps):
        point = ((i + 0.5) / steps * x).requires_grad_()
        score = model(point)[torch.arange(len(x)), classes].sum()
        total += torch.autograd.grad(score, point)[0] / steps
    return (x * total).sum(1)


@pytest.mark.parametrize("name", XDNNS)
def test_nonnegatively_homogeneous_up_to_the_bias_of_the_head(name):
    model = make(name)
    x = inputs(model)
    with torch.no_grad():
        plain = model(x) - model.fc.bias
        for factor in (0.0, 3.7):
            scaled = model(factor * x) - model.fc.bias
            torch.testing.assert_close(scaled, factor * plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", XDNNS)
def test_attributions_of_every_layer_add_up_to_the_logit(name):
    model = make(name)
    x = inputs(model)
    pairs = [("intgrad", layer) for layer in ("input", "mid1", "mid2", "mid3", "final")]
    explanation = explain(model, x, pairs)
    logits = (explanation.logits - model.fc.bias)[torch.arange(3), CLASSES]
    for maps in explanation.maps(CLASSES):
        torch.testing.assert_close(maps.sum((1, 2)), logits, rtol=1e-9, atol=1e-12)


def test_equals_integrated_gradients_of_200_steps():
    model = make("xdnn_tiny")
    x = inputs(model)
    found = attribute(model, x, CLASSES, "intgrad")
    expected = integrated_gradients(model, x, CLASSES, 200)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-10
    found = attribute(model.float(), x.float(), CLASSES, "intgrad").double()
    errors = (found - expected).abs().amax((1, 2)) / expected.abs().amax((1, 2))
    assert float(errors.median()) < 1e-5


def test_equals_captums_integrated_gradients():
    captum = pytest.importorskip("captum.attr")
    model = make("xdnn_tiny")
    x = inputs(model)
    expected = captum.IntegratedGradients(model).attribute(x, target=CLASSES, n_steps=20).sum(1)
    torch.testing.assert_close(
        attribute(model, x, CLASSES, "intgrad"), expected, rtol=1e-8, atol=1e-10
    )


def test_architecture_is_the_published_one():
    """The network of Hesse et al. written out with plain functions."""
    model = make("xdnn_resnet50")
    state, x = model.state_dict(), inputs(model)

    def conv(x, key, stride=1):
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    h = F.max_pool2d(conv(x, "conv1", 2).relu(), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for i in range(blocks):
            key, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            out = conv(h, f"{key}.conv1").relu()
            out = conv(conv(out, f"{key}.conv2", stride).relu(), f"{key}.conv3")
            h = (out + (conv(h, f"{key}.downsample", stride) if i == 0 else h)).relu()
    expected = h.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("name", "branch"), [("xdnn_resnet18", 2), ("xdnn_resnet50", 3)])
def test_initialised_as_fixup(name, branch):
    torch.manual_seed(0)
    model = build_model(name, 3)
    blocks = sum(len(getattr(model, f"layer{i}")) for i in range(1, 5))
    block = model.layer4[1]
    convolutions = [getattr(block, f"conv{i + 1}").weight for i in range(branch)]
    assert not convolutions[-1].any()
    for weight in convolutions[:-1]:
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        expected = (2 / fan_out) ** 0.5 * blocks ** (-1 / (2 * branch - 2))
        assert float(weight.detach().std()) == pytest.approx(expected, rel=0.01)
    assert not any("bias" in key for key in model.state_dict() if not key.startswith("fc."))
