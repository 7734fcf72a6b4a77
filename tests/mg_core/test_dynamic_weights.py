"""B-cos explanations: values as the `bcos` package's, gradients as finite differences."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from bcos.common import explanation_mode
from bcos.models.densenet import BcosDenseNet
from bcos.models.vit import SimpleViT
from bcos.modules import (
    BcosConv2d,
    BcosLinear,
    BcosSequential,
    DetachableModule,
    LogitLayer,
    norms,
)
from bcos.modules.bcosconv2d import BcosConv2dWithScale
from torch import nn

from mg_core.attributions import attribute, explain
from mg_core.guidance import Batch, Guidance, guided_loss, guided_step
from mg_core.models import MODELS, build_model

CLASSES = torch.tensor([1, 0])
NORMS = {
    "batch": lambda c: norms.NoBias(norms.BatchNormUncentered2d)(c),
    "batch_bias": norms.BatchNormUncentered2d,
    "all": norms.AllNormUncentered2d,
    "group": partial(norms.GroupNormUncentered2d, 2),
    "instance": norms.GNInstanceNormUncentered2d,
    "layer": norms.GNLayerNormUncentered2d,
    "position": norms.PositionNormUncentered2d,
    "centered_batch": norms.BatchNorm2d,
    "centered_all": norms.AllNorm2d,
    "centered_group": partial(norms.DetachableGroupNorm2d, 2),
    "centered_instance": norms.DetachableGNInstanceNorm2d,
    "centered_layer": norms.DetachableGNLayerNorm2d,
    "centered_position": norms.DetachablePositionNorm2d,
}
CONVOLUTIONS = {
    "plain": BcosConv2d,
    "linear": partial(BcosConv2d, b=1),
    "steep": partial(BcosConv2d, b=2.5),
    "maxout": partial(BcosConv2d, max_out=2),
    "grouped": partial(BcosConv2d, groups=2),
    "dilated": partial(BcosConv2d, dilation=2),
    "scaled": partial(BcosConv2dWithScale, scale=2.0),
}


def small_net(norm=NORMS["batch"], convolution=BcosConv2d) -> nn.Module:
    return BcosSequential(
        convolution(6, 8, kernel_size=3, padding=1),
        norm(8),
        nn.AvgPool2d(2),
        BcosConv2d(8, 4, kernel_size=3),
        norm(4),
        BcosConv2d(4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        LogitLayer(logit_bias=-1.0),
    )


def small_densenet() -> nn.Module:
    return BcosDenseNet(
        growth_rate=4,
        block_config=(2, 2, 1, 1),
        num_init_features=8,
        num_classes=3,
        norm_layer=NORMS["batch"],
        small_inputs=True,
        logit_bias=-1.0,
    )


def small_vit() -> nn.Module:
    vit = SimpleViT(
        image_size=12,
        patch_size=4,
        num_classes=3,
        dim=16,
        depth=2,
        heads=2,
        mlp_dim=24,
        linear_layer=BcosLinear,
        norm_layer=norms.NoBias(norms.DetachableLayerNorm),
        act_layer=nn.Identity,
    )
    return BcosSequential(vit, LogitLayer(logit_bias=-1.0))


NETWORKS = {
    **{f"norm_{name}": partial(small_net, norm) for name, norm in NORMS.items()},
    **{
        f"conv_{name}": partial(small_net, convolution=layer)
        for name, layer in CONVOLUTIONS.items()
    },
    "densenet": small_densenet,
    "vit": small_vit,
}
LAYER = {"densenet": "features.denseblock1", "vit": "0.transformer.encoder_0"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are trying to use the entrypoints"),
    pytest.mark.filterwarnings("ignore:BcosConv2dWithScale is deprecated"),
    pytest.mark.filterwarnings("ignore:dilation > 1 is much slower"),
]


def make(name: str, training: bool) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # scales of norms, which all start at one
            nn.init.uniform_(parameter, 0.5, 1.5)
    model.train()(encoded())  # running statistics that are not their initial values
    return model.train(training)


def encoded() -> torch.Tensor:
    images = torch.rand(
        2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    return torch.cat([images, 1 - images], 1)


def packages_map(model, inputs, classes):
    """W(x) ⊙ x as the package computes it: one backward pass in its explanation mode."""
    inputs = inputs.clone().requires_grad_()
    with explanation_mode(model):
        logits = model(inputs)
    logits[torch.arange(len(inputs)), classes].sum().backward()
    return (inputs * inputs.grad).sum(1).detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_value_is_that_of_the_package(name):
    model = make(name, training=False)
    expected = packages_map(model, encoded(), CLASSES)
    found = attribute(model, encoded(), CLASSES, "bcos")
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.family == "bcos"])
def test_value_is_that_of_the_package_for_registered_models(name):
    torch.manual_seed(0)
    model = build_model(name, 3).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    inputs = model.encode(images)
    expected = packages_map(model, inputs, CLASSES)
    found = attribute(model, inputs, CLASSES, "bcos")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    if "vit" not in name:  # where positional embeddings contribute too
        # A linear map: contributions add up to the logit less its fixed bias.
        logits = model(inputs)[torch.arange(2), CLASSES] - torch.tensor(0.001 / 0.999).log()
        torch.testing.assert_close(found.sum((1, 2)), logits, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", ["input", "inner"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_is_that_of_finite_differences(name, layer, training):
    model, inputs = make(name, training), encoded()
    layer = layer if layer == "input" else LAYER.get(name, "1")
    weights = torch.randn(2, 12, 12, dtype=torch.float64)

    def value() -> torch.Tensor:
        (maps,) = explain(model, inputs, [("bcos", layer)]).maps(CLASSES, create_graph=True)
        return (weights[:, : maps.shape[1], : maps.shape[2]] * maps).sum()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(value(), parameters, materialize_grads=True, allow_unused=True)
    direction = [torch.randn_like(p) for p in parameters]
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    assert abs(slope) > 1e-6
    errors = []
    for step in (1e-6, 1e-7, 1e-8):
        sides = []
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p.data += sign * step * d
            sides.append(float(value().detach()))
            for p, d in zip(parameters, direction, strict=True):
                p.data -= sign * step * d
        errors.append(abs(slope - (sides[0] - sides[1]) / (2 * step)))
    assert min(errors) <= 1e-6 * abs(slope)


def test_detaching_alone_would_not_do():
    """The finite differences above tell the package's incomplete gradient from the right one."""
    model, inputs = make("norm_batch", training=False), encoded()
    found = attribute(model, inputs, CLASSES, "bcos", create_graph=True).square().sum()
    parameters = list(model.parameters())
    right = torch.autograd.grad(found, parameters)
    inputs = inputs.requires_grad_()
    with explanation_mode(model):
        logits = model(inputs)
    score = logits[torch.arange(2), CLASSES].sum()
    (weights,) = torch.autograd.grad(score, inputs, create_graph=True)
    incomplete = torch.autograd.grad((inputs * weights).sum(1).square().sum(), parameters)
    flat = [torch.cat([g.flatten() for g in grads]) for grads in (right, incomplete)]
    assert float(F.cosine_similarity(*flat, dim=0)) < 0.99


