"""What is measured: classification, localization, and on-object energy."""

from mg_core.metrics.classification import classification
from mg_core.metrics.groups import accuracy_by_group, group_accuracy
from mg_core.metrics.localization import (
    IOU_THRESHOLDS,
    epg,
    has_energy,
    iou,
    on_object,
    pointing_game,
)

__all__ = [
    "IOU_THRESHOLDS",
    "accuracy_by_group",
    "classification",
    "epg",
    "group_accuracy",
    "has_energy",
    "iou",
    "on_object",
    "pointing_game",
]
