"""Whether guidance did what it is for, and did not only move its measure: C2, C3 and C5.

The paper has no numbers for these. Like all findings they are judged where boxes are as they are,
on checkpoints that validation chose; of several losses at one place, the one whose checkpoint has
the highest EPG on validation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.claims.measures import Measures, laid_out, with_all_boxes, with_usual_boxes
from analysis.claims.statistics import ENOUGH_KEPT, best_of_losses, estimate
from analysis.claims.verdict import Condition, Finding
from analysis.indicators import hypervolume, reference_point
from analysis.pareto import numbered
from analysis.selection import SLACK
from mg_core.columns import CONFIGURATION, PAIR, RUN

GUIDED = ["model", "guided_attribution", "guided_layer"]
LEAST_LOSS = 100 * SLACK
"""Points of EPG that count as lost: as many as points of F1 may be given for them."""


def c2(measures: Measures) -> Finding:
    """Nothing was gamed: an attribution that was not guided improves, too."""
    judged = _judged_elsewhere(measures)
    table = laid_out(judged, "attribution", ["gain"])
    conditions = tuple(
        Condition(
            f"EPG by {name} gained where another attribution was guided",
            estimate(table[["configuration", name]]),
        )
        for name in sorted(set(map(str, table)) - {"configuration"})
    )
    shown = ["start_epg", "epg", "gain"]
    return Finding(
        "C2",
        "Nothing was gamed: attributions that were not guided improve, too.",
        missing="trials whose sweep names another attribution under evaluate, and a new test of "
        "their checkpoints where an earlier version tested them",
        conditions=conditions,
        detail=judged.groupby([*GUIDED, *PAIR], as_index=False)[shown].mean(),
    )


def _judged_elsewhere(measures: Measures) -> pd.DataFrame:
    """Return the EPG that chosen checkpoints gained by each attribution that was not guided."""
    rows = measures.rows
    before = rows[rows["is_reference"] & (rows["attribution"] != rows["guided_attribution"])]
    start = before[["trial_id", *PAIR, "epg"]].rename(columns={"epg": "start_epg"})
    # Where the baseline stands in for a checkpoint, it is judged elsewhere as well.
    parts = [part for part in (measures.elsewhere, before) if len(part)]
    judged = pd.concat(parts) if parts else before
    chosen = best_of_losses(measures.chosen(with_all_boxes(measures.guided_there)), "epg")
    of_chosen = chosen[["trial_id", "epoch", "configuration"]]
    found = judged.merge(of_chosen, on=["trial_id", "epoch"]).merge(start, on=["trial_id", *PAIR])
    return found.assign(gain=(found["epg"] - found["start_epg"]).astype("float64"))


def c3(measures: Measures) -> Finding:
    """The prediction depends less on the background."""
    rows = with_usual_boxes(measures.guided_there)
    chosen = best_of_losses(measures.chosen(rows), "epg")
    fall = chosen["f1_unswapped"] - chosen["f1_swapped"]
    start_fall = chosen["start_f1_unswapped"] - chosen["start_f1_swapped"]
    values = chosen.assign(
        fall=fall,
        start_fall=start_fall,
        less=(start_fall - fall).astype("float64"),
        more=(chosen["f1_swapped"] - chosen["start_f1_swapped"]).astype("float64"),
    )
    known = values.dropna(subset=["less"])
    shown = ["start_f1_unswapped", "start_f1_swapped", "f1_unswapped", "f1_swapped"]
    return Finding(
        "C3",
        "The prediction depends less on the background.",
        missing="tested checkpoints of guided trials, and a new test where an earlier version "
        "tested them",
        conditions=(
            Condition(
                "fall of F1 with the background of another image: baseline minus guided",
                estimate(known[["configuration", "less"]]),
            ),
            # A network that was worse before has less to lose.
            Condition(
                "F1 with the background of another image: guided minus baseline",
                estimate(known[["configuration", "more"]]),
            ),
        ),
        detail=known.groupby([*GUIDED, "loss"], as_index=False)[
            [*shown, "start_fall", "fall"]
        ].mean(),
    )


def c5(measures: Measures) -> Finding:
    """Selection by F1 alone loses what guidance gained."""
    rows = with_all_boxes(measures.guided_there)
    rows = rows.assign(configuration=numbered(rows, CONFIGURATION))
    order, place = ["val_f1", "val_epg"], ["configuration", *RUN]
    ranked = rows[~rows["is_reference"]].sort_values(order, ascending=False, kind="stable")
    by_f1 = ranked.drop_duplicates(place)
    both = measures.chosen(rows).merge(
        by_f1[[*place, "f1", "epg"]], on=place, suffixes=("", "_by_f1")
    )
    both = both.merge(_volumes(rows.assign(is_by_f1=rows.index.isin(by_f1.index)), place), on=place)
    both = both.assign(lost=(both["epg"] - both["epg_by_f1"]).astype("float64"))
    shown = ["n_on_front", "f1_by_f1", "epg_by_f1", "f1", "epg", "lost", "lost_volume"]
    return Finding(
        "C5",
        "Selection by F1 alone loses what guidance gained.",
        missing="guided trials",
        conditions=(
            Condition(
                f"EPG of the checkpoint that may lose {LEAST_LOSS:g} points of F1, minus that of "
                "the checkpoint with the highest F1",
                estimate(both[["configuration", "lost"]]),
                LEAST_LOSS,
            ),
            Condition(
                "share of the front's hypervolume in F1 and EPG that is not the checkpoint's with "
                "the highest F1",
                estimate(both[["configuration", "lost_volume"]]),
                100 - ENOUGH_KEPT,
                "%",
            ),
        ),
        detail=both.groupby([*GUIDED, "loss"], as_index=False)[shown].mean(),
    )


def _volumes(rows: pd.DataFrame, place: list[str]) -> pd.DataFrame:
    """Return what share of each front's hypervolume its checkpoint `is_by_f1` lacks, in percent.

    The reference point is the component-wise minimum of the baseline and the front.
    """
    found = []
    for key, group in rows.groupby(place):
        points = group[["f1", "epg"]].to_numpy(dtype=np.float64)
        guided = group[~group["is_reference"]]
        if guided.empty or np.isnan(points).any(axis=1).all():
            continue
        reference = reference_point(points)
        whole = hypervolume(guided[["f1", "epg"]], reference)
        own = hypervolume(guided.loc[guided["is_by_f1"], ["f1", "epg"]], reference)
        share = 100 * (1 - own / whole) if whole > 0 else np.nan
        found.append((*key, len(guided), share))
    types = {**rows[place].dtypes, "n_on_front": "int64", "lost_volume": "float64"}
    return pd.DataFrame(found, columns=list(types)).astype(types)
