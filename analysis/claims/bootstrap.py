"""Intervals of a statistic over configurations and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DRAWS = 4000
CONFIDENCE = 0.95
LEAST_UNITS = 3
"""Runs (configuration × seed) below which an interval means nothing."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From the means of some columns, (draws, columns), to one number a draw."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap percentile interval of 95 %.

    `n_configurations` were resampled, `n_units` (configuration, seed) were measured.
    """

    value: float
    low: float
    high: float
    n_configurations: int
    n_units: int

    @property
    def is_enough(self) -> bool:
        """Whether there were enough runs for an interval."""
        return self.n_units >= LEAST_UNITS and bool(np.isfinite([self.low, self.high]).all())

    def text(self, unit: str = "") -> str:
        """Describe it for people."""
        many = "s" if self.n_configurations > 1 else ""
        runs = f"{self.n_units} runs of {self.n_configurations} configuration{many}"
        unit = f" {unit}" if unit else ""
        return f"{self.value:.3g}{unit} [{self.low:.3g}, {self.high:.3g}], {runs}"


def interval(units: pd.DataFrame, statistic: Statistic, seed: int = 0) -> Interval | None:
    """Resample configurations, and the seeds within each, and return the statistic's interval.

    Seeds of one configuration are alike, so they are not resampled as if they were independent
    of it (Davison and Hinkley, 1997, section 3.8). Missing values are left out of their column.
    `units` has one row per configuration and seed: column `configuration` names the first, all
    others are values, whose means `statistic` gets. The result is none where there is no row.
    """
    if units.empty:
        return None
    values = units.drop(columns="configuration").to_numpy(dtype=np.float64, na_value=np.nan)
    # The order of rows, such as that of the stores, must not decide what is drawn.
    order = np.lexsort(values.T)
    values = values[order]
    groups, _ = pd.factorize(units["configuration"].to_numpy()[order])
    weights = _weights(groups, np.random.default_rng(seed))
    own = statistic(_means(np.ones((1, len(values))), values))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = statistic(_means(weights, values))
    tail = 100 * (1 - CONFIDENCE) / 2
    is_known = np.isfinite(draws).any()
    low, high = np.nanpercentile(draws, [tail, 100 - tail]) if is_known else (np.nan, np.nan)
    return Interval(float(own[0]), float(low), float(high), int(groups.max()) + 1, len(values))


def _weights(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each row is drawn in each draw, (draws, rows)."""
    n_groups = int(groups.max()) + 1
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=DRAWS)
    weights = np.zeros((DRAWS, len(groups)))
    for group in range(n_groups):
        rows = np.flatnonzero(groups == group)
        shares = np.full(len(rows), 1 / len(rows))
        weights[:, rows] = rng.multinomial(counts[:, group] * len(rows), shares)
    return weights


def _means(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: NDArray[np.float64] = (weights @ np.where(known, values, 0.0)) / (weights @ known)
    return means
