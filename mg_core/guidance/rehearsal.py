"""One batch of a guided trial before anything trains: whether guidance can work there at all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor, nn

from mg_core.attributions import Explanation, explain
from mg_core.config import Precision
from mg_core.errors import InputError
from mg_core.guidance.precision import AUTOCAST
from mg_core.guidance.preflight import unchanged
from mg_core.guidance.step import Batch, evidence_of
from mg_core.losses import Evidence, loss_of
from mg_core.models import encode

STEPS = (1e-4, 1e-5, 1e-6, 1e-7)
"""Relative steps of finite differences; the best one counts, since a network may have kinks."""

MOST_CLASSES = 8
"""Classes that are explained in search of a positive map."""


@dataclass(frozen=True)
class Rehearsal:
    """What one batch showed of an (attribution, layer) and the losses that guide it.

    Attributes:
        map_size: height and width of the maps; none if there were none.
        problems: by loss, one sentence on why guidance cannot work; empty if it can.
        errors: by loss, the relative error of the gradient against finite differences, where it
            was asked for.
        has_no_positive: whether no map of these images has a positive value, so that no loss could
            be tried. Later weights may give some: a layer without influence on the logits is a
            problem, see `explain`.
    """

    map_size: tuple[int, int] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    has_no_positive: bool = False


def rehearse(
    model: nn.Module,
    batch: Batch,
    attribution: str,
    layer: str,
    losses: Sequence[str],
    precision: Precision = "fp32",
    exact: bool = False,
    classification: str = "bce",
) -> Rehearsal:
    """Explain one batch, and take the gradient of each loss with respect to the weights.

    No weight changes. Whatever a network or a variant of the user's raises becomes a sentence.

    Args:
        model: network as it is trained.
        batch: some images, all of them annotated.
        attribution: registered method.
        layer: "input", a guidance layer, or a submodule's dotted name.
        losses: registered localization losses.
        precision: precision of the forward pass.
        exact: compare gradients with finite differences, in double precision.
        classification: registered classification loss, which a localization loss may ask for.
    """
    model.train()
    with unchanged(model):
        return _rehearse(model, batch, attribution, layer, losses, precision, exact, classification)


def _rehearse(
    model: nn.Module,
    batch: Batch,
    attribution: str,
    layer: str,
    losses: Sequence[str],
    precision: Precision,
    exact: bool,
    classification: str,
) -> Rehearsal:
    try:
        maps, evidence = _positive_maps(model, batch, attribution, layer, precision, classification)
        batch = replace(batch, target_classes=evidence.target_classes)
    except Exception as error:
        return Rehearsal(problems=dict.fromkeys(losses, in_words(error)))
    size = (int(maps.shape[1]), int(maps.shape[2]))
    if flaw := _flaw_of_maps(maps):
        return Rehearsal(size, dict.fromkeys(losses, flaw))
    if not bool((maps > 0).any()):
        return Rehearsal(size, has_no_positive=True)
    problems: dict[str, str] = {}
    errors: dict[str, float] = {}
    for loss in losses:
        try:
            flaw = _flaw_of_loss(model, evidence, loss)
            if exact and not flaw:
                errors[loss] = gradient_error(
                    model, batch, attribution, layer, loss, classification
                )
        except Exception as error:
            flaw = in_words(error)
        problems |= {loss: flaw} if flaw else {}
    return Rehearsal(size, problems, errors)


def noise_batch(model: nn.Module, image_size: int, num_classes: int, count: int = 2) -> Batch:
    """Return images of noise with a box in the middle, for a network whose data are not at hand."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, image_size, image_size, generator=generator)
    masks = torch.zeros(count, image_size, image_size, dtype=torch.bool)
    edge = image_size // 4
    masks[:, edge : max(edge + 1, image_size - edge), edge : max(edge + 1, image_size - edge)] = (
        True
    )
    targets = torch.arange(count) % num_classes
    labels = nn.functional.one_hot(targets, num_classes)
    return Batch(encode(model, images), labels, targets, masks, torch.arange(count))


