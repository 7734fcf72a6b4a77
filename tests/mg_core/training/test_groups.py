"""Trials on a table with groups and tasks, from its files to the rows of the store."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from mg_core.config import DataConfig, EvaluationPair, GuidanceConfig, Runtime, TrialConfig
from mg_core.data import data_config
from mg_core.store import ResultStore
from mg_core.training.execution import run_trial

GUIDANCE = {
    "attribution": "ixg",
    "layer": "input",
    "loss": "energy",
    "localization_weight": 0.01,
    "reduction": "sum",
    "annotated_fraction": 1.0,
    "box_dilation": 0.0,
}
TASKS = {"groups": ["kind", "place", "sky"], "tasks": ["kind", "place", "sky"], "outside": "place"}


def write_photos(root):
    """In training the place follows the kind, and the sky does not."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 12), ("val", 6), ("test", 8)):
        for number in range(count):
            kind, sky = number % 2, number // 2 % 2
            place = kind if split == "train" else number // 2 % 2
            name = f"{split}{number}.png"
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(root / name)
            rows.append([name, ["cat", "dog"][kind], f"p{place}", f"s{sky}", 4, 4, 16, 16, split])
    header = ["path", "kind", "place", "sky", "xmin", "ymin", "xmax", "ymax", "split"]
    with (root / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def configs(data: DataConfig, *tasks: str) -> list[TrialConfig]:
    baseline = TrialConfig(
        numerics=1,
        data=data,
        model="vanilla_tiny",
        weights=None,
        seed=0,
        epochs=1,
        learning_rate=1e-3,
        batch_size=8,
        precision="fp32",
        classification_loss="cross_entropy",
        baseline=None,
        guidance=None,
        evaluate=(),
    )
    guided = [
        baseline.model_copy(
            update={
                "baseline": baseline.trial_id,
                "guidance": GuidanceConfig(**GUIDANCE, task=task),
                "evaluate": (EvaluationPair(attribution="ixg", layer="input"),),
            }
        )
        for task in tasks
    ]
    return [baseline, *guided]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The last outcome and the rows of a baseline, and of a trial guided in each task."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "data").mkdir()
    write_photos(folder / "data")
    data = data_config("csv", 24, options=TASKS)
    runtime = Runtime(
        store=str(folder / "store"), data_root=str(folder / "data"), cache=str(folder / "cache")
    )
    store = ResultStore(runtime.store)
    found = {}
    for config in configs(data, "kind", "place", "sky"):
        outcome = list(run_trial(config, runtime))[-1]
        task = config.guidance.task if config.guidance else None
        found[task] = (outcome, store.rows(trial_ids=[config.trial_id]).to_pylist())
    return found


def test_rows_hold_every_group_by_name(outcomes):
    for task in (None, "kind", "place"):
        outcome, rows = outcomes[task]
        assert outcome.state == "complete", outcome.error
        for row in rows:
            assert "cat, p0, s0" in row["val_groups"]
            sizes, accuracies = row["val_n_by_group"], row["val_accuracy_by_group"]
            assert len(sizes) == len(accuracies) == len(row["val_groups"])
            assert sum(sizes) == row["val_n_images"] == 6
            known = [value for value, size in zip(accuracies, sizes, strict=True) if size]
            assert row["val_accuracy_min_group"] == min(known)
            assert row["val_accuracy_mean_group"] == pytest.approx(np.mean(known))
            hits = sum(v * n for v, n in zip(accuracies, sizes, strict=True) if n)
            assert row["val_accuracy"] == pytest.approx(hits / 6)
            assert row["val_accuracy_group_0"] is row["val_accuracy_worst_group"] is None


def test_maps_of_an_outside_task_are_judged_outside(outcomes):
    (_, inside), (_, outside) = outcomes["kind"], outcomes["place"]
    assert inside[0]["val_box_area"] == pytest.approx(1 / 4)
    assert outside[0]["val_box_area"] == pytest.approx(3 / 4)


def test_a_task_that_the_baseline_has_not_learnt_is_refused_in_a_sentence(outcomes):
    outcome, _ = outcomes["sky"]
    assert outcome.state == "failed"
    assert (
        "6 of 12 training images have another label than in the data set's first" in outcome.error
    )
