"""Runs a trial until it is complete, fails, is superseded or is interrupted, and records that."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from mg_core.config import Runtime, TrialConfig
from mg_core.errors import DamagedError, InputError, NodeError
from mg_core.losses.classification import judge
from mg_core.redaction import redacted
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt, SupersededError, own_version
from mg_core.store.files import PATIENCE
from mg_core.store.history import adopt
from mg_core.store.integrity import head_of_log
from mg_core.store.ledger import FailureKind
from mg_core.store.progress import Progress, zero_maps_in_words
from mg_core.training.failures import Failure
from mg_core.training.log import TAIL_LINES, TrialLog
from mg_core.training.own_code import code_of

if TYPE_CHECKING:
    from mg_core.training.trial import Report, Trial

State = Literal["running", "complete", "failed", "superseded"]


FROM_PROGRESS = ("epoch", "front", "seconds", "zero_maps")


@dataclass(frozen=True)
class Outcome:
    """The state of a trial after an epoch, or at the end of an attempt.

    Attributes:
        trial_id: id of the trial.
        state: `running` while epochs are left; an interrupted trial is `running` too.
        epoch: last committed epoch; -1 before the first.
        front: objectives of the epochs kept so far.
        seconds: training and validation time of all attempts.
        zero_maps: share of maps that were zero everywhere in the last epoch, by pair.
        error: kind and message of the failure, in one line; none unless it failed.
        kind: kind of the failure; none unless it failed.
        signature: equal for failures with the same cause.
        damage: what was wrong with files of earlier attempts, and what became of it; mostly empty.
    """

    trial_id: str
    state: State
    epoch: int = -1
    front: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    zero_maps: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    kind: FailureKind | None = None
    signature: str = ""
    damage: str = ""


def run_trial(
    config: TrialConfig, runtime: Runtime, report: Report | None = None
) -> Iterator[Outcome]:
    """Run a trial from its last committed epoch, and yield its outcome after each epoch.

    The last outcome is `complete`, `failed` or `superseded`. An exception is recorded in the
    attempt with its traceback and not raised, so that other trials go on. Closing the iterator
    early records an interruption.

    Args:
        config: configuration of the trial.
        runtime: the store, and settings of this run that do not change results.
        report: called with progress inside an epoch, see `Trial`.
    """
    attempt: Attempt | None = None
    log: TrialLog | None = None
    try:
        trial_class = _trial_class()
        store = ResultStore(runtime.store, PATIENCE)
        check_node(store, runtime)
        attempt = Attempt(
            store,
            config,
            runtime.objectives,
            runtime.run,
            keeps_state=runtime.keep_states,
            judge=judge(config.classification_loss),
        )
        log = TrialLog(partial(attempt.store.put_log, config.trial_id, attempt.key))
        log.write(head_of_log(config.trial_id, config.label, attempt.key))
        log.start()
        attempt.code = code_of(config, runtime)
        if shared := adopt(attempt, runtime.lengths):
            log.write(shared)
        trial = trial_class(config, runtime, attempt, report)
        if attempt.damage:
            log.write(attempt.damage)
        while not trial.is_complete:
            progress = trial.step()
            log.write("\n".join(_epoch_lines(attempt, progress)))
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
    """Import `Trial` late: a driver, which runs no trial, needs no PyTorch.

    Raises:
        NodeError: PyTorch cannot be loaded on this node.
    """
    try:
        from mg_core.training.trial import Trial
    except (ImportError, OSError) as error:
        raise NodeError(f"node {socket.gethostname()}: PyTorch fails to load: {error}") from error
    return Trial


def check_node(store: ResultStore, runtime: Runtime) -> None:
    """Check that a trial can run on this node, before anything is written.

    Raises:
        NodeError: the node has another version of this package than the driver, or it does not see
            the driver's store or cannot write to it.
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
    """Check once per process; a later failure to write is a failure of its trial."""
    try:
        ResultStore(uri, PATIENCE).files.check_writable()
    except InputError as error:
        raise NodeError(f"node {socket.gethostname()}: {error}") from None


def record_lost(
    config: TrialConfig, runtime: Runtime, error: str, kind: FailureKind = "lost"
) -> Outcome:
    """Record that a trial's process was lost more often than the sweep allows.

    The record is that of a new attempt, which stops a process that only seems dead. Its host,
    process id and log are those of the lost one.

    Args:
        config: configuration of the trial.
        runtime: the store, and the driver that records the loss.
        error: what happened to the process, in one sentence.
        kind: kind of the failure.
    """
    attempt: Attempt | None = None
    where: dict[str, Any] = {}
    log: list[str] = []
    with contextlib.suppress(OSError):
        store = ResultStore(runtime.store, PATIENCE)
        before = store.attempts({config.trial_id}).get(config.trial_id, {})
        where = {name: before[name] for name in ("host", "pid") if name in before}
        with contextlib.suppress(DamagedError):  # A log in the wrong place hides no failure.
            texts = store.logs(config.trial_id).values()
            log = [line for text in texts for line in text.splitlines()]
        attempt = Attempt(store, config, runtime.objectives, runtime.run)
    failure = Failure(kind, redacted(error), log=tuple(log[-TAIL_LINES:]))
    return _end(config, attempt, None, "failed", failure, **where)


def record_interrupted(config: TrialConfig, runtime: Runtime) -> None:
    """Record that the driver stopped a trial whose process could not record it.

    Nothing is recorded if another driver has begun the trial since then.
    """
    with contextlib.suppress(OSError, InputError):
        # Without patience: a user waits for the driver to stop, or a batch system with little time.
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
    # If the store made the trial fail, the record may fail too; the outcome is returned anyway.
    if attempt is not None:
        with contextlib.suppress(OSError):
            attempt.end(how, **(failure.record() if failure else {}), **details)
    return _outcome(config, attempt, "running" if how == "interrupted" else how, failure)


def _outcome(
    config: TrialConfig, attempt: Attempt | None, state: State, failure: Failure | None = None
) -> Outcome:
    values: dict[str, Any] = {"damage": attempt.damage} if attempt is not None else {}
    if attempt is not None and attempt.progress is not None:
        values |= {name: getattr(attempt.progress, name) for name in FROM_PROGRESS}
    if failure is not None:
        values["error"] = f"{failure.kind}: {failure.error}"
        values |= {"kind": failure.kind, "signature": failure.signature}
    return Outcome(config.trial_id, state, **values)


def _epoch_lines(attempt: Attempt, progress: Progress) -> Iterator[str]:
    """Yield the main results of the last epoch, of which the table has all, and what to know."""
    (row,) = attempt.rows.slice(attempt.rows.num_rows - 1).to_pylist()
    values = [
        f"{name.replace('_', ' ')} {row[name]:.4g}"
        for name in ("train_loss", "val_f1", "seconds_train", "seconds_val")
        if row[name] is not None
    ]
    yield f"epoch {row['epoch']}/{row['epochs']}: {', '.join(values)}"
    if progress.is_stopped:
        yield f"training stopped early ({attempt.config.early_stop})"
    if sentence := zero_maps_in_words(progress.zero_maps):
        yield f"warning: {sentence}"
