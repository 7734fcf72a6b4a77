"""Data of the report's front explorer: its points, categories, metrics and heat maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

import pandas as pd

from analysis.page.strips import strips_of
from analysis.plots import style
from analysis.plots.cells import records
from analysis.published import beside
from analysis.results import Results
from analysis.settings import SETTING, by_setting, distinguishing
from mg_core.columns import AXES, BY_METRIC, COLUMNS, PAIR, SCORES, SPLITS

CATEGORIES = {
    **{column.name: column.menu for column in AXES},
    **{name: COLUMNS[name].menu for name in PAIR},
    "recipe": "training",
    "setting": "setting",
    "source": "source",
}
TRAINING = [column.name for column in AXES if column.part == "training" and column.name != "seed"]
"""How a trial is trained. Trials that differ in it are in panels of their own."""
LONGEST = 60
"""Characters of a recipe in menus."""
SYMBOLS = {
    "o": "circle", "^": "triangle-up", "p": "pentagon", "D": "diamond", "s": "square",
    "v": "triangle-down", "h": "hexagon", "P": "cross", "<": "triangle-left",
    ">": "triangle-right", "*": "star", "d": "diamond-tall", "8": "octagon", "H": "hexagon2",
}  # fmt: skip
"""Plotly's name of each marker of `analysis.plots.style`."""


def explorer_data(results: Results) -> dict[str, Any]:
    """Return what the explorer shows: selected checkpoints, baselines, and heat maps.

    Values are percent, rounded to hundredths; categories are numbers of their levels. `strips`
    holds pictures by key, and `maps` for each point the keys of its baseline's and its own;
    `lower` names the metrics of which less is better.
    """
    points = _points(results)
    strips, keys = strips_of(results, points)
    categories = {
        name: label
        for name, label in CATEGORIES.items()
        if (name in points and points[name].nunique(dropna=not _may_lack(name)) > 1)
        or name == "loss"
    }
    metrics = {
        name: BY_METRIC[name].menu
        for name in SCORES
        if any(points.get(f"{split}_{name}", pd.Series()).notna().any() for split in SPLITS)
    }
    shown = [f"{split}_{name}" for split in SPLITS for name in metrics]
    return {
        "name": results.name,
        "categories": {name: _levels(points, name) for name in categories},
        "labels": categories,
        "metrics": metrics,
        "lower": [name for name in metrics if BY_METRIC[name].better == "lower"],
        "marks": {
            loss: {"colour": mark.colour, "symbol": SYMBOLS.get(mark.marker, "circle")}
            for loss, mark in style.marks(points["loss"].dropna().astype(str)).items()
        },
        "points": {
            "trial": points["trial_id"].astype(str).tolist(),
            "epoch": points["epoch"].astype(int).tolist(),
            "reference": points["is_reference"].astype(int).tolist(),
            "start": points["seed"].astype(str).str.cat(points["baseline"].astype(str)).tolist(),
            "describe": [_describe(row) for row in records(points)],
            "maps": keys,
            **{name: _percent(points[name]) for name in shown if name in points},
        },
        "strips": strips,
    }


def _points(results: Results) -> pd.DataFrame:
    rows = beside(results.tested, results.published)
    parts = [setting.frame.assign(setting=setting.label) for setting in by_setting(rows)]
    if not parts:
        return rows.assign(setting=[], recipe=[])
    points = _with_recipes(pd.concat(parts)).sort_values(
        ["setting", "model", "epoch"], kind="stable"
    )
    # The baseline of a panel is the same checkpoint for all trials that start from it.
    same = [*SETTING, *style.PLACE, "guided_layer", "seed", "baseline", "is_reference"]
    is_repeated = points["is_reference"] & points.duplicated(same)
    return points[~is_repeated].reset_index(drop=True)


def _with_recipes(points: pd.DataFrame) -> pd.DataFrame:
    """Add in words how a trial was trained, as far as trials differ in that."""
    differing = distinguishing(points, TRAINING)
    recipes = [
        ", ".join(
            COLUMNS[name].in_words(value)
            for name, value in zip(differing, values, strict=True)
            if not pd.isna(value)
        )
        for values in points[differing].itertuples(index=False, name=None)
    ]
    return points.assign(recipe=pd.Series(recipes, points.index, dtype=object).map(_short(recipes)))


def _short(texts: Sequence[str]) -> dict[str, str]:
    """Return texts that fit into a menu, different ones for different texts."""
    found: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
        n_same = sum(other.startswith(short) for other in found.values())
        found[text] = f"{short} ({n_same + 1})" if n_same and short != text else short
    return found


def _levels(points: pd.DataFrame, name: str) -> dict[str, Any]:
    values = points[name]
    shown = values.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    shown = shown.where(values.notna(), "none" if _may_lack(name) else "baseline")
    shown = shown.mask(points["is_reference"] & (name == "loss"), "baseline")
    known = sorted(shown.unique(), key=_as_number)
    if name in ("loss", "layer", "guided_layer"):
        known = style.in_order(known, style.LOSSES if name == "loss" else style.LAYERS)
    place = {level: number for number, level in enumerate(known)}
    return {"levels": known, "codes": shown.map(place).astype(int).tolist()}


def _may_lack(name: str) -> bool:
    """Tell whether a missing value is one of a category's, as for trials without augmentation."""
    return name in COLUMNS and COLUMNS[name].usual is None


def _as_number(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _describe(row: dict[str, Any]) -> str:
    where = f"{row['model']}, {row['attribution']} at {row['layer']}"
    if row["is_reference"]:
        return f"baseline of {where}, seed {row['seed']}"
    guided = ""
    if (row["guided_attribution"], row["guided_layer"]) != (row["attribution"], row["layer"]):
        guided = f", guided {row['guided_attribution']} at {row['guided_layer']}"
    return (
        f"{where}{guided}, {row['loss']} λ = {row['localization_weight']:g}, "
        f"{row['recipe']}{', ' if row['recipe'] else ''}seed {row['seed']}, "
        f"epoch {row['epoch']}, trial {row['trial_id']}"
    )


def _percent(values: pd.Series) -> list[float | None]:
    numbers = (100 * values.astype(float)).round(2)
    return [number if isfinite(number) else None for number in numbers]


def embedded(data: dict[str, Any]) -> str:
    """Write data as JSON that may stand inside a script element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")
