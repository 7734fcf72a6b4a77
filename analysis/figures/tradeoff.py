"""Localisation against classification (Fig. 5, 6): one panel per model and layer.

`tradeoff_data` computes what is shown, `draw_tradeoff` draws it and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from analysis.figures import FIGURES, Drawing, style
from analysis.figures.style import Handle
from analysis.pareto import non_dominated
from analysis.settings import by_setting

if TYPE_CHECKING:
    from analysis.results import Results

COLUMN = ["model", "attribution"]
MARGIN = 0.08
"""Share of the range left free around the points, so that no marker is cut."""
MOST_COLUMNS = 5
"""Panels beside each other that are still legible across two columns of a paper."""
LEAST_RANGE = 4.0
"""Percentage points an axis covers at least: a single point is not blown up to noise."""


def tradeoff_data(selected: pd.DataFrame, metric: str, split: str = "test") -> pd.DataFrame:
    """Return the points of one figure: a localisation metric against F1, in percent.

    Only rows judged where they were guided are shown. No point is selected here: all those
    chosen on validation are in, and those that are non-dominated in the two axes shown are marked
    for a line, separately for each panel, loss and start (seed and baseline).

    Args:
        selected: rows of `selection.select`, with the columns of `split`; rows without a value
            there (not tested yet) are left out.
        metric: without the split in front.
        split: whose values are shown.

    Returns:
        `model, attribution, layer, loss, seed, baseline, localization_weight, epoch, trial_id,
        f1, <metric>, is_reference, is_on_line`; baselines once per panel and start, without loss.
    """
    axes = ["f1", metric]
    columns = [f"{split}_{name}" for name in axes]
    guided_there = (selected["attribution"] == selected["guided_attribution"]) & (
        selected["layer"] == selected["guided_layer"]
    )
    shown = selected[guided_there].dropna(subset=columns)
    points = shown[
        [
            *COLUMN,
            *["layer", "loss", "seed", "baseline", "localization_weight", "epoch", "trial_id"],
            "is_reference",
        ]
    ].assign(**{name: shown[c].astype(float) * 100 for name, c in zip(axes, columns, strict=True)})
    is_reference = points["is_reference"]
    panel = [*COLUMN, "layer"]
    crosses = points[is_reference].drop_duplicates([*panel, "seed", "baseline"])
    crosses = crosses.assign(loss=None, localization_weight=np.nan, is_on_line=False)
    guided = points[~is_reference].assign(is_on_line=False)
    for _, group in guided.groupby([*panel, "loss", "seed", "baseline"], dropna=False):
        guided.loc[group.index, "is_on_line"] = non_dominated(group[axes].to_numpy())
    order = [*panel, "loss", "seed", "f1"]
    parts = [part for part in (guided.sort_values(order, kind="stable"), crosses) if len(part)]
    found: pd.DataFrame = pd.concat(parts or [guided], ignore_index=True)
    return found


def draw_tradeoff(data: pd.DataFrame, metric: str) -> Figure:
    """Draw the points of `tradeoff_data`: columns are models, rows layers.

    A row shares its vertical axis, so that models compare. F1 has a range of its own in each
    panel: one collapsed model would squeeze the fronts of a whole column. Green is what strictly
    dominates the baseline of every start, grey what each of them strictly dominates.
    """
    columns = _columns(data)
    layers = style.in_order(data["layer"], style.LAYERS)
    with style.house_style():
        figure = Figure(figsize=_size(len(columns), len(layers)), layout="constrained")
        grid = figure.subplots(len(layers), len(columns), sharey="row", squeeze=False)
        marks = style.marks(data["loss"].dropna())
        for layer, row in zip(layers, grid, strict=True):
            in_row = data[data["layer"] == layer]
            for (model, attribution), axes in zip(columns, row, strict=True):
                here = (in_row["model"] == model) & (in_row["attribution"] == attribution)
                _draw_panel(axes, in_row[here], metric, marks, _limits(in_row[metric]))
            _row_title(row[-1], style.LAYERS.get(layer, layer))
        for (model, attribution), axes in zip(columns, grid[0], strict=True):
            method = style.ATTRIBUTIONS.get(attribution, attribution)
            axes.set_title(f"{style.model_label(model)}\n{method}", fontweight="bold")
        figure.supxlabel("F1 (%)", fontsize=8)
        figure.supylabel(f"{style.NAMES[metric]} (%)", fontsize=8)
        _legend(figure, marks, len(columns))
    return figure


def _columns(data: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (model, attribution) in the paper's order: its models, own attributions first."""
    models = style.in_order({m.split("_")[0] for m in data["model"]}, style.MODELS)
    backbones = list(style.BACKBONES)
    methods = list(style.ATTRIBUTIONS)

    def rank(column: tuple[str, str]) -> tuple[int, int, int, str]:
        model, method = column
        family, _, backbone = model.partition("_")
        place = backbones.index(backbone) if backbone in backbones else len(backbones)
        which = methods.index(method) if method in methods else len(methods)
        return place, models.index(family), which, f"{model} {method}"

    found = data[COLUMN].drop_duplicates().itertuples(index=False, name=None)
    return sorted(((str(model), str(method)) for model, method in found), key=rank)


