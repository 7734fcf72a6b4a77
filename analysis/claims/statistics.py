"""The numbers that findings compare with a threshold, from laid-out checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.bootstrap import Interval, Statistic, interval
from analysis.claims.measures import PANEL
from analysis.pareto import numbered

ENOUGH_KEPT = 80.0
"""Percent of a gain that counts as "very similar": with a tenth of the boxes, or coarser ones."""
MOST_KEPT = 50.0
"""Percent of a gain that counts as improved significantly: with 1 % of the boxes, or elsewhere."""


def difference(table: pd.DataFrame, name: str, others: Sequence[str]) -> Interval | None:
    """Compare one column's mean with the largest of the others', over rows that have both."""
    others = [other for other in others if other in table]
    if name not in table or not others:
        return None
    both = table[table[name].notna() & table[others].notna().any(axis=1)]
    compared = both[["configuration", name, *others]]
    return estimate(compared, lambda means: means[:, 0] - np.nanmax(means[:, 1:], axis=1))


def kept_share(table: pd.DataFrame, part: object, whole: object) -> Interval | None:
    """Return the percentage of a gain that is kept, where both were measured."""
    both = having(table, [part, whole]).reindex(columns=["configuration", part, whole])
    return estimate(both, lambda means: 100 * means[:, 0] / means[:, 1])


def first_column(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of a table's only value column."""
    return means[:, 0]


def estimate(table: pd.DataFrame, statistic: Statistic = first_column) -> Interval | None:
    """Return a statistic of the columns' means with its interval, none where nothing is known."""
    values = table.drop(columns="configuration")
    return interval(table[values.notna().any(axis=1)], statistic) if values.shape[1] else None


def having(table: pd.DataFrame, columns: Sequence[object]) -> pd.DataFrame:
    """Keep the rows in which some columns are known, none where there is no such column."""
    if any(name not in table for name in columns):
        return table.iloc[:0][["configuration"]]
    return table[table[list(columns)].notna().all(axis=1)]


def best_of_losses(rows: pd.DataFrame, *metrics: str) -> pd.DataFrame:
    """Return, over all losses at one place, each run's checkpoint that is best on validation."""
    rows = rows.assign(configuration=numbered(rows, PANEL))
    order = [f"val_{name}" for name in metrics]
    ranked = rows.sort_values(order, ascending=False, kind="stable")
    return ranked.drop_duplicates(["configuration", "seed"])


def column_means(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the mean of every value column, one row each."""
    means = table.drop(columns="configuration").mean().astype("float64")
    return pd.DataFrame({name: [str(column) for column in means.index], "mean": means.to_numpy()})
