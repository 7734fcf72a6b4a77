"""Running a trial to its end, whatever that end is."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from mg_core.config import Runtime, TrialConfig
from mg_core.errors import InputError, NodeError
from mg_core.redaction import redacted
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt, SupersededError, own_version
from mg_core.store.files import PATIENCE
from mg_core.training.failures import Failure, FailureKind
from mg_core.training.log import TAIL_LINES, TrialLog

if TYPE_CHECKING:
    from mg_core.training.trial import Report, Trial

State = Literal["running", "complete", "failed", "superseded"]


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
        kind: of the failure.
        signature: equal for failures that are the same one.
    """

    trial_id: str
    state: State
    epoch: int = -1
    front: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None
    kind: FailureKind | None = None
    signature: str = ""


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
    log: TrialLog | None = None
    try:
        trial_class = _trial_class()
        store = ResultStore(runtime.store, PATIENCE)
        check_node(store, runtime)
        attempt = Attempt(store, config, runtime.objectives, runtime.run)
        log = TrialLog(partial(attempt.store.put_log, config.trial_id, attempt.key))
        log.write(f"trial {config.trial_id}, {config.label}, attempt {attempt.key}")
        log.start()
        trial = trial_class(config, runtime, attempt, report)
        while not trial.is_complete:
            progress = trial.step()
            log.write(_epoch_line(attempt))
            if not progress.is_complete:
                yield _outcome(config, attempt, "running")
    except SupersededError:
        outcome = _end(config, attempt, log, "superseded")
    except (GeneratorExit, KeyboardInterrupt):
        _end(config, attempt, log, "interrupted")
        raise
    except Exception as error:
        failure = Failure.of(error, log.tail() if log else ())
        outcome = _end(config, attempt, log, "failed", failure)
    else:
        outcome = _end(config, attempt, log, "complete")
    yield outcome


def _trial_class() -> type[Trial]:
    """Import what trains: a driver, which runs no trial, does without PyTorch.

    Raises:
        NodeError: PyTorch does not work here.
    """
    try:
        from mg_core.training.trial import Trial
    except (ImportError, OSError) as error:
        raise NodeError(f"node {socket.gethostname()}: PyTorch fails to load: {error}") from error
    return Trial


def check_node(store: ResultStore, runtime: Runtime) -> None:
    """Refuse to run on a node that is not in order, before anything is written there.

    Raises:
        NodeError: it has another version of this package than the driver, or the store's folder
            is not shared with it or not to be written there.
    """
    here = own_version()
    if not runtime.version:
        return
    if here != runtime.version:
        raise NodeError(
            f"node {socket.gethostname()} has version {here or 'unknown'} of the package, the "
            f"driver has {runtime.version}; install the same one on every node"
        )
    if store.spec_text() is None:
        raise NodeError(
            f"node {socket.gethostname()} does not see the store {store.uri!r} that the driver "
            "sees; put it on a folder that all nodes share, or on object storage"
        )
    _check_writable(store.uri)


@cache
def _check_writable(uri: str) -> None:
    """Try it once in a process: what goes wrong later is said of the trial that it happens to."""
    try:
        ResultStore(uri, PATIENCE).files.check_writable()
    except InputError as error:
        raise NodeError(f"node {socket.gethostname()}: {error}") from None


def record_lost(
    config: TrialConfig, runtime: Runtime, error: str, kind: FailureKind = "lost"
) -> Outcome:
    """Record that a trial's process was lost more often than the sweep allows.

    A new attempt records it, which also fences off a process that only seems dead; what it says
    is about the one that was lost.
    """
    attempt: Attempt | None = None
    where: dict[str, Any] = {}
    log: list[str] = []
    with contextlib.suppress(OSError):
        store = ResultStore(runtime.store, PATIENCE)
        before = store.attempts({config.trial_id}).get(config.trial_id, {})
        where = {name: before[name] for name in ("host", "pid") if name in before}
        log = [line for text in store.logs(config.trial_id).values() for line in text.splitlines()]
        attempt = Attempt(store, config, runtime.objectives, runtime.run)
    failure = Failure(kind, redacted(error), log=tuple(log[-TAIL_LINES:]))
    return _end(config, attempt, None, "failed", failure, **where)


def record_interrupted(config: TrialConfig, runtime: Runtime) -> None:
    """Record that the driver stopped a trial whose process could not say so itself.

    A trial that another driver has begun since is that one's, and is not fenced off.
    """
    with contextlib.suppress(OSError, InputError):
        # Without patience: somebody waits for the driver to stop, a batch system with little time.
        store = ResultStore(runtime.store)
        record = store.attempts([config.trial_id]).get(config.trial_id, {})
        if record.get("run") == runtime.run:
            Attempt(store, config, runtime.objectives, runtime.run).end("interrupted")


def _end(
    config: TrialConfig,
    attempt: Attempt | None,
    log: TrialLog | None,
    how: Literal["complete", "failed", "superseded", "interrupted"],
    failure: Failure | None = None,
    **details: Any,
) -> Outcome:
    if log is not None:
        log.write(f"{how}: {failure.error}" if failure else how)
        if failure and failure.traceback:
            log.write(failure.traceback)
        log.stop()
    # A store that fails the trial may refuse the record of it too; the outcome still says so.
    if attempt is not None:
        with contextlib.suppress(OSError):
            attempt.end(how, **(failure.record() if failure else {}), **details)
    return _outcome(config, attempt, "running" if how == "interrupted" else how, failure)


def _outcome(
    config: TrialConfig, attempt: Attempt | None, state: State, failure: Failure | None = None
) -> Outcome:
    outcome = Outcome(config.trial_id, state)
    progress = attempt.progress if attempt else None
    values: dict[str, Any] = {}
    if progress is not None:
        values |= {name: getattr(progress, name) for name in ("epoch", "front", "seconds")}
    if failure is not None:
        values["error"] = f"{failure.kind}: {failure.error}"
        values |= {name: getattr(failure, name) for name in ("kind", "signature")}
    return replace(outcome, **values)


def _epoch_line(attempt: Attempt) -> str:
    """Say in one line what an epoch gave; the table has all of it."""
    (row,) = attempt.rows.slice(attempt.rows.num_rows - 1).to_pylist()
    values = [
        f"{name.replace('_', ' ')} {row[name]:.4g}"
        for name in ("train_loss", "val_f1", "seconds_train", "seconds_val")
        if row[name] is not None
    ]
    return f"epoch {row['epoch']}/{row['epochs']}: {', '.join(values)}"
