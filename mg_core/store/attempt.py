"""One run of a trial: the only writer of its own keys.

No result is lost or overwritten, and no lock is needed, although a predecessor may still run
whose node only seemed dead. Every attempt does this in order:

1. It announces itself, and then reads its predecessor's results.
2. It commits an epoch.
3. It lists the trial's files.
4. It looks for a successor. If there is one, it stops and removes nothing.
5. It removes the listed files that its commit does not name.

A successor that announces itself after step 4 wrote none of the listed files, and it reads a commit
that names none of the removed ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa

from mg_core.config import TrialConfig
from mg_core.errors import DamagedError
from mg_core.pareto import non_dominated
from mg_core.redaction import harmless
from mg_core.store import layout
from mg_core.store.code import Code, newest
from mg_core.store.integrity import record_checksum
from mg_core.store.layout import AttemptKey
from mg_core.store.progress import FOOTER, Progress
from mg_core.store.result_store import ResultStore
from mg_core.store.tables import METRICS, config_columns, to_parquet

OWN_PACKAGE = "model-guidance-sweeps"
PACKAGES = (OWN_PACKAGE, "torch", "torchvision", "ray", "bcos", "numpy", "pyarrow")

ENDING = ("host", "pid", "kind", "error", "traceback", "signature", "images", "log")
"""Keys of a record that describe a failure."""


class SupersededError(RuntimeError):
    """A later attempt of the same trial has begun, so this one must stop."""


class Attempt:
    """One run of a trial, which goes on from the last epoch that its predecessor committed.

    Args:
        store: the store that holds the trial.
        config: configuration of the trial.
        objectives: metrics whose non-dominated epochs keep their weights.
        run: nonce of the driver that started the attempt.
        keeps_state: whether a complete trial keeps its state, from which a longer one can go on.
        judge: metric of validation by whose best epoch a baseline is known.

    Attributes:
        rows: all committed rows, those of earlier attempts included.
        progress: progress as of the last commit; none before the first one.
        damage: what was wrong with the results of earlier attempts, which were set aside.
        code: versions of the user's modules that compute from here on, for `Progress.code`.
    """

    def __init__(
        self,
        store: ResultStore,
        config: TrialConfig,
        objectives: Sequence[str],
        run: str,
        keeps_state: bool = True,
        judge: str = "f1",
    ) -> None:
        self.judge = judge
        self.store = store
        self.config = config
        self.objectives = tuple(objectives)
        self.keeps_state = keeps_state and config.epochs > 0
        self.trial_id = config.trial_id
        self.key = self._announce(run)
        self.damage = ""
        self.code: Code = {}
        try:
            self.rows, self.progress = store.read_rows(self.trial_id)
        except DamagedError as error:
            self.start_over(error)

    @property
    def next_epoch(self) -> int:
        """The epoch after the last committed one."""
        return self.progress.epoch + 1 if self.progress else self.config.first_epoch

    @property
    def is_complete(self) -> bool:
        """Whether every epoch is committed."""
        return self.progress is not None and self.progress.is_complete

    def commit(
        self,
        epoch: int,
        rows: Sequence[dict[str, Any]],
        weights: Callable[[], bytes],
        state: Callable[[], bytes],
        is_stopped: bool = False,
    ) -> Progress:
        """Write the results of one epoch: weights, resume state and metrics, in this order.

        Args:
            epoch: number of the epoch, `next_epoch`.
            rows: one row for each evaluated pair, without the columns that describe the trial.
            weights: serialises the model; called if the epoch is non-dominated so far.
            state: serialises model and optimiser; called after the last epoch only if that state
                is kept.
            is_stopped: whether training stops after this epoch, early or not.

        Raises:
            SupersededError: a later attempt of the trial has begun.
        """
        common = config_columns(self.config) | {"attempt": self.key.number, "epoch": epoch}
        new = pa.Table.from_pylist([common | row for row in rows], schema=METRICS)
        self.rows = pa.concat_tables([self.rows, new])
        old = self.progress or Progress(self.trial_id, str(self.key), epoch, self.config.epochs)
        front = kept_epochs(self.rows, self.objectives, self.judge)
        if not front <= {epoch, *old.checkpoints}:
            # An earlier version judged the first epochs by F1, and kept no other weights.
            front = kept_epochs(self.rows, self.objectives)
        checkpoints = {kept: key for kept, key in old.checkpoints.items() if kept in front}
        digests = dict(old.digests)
        if epoch in front:
            checkpoints[epoch] = layout.weights_key(self.trial_id, self.key, epoch)
            digests[checkpoints[epoch]] = self._put(checkpoints[epoch], weights())
        progress = replace(
            old,
            attempt=str(self.key),
            epoch=epoch,
            is_stopped=is_stopped and epoch < old.epochs,
            checkpoints=checkpoints,
            state=None,
            front=front_values(self.rows, front, self.objectives),
            seconds=old.seconds + _seconds(rows),
            zero_maps=zero_maps(rows),
            code=self._code_since(epoch, old),
        )
        if self.keeps_state or not progress.is_complete:
            progress = replace(progress, state=layout.state_key(self.trial_id, self.key, epoch))
            digests[str(progress.state)] = self._put(str(progress.state), state())
        kept = {key: digest for key, digest in digests.items() if key in progress.references}
        return self._publish(replace(progress, digests=kept))

    def start_over(self, damage: DamagedError) -> None:
        """Set the trial's damaged files aside and begin it anew."""
        folder = set_aside(self.store, results_of(self.store, self.trial_id))
        self.note(f"{damage.strerror}; now in {folder}, and the trial begins anew")
        self.rows, self.progress = METRICS.empty_table(), None

    def note(self, damage: str) -> None:
        """Say in the record what was wrong, and what became of it."""
        self.damage = self._record["damage"] = damage

    def take_over(self, rows: pa.Table, progress: Progress) -> None:
        """Commit epochs of another trial as this one's own, once their weights are in place."""
        self.rows = rows
        self._publish(progress)

    def _code_since(self, epoch: int, old: Progress) -> dict[int, dict[str, str]]:
        is_same = not self.code or self.code == newest(old)
        return old.code if is_same else {**old.code, epoch: dict(self.code)}

    def _put(self, key: str, data: bytes) -> str:
        self.store.put(key, data)
        return hashlib.sha256(data).hexdigest()

    def settle(self, last: Mapping[str, Any]) -> None:
        """Take over a trial that will not go on, so that no earlier attempt can write to it.

        Args:
            last: record of the attempt before; an incomplete trial is recorded to have ended so.
        """
        assert self.progress is not None
        self._publish(replace(self.progress, attempt=str(self.key)))
        if self.progress.is_complete:
            self.end("complete")
        else:
            self.end(last["how"], **{name: last[name] for name in ENDING if name in last})

    def _publish(self, progress: Progress) -> Progress:
        table = self.rows.replace_schema_metadata({FOOTER: progress.footer()})
        self.store.put(self._key(layout.METRICS), to_parquet(table))
        self.progress = progress
        self._prune()
        return progress

    def end(self, how: str, **details: Any) -> None:
        """Record how the attempt ended: `complete`, `failed`, `interrupted` or `superseded`."""
        self._record |= {"how": how, "ended": _now(), **details}
        self._write_record()

    def _announce(self, run: str) -> AttemptKey:
        self._record: dict[str, Any] = {
            "trial_id": self.trial_id,
            "run": run,
            "host": harmless(socket.gethostname()),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": _versions(),
            "started": _now(),
            "how": None,
        }
        others = self.store.attempt_keys(self.trial_id)
        number = max((key.number for key in others), default=0) + 1
        while True:
            self.key = AttemptKey(number, secrets.token_hex(4))
            self._record |= {"attempt": number, "nonce": self.key.nonce}
            self._write_record()
            # Two attempts that begin together have the same number. The one with the lower nonce
            # is superseded and announces itself again with the next number.
            if not self._is_superseded():
                return self.key
            self.end("superseded")
            self._record |= {"how": None, "started": _now()}
            number += 1

    def _is_superseded(self) -> bool:
        return any(key > self.key for key in self.store.attempt_keys(self.trial_id))

    def _write_record(self) -> None:
        record = self._record | {"crc": record_checksum(self._record)}
        data = json.dumps(record, indent=1, ensure_ascii=False).encode()
        self.store.put(self._key(layout.ATTEMPTS), data)

    def _key(self, folder: str) -> str:
        return layout.attempt_key(folder, self.trial_id, self.key)

    def _prune(self) -> None:
        assert self.progress is not None
        garbage = garbage_of(self.store, self.trial_id, self.progress)
        if self._is_superseded():  # After the listing: see above.
            raise SupersededError(f"trial {self.trial_id} goes on in another attempt")
        self.store.files.delete(garbage)


