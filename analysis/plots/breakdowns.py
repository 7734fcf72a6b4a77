"""EPG by class and by box size, before guidance and after guidance by each loss.

EPG rises with the size of boxes, so one mean over all of them can hide what guidance does to small
ones; and a rise may be that of a few classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.frame import with_tests
from analysis.heatmaps import task_of
from analysis.plots import style
from analysis.plots.cells import records
from analysis.plots.drawing import FIGURES, Drawing, file_name
from analysis.results import Results
from analysis.selection import SLACK, best_within, guided_there
from analysis.settings import by_setting
from mg_core.columns import BOX_SIZE_EDGES
from mg_core.config import TrialConfig
from mg_core.errors import InputError

MOST_PANELS = 6
"""Panels on one page; of more, the figure has several."""
WIDEST = 3
"""Panels in a row."""
MOST_CLASSES = 60
"""Classes that are drawn: of more, those that guidance changed most."""
TITLES = {"epg_by_class": "EPG of each class", "epg_by_box_size": "EPG by the size of the boxes"}
BASELINE = ""
"""Series of the baseline, whose row has no loss."""

Draw = Callable[[pd.DataFrame], Figure]


@FIGURES.register("epg_by_class")
def epg_by_class(results: Results) -> Iterator[Drawing]:
    """EPG of each class on test."""

    def names(trial: TrialConfig, n_classes: int) -> list[str]:
        return _class_names(results, trial, n_classes)

    for drawing in _drawings(results, "epg_by_class", names, draw_by_class):
        n_classes = drawing.data["place"].nunique()
        more = f" The {MOST_CLASSES} of {n_classes} classes that guidance changed most are shown."
        yield replace(drawing, caption=drawing.caption + more * (n_classes > MOST_CLASSES))


@FIGURES.register("epg_by_box_size")
def epg_by_box_size(results: Results) -> Iterator[Drawing]:
    """EPG by the share of the image that the boxes cover, on test."""
    bins = [f"{100 * low:g}–{100 * high:g}" for low, high in pairwise(BOX_SIZE_EDGES)]
    for drawing in _drawings(results, "epg_by_box_size", lambda *_: bins, draw_by_box_size):
        more = " Grey: what a map gets that is the same everywhere."
        yield replace(drawing, caption=drawing.caption + more)


def _drawings(
    results: Results, metric: str, names: Callable[[TrialConfig, int], list[str]], draw: Draw
) -> Iterator[Drawing]:
    for setting in by_setting(_chosen(results)):
        data = breakdown_data(
            setting.frame, metric, lambda trial, n: names(results.trials[trial], n)
        )
        panels = list(data.loc[data["loss"] != BASELINE, "panel"].unique())
        for page, start in enumerate(range(0, len(panels), MOST_PANELS), start=1):
            shown = panels[start : start + MOST_PANELS]
            part = data[data["panel"].isin(shown)].reset_index(drop=True)
            n_seeds = part["seed"].nunique()
            caption = (
                f"{TITLES[metric]} on the test split of {setting.label}: the baseline, and for "
                f"each loss the checkpoint with the highest EPG at a loss of at most "
                f"{100 * SLACK:g} points of F1, both on validation"
                f"{f'; means of {n_seeds} seeds' if n_seeds > 1 else ''}."
            )
            name = file_name(metric, setting.slug, str(page) if len(panels) > MOST_PANELS else "")
            yield Drawing(name, caption, _alt(part), part, draw)


def _chosen(results: Results) -> pd.DataFrame:
    """Return each front's chosen checkpoint, and its baseline, with test columns."""
    rows = guided_there(results.selected).drop(columns="front")
    best = best_within(rows.drop(columns="is_reference")).assign(is_reference=False)
    start = rows[rows["is_reference"] & rows["trial_id"].isin(best["trial_id"])]
    parts = [part for part in (start, best[list(rows)]) if len(part)]
    chosen = pd.concat(parts) if parts else rows.head(0)
    return with_tests(chosen.sort_values(style.PLACE, kind="stable"), results.tests)


def breakdown_data(
    rows: pd.DataFrame, metric: str, names: Callable[[str, int], Sequence[str]]
) -> pd.DataFrame:
    """Return one row for each checkpoint and class, or bin of box sizes, in percent.

    The baseline of a seed stands once for each model, attribution and layer, with an empty loss.
    """
    found = []
    for row in records(rows.dropna(subset=[f"test_{metric}"])):
        values = row[f"test_{metric}"]
        levels = names(row["trial_id"], len(values))
        loss = BASELINE if row["is_reference"] else row["loss"]
        trial = row["baseline"] if row["is_reference"] else row["trial_id"]
        panel = style.place_label(row[name] for name in style.PLACE)
        common = {"panel": panel, "loss": loss, "seed": row["seed"], "trial_id": trial}
        common |= {"epoch": row["epoch"]}
        found += [
            {"level": level, "place": place, "epg": 100 * value, **common}
            for place, (level, value) in enumerate(zip(levels, values, strict=True))
        ]
    columns = ["panel", "level", "place", "epg", "loss", "seed", "trial_id", "epoch"]
    data = pd.DataFrame(found, columns=columns).dropna(subset=["epg"])
    key = ["panel", "place", "loss", "seed", "trial_id"]
    return data.drop_duplicates(key, ignore_index=True)


