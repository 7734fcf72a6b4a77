"""Data of the report's front explorer: points, and strips of heat maps to look at."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from analysis.heatmaps import (
    HeatMap,
    checkpoint_of,
    has_heatmaps,
    load_heatmaps,
    overlay,
    task_of,
)
from analysis.plots import style
from analysis.published import beside
from analysis.results import Results
from analysis.settings import SETTING, by_setting
from mg_core.config import EvaluationPair

METRICS = {
    "f1": "F1",
    "map": "mAP",
    "epg": "EPG",
    "iou": "IoU",
    "iou_at_0.5": "IoU at 0.5",
    "on_object": "on-object energy",
    "accuracy": "accuracy",
    "accuracy_worst_group": "worst-group accuracy",
}
CATEGORIES = {
    "loss": "loss",
    "model": "model",
    "guided_attribution": "guided attribution",
    "guided_layer": "guided layer",
    "attribution": "judged attribution",
    "layer": "judged layer",
    "localization_weight": "λ",
    "annotated_fraction": "share of boxes",
    "box_dilation": "dilation",
    "task": "task",
    "seed": "seed",
    "setting": "setting",
    "source": "source",
}
MOST_STRIPS = 300
"""Checkpoints whose heat maps are in the page; on larger sweeps the best ones of each front."""
STRIP_IMAGES = 5
SIDE = 96
"""Pixels of one image in a strip."""
QUALITY = 72
BOX = (0, 183, 216)


def explorer_data(results: Results) -> dict[str, Any]:
    """Return what the explorer shows: selected checkpoints, baselines, and heat maps.

    Values are percent, rounded to hundredths; categories are numbers of their levels. `maps` holds
    strips by key, and each point the keys of its own and of its baseline's.
    """
    points = _points(results)
    strips, keys = _strips(results, points)
    categories = {
        name: label
        for name, label in CATEGORIES.items()
        if (name in points and points[name].nunique() > 1) or name == "loss"
    }
    metrics = {
        name: label
        for name, label in METRICS.items()
        if any(
            points.get(f"{split}_{name}", pd.Series()).notna().any() for split in ("val", "test")
        )
    }
    return {
        "name": results.name,
        "categories": {name: _levels(points, name) for name in categories},
        "labels": categories,
        "metrics": metrics,
        "marks": {
            loss: {"colour": mark.colour, "symbol": _SYMBOLS.get(mark.marker, "circle")}
            for loss, mark in style.marks(points["loss"].dropna().astype(str)).items()
        },
        "points": {
            "trial": points["trial_id"].astype(str).tolist(),
            "epoch": points["epoch"].astype(int).tolist(),
            "reference": points["is_reference"].astype(int).tolist(),
            "start": points["seed"].astype(str).str.cat(points["baseline"].astype(str)).tolist(),
            "describe": [_describe(row) for row in _records(points)],
            "maps": keys,
            **{
                f"{split}_{name}": _percent(points[f"{split}_{name}"])
                for split in ("val", "test")
                for name in metrics
                if f"{split}_{name}" in points
            },
        },
        "strips": strips,
    }


_SYMBOLS = {
    "o": "circle",
    "^": "triangle-up",
    "p": "pentagon",
    "D": "diamond",
    "s": "square",
    "v": "triangle-down",
    "h": "hexagon",
    "P": "cross",
    "<": "triangle-left",
}


def _points(results: Results) -> pd.DataFrame:
    rows = beside(results.tested, results.published)
    parts = [setting.frame.assign(setting=setting.label) for setting in by_setting(rows)]
    if not parts:
        empty: pd.DataFrame = rows.assign(setting=[])
        return empty
    points = pd.concat(parts).sort_values(["setting", "model", "epoch"], kind="stable")
    # The baseline of a panel is the same checkpoint for all trials that start from it.
    same = [*SETTING, "model", "attribution", "layer", "guided_layer", "seed", "baseline"]
    is_repeated = points["is_reference"] & points.duplicated([*same, "is_reference"])
    typed: pd.DataFrame = points[~is_repeated].reset_index(drop=True)
    return typed


def _levels(points: pd.DataFrame, name: str) -> dict[str, Any]:
    values = points[name]
    shown = values.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    shown = shown.where(values.notna() & ~(points["is_reference"] & (name == "loss")), "baseline")
    known = sorted(shown.unique(), key=_as_number)
    if name in ("loss", "layer", "guided_layer"):
        known = style.in_order(known, style.LOSSES if name == "loss" else style.LAYERS)
    place = {level: number for number, level in enumerate(known)}
    return {"levels": known, "codes": shown.map(place).astype(int).tolist()}


def _records(points: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in points.to_dict("records")]


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
        f"{where}{guided}, {row['loss']} λ = {row['localization_weight']:g}, seed {row['seed']}, "
        f"epoch {row['epoch']}, trial {row['trial_id']}"
    )


def _percent(values: pd.Series) -> list[float | None]:
    numbers = (100 * values.astype(float)).round(2)
    return [None if number != number else number for number in numbers]


def _strips(results: Results, points: pd.DataFrame) -> tuple[dict[str, str], list[list[str]]]:
    """Return strips by key, and for each point the keys of before and after, "" for none."""
    wanted: dict[str, tuple[str, int, EvaluationPair]] = {}
    keys: list[list[str]] = []
    shown = _most_telling(points)
    for number, row in enumerate(_records(points)):
        pair = EvaluationPair(attribution=row["attribution"], layer=row["layer"])
        own = []
        for epoch in (0, int(row["epoch"])):
            key = _key(results, str(row["trial_id"]), epoch, pair)
            if key and (number in shown or epoch == 0):
                wanted.setdefault(key, (str(row["trial_id"]), epoch, pair))
                own.append(key)
            else:
                own.append("")
        keys.append(own)
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda where: _strip(load_heatmaps(results, *where)), wanted.values())
        strips = {key: strip for key, strip in zip(wanted, made, strict=True) if strip}
    return strips, keys


def _key(results: Results, trial_id: str, epoch: int, pair: EvaluationPair) -> str:
    if not has_heatmaps(results, trial_id, epoch, pair):
        return ""
    owner, at = checkpoint_of(results, trial_id, epoch)
    return f"{owner}-{at}-{pair}-{task_of(results.trials[trial_id])}"


def _most_telling(points: pd.DataFrame) -> set[int]:
    """Return the positions of the points whose heat maps are shown."""
    guided = points[~points["is_reference"]]
    if len(guided) <= MOST_STRIPS:
        return set(guided.index)
    best: set[int] = set()
    for metric in ("val_epg", "val_f1", "val_iou"):
        ranked = guided.sort_values(metric, ascending=False, kind="stable")
        best |= set(ranked.drop_duplicates("front").index[: MOST_STRIPS // 3])
    return best


def _strip(maps: list[HeatMap]) -> str:
    """Draw the first maps side by side, as the address of an embedded picture."""
    if not maps:
        return ""
    tiles = [_tile(heat_map) for heat_map in maps[:STRIP_IMAGES]]
    strip = Image.new("RGB", ((SIDE + 2) * len(tiles) - 2, SIDE), "white")
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (SIDE + 2), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _tile(heat_map: HeatMap) -> Image.Image:
    size = heat_map.map.shape[0]
    if size > SIDE:
        # Energy is averaged, not sampled: a thin bright line stays as bright as it is.
        small = Image.fromarray(np.maximum(heat_map.map, 0)).resize(
            (SIDE, SIDE), Image.Resampling.BOX
        )
        picture = Image.fromarray(heat_map.picture).resize((SIDE, SIDE), Image.Resampling.BOX)
        heat_map = replace(heat_map, map=np.asarray(small), picture=np.asarray(picture))
    tile = Image.fromarray(overlay(heat_map)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(tile)
    for box in heat_map.boxes * (SIDE / size):
        left, top, right, bottom = box
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=BOX)
    return tile


def embedded(data: dict[str, Any]) -> str:
    """Write data as JSON that may stand inside a script element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")