def zero_maps(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of maps that are zero everywhere, of each evaluated pair that has any."""
    return {
        f"{row['attribution']}@{row['layer']}": row["val_n_zero_map"] / row["val_n_pairs"]
        for row in rows
        if row.get("val_n_zero_map") and row.get("val_n_pairs")
    }


def garbage_of(store: ResultStore, trial_id: str, progress: Progress) -> list[str]:
    """Return the metrics, weights and states of a trial that are `unnamed` by `progress`."""
    return unnamed(files_of(store, trial_id), progress)


def unnamed(files: Sequence[str], progress: Progress) -> list[str]:
    """Return those files of a trial that its commit does not name.

    There are none if what the commit names is missing: it was put here from elsewhere, or lost its
    files, and those of other attempts may be all that is left.
    """
    own = layout.attempt_key(layout.METRICS, progress.trial_id, progress.attempt)
    kept = {own, *progress.references}
    # A complete trial does without its state, which may have been set aside.
    needed = kept - {progress.state} if progress.is_complete else kept
    return [key for key in files if key not in kept] if needed <= set(files) else []


def files_of(store: ResultStore, trial_id: str) -> list[str]:
    """Return the keys of a trial's metrics, weights and states; other files are not the store's."""
    folders = (layout.prefix(folder, trial_id) for folder in (layout.METRICS, layout.CHECKPOINTS))
    return [key for folder in folders for key in store.files.keys(folder) if layout.is_own(key)]


def results_of(store: ResultStore, trial_id: str) -> list[str]:
    """Return what a trial that begins anew leaves behind: its weights' tests and maps too.

    The metrics come last: while they are there, a move that was interrupted can be repeated.
    """
    folders = (layout.prefix(folder, trial_id) for folder in (layout.TEST, layout.HEATMAPS))
    tested = [key for folder in folders for key in store.files.keys(folder) if layout.is_own(key)]
    return [*tested, *reversed(files_of(store, trial_id))]


def set_aside(store: ResultStore, keys: Iterable[str]) -> str:
    """Move files into a new folder of the quarantine, where nothing reads or deletes them.

    Returns:
        The folder.
    """
    folder = f"{_now().replace(':', '')}-{secrets.token_hex(3)}"
    for key in keys:
        store.files.move(key, layout.quarantined_key(folder, key))
    return f"{layout.QUARANTINE}/{folder}"


def kept_epochs(rows: pa.Table, objectives: Sequence[str], judge: str = "f1") -> set[int]:
    """Return the epochs of one trial whose weights are kept.

    A guided trial keeps the epochs that are non-dominated for any evaluated (attribution, layer):
    an epoch dominated within its trial is dominated in its configuration too. Epoch 0 is left out,
    since it is the baseline's checkpoint. A baseline keeps the earliest epoch of its best `judge`,
    a metric, or of its best F1 where that was not measured in every epoch.
    """
    epochs = rows["epoch"].to_numpy()
    if rows["kind"][0].as_py() == "baseline":
        measured = rows[f"val_{judge}"]
        column = rows["val_f1"] if measured.null_count else measured
        scores = np.nan_to_num(column.to_numpy(), nan=-1.0)
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
    """Return the objectives of the kept epochs, for `status` and progress displays."""
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
