"""Panels of points in F1 and another metric, which most quantitative figures are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from analysis.plots import style
from analysis.plots.style import Handle
from mg_core.columns import BY_METRIC
from mg_core.pareto import non_dominated

MARGIN = 0.08
"""Share of the range that is left free around the points, so that no marker is cut."""
LEAST_RANGE = 4.0
"""Percentage points that an axis covers at least: differences of one point stay small."""


def is_lower_better(metric: str) -> bool:
    """Say whether less of a metric is better."""
    return metric in BY_METRIC and BY_METRIC[metric].better == "lower"


def on_lines(points: pd.DataFrame, groups: list[str], axes: list[str]) -> pd.Series:
    """Mark the points that a line joins: those non-dominated in two axes within their group.

    An axis is named as its metric where less of that is better.
    """
    marked = pd.Series(False, index=points.index)
    signs = [-1.0 if is_lower_better(name) else 1.0 for name in axes]
    for _, group in points.groupby(groups, dropna=False):
        marked.loc[group.index] = non_dominated(signs * group[axes].to_numpy(dtype=np.float64))
    return marked


def with_lines(
    points: pd.DataFrame, panel: list[str], metric: str, order: list[str] | None = None
) -> pd.DataFrame:
    """Return points with `is_on_line`, taken in F1 and a metric per panel, loss and start.

    Guided points come first, in an order if one is given, then the baseline of each panel and
    start (seed and baseline), which stands once and has no loss.
    """
    start = [*panel, "seed", "baseline"]
    guided = points[~points["is_reference"]]
    guided = guided.assign(is_on_line=on_lines(guided, [*start, "loss"], ["f1", metric]))
    crosses = points[points["is_reference"]].drop_duplicates(start)
    crosses = crosses.assign(loss=None, is_on_line=False)
    ordered = guided.sort_values(order, kind="stable") if order else guided
    parts = [part for part in (ordered, crosses) if len(part)]
    return pd.concat(parts or [guided], ignore_index=True)


def in_panels(data: pd.DataFrame, **columns: pd.Series | str) -> pd.DataFrame:
    """Return data with `series` and `start` as `draw_panels` takes them, and further columns."""
    start = data["seed"].astype(str) + " " + data["baseline"].astype(str)
    return data.assign(series=data["loss"], start=start, **columns)


def draw_panels(
    data: pd.DataFrame,
    rows: Mapping[str, str],
    columns: Mapping[str, str],
    marks: Mapping[str, style.Mark],
    y_label: str | Mapping[str, str],
    is_lower: bool = False,
) -> Figure:
    """Draw points, fronts and baselines.

    Panels of a row share the vertical axis, so that columns compare. F1 has a range of its own in
    each panel: one collapsed model would squeeze the fronts of a whole column. What strictly
    dominates the baseline of every start is green, what each of them strictly dominates is grey.

    `data` has `row, column, series, start, f1, value, is_reference, is_on_line`, in percent, and
    `is_hollow` where some points are of another source. `rows` and `columns` give the label of
    each panel in order, `y_label` is one for the figure or one for each row. Where less is better
    (`is_lower`), values fall upwards, so that better is up all the same.
    """
    with style.house_style():
        figure = Figure(figsize=_size(len(columns), len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(columns), sharey="row", squeeze=False)
        for (row, label), line in zip(rows.items(), grid, strict=True):
            in_row = data[data["row"] == row]
            for column, axes in zip(columns, line, strict=True):
                here = in_row[in_row["column"] == column]
                _draw_panel(axes, here, marks, _limits(in_row["value"]), is_lower)
            if len(rows) > 1 or label:
                _row_title(line[-1], label)
            if not isinstance(y_label, str):
                line[0].set_ylabel(y_label[row])
        for label, axes in zip(columns.values(), grid[0], strict=True):
            axes.set_title(label, fontweight="bold")
        figure.supxlabel("F1 (%)", fontsize=8)
        if isinstance(y_label, str):
            figure.supylabel(y_label, fontsize=8)
        has_hollow = "is_hollow" in data and bool(data["is_hollow"].any())
        _legend(figure, marks, len(columns), has_hollow)
    return figure


FEW_SERIES = 4
"""As many losses as the paper has share a line of the legend."""
ENTRY_WIDTH, ENTRY_HEIGHT = 1.05, 0.16
"""Inches that the legend keeps for an entry where it has more lines."""


def _size(columns: int, rows: int) -> tuple[float, float]:
    width = style.COLUMN_WIDTH if columns == 1 else style.TEXT_WIDTH
    if columns == 2:
        width *= 0.75
    width = max(width, 1.35 * columns)
    return width, 0.85 + rows * min(1.95, max(1.5, 0.85 * width / columns))


def _limits(values: pd.Series) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        return 0.0, 100.0
    spread = max((high - low) * (1 + 2 * MARGIN), LEAST_RANGE)
    middle = (low + high) / 2
    return middle - spread / 2, middle + spread / 2


def _draw_panel(
    axes: Axes,
    data: pd.DataFrame,
    marks: Mapping[str, style.Mark],
    y_limits: tuple[float, float],
    is_lower: bool,
) -> None:
    axes.set_ylim(y_limits[::-1] if is_lower else y_limits)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if data.empty:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no trials", transform=axes.transAxes, ha="center", va="center")
        return
    axes.set_xlim(_limits(data["f1"]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], min_n_ticks=2))
    crosses = data[data["is_reference"]]
    _draw_regions(axes, crosses["f1"], crosses["value"], is_lower)
    hollow = data["is_hollow"] if "is_hollow" in data else pd.Series(False, index=data.index)
    for series, mark in marks.items():
        for _, front in data[data["series"] == series].groupby("start", dropna=False):
            is_hollow = bool(hollow.loc[front.index].any())
            line = front[front["is_on_line"]].sort_values(["f1", "value"])
            dashes = "--" if is_hollow else "-"
            axes.plot(line["f1"], line["value"], dashes, color=mark.colour, zorder=3)
            _scatter(axes, front[~front["is_on_line"]], mark, alpha=0.35, is_hollow=is_hollow)
            _scatter(axes, line, mark, alpha=1.0, is_hollow=is_hollow)
    axes.plot(crosses["f1"], crosses["value"], linestyle="none", zorder=6, **style.BASELINE)


def _scatter(
    axes: Axes, points: pd.DataFrame, mark: style.Mark, alpha: float, is_hollow: bool
) -> None:
    axes.plot(
        points["f1"],
        points["value"],
        linestyle="none",
        marker=mark.marker,
        markersize=mark.size,
        markerfacecolor="white" if is_hollow else mark.colour,
        markeredgecolor=style.INK if alpha == 1 and not is_hollow else mark.colour,
        markeredgewidth=0.8 if is_hollow else 0.4,
        alpha=alpha,
        zorder=3 + alpha,
    )


def _draw_regions(axes: Axes, x: pd.Series, y: pd.Series, is_lower: bool) -> None:
    if x.empty:
        return
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    worst, best = sorted([float(y.min()), float(y.max())], reverse=is_lower)
    x0, y0 = float(x.max()), best
    axes.add_patch(Rectangle((x0, y0), right - x0, top - y0, color=style.BETTER, lw=0, zorder=0))
    wide, high = float(x.min()) - left, worst - bottom
    axes.add_patch(Rectangle((left, bottom), wide, high, color=style.WORSE, lw=0, zorder=0))


def _row_title(axes: Axes, label: str) -> None:
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "left", "va": "center"}
    axes.text(1.03, 0.5, label, rotation=270, fontsize=8, fontweight="bold", **place)


def _legend(
    figure: Figure, marks: Mapping[str, style.Mark], columns: int, has_hollow: bool
) -> None:
    series: list[Handle] = [style.loss_handle(mark) for mark in marks.values()]
    others: list[Handle] = [
        style.baseline_handle(),
        Patch(facecolor=style.BETTER, edgecolor=style.INK, lw=0.4, label="better on both"),
        Patch(facecolor=style.WORSE, edgecolor=style.INK, lw=0.4, label="worse on both"),
    ]
    if has_hollow:
        others.append(style.hollow_handle())
    rows = [series + others] if columns > 2 and not has_hollow else [series, others]
    if len(series) > FEW_SERIES:
        width, height = figure.get_size_inches()
        widest = max(len(others), int(width / ENTRY_WIDTH))
        parts = [series[start : start + widest] for start in range(0, len(series), widest)]
        rows = [*parts, others]
        figure.set_size_inches(width, height + ENTRY_HEIGHT * (len(parts) - 1))
    handles, widest = style.in_rows(rows), max(map(len, rows))
    figure.legend(handles=handles, loc="outside upper center", ncols=widest)
