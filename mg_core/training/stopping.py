"""When training stops before its last epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mg_core.columns import BY_METRIC
from mg_core.config import TrialConfig


def has_stalled(values: Sequence[float], patience: int, min_change: float = 0.0) -> bool:
    """Tell whether the last `patience` values are no better than the best one before them.

    A value is better if it is higher by more than `min_change`; NaN is never better.

    Example:
        >>> has_stalled([0.1, 0.3, 0.2, 0.3], patience=2)
        True
        >>> has_stalled([0.1, 0.3, 0.2, 0.4], patience=2)
        False
    """
    best, waited = -math.inf, 0
    for value in values:
        is_better = value > best + min_change if math.isfinite(best) else value > best
        best, waited = (value, 0) if is_better else (best, waited + 1)
    return waited >= patience


def is_stopped(config: TrialConfig, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether a trial stops after the rows of its epochs so far.

    Epoch 0, which evaluates the baseline, does not count. A metric of maps is that of the guided
    attribution and layer, or of the first evaluated pair where none is guided.
    """
    stop = config.early_stop
    if stop is None:
        return False
    metric = BY_METRIC[stop.metric]
    sign = 1.0 if metric.better == "higher" else -1.0
    values: dict[int, float] = {}
    own = _own_pair(config)
    for row in rows:
        is_own = own is None or (row["attribution"], row["layer"]) == own
        if row["epoch"] >= 1 and is_own:
            value = row[f"val_{stop.metric}"]
            values[row["epoch"]] = math.nan if value is None else sign * value
    ordered = [values[epoch] for epoch in sorted(values)]
    return has_stalled(ordered, stop.patience, stop.min_change)


def _own_pair(config: TrialConfig) -> tuple[str, str] | None:
    g = config.guidance
    if g is None:
        return None
    pair = config.evaluate[0] if g.is_none and config.evaluate else g
    return pair.attribution, pair.layer
