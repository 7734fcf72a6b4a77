"""Which models guidance helps, and at which layers: R4, R5, R6 and R9."""

from __future__ import annotations

import pandas as pd

from analysis.claims.measures import Measures, by_column, gained, paired, with_all_boxes
from analysis.claims.statistics import (
    MOST_KEPT,
    best_of_losses,
    column_means,
    difference,
    estimate,
    having,
    kept_share,
)
from analysis.claims.verdict import Condition, Finding
from mg_core.columns import PAIR
from mg_core.models.library import family_of


def r4(measures: Measures) -> Finding:
    """B-cos is best at the input layer."""
    conditions, details = [], []
    rows = with_all_boxes(measures.guided_there)
    rows = rows[(rows["layer"] == "input") & (rows["attribution"] != "gradcam")]
    for metric in ("epg", "iou"):
        chosen = measures.chosen(rows, by=metric)
        family = chosen["model"].map(family_of)
        # A model goes with an attribution of its own, so neither is shared by what is compared.
        same = chosen.assign(model=family, attribution="own", guided_attribution="own")
        table = paired(same, "model", [metric])
        lead = difference(table, "bcos", ["vanilla", "xdnn"])
        words = "at input, chosen checkpoints: B-cos minus the best other family"
        conditions.append(Condition(f"{metric.upper()} {words}", lead))
        details.append(column_means(table, "family").assign(metric=metric))
    return Finding(
        "R4",
        "At the input layer, B-cos explanations perform best.",
        "VOC, Energy: EPG 71.7 at F1 79.4 (B-cos), 55.8 at 69.0 (vanilla), 62.3 at 68.9 (X-DNN)",
        "fig5",
        "B-cos and other models guided at input by the same losses",
        tuple(conditions),
        pd.concat(details, ignore_index=True),
    )


def r5(measures: Measures) -> Finding:
    """Guidance at the final layer helps every model."""
    rows = with_all_boxes(measures.guided_there)
    rows = rows[rows["layer"] == "final"]
    conditions, details = [], []
    for metric in ("epg", "iou"):
        best = best_of_losses(measures.chosen(rows, by=metric), metric).sort_index()
        best["gain"] = best[metric] - best[f"start_{metric}"]
        table = by_column(best, "model", "gain")
        # A draw without one of the models gives NaN, which the interval leaves out.
        least = estimate(table, lambda means: means.min(axis=1))
        words = "gained at the final layer by the model that gains least"
        conditions.append(Condition(f"{metric.upper()} {words}", least))
        details.append(column_means(table, "model").assign(metric=metric))
    return Finding(
        "R5",
        "Guidance at the final layer helps every model.",
        "all models improve in EPG and IoU",
        "fig5",
        "trials guided at the final layer",
        tuple(conditions),
        pd.concat(details, ignore_index=True),
    )


def r6(measures: Measures) -> Finding:
    """Guidance can raise F1 too."""
    rows = with_all_boxes(measures.guided_there)
    key = ["trial_id", *PAIR]
    start = rows.loc[rows["is_reference"], [*key, "val_epg", "f1"]]
    start = start.rename(columns={"val_epg": "least", "f1": "start_f1"})
    better = rows[~rows["is_reference"]].merge(start, on=key)
    better = better[better["val_epg"] > better["least"]]
    # Chosen on validation over all losses and λ, judged on test: luck in choosing does not count.
    best = best_of_losses(better, "f1", "epg")
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
        "fig5",
        "guided trials",
        (condition,),
        column_means(table, "model"),
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
    # The middle layer is chosen on validation, too.
    means = chosen[chosen["guided_layer"].isin(middle)].groupby("guided_layer")["val_epg"].mean()
    best = str(means.idxmax()) if len(means) else ""
    where = best or "a middle layer"
    gains = having(gains, ["input", best])
    times = having(paired(chosen, "guided_layer", ["seconds"]), ["input", best])
    times = times.reindex(columns=["configuration", best, "input"])
    speed = estimate(times, lambda means: means[:, 1] / means[:, 0]) if best else None
    conditions = (
        Condition(
            f"EPG gain at input that guidance at {where} has, against input",
            kept_share(gains, best, "input"),
            MOST_KEPT,
            "%",
        ),
        Condition(f"training steps at {where} for each at input", speed, 1.0, "times"),
    )
    detail = chosen.groupby("guided_layer", as_index=False)[["f1", "epg", "gain", "seconds"]].mean()
    return Finding(
        "R9",
        "Guiding at middle layers improves input attributions, up to twice as fast.",
        "Mid2: similar gains of EPG at input, 1.7 times as fast",
        "fig8",
        "trials guided by Energy at input and at middle layers, all judged at input",
        conditions,
        detail,
    )
