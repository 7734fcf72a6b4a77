"""Tests of trials on a data set with several tasks: each by its own labels."""

import pytest
import yaml

from analysis.results import read_results
from analysis.testing.bench import run_tests, runtime_of
from analysis.testing.plan import plan_tests
from mg_core.config import DataConfig, EvaluationPair, GuidanceConfig, Runtime, TrialConfig
from mg_core.data.drawn.birds import BirdsOptions, write_birds
from mg_core.store import ResultStore
from mg_core.training.execution import run_trial


@pytest.fixture(scope="module")
def tests_of(tmp_path_factory):
    """Test rows of epoch 0 of a guided trial of each task, which share their weights."""
    folder = tmp_path_factory.mktemp("tasks")
    write_birds(folder / "data", BirdsOptions(train=24, val=12, test=40, size=24))
    baseline = TrialConfig(
        numerics=1,
        data=DataConfig(name="waterbirds100", image_size=24, horizontal_flip=False, options={}),
        model="vanilla_tiny",
        weights=None,
        seed=0,
        epochs=1,
        learning_rate=1e-3,
        batch_size=16,
        precision="fp32",
        baseline=None,
        guidance=None,
        evaluate=(),
    )
    trials = {baseline.trial_id: baseline}
    for task in ("conventional", "reversed"):
        guidance = GuidanceConfig(
            attribution="ixg",
            layer="input",
            loss="energy",
            localization_weight=0.05,
            reduction="sum",
            annotated_fraction=1.0,
            box_dilation=0.0,
            task=task,
        )
        guided = baseline.model_copy(
            update={
                "baseline": baseline.trial_id,
                "guidance": guidance,
                "evaluate": (EvaluationPair(attribution="ixg", layer="input"),),
            }
        )
        trials[guided.trial_id] = guided
    data = {"name": "waterbirds100", "root": str(folder / "data"), "cache": str(folder / "cache")}
    store = ResultStore(str(folder / "store"))
    store.put_spec(yaml.safe_dump({"name": "tasks", "store": store.uri, "data": data}))
    store.put_trials(trials)
    runtime = Runtime(store=store.uri, data_root=data["root"], cache=data["cache"])
    for config in trials.values():
        assert list(run_trial(config, runtime))[-1].state == "complete"
    results = read_results(store)
    assert set(run_tests(plan_tests(results).jobs, runtime_of(results))) == {None}
    tests = read_results(store).tests.query("epoch == 0")
    tasks = {key: c.guidance.task for key, c in trials.items() if c.guidance}
    return {tasks[row["trial_id"]]: row for _, row in tests.iterrows()}


def test_labels_of_the_groups_are_those_of_the_task(tests_of):
    # Kind and background differ in groups 1 and 2, so what is right there in one task is wrong
    # in the other.
    conventional, reverse = tests_of["conventional"], tests_of["reversed"]
    for group, same in ((0, True), (1, False), (2, False), (3, True)):
        column = f"test_accuracy_group_{group}"
        other = reverse[column] if same else 1 - reverse[column]
        assert conventional[column] == pytest.approx(other)


def test_all_groups_are_tested(tests_of):
    for row in tests_of.values():
        groups = [row[f"test_accuracy_group_{group}"] for group in range(4)]
        assert row["test_accuracy_worst_group"] == groups[2]
        assert row["test_accuracy_min_group"] == min(groups)
        assert 0 <= row["test_accuracy"] <= 1
