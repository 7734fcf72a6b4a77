"""Heat maps of test images before and after guidance (Fig. 2, 9, 11, 13)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.plots import style
from analysis.plots.cells import BOXES, MAP, PICTURE, Column, cells, draw_cells, key_of, records
from analysis.plots.drawing import FIGURES, Drawing, file_name
from analysis.results import Results
from analysis.selection import SLACK, TABLE_1_SLACK, best_within, guided_there
from analysis.settings import by_setting
from mg_core.models.library import family_of

PLACES = (("bcos", "bcos", "input"), ("vanilla", "gradcam", "final"), ("xdnn", "intgrad", "input"))
"""Family, attribution and layer that are shown first, as in the paper."""


@FIGURES.register("fig2")
def before_and_after(results: Results) -> Iterator[Drawing]:
    """Fig. 2: maps of images before and after guidance by Energy."""
    for label, slug, chosen in _chosen_by_setting(results):
        losses = style.in_order(chosen["loss"], style.LOSSES)
        places = _places(chosen[chosen["loss"] == losses[0]])[:2]
        columns = [Column("image", PICTURE, places[0])]
        for row in places:
            attribution, layer = row["attribution"], row["layer"]
            where = style.label(style.ATTRIBUTIONS, attribution)
            where += f" @ {style.label(style.LAYERS, layer)}"
            columns.append(Column(f"{where}\nbefore", MAP, row | {"epoch": 0}))
            columns.append(Column(f"{where}\nguided", MAP, row))
        caption = (
            f"Fig. 2: attributions of test images of {label} before and after guidance by "
            f"{losses[0]}, checkpoints chosen on validation. Below each map its EPG."
        )
        yield from _drawing("fig2", slug, caption, cells(results.heatmaps, columns))


@FIGURES.register("fig9")
def losses_side_by_side(results: Results) -> Iterator[Drawing]:
    """Fig. 9: maps after guidance by each loss."""
    for label, slug, chosen in _chosen_by_setting(results):
        place = _place_with_most(chosen, "loss")
        losses = style.marks(place["loss"])
        if len(losses) < 2:
            continue
        by_loss = {row["loss"]: row for row in records(place)}
        first = next(iter(by_loss.values()))
        columns = [
            Column("image", PICTURE, first),
            Column("baseline", MAP, first | {"epoch": 0}),
            *(Column(mark.label, MAP, by_loss[loss]) for loss, mark in losses.items()),
        ]
        caption = (
            f"Fig. 9: {_subject(first, label)} before guidance and after guidance by each loss, "
            "checkpoints chosen on validation. Below each map its EPG."
        )
        yield from _drawing("fig9", slug, caption, cells(results.heatmaps, columns))


@FIGURES.register("fig11")
def dilations_side_by_side(results: Results) -> Iterator[Drawing]:
    """Fig. 11: maps after guidance with boxes that are too large."""
    for label, slug, chosen in _chosen_by_setting(results, shown=["box_dilation"]):
        place = _place_with_most(chosen, "box_dilation")
        sizes = sorted(place["box_dilation"].unique())
        if len(sizes) < 2:
            continue
        rows = records(place)
        first, before = rows[0], rows[0] | {"epoch": 0}
        boxes = [Column(f"{100 * p:g} %", BOXES, first | {"box_dilation": p}) for p in sizes]
        lines = {"boxes": [Column("baseline", PICTURE, before), *boxes]}
        for loss in style.marks(place["loss"]):
            if loss in ("energy", "l1"):
                found = {r["box_dilation"]: r for r in rows if r["loss"] == loss}
                maps = [Column(f"{100 * p:g} %", MAP, found[p]) for p in sizes if p in found]
                lines[style.LOSSES[loss].label] = [Column("baseline", MAP, before), *maps]
        parts = [
            cells(results.heatmaps, line, [image]).assign(row_label=name, row=3 * image + number)
            for image in range(2)
            for number, (name, line) in enumerate(lines.items())
        ]
        caption = (
            f"Fig. 11: {_subject(first, label)} after guidance with boxes that are wider by a "
            "share of their size on each side. Below each map its EPG with the true boxes."
        )
        yield from _drawing("fig11", slug, caption, pd.concat(parts, ignore_index=True))


@FIGURES.register("fig13")
def groups(results: Results) -> Iterator[Drawing]:
    """Fig. 13: maps, predictions and confidences on data with groups, for all tasks."""
    if not results.selected["val_accuracy_min_group"].notna().any():
        return
    chosen_by_setting = _chosen_by_setting(results, "accuracy", TABLE_1_SLACK, shown=["task"])
    for label, slug, chosen in chosen_by_setting:
        place = _place_with_most(chosen, "task")
        rows = records(place)
        if not rows:
            continue
        first = min(rows, key=lambda row: str(row["task"]))
        columns = [
            Column("image", PICTURE, first),
            Column("baseline", MAP, first | {"epoch": 0}),
        ]
        for row in sorted(rows, key=lambda row: (str(row["task"]), str(row["loss"]))):
            (mark,) = style.marks([row["loss"]]).values()
            task = "" if pd.isna(row["task"]) else f"\n{row['task']}"
            columns.append(Column(f"{mark.label}{task}", MAP, row))
        caption = (
            f"Fig. 13: {_subject(first, label)}. Below each map the prediction of the model and "
            "its confidence; ✗ marks wrong ones."
        )
        data = cells(results.heatmaps, columns).assign(has_groups=True)
        yield from _drawing("fig13", slug, caption, data)


def _chosen_by_setting(
    results: Results, constraint: str = "f1", slack: float = SLACK, shown: Sequence[str] = ()
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, slug and, of the first seed, the checkpoints chosen by validation EPG.

    Those without heat maps, before guidance or after, are left out.
    """
    maps = results.heatmaps
    for setting in by_setting(guided_there(results.selected), shown):
        chosen = best_within(setting.frame.drop(columns="front"), "epg", constraint, slack)
        is_made = [bool(key_of(maps, row) and key_of(maps, row, 0)) for row in records(chosen)]
        chosen = chosen[is_made]
        if len(chosen):
            yield setting.label, setting.slug, chosen[chosen["seed"] == chosen["seed"].min()]


