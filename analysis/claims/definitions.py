"""What each finding means: the statistic, and the threshold it must exceed.

Points are percentage points. A checkpoint is always chosen on validation; its numbers are those of
the test split where it was tested. R1 to R6 and R9 are judged on trials guided by every box as it
is; fewer, coarser and reversed boxes have findings of their own. "Chosen" is the highest EPG (IoU
where IoU is judged) at a loss of at most 5 points of F1 against the baseline, both on validation;
where guidance left no such checkpoint in a finished sweep the baseline stands, and has gained
nothing. Table 1 wants a loss of at most 1 point of accuracy instead; R6 has a choice of its own.
R1 and R2 must hold at each of the layers of Figure 5, input and final, at which anything was
guided: the paper makes both claims for all its configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.claims import Condition, Finding
from analysis.claims.measures import (
    Measures,
    by_column,
    gained,
    laid_out,
    paired,
    volume_shares,
    with_all_boxes,
)
from analysis.claims.statistics import (
    best_layer,
    best_of_losses,
    column_means,
    difference,
    estimate,
    having,
    kept_share,
)
from analysis.pareto import CONFIGURATION, numbered
from analysis.tabular.study import TABLE_1_SLACK

ENOUGH_KEPT = 80.0
"""Percent of a gain that counts as "very similar": with a tenth of the boxes, or coarser ones."""
MOST_KEPT = 50.0
"""Percent of a gain that counts as improved significantly: with 1 % of the boxes, or elsewhere."""
SHOWN = ["model", "guided_attribution", "guided_layer"]
ROWS = ("input", "final")
"""Of panels in Figure 5: the layers for which R1 and R2 are judged one by one."""


def r1(measures: Measures) -> Finding:
    """Energy gives the best EPG–F1 trade-off."""
    return _best_loss(
        measures,
        Finding(
            "R1",
            "The Energy loss gives the best trade-off between EPG and F1.",
            "Energy's front dominates those of all other losses for every model",
            (),
            pd.DataFrame(),
            "fig5",
            "trials guided by Energy and by another loss at the same place",
        ),
        "energy",
        "epg",
    )


def r2(measures: Measures) -> Finding:
    """L1 gives the best IoU–F1 trade-off."""
    return _best_loss(
        measures,
        Finding(
            "R2",
            "The L1 loss gives the best trade-off between IoU and F1.",
            "with few exceptions L1's front dominates all others in all configurations (its figure "
            "has the final layer, its supplement the input)",
            (),
            pd.DataFrame(),
            "fig6",
            "trials guided by L1 and by another loss at the same place",
        ),
        "l1",
        "iou",
    )


def r3(measures: Measures) -> Finding:
    """Energy focuses on the object inside the box."""
    chosen = measures.chosen(with_all_boxes(measures.guided_there))
    # A baseline that stands says nothing of where a loss guides to.
    table = paired(chosen[~chosen["is_reference"]], "loss", ["on_object"])
    condition = Condition(
        "on-object share of the in-box energy, chosen checkpoints: Energy minus L1",
        difference(table, "energy", ["l1"]),
    )
    return Finding(
        "R3",
        "The Energy loss focuses on the object inside the box.",
        "Energy has more of its in-box energy on the object than L1 for all models",
        (condition,),
        column_means(having(table, ["energy", "l1"]), "loss"),
        "fig9",
        "trials guided by Energy and by L1, and test images with segmentation masks",
    )


def r4(measures: Measures) -> Finding:
    """B-cos is best at the input layer."""
    conditions, details = [], []
    rows = with_all_boxes(measures.guided_there)
    rows = rows[(rows["layer"] == "input") & (rows["attribution"] != "gradcam")]
    for metric in ("epg", "iou"):
        chosen = measures.chosen(rows, by=metric)
        family = chosen["model"].str.split("_").str[0]
        # A model goes with an attribution of its own, so neither is shared by what is compared.
        same = chosen.assign(model=family, attribution="own", guided_attribution="own")
        table = paired(same, "model", [metric])
        conditions.append(
            Condition(
                f"{metric.upper()} at input, chosen checkpoints: B-cos minus the best other family",
                difference(table, "bcos", [n for n in ("vanilla", "xdnn") if n in table]),
            )
        )
        details.append(column_means(table, "family").assign(metric=metric))
    return Finding(
        "R4",
        "At the input layer, B-cos explanations perform best.",
        "VOC, Energy: EPG 71.7 at F1 79.4 (B-cos), 55.8 at 69.0 (vanilla), 62.3 at 68.9 (X-DNN)",
        tuple(conditions),
        pd.concat(details, ignore_index=True),
        "fig5",
        "B-cos and other models guided at input by the same losses",
    )


def r5(measures: Measures) -> Finding:
    """Guidance at the final layer helps every model."""
    rows = with_all_boxes(measures.guided_there)
    rows = rows[rows["layer"] == "final"]
    conditions, details = [], []
    for metric in ("epg", "iou"):
        best = best_of_losses(measures, rows, metric)
        best["gain"] = best[metric] - best[f"start_{metric}"]
        table = by_column(best, "model", "gain")
        conditions.append(
            Condition(
                f"{metric.upper()} gained at the final layer by the model that gains least",
                # A draw without one of the models says nothing: missing there, it is left out.
                estimate(table, lambda means: means.min(axis=1)),
            )
        )
        details.append(column_means(table, "model").assign(metric=metric))
    return Finding(
        "R5",
        "Guidance at the final layer helps every model.",
        "all models improve in EPG and IoU",
        tuple(conditions),
        pd.concat(details, ignore_index=True),
        "fig5",
        "trials guided at the final layer",
    )


def r6(measures: Measures) -> Finding:
    """Guidance can raise F1 too."""
    rows = with_all_boxes(measures.guided_there)
    key = ["trial_id", "attribution", "layer"]
    start = rows.loc[rows["is_reference"], [*key, "val_epg", "f1"]]
    start = start.rename(columns={"val_epg": "least", "f1": "start_f1"})
    better = rows[~rows["is_reference"]].merge(start, on=key)
    better = better[better["val_epg"] > better["least"]]
    # Chosen on validation over all losses and λ, judged on test: luck in choosing does not count.
    place = ["configuration", "seed"]
    without_loss = [name for name in CONFIGURATION if name != "loss"]
    better = better.assign(configuration=numbered(better, without_loss))
    order = ["val_f1", "val_epg"]
    best = better.sort_values(order, ascending=False, kind="stable").drop_duplicates(place)
    best = best.assign(gain=best["f1"] - best["start_f1"])
    table = by_column(best, "model", "gain")
    condition = Condition(
        "F1 gained, with EPG above the baseline's, by the model that gains most",
        estimate(table, lambda means: means.max(axis=1)),
    )
    return Finding(
        "R6",
        "Guidance can raise F1 as well as localization.",
        "vanilla (final) and X-DNN (input, final): up to +1.4 points of F1 with +7.2 of EPG",
        (condition,),
        column_means(table, "model"),
        "fig5",
        "guided trials",
    )


def r7(measures: Measures) -> Finding:
    """1–10 % of the boxes are enough."""
    rows = measures.guided_there
    chosen = measures.chosen(rows[rows["loss"] == "energy"])
    chosen = chosen.assign(gain=gained(chosen, chosen["annotated_fraction"] == 1))
    table = having(paired(chosen, "annotated_fraction", ["gain"]), [1.0])
    few = [name for name in table if isinstance(name, float) and name <= 0.1]
    thresholds = {name: MOST_KEPT if name <= 0.01 else ENOUGH_KEPT for name in few}
    conditions = tuple(
        Condition(
            f"EPG gain that Energy keeps with {100 * name:g} % of the boxes",
            kept_share(table, name, 1.0),
            threshold,
            "%",
        )
        for name, threshold in thresholds.items()
    )
    return Finding(
        "R7",
        "1–10 % of the boxes are enough.",
        "VOC with 1 % of the boxes: up to +23.0 points of EPG; 10 % is very similar to all",
        conditions,
        column_means(table, "annotated_fraction"),
        "fig12",
        "trials guided by Energy with all boxes and with at most 10 % of them",
    )


def r8(measures: Measures) -> Finding:
    """Energy is robust to dilated boxes, L1 is not."""
    chosen = measures.chosen(measures.guided_there)
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
            estimate(
                having(table, columns).reindex(columns=["configuration", *columns]),
                lambda m: 100 * (m[:, 1] / m[:, 0] - m[:, 3] / m[:, 2]),
            ),
        ),
    )
    dilated = chosen.loc[chosen["box_dilation"] > 0, "configuration"]
    detail = chosen[chosen["configuration"].isin(dilated)]
    detail = detail.groupby(["loss", "box_dilation"], as_index=False)[["f1", "epg", "iou"]].mean()
    return Finding(
        "R8",
        "The Energy loss is robust to dilated boxes, L1 is not.",
        "Energy is essentially unaffected by boxes dilated by up to 50 %; L1 worsens markedly",
        conditions,
        detail,
        "fig10",
        "trials guided by Energy and L1 with tight and with dilated boxes",
    )


def r9(measures: Measures) -> Finding:
    """Guiding at middle layers improves input attributions, up to twice as fast."""
    rows = with_all_boxes(measures.rows)
    rows = rows[(rows["layer"] == "input") & (rows["attribution"] == rows["guided_attribution"])]
    rows = rows[rows["loss"] == "energy"]
    is_bcos = rows["model"].str.startswith("bcos")
    rows = rows[is_bcos] if is_bcos.any() else rows
    chosen = measures.chosen(rows)
    seconds = chosen["trial_id"].map(measures.step_seconds).astype("float64")
    chosen = chosen.assign(gain=gained(chosen, chosen["guided_layer"] == "input"), seconds=seconds)
    gains = paired(chosen, "guided_layer", ["gain"])
    middle = [str(name) for name in gains if str(name).startswith("mid")]
    best = best_layer(chosen, middle)
    gains = having(gains, ["input", best])
    times = having(paired(chosen, "guided_layer", ["seconds"]), ["input", best])
    conditions = (
        Condition(
            f"EPG gain at input that guidance at {best or 'a middle layer'} has, against input",
            kept_share(gains, best, "input"),
            MOST_KEPT,
            "%",
        ),
        Condition(
            f"training steps at {best or 'a middle layer'} for each at input",
            estimate(
                times.reindex(columns=["configuration", best, "input"]),
                lambda m: m[:, 1] / m[:, 0],
            )
            if best
            else None,
            1.0,
            "times",
        ),
    )
    detail = chosen.groupby("guided_layer", as_index=False)[["f1", "epg", "gain", "seconds"]].mean()
    return Finding(
        "R9",
        "Guiding at middle layers improves input attributions, up to twice as fast.",
        "Mid2: similar gains of EPG at input, 1.7 times as fast",
        conditions,
        detail,
        "fig8",
        "trials guided by Energy at input and at middle layers, all judged at input",
    )


def table_1(measures: Measures) -> Finding:
    """Guidance raises worst-group and overall accuracy on Waterbirds-100."""
    rows = measures.guided_there
    rows = rows[rows["val_accuracy"].notna()] if "val_accuracy" in rows else rows.head(0)
    chosen = measures.chosen(rows, "epg", "accuracy", TABLE_1_SLACK)
    values = {"overall": "accuracy", "worst": "accuracy_worst_group"}
    gains = chosen.assign(
        **{name: chosen[column] - chosen[f"start_{column}"] for name, column in values.items()}
    )
    conditions = []
    for task in ("conventional", "reversed"):
        table = paired(gains[gains["task"] == task], "loss", list(values))
        conditions.append(
            Condition(
                f"least gain of accuracy (overall, worst group; each loss), {task} task",
                estimate(table, lambda means: means.min(axis=1)),
            )
        )
    detail = chosen.groupby(["task", "loss"], as_index=False)[
        [*values.values(), *(f"start_{column}" for column in values.values())]
    ].mean()
    return Finding(
        "Table 1",
        "Guidance improves worst-group and overall accuracy on Waterbirds-100.",
        "worst 43.4 to 56.1, overall 68.7 to 71.2 (Energy, conventional); 56.6 to 62.8, 80.1 to "
        "83.6 (reversed)",
        tuple(conditions),
        detail,
        "fig13",
        "a data set with groups, trained for both tasks",
    )


FINDINGS: tuple[Callable[[Measures], Finding], ...] = (r1, r2, r3, r4, r5, r6, r7, r8, r9, table_1)


def _best_loss(measures: Measures, finding: Finding, loss: str, metric: str) -> Finding:
    shares, losses = _comparable_shares(measures, loss, metric)
    if loss not in losses:
        return finding
    layers = [layer for layer in ROWS if (shares["guided_layer"] == layer).any()]
    own = {layer: shares[shares["guided_layer"] == layer] for layer in layers}
    judged = shares[shares["guided_layer"].isin(layers)]
    compared = judged[judged[losses].notna().sum(axis=1) > 1]
    claim = finding.claim
    if len(compared):
        n_best = int((compared[loss] >= compared[losses].max(axis=1)).sum())
        claim += (
            f" It has the largest volume in {n_best} of {len(compared)} panels, those of each seed "
            "counted."
        )
    return replace(
        finding,
        claim=claim,
        conditions=tuple(_lead(own[layer], losses, loss, metric, layer) for layer in layers),
        detail=shares.groupby(SHOWN, as_index=False)[losses].mean(),
    )


def _comparable_shares(
    measures: Measures, loss: str, metric: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the volume shares of the runs to compare a loss by, and the names of all losses."""
    shares = volume_shares(with_all_boxes(measures.guided_there), metric)
    losses = [str(name) for name in shares if name not in {"configuration", *CONFIGURATION}]
    if loss in losses:
        # A share among fewer losses is another quantity: at each place those runs are compared
        # that have the most.
        shares = shares[shares[loss].notna()]
        n_losses = shares[losses].notna().sum(axis=1)
        shares = shares[n_losses == n_losses.groupby(shares["configuration"]).transform("max")]
    return shares, losses


def _lead(shares: pd.DataFrame, losses: list[str], loss: str, metric: str, layer: str) -> Condition:
    name = {"epg": "EPG", "iou": "IoU"}[metric]
    others = [other for other in losses if other != loss]
    return Condition(
        f"share of all losses' hypervolume in F1 and {name}, guided at {layer}: {loss} minus the "
        "best other loss",
        difference(shares[["configuration", *losses]], loss, others),
    )
