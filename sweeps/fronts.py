"""The current fronts, from the footers of the metrics files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mg_core.columns import COLUMNS, CONFIGURATION, RUN, configured
from mg_core.config import TrialConfig
from mg_core.pareto import non_dominated
from mg_core.store.progress import Progress


@dataclass(frozen=True)
class Front:
    """The non-dominated epochs of one configuration so far, on validation.

    Attributes:
        configuration: label of its trials, which differ in λ only; with the beginning of their
            baseline's id where others that start from another one have the same label.
        judged: evaluated attribution and layer.
        n_trials: number of its trials that have committed an epoch.
        points: trial, epoch and objective values, best in the second objective first.
    """

    configuration: str
    judged: str
    n_trials: int
    points: list[dict[str, Any]]


def current_fronts(
    trials: Mapping[str, TrialConfig], progress: Mapping[str, Progress], objectives: Sequence[str]
) -> list[Front]:
    """Return the front of each configuration and seed, at its guided attribution and layer."""
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for trial_id, done in progress.items():
        config = trials.get(trial_id)
        if config is None or config.guidance is None or config.guidance.is_none:
            continue
        own = (config.guidance.attribution, config.guidance.layer)
        rows = [row for row in done.front if (row["attribution"], row["layer"]) == own]
        shared = tuple(str(configured(config, COLUMNS[name])) for name in [*CONFIGURATION, *RUN])
        groups.setdefault((config.front_label, "@".join(own), shared), {})[trial_id] = rows
    shown = Counter((name, judged) for name, judged, _ in groups)
    found = []
    for (name, judged, _), members in sorted(groups.items()):
        if shown[name, judged] > 1:
            name = f"{name} from {str(trials[min(members)].baseline)[:8]}"
        found.append(Front(name, judged, len(members), best_front(members, objectives)))
    return found


def best_front(
    fronts: Mapping[str, list[dict[str, Any]]], objectives: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the non-dominated epochs of all trials, best in the second objective first."""
    rows = [row for trial, front in fronts.items() for row in of_trial(front, trial)]
    return best_rows(rows, objectives)


def of_trial(front: Sequence[dict[str, Any]], trial_id: str) -> list[dict[str, Any]]:
    """Return the kept epochs of a guided trial with its id, and none of a baseline."""
    return [row | {"trial_id": trial_id} for row in front if row.get("attribution") is not None]


def best_rows(rows: list[dict[str, Any]], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """Return the non-dominated rows, best in the second objective first."""
    if not rows or not objectives:
        return []
    missing = float("nan")
    points = [
        [missing if row[f"val_{name}"] is None else row[f"val_{name}"] for name in objectives]
        for row in rows
    ]
    chosen = [rows[i] for i in np.flatnonzero(non_dominated(points))]
    by = f"val_{objectives[min(1, len(objectives) - 1)]}"
    return sorted(chosen, key=lambda row: -row[by])