def _subject(row: Mapping[str, Any], label: str) -> str:
    where = style.place_label(row[name] for name in style.PLACE)
    return f"attributions of {where} on test images of {label}"


def _places(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per (model, attribution, layer), the paper's first."""

    def rank(row: Mapping[str, Any]) -> tuple[int, str]:
        own = (family_of(str(row["model"])), row["attribution"], row["layer"])
        return PLACES.index(own) if own in PLACES else len(PLACES), " ".join(map(str, own))

    rows = records(chosen.drop_duplicates(style.PLACE))
    return sorted(rows, key=rank)


def _place_with_most(chosen: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of the place with most values of a column; a tie goes to the paper's."""
    best, most = chosen.head(0), 0
    for place in _places(chosen):
        same = (chosen[style.PLACE] == [place[name] for name in style.PLACE]).all(axis=1)
        n_values = chosen.loc[same, column].nunique(dropna=False)
        if n_values > most:
            best, most = chosen[same], n_values
    return best


def _drawing(name: str, slug: str, caption: str, data: pd.DataFrame) -> Iterator[Drawing]:
    if data.empty:
        return
    classes = ", ".join(dict.fromkeys(data["class_name"]))
    means = data[data["kind"] == MAP].groupby("column_label", sort=False)["epg"].mean()
    shown = "; ".join(
        f"{' '.join(str(label).split())} {100 * value:.0f} %" for label, value in means.items()
    )
    alt = f"Heat maps over test images of {classes}. Mean EPG: {shown}."
    yield Drawing(file_name(name, slug), caption, alt, data, draw_cells)
