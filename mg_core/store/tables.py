"""Arrow schemas of the store's tables, and tables as Parquet bytes."""

from __future__ import annotations

import errno
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mg_core.columns import (
    COLUMNS,
    CONFIGURATION_COLUMNS,
    KEY_COLUMNS,
    TABLE,
    TEST_TABLE,
    Column,
    configured,
)
from mg_core.config import TrialConfig
from mg_core.errors import DamagedError

TYPES = {
    "text": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "list": pa.list_(pa.float64()),
    "texts": pa.list_(pa.string()),
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


def with_usual(table: pa.Table, names: Sequence[str], kinds: Sequence[str]) -> pa.Table:
    """Add axes that a file is too old to have; its trials have their usual values.

    `kinds` has the kind of each row's trial: a baseline has no value of the guidance.
    """
    for name in names:
        axis = COLUMNS[name]
        if name in table.column_names or axis.usual in (..., None):
            continue
        has_it = [not axis.is_of_guidance or kind == "guided" for kind in kinds]
        if any(has_it):
            values = [axis.usual if own else None for own in has_it]
            table = table.append_column(name, pa.array(values, TYPES[axis.type]))
    return table


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema; columns that it lacks are null."""
    kinds = table["kind"].to_pylist() if "kind" in table.column_names else []
    table = with_usual(table, schema.names, kinds)
    known = table.select([name for name in schema.names if name in table.column_names])
    both = [schema.empty_table(), known.replace_schema_metadata(None)]
    return pa.concat_tables(both, promote_options="default").select(schema.names)


def to_parquet(table: pa.Table) -> bytes:
    """Serialise a table in memory, with checksums of its pages and of the whole file.

    Tables have few rows in many columns, so what costs is each column's own: LZ4, no statistics,
    and dictionaries for text alone are read three times as fast as the defaults with Zstandard,
    and take less space.
    """
    buffer = io.BytesIO()
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table,
        buffer,
        compression="lz4",
        write_statistics=False,
        use_dictionary=texts or False,
        write_page_checksum=True,
    )
    data = buffer.getvalue()
    end = _footer_start(data)
    return b"".join([data[:end], SEAL, _checksum(data[:end], data[end:]), data[end:]])


def read_parquet(data: bytes, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, once the checksum of its file is right; files of old versions have none.

    Args:
        data: content of the file.
        key: its key, for the error message.
        columns: names of the columns to read; those that the file lacks are left out.

    Raises:
        DamagedError: the checksum is wrong, or this is no Parquet file.
    """
    check_seal(data, key)
    try:
        # The files are small: threads inside one of them cost more than they save.
        file = pq.ParquetFile(pa.BufferReader(data))
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(key, error) from None


def check_seal(data: bytes, key: str) -> None:
    """Refuse a file whose checksum is wrong; files of old versions have none."""
    end = _footer_start(data)
    start = end - len(SEAL) - 4
    is_sealed = start > 0 and data[start : end - 4] == SEAL
    if is_sealed and data[end - 4 : end] != _checksum(data[:start], data[end:]):
        raise damaged(key, "its checksum is wrong")


def damaged(key: str, error: object) -> DamagedError:
    """Return the error that a file of the store is damaged."""
    reason = " ".join(str(error).split())
    return DamagedError(
        errno.EIO, f"{key} is damaged ({reason}); mg-sweep verify says what repairs it"
    )


SEAL = b"MG-CRC32"
"""Stands before Parquet's footer, followed by the checksum of all other bytes of the file.

Parquet's readers go by the offsets in the footer and skip it.
"""


def _footer_start(data: bytes) -> int:
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def _checksum(*parts: bytes) -> bytes:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value.to_bytes(4, "little")
