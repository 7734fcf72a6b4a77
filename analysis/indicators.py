"""What fronts are worth: hypervolume, additive epsilon, and attainment over seeds.

Larger is better in every objective; moocore does the counting.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Table = NDArray[np.float64]


def reference_point(points: ArrayLike) -> Table:
    """Return the component-wise minimum of all points that compete in a panel.

    All losses of the panel share it, the baseline included. Against the baseline alone, every
    front that trades F1 for localisation would be worth nothing. `points` are (N, objectives);
    rows with a NaN are left out.

    Raises:
        ValueError: there is no point.
    """
    table = _valid(points)
    if not len(table):
        raise ValueError("a reference point needs at least one point without NaN")
    lowest: Table = table.min(axis=0)
    return lowest


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume between points (N, objectives) and a reference, its worst corner.

    Its unit is the product of the objectives' units. Rows with a NaN, or below the reference
    anywhere, add nothing.
    """
    table = _valid(points)
    if not len(table):
        return 0.0
    return float(moocore.hypervolume(table, ref=np.asarray(reference), maximise=True))


def additive_epsilon(points: ArrayLike, others: ArrayLike) -> float:
    """Return what must be added to `points` for each of `others` to be weakly dominated.

    It is in the objectives' units (Zitzler et al., 2003): at most 0 where `points` (N,
    objectives) already weakly dominate all others, NaN where either is empty.
    """
    table, wanted = _valid(points), _valid(others)
    if not len(table) or not len(wanted):
        return float("nan")
    return float(moocore.epsilon_additive(table, ref=wanted, maximise=True))


def attainment(fronts: Sequence[ArrayLike], share: float = 0.5) -> Table:
    """Return the non-dominated goals (M, objectives) that at least a share of the runs reach.

    `fronts` has the front (N, 2 or 3) of each run, such as one for each seed. A share of 0.5
    gives the median attainment surface (Grunert da Fonseca et al., 2001), 1 what every run
    attains.

    Raises:
        ValueError: the share is out of range, or no run has a point.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of runs is above 0 and at most 1, not {share}")
    tables = [_valid(front) for front in fronts]
    if not any(len(table) for table in tables):
        raise ValueError("attainment needs at least one point")
    if share * len(tables) > sum(len(table) > 0 for table in tables):
        return np.zeros((0, tables[0].shape[1]))
    # A run without points attains nothing, yet counts: the share is of all runs.
    sets = np.concatenate([np.full(len(t), i + 1) for i, t in enumerate(tables)])
    found = [table for table in tables if len(table)]
    n_needed = int(np.ceil(share * len(tables) - 1e-9))
    percentile = 100 * n_needed / len(found)
    # The library minimises.
    surface = moocore.eaf(-np.concatenate(found), sets, percentiles=[percentile])
    return -np.asarray(surface)[:, :-1]


def _valid(points: ArrayLike) -> Table:
    table = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if not table.size:
        return table.reshape(0, table.shape[-1])
    return table[~np.isnan(table).any(axis=1)]