def in_words(error: Exception) -> str:
    """Return in one line why a rehearsal failed; what is no sentence of ours has its type."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text[:300]}"


def gradient_error(
    model: nn.Module,
    batch: Batch,
    attribution: str,
    layer: str,
    loss: str,
    classification: str = "bce",
) -> float:
    """Return how far the gradient of a guidance loss is from finite differences.

    Both are taken in double precision, in evaluation mode, along one random direction in the space
    of all weights that are trained.

    Returns:
        |g·d − Δ| / max(|g·d|, |Δ|), for the best of several steps; 0 where both vanish.
    """
    twin = copy.deepcopy(model).double().eval()
    doubled = replace(batch, inputs=batch.inputs.double())
    weights = [w for w in twin.parameters() if w.requires_grad]
    generator = torch.Generator().manual_seed(0)
    direction = [
        torch.randn(w.shape, generator=generator).to(w) * w.detach().square().mean().sqrt()
        for w in weights
    ]

    def value() -> Tensor:
        explanation = _explained(twin, doubled, attribution, layer, "fp32")
        return loss_of(loss, evidence_of(explanation, layer, doubled, classification)).sum()

    gradients = torch.autograd.grad(value(), weights, materialize_grads=True, allow_unused=True)
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    before = [w.detach().clone() for w in weights]
    found = []
    for step in STEPS:
        sides = []
        for sign in (1, -1):
            for weight, start, way in zip(weights, before, direction, strict=True):
                weight.data = start + sign * step * way
            sides.append(float(value().detach()))
        difference = (sides[0] - sides[1]) / (2 * step)
        largest = max(abs(slope), abs(difference))
        found.append(abs(slope - difference) / largest if largest > 1e-12 else 0.0)
    return min(found)


def _positive_maps(
    model: nn.Module,
    batch: Batch,
    attribution: str,
    layer: str,
    precision: Precision,
    classification: str,
) -> tuple[Tensor, Evidence]:
    """Explain a batch; return its maps at the layer, and the evidence with the explained classes.

    A map of one class may be negative everywhere by chance, and its GradCAM zero. Other classes
    are then explained.
    """
    explanation = _explained(model, batch, attribution, layer, precision)
    n_classes = explanation.logits.shape[1]
    targets = _targets(batch)
    for shift in range(min(n_classes, MOST_CLASSES)):
        classes = (targets + shift) % n_classes
        (maps,) = explanation.maps(classes, create_graph=True)
        if bool((maps > 0).any()):
            break
    chosen = replace(batch, target_classes=classes)
    evidence = evidence_of(explanation, layer, chosen, classification)
    # Many losses and masks are tried on the same maps.
    return maps, replace(evidence, maps_of=cache(evidence.maps_of))


def _explained(
    model: nn.Module, batch: Batch, attribution: str, layer: str, precision: Precision
) -> Explanation:
    device, dtype = batch.inputs.device.type, AUTOCAST.get(precision)
    with torch.autocast(device, dtype, enabled=dtype is not None):
        return explain(model, batch.inputs, [(attribution, layer)], batch.annotated)


def _targets(batch: Batch) -> Tensor:
    if batch.target_classes is None or not len(batch.target_classes):
        raise InputError("a rehearsal needs annotated images")
    return batch.target_classes


def _flaw_of_maps(maps: Tensor) -> str:
    if not bool(maps.isfinite().all()):
        return "the maps are not finite"
    if not maps.requires_grad:
        return "the maps do not depend on any weight that is trained"
    return ""


def _flaw_of_loss(model: nn.Module, evidence: Evidence, loss: str) -> str:
    value = loss_of(loss, evidence).sum()
    if not bool(value.isfinite()):
        return "the loss is not finite"
    if not value.requires_grad:
        return "the loss does not depend on the maps"
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # Boxes that no positive value lies in may give no gradient, as with Energy; halves hold some.
    left = torch.zeros_like(evidence.masks)
    left[..., : left.shape[-1] // 2] = True
    for masks in (evidence.masks, left, ~left):
        value = loss_of(loss, replace(evidence, masks=masks)).sum()
        found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
        gradients = [gradient for gradient in found if gradient is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            return "the gradient of the loss is not finite"
        if any(bool(gradient.any()) for gradient in gradients):
            return ""
    return "the loss has no gradient with respect to any weight: nothing would be guided"
