"""How far a sweep is, from its store alone."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from mg_core.config import TrialConfig
from mg_core.store import ResultStore, reading
from mg_core.store.progress import Progress
from sweeps.cost import Costs
from sweeps.fronts import Front, current_fronts
from sweeps.lock import is_held, read_lock

STATES = ("complete", "running", "failed", "waiting")
FAILURE_KEYS = ("kind", "error", "signature", "host", "ended", "images", "traceback", "log")
HOUR = 3600.0


@dataclass
class Status:
    """States of all trials of a store.

    Attributes:
        spec: of the sweep, as its author wrote it.
        trials: configurations by id.
        states: state by id.
        progress: of those that have committed an epoch.
        attempts: how often each trial was begun.
        failures: record of the last attempt of those that failed.
        driver: the lock's record while a driver is at work.
    """

    spec: dict[str, Any]
    trials: dict[str, TrialConfig]
    states: dict[str, str]
    progress: dict[str, Progress]
    attempts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    driver: dict[str, Any] | None = None

    @cached_property
    def costs(self) -> Costs:
        """Expected times."""
        return Costs(self.trials, self.progress)

    @cached_property
    def fronts(self) -> list[Front]:
        """The front of every configuration so far."""
        return current_fronts(self.trials, self.progress, self.spec.get("objectives") or ())

    def count(self, state: str) -> int:
        """Count the trials in a state."""
        return sum(found == state for found in self.states.values())

    def having(self, state: str) -> list[str]:
        """Return the trials in a state."""
        return [trial for trial, found in self.states.items() if found == state]

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs committed, and of all trials together."""
        first = {trial: config.first_epoch for trial, config in self.trials.items()}
        done = sum(p.epoch - first[t] + 1 for t, p in self.progress.items() if t in first)
        return done, sum(config.epochs - first[t] + 1 for t, config in self.trials.items())

    @property
    def seconds_spent(self) -> float:
        """Training and validation time of all committed epochs."""
        return sum(p.seconds for trial, p in self.progress.items() if trial in self.trials)

    @cached_property
    def seconds_left(self) -> float | None:
        """Expected time of the epochs left, one trial after another; none before any epoch.

        Failed trials are not counted: they run only when asked for.
        """
        if not self.costs.is_measured:
            return None
        open_trials = [*self.having("running"), *self.having("waiting")]
        return sum(self.costs.left(trial, self.trials[trial]) for trial in open_trials)

    @property
    def epochs_per_hour(self) -> float | None:
        """Expected throughput of the trials that run now."""
        running = self.having("running")
        if not (running and self.costs.is_measured):
            return None
        return sum(HOUR / self.costs.epoch(self.trials[trial]) for trial in running)

    @property
    def seconds_to_end(self) -> float | None:
        """When all is expected to be done, with as many trials at a time as run now."""
        running = self.having("running")
        if not running or self.seconds_left is None:
            return None
        longest = max(self.costs.left(trial, self.trials[trial]) for trial in running)
        return max(self.seconds_left / len(running), longest)

    @property
    def gpus(self) -> float:
        """GPUs that a trial asks for."""
        return float((self.spec.get("resources") or {}).get("gpu") or 0)

    def failures_by_kind(self) -> Counter[str]:
        """Count the failed trials by kind."""
        return Counter(str(record.get("kind")) for record in self.failures.values())

    def to_json(self) -> dict[str, Any]:
        """Return what `status --json` prints; times are seconds."""
        done, total = self.epochs
        left = self.seconds_left
        return {
            "name": self.spec.get("name"),
            "driver": self.driver,
            "counts": {state: self.count(state) for state in STATES},
            "epochs": {"done": done, "total": total},
            "attempts": sum(self.attempts.values()),
            "epochs_per_hour": self.epochs_per_hour,
            "seconds_to_end": self.seconds_to_end,
            "trial_hours": {"spent": self.seconds_spent / HOUR, "left": _hours(left, 1)},
            "gpu_hours": {
                "spent": self.gpus * self.seconds_spent / HOUR,
                "left": _hours(left, self.gpus),
            },
            "failures": dict(self.failures_by_kind()),
            "fronts": [asdict(front) for front in self.fronts],
            "trials": {trial: self._trial_json(trial) for trial in self.trials},
        }

    def _trial_json(self, trial_id: str) -> dict[str, Any]:
        progress = self.progress.get(trial_id)
        failure = self.failures.get(trial_id, {})
        return {
            "label": self.trials[trial_id].label,
            "state": self.states[trial_id],
            "epoch": progress.epoch if progress else None,
            "epochs": self.trials[trial_id].epochs,
            "attempts": self.attempts[trial_id],
            "seconds": progress.seconds if progress else 0.0,
            "front": progress.front if progress else [],
            "failure": {key: failure.get(key) for key in FAILURE_KEYS} if failure else None,
        }


def _hours(seconds: float | None, share: float) -> float | None:
    return None if seconds is None else share * seconds / HOUR


def read_status(store: ResultStore) -> Status:
    """Read the states of all trials; a trial runs if the driver now at work began its attempt.

    Raises:
        InputError: this is no store.
    """
    with reading(store):
        return _read_status(store)


def _read_status(store: ResultStore) -> Status:
    spec = store.spec()
    holder, since = read_lock(store), time.monotonic()
    trials = store.trials()
    progress = store.progress()
    unfinished = {t for t in trials if t not in progress or not progress[t].is_complete}
    records = store.attempts(unfinished)
    counts = store.attempt_counts()
    # Last: a driver on another host has beaten by now, so that nobody waits to see it.
    driver = holder if holder is not None and is_held(store, holder, since) else None
    states = {t: _state(t in unfinished, records.get(t), driver) for t in trials}
    failures = {t: records[t] for t, state in states.items() if state == "failed"}
    return Status(spec, trials, states, progress, counts, failures, driver)


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
