"""What else varies: checkpoints, guided layers, boxes kept or dilated (Fig. 4, 8, 10, 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from analysis.frame import with_percent, with_tests
from analysis.pareto import is_on_front, numbered
from analysis.plots import style
from analysis.plots.drawing import FIGURES, Drawing, file_name
from analysis.plots.panels import draw_panels, in_panels, on_lines, with_lines
from analysis.results import Results
from analysis.selection import guided_there
from analysis.settings import Setting, by_setting
from mg_core.columns import BY_METRIC, CONFIGURATION, KEY, PAIR, RUN

STAGES = {
    "all": "every checkpoint\n(validation)",
    "front": "non-dominated\n(validation)",
    "test": "the same\n(test)",
}
METRICS = ("epg", "iou")
"""Rows of Fig. 10."""


@FIGURES.register("fig4")
def selecting_checkpoints(results: Results) -> Iterator[Drawing]:
    """Fig. 4: every checkpoint of one configuration, those selected, and those on test."""
    data = selection_data(results)
    if data.empty:
        return
    first = data.iloc[0]
    n_all, n_front = (int((data["stage"] == stage).sum()) for stage in ("all", "front"))
    where = style.place_label(first[style.PLACE])
    objectives = " and ".join(results.objectives_in_words.rsplit(", ", 1))
    caption = (
        f"Fig. 4: selecting checkpoints, {where}, {first['loss']} loss. Of {n_all} checkpoints "
        f"(λ × epochs) on validation, {n_front} are non-dominated in {objectives}; "
        "these alone are evaluated on test. The cross is the baseline."
    )
    alt = f"Three scatter plots of EPG against F1: {n_all} checkpoints, {n_front} selected, tested."
    yield Drawing("fig4", caption, alt, data, draw_selection)


def selection_data(results: Results) -> pd.DataFrame:
    """Return the checkpoints of one configuration and seed, at three stages.

    It is that of a B-cos model at input guided by Energy where there is one, else the one with
    the most checkpoints.
    """
    rows = guided_there(results.rows[results.rows["kind"] == "guided"])
    rows = rows.dropna(subset=["val_f1", "val_epg"])
    if rows.empty:
        return rows.assign(stage=[])
    number = numbered(rows, [*CONFIGURATION, *RUN, *PAIR])
    is_bcos = rows["model"].str.startswith("bcos").astype(int)
    as_paper = is_bcos + (rows["layer"] == "input") + (rows["loss"] == "energy")
    rank = pd.DataFrame({"number": number, "as_paper": as_paper.to_numpy()})
    sizes = rank.groupby("number").agg(as_paper=("as_paper", "first"), size=("number", "size"))
    best = sizes.sort_values(["as_paper", "size"], ascending=False, kind="stable").index[0]
    own = rows[number == best]
    front = own[is_on_front(own, results.objectives, results.tolerance)]
    start = own[own["epoch"] == 0].head(1)
    chosen = pd.concat([start, front])
    tested = with_tests(chosen, results.tests).dropna(subset=["test_f1"])
    parts = [
        _stage("all", pd.concat([start, own[own["epoch"] >= 1]]), "val"),
        _stage("front", chosen, "val"),
        _stage("test", tested, "test"),
    ]
    return pd.concat([p for p in parts if len(p)], ignore_index=True)


def _stage(name: str, rows: pd.DataFrame, split: str) -> pd.DataFrame:
    columns = [*style.PLACE, "loss", "localization_weight", "trial_id", "epoch"]
    found = with_percent(rows[columns], rows, split, ["f1", "epg"])
    found = found.assign(stage=name, is_reference=rows["epoch"] == 0)
    guided = found[~found["is_reference"]]
    is_on_line = on_lines(guided, ["stage"], ["f1", "epg"]).reindex(found.index, fill_value=False)
    return found.assign(is_on_line=is_on_line & (name != "all"))


def draw_selection(data: pd.DataFrame) -> Figure:
    """Draw the three stages, λ told apart."""
    labels = {w: f"λ = {w:g}" for w in sorted(data["localization_weight"].unique())}
    long = data.assign(
        row="",
        column=data["stage"],
        series=data["localization_weight"].map(labels),
        # One front over all λ: the line joins points of different λ in no colour of its own.
        start="",
        value=data["epg"],
        is_on_line=False,
    )
    stages = {name: label for name, label in STAGES.items() if (data["stage"] == name).any()}
    return draw_panels(long, {"": ""}, stages, style.level_marks(list(labels.values())), "EPG (%)")


@FIGURES.register("fig8")
def guiding_deeper_layers(results: Results) -> Iterator[Drawing]:
    """Fig. 8: what guidance at each layer does to attributions at the input, and how fast."""
    tested = results.tested
    is_own = tested["attribution"] == tested["guided_attribution"]
    rows = tested[is_own & (tested["layer"] == "input")]
    trained = results.rows[results.rows["epoch"] >= 1]
    seconds = trained.groupby("trial_id")["seconds_step"].median()
    for setting in by_setting(rows):
        varied = _varied(setting.frame, "guided_layer", "model")
        if "input" not in set(varied["guided_layer"]):
            continue
        data = _points(varied, ["model", "guided_layer", "loss"], "epg")
        data = data.assign(seconds_step=data["trial_id"].map(seconds))
        caption = (
            f"Fig. 8: EPG at the input against F1 on the test split of {setting.label}, after "
            "guidance at each layer. Above the panels: how many training steps take the time of "
            "one that is guided at the input (median over trials)."
        )
        yield _drawing("fig8", setting, caption, data, draw_deeper)


def draw_deeper(data: pd.DataFrame) -> Figure:
    """Draw one panel per model and guided layer, deepest first."""
    layers = style.in_order(data["guided_layer"], style.LAYERS)[::-1]
    guided = data[~data["is_reference"]]
    times = guided.groupby(["model", "guided_layer"])["seconds_step"].median().unstack()
    speeds = times.rdiv(times["input"], axis=0).mean() if "input" in times else pd.Series()
    columns = {
        layer: f"{style.label(style.LAYERS, layer)}\n{speeds.get(layer, float('nan')):.1f}×"
        for layer in layers
    }
    long = in_panels(data, row=data["model"], column=data["guided_layer"], value=data["epg"])
    rows = {model: style.model_label(model) for model in sorted(data["model"].unique())}
    marks = style.marks(data["loss"].dropna())
    return draw_panels(long, rows, columns, marks, "EPG at input (%)")


@FIGURES.register("fig10")
def dilated_boxes(results: Results) -> Iterator[Drawing]:
    """Fig. 10: EPG and IoU against F1 for growing training boxes, one column per loss."""
    for setting in by_setting(guided_there(results.tested), ["box_dilation"]):
        for place, rows in setting.frame.groupby(style.PLACE):
            varied = _varied(rows, "box_dilation", "loss")
            if varied.empty:
                continue
            data = _points(varied, ["model", "loss", "box_dilation"], "epg", "iou")
            caption = (
                f"Fig. 10: EPG and IoU against F1 on the test split of {setting.label} for "
                f"{style.place_label(place)}, trained with boxes that are wider by a share of "
                "their size on each side."
            )
            yield _drawing("fig10", setting, caption, data, draw_dilated, place)


def draw_dilated(data: pd.DataFrame) -> Figure:
    """Draw one row per metric and one column per loss."""
    labels = {p: f"{100 * p:g} %" for p in sorted(data["box_dilation"].unique())}
    marks = style.marks(data["loss"].dropna())
    parts = []
    for metric in METRICS:
        for loss in marks:
            # The baseline stands in the panel of every loss.
            own = data[(data["loss"] == loss) | data["is_reference"]]
            part = in_panels(own, row=metric, column=loss, value=own[metric])
            guided = part[~part["is_reference"]]
            line = on_lines(guided, ["box_dilation", "start"], ["f1", "value"])
            line = line.reindex(part.index, fill_value=False)
            parts.append(part.assign(series=own["box_dilation"].map(labels), is_on_line=line))
    long = pd.concat(parts, ignore_index=True)
    columns = {loss: mark.label for loss, mark in marks.items()}
    y_labels = {metric: f"{BY_METRIC[metric].menu} (%)" for metric in METRICS}
    rows = dict.fromkeys(METRICS, "")
    return draw_panels(long, rows, columns, style.level_marks(list(labels.values())), y_labels)


@FIGURES.register("fig12")
def few_boxes(results: Results) -> Iterator[Drawing]:
    """Fig. 12: EPG against F1 with the boxes of a part of the training images."""
    for setting in by_setting(guided_there(results.tested), ["annotated_fraction"]):
        for place, rows in setting.frame.groupby(style.PLACE):
            data = _points(rows, ["model", "loss", "annotated_fraction"], "epg")
            if data["annotated_fraction"].nunique() < 2:
                continue
            caption = (
                f"Fig. 12: EPG against F1 on the test split of {setting.label} for "
                f"{style.place_label(place)}, with the boxes of a part of the training images."
            )
            yield _drawing("fig12", setting, caption, data, draw_few, place)


def draw_few(data: pd.DataFrame) -> Figure:
    """Draw one column per share of the boxes."""
    shares = sorted(data["annotated_fraction"].unique())
    columns = {str(share): f"{100 * share:g} % of the boxes" for share in shares}
    column = data["annotated_fraction"].astype(str)
    long = in_panels(data, row="", column=column, value=data["epg"])
    return draw_panels(long, {"": ""}, columns, style.marks(data["loss"].dropna()), "EPG (%)")


def _varied(rows: pd.DataFrame, what: str, of: str) -> pd.DataFrame:
    """Return the rows of those models, or losses, that were guided in more than one way."""
    ways = rows.groupby(of)[what].transform("nunique")
    return rows[ways > 1]


def _points(rows: pd.DataFrame, series: list[str], *metrics: str) -> pd.DataFrame:
    """Return tested points in percent, baselines once per panel and start, without loss."""
    shown = rows.dropna(subset=["test_f1", *(f"test_{name}" for name in metrics)])
    kept = [*series, "localization_weight", "seed", "baseline", "is_reference", *KEY]
    points = with_percent(shown[kept], shown, "test", ["f1", *metrics])
    return with_lines(points, [name for name in series if name != "loss"], metrics[0])


def _drawing(
    name: str,
    setting: Setting,
    caption: str,
    data: pd.DataFrame,
    draw: Callable[[pd.DataFrame], Figure],
    place: Iterable[object] = (),
) -> Drawing:
    best = data[~data["is_reference"]].groupby("loss")["epg"].max()
    reached = ", ".join(f"{loss} {value:.1f} %" for loss, value in best.items())
    alt = f"Scatter plots of EPG against F1; highest EPG: {reached}."
    where = "_".join(map(str, place))
    return Drawing(file_name(name, setting.slug, where), caption, alt, data, draw)
