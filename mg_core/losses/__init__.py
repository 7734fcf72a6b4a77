"""Losses: what guidance minimises, and the classification loss beside it."""

from __future__ import annotations

from mg_core.losses.classification import (
    CLASSIFICATION_LOSSES,
    NEEDS_ONE_LABEL,
    ClassificationLoss,
    classification_loss,
)
from mg_core.losses.localization import LOSSES, Loss, localization_loss

__all__ = [
    "CLASSIFICATION_LOSSES",
    "LOSSES",
    "NEEDS_ONE_LABEL",
    "ClassificationLoss",
    "Loss",
    "classification_loss",
    "localization_loss",
]
