"""Grids of pictures and heat maps: what every cell shows as a frame, and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from analysis.heatmaps import HeatMap, HeatMaps, Key
from analysis.plots import style
from mg_core.attributions.overlay import overlay
from mg_core.columns import KEY
from mg_core.config import EvaluationPair
from mg_core.redaction import harmless

MOST_IMAGES = 4
"""Test images in one figure."""
BOX = "#00b7d8"
GAP = 0.015
"""Between cells, in inches and as a share of their size."""
PICTURE, MAP, BOXES = "picture", "map", "boxes"


@dataclass(frozen=True)
class Column:
    """One column of a figure, with the chosen checkpoint (`row`) that it shows.

    Its kind is `PICTURE`, `MAP`, or `BOXES` for pictures with the boxes that training used.
    """

    label: str
    kind: str
    row: Mapping[str, Any]


def cells(
    heatmaps: HeatMaps, columns: Sequence[Column], images: Sequence[int] = range(MOST_IMAGES)
) -> pd.DataFrame:
    """Return what every cell of a figure shows, one row each, column by column.

    `images` are positions of test images; `heat_map` (S, S), `pixels` (S, S, 3) and `boxes`
    (n, 4) are arrays.
    """
    found = []
    for place, column in enumerate(columns):
        maps = heatmaps.load(key_of(heatmaps, column.row))
        is_outside = heatmaps.is_outside(column.row["trial_id"])
        for number in images:
            if number >= len(maps):
                continue
            shown = maps[number]
            found.append(
                {name: column.row[name] for name in (*KEY, "model", "loss", "box_dilation")}
                | {"row": number, "column": place, "column_label": column.label}
                | {"row_label": "", "kind": column.kind, "number": number, "image": shown.image}
                | {"class_name": shown.class_name, "prediction": shown.prediction}
                | {"probability": shown.probability, "epg": epg_of(shown, is_outside)}
                | {"heat_map": shown.map, "pixels": shown.picture, "boxes": shown.boxes}
            )
    return pd.DataFrame(found)


def key_of(heatmaps: HeatMaps, row: Mapping[str, Any], epoch: int | None = None) -> Key | None:
    """Return the key of a row's heat maps, or of those of another epoch of its trial."""
    pair = EvaluationPair(attribution=row["attribution"], layer=row["layer"])
    return heatmaps.key(row["trial_id"], int(row["epoch"]) if epoch is None else epoch, pair)


def epg_of(heat_map: HeatMap, is_outside: bool = False) -> float:
    """Return the share of a map's positive energy inside its boxes, or outside of them."""
    positive = heat_map.map.clip(0).astype(float)
    mask = positive * 0
    for left, top, right, bottom in heat_map.boxes.astype(int):
        mask[top:bottom, left:right] = 1
    inside = float((positive * mask).sum())
    total = float(positive.sum())
    share = inside / total if total > 0 else 0.0
    return 1 - share if is_outside and total > 0 else share


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def draw_cells(data: pd.DataFrame) -> Figure:
    """Draw a grid of pictures and maps, the boxes of the class outlined."""
    rows = sorted(data["row"].unique())
    columns = sorted(data["column"].unique())
    side = min(1.15, style.TEXT_WIDTH / len(columns))
    with style.house_style():
        size = (side * len(columns) + 0.15, (side + 0.17) * len(rows) + 0.35)
        layout = ConstrainedLayoutEngine(w_pad=GAP, h_pad=GAP, wspace=GAP, hspace=GAP)
        figure = Figure(figsize=size, layout=layout)
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for cell in records(data):
            axes = grid[rows.index(cell["row"])][columns.index(cell["column"])]
            _draw_cell(axes, cell)
            if cell["row"] == rows[0]:
                axes.set_title(cell["column_label"], fontsize=7, pad=2)
        for row, label in data.groupby("row")["row_label"].first().items():
            if label:
                axes = grid[rows.index(row)][0]
                place = {"transform": axes.transAxes, "ha": "right", "va": "center"}
                axes.text(-0.06, 0.5, label, rotation=90, **place)
    return figure


def _draw_cell(axes: Axes, cell: Mapping[str, Any]) -> None:
    pixels = cell["pixels"]
    shown = overlay(pixels, cell["heat_map"]) if cell["kind"] == MAP else pixels
    axes.imshow(shown, interpolation="nearest")
    # Fig. 11 shows the image alone before the same image with growing boxes.
    if not (cell["kind"] == PICTURE and cell["epoch"] == 0):
        dilation = cell["box_dilation"] if cell["kind"] == BOXES else 0.0
        for box in cell["boxes"]:
            _draw_box(axes, box, dilation, len(pixels))
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
    axes.text(0.5, -0.03, harmless(_below(cell)), fontsize=6, parse_math=False, **place)


def _draw_box(axes: Axes, box: Sequence[float], dilation: float, size: int) -> None:
    left, top, right, bottom = box
    wide, high = int(dilation * (right - left)), int(dilation * (bottom - top))
    if dilation:
        left, top = max(0, left - wide), max(0, top - high)
        right, bottom = min(size, right + wide), min(size, bottom + high)
    corner = (left - 0.5, top - 0.5)
    width, height = right - left, bottom - top
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=BOX, linewidth=0.9))


def _below(cell: Mapping[str, Any]) -> str:
    if cell["kind"] != MAP:
        return str(cell["class_name"]) if cell["kind"] == PICTURE else ""
    if not cell.get("has_groups"):
        return f"{100 * cell['epg']:.0f} %"
    is_right = cell["prediction"] == cell["class_name"]
    confidence = cell["probability"] if is_right else 1 - cell["probability"]
    return f"{'' if is_right else '✗ '}{cell['prediction']} {100 * confidence:.0f} %"
