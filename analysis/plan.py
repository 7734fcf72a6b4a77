"""Which checkpoints are left to test, grouped so that each is loaded once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.frame import KEY
from analysis.results import Results
from mg_core.config import EvaluationPair, TrialConfig


@dataclass(frozen=True)
class Target:
    """One test row to compute.

    Attributes:
        trial_id: whose row it is.
        epoch: of that trial.
        pair: attribution and layer; none asks for classification alone.
        iou_threshold: chosen on validation for this checkpoint and pair.
    """

    trial_id: str
    epoch: int
    pair: EvaluationPair | None = None
    iou_threshold: float | None = None

    @property
    def key(self) -> tuple[str, int, str | None, str | None]:
        """Values of the row's key columns."""
        attribution, layer = (self.pair.attribution, self.pair.layer) if self.pair else (None, None)
        return self.trial_id, self.epoch, attribution, layer


@dataclass(frozen=True)
class Job:
    """One checkpoint and all that is asked of it.

    Attributes:
        weights: key of the checkpoint in the store.
        config: a trial whose data and model it has.
        targets: rows to compute.
    """

    weights: str
    config: TrialConfig
    targets: tuple[Target, ...]

    @property
    def pairs(self) -> tuple[EvaluationPair, ...]:
        """The distinct pairs of the targets."""
        return tuple(dict.fromkeys(target.pair for target in self.targets if target.pair))


@dataclass(frozen=True)
class Plan:
    """What is left to test.

    Attributes:
        jobs: one per checkpoint, baselines first.
        without_weights: (trial_id, epoch) of selected checkpoints whose weights were not kept,
            because the fronts are taken over other objectives than the sweep's, or because the
            trial went on meanwhile and dominates them now.
    """

    jobs: tuple[Job, ...]
    without_weights: tuple[tuple[str, int], ...] = ()

    @property
    def unkept(self) -> str | None:
        """One sentence on the checkpoints without weights, none where there are none."""
        if not self.without_weights:
            return None
        shown = ", ".join(f"{trial} epoch {epoch}" for trial, epoch in self.without_weights[:3])
        more = ", …" if len(self.without_weights) > 3 else ""
        return (
            f"the sweep kept no weights of {len(self.without_weights)} selected checkpoints "
            f"({shown}{more})"
        )


def plan_tests(results: Results) -> Plan:
    """List the checkpoints that validation selects and that are not tested yet."""
    tested = {_key(row) for row in results.tests[KEY].itertuples(index=False, name=None)}
    without: dict[tuple[str, int], None] = {}
    asked: dict[tuple[str, str, str | None], list[Target]] = defaultdict(list)
    for target in [*_baseline_targets(results), *_selected_targets(results)]:
        if target.key in tested:
            continue
        weights = _weights_key(results, target)
        if weights is None:
            without[target.trial_id, target.epoch] = None
            continue
        config = results.trials[target.trial_id]
        task = config.guidance.task if config.guidance else None
        asked[weights, config.data.key, task].append(target)
    jobs = (
        Job(weights, results.trials[targets[0].trial_id], tuple(targets))
        for (weights, _, _), targets in asked.items()
    )
    return Plan(tuple(jobs), tuple(without))


def _baseline_targets(results: Results) -> list[Target]:
    # One that still trains may yet find a better epoch.
    return [
        Target(trial_id, epoch)
        for trial_id, progress in results.progress.items()
        if results.trials[trial_id].kind == "baseline" and progress.is_complete
        for epoch in progress.checkpoints
    ]


def _selected_targets(results: Results) -> list[Target]:
    selected = results.selected.sort_values(["epoch", "trial_id"], kind="stable")
    rows = selected[[*KEY, "val_iou_threshold"]].itertuples(index=False, name=None)
    return [
        Target(trial, epoch, EvaluationPair(attribution=attribution, layer=layer), threshold)
        for trial, epoch, attribution, layer, threshold in rows
    ]


def _weights_key(results: Results, target: Target) -> str | None:
    baseline = results.trials[target.trial_id].baseline
    if target.epoch == 0 and baseline is not None:
        found = results.progress.get(baseline)
        return next(iter(found.checkpoints.values()), None) if found else None
    return results.progress[target.trial_id].checkpoints.get(target.epoch)


def _key(values: tuple[Any, ...]) -> tuple[str, int, str | None, str | None]:
    trial, epoch, attribution, layer = (None if pd.isna(value) else value for value in values)
    return str(trial), int(epoch or 0), attribution, layer
