"""Naming the settings of a sweep: what its figures and tables are split by, and told apart by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from mg_core.columns import COLUMNS, CONFIGURATION
from mg_core.config import digest

PANELS = ["model", "weights", "guided_attribution", "guided_layer", "loss"]
"""What one figure shows side by side; everything else of a configuration splits figures."""

LONGEST_SLUG = 150
"""Characters; file systems allow 255 in a name."""

SETTING = [name for name in CONFIGURATION if name not in PANELS]

DATASETS = {
    "voc2007": "VOC2007",
    "coco2014": "COCO2014",
    "waterbirds100": "Waterbirds-100",
    "shapes": "Shapes",
    "decoy": "Decoy",
}


@dataclass(frozen=True)
class Setting:
    """Rows that belong into one figure, and what tells them from the store's others.

    `label` says it in captions, `slug` in file names; the slug of a store's only setting is empty.
    """

    label: str
    slug: str
    frame: pd.DataFrame


def by_setting(frame: pd.DataFrame, shown: Sequence[str] = ()) -> Iterator[Setting]:
    """Split rows of guided trials into those that may stand in one figure.

    `shown` names parts of a setting that the figure itself shows side by side.
    """
    own = [name for name in SETTING if name not in shown]
    told_apart = distinguishing(frame, own)
    groups = frame.groupby(own, dropna=False, sort=True)
    # The most boxes first: what was guided by fewer is compared with them.
    for values, rows in sorted(groups, key=lambda group: -group[1]["annotated_fraction"].max()):
        setting = dict(zip(own, cast("tuple[Any, ...]", values), strict=True))
        differing = {name: setting[name] for name in told_apart if not pd.isna(setting[name])}
        dataset = str(setting["dataset"])
        slug = "-".join(f"{name}={value}" for name, value in differing.items())
        differing.pop("dataset", None)
        phrases = [COLUMNS[name].in_words(value) for name, value in differing.items()]
        label = ", ".join([DATASETS.get(dataset, dataset), *phrases])
        yield Setting(label, _file_name(slug), rows)


def _file_name(slug: str) -> str:
    """Return what may stand in the name of a file; of a long text its beginning and a digest."""
    safe = re.sub(r"[^\w.=-]+", "_", slug)
    return safe if len(safe) <= LONGEST_SLUG else f"{safe[:LONGEST_SLUG]}-{digest(slug)[:6]}"


def distinguishing(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the fewest columns that tell the rows apart; earlier columns come first.

    Missing values count as values. A column that follows from others is left out, such as the
    epochs that each data set was trained for.
    """
    kept: list[str] = []
    groups = pd.Series(0, index=frame.index)
    for name in columns:
        finer = frame.groupby([groups, frame[name]], dropna=False, sort=False).ngroup()
        if finer.nunique() > groups.nunique():
            kept, groups = [*kept, name], finer
    return kept


def describing(frame: pd.DataFrame) -> list[str]:
    """Return the columns that name each configuration of guided rows, apart from its loss."""
    own = [*distinguishing(frame, SETTING), "model", *distinguishing(frame, ["weights"])]
    return [*own, "guided_attribution", "guided_layer"]
