"""Fronts against their definition."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.pareto import front_ids, is_on_front
from mg_core.columns import CONFIGURATION, CONFIGURATION_COLUMNS
from mg_core.errors import InputError
from mg_core.pareto import non_dominated

VALUE = st.one_of(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, float("nan")]),
    st.floats(0, 1, width=32),
)
TOLERANCE = st.sampled_from([0.0, 0.005, 0.1, 0.25])


def dominates(better, worse):
    return all(b >= w for b, w in zip(better, worse, strict=True)) and tuple(better) != tuple(worse)


def by_definition(points, tolerance):
    """The O(n²) definition: bins first, then raw values inside a bin; NaN is nothing."""
    valid = [p for p in points if not any(np.isnan(p))]

    def binned(point):
        return tuple(np.round(np.asarray(point) / tolerance)) if tolerance else tuple(point)

    def is_on(point):
        if any(np.isnan(point)):
            return False
        for other in valid:
            if dominates(binned(other), binned(point)):
                return False
            if binned(other) == binned(point) and dominates(other, point):
                return False
        return True

    return [is_on(point) for point in points]


def rows(points, trial="t", epoch=None, **columns):
    """Rows of guided trials with the given objective values."""
    n = len(points)
    table = np.asarray(points, dtype=float).reshape(n, 2)
    frame = pd.DataFrame(
        {
            **{name: [None] * n for name in CONFIGURATION},
            "kind": "guided",
            "dataset": "shapes",
            "model": "vanilla_tiny",
            "loss": "energy",
            "trial_id": trial,
            "seed": 0,
            "baseline": "b",
            "epoch": range(1, n + 1) if epoch is None else epoch,
            "attribution": "ixg",
            "layer": "input",
            "localization_weight": 0.1,
            "val_f1": table[:, 0],
            "val_epg": table[:, 1],
        }
    )
    return frame.assign(**columns)


@given(st.lists(st.tuples(VALUE, VALUE), max_size=25), TOLERANCE)
def test_a_front_is_its_definition(points, tolerance):
    mask = is_on_front(rows(points), ["f1", "epg"], tolerance)
    assert mask.tolist() == by_definition(points, tolerance)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(VALUE, VALUE, st.integers(0, 5)), max_size=40),
    TOLERANCE,
    st.randoms(use_true_random=False),
)
def test_fronts_of_different_groups_do_not_see_each_other(tagged, tolerance, random):
    """Six groups in one shuffled frame: two configurations, two seeds, two evaluated layers."""
    where = {
        0: {"trial": "a"},
        1: {"trial": "b", "loss": "l1"},
        2: {"trial": "c", "seed": 1, "baseline": "b1"},
        3: {"trial": "d", "box_dilation": 0.5},
        4: {"trial": "a", "layer": "final"},
        5: {"trial": "e", "task": "reversed"},
    }
    parts = []
    for group, columns in where.items():
        own = [point[:2] for point in tagged if point[2] == group]
        if own:
            expected = by_definition(own, tolerance)
            parts.append(rows(own, **columns).assign(expected=expected))
    frame = pd.concat(parts) if parts else rows([]).assign(expected=False)
    order = list(range(len(frame)))
    random.shuffle(order)
    frame = frame.iloc[order]
    mask = is_on_front(frame, ["f1", "epg"], tolerance)
    assert mask.tolist() == frame["expected"].tolist()


def test_lambda_and_epochs_share_a_front():
    frame = pd.concat(
        [
            rows([(0.7, 0.3), (0.6, 0.4)], trial="a", localization_weight=0.1),
            rows([(0.65, 0.35), (0.6, 0.39)], trial="b", localization_weight=0.2),
        ]
    )
    assert set(front_ids(frame)) == {0}
    assert is_on_front(frame, ["f1", "epg"]).tolist() == [True, True, True, False]


def test_epoch_zero_and_baselines_are_no_candidates():
    frame = pd.concat(
        [
            rows([(0.9, 0.9), (0.5, 0.5)], epoch=[0, 1]),
            rows([(0.99, 0.99)], trial="b", kind="baseline"),
        ]
    )
    assert is_on_front(frame, ["f1", "epg"]).tolist() == [False, True, False]
    assert front_ids(frame).tolist() == [-1, 0, -1]


def test_every_configuration_column_separates():
    """A swept parameter forgotten in the grouping would pool two configurations."""
    for name in [*CONFIGURATION, "seed", "baseline", "attribution", "layer"]:
        frame = pd.concat([rows([(0.5, 0.5)]), rows([(0.4, 0.4)], trial="u", **{name: "other"})])
        assert is_on_front(frame, ["f1", "epg"]).all(), name


def test_the_configuration_covers_every_swept_column():
    swept = {column.name for column in CONFIGURATION_COLUMNS}
    others = {"trial_id", "kind", "seed", "baseline", "origin", "localization_weight"}
    assert swept == {*CONFIGURATION, *others}


def test_an_unknown_objective_is_a_sentence():
    with pytest.raises(InputError, match="unknown objective 'iou'; choose from f1, epg"):
        is_on_front(rows([(0.5, 0.5)]), ["f1", "iou"])
    with pytest.raises(InputError, match="at least one objective"):
        is_on_front(rows([(0.5, 0.5)]), [])


def test_non_dominated_is_the_public_name():
    import analysis

    assert analysis.non_dominated is non_dominated
    assert non_dominated([[1, 2], [2, 1], [1, 1]]).tolist() == [True, True, False]
