"""Pareto fronts, one per configuration, seed and evaluated (attribution, layer)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mg_core.columns import CONFIGURATION, PAIR, RUN
from mg_core.errors import InputError
from mg_core.pareto import non_dominated

__all__ = ["OBJECTIVES", "front_ids", "fronts", "is_on_front", "non_dominated"]

OBJECTIVES = ("f1", "epg", "iou")
"""What fronts are taken over unless the sweep or the user names others; larger is better."""


def fronts(
    frame: pd.DataFrame,
    objectives: Sequence[str] = OBJECTIVES,
    tolerance: float = 0.0,
    split: str = "val",
) -> pd.DataFrame:
    """Return the rows on their fronts, with the number of the front in column `front`.

    A front is taken over λ × epochs ≥ 1 of one configuration, seed and evaluated (attribution,
    layer). Epoch 0 is the reference and never a candidate; a row with a NaN objective never
    enters. See `mg_core.pareto.non_dominated` for ties and the tolerance.

    Args:
        frame: as `load` gives it; other columns than the configuration's, the key's and the
            objectives' may be left out.
        objectives: metrics without the split in front.
        tolerance: width of the bins in which values count as equal, in fractions.
        split: whose metrics.
    """
    ids = front_ids(frame)
    mask = is_on_front(frame, objectives, tolerance, split)
    found: pd.DataFrame = frame[mask].assign(front=ids[mask])
    return found


def is_on_front(
    frame: pd.DataFrame,
    objectives: Sequence[str] = OBJECTIVES,
    tolerance: float = 0.0,
    split: str = "val",
) -> NDArray[np.bool_]:
    """Mark the rows of a frame that are on the front they compete for; see `fronts`.

    Returns:
        (rows,) bool.

    Raises:
        InputError: the frame has no such objective.
    """
    names = [f"{split}_{name}" for name in objectives]
    missing = [name for name in names if name not in frame]
    if missing or not names:
        columns = map(str, frame)
        found = [n.removeprefix(f"{split}_") for n in columns if n.startswith(f"{split}_")]
        raise InputError(
            f"unknown objective {missing[0].removeprefix(split + '_')!r}; "
            f"choose from {', '.join(found)}"
            if missing
            else "a front needs at least one objective"
        )
    points = frame[names].to_numpy(dtype=np.float64, na_value=np.nan)
    ids = front_ids(frame)
    ids[np.isnan(points).any(axis=1)] = -1
    order = np.argsort(ids, kind="stable")
    order = order[np.searchsorted(ids[order], 0) :]
    mask = np.zeros(len(frame), dtype=bool)
    starts = np.flatnonzero(np.diff(ids[order])) + 1
    for members in np.split(order, starts) if len(order) else []:
        mask[members] = non_dominated(points[members], tolerance)
    return mask


def front_ids(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Number the fronts that rows compete for; -1 for rows that never do.

    Those are a baseline's rows, and epoch 0 of a guided trial.

    Returns:
        (rows,) int, counting from 0 in order of appearance.
    """
    if frame.empty:
        return np.zeros(0, dtype=np.int64)
    # A configuration belongs to a trial, so the wide comparison is made once per trial only, and
    # the columns of a million rows are each hashed once.
    number, _ = pd.factorize(frame["trial_id"])
    first = np.unique(number, return_index=True)[1]
    trials = frame.iloc[first]
    configuration = numbered(trials, [*CONFIGURATION, *RUN])
    is_guided = (trials["kind"] == "guided").to_numpy(dtype=bool)
    candidates = is_guided[number] & (frame["epoch"] >= 1).to_numpy(dtype=bool)
    key = configuration[number]
    for name in PAIR:
        codes, names = pd.factorize(frame[name])
        key = key * (len(names) + 1) + codes + 1
    ids = np.full(len(frame), -1, dtype=np.int64)
    ids[candidates] = pd.factorize(key[candidates])[0]
    return ids


def numbered(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct rows of some columns in order of appearance, nulls being values."""
    return frame.groupby(list(columns), dropna=False, sort=False).ngroup().to_numpy(np.int64)
