"""The store's rows as pandas frames."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mg_core.columns import COLUMNS, KEY
from mg_core.errors import InputError
from mg_core.redaction import harmless
from mg_core.store import ResultStore, reading
from mg_core.store.shelf import read_shelf
from mg_core.store.tables import METRICS, TEST

StoreLike = str | os.PathLike[str] | ResultStore

FORMULA = re.compile(r"(?![+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$)[=+\-@\t\n＝＋－＠]", re.IGNORECASE)
"""Beginning of a text that a spreadsheet runs as a formula; numbers are none."""

WITHOUT_NULLS = [
    name for name, c in COLUMNS.items() if c.type in ("int32", "int64") and c.role != "metric"
]


def open_store(store: StoreLike) -> ResultStore:
    """Open a store that holds a sweep.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if isinstance(store, ResultStore):
        return store
    opened = ResultStore(os.fspath(store))
    with reading(opened):
        opened.spec()
    return opened


def load(
    store: StoreLike | Sequence[StoreLike],
    columns: Sequence[str] | None = None,
    shelved: bool = False,
) -> pd.DataFrame:
    """Return every committed row of a store, one per (trial, epoch, attribution, layer).

    Rows of a running sweep are those of the epochs committed so far. `analysis.columns` says
    what each column holds; metrics are fractions. Text columns have pandas' text dtype with missing
    values, `n_*` counts are `Int64`, what every row has (`seed`, `epoch`, …) is `int64` or `bool`,
    all other numbers are `float64` with NaN, and `val_iou_by_threshold` holds arrays.

    Args:
        store: a folder, a URI that pyarrow.fs resolves, or a `ResultStore`; several of them give
            one frame, in which a trial that two of them hold stands once.
        columns: those wanted; all of them where none are named.
        shelved: with the rows of trials that left their sweep.

    Raises:
        InputError: the folder is not a result store, cannot be read, or has no such column.

    Example:
        >>> import analysis
        >>> frame = analysis.load("runs/demo", columns=["kind", "epoch", "val_f1"])
        >>> sorted(frame["kind"].unique())
        ['baseline', 'guided']
    """
    return _read_all(store, columns, METRICS, ResultStore.rows, shelved)


def columns() -> pd.DataFrame:
    """Return what every column of `load` and of the test rows holds, one row a column.

    Returns:
        By the column's name, its `type`, `role`, `description`, what the values of a list are
        `per`, whether it is a share, and which values are `better`.

    Example:
        >>> import analysis
        >>> analysis.columns().loc["val_epg", "description"]
        'validation: mean energy pointing game over (image, ground-truth class) pairs'
    """
    names = ["type", "role", "description", "per", "is_share", "better"]
    values = {name: [getattr(column, field) for field in names] for name, column in COLUMNS.items()}
    return pd.DataFrame.from_dict(values, orient="index", columns=names)


def load_tests(
    store: StoreLike | Sequence[StoreLike], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return every test row, to be joined with those of `load` on `KEY`.

    Baselines have one without attribution and layer: their classification.

    Raises:
        InputError: the folder is not a result store, cannot be read, or has no such column.
    """
    return _read_all(store, columns, TEST, ResultStore.test_rows)


def without_repeats(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put the rows of several stores together, each (trial, epoch, attribution, layer) once.

    A trial's id stands for everything that decides its results, so a trial that two stores hold
    is one trial; the rows of the first store are taken.
    """
    if len(frames) == 1:
        return frames[0]
    # Pandas would let the dtypes of an empty frame decide.
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    together = pd.concat(filled, ignore_index=True)
    return together.drop_duplicates(KEY, ignore_index=True)


def without_trials(frame: pd.DataFrame, trial_ids: Collection[str]) -> pd.DataFrame:
    """Return the rows of all other trials."""
    if not trial_ids:
        return frame
    return frame[~frame["trial_id"].isin(list(trial_ids))].reset_index(drop=True)


def _read_all(
    store: StoreLike | Sequence[StoreLike],
    columns: Sequence[str] | None,
    schema: pa.Schema,
    read: Callable[[ResultStore, Sequence[str] | None], pa.Table],
    shelved: bool = False,
) -> pd.DataFrame:
    for name in columns or ():
        if name not in schema.names:
            raise InputError(f"unknown column {name!r}; choose from {', '.join(schema.names)}")
    stores = [store] if isinstance(store, str | os.PathLike | ResultStore) else list(store)
    wanted = None if columns is None else list(dict.fromkeys([*columns, *KEY]))
    frames = []
    for opened in map(open_store, stores):
        with reading(opened):
            # A test row that two processes computed at once stands there twice.
            frame = to_frame(read(opened, wanted)).drop_duplicates(KEY, ignore_index=True)
            frames.append(frame if shelved else without_trials(frame, read_shelf(opened)))
    found = without_repeats(frames)
    return found if columns is None else found[list(columns)]


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table of the store to the documented dtypes."""
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame.astype({name: "int64" for name in WITHOUT_NULLS if name in frame})


def finite(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return rows with infinite values of metrics as missing ones, and the number of these."""
    columns = (COLUMNS[str(name)] for name in frame if name in COLUMNS)
    names = [c.name for c in columns if c.role == "metric" and c.type == "float64"]
    is_infinite = np.isinf(frame[names].to_numpy(dtype=np.float64, na_value=np.nan))
    if not is_infinite.any():
        return frame, 0
    return frame.assign(**frame[names].mask(is_infinite)), int(is_infinite.sum())


def as_csv(frame: pd.DataFrame) -> str:
    """Write a frame as CSV that a spreadsheet shows and does not run.

    A text that begins as a formula does gets an apostrophe in front, and control characters
    become visible signs; numbers are written as they are.
    """
    texts = {
        str(name): pd.Series([_inert(value) for value in frame[name]], frame.index, dtype=object)
        for name in frame
        if not pd.api.types.is_numeric_dtype(frame[name].dtype)
    }
    return str(frame.assign(**texts).rename(columns=_inert).to_csv(index=False))


def _inert(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = harmless(value)
    return f"'{text}" if FORMULA.match(text) else text


def with_tests(rows: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Add the test columns to rows; those not tested get missing values."""
    return rows.merge(tests, how="left", on=KEY, validate="many_to_one")


def with_percent(
    frame: pd.DataFrame, rows: pd.DataFrame, split: str, metrics: Sequence[str]
) -> pd.DataFrame:
    """Return a frame with metrics of `rows` on one split, in percent, by their names without it.

    One that is not measured on the split is missing. Both frames have the same index.
    """
    missing = pd.Series(np.nan, index=rows.index)
    values = {name: 100 * rows.get(f"{split}_{name}", missing).astype(float) for name in metrics}
    # All at once: one by one, so many columns are slow, and pandas warns of it.
    return pd.concat([frame, pd.DataFrame(values, index=rows.index)], axis=1)
