"""What a sweep is and how far it is: the grid beside what the store holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore, reading
from mg_core.store.progress import Progress
from sweeps.cost import Costs, epochs_left
from sweeps.grid import Grid, expand
from sweeps.spec import SweepSpec, differences

TrialState = Literal["waiting", "running", "complete", "failed"]


@dataclass
class Plan:
    """A grid and the state of each of its trials.

    Attributes:
        spec: of the sweep.
        grid: all of its trials.
        progress: of those that have committed an epoch.
        failures: record of the last attempt of those that failed.
    """

    spec: SweepSpec
    grid: Grid
    progress: dict[str, Progress] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def is_complete(self, trial_id: str) -> bool:
        """Whether every epoch of a trial is committed."""
        return trial_id in self.progress and self.progress[trial_id].is_complete

    def state(self, trial_id: str) -> TrialState:
        """Return a trial's state; which ones run is known to the driver alone."""
        if self.is_complete(trial_id):
            return "complete"
        return "failed" if trial_id in self.failures else "waiting"

    def counts(self) -> Counter[str]:
        """Count the trials by state."""
        return Counter(self.state(trial_id) for trial_id in self.grid.trials)

    def todo(self, retry_failed: bool, only: str | None = None) -> dict[str, TrialConfig]:
        """Return the trials to run: baselines first, then those expected to take longest.

        Long trials at the end would leave the other workers idle.

        Args:
            retry_failed: start failed trials again.
            only: of those, the ones with this kind of failure.
        """
        wanted = {
            trial_id: config
            for trial_id, config in self.grid.trials.items()
            if self.state(trial_id) == "waiting"
            or (retry_failed and self._is_retried(trial_id, only))
        }
        costs = Costs(self.grid.trials, self.progress)

        def order(item: tuple[str, TrialConfig]) -> tuple[bool, float]:
            return item[1].kind == "guided", -costs.left(*item)

        return dict(sorted(wanted.items(), key=order))

    def _is_retried(self, trial_id: str, only: str | None) -> bool:
        record = self.failures.get(trial_id)
        return record is not None and only in {None, record.get("kind")}

    def epochs_left(self, trial_id: str) -> int:
        """Return how many epochs a trial still needs, epoch 0 of a guided one included."""
        return epochs_left(self.grid.trials[trial_id], self.progress.get(trial_id))


RETRIED = frozenset({"lost", "storage", "node"})
"""Kinds of failures that are the machine's and not the trial's: the next run tries again."""


def has_failed(record: dict[str, Any]) -> bool:
    """Whether an attempt's record says that its trial is not to be tried again unasked."""
    return record["how"] == "failed" and record.get("kind") not in RETRIED


def make_plan(spec: SweepSpec, patience: float = 0.0) -> Plan:
    """Compare the grid of a sweep with its store, which need not exist yet.

    Args:
        spec: of the sweep.
        patience: seconds to go on asking object storage that is away.

    Raises:
        InputError: the sweep is wrong, or the store cannot be read.
    """
    return look(spec, expand(spec), patience)


def look(spec: SweepSpec, grid: Grid, patience: float = 0.0) -> Plan:
    """Compare a grid with the store of its sweep; arguments and errors as for `make_plan`."""
    store = ResultStore(spec.store, patience)
    with reading(store):
        progress = {key: p for key, p in store.progress().items() if key in grid.trials}
        open_trials = grid.trials.keys() - {key for key, p in progress.items() if p.is_complete}
        records = store.attempts(open_trials)
    failures = {key: record for key, record in records.items() if has_failed(record)}
    return Plan(spec, grid, progress, failures)


def check_admission(plan: Plan, store: ResultStore, extend: bool) -> None:
    """Refuse a sweep that is not the one its store holds.

    Args:
        plan: of the sweep.
        store: where it goes.
        extend: whether a grid that contains the stored one is welcome.

    Raises:
        InputError: the store holds another sweep; the sentence lists the differences.
    """
    with reading(store):
        if store.spec_text() is None:
            return
        stored, present = store.spec(), store.trial_ids()
    added, lost = plan.grid.trials.keys() - present, present - plan.grid.trials.keys()
    is_other = lost or set(stored.get("objectives") or ()) != set(plan.spec.objectives)
    if is_other or (added and not extend):
        hint = "name another store with --store" if is_other else "--extend adds what is new"
        changes = "; ".join(differences(stored, plan.spec)) or "the code's numerics version"
        raise InputError(f"store {store.uri!r} holds a different sweep: {changes}; {hint}")


def admit(plan: Plan, store: ResultStore) -> None:
    """Write a sweep that was not refused into its store."""
    present = store.trial_ids()
    added = plan.grid.trials.keys() - present
    if store.spec_text() is None:
        # Written by a driver that was killed before it wrote its spec, and so before any trial.
        store.remove_trials(present - plan.grid.trials.keys())
    # Trials first, so that a store with a spec has all of that spec's trials.
    store.put_trials({key: plan.grid.trials[key] for key in sorted(added)})
    text = plan.spec.to_yaml()
    if store.spec_text() != text:
        store.put_spec(text)
