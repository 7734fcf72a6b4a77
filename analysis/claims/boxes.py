"""What guidance keeps with fewer or coarser boxes: R7 and R8."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.claims.measures import Measures, by_boxes, gained, laid_out, paired
from analysis.claims.statistics import (
    ENOUGH_KEPT,
    MOST_KEPT,
    column_means,
    estimate,
    having,
    kept_share,
)
from analysis.claims.verdict import Condition, Finding
from analysis.pareto import numbered
from mg_core.columns import CONFIGURATION


def r7(measures: Measures) -> Finding:
    """1–10 % of the boxes are enough."""
    rows = by_boxes(measures.guided_there)
    chosen = measures.chosen(rows[rows["loss"] == "energy"])
    chosen = chosen.assign(gain=gained(chosen, chosen["annotated_fraction"] == 1))
    table = having(paired(chosen, "annotated_fraction", ["gain"]), [1.0])
    few = [name for name in table if isinstance(name, float) and name <= 0.1]
    conditions = tuple(
        Condition(
            f"EPG gain that Energy keeps with {100 * name:g} % of the boxes",
            kept_share(table, name, 1.0),
            MOST_KEPT if name <= 0.01 else ENOUGH_KEPT,
            "%",
        )
        for name in few
    )
    return Finding(
        "R7",
        "1–10 % of the boxes are enough.",
        "VOC with 1 % of the boxes: up to +23.0 points of EPG; 10 % is very similar to all",
        "fig12",
        "trials guided by Energy with all boxes and with at most 10 % of them",
        conditions,
        column_means(table, "annotated_fraction"),
    )


def r8(measures: Measures) -> Finding:
    """Energy is robust to dilated boxes, L1 is not."""
    chosen = measures.chosen(by_boxes(measures.guided_there))
    chosen = chosen[chosen["loss"].isin(["energy", "l1"])]
    shared = [name for name in CONFIGURATION if name not in ("box_dilation", "loss")]
    chosen = chosen.assign(
        gain=gained(chosen, chosen["box_dilation"] == 0), configuration=numbered(chosen, shared)
    )
    most = float(chosen["box_dilation"].max()) if len(chosen) else 0.0
    ends = chosen[chosen["box_dilation"].isin([0.0, most])]
    tightness = np.where(ends["box_dilation"] == 0, ", tight", ", dilated")
    ends = ends.assign(end=ends["loss"] + tightness)
    columns = ["energy, tight", "energy, dilated", "l1, tight", "l1, dilated"]
    table = laid_out(ends, "end", ["gain"]) if most > 0 else pd.DataFrame({"configuration": []})
    both = having(table, columns).reindex(columns=["configuration", *columns])
    # Where L1 was not run, Energy is judged all the same.
    conditions = (
        Condition(
            f"EPG gain that Energy keeps with boxes dilated by {100 * most:g} %",
            kept_share(table, "energy, dilated", "energy, tight"),
            ENOUGH_KEPT,
            "%",
        ),
        Condition(
            "EPG gain kept: Energy minus L1",
            estimate(both, lambda m: 100 * (m[:, 1] / m[:, 0] - m[:, 3] / m[:, 2])),
        ),
    )
    dilated = chosen.loc[chosen["box_dilation"] > 0, "configuration"]
    detail = chosen[chosen["configuration"].isin(dilated)]
    detail = detail.groupby(["loss", "box_dilation"], as_index=False)[["f1", "epg", "iou"]].mean()
    return Finding(
        "R8",
        "The Energy loss is robust to dilated boxes, L1 is not.",
        "Energy is essentially unaffected by boxes dilated by up to 50 %; L1 worsens markedly",
        "fig10",
        "trials guided by Energy and L1 with tight and with dilated boxes",
        conditions,
        detail,
    )