def _size(columns: int, rows: int) -> tuple[float, float]:
    width = style.COLUMN_WIDTH if columns == 1 else style.TEXT_WIDTH
    if columns == 2:
        width *= 0.75
    width = max(width, 1.35 * columns)
    return width, 0.85 + rows * min(1.95, max(1.5, 0.85 * width / columns))


def _limits(values: pd.Series) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    spread = max((high - low) * (1 + 2 * MARGIN), LEAST_RANGE)
    middle = (low + high) / 2
    return middle - spread / 2, middle + spread / 2


def _draw_panel(
    axes: Axes,
    data: pd.DataFrame,
    metric: str,
    marks: dict[str, style.Mark],
    y_limits: tuple[float, float],
) -> None:
    axes.set_ylim(y_limits)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if data.empty:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no trials", transform=axes.transAxes, ha="center", va="center")
        return
    axes.set_xlim(_limits(data["f1"]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], min_n_ticks=2))
    crosses = data[data["is_reference"]]
    _draw_regions(axes, crosses["f1"], crosses[metric])
    for loss, mark in marks.items():
        for _, front in data[data["loss"] == loss].groupby(["seed", "baseline"], dropna=False):
            line = front[front["is_on_line"]].sort_values(["f1", metric])
            axes.plot(line["f1"], line[metric], color=mark.colour, zorder=3)
            _scatter(axes, front[~front["is_on_line"]], metric, mark, alpha=0.35)
            _scatter(axes, line, metric, mark, alpha=1.0)
    axes.plot(crosses["f1"], crosses[metric], linestyle="none", zorder=6, **style.BASELINE)


def _scatter(axes: Axes, points: pd.DataFrame, metric: str, mark: style.Mark, alpha: float) -> None:
    axes.plot(
        points["f1"],
        points[metric],
        linestyle="none",
        marker=mark.marker,
        markersize=mark.size,
        markerfacecolor=mark.colour,
        markeredgecolor=style.INK if alpha == 1 else mark.colour,
        markeredgewidth=0.4,
        alpha=alpha,
        zorder=3 + alpha,
    )


