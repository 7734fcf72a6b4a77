"""Heat maps of test images before and after guidance (Fig. 2, 9, 11, 13)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from analysis.frame import KEY
from analysis.heatmaps import HeatMap, has_heatmaps, load_heatmaps, overlay
from analysis.pareto import PAIR
from analysis.plots import FIGURES, Drawing, style
from analysis.selection import best_within
from analysis.settings import by_setting
from analysis.tabular.study import SLACK, TABLE_1_SLACK
from mg_core.config import EvaluationPair

if TYPE_CHECKING:
    from analysis.results import Results

MOST_IMAGES = 4
"""Test images in one figure."""
BOX = "#00b7d8"
GAP = 0.015
"""Between cells, in inches and as a share of their size."""
PLACES = (("bcos", "bcos", "input"), ("vanilla", "gradcam", "final"), ("xdnn", "intgrad", "input"))
"""Family, attribution and layer that are shown first, as in the paper."""
PICTURE, MAP, BOXES = "picture", "map", "boxes"


@FIGURES.register("fig2")
def before_and_after(results: Results) -> Iterator[Drawing]:
    """Fig. 2: maps of images before and after guidance by Energy."""
    for label, slug, chosen in _chosen_by_setting(results, "epg", "f1", SLACK):
        losses = style.in_order(chosen["loss"], style.LOSSES)
        rows = chosen[chosen["loss"] == losses[0]]
        places = _places(rows)[:2]
        columns = [_Column("image", PICTURE, places[0])]
        for row in places:
            where = f"{style.ATTRIBUTIONS.get(row['attribution'], row['attribution'])} @ "
            where += style.LAYERS.get(row["layer"], row["layer"])
            columns += [
                _Column(f"{where}\nbefore", MAP, row | {"epoch": 0}),
                _Column(f"{where}\nguided", MAP, row),
            ]
        data = _cells(results, columns)
        caption = (
            f"Fig. 2: attributions of test images of {label} before and after guidance by "
            f"{losses[0]}, checkpoints chosen on validation. Below each map its EPG."
        )
        yield from _drawing("fig2", slug, caption, data, results)


@FIGURES.register("fig9")
def losses_side_by_side(results: Results) -> Iterator[Drawing]:
    """Fig. 9: maps after guidance by each loss."""
    for label, slug, chosen in _chosen_by_setting(results, "epg", "f1", SLACK):
        place = _place_with_most(chosen, "loss")
        losses = style.marks(place["loss"]) if len(place) else {}
        if len(losses) < 2:
            continue
        by_loss = {row["loss"]: row for row in _records(place)}
        first = next(iter(by_loss.values()))
        columns = [
            _Column("image", PICTURE, first),
            _Column("baseline", MAP, first | {"epoch": 0}),
            *(_Column(mark.label, MAP, by_loss[loss]) for loss, mark in losses.items()),
        ]
        caption = (
            f"Fig. 9: attributions of {_where(first)} on test images of {label} before guidance "
            "and after guidance by each loss, checkpoints chosen on validation. Below each map "
            "its EPG."
        )
        yield from _drawing("fig9", slug, caption, _cells(results, columns), results)


@FIGURES.register("fig11")
def dilations_side_by_side(results: Results) -> Iterator[Drawing]:
    """Fig. 11: maps after guidance with boxes that are too large."""
    for label, slug, chosen in _chosen_by_setting(
        results, "epg", "f1", SLACK, shown=["box_dilation"]
    ):
        place = _place_with_most(chosen, "box_dilation")
        sizes = sorted(place["box_dilation"].unique())
        if len(sizes) < 2:
            continue
        losses = [name for name in style.marks(place["loss"]) if name in ("energy", "l1")]
        records = _records(place)
        first = records[0]
        parts = []
        for image in range(2):
            top = [
                _Column("baseline", PICTURE, first | {"epoch": 0}),
                *(_Column(f"{100 * p:g} %", BOXES, first | {"box_dilation": p}) for p in sizes),
            ]
            parts.append(_cells(results, top, [image]).assign(row_label="boxes", row=3 * image))
            for number, loss in enumerate(losses, start=1):
                found = {r["box_dilation"]: r for r in records if r["loss"] == loss}
                line = [
                    _Column("baseline", MAP, first | {"epoch": 0}),
                    *(_Column(f"{100 * p:g} %", MAP, found[p]) for p in sizes if p in found),
                ]
                own = _cells(results, line, [image])
                name = style.LOSSES[loss].label
                parts.append(own.assign(row_label=name, row=3 * image + number))
        caption = (
            f"Fig. 11: attributions of {_where(first)} on test images of {label} after guidance "
            "with boxes that are wider by a share of their size on each side. Below each map its "
            "EPG with the true boxes."
        )
        data = pd.concat(parts, ignore_index=True)
        yield from _drawing("fig11", slug, caption, data, results)


@FIGURES.register("fig13")
def groups(results: Results) -> Iterator[Drawing]:
    """Fig. 13: maps, predictions and confidences on data with groups, for both tasks."""
    if not results.selected["val_accuracy"].notna().any():
        return
    for label, slug, chosen in _chosen_by_setting(
        results, "epg", "accuracy", TABLE_1_SLACK, shown=["task"]
    ):
        place = _place_with_most(chosen, "task")
        records = _records(place)
        if not records:
            continue
        first = min(records, key=lambda row: str(row["task"]))
        columns = [
            _Column("image", PICTURE, first),
            _Column("baseline", MAP, first | {"epoch": 0}),
        ]
        for row in sorted(records, key=lambda row: (str(row["task"]), str(row["loss"]))):
            loss = style.LOSSES[row["loss"]].label if row["loss"] in style.LOSSES else row["loss"]
            columns.append(_Column(f"{loss}\n{row['task']}", MAP, row))
        caption = (
            f"Fig. 13: attributions of {_where(first)} on test images of {label}. Below each map "
            "the prediction of the model and its confidence; ✗ marks wrong ones."
        )
        data = _cells(results, columns).assign(has_groups=True)
        yield from _drawing("fig13", slug, caption, data, results)


@dataclass(frozen=True)
class _Column:
    """One column of a figure: whose maps it shows."""

    label: str
    kind: str
    row: dict[str, Any]


def _chosen_by_setting(
    results: Results, metric: str, constraint: str, slack: float, shown: Sequence[str] = ()
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield per setting the checkpoints of the first seed that were chosen on validation."""
    selected = results.selected
    rows = selected[
        (selected["attribution"] == selected["guided_attribution"])
        & (selected["layer"] == selected["guided_layer"])
    ]
    for setting in by_setting(rows, shown):
        frame = setting.frame
        chosen = best_within(frame.drop(columns="front"), metric, constraint, slack)
        is_made = [_has_maps(results, row) for row in _records(chosen)]
        chosen = chosen[is_made]
        if len(chosen):
            first = chosen[chosen["seed"] == chosen["seed"].min()]
            yield setting.label, setting.slug, first


