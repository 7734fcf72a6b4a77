"""One run of a trial: the only writer of its own keys.

Why nothing is lost and nothing overwritten, without any lock: an attempt announces itself before
it reads its predecessor's results. A predecessor that still runs (its node was thought dead)
commits, lists what is there, looks for a successor, and only then removes what was listed and its
commit does not name. If it sees no successor, then nothing listed is a successor's, and whoever
comes later reads a commit that does not name what is removed. If it sees one, it stops and
removes nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa

from mg_core.config import TrialConfig
from mg_core.pareto import non_dominated
from mg_core.store import ResultStore
from mg_core.store import tables as schema
from mg_core.store.progress import FOOTER, AttemptKey, Progress
from mg_core.store.tables import to_parquet

OWN_PACKAGE = "model-guidance-sweeps"
PACKAGES = (OWN_PACKAGE, "torch", "torchvision", "ray", "bcos", "numpy", "pyarrow")


ENDING = ("host", "pid", "kind", "error", "traceback", "signature", "images", "log")
"""What a record says of how and where a trial failed."""


class SupersededError(RuntimeError):
    """A later attempt of the same trial has begun; this one has nothing left to do."""


class Attempt:
    """One run of a trial, which takes over where its predecessor was.

    Args:
        store: where the trial lives.
        config: the trial.
        objectives: metrics whose non-dominated epochs keep their weights.
        run: nonce of the driver that started the attempt.

    Attributes:
        rows: all committed rows, those of earlier attempts included.
        progress: what the metrics file says; none before the first commit.
    """

    def __init__(
        self, store: ResultStore, config: TrialConfig, objectives: Sequence[str], run: str
    ) -> None:
        self.store = store
        self.config = config
        self.objectives = tuple(objectives)
        self.trial_id = config.trial_id
        self.key = self._announce(run)
        self.rows, self.progress = store.read_rows(self.trial_id)

    @property
    def next_epoch(self) -> int:
        """The epoch to run now."""
        return self.progress.epoch + 1 if self.progress else self.config.first_epoch

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to run."""
        return self.progress is not None and self.progress.is_complete

    def commit(
        self,
        epoch: int,
        rows: Sequence[dict[str, Any]],
        weights: Callable[[], bytes],
        state: Callable[[], bytes],
    ) -> Progress:
        """Make one epoch part of the result: weights, resume state, metrics, in this order.

        Args:
            epoch: the one after the last committed.
            rows: one for each evaluated pair, without the columns that describe the trial.
            weights: serialises the model; called if the epoch is non-dominated so far.
            state: serialises all that resuming needs; called unless this was the last epoch.

        Raises:
            SupersededError: another attempt has taken over.
        """
        common = schema.config_columns(self.config) | {"attempt": self.key.number, "epoch": epoch}
        new = pa.Table.from_pylist([common | row for row in rows], schema=schema.METRICS)
        self.rows = pa.concat_tables([self.rows, new])
        old = self.progress or Progress(self.trial_id, str(self.key), epoch, self.config.epochs)
        front = kept_epochs(self.rows, self.objectives)
        checkpoints = {kept: key for kept, key in old.checkpoints.items() if kept in front}
        if epoch in front:
            checkpoints[epoch] = self._object(f"epoch-{epoch:04d}.safetensors")
            self.store.put(checkpoints[epoch], weights())
        progress = replace(
            old,
            attempt=str(self.key),
            epoch=epoch,
            checkpoints=checkpoints,
            state=None,
            front=front_values(self.rows, front, self.objectives),
            seconds=old.seconds + _seconds(rows),
        )
        if not progress.is_complete:
            progress = replace(progress, state=self._object(f"state-{epoch:04d}.pt"))
            self.store.put(str(progress.state), state())
        self._publish(progress)
        return progress

    def settle(self, last: Mapping[str, Any]) -> None:
        """Take over a trial as it is, fencing off whoever may still be writing to it.

        Args:
            last: record of the attempt before; where the trial is not complete, it ended like that.
        """
        assert self.progress is not None
        self._publish(replace(self.progress, attempt=str(self.key)))
        if self.progress.is_complete:
            self.end("complete")
        else:
            self.end(last["how"], **{name: last[name] for name in ENDING if name in last})

    def _publish(self, progress: Progress) -> None:
        table = self.rows.replace_schema_metadata({FOOTER: progress.footer()})
        self.store.put(f"metrics/{self.trial_id}/{self.key}.parquet", to_parquet(table))
        self.progress = progress
        self._prune()

    def end(self, how: str, **details: Any) -> None:
        """Record how the attempt ended: `complete`, `failed`, `interrupted` or `superseded`."""
        self._record |= {"how": how, "ended": _now(), **details}
        self._write_record()

    def _announce(self, run: str) -> AttemptKey:
        self._record: dict[str, Any] = {
            "trial_id": self.trial_id,
            "run": run,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": _versions(),
            "started": _now(),
            "how": None,
        }
        others = self._attempts()
        number = max((key.number for key in others), default=0) + 1
        while True:
            self.key = AttemptKey(number, secrets.token_hex(4))
            self._record |= {"attempt": number, "nonce": self.key.nonce}
            self._write_record()
            # Two that announce themselves together share a number; the higher nonce wins and
            # the other one comes after it.
            if not self._is_superseded():
                return self.key
            self.end("superseded")
            self._record |= {"how": None, "started": _now()}
            number += 1

    def _attempts(self) -> list[AttemptKey]:
        return self.store.attempt_keys(self.trial_id)

    def _is_superseded(self) -> bool:
        return any(key > self.key for key in self._attempts())

    def _object(self, name: str) -> str:
        return f"checkpoints/{self.trial_id}/{self.key}/{name}"

    def _write_record(self) -> None:
        import json

        data = json.dumps(self._record, indent=1, ensure_ascii=False).encode()
        self.store.put(f"attempts/{self.trial_id}/{self.key}.json", data)

    def _prune(self) -> None:
        assert self.progress is not None
        garbage = self.store.garbage(self.trial_id, self.progress)
        if self._is_superseded():  # After the listing: see above.
            raise SupersededError(f"trial {self.trial_id} goes on in another attempt")
        self.store.files.delete(garbage)


