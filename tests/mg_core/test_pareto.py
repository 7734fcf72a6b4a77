"""Fronts against the definition, written out pair by pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from paretoset import paretoset

from mg_core.pareto import non_dominated

# Few distinct values, so that ties and duplicates are common.
values = st.sampled_from([0.0, 0.1, 0.104, 0.25, 0.5, 0.5001, 1.0, np.nan, -1.0, np.inf])
tables = st.integers(1, 3).flatmap(
    lambda k: st.integers(0, 12).flatmap(lambda n: arrays(float, (n, k), elements=values))
)
tolerances = st.sampled_from([0.0, 0.005, 0.1])


def dominates(a, b):
    pairs = list(zip(a, b, strict=True))
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def by_definition(points, tolerance):
    valid = [i for i, p in enumerate(points) if not any(np.isnan(x) for x in p)]

    def binned(p):
        return tuple(np.round(np.asarray(p) / tolerance)) if tolerance else tuple(p)

    front = [
        i
        for i in valid
        if not any(dominates(binned(points[j]), binned(points[i])) for j in valid)
        and not any(
            binned(points[j]) == binned(points[i]) and dominates(points[j], points[i])
            for j in valid
        )
    ]
    return np.isin(np.arange(len(points)), front)


@given(tables, tolerances)
def test_equals_the_definition(points, tolerance):
    assert (non_dominated(points, tolerance) == by_definition(points, tolerance)).all()


@given(tables, st.randoms())
def test_does_not_depend_on_the_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    assert (non_dominated(points)[order] == non_dominated(points[order])).all()


@given(tables, tolerances)
def test_with_tolerance_is_a_subset(points, tolerance):
    assert not (non_dominated(points, tolerance) & ~non_dominated(points)).any()


@given(
    st.integers(2, 3).flatmap(
        lambda k: st.integers(1, 12).flatmap(
            lambda n: arrays(float, (n, k), elements=st.sampled_from([0.0, 0.1, 0.104, 0.5, 1.0]))
        )
    )
)
def test_another_library_says_the_same(points):
    sense = ["max"] * points.shape[1]
    other = paretoset(points, sense=sense, distinct=False, use_numba=False)
    assert (non_dominated(points) == other).all()


def test_equal_points_stand_together():
    assert non_dominated([[1, 2], [1, 2], [0, 3], [0, 2]]).tolist() == [True, True, True, False]


@pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf])
def test_refuses_a_tolerance_that_is_none(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        non_dominated([[1.0]], tolerance)


def test_refuses_what_is_no_table():
    with pytest.raises(ValueError, match="table"):
        non_dominated([1.0, 2.0])
