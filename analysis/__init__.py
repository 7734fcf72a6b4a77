"""From a result store to fronts, test results, figures, tables and one report.

`analysis.load(store)` gives every committed row as a pandas frame. Importing this package imports
neither pandas nor torch; its submodules are imported when first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from analysis.frame import StoreLike

SUBMODULES = frozenset(
    {
        *("evaluate", "figures", "findings", "frame", "heatmaps", "indicators", "pareto", "plan"),
        *("published", "report", "results", "selection", "spread", "tables", "volumes"),
    }
)


def load(
    store: StoreLike | Sequence[StoreLike], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return every committed row of a store, one per (trial, epoch, attribution, layer).

    Rows of a running sweep are those of the epochs committed so far. `analysis.frame.COLUMNS`
    says what each column holds. Text columns have pandas' text dtype with missing values, `n_*`
    counts are `Int64`, what every row has (`seed`, `epoch`, …) is `int64` or `bool`, all other
    numbers are `float64` with NaN, and `val_iou_by_threshold` holds arrays.

    Args:
        store: a folder, a URI that pyarrow.fs resolves, or a `ResultStore`; several of them give
            one frame, in which a trial that two of them hold stands once.
        columns: those wanted; all of them where none are named.

    Raises:
        InputError: the store is none, cannot be read, or has no such column.
    """
    from analysis import frame

    return frame.load(store, columns)


def __getattr__(name: str) -> Any:
    if name in SUBMODULES:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
