"""Intervals over configurations and seeds."""

import numpy as np
import pandas as pd
import pytest

from analysis.claims.bootstrap import interval


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Of 200 studies of 12 configurations × 3 seeds, 95 % hold the true mean."""
    rng = np.random.default_rng(0)
    hits = 0
    for number in range(200):
        effect = np.repeat(rng.normal(0, 1, 12), 3) + rng.normal(0, 1, 36)
        units = pd.DataFrame({"configuration": np.repeat(range(12), 3), "value": effect})
        found = interval(units, lambda means: means[:, 0], seed=number)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_seeds_of_one_configuration_are_not_taken_for_independent():
    """Ten copies of each value as seeds leave the interval about as wide as it was."""
    values = np.random.default_rng(1).normal(0, 1, 10)

    def width(repeats):
        units = pd.DataFrame(
            {
                "configuration": np.repeat(range(10), repeats),
                "value": np.repeat(values, repeats),
            }
        )
        found = interval(units, lambda means: means[:, 0])
        return found.high - found.low

    assert width(10) == pytest.approx(width(1), rel=0.05)


def test_intervals_do_not_depend_on_the_order_of_rows():
    draw = np.random.default_rng(0)
    units = pd.DataFrame({"configuration": np.arange(12) // 3, "value": draw.random(12)})
    shuffled = units.sample(frac=1, random_state=1)
    numbers = {0: 7, 1: 2, 2: 5, 3: 1}
    renumbered = shuffled.assign(configuration=shuffled["configuration"].map(numbers))
    mean = interval(units, lambda means: means[:, 0])
    assert interval(renumbered, lambda means: means[:, 0]) == mean
