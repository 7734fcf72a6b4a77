"""How far a sweep is, from its store alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mg_core.config import TrialConfig
from mg_core.progress import Progress
from mg_core.store import ResultStore, reading
from sweeps.lock import is_held, read_lock


@dataclass
class Status:
    """States of all trials of a store.

    Attributes:
        trials: configurations by id.
        states: state by id.
        progress: of those that have committed an epoch.
        failures: record of the last attempt of those that failed.
        driver: the lock's record while a driver is at work.
    """

    trials: dict[str, TrialConfig]
    states: dict[str, str]
    progress: dict[str, Progress]
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    driver: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return {
            "driver": self.driver,
            "counts": {state: self.count(state) for state in STATES},
            "trials": {trial: self._trial_json(trial) for trial in self.trials},
        }

    def count(self, state: str) -> int:
        """Count the trials in a state."""
        return sum(found == state for found in self.states.values())

    def _trial_json(self, trial_id: str) -> dict[str, Any]:
        progress = self.progress.get(trial_id)
        failure = self.failures.get(trial_id, {})
        return {
            "label": self.trials[trial_id].label,
            "state": self.states[trial_id],
            "epoch": progress.epoch if progress else None,
            "epochs": self.trials[trial_id].epochs,
            "seconds": progress.seconds if progress else 0.0,
            "front": progress.front if progress else [],
            "failure": {key: failure.get(key) for key in FAILURE_KEYS} if failure else None,
        }


STATES = ("complete", "running", "failed", "waiting")
FAILURE_KEYS = ("kind", "error", "host", "ended", "traceback")


def read_status(store: ResultStore) -> Status:
    """Read the states of all trials; a trial runs if the driver now at work began its attempt.

    Raises:
        InputError: this is no store.
    """
    with reading(store):
        return _read_status(store)


def _read_status(store: ResultStore) -> Status:
    store.spec()
    holder = read_lock(store)
    driver = holder if holder is not None and is_held(store, holder) else None
    trials = store.trials()
    progress = store.progress()
    unfinished = {t for t in trials if t not in progress or not progress[t].is_complete}
    records = store.attempts(unfinished)
    states = {t: _state(t in unfinished, records.get(t), driver) for t in trials}
    failures = {t: records[t] for t, state in states.items() if state == "failed"}
    return Status(trials, states, progress, failures, driver)


def _state(
    is_unfinished: bool, record: dict[str, Any] | None, driver: dict[str, Any] | None
) -> str:
    if not is_unfinished:
        return "complete"
    if record is None:
        return "waiting"
    if record["how"] == "failed":
        return "failed"
    is_running = record["how"] is None and driver is not None and record["run"] == driver["run"]
    return "running" if is_running else "waiting"