def _draw_regions(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    if x.empty:
        return
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x0, y0 = float(x.max()), float(y.max())
    axes.add_patch(Rectangle((x0, y0), right - x0, top - y0, color=style.BETTER, lw=0, zorder=0))
    x0, y0 = float(x.min()), float(y.min())
    axes.add_patch(
        Rectangle((left, bottom), x0 - left, y0 - bottom, color=style.WORSE, lw=0, zorder=0)
    )


def _row_title(axes: Axes, label: str) -> None:
    axes.text(
        1.03,
        0.5,
        label,
        transform=axes.transAxes,
        rotation=270,
        ha="left",
        va="center",
        fontsize=8,
        fontweight="bold",
    )


def _legend(figure: Figure, marks: dict[str, style.Mark], columns: int) -> None:
    losses: list[Handle] = [style.loss_handle(mark) for mark in marks.values()]
    others: list[Handle] = [
        style.baseline_handle(),
        Patch(facecolor=style.BETTER, edgecolor=style.INK, lw=0.4, label="better on both"),
        Patch(facecolor=style.WORSE, edgecolor=style.INK, lw=0.4, label="worse on both"),
    ]
    rows = [losses + others] if columns > 2 else [losses, others]
    figure.legend(
        handles=style.in_rows(rows), loc="outside upper center", ncols=max(map(len, rows))
    )


def _drawings(results: Results, name: str, metric: str) -> Iterator[Drawing]:
    number = name.removeprefix("fig")
    for setting in by_setting(results.tested):
        data = tradeoff_data(setting.frame, metric)
        for page, part in _pages(data):
            yield Drawing(
                name="-".join(filter(None, [name, setting.slug, page])),
                caption=_caption(number, setting.label, metric, part),
                alt=_alt(metric, part),
                data=part,
                draw=partial(draw_tradeoff, part, metric),
            )


@FIGURES.register("fig5")
def epg_against_f1(results: Results) -> Iterator[Drawing]:
    """Fig. 5: EPG against F1 on test, guided and judged at the same place."""
    return _drawings(results, "fig5", "epg")


@FIGURES.register("fig6")
def iou_against_f1(results: Results) -> Iterator[Drawing]:
    """Fig. 6: IoU against F1 on test, guided and judged at the same place."""
    return _drawings(results, "fig6", "iou")


def _pages(data: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split what is too wide for a page by attribution, GradCAM apart from the models' own."""
    if data.empty:
        return
    if len(_columns(data)) <= MOST_COLUMNS:
        yield "", data
        return
    is_gradcam = data["attribution"] == "gradcam"
    for page, part in (("", data[~is_gradcam]), ("gradcam", data[is_gradcam])):
        if len(part):
            yield page, part.reset_index(drop=True)


def _caption(number: str, label: str, metric: str, data: pd.DataFrame) -> str:
    guided = data[~data["is_reference"]]
    n_points, n_line = len(guided), int(guided["is_on_line"].sum())
    crosses = data[data["is_reference"]]
    n_starts = crosses.groupby([*COLUMN, "layer"]).size().max() if len(crosses) else 0
    starts = (
        "The cross is the baseline before guidance"
        if n_starts < 2
        else "Each seed has its own front and its own cross, the baseline before guidance"
    )
    return (
        f"Fig. {number}: {style.NAMES[metric]} against F1 on the test split of {label}, guided "
        f"and judged at the same attribution and layer. The {n_points} points are the checkpoints "
        f"that are non-dominated on validation; a line joins the {n_line} that are also "
        f"non-dominated in the two axes shown, per loss. {starts}; green is better on both axes, "
        "grey worse on both."
    )


def _alt(metric: str, data: pd.DataFrame) -> str:
    name = style.NAMES[metric]
    panels = []
    for (model, method, layer), panel in data.groupby([*COLUMN, "layer"], sort=False):
        start = panel[panel["is_reference"]][metric].mean()
        best = panel[~panel["is_reference"]].groupby("loss")[metric].max()
        reached = ", ".join(f"{loss} up to {value:.1f}" for loss, value in best.items())
        before = f"baseline {name} {start:.1f} %" if start == start else "no baseline"
        panels.append(f"{model} {method} at {layer}: {before}; {reached or 'no points'}")
    return f"Scatter plots of {name} against F1. " + ". ".join(panels) + "."
