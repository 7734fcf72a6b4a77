"""Result tables of others, loaded beside one's own through a small mapping file.

```yaml
name: re-run of 2024
files:                                       # one pattern or several
  - results/{model}_{loss}_{layer}.json      # names in braces become columns
  - results/{model}_{loss}_{layer}_dilation_{box_dilation}.json
keys: "{epoch}.pt"                           # of JSON whose records have keys, parts are columns
format: csv                                  # json, jsonl, csv, npz, pt; otherwise by the ending
columns: {test_f1: F1, test_epg: EPG, test_iou: IoU, loss: loc_loss}   # ours: theirs
values: {dataset: voc2007, attribution: bcos}  # columns that are the same in every row
rename: {loss: {Energy: energy, L1: l1, none: null}, model: {resnet50: bcos_resnet50}}
percent: true                                # their metrics are percentages, such as 71.5 or 71.5 %
decimal: ","                                 # of numbers such as 71,5
```
"""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, field_validator

from analysis.published.patterns import NUMBERS, as_glob, cut, placeholders
from analysis.published.records import KEY as THEIR_KEY
from analysis.published.records import read_records, to_numbers
from mg_core.attributions import ATTRIBUTIONS, INPUT
from mg_core.columns import COLUMNS, CONFIGURATION, KEY, TABLE
from mg_core.config import Frozen, parse
from mg_core.errors import InputError
from mg_core.losses import LOSSES
from mg_core.models import MODELS
from mg_core.models.library import LAYERS
from mg_core.paths import with_home
from mg_core.yaml_text import read_yaml

Scalar = str | int | float | bool | None
REQUIRED = ("model", "attribution", "layer")
REGISTERED = (
    (("model",), tuple(MODELS)),
    (("attribution", "guided_attribution"), tuple(ATTRIBUTIONS)),
    (("loss",), tuple(LOSSES)),
    (("layer", "guided_layer"), (INPUT, *LAYERS)),
)
"""Columns, and values of theirs that are known."""
ROUNDING = 1e-6
"""By which a share may be above 1, as rounded numbers are."""


