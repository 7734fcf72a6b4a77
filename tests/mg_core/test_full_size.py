"""The networks of the study themselves, at every layer: gradients that finite differences confirm.

The tiny ones have the same code paths and are tested with every change; these take minutes.
"""

from __future__ import annotations

import pytest
import torch

from mg_core.attributions import ATTRIBUTIONS
from mg_core.guidance import Batch, Guidance, guided_loss
from mg_core.models import MODELS, build_model

pytestmark = pytest.mark.slow

LAYERS = ("input", "mid1", "mid2", "mid3", "final")
CASES = [
    (name, method, layer, training)
    for name, model in MODELS.items()
    if not name.endswith("_tiny")
    for method, how in ATTRIBUTIONS.items()
    if not how.probes and (how.families is None or model.family in how.families)
    for layer in LAYERS
    for training in (True, False)
]


@pytest.mark.parametrize(("name", "method", "layer", "training"), CASES)
def test_gradient_of_a_guided_step_agrees_with_finite_differences(name, method, layer, training):
    torch.manual_seed(0)
    model = build_model(name, 4).double()
    for parameter in model.parameters():
        if not parameter.any():  # what starts at zero would hide terms
            torch.nn.init.normal_(parameter, std=0.02)
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[:, 8:40, 12:44] = True
    inputs = model.encode(images)
    with torch.no_grad():
        model.train()(inputs)  # running statistics that are not their initial values
    model.train(training)
    labels = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]]).bool()
    batch = Batch(inputs, labels, torch.tensor([0, 2]), masks, torch.arange(2))
    guidance = Guidance(method, layer, "energy", 1.0)

    def value() -> torch.Tensor:
        return guided_loss(model, batch, guidance)[0]

    parameters = list(model.parameters())
    found = torch.autograd.grad(value(), parameters, materialize_grads=True, allow_unused=True)
    direction = [torch.randn_like(p) * p.detach().square().mean().sqrt() for p in parameters]
    slope = float(sum((g * d).sum() for g, d in zip(found, direction, strict=True)))
    errors = []
    # A large step meets kinks, a small one rounding: one of several must agree.
    for step in (1e-7, 1e-8, 1e-6, 1e-9):
        sides = []
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p.data += sign * step * d
            sides.append(float(value().detach()))
            for p, d in zip(parameters, direction, strict=True):
                p.data -= sign * step * d
        errors.append(abs(slope - (sides[0] - sides[1]) / (2 * step)))
        if errors[-1] <= 1e-4 * abs(slope) + 1e-8:
            return
    pytest.fail(f"slope {slope}, errors {errors}")
