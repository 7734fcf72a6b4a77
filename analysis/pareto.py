"""Pareto fronts, one per configuration, seed and evaluated (attribution, layer)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mg_core.columns import CONFIGURATION, PAIR, RUN
from mg_core.errors import InputError
from mg_core.pareto import non_dominated

OBJECTIVES = ("f1", "epg", "iou")
"""What fronts are taken over unless the sweep or the user names others; larger is better."""


def is_on_front(
    frame: pd.DataFrame, objectives: Sequence[str] = OBJECTIVES, tolerance: float = 0.0
) -> NDArray[np.bool_]:
    """Mark the rows of a frame that are on the validation front they compete for, (rows,).

    A front is taken over λ × epochs ≥ 1 of one configuration, seed and evaluated (attribution,
    layer). Epoch 0 is the reference and never a candidate; a row with a NaN objective never
    enters. See `mg_core.pareto.non_dominated` for ties and the tolerance. `objectives` are
    metrics without the split in front.

    Raises:
        InputError: the frame has no such objective.
    """
    if not objectives:
        raise InputError("a front needs at least one objective")
    missing = [name for name in objectives if f"val_{name}" not in frame]
    if missing:
        columns = [str(name) for name in frame if str(name).startswith("val_")]
        known = ", ".join(name.removeprefix("val_") for name in columns)
        raise InputError(f"unknown objective {missing[0]!r}; choose from {known}")
    names = [f"val_{name}" for name in objectives]
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
    """Number the fronts that rows compete for, (rows,), from 0 in order of appearance.

    A baseline's rows, and epoch 0 of a guided trial, never compete and have -1.
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
    groups = frame.groupby(list(columns), dropna=False, sort=False)
    return groups.ngroup().to_numpy().astype(np.int64)
