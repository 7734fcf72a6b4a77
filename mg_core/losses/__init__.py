"""Localization losses: what guidance minimises beside the classification loss."""

from __future__ import annotations

from mg_core.losses.localization import LOSSES, Loss, localization_loss

__all__ = ["LOSSES", "Loss", "localization_loss"]
