"""Which checkpoints are left to test, grouped so that each is loaded once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.heatmaps import task_of
from analysis.results import Results
from mg_core.columns import KEY
from mg_core.config import EvaluationPair, TrialConfig
from mg_core.store.layout import heatmaps_name


@dataclass(frozen=True)
class Target:
    """One test row to compute, of classification alone where there is no pair.

    The IoU threshold was chosen on validation for this checkpoint and pair.
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
        digest: SHA-256 of the checkpoint; older versions recorded none.
        config: a trial whose data and model it has.
        owner: trial and epoch that the checkpoint is of.
        targets: rows to compute.
        shown: pairs whose heat maps are missing.
    """

    weights: str
    digest: str | None
    config: TrialConfig
    owner: tuple[str, int]
    targets: tuple[Target, ...]
    shown: tuple[EvaluationPair, ...] = ()

    @property
    def task(self) -> str | None:
        """Which label is judged, for a data set with several."""
        return task_of(self.config)

    @property
    def pairs(self) -> tuple[EvaluationPair, ...]:
        """The distinct pairs of the targets."""
        return tuple(dict.fromkeys(target.pair for target in self.targets if target.pair))


@dataclass(frozen=True)
class Plan:
    """What is left to test: one job per checkpoint, baselines first.

    `without_weights` has (trial_id, epoch) of selected checkpoints whose weights were not kept,
    because the fronts are taken over other objectives than the sweep's, or because the trial went
    on meanwhile and dominates them now.
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


def plan_tests(results: Results, with_heatmaps: bool = True) -> Plan:
    """List the checkpoints of one store that validation selects and that are not tested yet.

    With `with_heatmaps`, a tested checkpoint without heat maps is left to do, too.
    """
    tested = {_key(row) for row in results.tests[KEY].itertuples(index=False, name=None)}
    without: dict[tuple[str, int], None] = {}
    groups: dict[tuple[str, str, str | None], list[Target]] = defaultdict(list)
    for target in [*_baseline_targets(results), *_selected_targets(results)]:
        weights = _weights_key(results, target)
        if weights is not None:
            config = results.trials[target.trial_id]
            groups[weights, config.data.key, task_of(config)].append(target)
        elif target.key not in tested:
            without[target.trial_id, target.epoch] = None
    jobs = []
    for (weights, _, task), targets in groups.items():
        owner = results.heatmaps.checkpoint(targets[0].trial_id, targets[0].epoch)
        pairs = dict.fromkeys(target.pair for target in targets if target.pair)
        names = {pair: heatmaps_name(pair, task) for pair in pairs if with_heatmaps}
        shown = [pair for pair, name in names.items() if (*owner, name) not in results.heatmap_keys]
        left = [target for target in targets if target.key not in tested]
        if left or shown:
            config = results.trials[targets[-1].trial_id]
            digest = results.progress[owner[0]].digests.get(weights)
            jobs.append(Job(weights, digest, config, owner, tuple(left), tuple(shown)))
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
    columns = [*KEY, "val_iou_threshold"]
    parts = [part[columns] for part in (results.selected, results.elsewhere) if len(part)]
    if not parts:
        return []
    # On its front where it was not guided, too, a checkpoint is chosen twice.
    selected = pd.concat(parts).drop_duplicates(KEY)
    selected = selected.sort_values(["epoch", "trial_id"], kind="stable")
    rows = selected.itertuples(index=False, name=None)
    return [
        Target(trial, epoch, EvaluationPair(attribution=attribution, layer=layer), threshold)
        for trial, epoch, attribution, layer, threshold in rows
    ]


def _weights_key(results: Results, target: Target) -> str | None:
    trial_id, epoch = results.heatmaps.checkpoint(target.trial_id, target.epoch)
    return results.progress[trial_id].checkpoints.get(epoch)


def _key(values: tuple[Any, ...]) -> tuple[str, int, str | None, str | None]:
    trial, epoch, attribution, layer = (None if pd.isna(value) else value for value in values)
    return str(trial), int(epoch or 0), attribution, layer
