"""Classification losses: L_class of Eq. 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

ClassificationLoss: TypeAlias = "Callable[[Tensor, Tensor, float], Tensor]"
"""(logits (B, K), at least float32; labels (B, K) 0/1; label smoothing) -> () mean over images."""

CLASSIFICATION_LOSSES: Registry[ClassificationLoss] = Registry("classification loss")

NEEDS_ONE_LABEL = {"cross_entropy"}
"""Losses for which every image must have exactly one label; add your own if it does."""


def judge(name: str) -> str:
    """Return the metric that says which epoch of a network trained with a loss is the best.

    F1 decides at logit 0 for each class. A loss of one label in each image does not train for
    that: adding a number to all logits changes nothing of it.
    """
    return "accuracy" if name in NEEDS_ONE_LABEL else "f1"


def classification_loss(
    name: str, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean loss of a batch.

    Args:
        name: registered loss.
        logits: (B, K); lower precision than float32 becomes float32.
        labels: (B, K) bool or 0/1.
        label_smoothing: ε in [0, 1), the share of each label that is spread over the classes.

    Raises:
        InputError: unknown loss.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    return CLASSIFICATION_LOSSES[name](logits, labels.to(logits.dtype), label_smoothing)


@CLASSIFICATION_LOSSES.register("bce")
def bce(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the binary cross-entropy, a mean over images and classes; y becomes y(1 − ε) + ε/2."""
    import torch.nn.functional as F

    if label_smoothing:
        labels = labels * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, labels)


@CLASSIFICATION_LOSSES.register("cross_entropy")
def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the cross-entropy of the softmax; y becomes y(1 − ε) + ε/K (Szegedy et al., 2016)."""
    import torch.nn.functional as F

    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