def draw_by_class(data: pd.DataFrame) -> Figure:
    """Draw a line for each class, in the order of the baseline's EPG over all panels."""
    means = _means(data)
    changes = means.drop(columns=BASELINE).sub(means[BASELINE], axis=0).abs().max(axis=1)
    most = changes.sort_values(ascending=False, kind="stable").index[:MOST_CLASSES]
    order = means.loc[most].sort_values(BASELINE, kind="stable").index
    names = data.drop_duplicates("place").set_index("place")["level"]
    with style.house_style():
        figure, panels = _panels(data, 0.35 + 0.17 * len(order))
        for axes, own in panels:
            shown, places = _means(own).reindex(order), range(len(order))
            ends = shown.min(axis=1), shown.max(axis=1)
            axes.hlines(places, *ends, color="#bbbbbb", lw=0.8, zorder=1)
            for loss, mark in style.marks(_losses(own)).items():
                axes.plot(shown[loss], places, **_marker(mark), linestyle="none", zorder=3)
            axes.plot(shown[BASELINE], places, linestyle="none", zorder=2, **style.BASELINE)
            axes.set_yticks(places, [style.label({}, str(names[place])) for place in order])
            axes.set_ylim(-0.7, len(order) - 0.3)
        figure.supxlabel("EPG (%)", fontsize=8)
    return figure


def draw_by_box_size(data: pd.DataFrame) -> Figure:
    """Draw a line for each loss over the bins of box sizes."""
    names = data.drop_duplicates("place").set_index("place")["level"].sort_index()
    with style.house_style():
        figure, panels = _panels(data, 1.75)
        for axes, own in panels:
            means = _means(own)
            _draw_uniform(axes, [int(bin_) for bin_ in names.index])
            for loss, mark in style.marks(_losses(own)).items():
                axes.plot(means.index, means[loss], **_marker(mark), zorder=3)
            line = {"color": style.INK} | style.BASELINE
            axes.plot(means.index, means[BASELINE], zorder=2, **line)
            axes.set_xticks(names.index, names)
            axes.set_xlim(names.index.min() - 0.5, names.index.max() + 0.5)
            axes.set_ylim(0, 100)
        figure.supxlabel("share of the image inside the boxes (%)", fontsize=8)
        figure.supylabel("EPG (%)", fontsize=8)
    return figure


def _panels(data: pd.DataFrame, height: float) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Return a figure with a legend, and a panel of some inches' height for each place."""
    labels = list(data["panel"].unique())
    n_columns = min(len(labels), WIDEST)
    n_rows = -(-len(labels) // n_columns)
    width = style.TEXT_WIDTH * (0.5 + 0.5 * n_columns / WIDEST)
    figure = Figure(figsize=(width, 0.65 + n_rows * (height + 0.2)), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).flatten()
    for axes, label in zip(grid, labels, strict=False):
        axes.set_title(label.replace(", ", "\n"), fontweight="bold")
    for axes in grid[len(labels) :]:
        axes.remove()
    losses = [style.loss_handle(mark) for mark in style.marks(_losses(data)).values()]
    handles = [style.baseline_handle(), *losses]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    shown = [data[data["panel"] == label] for label in labels]
    return figure, list(zip(grid, shown, strict=False))


def _draw_uniform(axes: Axes, bins: Sequence[int]) -> None:
    # The EPG of a uniform map is the box's area, which is between the edges of its bin.
    for bin_ in bins:
        low, high = (100 * edge for edge in BOX_SIZE_EDGES[bin_ : bin_ + 2])
        axes.fill_between([bin_ - 0.5, bin_ + 0.5], low, high, color=style.WORSE, lw=0, zorder=0)


def _means(data: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds: a row for each class or bin, a column for each loss."""
    return data.pivot_table(index="place", columns="loss", values="epg")


def _losses(data: pd.DataFrame) -> list[str]:
    return [str(loss) for loss in data["loss"].unique() if loss != BASELINE]


def _marker(mark: style.Mark) -> dict[str, Any]:
    return {
        "color": mark.colour,
        "marker": mark.marker,
        "markersize": mark.size,
        "markeredgecolor": style.INK,
        "markeredgewidth": 0.4,
    }


def _alt(data: pd.DataFrame) -> str:
    parts = []
    for (panel, loss), own in data.groupby(["panel", "loss"], sort=False):
        means = own.groupby("level", sort=False)["epg"].mean().sort_values()
        ends = [f"{value:.1f} ({level})" for level, value in means.iloc[[0, -1]].items()]
        series = "baseline" if loss == BASELINE else str(loss)
        parts.append(f"{panel}, {series}: from {' to '.join(ends)}")
    return f"EPG in percent. {'; '.join(parts)}."


def _class_names(results: Results, trial: TrialConfig, n_classes: int) -> list[str]:
    """Return the names of a trial's classes, numbers where the data set is out of reach."""
    from mg_core.data import class_names

    data = results.spec.get("data") or {}
    try:
        names = class_names(trial.data, data.get("root"), data.get("cache"), task_of(trial))
    except InputError:
        names = ()
    known = len(names) == n_classes
    return list(names) if known else [f"class {number}" for number in range(n_classes)]
