"""The result store: the one place that knows file names.

```
sweep.yaml                                    the resolved spec
data/<data key>/<fingerprint>                 empty; what the data sets were when first read
trials/<trial_id>.json                        the full configuration, written once by the driver
attempts/<trial_id>/<n>-<nonce>.json          one run of a trial: where, versions, how it ended
logs/<trial_id>/<n>-<nonce>.txt               the newest lines of what it logged
metrics/<trial_id>/<n>-<nonce>.parquet        all epochs so far: the only commit point
checkpoints/<trial_id>/<n>-<nonce>/…          weights of non-dominated epochs, newest state
test/<trial_id>/<epoch>-<rows>.parquet        test rows of one non-dominated checkpoint
heatmaps/<trial_id>/<epoch>-<pair>.parquet    its maps of a few test images (by task)
lock.json                                     the driver at work
```

Every object has one writer. Readers of a trial take its highest attempt that has a metrics file;
whatever that file does not name is garbage.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mg_core.config import EvaluationPair, TrialConfig, parse
from mg_core.errors import InputError
from mg_core.store import tables as schema
from mg_core.store.files import Files
from mg_core.store.progress import FOOTER, TAIL_BYTES, AttemptKey, Progress, footer_in

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SPEC = "sweep.yaml"
LOCK = "lock.json"
RETRIES = 10

T = TypeVar("T")


_HEATMAPS = re.compile(r"heatmaps/([^/]+)/(\d+)-([^/]+@[^/]+)\.parquet")
_KEY = re.compile(r"(metrics|attempts|logs)/([^/]+)/(\d+-[0-9a-f]+)\.(parquet|json|txt)")


def _attempts_of(keys: Iterable[str]) -> Iterator[tuple[str, AttemptKey]]:
    """Yield trial and attempt of every object; what others put there (.nfs…) is not ours."""
    for key in keys:
        match = _KEY.fullmatch(key)
        if match:
            yield match[2], AttemptKey.of(match[3])


@contextmanager
def reading(store: ResultStore) -> Iterator[None]:
    """Say in a sentence what makes a store unreadable: its files, never our code.

    Raises:
        InputError: a file is missing, torn, or not what its name says.
    """
    import yaml

    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"store {store.uri!r} cannot be read: {reason}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"store {store.uri!r} cannot be read: {error}") from None


class ResultStore:
    """All trials of a sweep, on any filesystem.

    Args:
        uri: a folder or a URI that pyarrow.fs resolves.
        patience: seconds to go on asking object storage that is away.
    """

    def __init__(self, uri: str, patience: float = 0.0) -> None:
        self.files = Files(uri, patience)
        self.uri = uri
        self.get, self.put = self.files.get, self.files.put

    @property
    def local_path(self) -> Path | None:
        """The folder of the store where it is a local one."""
        return self.files.local_path

    # The sweep

    def spec_text(self) -> str | None:
        """Return the resolved spec as YAML, none where no sweep was started."""
        try:
            return self.get(SPEC).decode()
        except FileNotFoundError:
            return None

    def spec(self) -> dict[str, Any]:
        """Return the resolved spec.

        Raises:
            InputError: this is no store.
        """
        import yaml

        text = self.spec_text()
        if text is None:
            raise InputError(f"{self.uri!r} is not a result store: it holds no {SPEC}")
        spec = yaml.safe_load(text)
        if not isinstance(spec, dict):
            raise InputError(f"store {self.uri!r} cannot be read: its {SPEC} is no mapping")
        return spec

    def remove_trials(self, trial_ids: Iterable[str]) -> None:
        """Remove configurations."""
        self.files.delete(f"trials/{trial_id}.json" for trial_id in trial_ids)

    def put_spec(self, text: str) -> None:
        """Write the resolved spec."""
        self.put(SPEC, text.encode())

    def trial_ids(self) -> set[str]:
        """Return the ids of all trials the driver has written."""
        return {key.split("/")[-1].removesuffix(".json") for key in self.files.keys("trials")}

    def trials(self, trial_ids: Iterable[str] | None = None) -> dict[str, TrialConfig]:
        """Return the configurations of some trials, or of all."""
        ids = sorted(self.trial_ids() if trial_ids is None else trial_ids)
        keys = [f"trials/{trial_id}.json" for trial_id in ids]
        texts = self.files.get_many(keys)
        found = zip(ids, keys, texts, strict=True)
        return {trial: _config(text, key) for trial, key, text in found}

    def put_trials(self, configs: Mapping[str, TrialConfig]) -> None:
        """Write configurations."""
        self.files.put_many(
            (f"trials/{trial_id}.json", config.model_dump_json(indent=1).encode())
            for trial_id, config in configs.items()
        )

    def record_fingerprint(self, data_key: str, fingerprint: str, where: str) -> None:
        """Record what a data set was when first read, and hold every later reader to it.

        Fingerprints are file names: of two nodes that come first together with different copies
        at least one sees the other's, withdraws its own and fails.

        Raises:
            InputError: this node's copy differs from the one recorded.
        """
        folder, own = f"data/{data_key}", f"data/{data_key}/{fingerprint}"
        known = self.files.keys(folder)
        is_first = not known
        if is_first:
            self.put(own, b"")
            known = self.files.keys(folder)
        others = [key for key in known if key != own]
        if others and (is_first or own not in known):
            self.files.delete([own] if is_first else [])
            raise InputError(
                f"the data in {where} differ from those this sweep was started with "
                f"(fingerprint {fingerprint}, not {others[0].split('/')[-1]}); "
                "give every node the same copy"
            )

    # Reading trials

    def metrics_keys(self, trial_id: str | None = None) -> dict[str, str]:
        """Return, by trial, the key of the metrics file that counts."""
        highest: dict[str, AttemptKey] = {}
        found = self.files.keys(f"metrics/{trial_id}" if trial_id else "metrics")
        for trial, attempt in _attempts_of(found):
            if trial not in highest or attempt > highest[trial]:
                highest[trial] = attempt
        return {trial: f"metrics/{trial}/{highest[trial]}.parquet" for trial in sorted(highest)}

    def progress(self, trial_id: str | None = None) -> dict[str, Progress]:
        """Return the progress of every trial that has committed, from footers alone."""

        def footer(key: str) -> Progress:
            found = footer_in(self.files.get_end(key, TAIL_BYTES))
            return Progress.read(found or self._metadata(key)[FOOTER], key)

        def read() -> dict[str, Progress]:
            keys = self.metrics_keys(trial_id)
            return dict(zip(keys, self.files.map(footer, keys.values()), strict=True))

        return _consistent(read)

    def _metadata(self, key: str) -> dict[bytes, bytes]:
        path, filesystem = self.files.path(key), self.files.filesystem
        found = self.files.retried(lambda: pq.read_metadata(path, filesystem=filesystem))
        metadata: dict[bytes, bytes] = found.metadata
        return metadata

    def rows(
        self, columns: Sequence[str] | None = None, trial_ids: Iterable[str] | None = None
    ) -> pa.Table:
        """Return all committed rows, by trial and in the order of their epochs.

        Args:
            columns: of `schema.METRICS`; all of them where none are named.
            trial_ids: whose rows; those of every trial where none are named.
        """
        wanted = set(trial_ids) if trial_ids is not None else None

        def read() -> pa.Table:
            found = self.metrics_keys().items()
            return self._table(
                [key for trial, key in found if wanted is None or trial in wanted],
                schema.METRICS,
                columns,
            )

        return _consistent(read)

    def read_rows(self, trial_id: str) -> tuple[pa.Table, Progress | None]:
        """Return the rows and the progress of one trial from one and the same file."""

        def read() -> tuple[pa.Table, Progress | None]:
            key = self.metrics_keys(trial_id).get(trial_id)
            if key is None:
                return schema.METRICS.empty_table(), None
            table = pq.read_table(io.BytesIO(self.get(key)))
            progress = Progress.read(table.schema.metadata[FOOTER], key)
            return table.replace_schema_metadata(None), progress

        return _consistent(read)

    def attempts(self, trial_ids: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the record of the highest attempt of each trial, or of some."""
        wanted = set(trial_ids) if trial_ids is not None else None
        highest: dict[str, AttemptKey] = {}
        for trial, attempt in _attempts_of(self.files.keys("attempts")):
            if (wanted is None or trial in wanted) and attempt >= highest.get(trial, attempt):
                highest[trial] = attempt
        keys = [f"attempts/{trial}/{attempt}.json" for trial, attempt in highest.items()]
        return dict(zip(highest, map(json.loads, self.files.get_many(keys)), strict=True))

    def attempt_counts(self) -> Counter[str]:
        """Count the attempts of every trial that has any."""
        return Counter(trial for trial, _ in _attempts_of(self.files.keys("attempts")))

    def attempt_keys(self, trial_id: str) -> list[AttemptKey]:
        """Return the attempts of a trial that have been announced."""
        found = self.files.keys(f"attempts/{trial_id}")
        return [attempt for _, attempt in _attempts_of(found)]

    def put_log(self, trial_id: str, attempt: AttemptKey, text: str) -> None:
        """Write what an attempt has logged."""
        self.put(f"logs/{trial_id}/{attempt}.txt", text.encode())

    def logs(self, trial_id: str) -> dict[str, str]:
        """Return what the attempts of a trial have logged, the first one first."""
        found = sorted(attempt for _, attempt in _attempts_of(self.files.keys(f"logs/{trial_id}")))
        texts = self.files.get_many(f"logs/{trial_id}/{attempt}.txt" for attempt in found)
        return {str(a): text.decode(errors="replace") for a, text in zip(found, texts, strict=True)}

    def weights(self, key: str) -> dict[str, Tensor]:
        """Return a state dict.

        Raises:
            InputError: the checkpoint is not there.
        """
        from safetensors.torch import load

        try:
            weights: dict[str, Tensor] = load(self.get(key))
        except FileNotFoundError:
            raise InputError(f"store {self.uri!r} lacks the checkpoint {key}") from None
        return weights

    # Test results

    def put_test(self, trial_id: str, epoch: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write test rows of one checkpoint, under a name that says which rows they are.

        Two processes that test the same write the same object, and others besides each other.
        """
        pairs = sorted(str((row["attribution"], row["layer"])) for row in rows)
        name = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:8]
        table = pa.Table.from_pylist(list(rows), schema=schema.TEST)
        self.put(f"test/{trial_id}/{epoch:04d}-{name}.parquet", schema.to_parquet(table))

    def test_rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all test rows; one that was computed twice may stand there twice."""
        return self._table(self.files.keys("test"), schema.TEST, columns)

    def put_heatmaps(
        self, trial_id: str, epoch: int, name: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write heat maps of one checkpoint, of one pair and task (see `heatmaps_name`)."""
        table = pa.Table.from_pylist(list(rows), schema=schema.HEATMAPS)
        self.put(_heatmaps_key(trial_id, epoch, name), schema.to_parquet(table))

    def heatmaps(self, trial_id: str, epoch: int, name: str) -> pa.Table:
        """Return heat maps of a checkpoint, none of them where none were made."""
        try:
            data = self.get(_heatmaps_key(trial_id, epoch, name))
        except FileNotFoundError:
            return schema.HEATMAPS.empty_table()
        return pq.read_table(io.BytesIO(data))

    def heatmap_keys(self) -> set[tuple[str, int, str]]:
        """Return trial, epoch and name of all heat maps that were made."""
        found = (_HEATMAPS.fullmatch(key) for key in self.files.keys("heatmaps"))
        return {(match[1], int(match[2]), match[3]) for match in found if match}

    def _table(self, keys: list[str], shape: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
        names = list(columns) if columns is not None else shape.names
        wanted = pa.schema([shape.field(name) for name in names])

        def read(key: str) -> pa.Table:
            # Many small files: threads for each of them would cost more than they save.
            file = pq.ParquetFile(pa.BufferReader(self.get(key)))
            return file.read(columns=names, use_threads=False).replace_schema_metadata(None)

        found = list(self.files.map(read, keys))
        # The schema is ours and not the first file's: an older store lacks the newer columns.
        return pa.concat_tables([wanted.empty_table(), *found], promote_options="default").select(
            names
        )

    # Garbage

    def garbage(self, trial_id: str, progress: Progress) -> list[str]:
        """Return what a trial has besides the metrics file that counts and what that names."""
        kept = progress.references | {f"metrics/{trial_id}/{progress.attempt}.parquet"}
        folders = (f"metrics/{trial_id}", f"checkpoints/{trial_id}")
        return [key for folder in folders for key in self.files.keys(folder) if key not in kept]

    def settled(self) -> dict[str, tuple[Progress, dict[str, Any]]]:
        """Return the trials that have garbage and are complete, or failed in their last attempt.

        Each comes with its progress and the record of the last attempt that was announced.
        """
        progress, records = self.progress(), self.attempts()
        present: dict[str, int] = {}
        for folder in ("metrics", "checkpoints"):
            for key in self.files.keys(folder):
                trial = key.split("/")[1]
                present[trial] = present.get(trial, 0) + 1
        found = {}
        for trial, item in progress.items():
            record = records.get(trial, {})
            is_settled = item.is_complete or record.get("how") == "failed"
            if is_settled and present[trial] > 1 + len(item.references):
                found[trial] = (item, record)
        return found


def _config(text: bytes, source: str) -> TrialConfig:
    try:
        return TrialConfig.model_validate_json(text)
    except ValueError:
        # The slower way says in a sentence what is wrong with it.
        config: TrialConfig = parse(TrialConfig, json.loads(text), source)
        return config


def heatmaps_name(pair: EvaluationPair, task: str | None) -> str:
    """Name the heat maps of an attribution and layer, for a data set with tasks those of one.

    A baseline is explained once for every task: what is evidence for one is not for another.
    """
    return f"{pair}-{task}" if task else str(pair)


def _heatmaps_key(trial_id: str, epoch: int, name: str) -> str:
    return f"heatmaps/{trial_id}/{epoch:04d}-{name}.parquet"


def _consistent(read: Callable[[], T]) -> T:
    """Repeat a read of several objects that raced with a writer.

    A new attempt removes its predecessor's files once its own are committed, so a listing can be
    out of date by the time its files are opened; the next listing is not.
    """
    for _ in range(RETRIES):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()
