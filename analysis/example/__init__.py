"""The recorded study: what `sweeps/study*.yaml` measured once, without its checkpoints.

`record` writes the files of this package from finished and tested stores, `recorded_study` reads
them back as `analysis.results.Results`, so that a report needs no training.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.frame import KEY, to_frame
from analysis.heatmaps import checkpoint_of, task_of
from mg_core.config import EvaluationPair, TrialConfig
from mg_core.store.result_store import heatmaps_name
from mg_core.store import tables as schema
from mg_core.store.progress import Progress

if TYPE_CHECKING:
    from analysis.results import Results

ROWS, TESTS, HEATMAPS, SWEEP = "rows.parquet", "tests.parquet", "heatmaps.parquet", "sweep.json.gz"
IMAGES = 3
"""Heat maps kept of each checkpoint that a figure may show."""
UNREAD = ["val_iou_by_threshold"]
"""Columns that no figure, table or finding reads, and that take most of the space."""


def record(results: Results, folder: Path, commit: str) -> None:
    """Write a study into files of some hundred kilobytes.

    Args:
        results: of its stores, tested.
        folder: to write to.
        commit: of the code that ran it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = results.rows.drop(columns=UNREAD)
    _write(kept, schema.METRICS, folder / ROWS)
    _write(results.tests, schema.TEST, folder / TESTS)
    maps = _shown_maps(results)
    _write(maps, schema.HEATMAPS, folder / HEATMAPS)
    content = {
        "commit": commit,
        "spec": dict(results.spec) | {"name": "recorded study", "store": None},
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


def recorded_study(folder: Path | None = None) -> Results:
    """Return the study that comes with this package.

    Args:
        folder: another one, as `record` wrote it.
    """
    if folder is None:
        with as_file(files("analysis.example")) as own:
            return recorded_study(own)
    from analysis.results import Results

    content = json.loads(gzip.decompress((folder / SWEEP).read_bytes()))
    maps = _read(folder / HEATMAPS, schema.HEATMAPS)
    made = maps[[*KEY, "task"]].drop_duplicates().itertuples(index=False, name=None)
    progress = [Progress.read(json.dumps(found).encode(), SWEEP) for found in content["progress"]]
    trials = [TrialConfig.model_validate(found) for found in content["trials"]]
    return Results(
        stores=(),
        spec=content["spec"],
        trials={config.trial_id: config for config in trials},
        progress={found.trial_id: found for found in progress},
        failures={},
        rows=_read(folder / ROWS, schema.METRICS),
        tests=_read(folder / TESTS, schema.TEST),
        versions=content["versions"] | {"commit": content["commit"]},
        objectives=tuple(content["objectives"]),
        tolerance=0.0,
        heatmap_keys=frozenset(
            (trial, int(epoch), heatmaps_name(_pair(attribution, layer), _known(task)))
            for trial, epoch, attribution, layer, task in made
        ),
        recorded_heatmaps=maps,
    )


def _pair(attribution: str, layer: str) -> EvaluationPair:
    return EvaluationPair(attribution=attribution, layer=layer)


def _known(task: object) -> str | None:
    return task if isinstance(task, str) else None


def _shown_maps(results: Results) -> pd.DataFrame:
    """Return the heat maps of the checkpoints that figures choose, of the first seed."""
    from analysis.plots import drawings

    wanted: dict[tuple[str, int, str], None] = {}
    for drawing in drawings(results):
        if "class_name" in drawing.data:
            for trial_id, epoch, attribution, layer in drawing.data[KEY].itertuples(index=False):
                name = heatmaps_name(_pair(attribution, layer), task_of(results.trials[trial_id]))
                owner, at = checkpoint_of(results, trial_id, int(epoch))
                wanted[owner, at, name] = None
    return _maps_of(results, wanted)


def _maps_of(results: Results, wanted: Iterable[tuple[str, int, str]]) -> pd.DataFrame:
    tables = {key: [store.heatmaps(*key) for store in results.stores] for key in wanted}
    frames = [
        to_frame(table).head(IMAGES) for found in tables.values() for table in found if len(table)
    ]
    together = pd.concat(frames, ignore_index=True)
    found: pd.DataFrame = together.drop_duplicates([*KEY, "task", "image"], ignore_index=True)
    return found


def _write(frame: pd.DataFrame, shape: pa.Schema, file: Path) -> None:
    known = [name for name in shape.names if name in frame]
    table = pa.Table.from_pandas(
        frame[known],
        schema=pa.schema([shape.field(name) for name in known]),
        preserve_index=False,
    )
    pq.write_table(table, file, compression="zstd", compression_level=19)


def _read(file: Path, shape: pa.Schema) -> pd.DataFrame:
    table = pq.read_table(file)
    for name in shape.names:
        if name not in table.column_names:
            column = pa.nulls(len(table), shape.field(name).type)
            table = table.append_column(name, column)
    return to_frame(table.select(shape.names))
