"""Arrow schemas of the store's tables, and tables as Parquet bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mg_core.columns import (
    CONFIGURATION_COLUMNS,
    KEY_COLUMNS,
    TABLE,
    TEST_TABLE,
    Column,
    configured,
)
from mg_core.config import TrialConfig

TYPES = {
    "text": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "list": pa.list_(pa.float64()),
}


def _fields(columns: Iterable[Column]) -> list[tuple[str, Any]]:
    return [(column.name, TYPES[column.type]) for column in columns]


METRICS = pa.schema(_fields(TABLE))
"""Rows of `metrics/`: one for each (trial, epoch, evaluated attribution, evaluated layer)."""

TEST = pa.schema(_fields(TEST_TABLE))
"""Rows of `test/`, which are joined with those of `metrics/` on `mg_core.columns.KEY`."""

HEATMAPS = pa.schema(
    [
        *_fields([CONFIGURATION_COLUMNS[0], *KEY_COLUMNS]),
        ("task", pa.string()),
        ("image", pa.string()),
        ("class_name", pa.string()),
        ("probability", pa.float64()),
        ("prediction", pa.string()),
        ("size", pa.int32()),
        ("map", pa.binary()),
        ("boxes", pa.list_(pa.float64())),
        ("picture", pa.binary()),
    ]
)
"""Rows of `heatmaps/`: one for each (checkpoint, attribution, layer, test image).

`map` is the signed map at input resolution, divided by its largest absolute value: `size` rows of
`size` little-endian float16. `boxes` holds four numbers (xmin, ymin, xmax, ymax) for each box of
the class. `picture` is a JPEG of the image at the model's resolution. `probability` is the model's
probability of the class, `prediction` the class with the largest logit.
"""


def config_columns(config: TrialConfig) -> dict[str, Any]:
    """Return the values of `CONFIGURATION_COLUMNS` for a trial."""
    values = {column.name: configured(config, column) for column in CONFIGURATION_COLUMNS}
    return values | {"dataset_options": json.dumps(values["dataset_options"])}


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema; columns that it lacks are null."""
    known = table.select([name for name in schema.names if name in table.column_names])
    both = [schema.empty_table(), known.replace_schema_metadata(None)]
    return pa.concat_tables(both, promote_options="default").select(schema.names)


def to_parquet(table: pa.Table) -> bytes:
    """Serialise a table as Parquet.

    Tables have few rows in many columns, so the overhead of each column dominates. LZ4, no
    statistics and dictionaries only for text are read three times as fast as the defaults with
    Zstandard, and take less space.
    """
    buffer = io.BytesIO()
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table, buffer, compression="lz4", write_statistics=False, use_dictionary=texts or False
    )
    return buffer.getvalue()
