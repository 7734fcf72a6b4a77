"""Running a trial to its end, whatever that end is."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mg_core.attempt import Attempt, SupersededError
from mg_core.config import Runtime, TrialConfig
from mg_core.errors import InputError, NumericalError
from mg_core.store import ResultStore
from mg_core.training.trial import Report, Trial

State = Literal["running", "complete", "failed", "superseded"]
FailureKind = Literal["data", "numerical", "out of memory", "storage", "lost", "bug"]


@dataclass(frozen=True)
class Outcome:
    """Where a trial is after one of its epochs.

    Attributes:
        trial_id: which trial.
        state: `running` while epochs are left.
        epoch: last committed one; -1 before any.
        front: objective values of the epochs kept so far.
        seconds: training and validation time, all attempts together.
        error: why it failed, in one line, after the kind of failure.
    """

    trial_id: str
    state: State
    epoch: int = -1
    front: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None


def run_trial(
    config: TrialConfig, runtime: Runtime, report: Report | None = None
) -> Iterator[Outcome]:
    """Run a trial from its last committed epoch, yielding after each one.

    The last outcome is `complete`, `failed` or `superseded`; what made a trial fail is recorded
    with its traceback in the attempt and never raised, so that other trials go on. Closing the
    iterator early records an interruption.

    Args:
        config: the trial.
        runtime: where it runs.
        report: progress inside an epoch, see `Trial`.
    """
    attempt: Attempt | None = None
    try:
        attempt = Attempt(ResultStore(runtime.store), config, runtime.objectives, runtime.run)
        trial = Trial(config, runtime, attempt, report)
        while not trial.is_complete:
            progress = trial.step()
            if not progress.is_complete:
                yield _outcome(config, attempt, "running")
    except SupersededError:
        outcome = _end(config, attempt, "superseded")
    except (GeneratorExit, KeyboardInterrupt):
        _end(config, attempt, "interrupted")
        raise
    except Exception as error:
        outcome = _failed(config, attempt, error)
    else:
        outcome = _end(config, attempt, "complete")
    yield outcome


def record_lost(config: TrialConfig, runtime: Runtime, error: str) -> Outcome:
    """Record that a trial's process was lost more often than the sweep allows."""
    attempt: Attempt | None = None
    with contextlib.suppress(OSError):
        attempt = Attempt(ResultStore(runtime.store), config, runtime.objectives, runtime.run)
    details = {"kind": "lost", "error": error, "traceback": None}
    return _end(config, attempt, "failed", f"lost: {error}", **details)


def failure_kind(error: BaseException) -> FailureKind:
    """Classify what made a trial fail."""
    if isinstance(error, InputError):
        return "data"
    if isinstance(error, NumericalError):
        return "numerical"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out of memory"
    if isinstance(error, OSError):
        return "storage"
    return "bug"


def _failed(config: TrialConfig, attempt: Attempt | None, error: Exception) -> Outcome:
    kind = failure_kind(error)
    line = " ".join(str(error).split()) or type(error).__name__
    details = {"kind": kind, "error": line, "traceback": traceback.format_exc()}
    return _end(config, attempt, "failed", f"{kind}: {line}", **details)


def _end(
    config: TrialConfig,
    attempt: Attempt | None,
    how: Literal["complete", "failed", "superseded", "interrupted"],
    summary: str | None = None,
    **details: Any,
) -> Outcome:
    # A store that fails the trial may refuse the record of it too; the outcome still says so.
    if attempt is not None:
        with contextlib.suppress(OSError):
            attempt.end(how, **details)
    return _outcome(config, attempt, "running" if how == "interrupted" else how, summary)


def _outcome(
    config: TrialConfig, attempt: Attempt | None, state: State, error: str | None = None
) -> Outcome:
    progress = attempt.progress if attempt else None
    if progress is None:
        return Outcome(config.trial_id, state, error=error)
    return Outcome(config.trial_id, state, progress.epoch, progress.front, progress.seconds, error)
