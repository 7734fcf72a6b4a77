"""One step of guided training (Eq. 1), usable in any training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mg_core.attributions import Explanation, explain, upsample
from mg_core.config import Precision
from mg_core.errors import InputError
from mg_core.guidance.precision import AUTOCAST, kernels
from mg_core.losses import NEEDS_ONE_LABEL, Evidence, classification_loss, loss_of

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class Guidance:
    """How explanations are guided.

    Attributes:
        attribution: registered method whose maps are guided.
        layer: layer of the maps: "input", a guidance layer, or any submodule's dotted name.
        loss: registered localization loss.
        localization_weight: λ of Eq. 1.
        reduction: how the losses of a batch's annotated images are combined. "sum", as published,
            makes λ depend on the batch size; "mean" does not.
    """

    attribution: str
    layer: str
    loss: str
    localization_weight: float
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            allowed = ", ".join(get_args(Reduction))
            raise InputError(f"unknown reduction {self.reduction!r}; choose from {allowed}")
        if not 0 <= self.localization_weight < math.inf:
            raise InputError(
                f"a localization weight is a number of at least 0, not {self.localization_weight}"
            )


@dataclass(frozen=True)
class Batch:
    """B training images, R of them annotated with boxes; all tensors are on the model's device.

    Attributes:
        inputs: (B, C, H, W), encoded.
        labels: (B, K), bool or 0/1.
        target_classes: (R,) int64, the explained class of each annotated image.
        masks: (R, H, W) bool, the union of the boxes of that class.
        annotated: (R,) int64, indices of the annotated images; a boolean mask on a GPU would make
            the host wait.
    """

    inputs: Tensor
    labels: Tensor
    target_classes: Tensor | None = None
    masks: Tensor | None = None
    annotated: Tensor | None = None


@dataclass(frozen=True)
class StepLosses:
    """The terms of Eq. 1 in one step: detached scalars on the model's device.

    Attributes:
        loss: the minimised loss.
        bce: classification loss: binary cross-entropy, unless another was chosen.
        localization: reduced localization loss before λ; 0 without annotated images.
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

    One forward pass serves both losses, and only annotated images are explained. Without guidance
    or annotated images this is an ordinary classification step. The host never waits for a GPU.

    Args:
        model: network in the mode in which it is trained, usually `train()`.
        optimizer: optimiser of the model's parameters.
        batch: images and labels; for guidance also classes and masks of annotated images.
        guidance: settings of the guidance; none uses the classification loss alone.
        precision: "fp32" is single precision on a GPU too; "tf32" lets a GPU round operands to
            TensorFloat-32; "bf16" runs the forward pass under autocast, maps and losses are
            float32.

    Returns:
        The terms of the loss.

    Raises:
        InputError: unknown attribution, layer or loss, masks that are missing or have another
            size than the inputs, a layer whose output is no map, or fp16, whose gradients need a
            scaled loss.

    Example:
        >>> import torch, mg_core
        >>> model = mg_core.build_model("vanilla_tiny", num_classes=4).train()
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        >>> images = torch.rand(8, 3, 32, 32)
        >>> masks = mg_core.boxes_to_masks([[[4, 4, 20, 28]]] * 8, size=32)
        >>> batch = mg_core.Batch(
        ...     mg_core.encode(model, images),
        ...     labels=torch.eye(4).repeat(2, 1),
        ...     target_classes=torch.arange(4).repeat(2),
        ...     masks=masks,
        ...     annotated=torch.arange(8),
        ... )
        >>> guidance = mg_core.Guidance("ixg", "input", "energy", localization_weight=5e-4)
        >>> losses = mg_core.guided_step(model, optimizer, batch, guidance)
        >>> bool(losses.loss > losses.bce)
        True
    """
    if precision == "fp16":
        raise InputError("fp16 needs a scaled loss: scale guided_loss by torch.amp.GradScaler")
    optimizer.zero_grad(set_to_none=True)
    with kernels(precision):
        loss, losses = guided_loss(model, batch, guidance, precision)
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return losses


def guided_loss(
    model: nn.Module,
    batch: Batch,
    guidance: Guidance | None,
    precision: Precision = "fp32",
    classification: str = "bce",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, StepLosses]:
    """Return the loss of Eq. 1 with its graph, and its terms; arguments as for `guided_step`.

    Gradients of several batches can be accumulated before an optimiser step, as in the example.
    With precision "fp16", scale the loss by `torch.amp.GradScaler` before its backward pass.

    Args:
        model: as for `guided_step`.
        batch: as for `guided_step`.
        guidance: as for `guided_step`.
        precision: "fp32", "tf32", "bf16" or "fp16". The first two differ on a GPU, and only where
            forward and backward passes are in the context `mg_core.guidance.kernels(precision)`.
        classification: registered classification loss, L_class.
        label_smoothing: share of each label that is spread over the classes.

    Example:
        >>> import torch, mg_core
        >>> model = mg_core.build_model("vanilla_tiny", num_classes=4).train()
        >>> for _ in range(2):
        ...     images = mg_core.encode(model, torch.rand(4, 3, 32, 32))
        ...     masks = mg_core.boxes_to_masks([[[4, 4, 20, 28]]] * 4, size=32)
        ...     batch = mg_core.Batch(
        ...         images, torch.eye(4), torch.arange(4), masks, annotated=torch.arange(4)
        ...     )
        ...     guidance = mg_core.Guidance("gradcam", "final", "l1", localization_weight=1e-3)
        ...     loss, terms = mg_core.guided_loss(model, batch, guidance)
        ...     (loss / 2).backward()
        >>> bool(model.conv1.weight.grad.abs().sum() > 0)
        True
    """
    if precision not in get_args(Precision):
        allowed = ", ".join(get_args(Precision))
        raise InputError(f"unknown precision {precision!r}; choose from {allowed}")
    annotated = batch.annotated
    is_guided = guidance is not None and annotated is not None and len(annotated) > 0
    pairs = [(guidance.attribution, guidance.layer)] if guidance and is_guided else []
    dtype = AUTOCAST.get(precision)
    with torch.autocast(batch.inputs.device.type, dtype, enabled=dtype is not None):
        explanation = explain(model, batch.inputs, pairs, annotated if is_guided else None)
    logits = _at_least_single(explanation.logits)
    bce = classification_loss(classification, logits, batch.labels, label_smoothing)
    if not (guidance and is_guided):
        return bce, StepLosses(bce.detach(), bce.detach(), torch.zeros_like(bce))
    evidence = evidence_of(explanation, guidance.layer, batch, classification)
    per_image = loss_of(guidance.loss, evidence)
    localization = per_image.sum() if guidance.reduction == "sum" else per_image.mean()
    loss = bce + guidance.localization_weight * localization
    return loss, StepLosses(loss.detach(), bce.detach(), localization.detach())


def evidence_of(
    explanation: Explanation, layer: str, batch: Batch, classification: str = "bce"
) -> Evidence:
    """Return what a localization loss may ask of a batch that was explained.

    Args:
        explanation: of one (attribution, layer) on the annotated images.
        layer: that layer.
        batch: with annotated images, their classes and their masks.
        classification: registered classification loss.

    Raises:
        InputError: the batch lacks classes or masks, or masks have another size than the inputs.
    """
    rows, classes, masks = batch.annotated, batch.target_classes, batch.masks
    if rows is None or classes is None or masks is None:
        raise InputError("a batch with annotated images needs their target_classes and masks")
    wanted = (len(classes), *batch.inputs.shape[-2:])
    if masks.shape != wanted:
        raise InputError(f"masks must have shape {wanted}, not {tuple(masks.shape)}")
    logits = _at_least_single(explanation.logits)[rows]

    def enlarged(maps: Tensor) -> Tensor:
        return upsample(maps, batch.inputs.shape[-2:])

    return Evidence(
        masks=masks.bool(),
        target_classes=classes,
        logits=logits,
        labels=batch.labels[rows].to(logits.dtype),
        is_single_label=classification in NEEDS_ONE_LABEL,
        maps_of=lambda classes: enlarged(explanation.maps(classes, create_graph=True)[0]),
        gradients_of=lambda score: explanation.gradients(score.sum(), layer),
        upsample=enlarged,
    )


def _at_least_single(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
