"""Garbage collection: removes weights and states that no metrics file names."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import Any

from mg_core.store import layout
from mg_core.store.attempt import Attempt, SupersededError, garbage_of, unnamed
from mg_core.store.layout import AttemptKey
from mg_core.store.progress import Progress
from mg_core.store.result_store import ResultStore


def collect_garbage(store: ResultStore, run: str) -> None:
    """Remove the garbage of all trials that will not go on; the caller runs none at this time.

    A trial that will go on is left to its next attempt, which removes its garbage. If a trial
    failed, or if its last attempt is not the one that completed it, a process of an earlier
    attempt may still be alive. A new attempt then takes the trial over first, so that nothing is
    removed that such a process commits meanwhile.

    Args:
        store: the store to clean.
        run: nonce of the driver, recorded in the attempts that take a trial over.
    """
    for trial_id, (progress, last) in with_garbage(store).items():
        own = (
            AttemptKey(last["attempt"], last["nonce"]) if last else AttemptKey.of(progress.attempt)
        )
        if progress.is_complete and str(own) == progress.attempt:
            store.files.delete(garbage_of(store, trial_id, progress))
        elif own == max(store.attempt_keys(trial_id)):  # Else another driver runs it.
            (config,) = store.trials([trial_id]).values()
            with contextlib.suppress(SupersededError):
                Attempt(store, config, (), run).settle(last)
    store.files.remove_temporary()


def with_garbage(store: ResultStore) -> dict[str, tuple[Progress, dict[str, Any]]]:
    """Return the trials that have garbage and are complete or failed in their last attempt.

    Returns:
        By trial, its progress and the record of its last attempt.
    """
    progress, records = store.progress(), store.attempts()
    present: dict[str, list[str]] = defaultdict(list)
    for folder in (layout.METRICS, layout.CHECKPOINTS):
        for key in filter(layout.is_own, store.files.keys(folder)):
            present[layout.trial_of(key)].append(key)
    found = {}
    for trial, item in progress.items():
        record = records.get(trial, {})
        is_settled = item.is_complete or record.get("how") == "failed"
        if is_settled and unnamed(present[trial], item):
            found[trial] = (item, record)
    return found
