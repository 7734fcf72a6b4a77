"""Trials on a data set with tasks and groups, from its files to the rows of the store."""

import numpy as np
import pytest

from mg_core.config import (
    DataConfig,
    EvaluationPair,
    GuidanceConfig,
    Runtime,
    TrialConfig,
)
from mg_core.data.drawn.birds import BirdsOptions, write_birds
from mg_core.store import ResultStore
from mg_core.training.execution import run_trial

GUIDANCE = {
    "attribution": "ixg",
    "layer": "input",
    "loss": "energy",
    "localization_weight": 0.05,
    "reduction": "sum",
    "annotated_fraction": 0.1,
    "box_dilation": 0.0,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of a baseline and of a guided trial of each task."""
    folder = tmp_path_factory.mktemp("waterbirds")
    write_birds(folder / "data", BirdsOptions(train=40, val=20, test=10, size=24))
    baseline = TrialConfig(
        numerics=1,
        data=DataConfig(name="waterbirds100", image_size=24, horizontal_flip=True, options={}),
        model="vanilla_tiny",
        weights=None,
        seed=0,
        epochs=2,
        learning_rate=1e-3,
        batch_size=16,
        precision="fp32",
        baseline=None,
        guidance=None,
        evaluate=(),
    )
    guided = [
        baseline.model_copy(
            update={
                "epochs": 1,
                "baseline": baseline.trial_id,
                "guidance": GuidanceConfig(**GUIDANCE, task=task),
                "evaluate": (EvaluationPair(attribution="ixg", layer="input"),),
            }
        )
        for task in ("conventional", "reversed")
    ]
    runtime = Runtime(
        store=str(folder / "store"), data_root=str(folder / "data"), cache=str(folder / "cache")
    )
    store = ResultStore(runtime.store)
    found = {}
    for config in (baseline, *guided):
        outcome = list(run_trial(config, runtime))[-1]
        assert outcome.state == "complete", outcome.error
        task = config.guidance.task if config.guidance else None
        found[task] = store.rows(trial_ids=[config.trial_id]).to_pylist()
    return found


def test_every_row_has_the_groups_of_its_split(rows):
    for row in (row for trial in rows.values() for row in trial):
        kinds = [row["val_accuracy_group_0"], row["val_accuracy_group_3"]]
        # Validation images all have the background of their kind.
        assert row["val_accuracy_group_1"] is row["val_accuracy_group_2"] is None
        assert row["val_accuracy_worst_group"] is None
        assert row["val_accuracy_min_group"] == min(kinds)
        n_waterbirds = 3
        shares = np.array([row["val_n_images"] - n_waterbirds, n_waterbirds])
        assert row["val_accuracy"] == pytest.approx((shares * kinds).sum() / shares.sum())


def test_one_baseline_serves_both_tasks(rows):
    conventional, reverse = (rows[task][0] for task in ("conventional", "reversed"))
    assert conventional["epoch"] == reverse["epoch"] == 0
    assert conventional["val_accuracy"] == reverse["val_accuracy"]
    assert conventional["val_f1"] == reverse["val_f1"]


def test_what_one_task_counts_the_other_leaves_out(rows):
    conventional, reverse = (rows[task][0] for task in ("conventional", "reversed"))
    assert conventional["val_n_without_energy"] == reverse["val_n_without_energy"] == 0
    assert conventional["val_epg"] + reverse["val_epg"] == pytest.approx(1)
    assert conventional["val_box_area"] + reverse["val_box_area"] == pytest.approx(1)


def test_guided_trials_of_the_tasks_go_their_own_ways(rows):
    last = [rows[task][-1] for task in ("conventional", "reversed")]
    assert [row["n_annotated"] for row in last] == [4, 4]
    assert last[0]["train_localization_loss"] != last[1]["train_localization_loss"]
