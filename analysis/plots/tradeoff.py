"""A metric against F1: one panel per model and layer (Fig. 5, 6, 7, and any other metric)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from analysis.frame import with_percent
from analysis.plots import style
from analysis.plots.drawing import FIGURES, Drawing, file_name
from analysis.plots.panels import draw_panels, in_panels, with_lines
from analysis.published import beside
from analysis.results import Results
from analysis.selection import guided_there
from analysis.settings import by_setting
from mg_core.columns import BY_METRIC, SCORES
from mg_core.models.library import family_of

COLUMN = ["model", "attribution"]
PANEL = [*COLUMN, "layer"]
MOST_COLUMNS = 5
"""Panels in a row that are still legible across two columns of a paper."""


def tradeoff_data(selected: pd.DataFrame, metric: str, split: str = "test") -> pd.DataFrame:
    """Return the points of one figure: a metric against F1, in percent.

    Only rows judged where they were guided are shown, and all of them that validation chose and
    that have values on `split`.
    """
    shown = guided_there(selected).dropna(subset=[f"{split}_f1", f"{split}_{metric}"])
    kept = [*PANEL, "loss", "seed", "baseline", "localization_weight", "epoch", "trial_id"]
    kept += ["is_reference", *(["source"] if "source" in shown else [])]
    points = with_percent(shown[kept], shown, split, ["f1", metric])
    data = with_lines(points, PANEL, metric, [*PANEL, "loss", "seed", "f1"])
    weights = data["localization_weight"].mask(data["is_reference"])
    return data.assign(localization_weight=weights)


def draw_tradeoff(data: pd.DataFrame, metric: str) -> Figure:
    """Draw the points of `tradeoff_data`: columns are models, rows layers.

    What others published is drawn hollow beside results of one's own.
    """
    columns = {
        f"{model} {name}": f"{style.model_label(model)}\n{style.label(style.ATTRIBUTIONS, name)}"
        for model, name in _columns(data)
    }
    layers = style.in_order(data["layer"], style.LAYERS)
    column = data["model"] + " " + data["attribution"]
    long = in_panels(data, row=data["layer"], column=column, value=data[metric])
    if "source" in data and data["source"].isna().any():
        long["is_hollow"] = data["source"].notna()
    rows = {layer: style.label(style.LAYERS, layer) for layer in layers}
    is_lower = BY_METRIC[metric].better == "lower"
    y_label = f"{BY_METRIC[metric].menu} (%{', less is better' if is_lower else ''})"
    marks = style.marks(data["loss"].dropna())
    return draw_panels(long, rows, columns, marks, y_label, is_lower)


def _columns(data: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (model, attribution) in the paper's order: its models, own attributions first."""
    models = style.in_order({family_of(m) for m in data["model"]}, style.MODELS)
    backbones, methods = list(style.BACKBONES), list(style.ATTRIBUTIONS)

    def rank(column: tuple[str, str]) -> tuple[int, int, int, str]:
        model, method = column
        backbone = model.partition("_")[2]
        place = backbones.index(backbone) if backbone in backbones else len(backbones)
        which = methods.index(method) if method in methods else len(methods)
        return place, models.index(family_of(model)), which, f"{model} {method}"

    found = data[COLUMN].drop_duplicates().itertuples(index=False, name=None)
    return sorted(((str(model), str(method)) for model, method in found), key=rank)


def _drawings(
    results: Results, name: str, metric: str, is_main: bool | None = True
) -> Iterator[Drawing]:
    """Draw the main backbone's models, all others, or every one where `is_main` is none."""
    for setting in by_setting(beside(results.tested, results.published)):
        main = style.main_backbone(setting.frame["model"].unique())
        belongs = setting.frame["model"].map(lambda model, main=main: style.is_of(model, main))
        shown = setting.frame if is_main is None else setting.frame[belongs == is_main]
        data = tradeoff_data(shown, metric)
        for page, part in _pages(data):
            yield Drawing(
                name=file_name(name, setting.slug, page),
                caption=_caption(name, setting.label, metric, part),
                alt=_alt(metric, part),
                data=part,
                draw=partial(draw_tradeoff, metric=metric),
            )


@FIGURES.register("fig5")
def epg_against_f1(results: Results) -> Iterator[Drawing]:
    """Fig. 5: EPG against F1 on test, guided and judged at the same place."""
    return _drawings(results, "fig5", "epg")


@FIGURES.register("fig6")
def iou_against_f1(results: Results) -> Iterator[Drawing]:
    """Fig. 6: IoU against F1 on test, guided and judged at the same place."""
    return _drawings(results, "fig6", "iou")


@FIGURES.register("fig7")
def epg_of_other_backbones(results: Results) -> Iterator[Drawing]:
    """Fig. 7: EPG against F1 of the backbones that Fig. 5 leaves out."""
    return _drawings(results, "fig7", "epg", is_main=False)


def _of_metric(metric: str) -> None:
    @FIGURES.register(metric)
    def against_f1(results: Results) -> Iterator[Drawing]:
        return _drawings(results, metric, metric, is_main=None)

    against_f1.__doc__ = f"{BY_METRIC[metric].menu} against F1 on test."


OF_METRIC = tuple(name for name in SCORES if name not in ("f1", "epg", "iou"))
"""Metrics that have a figure of their own name; it is drawn where it is named, or an objective."""
for _metric in OF_METRIC:
    _of_metric(_metric)


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


def _caption(name: str, label: str, metric: str, data: pd.DataFrame) -> str:
    guided = data[~data["is_reference"]]
    n_points, n_line = len(guided), int(guided["is_on_line"].sum())
    crosses = data[data["is_reference"]]
    n_starts = crosses.groupby(PANEL).size().max() if len(crosses) else 0
    starts = (
        "The cross is the baseline before guidance"
        if n_starts < 2
        else "Each seed has its own front and its own cross, the baseline before guidance"
    )
    numbered = f"Fig. {name.removeprefix('fig')}: " if name.startswith("fig") else ""
    return (
        f"{numbered}{BY_METRIC[metric].menu} against F1 on the test split of {label}, guided "
        f"and judged at the same attribution and layer. The {n_points} points are the checkpoints "
        f"that are non-dominated on validation; a line joins the {n_line} that are also "
        f"non-dominated in the two axes shown, per loss. {starts}; green is better on both axes, "
        "grey worse on both."
    )


def _alt(metric: str, data: pd.DataFrame) -> str:
    name = BY_METRIC[metric].menu
    panels = []
    for (model, method, layer), panel in data.groupby(PANEL, sort=False):
        start = panel[panel["is_reference"]][metric].mean()
        reached_by = panel[~panel["is_reference"]].groupby("loss")[metric]
        is_lower = BY_METRIC[metric].better == "lower"
        best, words = (reached_by.min(), "down") if is_lower else (reached_by.max(), "up")
        reached = ", ".join(f"{loss} {words} to {value:.1f}" for loss, value in best.items())
        before = f"baseline {name} {start:.1f} %" if start == start else "no baseline"
        panels.append(f"{model} {method} at {layer}: {before}; {reached or 'no points'}")
    return f"Scatter plots of {name} against F1. " + ". ".join(panels) + "."
