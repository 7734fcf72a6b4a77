"""The state of every trial, derived from the store's files; nothing else decides it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mg_core.store.progress import Progress
from mg_core.store.result_store import ResultStore

State = Literal["complete", "running", "failed", "waiting"]
STATES: tuple[State, ...] = get_args(State)

FailureKind = Literal[
    "lost", "host-memory", "gpu-memory", "numerical", "data", "node", "storage", "bug"
]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

RETRIED = frozenset({"lost", "storage", "node"})
"""Kinds of failures that are caused by a machine, not by the trial; the next run repeats it."""


def state_after(how: str | None, kind: str | None = None) -> State:
    """Return the state of a trial whose last attempt is over.

    Args:
        how: how the attempt ended, as its record says; none if its process died before.
        kind: kind of the failure, if it failed.
    """
    if how == "complete":
        return "complete"
    return "failed" if how == "failed" and kind not in RETRIED else "waiting"


@dataclass(frozen=True)
class Ledger:
    """The progress of trials, and how the last attempt of each ended.

    Attributes:
        progress: progress of each trial that has committed an epoch.
        records: record of the last attempt of each trial that was begun and is not complete.
        driver: nonce of the driver that is running; none if no driver is known to run.
    """

    progress: Mapping[str, Progress] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    driver: str | None = None

    def state(self, trial_id: str) -> State:
        """Return the state of a trial.

        A trial is running if the driver that is running began its last attempt. A trial whose
        process was lost, or that failed for one of `RETRIED`, waits for the next run.
        """
        if self.is_complete(trial_id):
            return "complete"
        record = self.records.get(trial_id)
        if record is None:
            return "waiting"
        if record["how"] is None and record["run"] == self.driver:
            return "running"
        # The rows alone say what is complete: the metrics of a trial that was may be lost.
        is_failed = state_after(record["how"], record.get("kind")) == "failed"
        return "failed" if is_failed else "waiting"

    def is_complete(self, trial_id: str) -> bool:
        """Say whether every epoch of a trial is committed."""
        return trial_id in self.progress and self.progress[trial_id].is_complete

    def counts(self, trial_ids: Iterable[str]) -> Counter[str]:
        """Count trials by state."""
        return Counter(self.state(trial_id) for trial_id in trial_ids)

    @property
    def failures(self) -> dict[str, Mapping[str, Any]]:
        """Records of last attempts that failed, those that the next run repeats included."""
        return {t: record for t, record in self.records.items() if record["how"] == "failed"}


def read_ledger(store: ResultStore, trial_ids: Iterable[str], driver: str | None = None) -> Ledger:
    """Read the progress and the last attempts of some trials.

    Args:
        store: the store that holds the trials.
        trial_ids: trials to read; others in the store are left out.
        driver: nonce of the driver that is running, if the caller knows it.
    """
    wanted = set(trial_ids)
    progress = {trial: found for trial, found in store.progress().items() if trial in wanted}
    complete = {trial for trial, found in progress.items() if found.is_complete}
    return Ledger(progress, store.attempts(wanted - complete), driver)
