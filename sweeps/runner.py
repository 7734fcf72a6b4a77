"""What all runners share: the queue of trials, and listeners that hear what happens to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mg_core.config import Runtime, TrialConfig

if TYPE_CHECKING:
    from mg_core.training.execution import Outcome


class Listener:
    """Hears from a runner what happens to trials, in the driver's process; does nothing itself."""

    def started(self, trial_id: str) -> None:
        """Hear that a trial starts."""

    def outcome(self, outcome: Outcome) -> None:
        """Hear that a trial has committed an epoch or ended."""

    def lost(self, trial_id: str, reason: str) -> None:
        """Hear that a trial's process was lost and that the trial starts again."""


class Listeners(Listener):
    """Several listeners as one.

    Args:
        listeners: the listeners, in the order in which they hear.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def started(self, trial_id: str) -> None:
        """Tell all listeners."""
        for listener in self._listeners:
            listener.started(trial_id)

    def outcome(self, outcome: Outcome) -> None:
        """Tell all listeners."""
        for listener in self._listeners:
            listener.outcome(outcome)

    def lost(self, trial_id: str, reason: str) -> None:
        """Tell all listeners."""
        for listener in self._listeners:
            listener.lost(trial_id, reason)


RunTrials = Callable[["Queue", Runtime, Listener], None]
"""A runner that is ready: runs the trials of a queue to their ends."""


@dataclass
class Queue:
    """The trials that are left to start.

    A guided trial may start once its own baseline is complete. It never starts if that baseline
    fails.

    Attributes:
        waiting: trials to start by id, the preferred ones first.
        complete: ids of complete trials, those of earlier runs included.
        running: trials that have started and not ended, by id.
        blocked: ids of guided trials that cannot start because of their baseline.
        stopped: why no more trials start; none while they do.
    """

    waiting: dict[str, TrialConfig]
    complete: set[str]
    running: dict[str, TrialConfig] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    stopped: str | None = None

    @classmethod
    def of(cls, todo: Mapping[str, TrialConfig], complete: set[str]) -> Queue:
        """Return a queue; trials whose baseline is neither complete nor in it are blocked."""
        queue = cls(dict(todo), set(complete))
        queue._block(lambda baseline: baseline not in complete and baseline not in todo)
        return queue

    def next(self) -> TrialConfig | None:
        """Remove and return the first trial that may start now; none if there is none."""
        for trial_id, config in self.waiting.items():
            if config.baseline is None or config.baseline in self.complete:
                self.running[trial_id] = self.waiting.pop(trial_id)
                return config
        return None

    def end(self, trial_id: str, is_complete: bool) -> None:
        """End a trial; unless it is complete, block the guided trials that start from it."""
        self.running.pop(trial_id, None)
        if is_complete:
            self.complete.add(trial_id)
        else:
            self._block(lambda baseline: baseline == trial_id)

    def stop(self, reason: str) -> None:
        """Start no more trials; runners end those that are running."""
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
    """Run the trials of a queue one after another in this process."""
    from mg_core.training.execution import run_trial

    while (config := queue.next()) is not None:
        listener.started(config.trial_id)
        for outcome in run_trial(config, runtime):
            listener.outcome(outcome)
        queue.end(config.trial_id, outcome.state == "complete")


class FailFast(Listener):
    """Stops a queue when going on makes no sense.

    There are three reasons to stop: several trials failed by the same bug or mistake; a node is
    not in order and would fail each trial that it gets; another driver has taken the store.

    Args:
        queue: the queue to stop.
        limit: number of equal failures that stop it; none for no limit.
        successor: returns the other driver that has taken the store, or none.
    """

    def __init__(
        self, queue: Queue, limit: int | None, successor: Callable[[], str | None] = lambda: None
    ) -> None:
        self._queue = queue
        self._limit = limit
        self._successor = successor
        self._seen: Counter[str] = Counter()

    def outcome(self, outcome: Outcome) -> None:
        """Stop the queue if there is a reason to."""
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
