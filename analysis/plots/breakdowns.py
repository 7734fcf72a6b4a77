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
        for place, rows in setting.frame.groupby(style.PLACE):
            data = breakdown_data(rows, metric, lambda trial, n: names(results.trials[trial], n))
            if data["loss"].eq(BASELINE).all():
                continue
            n_seeds = data["seed"].nunique()
            caption = (
                f"{TITLES[metric]} on the test split of "
                f"{setting.label} for {style.place_label(place)}: the baseline, and for each loss "
                f"the checkpoint with the highest EPG at a loss of at most {100 * SLACK:g} points "
                f"of F1, both on validation{f'; means of {n_seeds} seeds' if n_seeds > 1 else ''}."
            )
            where = "_".join(map(str, place))
            name = file_name(metric, setting.slug, where)
            yield Drawing(name, caption, _alt(data), data, draw)


def _chosen(results: Results) -> pd.DataFrame:
    """Return each front's chosen checkpoint, and its baseline, with test columns."""
    rows = guided_there(results.selected).drop(columns="front")
    best = best_within(rows.drop(columns="is_reference")).assign(is_reference=False)
    start = rows[rows["is_reference"] & rows["trial_id"].isin(best["trial_id"])]
    parts = [part for part in (start, best[list(rows)]) if len(part)]
    return with_tests(pd.concat(parts) if parts else rows.head(0), results.tests)


def breakdown_data(
    rows: pd.DataFrame, metric: str, names: Callable[[str, int], Sequence[str]]
) -> pd.DataFrame:
    """Return one row for each checkpoint and class, or bin of box sizes, in percent.

    The baseline of a seed stands once, with an empty loss.
    """
    found = []
    for row in records(rows.dropna(subset=[f"test_{metric}"])):
        values = row[f"test_{metric}"]
        levels = names(row["trial_id"], len(values))
        loss = BASELINE if row["is_reference"] else row["loss"]
        trial = row["baseline"] if row["is_reference"] else row["trial_id"]
        common = {"loss": loss, "seed": row["seed"], "trial_id": trial, "epoch": row["epoch"]}
        found += [
            {"level": level, "place": place, "epg": 100 * value, **common}
            for place, (level, value) in enumerate(zip(levels, values, strict=True))
        ]
    columns = ["level", "place", "epg", "loss", "seed", "trial_id", "epoch"]
    data = pd.DataFrame(found, columns=columns).dropna(subset=["epg"])
    return data.drop_duplicates(["place", "loss", "seed", "trial_id"], ignore_index=True)


def draw_by_class(data: pd.DataFrame) -> Figure:
    """Draw a line for each class, in the order of the baseline's EPG."""
    means = _means(data)
    changes = means.drop(columns=BASELINE, errors="ignore").sub(means[BASELINE], axis=0)
    most = changes.abs().max(axis=1).sort_values(ascending=False, kind="stable")
    shown = means.loc[most.index[:MOST_CLASSES]].sort_values(BASELINE, kind="stable")
    with style.house_style():
        height = 0.95 + 0.17 * len(shown)
        figure = Figure(figsize=(0.75 * style.TEXT_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        places = range(len(shown))
        axes.hlines(places, shown.min(axis=1), shown.max(axis=1), color="#bbbbbb", lw=0.8, zorder=1)
        for loss, mark in style.marks(_losses(data)).items():
            axes.plot(shown[loss], places, **_marker(mark), linestyle="none", zorder=3)
        axes.plot(shown[BASELINE], places, linestyle="none", zorder=2, **style.BASELINE)
        names = data.drop_duplicates("place").set_index("place")["level"]
        axes.set_yticks(places, [style.label({}, str(names[place])) for place in shown.index])
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.set_xlabel("EPG (%)")
        _legend(figure, data)
    return figure


def draw_by_box_size(data: pd.DataFrame) -> Figure:
    """Draw a line for each loss over the bins of box sizes."""
    means = _means(data)
    with style.house_style():
        figure = Figure(figsize=(0.6 * style.TEXT_WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        _draw_uniform(axes, [int(bin_) for bin_ in means.index])
        for loss, mark in style.marks(_losses(data)).items():
            axes.plot(means.index, means[loss], **_marker(mark), zorder=3)
        axes.plot(means.index, means[BASELINE], zorder=2, **{"color": style.INK} | style.BASELINE)
        names = data.drop_duplicates("place").set_index("place")["level"].sort_index()
        axes.set_xticks(names.index, names)
        axes.set_xlim(names.index.min() - 0.5, names.index.max() + 0.5)
        axes.set_ylim(0, 100)
        axes.set_xlabel("share of the image inside the boxes (%)")
        axes.set_ylabel("EPG (%)")
        _legend(figure, data)
    return figure


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


def _legend(figure: Figure, data: pd.DataFrame) -> None:
    losses = [style.loss_handle(mark) for mark in style.marks(_losses(data)).values()]
    handles = [style.baseline_handle(), *losses]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def _alt(data: pd.DataFrame) -> str:
    parts = []
    for loss, own in data.groupby("loss", sort=False):
        means = own.groupby("level", sort=False)["epg"].mean().sort_values()
        ends = [f"{value:.1f} ({level})" for level, value in means.iloc[[0, -1]].items()]
        series = "baseline" if loss == BASELINE else str(loss)
        parts.append(f"{series}: from {' to '.join(ends)}")
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
