"""What fronts are worth, against slow definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.indicators import additive_epsilon, attainment, hypervolume, reference_point

LEVELS = 6
points = st.lists(st.tuples(*[st.integers(0, LEVELS - 1)] * 2), min_size=1, max_size=8)


def cells(table, reference):
    """Unit cells above the reference that some point covers."""
    return {
        cell
        for x, y in table
        for cell in itertools.product(range(reference[0], x), range(reference[1], y))
    }


@given(points)
def test_hypervolume_counts_the_cells_that_are_covered(table):
    assert hypervolume(table, [0, 0]) == pytest.approx(len(cells(table, (0, 0))))


def test_points_below_the_reference_add_nothing_and_nan_neither():
    assert hypervolume([[2, 1], [-1, 9], [np.nan, 9]], [0, 0]) == 2
    assert hypervolume([], [0, 0]) == 0
    assert hypervolume([[np.nan, 1]], [0, 0]) == 0


@given(points, points)
def test_additive_epsilon_is_the_largest_of_the_smallest_shifts(table, others):
    by_hand = max(min(max(o - p for p, o in zip(a, b, strict=True)) for a in table) for b in others)
    assert additive_epsilon(table, others) == pytest.approx(by_hand)


def test_additive_epsilon_of_nothing_is_unknown():
    assert np.isnan(additive_epsilon([], [[1, 2]]))


@given(st.lists(points, min_size=1, max_size=5), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_attainment_is_what_enough_runs_reach(runs, share):
    surface = attainment(runs, share)
    goals = {tuple(goal) for goal in surface}
    needed = np.ceil(share * len(runs) - 1e-9)

    def is_attained(goal):
        reached = [any(p[0] >= goal[0] and p[1] >= goal[1] for p in run) for run in runs]
        return sum(reached) >= needed

    for goal in itertools.product(range(LEVELS), repeat=2):
        below_surface = any(g[0] >= goal[0] and g[1] >= goal[1] for g in goals)
        assert below_surface == is_attained(goal)


def test_a_run_without_points_attains_nothing_but_counts():
    assert attainment([[(1, 1)], []], 1.0).shape == (0, 2)
    assert attainment([[(1, 1)], []], 0.5).tolist() == [[1, 1]]


def test_wrong_attainment_is_refused():
    with pytest.raises(ValueError, match="share of runs"):
        attainment([[(1, 1)]], 0)
    with pytest.raises(ValueError, match="at least one point"):
        attainment([[]])


def test_the_reference_is_the_worst_of_everybody():
    assert reference_point([[0.5, 0.2], [0.1, 0.9], [np.nan, 0]]).tolist() == [0.1, 0.2]
    with pytest.raises(ValueError, match="at least one point"):
        reference_point([[np.nan, 1]])
