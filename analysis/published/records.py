"""Tables of others as they lie on disk: JSON in its usual shapes, CSV, npz and pt files."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mg_core.errors import InputError

FORMATS = ("json", "jsonl", "csv", "npz", "pt")
KEY = "key"
"""Column of the key of each record, where a file is an object of objects."""


def read_records(kind: str, file: Path, wanted: Collection[str], decimal: str) -> pd.DataFrame:
    """Return a file's records, nested keys joined by dots.

    An object whose values are all objects is one record for each key, which is in the column
    `key`, unless the object itself has all that is wanted.

    Args:
        kind: one of `FORMATS`.
        file: to be read.
        wanted: columns that will be asked for.
        decimal: sign before the decimals of numbers in a CSV file.

    Raises:
        InputError: the file cannot be read as this, or names a column twice.
    """
    try:
        if kind == "csv":
            return _csv(file, decimal)
        if kind == "npz":
            with np.load(file, allow_pickle=False) as arrays:
                return _by_name({name: arrays[name] for name in arrays.files})
        if kind == "pt":
            return _pt(file, wanted)
        text = file.read_text(encoding="utf-8")
        if kind == "jsonl":
            return pd.json_normalize([_parsed(line) for line in text.splitlines() if line])
        if kind == "json":
            return _json(_parsed(text), wanted)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except Exception as error:  # Readers of many formats fail in many ways.
        raise InputError(f"{file}: this table cannot be read: {error}") from None
    raise InputError(f"{file}: say under `format` whether this is {', '.join(FORMATS)}")


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise InputError(f"the key {repeated[0]!r} stands twice")
    return dict(pairs)


def _json(content: Any, wanted: Collection[str]) -> pd.DataFrame:
    if isinstance(content, dict) and content:
        if all(isinstance(value, list) for value in content.values()):
            return pd.DataFrame(content)
        if all(isinstance(value, dict) for value in content.values()):
            single = pd.json_normalize(content)
            return single if set(wanted) <= {*single} else _by_key(content)
    return pd.json_normalize(content)


def _by_key(content: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    records = pd.json_normalize(list(content.values()))
    return records.assign(**{KEY: list(content)})


def _csv(file: Path, decimal: str) -> pd.DataFrame:
    # With decimal commas, fields are parted by something else: the reader looks what.
    options: dict[str, Any] = {"sep": None, "engine": "python"} if decimal != "." else {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        first = lines.readline()
    names = next(csv.reader([first], delimiter=";" if decimal != "." and ";" in first else ","), [])
    _without_repeats([(name.strip(), None) for name in names if name.strip()])
    frame: pd.DataFrame = pd.read_csv(file, encoding="utf-8-sig", **options)
    return frame


def _by_name(arrays: Mapping[str, Any]) -> pd.DataFrame:
    """Return arrays of one length as columns; single numbers are the same in every row."""
    lists = {name: np.asarray(values) for name, values in arrays.items()}
    flat = {name: values for name, values in lists.items() if values.ndim <= 1}
    lengths = {len(values) for values in flat.values() if values.ndim == 1 and len(values) > 1}
    if len(lengths) > 1:
        raise InputError(f"arrays have different lengths: {', '.join(map(str, sorted(lengths)))}")
    n_rows = max(lengths, default=1)
    return pd.DataFrame({n: np.broadcast_to(values, n_rows) for n, values in flat.items()})


def _pt(file: Path, wanted: Collection[str]) -> pd.DataFrame:
    import torch  # Imported here: the other formats do without.

    content = torch.load(file, map_location="cpu", weights_only=True)
    return _json(_plain(content), wanted)


def _plain(value: Any) -> Any:
    """Return numbers in place of tensors of one number, and nothing in place of larger ones."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "numel"):
        return value.item() if value.numel() == 1 else None
    return value


def to_numbers(values: pd.Series, name: str, decimal: str, percent: bool) -> pd.Series:
    """Return a column's numbers; texts may end in % where they are said to be percentages.

    Raises:
        InputError: one is no number; the message says which, and what would make it one.
    """
    texts = values.map(lambda value: isinstance(value, str))
    if texts.any():
        written = values[texts].str.strip()
        if percent:
            written = written.str.removesuffix("%").str.strip()
        if decimal != ".":
            written = written.str.replace(decimal, ".", regex=False)
        values = values.astype(object).mask(texts, written)
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    wrong = values[numbers.isna() & values.notna() & (values != "")]
    if len(wrong):
        first = str(wrong.iloc[0])
        hint = "; say `percent: true`" if first.endswith("%") and not percent else ""
        hint = hint or ("; say `decimal: ','`" if re.fullmatch(r"-?\d+,\d+%?", first) else "")
        raise InputError(f"column {name!r} holds no numbers: {first!r} is none{hint}")
    if numbers.isin([float("inf"), float("-inf")]).any():
        raise InputError(f"column {name!r} holds infinite values; leave those fields empty")
    return numbers
