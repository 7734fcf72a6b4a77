"""Which checkpoints are tested: chosen on validation, by functions that cannot see a test column.

Every function here takes a frame and refuses one that has a column of the test split, so that no
choice can be made on test results, by mistake or otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.pareto import OBJECTIVES, front_ids, is_on_front
from mg_core.columns import PAIR

SLACK = 0.05
"""Loss of F1 against the baseline that a chosen checkpoint may have, in fractions."""
TABLE_1_SLACK = 0.01
"""Loss of validation accuracy that Table 1's choice allows, in fractions."""
ROUNDING = 1e-9
"""So that "at most 5 points" includes exactly 5, which has no exact binary value."""


def select(
    frame: pd.DataFrame, objectives: Sequence[str] = OBJECTIVES, tolerance: float = 0.0
) -> pd.DataFrame:
    """Return the rows whose checkpoints are tested: those on their fronts, and every epoch 0.

    They get the columns `front` (its number, -1 at epoch 0) and `is_reference` (epoch 0).

    Raises:
        ValueError: a column belongs to the test split.
    """
    _refuse_test_columns(frame)
    is_reference = references(frame)
    chosen = is_reference | is_on_front(frame, objectives, tolerance)
    selected = frame.assign(front=front_ids(frame), is_reference=is_reference)
    return selected[chosen].reset_index(drop=True)


def best_within(
    frame: pd.DataFrame, metric: str = "epg", constraint: str = "f1", slack: float = SLACK
) -> pd.DataFrame:
    """Return per front the row with the highest metric among those near the reference.

    Near means that the constraint is at most `slack` (a fraction) below that of epoch 0, the
    baseline judged with the same attribution and layer. Of equal rows the one with the better
    constraint is taken, then the earlier epoch, then the smaller λ. A front without a row near
    its reference has none in the result. Both metrics are named without the split in front.

    Raises:
        ValueError: a column belongs to the test split.
    """
    _refuse_test_columns(frame)
    metric, constraint = f"val_{metric}", f"val_{constraint}"
    key = ["trial_id", *PAIR]
    start = frame.loc[references(frame), [*key, constraint]]
    start = start.rename(columns={constraint: "least"})
    rows = frame.assign(front=front_ids(frame)).merge(start, on=key, how="left")
    near = rows[(rows["front"] >= 0) & (rows[constraint] >= rows["least"] - slack - ROUNDING)]
    order = {metric: False, constraint: False, "epoch": True, "localization_weight": True}
    known = near.dropna(subset=[metric])
    ranked = known.sort_values(list(order), ascending=list(order.values()), kind="stable")
    best = ranked.drop_duplicates("front").sort_values("front")
    return best.drop(columns="least").reset_index(drop=True)


def judged_elsewhere(frame: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """Return each front's chosen checkpoint as attributions that were not guided judge it.

    The checkpoint is that of `best_within` where it was guided, so that no other attribution has
    a say in the choice; it need not be on the fronts of the others.

    Args:
        frame: all rows, with those of every judged pair.
        selected: the rows that `select` returns for them.

    Raises:
        ValueError: a column belongs to the test split.
    """
    _refuse_test_columns(frame)
    rows = guided_there(selected).drop(columns=["front", "is_reference"])
    chosen = best_within(rows)[["trial_id", "epoch"]]
    others = frame[frame["attribution"] != frame["guided_attribution"]]
    return others.dropna(subset=PAIR).merge(chosen, on=["trial_id", "epoch"])


def references(frame: pd.DataFrame) -> pd.Series:
    """Mark epoch 0 of guided trials: the baseline as each evaluated pair judges it."""
    return (frame["kind"] == "guided") & (frame["epoch"] == 0)


def guided_there(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are judged where they were guided."""
    is_method = frame["attribution"] == frame["guided_attribution"]
    return frame[is_method & (frame["layer"] == frame["guided_layer"])]


def _refuse_test_columns(frame: pd.DataFrame) -> None:
    seen = [name for name in map(str, frame) if name.startswith("test_")]
    if seen:
        raise ValueError(
            f"checkpoints are selected on validation alone; the frame has {', '.join(seen)}"
        )