@pytest.mark.parametrize("name", ["norm_batch", "densenet", "vit"])
def test_forward_of_an_explanation_keeps_the_classification_gradient(name):
    model, inputs = make(name, training=True), encoded()
    plain = torch.autograd.grad(model(inputs).square().sum(), list(model.parameters()))
    explanation = explain(model, inputs, [("bcos", "input")])
    explanation.maps(CLASSES, create_graph=True)
    found = torch.autograd.grad(explanation.logits.square().sum(), list(model.parameters()))
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gradcam_beside_it_uses_the_ordinary_gradient():
    model, inputs = make("norm_batch", training=True), encoded()
    both = explain(model, inputs, [("bcos", "1"), ("gradcam", "1"), ("ixg", "1")]).maps(CLASSES)
    for found, method in zip(both, ("bcos", "gradcam", "ixg"), strict=True):
        torch.testing.assert_close(found, attribute(model, inputs, CLASSES, method, "1"))
    assert not torch.allclose(both[0], both[2])


@pytest.mark.parametrize("name", ["norm_batch", "norm_all", "norm_batch_bias"])
def test_running_statistics_get_no_graph(name):
    model = make(name, training=True)
    plain = copy.deepcopy(model)
    plain(encoded())
    batch = Batch(
        encoded(),
        torch.ones(2, 3),
        CLASSES,
        torch.ones(2, 12, 12, dtype=torch.bool),
        torch.arange(2),
    )
    guidance = Guidance("bcos", "input", "rrr", 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guided_step(model, optimizer, batch, guidance)
    for (key, found), expected in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert not found.requires_grad, key
        torch.testing.assert_close(found, expected)
    copy.deepcopy(model)


def test_model_is_as_before_whatever_happens():
    model = make("vit", training=True)
    state = [
        (m.detach, "forward" in vars(m)) for m in model.modules() if isinstance(m, DetachableModule)
    ]
    with pytest.raises(RuntimeError):
        explain(model, encoded()[:, :5], [("bcos", "input")])
    explanation = explain(model, encoded(), [("bcos", "input")])

    def fail(gradient):
        raise ValueError("in the backward pass")

    expected = torch.autograd.grad(
        explanation.logits.sum(), list(model.parameters()), retain_graph=True
    )
    handle = explanation.logits.register_hook(fail)
    with pytest.raises(ValueError, match="in the backward pass"):
        explanation.maps(CLASSES)
    handle.remove()
    # A switch left set would cut this gradient short.
    found = torch.autograd.grad(explanation.logits.sum(), list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert state == [
        (m.detach, "forward" in vars(m)) for m in model.modules() if isinstance(m, DetachableModule)
    ]


def test_what_other_modules_detach_stays_detached():
    class Stop(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = BcosConv2d(6, 3, kernel_size=3)

        def forward(self, x):
            return self.inner(x).mean((2, 3)) + x.detach().mean((2, 3))[:, :3]

    model, inputs = Stop().double(), encoded().requires_grad_()
    logits = explain(model, inputs, [("bcos", "input")]).logits
    (found,) = torch.autograd.grad(logits.sum(), inputs)
    (expected,) = torch.autograd.grad(model(inputs).sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_models_without_dynamic_weights_give_input_times_gradient():
    model = nn.Sequential(nn.Conv2d(6, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, inputs = model.double(), encoded()
    expected = attribute(model, inputs, CLASSES, "ixg")
    torch.testing.assert_close(attribute(model, inputs, CLASSES, "bcos"), expected)


def test_guidance_loss_sees_dynamic_weights_through_bf16():
    torch.manual_seed(0)
    model = build_model("bcos_tiny", 3)
    inputs = model.encode(torch.rand(2, 3, 32, 32))
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, :16] = True
    batch = Batch(inputs, torch.ones(2, 3), CLASSES, masks, torch.arange(2))
    loss, _ = guided_loss(model, batch, Guidance("bcos", "input", "energy", 1.0), "bf16")
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
