"""Data sets: readers of folder layouts, and one array cache that all trials of a node share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mg_core.data.dataset import Data, Split, open_data
    from mg_core.data.readers import DATASETS

__all__ = ["DATASETS", "Data", "Split", "open_data"]


def __getattr__(name: str) -> Any:
    # Late, so that a command line can name the data sets without waiting for numpy and PyTorch.
    if name == "DATASETS":
        from mg_core.data.readers import DATASETS

        return DATASETS
    if name in __all__:
        from mg_core.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
