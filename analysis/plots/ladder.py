"""What annotations buy: gain against annotation hours, one line a kind of supervision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.claims.ladder import gains_by_hours
from analysis.claims.measures import Measures
from analysis.pareto import numbered
from analysis.plots import style
from analysis.plots.drawing import FIGURES, Drawing, file_name
from analysis.results import Results
from analysis.selection import SLACK
from analysis.settings import Setting, by_setting
from mg_core.columns import BY_METRIC, COLUMNS, CONFIGURATION, PAIR
from mg_core.config import NONE

METRICS = ("epg", "iou")
"""Rows of the figure."""
VARIED = ["annotation", "box_dilation", "annotated_fraction"]
"""What the lines of a panel differ in, and what lies along them."""
CONTROLS = ("random_box", NONE)
"""Annotations that nobody would draw: what others are compared with."""
LABELS = {"mask": "masks", "box": "boxes", "random_box": "random boxes", NONE: "no guidance"}
UNGUIDED = [name for name in CONFIGURATION if COLUMNS[name].part in ("data", "network", "training")]
"""What a trial that is not guided shares with those that it is compared with."""


@FIGURES.register("hours")
def gain_against_hours(results: Results) -> Iterator[Drawing]:
    """Gain of EPG and IoU against annotation hours, one line a kind of supervision."""
    measures = Measures.of(results)
    gains = pd.concat(
        [gains_by_hours(measures, metric).assign(metric=metric) for metric in METRICS]
    )
    if gains.empty:
        return
    gains = gains.reset_index(drop=True)
    without = unguided_gains(measures)
    split = "test" if results.tested["test_f1"].notna().any() else "validation"
    for setting in by_setting(gains, VARIED):
        for place, rows in setting.frame.groupby(style.PLACE):
            if rows["annotation"].nunique() < 2:
                continue
            data = hours_data(rows, without)
            yield _drawing(setting, place, data, split)


def unguided_gains(measures: Measures) -> pd.DataFrame:
    """Return what trials gained that were trained further without guidance, wherever judged."""
    rows = measures.rows[measures.rows["annotation"] == NONE]
    parts = []
    for metric in METRICS:
        chosen = measures.chosen(rows, by=metric)
        gain = (chosen[metric] - chosen[f"start_{metric}"]).astype("float64")
        parts.append(chosen.assign(metric=metric, gain=gain, hours=0.0))
    return pd.concat(parts, ignore_index=True)


def hours_data(rows: pd.DataFrame, without: pd.DataFrame) -> pd.DataFrame:
    """Return the points of one figure: gains in points by metric, loss, annotation and hours.

    `without` has the gains of trials that were not guided; those of the same data, network and
    training are shown in the panel of every loss.
    """
    shared = [*UNGUIDED, *PAIR]
    both = pd.concat([rows[shared], without[shared]]) if len(without) else rows[shared]
    number = numbered(both, shared)
    own, others = number[: len(rows)], number[len(rows) :]
    control = without[np.isin(others, own)]
    parts = [rows, *(control.assign(loss=loss) for loss in rows["loss"].unique() if len(control))]
    data = pd.concat(parts, ignore_index=True)
    data = data.assign(series=[_label(*each) for each in data[VARIED[:2]].to_numpy()])
    kept = ["metric", "loss", "series", *VARIED, "hours", "gain", "f1", "start_f1", "seed"]
    order = ["metric", "loss", "series", "hours", "seed"]
    return data[[*kept, "trial_id", "epoch"]].sort_values(order, ignore_index=True)


def draw_hours(data: pd.DataFrame) -> Figure:
    """Draw one row per metric and one column per loss; lines join the means over seeds."""
    losses = {name: mark.label for name, mark in style.marks(data["loss"]).items()}
    marks = _marks(data)
    metrics = [metric for metric in METRICS if (data["metric"] == metric).any()]
    with style.house_style():
        width = style.COLUMN_WIDTH if len(losses) == 1 else style.TEXT_WIDTH
        figure = Figure(figsize=(width, 0.9 + 1.9 * len(metrics)), layout="constrained")
        grid = figure.subplots(len(metrics), len(losses), sharex=True, sharey="row", squeeze=False)
        for metric, line in zip(metrics, grid, strict=True):
            for loss, axes in zip(losses, line, strict=True):
                here = data[(data["metric"] == metric) & (data["loss"] == loss)]
                _draw_panel(axes, here, marks)
            line[0].set_ylabel(f"{BY_METRIC[metric].menu} gained (points)")
        for label, axes in zip(losses.values(), grid[0], strict=True):
            axes.set_title(label, fontweight="bold")
        figure.supxlabel("annotation (hours)", fontsize=8)
        handles = [_handle(series, mark) for series, mark in marks.items()]
        columns = min(len(handles), 3 if len(losses) == 1 else 6)
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)
    return figure


def _draw_panel(axes: Axes, data: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda hours, _: f"{hours:g}")
    axes.axhline(0, color=style.INK, linewidth=0.6, zorder=1)
    for series, mark in marks.items():
        own = data[data["series"] == series]
        if own.empty:
            continue
        if series == LABELS[NONE]:
            axes.axhline(own["gain"].mean(), color=mark.colour, linestyle=":", zorder=2)
            continue
        dashes = "--" if series == LABELS["random_box"] else "-"
        means = own.groupby("annotated_fraction")[["hours", "gain"]].mean().sort_values("hours")
        face: dict[str, Any] = {"color": mark.colour, "marker": mark.marker, "linestyle": "none"}
        axes.plot(own["hours"], own["gain"], markersize=2.4, alpha=0.4, zorder=3, **face)
        edge: dict[str, Any] = {"markeredgecolor": style.INK, "markeredgewidth": 0.4}
        axes.plot(means["hours"], means["gain"], dashes, color=mark.colour, zorder=4)
        axes.plot(means["hours"], means["gain"], markersize=mark.size, zorder=5, **face | edge)


def _marks(data: pd.DataFrame) -> dict[str, style.Mark]:
    """Return how each kind of supervision is drawn.

    The dearest comes first, then boxes that are off, then the controls in grey.
    """
    is_off = data["annotation"].str.startswith("box(") | (data["box_dilation"] > 0)
    order = data.assign(is_off=is_off).groupby("series")[["is_off", "hours"]].mean()
    order = order.sort_values(["is_off", "hours"], ascending=[True, False], kind="stable")
    controls = [LABELS[name] for name in CONTROLS if LABELS[name] in order.index]
    named = [str(name) for name in order.index if name not in controls]
    drawn = zip(named, cycle((*style.LEVEL_MARKS, *style.OTHER_MARKS)), strict=False)
    marks = {name: style.Mark(name, marker, colour, 4.6) for name, (marker, colour) in drawn}
    greys = zip(controls, ("#8a8a8a", style.INK), strict=False)
    return marks | {name: style.Mark(name, "x", grey, 4.0) for name, grey in greys}


def _handle(series: str, mark: style.Mark) -> Line2D:
    if series == LABELS[NONE]:
        return Line2D([], [], color=mark.colour, linestyle=":", label=series)
    return style.loss_handle(mark)


def _label(annotation: object, dilation: float) -> str:
    """Return what a line is called, such as `5 points` or `boxes, shift 0.2`."""
    name, _, arguments = str(annotation).rstrip(")").partition("(")
    clicks = re.fullmatch(r"count=(\d+)", arguments)
    if name == "points" and clicks:
        return f"{clicks[1]} point{'s' if clicks[1] != '1' else ''}"
    settings = [*arguments.split(", ")] if arguments else []
    settings += [f"dilate={dilation:g}"] if dilation else []
    return ", ".join([LABELS.get(name, name), *(each.replace("=", " ") for each in settings)])


def _drawing(setting: Setting, place: object, data: pd.DataFrame, split: str) -> Drawing:
    names = [str(name) for name in place] if isinstance(place, tuple) else [str(place)]
    caption = (
        f"Gain against annotation hours on the {split} split of {setting.label} for "
        f"{style.place_label(names)}: what the checkpoint with the highest value on validation, at "
        f"a loss of at most {100 * SLACK:g} points of F1, has over the baseline. A line has one "
        "kind of supervision, and fractions of the images along it; it joins the means over seeds. "
        "Random boxes are of the right size in a wrong place and cost what boxes do; the dotted "
        "line is as many further epochs without guidance. Times of one object are published ones "
        "unless others were given."
    )
    best = data[data["metric"] == "epg"].groupby("series")["gain"].max()
    reached = "; ".join(f"{series} {value:.1f}" for series, value in best.items())
    alt = f"Lines of gain against hours. Highest gain of EPG in points: {reached}."
    return Drawing(
        file_name("hours", setting.slug, "_".join(names)), caption, alt, data, draw_hours
    )
