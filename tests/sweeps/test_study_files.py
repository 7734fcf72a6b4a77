"""The sweep files of the study have its trial counts."""

import pytest

from sweeps.grid import expand
from sweeps.spec import load_spec

COUNTS = {
    "voc_full": (600, 5),
    "coco_full": (360, 3),
    "voc_limited": (18, 1),
    "voc_dilated": (24, 1),
    "waterbirds": (32, 4),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_study(repository, name):
    grid = expand(load_spec(repository / "sweeps" / f"{name}.yaml", []))
    assert (len(grid.guided), len(grid.baselines)) == COUNTS[name]
    reductions = {config.guidance.reduction for config in grid.guided.values()}
    assert reductions == {"sum"}
    assert {config.weights for config in grid.trials.values()} == {"imagenet"}


def test_one_waterbirds_baseline_serves_both_tasks(repository):
    grid = expand(load_spec(repository / "sweeps" / "waterbirds.yaml", []))
    served = {(c.baseline, c.guidance.task) for c in grid.guided.values()}
    assert len(served) == 8
    assert {baseline for baseline, _ in served} == set(grid.baselines)
