"""What every runner does: run the trials of a plan, telling a listener what happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mg_core.config import Runtime, TrialConfig

if TYPE_CHECKING:
    from mg_core.training.execution import Outcome


class Listener(Protocol):
    """Told by a runner what happens, in the driver's process."""

    def started(self, trial_id: str) -> None:
        """Note that a trial is about to run."""

    def outcome(self, outcome: Outcome) -> None:
        """Note where a trial is after an epoch."""

    def lost(self, trial_id: str, reason: str) -> None:
        """Note that a trial's process was lost and that the trial starts again."""


RunTrials = Callable[["Queue", Runtime, Listener], None]
"""Runs the trials of a queue to their ends; what a runner is once it is ready."""


@dataclass
class Queue:
    """The trials that are left, and the order they may start in.

    A guided trial becomes ready when its own baseline is complete, not when all are; if its
    baseline failed it never does.

    Attributes:
        waiting: trials to start by id, in the order of preference.
        complete: ids of complete trials, of earlier runs too.
        running: ids of trials that were started and have not ended.
        blocked: ids of guided trials whose baseline failed.
        stopped: why nothing more is started, none while all goes on.
    """

    waiting: dict[str, TrialConfig]
    complete: set[str]
    running: dict[str, TrialConfig] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    stopped: str | None = None

    @classmethod
    def of(cls, todo: Mapping[str, TrialConfig], complete: set[str]) -> Queue:
        """Make a queue of trials, blocking those whose baseline will not be run either."""
        queue = cls(dict(todo), set(complete))
        queue._block(lambda baseline: baseline not in complete and baseline not in todo)
        return queue

    def next(self) -> TrialConfig | None:
        """Take the first trial that may start now, none if there is none."""
        for trial_id, config in self.waiting.items():
            if config.baseline is None or config.baseline in self.complete:
                self.running[trial_id] = self.waiting.pop(trial_id)
                return config
        return None

    def end(self, trial_id: str, is_complete: bool) -> None:
        """Note that a trial has ended, and block its children unless it is complete."""
        self.running.pop(trial_id, None)
        if is_complete:
            self.complete.add(trial_id)
        else:
            self._block(lambda baseline: baseline == trial_id)

    def stop(self, reason: str) -> None:
        """Start nothing more; runners leave what is running where it is."""
        self.stopped = self.stopped or reason
        self.waiting.clear()

    @property
    def is_done(self) -> bool:
        """Whether no trial is left to start."""
        return not self.waiting

    def _block(self, is_blocking: Callable[[str], bool]) -> None:
        for trial_id, config in list(self.waiting.items()):
            if config.baseline is not None and is_blocking(config.baseline):
                self.blocked.add(trial_id)
                del self.waiting[trial_id]


def run_inline(queue: Queue, runtime: Runtime, listener: Listener) -> None:
    """Run the trials one after another in this process, for debugging and for tests."""
    from mg_core.training.execution import run_trial

    while (config := queue.next()) is not None:
        listener.started(config.trial_id)
        for outcome in run_trial(config, runtime):
            listener.outcome(outcome)
        queue.end(config.trial_id, outcome.state == "complete")


class Listeners:
    """Several listeners, told one after another.

    Args:
        listeners: in the order in which they are told.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def started(self, trial_id: str) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.started(trial_id)

    def outcome(self, outcome: Outcome) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.outcome(outcome)

    def lost(self, trial_id: str, reason: str) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.lost(trial_id, reason)


class FailFast:
    """Stops a queue when going on makes no sense.

    That is when several trials failed by the same bug or mistake, at once when a node cannot
    take part: it would fail every trial that it gets, and when another driver has the store.

    Args:
        queue: to be stopped.
        limit: number of equal failures; none for any number.
        successor: says which driver has taken over the store, none while none has.
    """

    def __init__(
        self, queue: Queue, limit: int | None, successor: Callable[[], str | None] = lambda: None
    ) -> None:
        self._queue = queue
        self._limit = limit
        self._successor = successor
        self._seen: Counter[str] = Counter()

    def started(self, trial_id: str) -> None:
        """Only ends matter."""

    def lost(self, trial_id: str, reason: str) -> None:
        """Only ends matter."""

    def outcome(self, outcome: Outcome) -> None:
        """Count a failure."""
        if other := self._successor():
            self._queue.stop(f"the store is driven by {other} now")
        if outcome.kind == "node":
            self._queue.stop(str(outcome.error))
        if outcome.kind not in {"bug", "data", "storage"}:
            return
        self._seen[outcome.signature] += 1
        if self._seen[outcome.signature] == self._limit:
            self._queue.stop(
                f"{self._limit} trials failed in the same way (fail_fast_on), the last one by "
                f"{outcome.error}"
            )
