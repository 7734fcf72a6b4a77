"""Result tables of others, loaded beside one's own through a small mapping file.

```yaml
name: re-run of 2024
files: results/{model}_{loss}_{layer}.json   # names in braces become columns
format: csv                                  # json, jsonl or csv; by the ending where not given
columns: {test_f1: F1, test_epg: EPG, test_iou: IoU, loss: loc_loss}   # ours: theirs
values: {dataset: voc2007, attribution: bcos}  # columns that are the same in every row
rename: {loss: {Energy: energy, L1: l1}, model: {resnet50: bcos_resnet50}}
percent: true                                # their metrics are percentages
```
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from mg_core.attributions import ATTRIBUTIONS, INPUT
from mg_core.columns import COLUMNS, CONFIGURATION, KEY
from mg_core.config import Frozen, parse
from mg_core.errors import InputError
from mg_core.losses import LOSSES
from mg_core.models import MODELS
from mg_core.paths import with_home
from mg_core.yaml_text import read_yaml

Scalar = str | int | float | bool | None
REQUIRED = ("model", "attribution", "layer")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
PIECE = re.compile(r"\{\w+\}|\*|[^{*]+|\{")
KNOWN: dict[str, Collection[str]] = {
    "model": MODELS,
    "attribution": ATTRIBUTIONS,
    "layer": (INPUT, "mid1", "mid2", "mid3", "final"),
    "loss": LOSSES,
}
"""Values that tell how a file's name is cut, where there is more than one way."""


class Mapping(Frozen):
    """How the columns of somebody else's tables are called here.

    The pattern of `files` is relative to the mapping file: `*` matches anything in a name, and
    `{column}` does so, too, and puts it into that column. Where a name can be cut in more than one
    way, the one whose values are known, here or under `rename`, counts. Nested keys of JSON are
    joined by dots; an object of objects is a row for each.
    """

    name: Annotated[str, Field(min_length=1)]
    files: str
    format: Literal["json", "jsonl", "csv"] | None = None
    columns: dict[str, str]
    values: dict[str, Scalar] = Field(default_factory=dict)
    rename: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    percent: bool = False


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
    for name in frame:
        if str(name).startswith(("val_", "test_")):
            frame[name] = _numbers(frame[name], str(name), file) / (100 if mapping.percent else 1)
    for name in ("epoch", "seed", "localization_weight"):
        frame[name] = _numbers(frame[name], name, file) if name in frame else None
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
    named = [*mapping.columns, *mapping.values, *PLACEHOLDER.findall(mapping.files)]
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
    found = []
    for candidate in sorted(file.parent.glob(PLACEHOLDER.sub("*", mapping.files))):
        name = candidate.relative_to(file.parent).as_posix()
        cuts = [dict(cut) for cut in dict.fromkeys(_cuts(PIECE.findall(mapping.files), name))]
        if len(cuts) > 1:
            known = [cut for cut in cuts if all(_is_known(mapping, *item) for item in cut.items())]
            cuts = known if len(known) == 1 else cuts
        if len(cuts) > 1:
            shown = " or ".join(str(cut) for cut in cuts[:2])
            raise InputError(
                f"{file}: the name of {candidate} can be cut in more than one way by "
                f"{mapping.files!r}: {shown}; name its values under `rename`, or narrow the pattern"
            )
        found += [(candidate, cut) for cut in cuts]
    if not found:
        raise InputError(f"{file}: no file matches {mapping.files!r} in {file.parent}")
    return found


def _cuts(pieces: Sequence[str], name: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield the columns and values of each way in which a name can fit a pattern's pieces."""
    if not pieces:
        yield from [()] if not name else []
        return
    piece, *rest = pieces
    column = PLACEHOLDER.fullmatch(piece)
    if not (column or piece == "*"):
        yield from _cuts(rest, name.removeprefix(piece)) if name.startswith(piece) else []
        return
    longest = len(name.partition("/")[0])
    for end in range(1 if column else 0, longest + 1):
        own = ((column[1], name[:end]),) if column else ()
        yield from (own + further for further in _cuts(rest, name[end:]))


def _is_known(mapping: Mapping, column: str, value: str) -> bool:
    """Say whether a value is one that the mapping translates, or that we have too."""
    own = mapping.rename.get(column, {})
    names = [*own, *own.values(), *KNOWN.get(column, () if own else (value,))]
    return value in names


def _table(mapping: Mapping, file: Path, named: dict[str, str]) -> pd.DataFrame:
    kind = mapping.format or file.suffix.lstrip(".")
    theirs = _records(kind, file, mapping.columns.values())
    missing = [name for name in mapping.columns.values() if name not in theirs]
    if missing:
        found = ", ".join(map(str, theirs))
        raise InputError(f"{file}: there is no column {missing[0]!r}; found {found}")
    frame = pd.DataFrame({ours: theirs[name] for ours, name in mapping.columns.items()})
    for name, value in {**mapping.values, **named}.items():
        frame[name] = value
    for name, values in mapping.rename.items():
        if name in frame:
            frame[name] = [values.get(str(value), value) for value in frame[name]]
    return frame


def _records(kind: str, file: Path, wanted: Iterable[str]) -> pd.DataFrame:
    try:
        if kind == "csv":
            return pd.read_csv(file)
        text = file.read_text(encoding="utf-8")
        if kind == "jsonl":
            return pd.json_normalize([json.loads(line) for line in text.splitlines() if line])
        if kind != "json":
            raise InputError(f"{file}: say under `format` whether this is json, jsonl or csv")
        content: Any = json.loads(text)
        lists = isinstance(content, dict) and all(isinstance(v, list) for v in content.values())
        if lists:
            return pd.DataFrame(content)
        whole = pd.json_normalize(content)
        by_name = isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
        if by_name and not set(wanted) <= set(whole):
            # A record for each checkpoint, by the name of its file.
            return pd.json_normalize(list(content.values()))
        return whole
    except (OSError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise InputError(f"{file}: this table cannot be read: {error}") from None


def _numbers(values: pd.Series, name: str, file: Path) -> pd.Series:
    try:
        numbers: pd.Series = pd.to_numeric(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: column {name!r} holds no numbers: {error}") from None
    if numbers.isin([float("inf"), float("-inf")]).any():
        raise InputError(f"{file}: column {name!r} holds infinite values; leave those fields empty")
    return numbers


def _completed(frame: pd.DataFrame, mapping: Mapping) -> pd.DataFrame:
    for name in [*CONFIGURATION, *KEY, "baseline"]:
        if name not in frame:
            frame[name] = None
    is_reference = frame["loss"].isna()
    frame = frame.assign(
        guided_attribution=frame["guided_attribution"].fillna(frame["attribution"]),
        guided_layer=frame["guided_layer"].fillna(frame["layer"]),
        baseline=mapping.name,
        trial_id=frame["trial_id"].fillna(mapping.name),
        epoch=pd.to_numeric(frame["epoch"]).fillna(0).astype("int64"),
        is_reference=is_reference,
        kind="guided",
        source=mapping.name,
        front=-1,
    )
    frame["localization_weight"] = pd.to_numeric(frame["localization_weight"])
    frame["seed"] = pd.to_numeric(frame["seed"]).fillna(0).astype("int64")
    return frame
