"""Accuracy of every group before and after guidance, for data sets with groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots import style
from analysis.plots.drawing import FIGURES, Drawing, file_name
from analysis.results import Results
from analysis.selection import guided_there
from analysis.settings import by_setting
from analysis.tabular.groups import CHOICE, Chosen, group_names, with_accuracies
from mg_core.columns import SPLITS

MOST_COLUMNS = 3
"""Panels in a row."""
SPREAD = 0.6
"""Width that the marks of one group share; neighbouring groups are 1 apart."""
PANEL = ["model", "attribution", "layer", "task"]


@FIGURES.register("groups")
def accuracies(results: Results) -> Iterator[Drawing]:
    """Accuracy of every group, of baselines and of the checkpoints that Table 1 chooses."""
    rows = results.selected[results.selected["val_accuracy"].notna()]
    for setting in by_setting(guided_there(rows), shown=["task"]):
        names = next((own for own in group_names(setting.frame) if own), ())
        if not names:
            continue
        chosen = Chosen.of(setting.frame, results.tests)
        data = group_data(chosen, names)
        means = data.groupby(["loss", "group"], sort=False)["accuracy"].mean()
        lowest = means.groupby("loss", sort=False).min()
        told = "; ".join(f"{loss} {value:.0f} %" for loss, value in lowest.items())
        yield Drawing(
            file_name("groups", setting.slug),
            f"Accuracy of every group of {setting.label} on {SPLITS[chosen.split]} before and "
            f"after guidance by each loss, {CHOICE} A mark is a mean over seeds, a dot a seed.",
            f"Accuracies of {len(names)} groups: {', '.join(names)}. Lowest means: {told}.",
            data,
            draw_groups,
        )


def group_data(chosen: Chosen, names: Sequence[str]) -> pd.DataFrame:
    """Return the points of the figure: one row per chosen checkpoint and group, in percent."""
    rows = with_accuracies(chosen.rows, chosen.split, tuple(names))
    kept = ["trial_id", "epoch", *PANEL, "loss", "localization_weight", "seed"]
    columns = {f"group {number}": name for number, name in enumerate(names)}
    parts = [
        rows[kept].assign(group=name, place=number, accuracy=100 * rows[column].astype(float))
        for number, (column, name) in enumerate(columns.items())
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset=["accuracy"])


def draw_groups(data: pd.DataFrame) -> Figure:
    """Draw the points of `group_data`, a panel for each model, judged place and task."""
    panels = [own for _, own in data.groupby(PANEL, dropna=False, sort=True)]
    losses = style.marks(set(data["loss"]) - {"baseline"})
    series = ["baseline", *losses]
    columns = min(MOST_COLUMNS, len(panels))
    n_rows = -(-len(panels) // columns)
    names = data.drop_duplicates("place").set_index("place")["group"].sort_index()
    wide = min(style.TEXT_WIDTH, max(style.COLUMN_WIDTH, 0.4 * len(names) * columns + 0.8))
    with style.house_style():
        figure = Figure(figsize=(wide, 0.6 + 2.3 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, columns, sharey=True, squeeze=False)
        for axes in list(grid.flat)[len(panels) :]:
            axes.axis("off")
        for own, axes in zip(panels, grid.flat, strict=False):
            _draw_panel(axes, own, series, losses)
            ticks = list(map(int, names.index))
            axes.set_xticks(ticks, list(names), rotation=30, ha="right", parse_math=False)
            axes.set_title(_title(own.iloc[0]), parse_math=False)
        figure.supylabel("accuracy (%)", fontsize=8)
        handles = [style.baseline_handle(), *map(style.loss_handle, losses.values())]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _draw_panel(
    axes: Axes, data: pd.DataFrame, series: list[str], losses: dict[str, style.Mark]
) -> None:
    axes.set_ylim(-3, 103)
    shifts = np.linspace(-SPREAD / 2, SPREAD / 2, len(series) + 2)[1:-1]
    for name, shift in zip(series, shifts, strict=True):
        own = data[data["loss"] == name]
        mark = losses.get(name)
        colour = mark.colour if mark else style.INK
        axes.plot(own["place"] + shift, own["accuracy"], ".", color=colour, ms=2, alpha=0.6)
        means = own.groupby("place")["accuracy"].mean()
        drawn = (
            {"marker": mark.marker, "markersize": mark.size, "color": colour}
            if mark
            else style.BASELINE
        )
        axes.plot(means.index + shift, means, linestyle="none", **drawn)


def _title(row: pd.Series) -> str:
    where = style.place_label(row[name] for name in style.PLACE)
    return where if pd.isna(row["task"]) else f"{where}\n{row['task']}"