def sweep(store: ResultStore, run: str) -> None:
    """Remove what nothing refers to; no trial may be running, as far as the caller knows.

    A trial that is still to go on is left to its next attempt, which alone knows what it takes
    over. One that failed, or whose last attempt is not the one that completed it, is settled
    first: an attempt of it may only seem dead, and what it commits meanwhile must stay.
    """
    for trial_id, (progress, last) in store.settled().items():
        own = (
            AttemptKey(last["attempt"], last["nonce"]) if last else AttemptKey.of(progress.attempt)
        )
        if progress.is_complete and str(own) == progress.attempt:
            store.files.delete(store.garbage(trial_id, progress))
        elif own == max(store.attempt_keys(trial_id)):  # Else another driver has taken it.
            (config,) = store.trials([trial_id]).values()
            with contextlib.suppress(SupersededError):
                Attempt(store, config, (), run).settle(last)
    store.files.sweep_temporary()


def kept_epochs(rows: pa.Table, objectives: Sequence[str]) -> set[int]:
    """Return the epochs of one trial whose weights are worth keeping.

    Those that are non-dominated for any evaluated (attribution, layer): an epoch dominated
    within its trial is dominated in its configuration too. Epoch 0 is the baseline's checkpoint
    and never kept again. A baseline keeps its best F1, of equals the earliest.
    """
    epochs = rows["epoch"].to_numpy()
    if rows["kind"][0].as_py() == "baseline":
        scores = np.nan_to_num(rows["val_f1"].to_numpy(), nan=-1.0)
        return {int(epochs[scores.argmax()])}
    points = np.stack([rows[f"val_{name}"].to_numpy() for name in objectives], axis=1)
    kept: set[int] = set()
    for candidates in _pairs(rows):
        later = candidates & (epochs >= 1)
        kept |= {int(epoch) for epoch in epochs[later][non_dominated(points[later])]}
    return kept


def front_values(
    rows: pa.Table, epochs: set[int], objectives: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what `status` and progress displays show of the kept epochs."""
    columns = ["epoch", "attribution", "layer", *(f"val_{name}" for name in objectives)]
    found: list[dict[str, Any]] = rows.select(columns).to_pylist()
    return [row for row in found if row["epoch"] in epochs]


def _pairs(rows: pa.Table) -> list[Any]:
    names = np.char.add(
        rows["attribution"].to_numpy().astype(str), rows["layer"].to_numpy().astype(str)
    )
    return [names == name for name in np.unique(names)]


def _seconds(rows: Sequence[dict[str, Any]]) -> float:
    # The rows of an epoch share their times.
    return sum(rows[0].get(name) or 0.0 for name in ("seconds_train", "seconds_val"))


def own_version() -> str:
    """Return the version of this package, empty where it runs without being installed."""
    return _versions().get(OWN_PACKAGE, "")


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds")
