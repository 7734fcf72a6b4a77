"""One step of guided training (Eq. 1), usable in any training loop.

optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
settings = Guidance("ixg", "input", "energy", localization_weight=1e-3)
losses = guided_step(model, optimizer, batch, settings)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mg_core.attributions import explain, upsample
from mg_core.errors import InputError
from mg_core.losses import localization_loss

Precision = Literal["fp32", "bf16"]
Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class Guidance:
    """How explanations are guided.

    Attributes:
        attribution: registered method whose maps are guided.
        layer: where they are taken: "input", a guidance layer, or any submodule's dotted name.
        loss: registered localization loss.
        localization_weight: λ of Eq. 1.
        reduction: of the losses of a batch's annotated images; "sum", as published, makes λ depend
            on the batch size, "mean" does not.
    """

    attribution: str
    layer: str
    loss: str
    localization_weight: float
    reduction: Reduction = "sum"


@dataclass(frozen=True)
class Batch:
    """Images to learn from, R of B with boxes; all tensors on the model's device.

    Attributes:
        inputs: (B, C, H, W), encoded.
        labels: (B, K), bool or 0/1.
        target_classes: (R,) int64, the explained class of each annotated image.
        masks: (R, H, W) bool, the union of that class's boxes.
        annotated: (R,) int64, which images those are. Indices, since a boolean mask on a GPU
            would make the host wait for it.
    """

    inputs: Tensor
    labels: Tensor
    target_classes: Tensor | None = None
    masks: Tensor | None = None
    annotated: Tensor | None = None


@dataclass(frozen=True)
class StepLosses:
    """The terms of Eq. 1 in one step: scalars, detached, still on the device.

    Attributes:
        loss: what was minimised.
        bce: classification loss, a mean over images and classes.
        localization: localization losses of the annotated images, reduced, before λ; 0 without.
    """

    loss: Tensor
    bce: Tensor
    localization: Tensor


def guided_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    guidance: Guidance | None,
    precision: Precision = "fp32",
) -> StepLosses:
    """Take one optimiser step on L = L_class + λ L_loc (Eq. 1).

    One forward pass serves both losses. Only annotated images are explained; without any, and
    without guidance, this is an ordinary classification step. The host never waits for a GPU.

    Args:
        model: in the mode it is to be trained in.
        optimizer: of the model's parameters.
        batch: images, labels and, for guidance, masks.
        guidance: none trains with the classification loss alone.
        precision: "bf16" runs the forward pass under autocast; maps and losses are float32.

    Raises:
        InputError: unknown attribution, layer or loss, or masks of another size than the inputs.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, losses = guided_loss(model, batch, guidance, precision)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return losses


def guided_loss(
    model: nn.Module, batch: Batch, guidance: Guidance | None, precision: Precision = "fp32"
) -> tuple[Tensor, StepLosses]:
    """Return the loss of Eq. 1 with its graph, and its terms; arguments as for `guided_step`."""
    annotated = batch.annotated
    is_guided = guidance is not None and annotated is not None and len(annotated) > 0
    pairs = [(guidance.attribution, guidance.layer)] if guidance and is_guided else []
    with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=precision == "bf16"):
        explanation = explain(model, batch.inputs, pairs, annotated if is_guided else None)
    logits = explanation.logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    bce = F.binary_cross_entropy_with_logits(logits, batch.labels.to(logits.dtype))
    if not (guidance and is_guided):
        return bce, StepLosses(bce.detach(), bce.detach(), torch.zeros_like(bce))
    if batch.target_classes is None or batch.masks is None:
        raise InputError("a batch with annotated images needs their target_classes and masks")
    (maps,) = explanation.maps(batch.target_classes, create_graph=True)
    per_image = localization_loss(
        guidance.loss, upsample(maps, batch.inputs.shape[-2:]), batch.masks
    )
    localization = per_image.sum() if guidance.reduction == "sum" else per_image.mean()
    loss = bce + guidance.localization_weight * localization
    return loss, StepLosses(loss.detach(), bce.detach(), localization.detach())
