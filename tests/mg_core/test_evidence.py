"""Losses that get all of a step's evidence, against what each part is said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from mg_core.attributions import attribute, explain, upsample
from mg_core.errors import InputError
from mg_core.guidance import Batch, Guidance, guided_loss
from mg_core.guidance.rehearsal import rehearse
from mg_core.guidance.step import evidence_of
from mg_core.losses import LOSSES, informed, localization_loss, loss_of
from mg_core.models import build_model

CLASSES, OTHERS = torch.tensor([1, 0]), torch.tensor([2, 1])
ROWS = torch.tensor([0, 2])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.Softplus(), nn.Conv2d(4, 3, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(3, 3),
    ).double()  # fmt: skip


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=generator)
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:6, 1:5] = masks[1, :3] = True
    labels = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 0, 1]])
    return Batch(inputs, labels, CLASSES, masks, ROWS)


def evidence(model, batch, layer="input", classification="bce"):
    explanation = explain(model, batch.inputs, [("ixg", layer)], batch.annotated)
    return evidence_of(explanation, layer, batch, classification)


@pytest.mark.parametrize("layer", ["input", "1"])
def test_evidence_is_of_the_annotated_images(layer, batch):
    found = evidence(network().eval(), batch, layer)
    model = network().eval()
    torch.testing.assert_close(found.logits, model(batch.inputs)[ROWS])
    assert found.labels.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert not found.is_single_label
    assert evidence(model, batch, layer, "cross_entropy").is_single_label
    for classes, maps in ((CLASSES, found.attributions), (OTHERS, found.maps_of(OTHERS))):
        expected = attribute(model, batch.inputs[ROWS], classes, "ixg", layer)
        torch.testing.assert_close(maps.detach(), upsample(expected, 8))
    assert found.attributions is found.attributions


@pytest.mark.parametrize("layer", ["input", "1"])
def test_gradients_of_a_score_agree_with_finite_differences(layer, batch):
    model, depth = network().eval(), 0 if layer == "input" else 2
    found = evidence(network().eval(), batch, layer)
    gradient = found.gradients_of(found.logits.logsumexp(1))
    features = model[:depth](batch.inputs)[ROWS].detach()
    assert gradient.shape == features.shape
    with torch.no_grad():
        for index in range(0, features.numel(), 7):
            sides = []
            for sign in (1, -1):
                moved = features.clone()
                moved.view(-1)[index] += sign * 1e-6
                sides.append(float(model[depth:](moved).logsumexp(1).sum()))
            expected = (sides[0] - sides[1]) / 2e-6
            assert float(gradient.reshape(-1)[index]) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("classification", ["bce", "cross_entropy"])
@pytest.mark.parametrize("layer", ["input", "1"])
def test_rrr_as_first_published(layer, classification, batch):
    """The gradient of every log-probability, one class after another, summed and squared."""
    model, depth = network().eval(), 0 if layer == "input" else 2
    total = 0
    features = model[:depth](batch.inputs)[ROWS].detach().requires_grad_()
    for k in range(3):
        logits = model[depth:](features)
        if classification == "bce":
            chance = 1 / (1 + (-logits[:, k]).exp())
            score = chance.log() + (1 - chance).log()
        else:
            score = (logits[:, k].exp() / logits.exp().sum(1)).log()
        total = total + torch.autograd.grad(score.sum(), features)[0]
    squares = upsample((total**2).sum(1), 8)
    expected = (squares * (1 - batch.masks.double())).sum((1, 2))
    found = loss_of("rrr_original", evidence(network().eval(), batch, layer, classification))
    torch.testing.assert_close(found.detach(), expected.detach())


def test_one_forward_pass_serves_everything_that_is_asked_for(batch, monkeypatch):
    monkeypatch.setattr(LOSSES, "_variants", dict(LOSSES))

    @LOSSES.register("everything")
    @informed
    def everything(evidence):
        both = evidence.attributions - evidence.maps_of(OTHERS)
        slopes = evidence.upsample(evidence.gradients_of(evidence.logits.sum(1)).square().sum(1))
        weights = evidence.labels.sum(1) * evidence.logits.square().sum(1)
        return weights * (both.square() + slopes).masked_fill(evidence.masks, 0).mean((1, 2))

    model, runs = network().train(), []
    guided_loss(model, batch, Guidance("ixg", "1", "everything", 1.0))  # What is checked once.
    model[0].register_forward_hook(lambda *_: runs.append(1))
    loss, terms = guided_loss(model, batch, Guidance("ixg", "1", "everything", 1.0))
    assert len(runs) == 1
    assert float(terms.localization) > 0
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_informed_loss_is_rehearsed_in_every_precision(precision):
    torch.manual_seed(0)
    model = build_model("vanilla_tiny", 3)
    inputs = model.encode(torch.rand(2, 3, 16, 16))
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    batch = Batch(inputs, torch.eye(3)[:2], CLASSES, masks, torch.arange(2))
    found = rehearse(model, batch, "gradcam", "final", ["rrr_original", "energy"], precision)
    assert found.problems == {}


def test_a_compiled_network_is_explained_as_it_is_written(batch):
    model = network().eval()
    guidance = Guidance("ixg", "1", "rrr_original", 1.0)
    expected, _ = guided_loss(model, batch, guidance)
    torch.testing.assert_close(guided_loss(torch.compile(model), batch, guidance)[0], expected)


def test_masks_of_another_size_are_refused_in_a_sentence(batch):
    other = replace(batch, masks=batch.masks[:, :4])
    with pytest.raises(InputError, match=r"masks must have shape \(2, 8, 8\), not \(2, 4, 8\)"):
        guided_loss(network(), other, Guidance("ixg", "1", "rrr_original", 1.0))


def test_a_boolean_choice_of_images_is_the_same(batch):
    chosen = replace(batch, annotated=torch.tensor([True, False, True]))
    for loss in ("energy", "rrr_original"):
        guidance = Guidance("ixg", "input", loss, 1.0)
        found, expected = (guided_loss(network(), b, guidance)[0] for b in (chosen, batch))
        assert torch.equal(found, expected)


def test_maps_and_masks_alone_are_not_enough(batch):
    with pytest.raises(InputError, match=r"'rrr_original' needs more than maps.*guided_loss"):
        localization_loss("rrr_original", torch.rand(2, 8, 8), batch.masks)
