"""Pareto dominance, for the choice of kept epochs, progress displays and analysis."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray


def non_dominated(points: ArrayLike, tolerance: float = 0.0) -> NDArray[np.bool_]:
    """Return which points no other point dominates; larger is better in every column.

    A point dominates another if it is at least as good in every objective and better in one. Equal
    points do not dominate each other. A point with a NaN is never non-dominated and dominates no
    point; infinities are ordinary values. With a tolerance, the points that are non-dominated in
    raw values are compared again after `round(x / tolerance) * tolerance`, so every front is a
    subset of the one at tolerance 0.

    Args:
        points: (N, objectives) numbers.
        tolerance: width of the bins, at least 0, in the units of the objectives.

    Returns:
        (N,) bool, true for non-dominated points.

    Raises:
        ValueError: the points are not two-dimensional, or the tolerance is negative or not finite.

    Example:
        >>> import analysis
        >>> analysis.non_dominated([[0.8, 0.5], [0.7, 0.6], [0.6, 0.6]]).tolist()
        [True, True, False]
    """
    table = np.asarray(points, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"points must be a table (N, objectives), not of shape {table.shape}")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a number of at least 0, not {tolerance}")
    valid = ~np.isnan(table).any(axis=1)
    front = np.zeros(len(table), dtype=np.bool_)
    front[valid] = _strict(table[valid])
    if tolerance > 0:
        front[front] = _strict(np.round(table[front] / tolerance))
    return front


def _strict(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the non-dominated rows of a table without NaN."""
    if not len(table) or not table.shape[1]:
        return np.ones(len(table), dtype=bool)
    if table.shape[1] == 1:
        best: NDArray[np.bool_] = table[:, 0] == table[:, 0].max()
        return best
    # `keep_weakly` keeps equal rows, which do not dominate each other.
    mask = moocore.is_nondominated(table, maximise=True, keep_weakly=True)
    return np.asarray(mask, dtype=np.bool_)
