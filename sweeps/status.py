"""How far a sweep is, from its store alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from mg_core.config import TrialConfig
from mg_core.errors import DamagedError
from mg_core.store import ResultStore, reading
from mg_core.store.code import read_accepted, read_parts, versions_of
from mg_core.store.ledger import STATES, Ledger, State
from mg_core.store.shelf import read_shelf
from sweeps.changed_code import described, outdated_here
from sweeps.cost import Costs, epochs_left
from sweeps.fronts import Front, current_fronts
from sweeps.lock import driven_ledger

FAILURE_KEYS = ("kind", "error", "signature", "host", "ended", "images", "traceback", "log")
HOUR = 3600.0


@dataclass
class Status:
    """The states of all trials of a store.

    Attributes:
        spec: content of the stored sweep file.
        trials: configurations by id.
        ledger: progress and last failure of each trial.
        attempts: number of attempts by trial id.
        driver: the lock's record; none unless a driver is at work.
        changed_code: which trials were computed by other versions of the user's code than those
            here; empty if none were, or if that code is not found here.
        n_shelved: trials of the store that are no longer in the sweep, and not in `trials`.
    """

    spec: dict[str, Any]
    trials: dict[str, TrialConfig]
    ledger: Ledger
    attempts: Counter[str] = field(default_factory=Counter)
    driver: dict[str, Any] | None = None
    n_shelved: int = 0
    changed_code: str = ""

    @cached_property
    def states(self) -> dict[str, State]:
        """State of each trial by id."""
        return {trial: self.ledger.state(trial) for trial in self.trials}

    @cached_property
    def costs(self) -> Costs:
        """Expected times per epoch."""
        return Costs(self.trials, self.ledger.progress)

    @cached_property
    def fronts(self) -> list[Front]:
        """The current front of each configuration."""
        return current_fronts(self.trials, self.ledger.progress, self.spec.get("objectives") or ())

    @property
    def zero_maps(self) -> dict[str, Counter[str]]:
        """Number of trials by (attribution, layer) and model whose last maps include zero ones."""
        found: dict[str, Counter[str]] = {}
        for trial, progress in self.ledger.progress.items():
            for pair in progress.zero_maps:
                found.setdefault(pair, Counter())[self.trials[trial].model] += 1
        return found

    def having(self, state: State) -> list[str]:
        """Return the ids of the trials in a state."""
        return [trial for trial, found in self.states.items() if found == state]

    @property
    def epochs(self) -> tuple[int, int]:
        """Number of epochs committed, and of epochs in all trials without those left out."""
        progress = self.ledger.progress
        first = {trial: config.first_epoch for trial, config in self.trials.items()}
        done = sum(p.epoch - first[t] + 1 for t, p in progress.items())
        left = sum(epochs_left(config, progress.get(t)) for t, config in self.trials.items())
        return done, done + left

    @cached_property
    def seconds_left(self) -> float | None:
        """Expected time of the epochs left, one trial after another; none before any epoch.

        Failed trials do not count: they run again only with `mg-sweep retry`.
        """
        if not self.costs.is_measured:
            return None
        open_trials = [*self.having("running"), *self.having("waiting")]
        return sum(self.costs.left(trial, self.trials[trial]) for trial in open_trials)

    @property
    def epochs_per_hour(self) -> float | None:
        """Expected throughput of the running trials; none if no time was measured yet."""
        running = self.having("running")
        if not (running and self.costs.is_measured):
            return None
        return sum(HOUR / self.costs.epoch(self.trials[trial]) for trial in running)

    @property
    def seconds_to_end(self) -> float | None:
        """Expected time to the end of the sweep, with as many trials at a time as run now."""
        running = self.having("running")
        if not running or self.seconds_left is None:
            return None
        longest = max(self.costs.left(trial, self.trials[trial]) for trial in running)
        return max(self.seconds_left / len(running), longest)

    @property
    def gpus(self) -> float:
        """Number of GPUs that a trial reserves."""
        return float((self.spec.get("resources") or {}).get("gpu") or 0)

    def hours(self, per_trial: float = 1.0) -> dict[str, float | None]:
        """Return the hours spent and expected to be left, times the devices of a trial."""
        spent = sum(p.seconds for p in self.ledger.progress.values())
        left = self.seconds_left
        return {
            "spent": per_trial * spent / HOUR,
            "left": None if left is None else per_trial * left / HOUR,
        }

    @cached_property
    def code(self) -> dict[str, Counter[str]]:
        """Number of trials that each version of each of the user's modules computed."""
        return versions_of(self.ledger.progress.values())

    def failures_by_kind(self) -> Counter[str]:
        """Count the trials whose last attempt failed, waiting ones included, by kind."""
        return Counter(str(record.get("kind")) for record in self.ledger.failures.values())

    def to_json(self) -> dict[str, Any]:
        """Return the content of `status --json`; times are in seconds."""
        done, total = self.epochs
        counts = self.ledger.counts(self.trials)
        return {
            "name": self.spec.get("name"),
            "driver": self.driver,
            "counts": {state: counts[state] for state in STATES},
            "epochs": {"done": done, "total": total},
            "shelved": self.n_shelved,
            "code": {module: dict(counts) for module, counts in self.code.items()},
            "changed_code": self.changed_code or None,
            "attempts": self.attempts.total(),
            "epochs_per_hour": self.epochs_per_hour,
            "seconds_to_end": self.seconds_to_end,
            "trial_hours": self.hours(),
            "gpu_hours": self.hours(self.gpus),
            "failures": dict(self.failures_by_kind()),
            "zero_maps": {pair: dict(models) for pair, models in self.zero_maps.items()},
            "fronts": [asdict(front) for front in self.fronts],
            "trials": {trial: self._trial_json(trial) for trial in self.trials},
        }

    def _trial_json(self, trial_id: str) -> dict[str, Any]:
        progress = self.ledger.progress.get(trial_id)
        failure = self.ledger.failures.get(trial_id)
        return {
            "label": self.trials[trial_id].label,
            "state": self.states[trial_id],
            "epoch": progress.epoch if progress else None,
            "epochs": self.trials[trial_id].epochs,
            "is_stopped_early": bool(progress and progress.is_stopped),
            "attempts": self.attempts[trial_id],
            "seconds": progress.seconds if progress else 0.0,
            "zero_maps": progress.zero_maps if progress else {},
            "front": progress.front if progress else [],
            "failure": {key: failure.get(key) for key in FAILURE_KEYS} if failure else None,
        }


def read_status(store: ResultStore) -> Status:
    """Read the states of all trials of a store.

    Raises:
        InputError: this is no store, or it cannot be read.
    """
    with reading(store):
        spec, shelved = store.spec(), read_shelf(store)
        present = store.trial_ids()
        trials = store.trials(present - shelved)
        counts = store.attempt_counts()
        own = Counter({trial: counts[trial] for trial in trials})
        ledger, driver = driven_ledger(store, trials)
        changed = _changed_code(store, ledger)
        return Status(spec, trials, ledger, own, driver, len(present & shelved), changed)


def _changed_code(store: ResultStore, ledger: Ledger) -> str:
    try:
        found = outdated_here(ledger.progress, read_accepted(store))
    except DamagedError:
        return ""  # The next run and `mg-sweep verify` say so.
    complete = [trial for trial in found if ledger.is_complete(trial)]
    return described(found, complete, read_parts(store))
