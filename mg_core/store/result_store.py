"""Reads and writes the objects of a result store; `mg_core.store.layout` makes their keys."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from mg_core.config import TrialConfig
from mg_core.errors import DamagedError, InputError, StorageError
from mg_core.store import integrity, layout
from mg_core.store.files import Files
from mg_core.store.layout import AttemptKey
from mg_core.store.progress import TAIL_BYTES, Progress, footer_in
from mg_core.store.tables import (
    HEATMAPS,
    METRICS,
    TEST,
    conformed,
    damaged,
    read_parquet,
    to_parquet,
    with_usual,
)
from mg_core.yaml_text import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

RETRIES = 10
FEW = 8
"""Up to so many trials, one listing for each is faster than one listing of all trials."""
UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError, json.JSONDecodeError)

T = TypeVar("T")


@contextmanager
def reading(store: ResultStore) -> Iterator[None]:
    """Turn errors of unreadable files into an InputError; bugs keep their traceback.

    Raises:
        InputError: a file of the store is missing, truncated or malformed.
    """
    try:
        yield
    except UNREADABLE as error:
        said = error.strerror if isinstance(error, StorageError) else error
        reason = " ".join(str(said).split())
        raise InputError(f"store {store.uri!r} cannot be read: {reason}") from None


class ResultStore:
    """The trials of a sweep and their results, on any filesystem.

    Args:
        uri: a folder or a URI that pyarrow.fs resolves.
        patience: seconds for which requests to unreachable object storage are repeated.
    """

    def __init__(self, uri: str, patience: float = 0.0) -> None:
        self.files = Files(uri, patience)
        self.uri = uri
        self.get, self.put = self.files.get, self.files.put

    @property
    def local_path(self) -> Path | None:
        """The folder of the store; none on object storage."""
        return self.files.local_path

    # The sweep

    def spec_text(self) -> str | None:
        """Return the resolved spec as YAML; none if no sweep was started here."""
        try:  # Where bytes are no UTF-8 it is damaged, as its checksum then says.
            return self.get(layout.SPEC).decode(errors="replace")
        except FileNotFoundError:
            return None

    def spec(self) -> dict[str, Any]:
        """Return the resolved spec.

        Raises:
            InputError: there is no spec of ours, it is no mapping, or its checksum is wrong.
        """
        text = self.spec_text()
        if text is None or not self.is_store():
            what = f"no {layout.SPEC}" if text is None else f"a {layout.SPEC}, and no trials"
            raise InputError(f"{self.uri!r} is not a result store: it holds {what}")
        try:
            integrity.check_text(text, layout.SPEC)
        except DamagedError as error:
            raise InputError(f"store {self.uri!r}: {error.strerror}") from None
        source = f"store {self.uri!r}: {layout.SPEC}"
        return integrity.check_spec(parse_yaml(text, source), source)

    def is_store(self) -> bool:
        """Say whether a sweep was started here; a user may have a `sweep.yaml` of his own."""
        text = self.spec_text()
        return (text is not None and integrity.has_checksum(text)) or bool(self.trial_ids())

    def put_spec(self, text: str) -> None:
        """Write the resolved spec, with a checksum that `mg-sweep verify` looks at."""
        self.put(layout.SPEC, integrity.with_checksum(text).encode())

    def trial_ids(self) -> set[str]:
        """Return the ids of all trials of the sweep."""
        keys = self.files.keys(layout.TRIALS)
        return {layout.trial_of(key) for key in keys if layout.is_own(key)}

    def find_trial(self, name: str) -> str:
        """Return the id of the one trial whose id begins with `name`.

        Raises:
            InputError: no trial or several trials begin with it.
        """
        found = sorted(trial for trial in self.trial_ids() if trial.startswith(name))
        if len(found) == 1:
            return found[0]
        problem = f"{len(found)} trials begin in" if found else "no trial begins in"
        raise InputError(
            f"store {self.uri!r}: {problem} {name!r}; mg-sweep status --json lists all"
        )

    def trials(self, trial_ids: Iterable[str] | None = None) -> dict[str, TrialConfig]:
        """Return the configurations of some trials, or of all trials, by id."""
        ids = sorted(self.trial_ids() if trial_ids is None else trial_ids)
        keys = [layout.trial_key(trial_id) for trial_id in ids]
        texts = self.files.get_many(keys)
        found = zip(ids, keys, texts, strict=True)
        return {trial: integrity.trial_config(text, key) for trial, key, text in found}

    def put_trials(self, configs: Mapping[str, TrialConfig]) -> None:
        """Write configurations, given by trial id."""
        self.files.put_many(
            (layout.trial_key(trial_id), config.model_dump_json(indent=1).encode())
            for trial_id, config in configs.items()
        )

    def remove_trials(self, trial_ids: Iterable[str]) -> None:
        """Remove configurations."""
        self.files.delete(layout.trial_key(trial_id) for trial_id in trial_ids)

    def record_fingerprint(
        self,
        data_key: str,
        fingerprint: str,
        where: str,
        former: Callable[[], str] | None = None,
    ) -> None:
        """Record the fingerprint of a data set, or compare it with the one that is recorded.

        A fingerprint is a file name. If two nodes with different copies are first at the same
        time, at least one of them sees the other's file, removes its own and fails.

        Args:
            data_key: `DataConfig.key` of the data set.
            fingerprint: fingerprint of this node's copy.
            where: folder of this node's copy, for the error message.
            former: computes the fingerprint that earlier versions recorded for this copy.

        Raises:
            InputError: this node's copy differs from the one recorded.
        """
        own = layout.fingerprint_key(data_key, fingerprint)
        folder = own.rpartition("/")[0]
        known = layout.without_hidden(self.files.keys(folder))
        is_first = not known
        if is_first:
            self.put(own, b"")
            known = layout.without_hidden(self.files.keys(folder))
        if former and not is_first and own not in known:
            own = layout.fingerprint_key(data_key, former())
        others = [key for key in known if key != own]
        if others and (is_first or own not in known):
            self.files.delete([own] if is_first else [])
            raise InputError(
                f"the data in {where} differ from those this sweep was started with "
                f"(fingerprint {fingerprint}, not {others[0].split('/')[-1]}); "
                "give every node the same copy"
            )

    def fingerprints(self) -> dict[str, frozenset[str]]:
        """Return the fingerprints that are recorded of each data set, by `DataConfig.key`."""
        found: dict[str, frozenset[str]] = {}
        for key in filter(layout.is_own, self.files.keys(layout.DATA)):
            _, data_key, fingerprint = key.split("/")
            found[data_key] = found.get(data_key, frozenset()) | {fingerprint}
        return found

    # Reading trials

    def metrics_keys(self, trial_id: str | None = None) -> dict[str, str]:
        """Return the key of each trial's metrics file that counts, or of one trial's."""
        found = self.files.keys(layout.prefix(layout.METRICS, trial_id))
        return {
            trial: layout.attempt_key(layout.METRICS, trial, attempt)
            for trial, attempt in layout.highest_attempts(found).items()
        }

    def progress(self, trial_id: str | None = None) -> dict[str, Progress]:
        """Return the progress of every trial with a committed epoch; only footers are read."""

        def read() -> dict[str, Progress]:
            keys = self.metrics_keys(trial_id)
            return dict(zip(keys, self.files.map(self.footer, keys.values()), strict=True))

        return _consistent(read)

    def footer(self, key: str) -> Progress:
        """Return the progress in the footer of a metrics file.

        Raises:
            StorageError: the file is damaged, or is another trial's or attempt's.
        """
        found = footer_in(self.files.get_end(key, TAIL_BYTES))
        return integrity.own_progress(found, key) if found else self.committed(key)[1]

    def rows(
        self, columns: Sequence[str] | None = None, trial_ids: Iterable[str] | None = None
    ) -> pa.Table:
        """Return committed rows, or some columns of some trials', sorted by trial and epoch."""
        wanted = set(trial_ids) if trial_ids is not None else None

        def read() -> pa.Table:
            found = self.metrics_keys().items()
            return self._table(
                [key for trial, key in found if wanted is None or trial in wanted],
                METRICS,
                columns,
            )

        return _consistent(read)

    def read_rows(self, trial_id: str) -> tuple[pa.Table, Progress | None]:
        """Return the rows and the progress of one trial, both from the same file."""

        def read() -> tuple[pa.Table, Progress | None]:
            key = self.metrics_keys(trial_id).get(trial_id)
            return (METRICS.empty_table(), None) if key is None else self.committed(key)

        return _consistent(read)

    def committed(self, key: str) -> tuple[pa.Table, Progress]:
        """Return the rows and the progress in a metrics file.

        Raises:
            StorageError: the file is damaged, or is another trial's or attempt's.
        """
        table = read_parquet(self.get(key), key)
        integrity.check_place(table, key)
        return conformed(table, METRICS), integrity.own_progress(table.schema.metadata or {}, key)

    def attempts(self, trial_ids: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the record of the highest attempt of some trials, or of all trials."""
        wanted = set(trial_ids) if trial_ids is not None else None
        is_few = wanted is not None and len(wanted) <= FEW
        folders = [layout.prefix(layout.ATTEMPTS, t) for t in (wanted or () if is_few else (None,))]
        listed = (key for folder in folders for key in self.files.keys(folder))
        highest = layout.highest_attempts(listed)
        keys = {
            trial: layout.attempt_key(layout.ATTEMPTS, trial, attempt)
            for trial, attempt in highest.items()
            if wanted is None or trial in wanted
        }
        return dict(zip(keys, self.files.map(self.attempt_record, keys.values()), strict=True))

    def attempt_record(self, key: str) -> dict[str, Any]:
        """Return the record of an attempt; a damaged one says `unreadable` under `how`."""
        return integrity.attempt_fields(self.get(key), key)

    def attempt_counts(self) -> Counter[str]:
        """Count the attempts of every trial that has any."""
        return Counter(trial for trial, _ in layout.attempts_in(self.files.keys(layout.ATTEMPTS)))

    def attempt_keys(self, trial_id: str) -> list[AttemptKey]:
        """Return the attempts that a trial has had so far, a running one included."""
        found = self.files.keys(layout.prefix(layout.ATTEMPTS, trial_id))
        return [attempt for _, attempt in layout.attempts_in(found)]

    def put_log(self, trial_id: str, attempt: AttemptKey, text: str) -> None:
        """Write the log of an attempt."""
        self.put(layout.attempt_key(layout.LOGS, trial_id, attempt), text.encode())

    def logs(self, trial_id: str) -> dict[str, str]:
        """Return the logs of a trial by attempt, the first attempt first.

        Raises:
            StorageError: a log is another trial's or attempt's.
        """
        listed = layout.attempts_in(self.files.keys(layout.prefix(layout.LOGS, trial_id)))
        found = sorted(attempt for _, attempt in listed)
        keys = [layout.attempt_key(layout.LOGS, trial_id, attempt) for attempt in found]
        read = zip(found, keys, self.files.get_many(keys), strict=True)
        return {str(attempt): integrity.log_text(data, key) for attempt, key, data in read}

    def referenced(self, key: str, digest: str | None) -> bytes:
        """Return weights or a state as they were when their metrics were committed.

        Args:
            key: one of `Progress.references`.
            digest: the key's entry in `Progress.digests`; older versions recorded none.

        Raises:
            StorageError: the object is missing or damaged.
        """
        try:
            data = self.get(key)
        except FileNotFoundError:
            raise DamagedError(errno.ENOENT, f"{key} of {self.uri!r} is missing") from None
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise damaged(key, "its checksum is wrong")
        return data

    def weights(self, key: str, digest: str | None = None) -> dict[str, Tensor]:
        """Return the state dict of a checkpoint; arguments and errors as for `referenced`."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            weights: dict[str, Tensor] = load(self.referenced(key, digest))
        except (SafetensorError, ValueError) as error:
            raise damaged(key, error) from None
        return weights

    # Test results

    def put_test(self, trial_id: str, epoch: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write test rows of one checkpoint."""
        key = layout.test_key(trial_id, epoch, ((row["attribution"], row["layer"]) for row in rows))
        self.put(key, to_parquet(pa.Table.from_pylist(list(rows), schema=TEST)))

    def test_rows(
        self, columns: Sequence[str] | None = None, keys: Sequence[str] | None = None
    ) -> pa.Table:
        """Return all test rows, or those of some files; one that two computed may occur twice."""
        own = layout.tests_in(self.files.keys(layout.TEST)) if keys is None else list(keys)
        return self._table(own, TEST, columns)

    def put_heatmaps(
        self, trial_id: str, epoch: int, name: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write heat maps of one checkpoint, named by `layout.heatmaps_name`."""
        table = pa.Table.from_pylist(list(rows), schema=HEATMAPS)
        self.put(layout.heatmaps_key(trial_id, epoch, name), to_parquet(table))

    def heatmaps(self, trial_id: str, epoch: int, name: str) -> pa.Table:
        """Return heat maps of a checkpoint; an empty table if none were made."""
        key = layout.heatmaps_key(trial_id, epoch, name)
        try:
            table = read_parquet(self.get(key), key)
        except FileNotFoundError:
            return HEATMAPS.empty_table()
        integrity.check_place(table, key)
        return table

    def heatmap_keys(self) -> set[tuple[str, int, str]]:
        """Return trial, epoch and name of all heat maps in the store."""
        return set(layout.heatmaps_in(self.files.keys(layout.HEATMAPS)))

    def _table(self, keys: list[str], shape: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
        names = list(columns) if columns is not None else shape.names
        wanted = pa.schema([shape.field(name) for name in names])

        def read(key: str) -> pa.Table:
            table = read_parquet(self.get(key), key, names)
            integrity.check_place(table, key)
            if shape is METRICS and set(names) - set(table.column_names):
                kinds = read_parquet(self.get(key), key, ["kind"])["kind"].to_pylist()
                table = with_usual(table, names, kinds)
            return table.replace_schema_metadata(None)

        found = list(self.files.map(read, keys))
        # The first file may be an old one that lacks newer columns, so the schema is given.
        return pa.concat_tables([wanted.empty_table(), *found], promote_options="default").select(
            names
        )


def _consistent(read: Callable[[], T]) -> T:
    """Repeat a listing and its reads if a file has been removed in between.

    A new attempt removes its predecessor's files as soon as its own are committed.
    """
    for _ in range(RETRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()