class Mapping(Frozen):
    """How the columns of somebody else's tables are called here.

    The patterns of `files` are relative to the mapping file: `*` matches anything in a name, and
    `{column}` does so, too, and puts it into that column. Where a name can be cut in several ways,
    values that are known decide: those under `rename`, and names of models, attributions, layers
    and losses. `keys` are patterns of the keys of JSON files that hold an object for each record;
    of a key that is a path, its last name counts.
    Nested keys of JSON are joined by dots.
    """

    name: Annotated[str, Field(min_length=1)]
    files: tuple[str, ...]
    keys: tuple[str, ...] = ()
    format: Literal["json", "jsonl", "csv", "npz", "pt"] | None = None
    columns: dict[str, str]
    values: dict[str, Scalar] = Field(default_factory=dict)
    rename: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    percent: bool = False
    decimal: Literal[".", ","] = "."

    @field_validator("files", "keys", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    def known(self) -> dict[str, set[str]]:
        """Return by column the values that may be meant by a part of a name."""
        found: dict[str, set[str]] = {name: set(values) for name, values in self.rename.items()}
        for names, values in REGISTERED:
            for name in names:
                found[name] = {*values, *found.get(name, ())}
        return found


def is_mapping(source: str) -> bool:
    """Say whether a source named on the command line is a mapping file rather than a store."""
    return source.endswith((".yaml", ".yml")) and os.path.isfile(with_home(source))


def read_published(path: str | Path) -> pd.DataFrame:
    """Return the rows of a mapping file's tables, under our names, metrics as fractions.

    A row without a loss is a baseline, the reference of its panel. Rows stand as their authors
    selected them, with the mapping's name in `source`. Values are missing in columns that a
    figure needs and the mapping does not give.

    Raises:
        InputError: the file, a table or a column is not as it should be.
    """
    file = with_home(path)
    mapping = _read_mapping(file)
    tables = [_table(mapping, found, columns) for found, columns in _files(mapping, file)]
    frame = pd.concat(tables, ignore_index=True)
    try:
        frame = _in_numbers(frame, mapping)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return _completed(frame, mapping)


def beside(own: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Put published rows under one's own, which are those of `Results.tested`.

    A value of the configuration that they lack is taken from the own rows of the same data set,
    where those agree on it.
    """
    if published.empty:
        return own
    filled = published.copy()
    for name in CONFIGURATION:
        if name in ("model", "dataset", "loss") or name not in own:
            continue
        for dataset in filled["dataset"].dropna().unique():
            known = own.loc[own["dataset"] == dataset, name].drop_duplicates()
            here = filled["dataset"] == dataset
            if len(known) == 1 and filled.loc[here, name].isna().all():
                filled[name] = filled[name].astype(object)
                filled.loc[here, name] = known.iloc[0]
    if own.empty:
        return filled
    filled = filled.astype({n: own[n].dtype for n in filled if n in own}, errors="ignore")
    return pd.concat([own, filled], ignore_index=True)


def _read_mapping(file: Path) -> Mapping:
    content = read_yaml(file, "mapping file")
    if isinstance(content, dict) and {"grid", "store"} <= content.keys():
        raise InputError(f"{file} is a sweep file; name its store, {content['store']}, instead")
    if not isinstance(content, dict):
        raise InputError(f"{file}: a mapping file has keys: {', '.join(Mapping.model_fields)}")
    mapping: Mapping = parse(Mapping, content, str(file))
    parts = placeholders([*mapping.files, *mapping.keys])
    named = [*mapping.columns, *mapping.values, *parts]
    for column in [*named, *mapping.rename]:
        if column not in COLUMNS:
            raise InputError(f"{file}: unknown column {column!r}; choose from {', '.join(COLUMNS)}")
    missing = [name for name in REQUIRED if name not in named]
    if missing:
        raise InputError(
            f"{file}: nothing gives the column {missing[0]!r}; name it under `columns`, `values` "
            "or as {" + missing[0] + "} in `files`"
        )
    if not any(name.startswith("test_") for name in named):
        raise InputError(f"{file}: `columns` names no test metric, such as test_f1")
    return mapping


def _files(mapping: Mapping, file: Path) -> list[tuple[Path, dict[str, str]]]:
    """Return the files that match a pattern, each with the columns that its name gives."""
    matching = {each for pattern in mapping.files for each in file.parent.glob(as_glob(pattern))}
    found = []
    for candidate in sorted(matching):
        name = candidate.relative_to(file.parent).as_posix()
        try:
            columns = cut(name, mapping.files, mapping.known())
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        if columns is not None:
            found.append((candidate, columns))
    if not found:
        shown = " or ".join(map(repr, mapping.files))
        raise InputError(f"{file}: no file matches {shown} in {file.parent}")
    return found


def _table(mapping: Mapping, file: Path, named: dict[str, str]) -> pd.DataFrame:
    wanted = set(mapping.columns.values()) | ({THEIR_KEY} if mapping.keys else set())
    kind = mapping.format or file.suffix.lstrip(".")
    theirs = read_records(kind, file, wanted, mapping.decimal)
    missing = [name for name in mapping.columns.values() if name not in theirs]
    if missing:
        found = ", ".join(map(str, theirs))
        raise InputError(f"{file}: there is no column {missing[0]!r}; found {found}")
    frame = pd.DataFrame({ours: theirs[name] for ours, name in mapping.columns.items()})
    for name, value in {**mapping.values, **named}.items():
        frame[name] = value
    if mapping.keys:
        if THEIR_KEY not in theirs:
            raise InputError(f"{file}: `keys` is for JSON that holds an object for each record")
        parts = pd.DataFrame(_of_keys(mapping, file, list(theirs[THEIR_KEY])), index=frame.index)
        frame = frame.assign(**{str(name): parts[name] for name in parts})
    for name, values in mapping.rename.items():
        if name in frame:
            shown = ["" if pd.isna(value) else str(value) for value in frame[name]]
            pairs = zip(shown, frame[name], strict=True)
            frame[name] = [values.get(text, value) for text, value in pairs]
    return frame


def _of_keys(mapping: Mapping, file: Path, keys: list[str]) -> list[dict[str, str]]:
    found = []
    for key in keys:
        # A key may be the path of a checkpoint, whose own name says what it is.
        parts = cut(PureWindowsPath(key).name, mapping.keys, mapping.known())
        if parts is None:
            shown = " or ".join(map(repr, mapping.keys))
            raise InputError(f"{file}: the key {key!r} does not match {shown}")
        found.append(parts)
    return found


def _in_numbers(frame: pd.DataFrame, mapping: Mapping) -> pd.DataFrame:
    """Return columns of numbers as numbers, and metrics that are shares as fractions.

    Raises:
        InputError: a value is no number, or shares and percentages are mistaken for each other.
    """
    shares = []
    for name in map(str, frame):
        column = COLUMNS[name]
        if column.type not in NUMBERS:
            continue
        is_metric = column.role == "metric" and column.is_share
        is_percent = mapping.percent and is_metric
        numbers = to_numbers(frame[name], name, mapping.decimal, is_percent)
        frame[name] = numbers / 100 if is_percent else numbers
        shares += [name] if is_metric else []
    largest = frame[shares].max().dropna()
    if mapping.percent and len(largest) and largest.max() <= 0.01 + ROUNDING:
        raise InputError(
            f"no value is above 1, as {100 * largest.iloc[0]:g} in {largest.index[0]!r}: these are "
            "fractions; leave out `percent: true`"
        )
    for name, value in zip(map(str, largest.index), largest, strict=True):
        if value > 1 + ROUNDING and mapping.percent:
            raise InputError(f"column {name!r} holds {100 * value:g} %, more than there can be")
        if value > 1 + ROUNDING:
            raise InputError(
                f"column {name!r} holds {value:g}, more than the whole; say `percent: true` if "
                "these are percentages"
            )
    return frame


def _completed(frame: pd.DataFrame, mapping: Mapping) -> pd.DataFrame:
    for name in [*CONFIGURATION, *KEY, "baseline", "localization_weight", "seed"]:
        if name not in frame:
            frame[name] = None
    for column in TABLE:
        # Where some rows have boxes of another kind, the others have the usual ones.
        if column.part == "boxes" and frame[column.name].notna().any():
            frame[column.name] = frame[column.name].fillna(column.usual)
    is_reference = frame["loss"].isna()
    return frame.assign(
        guided_attribution=frame["guided_attribution"].fillna(frame["attribution"]),
        guided_layer=frame["guided_layer"].fillna(frame["layer"]),
        baseline=mapping.name,
        trial_id=frame["trial_id"].fillna(mapping.name),
        epoch=pd.to_numeric(frame["epoch"]).fillna(0).astype("int64"),
        localization_weight=pd.to_numeric(frame["localization_weight"]),
        seed=pd.to_numeric(frame["seed"]).fillna(0).astype("int64"),
        is_reference=is_reference,
        kind="guided",
        source=mapping.name,
        front=-1,
    )
