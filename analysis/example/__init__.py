"""Recorded studies: what sweeps of this project measured once, without their checkpoints.

Each folder here is one: `study` is that of `sweeps/study*.yaml`, and others have the name of their
sweep file. `record` writes a folder from finished and tested stores, `recorded_study` reads one
back as `analysis.results.Results`, so that a report needs no training.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.frame import to_frame
from analysis.heatmaps import Key, Row
from analysis.plots import drawings
from analysis.plots.cells import key_of, records
from analysis.results import Results
from mg_core.config import EvaluationPair, TrialConfig
from mg_core.errors import InputError
from mg_core.store import tables as schema
from mg_core.store.layout import heatmaps_name
from mg_core.store.ledger import Ledger
from mg_core.store.progress import Progress

ROWS, TESTS, HEATMAPS, SWEEP = "rows.parquet", "tests.parquet", "heatmaps.parquet", "sweep.json.gz"
STUDY = "study"
IMAGES = 3
"""Heat maps kept of each checkpoint that a figure may show."""
UNREAD = ["val_iou_by_threshold"]
"""Columns that no figure, table or finding reads, and that take most of the space."""


def record(results: Results, folder: Path, commit: str) -> None:
    """Write a tested study, and the commit of the code that ran it, into small files."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(results.rows.drop(columns=UNREAD), schema.METRICS, folder / ROWS)
    _write(results.tests, schema.TEST, folder / TESTS)
    _write(_shown_maps(results), schema.HEATMAPS, folder / HEATMAPS)
    content = {
        "commit": commit,
        "spec": dict(results.spec) | {"name": f"recorded {folder.name}", "store": None},
        "trials": [config.model_dump(mode="json") for config in results.trials.values()],
        "progress": [
            {name: value for name, value in asdict(found).items() if name != "front"}
            for found in results.progress.values()
        ],
        "versions": dict(results.versions),
        "objectives": list(results.objectives),
    }
    text = json.dumps(content, separators=(",", ":"), default=str)
    (folder / SWEEP).write_bytes(gzip.compress(text.encode(), mtime=0))


def studies() -> list[str]:
    """Return the names of the studies that come with this package, the study of the paper first."""
    found = (place.name for place in files(__name__).iterdir() if (place / SWEEP).is_file())
    return sorted(found, key=lambda name: (name != STUDY, name))


def recorded_study(study: str | Path = STUDY) -> Results:
    """Return a study that comes with this package, by name, or one that `record` wrote to a folder.

    Raises:
        InputError: no study of that name comes with this package.
    """
    if isinstance(study, Path):
        return _read_study(study)
    if study not in studies():
        raise InputError(f"no recorded study {study!r}; choose from {', '.join(studies())}")
    with as_file(files(__name__) / study) as folder:
        return _read_study(folder)


def _read_study(folder: Path) -> Results:
    content = json.loads(gzip.decompress((folder / SWEEP).read_bytes()))
    maps = _heatmaps(folder / HEATMAPS)
    progress = [Progress.read(json.dumps(found).encode(), SWEEP) for found in content["progress"]]
    trials = [TrialConfig.model_validate(found) for found in content["trials"]]
    return Results(
        stores=(),
        spec=content["spec"],
        trials={config.trial_id: config for config in trials},
        ledger=Ledger(progress={found.trial_id: found for found in progress}),
        rows=_read(folder / ROWS, schema.METRICS),
        tests=_read(folder / TESTS, schema.TEST),
        versions=content["versions"] | {"commit": content["commit"]},
        objectives=tuple(content["objectives"]),
        tolerance=0.0,
        heatmap_keys=frozenset(maps),
        recorded_heatmaps=maps,
    )


def _heatmaps(file: Path) -> dict[Key, list[Row]]:
    """Return recorded heat maps as `Results` takes them."""
    found: dict[Key, list[Row]] = {}
    for row in pq.read_table(file).to_pylist():
        pair = EvaluationPair(attribution=row["attribution"], layer=row["layer"])
        key = (row["trial_id"], row["epoch"], heatmaps_name(pair, row["task"]))
        found.setdefault(key, []).append(row)
    return found


def _shown_maps(results: Results) -> pd.DataFrame:
    """Return the heat maps of the checkpoints that figures choose, of the first seed."""
    keys = {
        key_of(results.heatmaps, row): None
        for drawing in drawings(results)
        if "heat_map" in drawing.data
        for row in records(drawing.data)
    }
    rows = [row for key in keys if key for row in results.heatmaps.rows(key)[:IMAGES]]
    return to_frame(pa.Table.from_pylist(rows, schema=schema.HEATMAPS))


def _write(frame: pd.DataFrame, shape: pa.Schema, file: Path) -> None:
    known = [name for name in shape.names if name in frame]
    fields = pa.schema([shape.field(name) for name in known])
    table = pa.Table.from_pandas(frame[known], schema=fields, preserve_index=False)
    pq.write_table(table, file, compression="zstd", compression_level=19)


def _read(file: Path, shape: pa.Schema) -> pd.DataFrame:
    table = pq.read_table(file)
    if "kind" in table.column_names:  # Test rows have no axes.
        table = schema.with_usual(table, shape.names, table["kind"].to_pylist())
    for name in shape.names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), shape.field(name).type))
    return to_frame(table.select(shape.names))
