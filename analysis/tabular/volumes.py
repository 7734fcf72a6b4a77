"""Tables of what whole fronts are worth: volumes, distances, and what seeds attain."""

from __future__ import annotations

import pandas as pd

from analysis.claims.measures import PANEL, Measures
from analysis.indicators import additive_epsilon, attainment, hypervolume, reference_point
from analysis.pareto import CONFIGURATION, PAIR, RUN, numbered
from analysis.results import Results
from analysis.settings import SETTING, distinguishing
from analysis.tabular.formats import NAMES, SPLITS, Table

SHARE = 0.5
"""Of the seeds that attain a goal: the median surface."""


def volumes(results: Results) -> Table:
    """Compare the fronts of a panel's losses by hypervolume and additive epsilon.

    Both are taken in F1 and each further objective, per seed, against one reference point per
    panel and seed: the worst of the baseline and all losses' points in each objective.
    """
    measures = Measures.of(results)
    rows = measures.guided_there
    others = [name for name in results.objectives if name != "f1"]
    found = []
    if len(rows):
        panels = rows.assign(panel=numbered(rows, [*PANEL, *PAIR]))
        for _, panel in panels.groupby(["panel", *RUN]):
            for metric in others:
                found += _of_panel(panel, metric)
    columns = [*_describing(rows), "objectives", "loss"]
    values = ["hypervolume", "hypervolume_share", "additive_epsilon"]
    frame = pd.DataFrame(found, columns=[*columns, *values])
    means = frame.groupby(columns, dropna=False, sort=False)[values]
    table = means.mean().add_suffix("_mean").join(means.std().add_suffix("_sd"))
    order = [f"{name}_{kind}" for name in values for kind in ("mean", "sd")]
    title = (
        f"Hypervolume (in squared points), its share of all losses' together (%), and additive "
        f"epsilon (points) of each loss's front on {SPLITS[measures.split]}: mean and standard "
        "deviation over seeds."
    )
    return Table("volumes", title, table[order].reset_index())


def attained(results: Results) -> Table:
    """List what at least half of a configuration's seeds attain, for those with several seeds."""
    measures = Measures.of(results)
    rows = measures.guided_there
    rows = rows[~rows["is_reference"]]
    others = [name for name in results.objectives if name != "f1"]
    describing = [*_describing(rows), "loss"]
    found = []
    for _, own in rows.groupby(numbered(rows, [*CONFIGURATION, *PAIR])) if len(rows) else []:
        if own["seed"].nunique() < 2:
            continue
        described = own.iloc[0][describing].to_dict()
        for metric in others:
            fronts = [front[["f1", metric]] for _, front in own.groupby(RUN)]
            fronts = [front.dropna() for front in fronts]
            if not any(len(front) for front in fronts):
                continue
            goals = attainment(fronts, SHARE)
            found += [
                described | {"objective": NAMES.get(metric, metric), "f1": f1, "value": value}
                for f1, value in sorted(goals.tolist())
            ]
    columns = [*describing, "objective", "f1", "value"]
    title = (
        f"Goals in F1 and another objective that at least half of the seeds attain on "
        f"{SPLITS[measures.split]} (%): the median attainment surface."
    )
    return Table("attained", title, pd.DataFrame(found, columns=columns))


def _of_panel(panel: pd.DataFrame, metric: str) -> list[dict[str, object]]:
    points = panel[["f1", metric]]
    if points.dropna().empty:
        return []
    reference = reference_point(points)
    guided = panel[~panel["is_reference"]]
    whole = hypervolume(guided[["f1", metric]], reference)
    first = panel.iloc[0]
    described = {name: first[name] for name in _describing(panel, every=True)}
    return [
        described
        | {"objectives": f"F1, {NAMES.get(metric, metric)}", "loss": loss}
        | {"hypervolume": (volume := hypervolume(own[["f1", metric]], reference))}
        | {"hypervolume_share": 100 * volume / whole if whole else None}
        | {"additive_epsilon": additive_epsilon(own[["f1", metric]], guided[["f1", metric]])}
        for loss, own in guided.groupby("loss")
    ]


def _describing(rows: pd.DataFrame, every: bool = False) -> list[str]:
    settings = SETTING if every else distinguishing(rows, SETTING)
    return [*settings, "model", "guided_attribution", "guided_layer"]
