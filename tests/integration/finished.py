"""What a finished store must be, whatever happened on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load

from mg_core.store import ResultStore
from mg_core.store.layout import LOCK, QUARANTINE, TEMPORARY, is_own

TIMES = ["attempt", "seconds_train", "seconds_val", "seconds_step"]

READERS: dict[str, Callable[[bytes], object]] = {
    ".parquet": lambda data: pq.read_table(pa.BufferReader(data)),
    ".json": json.loads,
    ".safetensors": load,
}
"""What fails on a file that was torn."""


def files_of(folder: Path, kind: str) -> list[Path]:
    """Return the files of one kind in a store that is a folder."""
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def table(store: ResultStore) -> pa.Table:
    """Return what must not depend on faults: all but times and attempts."""
    return store.rows().drop_columns(TIMES)


def check(store: ResultStore) -> None:
    """Assert that a finished store has no row twice, no torn file, and nothing besides.

    Raises:
        AssertionError: it has.
    """
    rows = store.rows(["trial_id", "epoch", "attribution", "layer"]).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows), "a row stands twice"
    found = store.progress().values()
    named = set().union(*(progress.references for progress in found))
    # A complete trial needs its state only to go on: a damaged one is set aside, and that is all.
    aside = {key.split("/", 2)[2] for key in store.files.keys(QUARANTINE)}
    named -= aside & {progress.state for progress in found if progress.is_complete}
    keys = [key for key in store.files.keys("") if is_own(key)]
    there = {key for key in keys if key.startswith("checkpoints/")}
    assert named <= there, f"weights are missing: {sorted(named - there)}"
    assert there <= named, f"weights that no row names: {sorted(there - named)}"
    assert [k for k in keys if k.startswith("metrics/")] == sorted(store.metrics_keys().values())
    assert store.files.keys(TEMPORARY) == []
    assert LOCK not in keys
    for key in keys:
        read = READERS.get(Path(key).suffix)
        if read is not None:
            read(store.get(key))
