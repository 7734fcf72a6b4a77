"""Which loss is best: R1, R2 and R3."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.claims.measures import Measures, paired, volume_shares, with_all_boxes
from analysis.claims.statistics import column_means, difference, having
from analysis.claims.verdict import Condition, Finding
from mg_core.columns import BY_METRIC, CONFIGURATION

SHOWN = ["model", "guided_attribution", "guided_layer"]
COMPARED = ("energy", "l1", "ppce", "rrr")
"""The losses that the paper compares, and its claims are about."""
LAYERS = ("input", "final")
"""The layers of Figure 5. R1 and R2 must hold at each of them at which anything was guided: the
paper makes both claims for all its configurations."""


def r1(measures: Measures) -> Finding:
    """Energy gives the best EPG–F1 trade-off."""
    return _best_loss(
        measures,
        Finding(
            "R1",
            "The Energy loss gives the best trade-off between EPG and F1.",
            "Energy's front dominates those of all other losses for every model",
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
            "fig6",
            "trials guided by L1 and by another loss at the same place",
        ),
        "l1",
        "iou",
    )


def r3(measures: Measures) -> Finding:
    """Energy focuses on the object inside the box."""
    chosen = measures.chosen(with_all_boxes(measures.guided_there))
    # Where the baseline stands in for a missing checkpoint, it says nothing about the loss.
    table = paired(chosen[~chosen["is_reference"]], "loss", ["on_object"])
    condition = Condition(
        "on-object share of the in-box energy, chosen checkpoints: Energy minus L1",
        difference(table, "energy", ["l1"]),
    )
    return Finding(
        "R3",
        "The Energy loss focuses on the object inside the box.",
        "Energy has more of its in-box energy on the object than L1 for all models",
        "fig9",
        "trials guided by Energy and by L1, and test images with segmentation masks",
        (condition,),
        column_means(having(table, ["energy", "l1"]), "loss"),
    )


def _best_loss(measures: Measures, finding: Finding, loss: str, metric: str) -> Finding:
    shares, losses = _comparable_shares(measures, loss, metric)
    if loss not in losses:
        return finding
    layers = [layer for layer in LAYERS if (shares["guided_layer"] == layer).any()]
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
    """Return the volume shares of the runs to compare a loss by, and the names of the losses."""
    rows = with_all_boxes(measures.guided_there)
    shares = volume_shares(rows[rows["loss"].isin(COMPARED)], metric)
    losses = [str(name) for name in shares if name not in {"configuration", *CONFIGURATION}]
    if loss in losses:
        # A share among fewer losses is another quantity: at each place those runs are compared
        # that have the most.
        shares = shares[shares[loss].notna()]
        n_losses = shares[losses].notna().sum(axis=1)
        shares = shares[n_losses == n_losses.groupby(shares["configuration"]).transform("max")]
    return shares, losses


def _lead(shares: pd.DataFrame, losses: list[str], loss: str, metric: str, layer: str) -> Condition:
    others = [other for other in losses if other != loss]
    return Condition(
        f"share of all losses' hypervolume in F1 and {BY_METRIC[metric].header}, guided at "
        f"{layer}: {loss} minus the best other loss",
        difference(shares[["configuration", *losses]], loss, others),
    )
