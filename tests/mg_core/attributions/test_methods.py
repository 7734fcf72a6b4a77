"""Methods with forward passes of their own, and methods from outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mg_core.attributions import ATTRIBUTIONS, Attribution, attribute, explain
from mg_core.attributions.methods import input_times_gradient
from mg_core.guidance import Batch, Guidance, guided_loss
from mg_core.guidance.pairs import check_pair
from mg_core.models import build_model

CLASSES = torch.tensor([2, 0])
PROBED = [name for name, method in ATTRIBUTIONS.items() if method.probes]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Softplus(),
        nn.Conv2d(4, 3, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    return model.double()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(2, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradient_at(head, point):
    point = point.detach().requires_grad_()
    score = head(point)[torch.arange(len(point)), CLASSES].sum()
    return torch.autograd.grad(score, point)[0]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", ["input", "1", "3"])
def test_integrated_gradients_of_32_steps(layer, training, inputs):
    model, depth = network().train(training), 0 if layer == "input" else int(layer) + 1
    plain = network().train(training)
    features = plain[:depth](inputs).detach()
    points = [(step + 0.5) / 32 * features for step in range(32)]
    gradient = torch.stack([gradient_at(plain[depth:], point) for point in points]).mean(0)
    found = attribute(model, inputs, CLASSES, "intgrad_steps", layer)
    torch.testing.assert_close(found, (features * gradient).sum(1))


def test_integrated_gradients_agree_with_captum(inputs):
    captum = pytest.importorskip("captum.attr")
    model = network().eval()
    expected = captum.IntegratedGradients(model).attribute(
        inputs, target=CLASSES, n_steps=32, method="riemann_middle"
    )
    found = attribute(model, inputs, CLASSES, "intgrad_steps")
    torch.testing.assert_close(found, expected.sum(1))


@pytest.mark.parametrize("layer", ["input", "1", "3"])
def test_smoothgrad_averages_maps_of_noisy_copies(layer, inputs):
    model, depth = network().eval(), 0 if layer == "input" else int(layer) + 1
    features = model[:depth](inputs).detach()
    span = features.flatten(1).max(1).values - features.flatten(1).min(1).values
    generator = torch.Generator().manual_seed(0)
    maps = []
    for _ in range(16):
        noise = torch.randn(features.shape[1:], generator=generator).double()
        noisy = features + 0.15 * span[:, None, None, None] * noise
        maps.append((noisy * gradient_at(model[depth:], noisy)).sum(1))
    found = attribute(model, inputs, CLASSES, "smoothgrad_ixg", layer)
    torch.testing.assert_close(found, torch.stack(maps).mean(0))


@pytest.mark.parametrize("layer", ["input", "1", "3"])
def test_expected_gradients_average_over_references_of_noise(layer, inputs):
    model, depth = network().eval(), 0 if layer == "input" else int(layer) + 1
    features = model[:depth](inputs).detach()
    mean = features.flatten(1).mean(1)[:, None, None, None]
    deviation = features.flatten(1).std(1, unbiased=False)[:, None, None, None]
    generator = torch.Generator().manual_seed(0)
    maps = []
    for sample in range(16):
        noise = torch.randn(features.shape[1:], generator=generator).double()
        reference = mean + deviation * noise
        place = (sample + torch.rand((), generator=generator).double()) / 16
        assert sample / 16 <= place <= (sample + 1) / 16
        point = reference + place * (features - reference)
        maps.append(((features - reference) * gradient_at(model[depth:], point)).sum(1))
    found = attribute(model, inputs, CLASSES, "expected_gradients", layer)
    torch.testing.assert_close(found, torch.stack(maps).mean(0))


@pytest.mark.parametrize("layer", ["input", "1", "2", "3"])
@pytest.mark.parametrize("training", [False, True])
def test_weighted_activations_place_by_place(layer, training, inputs):
    model, depth = network().train(training), 0 if layer == "input" else int(layer) + 1
    plain = network().train(training)
    features = plain[:depth](inputs).detach()
    gradient = gradient_at(plain[depth:], features)
    layercam, plus_plus = torch.zeros(2, *features.shape[:1] + features.shape[2:]).double()
    for image in range(2):
        for channel in range(features.shape[1]):
            values, slopes = features[image, channel], gradient[image, channel]
            total, weight = max(float(values.sum()), 0.0), 0.0
            for slope in slopes.flatten():
                if slope > 0:
                    # exp(f) has the derivatives exp(f) gⁿ; the factor exp(f) cancels here.
                    alpha = slope**2 / (2 * slope**2 + total * slope**3)
                    weight = weight + alpha * slope
            plus_plus[image] += weight * values
            layercam[image] += values * slopes.clamp(min=0)
    for name, expected in (("layercam", layercam), ("gradcam_plus_plus", plus_plus)):
        found = attribute(model, inputs, CLASSES, name, layer)
        torch.testing.assert_close(found, expected.clamp(min=0))


@pytest.mark.parametrize("method", PROBED)
def test_map_of_an_image_depends_on_no_other(method, inputs):
    model = network().eval()
    both = attribute(model, inputs, CLASSES, method)
    alone = attribute(model, inputs[1:], CLASSES[1:], method)
    torch.testing.assert_close(both[1:], alone)
    torch.testing.assert_close(attribute(model, inputs, CLASSES, method), both, rtol=0, atol=0)


@pytest.mark.parametrize("method", PROBED)
def test_running_statistics_see_each_batch_once(method, inputs):
    model, plain = network().train(), network().train()
    attribute(model, inputs, CLASSES, method, "1")
    plain(inputs)
    for found, expected in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layer", ["input", "mid2"])
@pytest.mark.parametrize("method", PROBED)
def test_can_be_guided_all_the_same(method, layer):
    torch.manual_seed(0)
    model = build_model("vanilla_tiny", 3).double().train()
    inputs = model.encode(torch.rand(2, 3, 16, 16, dtype=torch.float64))
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, :8] = True
    batch = Batch(inputs, torch.ones(2, 3), CLASSES, masks, torch.arange(2))
    guidance = Guidance(method, layer, "energy", 1.0)
    parameters = list(model.parameters())
    loss, _ = guided_loss(model, batch, guidance)
    gradients = torch.autograd.grad(loss, parameters)
    direction = [torch.randn_like(p) * p.detach().square().mean().sqrt() for p in parameters]
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    errors = []
    for step in (1e-7, 1e-8):
        sides = []
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p.data += sign * step * d
            sides.append(float(guided_loss(model, batch, guidance)[1].loss))
            for p, d in zip(parameters, direction, strict=True):
                p.data -= sign * step * d
        errors.append(abs(slope - (sides[0] - sides[1]) / (2 * step)))
    assert min(errors) < 2e-5 * abs(slope) + 1e-7


@pytest.mark.parametrize("method", PROBED)
def test_runs_again_under_the_autocast_of_its_forward_pass(method):
    torch.manual_seed(0)
    model = build_model("vanilla_tiny", 3).eval()
    inputs = model.encode(torch.rand(2, 3, 32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        explanation = explain(model, inputs, [(method, "mid1")])
    (outside,) = explanation.maps(CLASSES)
    assert outside.dtype == torch.float32
    exact = attribute(model, inputs, CLASSES, method, "mid1")
    assert float((outside - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_a_method_of_your_own_works_by_name(inputs, monkeypatch):
    monkeypatch.setattr(ATTRIBUTIONS, "_variants", dict(ATTRIBUTIONS))

    def saliency(features, gradients):
        return gradients.abs().amax(1)

    ATTRIBUTIONS.register("saliency")(Attribution(saliency, frozenset({"vanilla"})))
    model = network().eval()
    expected = gradient_at(model, inputs).abs().amax(1)
    torch.testing.assert_close(attribute(model, inputs, CLASSES, "saliency"), expected)
    check_pair("vanilla_tiny", "saliency", "mid1")
    with pytest.raises(ValueError, match="already a attribution called 'saliency'"):
        ATTRIBUTIONS.register("saliency")(Attribution(input_times_gradient))