def _has_maps(results: Results, row: Mapping[str, Any]) -> bool:
    pair = EvaluationPair(attribution=row["attribution"], layer=row["layer"])
    epochs = (int(row["epoch"]), 0)
    return all(has_heatmaps(results, row["trial_id"], epoch, pair) for epoch in epochs)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _places(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per (model, attribution, layer), the paper's first."""

    def rank(row: Mapping[str, Any]) -> tuple[int, str]:
        own = (str(row["model"]).split("_")[0], row["attribution"], row["layer"])
        return PLACES.index(own) if own in PLACES else len(PLACES), " ".join(map(str, own))

    rows = _records(chosen.drop_duplicates(["model", *PAIR]))
    return sorted(rows, key=rank)


def _place_with_most(chosen: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of the place that has most values of a column, of equals the paper's."""
    best, most = chosen.head(0), 0
    for place in _places(chosen):
        same = (chosen[["model", *PAIR]] == [place[name] for name in ("model", *PAIR)]).all(axis=1)
        if chosen.loc[same, column].nunique() > most:
            best, most = chosen[same], chosen.loc[same, column].nunique()
    typed: pd.DataFrame = best
    return typed


def _where(row: Mapping[str, Any]) -> str:
    return f"{style.model_label(row['model'])}, {row['attribution']} at {row['layer']}"


def _maps(results: Results, cell: Mapping[str, Any]) -> list[HeatMap]:
    pair = EvaluationPair(attribution=cell["attribution"], layer=cell["layer"])
    return load_heatmaps(results, cell["trial_id"], int(cell["epoch"]), pair)


def _cells(
    results: Results, columns: Sequence[_Column], images: Sequence[int] = range(MOST_IMAGES)
) -> pd.DataFrame:
    """Return what every cell of a figure shows, row by row."""
    cells = []
    for place, column in enumerate(columns):
        maps = _maps(results, column.row)
        for number in images:
            if number >= len(maps):
                continue
            found = maps[number]
            cells.append(
                {name: column.row[name] for name in (*KEY, "model", "loss", "box_dilation")}
                | {"row": number, "column": place, "column_label": column.label}
                | {"row_label": "", "kind": column.kind, "number": number, "image": found.image}
                | {"class_name": found.class_name, "prediction": found.prediction}
                | {"probability": found.probability, "epg": epg_of(found, column.row["task"])}
            )
    typed: pd.DataFrame = pd.DataFrame(cells)
    return typed


def epg_of(heat_map: HeatMap, task: object = None) -> float:
    """Return the share of a map's positive energy inside its boxes, outside for the reverse."""
    positive = heat_map.map.clip(0).astype(float)
    inside = 0.0
    mask = positive * 0
    for left, top, right, bottom in heat_map.boxes.astype(int):
        mask[top:bottom, left:right] = 1
    inside = float((positive * mask).sum())
    total = float(positive.sum())
    share = inside / total if total > 0 else 0.0
    return 1 - share if task == "reversed" and total > 0 else share


def _drawing(
    name: str, slug: str, caption: str, data: pd.DataFrame, results: Results
) -> Iterator[Drawing]:
    if data.empty:
        return
    classes = ", ".join(dict.fromkeys(data["class_name"]))
    means = data[data["kind"] == MAP].groupby("column_label", sort=False)["epg"].mean()
    shown = "; ".join(
        f"{' '.join(str(label).split())} {100 * value:.0f} %" for label, value in means.items()
    )
    alt = f"Heat maps over test images of {classes}. Mean EPG: {shown}."
    yield Drawing(
        name="-".join(filter(None, [name, slug])),
        caption=caption,
        alt=alt,
        data=data,
        draw=partial(draw_cells, data, results),
    )


def draw_cells(data: pd.DataFrame, results: Results) -> Figure:
    """Draw a grid of pictures and maps, the boxes of the class outlined."""
    rows = sorted(data["row"].unique())
    columns = sorted(data["column"].unique())
    side = min(1.15, style.TEXT_WIDTH / len(columns))
    with style.house_style():
        size = (side * len(columns) + 0.15, (side + 0.17) * len(rows) + 0.35)
        figure = Figure(
            figsize=size,
            layout=ConstrainedLayoutEngine(w_pad=GAP, h_pad=GAP, wspace=GAP, hspace=GAP),
        )
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for cell in _records(data):
            axes = grid[rows.index(cell["row"])][columns.index(cell["column"])]
            _draw_cell(axes, cell, _maps(results, cell)[cell["number"]])
            if cell["row"] == rows[0]:
                axes.set_title(cell["column_label"], fontsize=7, pad=2)
        for row, label in data.groupby("row")["row_label"].first().items():
            if label:
                axes = grid[rows.index(row)][0]
                axes.text(
                    *(-0.06, 0.5, label),
                    transform=axes.transAxes,
                    rotation=90,
                    ha="right",
                    va="center",
                )
    return figure


def _draw_cell(axes: Axes, cell: Mapping[str, Any], heat_map: HeatMap) -> None:
    is_map = cell["kind"] == MAP
    axes.imshow(overlay(heat_map) if is_map else heat_map.picture, interpolation="nearest")
    size = heat_map.picture.shape[0]
    for box in heat_map.boxes:
        left, top, right, bottom = box
        if cell["kind"] == BOXES:
            wide = int(cell["box_dilation"] * (right - left))
            high = int(cell["box_dilation"] * (bottom - top))
            left, top = max(0, left - wide), max(0, top - high)
            right, bottom = min(size, right + wide), min(size, bottom + high)
        elif cell["kind"] == PICTURE and cell["epoch"] == 0:
            continue
        axes.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=BOX,
                linewidth=0.9,
            )
        )
    axes.text(0.5, -0.03, _below(cell), transform=axes.transAxes, fontsize=6, ha="center", va="top")


def _below(cell: Mapping[str, Any]) -> str:
    if cell["kind"] != MAP:
        return str(cell["class_name"]) if cell["kind"] == PICTURE else ""
    if not cell.get("has_groups"):
        return f"{100 * cell['epg']:.0f} %"
    is_right = cell["prediction"] == cell["class_name"]
    confidence = cell["probability"] if is_right else 1 - cell["probability"]
    return f"{'' if is_right else '✗ '}{cell['prediction']} {100 * confidence:.0f} %"
