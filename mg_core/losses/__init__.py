"""Losses: what guidance minimises, and the classification loss beside it."""

from __future__ import annotations

# The files register their losses, the study's four first.
from mg_core.losses import gradients, overlap, ranking
from mg_core.losses.classification import (
    CLASSIFICATION_LOSSES,
    NEEDS_ONE_LABEL,
    ClassificationLoss,
    classification_loss,
)
from mg_core.losses.evidence import Evidence, Informed, informed
from mg_core.losses.localization import LOSSES, Loss, localization_loss, loss_of

__all__ = [
    "CLASSIFICATION_LOSSES",
    "LOSSES",
    "NEEDS_ONE_LABEL",
    "ClassificationLoss",
    "Evidence",
    "Informed",
    "Loss",
    "classification_loss",
    "gradients",
    "informed",
    "localization_loss",
    "loss_of",
    "overlap",
    "ranking",
]
