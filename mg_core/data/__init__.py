"""Data sets: readers of folder layouts, and one array cache that all trials of a node share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from mg_core.data.boxes import boxes_to_masks
    from mg_core.data.dataset import Data, Split, class_names, data_config, open_data
    from mg_core.data.images import load_image
    from mg_core.data.reader import Reader
    from mg_core.data.readers import DATASETS

__all__ = [
    "DATASETS", "Data", "Reader", "Split", "boxes_to_masks", "class_names", "data_config",
    "load_image", "open_data",
]  # fmt: skip
__getattr__ = importing(
    __name__,
    {
        **dict.fromkeys(__all__, "mg_core.data.dataset"),
        "DATASETS": "mg_core.data.readers",
        "Reader": "mg_core.data.reader",
        "boxes_to_masks": "mg_core.data.boxes",
        "load_image": "mg_core.data.images",
    },
)
