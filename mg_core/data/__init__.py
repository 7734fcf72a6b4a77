"""Data sets: readers of folder layouts, and one array cache that all trials of a node share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from mg_core.data.dataset import Data, Split, open_data
    from mg_core.data.readers import DATASETS

__all__ = ["DATASETS", "Data", "Split", "open_data"]
__getattr__ = importing(
    __name__,
    {
        "DATASETS": "mg_core.data.readers",
        **dict.fromkeys(("Data", "Split", "open_data"), "mg_core.data.dataset"),
    },
)
