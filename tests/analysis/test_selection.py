"""Selection sees validation only."""

import inspect

import pandas as pd
import pytest

import analysis
from analysis import selection
from analysis.frame import KEY, load_tests, with_tests
from analysis.pareto import is_on_front


def test_every_selecting_function_refuses_test_columns(demo):
    joined = with_tests(analysis.load(demo), load_tests(demo))
    for function in (selection.select, selection.best_within):
        assert "frame" in inspect.signature(function).parameters
        with pytest.raises(ValueError, match=r"validation alone.*test_f1"):
            function(joined)


def test_selected_are_the_fronts_and_every_reference(demo):
    rows = analysis.load(demo)
    chosen = selection.select(rows)
    expected = is_on_front(rows) | ((rows["kind"] == "guided") & (rows["epoch"] == 0))
    assert set(map(tuple, chosen[KEY].to_numpy())) == set(
        map(tuple, rows[expected][KEY].to_numpy())
    )
    assert (chosen["is_reference"] == (chosen["epoch"] == 0)).all()
    assert chosen.loc[chosen["is_reference"], "trial_id"].nunique() == 24
    assert set(chosen.loc[~chosen["is_reference"], "front"]) == set(range(8))


def test_selection_does_not_depend_on_the_order_of_rows(demo):
    rows = analysis.load(demo)
    order = []
    for frame in (selection.select(rows), selection.select(rows.sample(frac=1, random_state=3))):
        order.append(frame.sort_values(KEY)[KEY].to_numpy().tolist())
    assert order[0] == order[1]


def frame_of(points, start=(0.80, 0.2)):
    values = [start, *points]
    return pd.DataFrame(
        {
            **dict.fromkeys(["dataset", "model", "loss", "task", "weights"], "x"),
            **{
                name: 0
                for name in analysis.pareto.CONFIGURATION
                if name not in {"dataset", "model", "loss", "task", "weights"}
            },
            "kind": "guided",
            "trial_id": "t",
            "seed": 0,
            "baseline": "b",
            "attribution": "ixg",
            "layer": "input",
            "localization_weight": 0.1,
            "epoch": range(len(values)),
            "val_f1": [f1 for f1, _ in values],
            "val_epg": [epg for _, epg in values],
        }
    )


@pytest.mark.parametrize(
    ("points", "epoch"),
    [
        ([(0.70, 0.9), (0.76, 0.5), (0.79, 0.4)], 2),  # the best that is near enough
        ([(0.75, 0.6)], 1),  # exactly five points are still near
        ([(0.749, 0.6)], None),  # a little more is not
        ([(0.78, 0.5), (0.79, 0.5), (0.79, 0.5)], 2),  # ties: the better F1, then the earlier
        ([(0.79, float("nan")), (0.79, 0.3)], 2),
        ([(float("nan"), 0.9)], None),
        ([(0.85, 0.1)], 1),  # even below the baseline's own EPG: guided points only
    ],
)
def test_best_within(points, epoch):
    best = selection.best_within(frame_of(points), slack=0.05)
    assert best["epoch"].tolist() == ([] if epoch is None else [epoch])


def test_five_points_mean_five_points_whatever_the_binary_fractions():
    for start in (0.63, 0.71, 0.83, 0.97):
        frame = frame_of([(round(start - 0.05, 2), 0.5)], start=(start, 0.2))
        assert len(selection.best_within(frame)) == 1, start
