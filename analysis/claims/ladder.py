"""What annotations are worth: C1, that the boxes matter, and C4, what an hour of them buys."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.measures import Measures, paired
from analysis.claims.statistics import column_means, difference, estimate, having
from analysis.claims.verdict import Condition, Finding
from analysis.pareto import numbered
from mg_core.columns import BY_METRIC, CONFIGURATION, PAIR, RUN

LEAST_LEAD = {"epg": 5.0, "iou": 0.0}
"""Points by which boxes must lead random ones. In EPG it is as much as the choice of checkpoints
may lose in F1; IoU is small at the input layer, so that any lead counts."""
TIMES = 33
"""Times, evenly spaced in their logarithm, at which two annotations are compared."""
SHARED = [name for name in CONFIGURATION if name not in ("annotation", "annotated_fraction")]
"""What trials share that are compared at equal annotation time."""


def c1(measures: Measures) -> Finding:
    """The boxes matter: guided minus the same with random boxes."""
    rows = measures.guided_there
    rows = rows[rows["annotation"].isin(["box", "random_box"])]
    conditions, details = [], []
    for metric, least in LEAST_LEAD.items():
        table = paired(measures.chosen(rows, by=metric), "annotation", [metric])
        table = having(table, ["box", "random_box"])
        conditions.append(
            Condition(
                f"{BY_METRIC[metric].header} of chosen checkpoints: guided by boxes minus by "
                "random boxes of the same size",
                difference(table, "box", ["random_box"]),
                least,
            )
        )
        details.append(column_means(table, "annotation").assign(metric=metric))
    return Finding(
        "C1",
        "The boxes matter: boxes of the right size in a wrong place guide less.",
        "",
        "hours",
        "trials guided by boxes and, all else equal, by random_box",
        tuple(conditions),
        pd.concat(details, ignore_index=True),
    )


def c4(measures: Measures) -> Finding:
    """What an hour of annotation buys: mask against box against points at equal time."""
    gains = gains_by_hours(measures, "epg")
    words = {"points": "points", "box": "boxes", "mask": "masks"}
    conditions, details = [], []
    for cheap, dear in (("box", "mask"), ("points", "box")):
        table = at_equal_time(gains, cheap, dear)
        conditions.append(
            Condition(
                f"EPG gained at equal annotation time: {words[cheap]} minus {words[dear]}",
                estimate(table, lambda means: means[:, 0] - means[:, 1]),
            )
        )
        compared = f"{words[cheap]} against {words[dear]}"
        details.append(column_means(table, "annotation").assign(compared=compared))
    return Finding(
        "C4",
        "An hour of boxes buys more EPG than an hour of masks, and one of points more than both.",
        "",
        "hours",
        "fractions of images with masks, boxes and points whose annotation takes as long",
        tuple(conditions),
        pd.concat(details, ignore_index=True),
    )


def gains_by_hours(measures: Measures, metric: str) -> pd.DataFrame:
    """Return what each chosen checkpoint gained, and the hours of its annotations.

    Rows are those of `Measures.chosen` by a metric, judged where they were guided, with `gain` in
    points and `hours`; those without hours, which no annotator drew, are left out.
    """
    chosen = measures.chosen(measures.guided_there, by=metric)
    gain = (chosen[metric] - chosen[f"start_{metric}"]).astype("float64")
    hours = chosen["trial_id"].map(measures.hours).astype("float64")
    found = chosen.assign(gain=gain, hours=hours)
    return found[(found["hours"] > 0) & found["gain"].notna()].reset_index(drop=True)


def at_equal_time(gains: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Compare two annotations at the hours that both were measured around.

    The gain is interpolated along the fractions, linearly in the logarithm of the hours, and
    averaged over the range that both cover. Runs without such a range are left out. Each run has a
    row: `configuration`, and the mean gain of either annotation under its name.
    """
    # Clicks are one kind, however many; a box that is off is no box.
    kind = gains["annotation"].astype(str).str.replace(r"\(count=.*\)", "", regex=True)
    run = numbered(gains, [*SHARED, *RUN, *PAIR])
    found = []
    for _, rows in gains.assign(kind=kind).groupby(run):
        curves = {
            name: [curve for _, curve in rows[rows["kind"] == name].groupby("annotation")]
            for name in (one, other)
        }
        for first, second in product(curves[one], curves[other]):
            if (means := _means_in_common(first, second)) is not None:
                own = {"first": first["annotation"].iloc[0], "second": second["annotation"].iloc[0]}
                found.append(
                    rows.iloc[0][SHARED].to_dict() | own | {one: means[0], other: means[1]}
                )
    table = pd.DataFrame(found, columns=[*SHARED, "first", "second", one, other])
    number = numbered(table, [*SHARED, "first", "second"])
    values = table[[one, other]].astype("float64")
    return pd.DataFrame({"configuration": number, one: values[one], other: values[other]})


def _means_in_common(first: pd.DataFrame, second: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the mean gains of two curves over the hours that both cover; none without any."""
    low = max(curve["hours"].min() for curve in (first, second))
    high = min(curve["hours"].max() for curve in (first, second))
    if not low <= high:
        return None
    times = np.linspace(np.log(low), np.log(high), TIMES)
    curves = (curve.sort_values("hours") for curve in (first, second))
    return np.array(
        [np.interp(times, np.log(curve["hours"]), curve["gain"]).mean() for curve in curves]
    )
