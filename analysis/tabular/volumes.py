"""Tables of what whole fronts are worth: volumes, distances, and what seeds attain."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.claims.measures import PANEL, tested_rows
from analysis.indicators import additive_epsilon, attainment, hypervolume, reference_point
from analysis.pareto import numbered
from analysis.results import Results
from analysis.selection import guided_there
from analysis.settings import describing
from analysis.tabular.formats import Table
from mg_core.columns import BY_METRIC, CONFIGURATION, PAIR, RUN, SPLITS

SHARE = 0.5
"""Share of the seeds that attain a goal: that of the median surface."""


def volumes(results: Results) -> Table:
    """Compare the fronts of a panel's losses by hypervolume and additive epsilon.

    Both are taken in F1 and each further objective, per seed, against one reference point per
    panel and seed: the worst of the baseline and all losses' points in each objective.
    """
    rows, split = _rows(results)
    found = []
    if len(rows):
        panels = rows.assign(panel=numbered(rows, [*PANEL, *PAIR]))
        for _, panel in panels.groupby(["panel", *RUN]):
            for metric in _others(results):
                found += _of_panel(panel, split, metric)
    columns = [*describing(rows), "objectives", "loss"]
    values = ["hypervolume", "hypervolume_share", "additive_epsilon"]
    frame = pd.DataFrame(found, columns=[*columns, *values])
    means = frame.groupby(columns, dropna=False, sort=False)[values]
    table = means.mean().add_suffix("_mean").join(means.std().add_suffix("_sd"))
    order = [f"{name}_{kind}" for name in values for kind in ("mean", "sd")]
    title = (
        f"Hypervolume (in squared points), its share of all losses' together (%), and additive "
        f"epsilon (points) of each loss's front on {SPLITS[split]}: mean and standard "
        "deviation over seeds."
    )
    return Table("volumes", title, table[order].reset_index())


def attained(results: Results) -> Table:
    """List what at least half of a configuration's seeds attain, for those with several seeds."""
    rows, split = _rows(results)
    rows = rows[~rows["is_reference"]]
    found = []
    for _, own in rows.groupby(numbered(rows, [*CONFIGURATION, *PAIR])) if len(rows) else []:
        if own["seed"].nunique() < 2:
            continue
        for metric in _others(results):
            fronts = [_points(front, split, metric).dropna() for _, front in own.groupby(RUN)]
            if any(len(front) for front in fronts):
                described = own.iloc[0].to_dict() | {"objective": BY_METRIC[metric].header}
                goals = sorted(attainment(fronts, SHARE).tolist())
                found += [described | {"f1": f1, "value": value} for f1, value in goals]
    columns = [*describing(rows), "loss", "objective", "f1", "value"]
    title = (
        f"Goals in F1 and another objective that at least half of the seeds attain on "
        f"{SPLITS[split]} (%): the median attainment surface."
    )
    return Table("attained", title, pd.DataFrame(found, columns=columns))


def _rows(results: Results) -> tuple[pd.DataFrame, str]:
    rows, split = tested_rows(results)
    return guided_there(rows).reset_index(drop=True), split


def _others(results: Results) -> list[str]:
    return [name for name in results.objectives if name != "f1"]


def _points(rows: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    return 100 * rows[[f"{split}_f1", f"{split}_{metric}"]].astype(float)


def _of_panel(panel: pd.DataFrame, split: str, metric: str) -> list[dict[Any, Any]]:
    points = _points(panel, split, metric)
    if points.dropna().empty:
        return []
    reference = reference_point(points)
    guided = points[~panel["is_reference"]]
    whole = hypervolume(guided, reference)
    described = panel.iloc[0].to_dict() | {"objectives": f"F1, {BY_METRIC[metric].header}"}
    found = []
    for loss, own in guided.groupby(panel["loss"]):
        volume = hypervolume(own, reference)
        share = 100 * volume / whole if whole else None
        values = {"hypervolume": volume, "hypervolume_share": share}
        values["additive_epsilon"] = additive_epsilon(own, guided)
        found.append(described | {"loss": loss} | values)
    return found
