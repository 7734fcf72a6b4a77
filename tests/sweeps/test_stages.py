"""Training settings as axes of the grid, and what is said of those that cannot be trained."""

import re
import subprocess
import sys

import pytest

from mg_core.errors import InputError
from sweeps.grid import expand
from sweeps.spec import differences, load_spec


def trials(sweep, write, *settings):
    return expand(load_spec(write(sweep), list(settings)))


def test_a_list_multiplies_the_guided_trials(sweep, write):
    before = trials(sweep, write)
    grid = trials(
        sweep,
        write,
        "guided.learning_rate=[1e-3, 1e-4]",
        "guided.optimizer=[adam, {sgd: {momentum: 0.9}}]",
        "guided.augment=[[], [color_jitter, {rotation: {degrees: 5}}]]",
    )
    assert len(grid.guided) == 8 * len(before.guided)
    assert grid.baselines == before.baselines
    assert before.trials.keys() <= grid.trials.keys()
    assert all(trial_id == config.trial_id for trial_id, config in grid.trials.items())
    axes = grid.axes()
    assert list(axes["learning_rate"].items()) == [(1e-3, 32), (1e-4, 32)]
    assert list(axes["optimizer"]) == ["adam", "sgd(momentum=0.9)"]
    jitter = "color_jitter(brightness=0.4, contrast=0.4, hue=0.1, saturation=0.4)"
    assert list(axes["augment"]) == [None, f"{jitter}, random_rotation(degrees=5)"]


def test_guided_trials_start_from_every_baseline_of_a_list(sweep, write):
    grid = trials(sweep, write, "baseline.learning_rate=[1e-3, 1e-2]", "seed=[0, 1]")
    assert len(grid.baselines) == 4
    assert len(grid.guided) == 4 * 8
    assert {config.baseline for config in grid.guided.values()} == set(grid.baselines)
    assert {config.learning_rate for config in grid.guided.values()} == {1e-3}
    labels = {config.label for config in grid.baselines.values()}
    assert labels == {
        f"vanilla_tiny baseline lr{rate} b8 s{seed}"
        for rate in ("0.001", "0.01")
        for seed in (0, 1)
    }


def test_a_block_of_the_grid_has_its_own(sweep, write):
    block = sweep["grid"]
    sweep["grid"] = [
        {**block, "layer": "input"},
        {**block, "layer": "final", "learning_rate": [1e-4, 1e-5], "early_stop": None},
    ]
    grid = trials(sweep, write, "guided.learning_rate=[1e-2]")
    rates = {}
    for config in grid.guided.values():
        rates.setdefault(config.guidance.layer, set()).add(config.learning_rate)
    assert rates == {"input": {1e-2}, "final": {1e-4, 1e-5}}
    assert {c.learning_rate for c in grid.baselines.values()} == {1e-3}


def test_what_a_baseline_has_alone_is_not_handed_on(sweep, write):
    grid = trials(sweep, write, "baseline.optimizer=sgd", "baseline.schedule=cosine")
    assert {str(c.optimizer) for c in grid.baselines.values()} == {"sgd"}
    assert {str(c.optimizer) for c in grid.guided.values()} == {"adam"}
    assert {str(c.schedule) for c in grid.guided.values()} == {"constant"}


def test_defaults_that_are_written_out_leave_every_id(sweep, write):
    before = trials(sweep, write)
    for stage in ("baseline", "guided"):
        written = {"optimizer": "adam", "schedule": "constant", "warmup_epochs": 0, "augment": []}
        sweep[stage] |= written | {"classification_loss": "bce", "label_smoothing": 0}
        sweep[stage] |= {"clip_norm": None, "weight_decay": None, "early_stop": None}
    assert trials(sweep, write).trials == before.trials
    assert list(trials(sweep, write).trials) == list(before.trials)


def test_a_resolved_recipe_is_the_same_recipe(sweep, write):
    sweep["guided"] |= {
        "learning_rate": ["1e-3", "1e-4"],
        "optimizer": {"sgd": {"momentum": 0.9}},
        "augment": [["color_jitter"], [{"random_resized_crop": {"scale": [0.5, 1]}}]],
        "early_stop": [None, {"metric": "f1", "patience": 1}],
    }
    sweep["grid"]["batch_size"] = [4, 8]
    spec = load_spec(write(sweep), [])
    again = load_spec(write(spec.to_yaml(), "resolved.yaml"), [])
    assert again == spec
    assert differences(spec.model_dump(mode="json"), again) == []
    assert "clip_norm" not in spec.to_yaml()
    single = load_spec(write(sweep), ["guided.augment=[color_jitter]"])
    assert load_spec(write(single.to_yaml(), "resolved.yaml"), []) == single


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "guided.learning_rate=[1e-3, 0.001]",
            "guided.learning_rate: the value 0.001 stands twice",
        ),
        ("guided.learning_rate=[]", "guided.learning_rate: at least one value is wanted"),
        ("guided.learning_rate=[1e-3, -1]", "guided.learning_rate.1: input should be greater than"),
        ("guided.learning_rate=-1", "guided.learning_rate: input should be greater than 0, not -1"),
        ("guided.weight_decay=-1", "guided.weight_decay: input should be greater than or equal to"),
        ("guided.label_smoothing=1", "guided.label_smoothing: input should be less than 1, not 1"),
        (
            "guided.optimizer={sgd: 3}",
            "guided.optimizer: a name or {name: {argument: value}} is wa",
        ),
        (
            "guided.optimizer={a: {}, b: {}}",
            "guided.optimizer: a name or {name: {argument: value}}",
        ),
        (
            "guided.optimizer={sgd: {momentum: .inf}}",
            "guided.optimizer: an argument is a finite nu",
        ),
        (
            "guided.early_stop={metric: f2, patience: 1}",
            "early_stop.metric: training cannot stop on",
        ),
        ("guided.early_stop={metric: f1}", "'guided.early_stop.patience' is missing"),
        (
            "guided.early_stop={metric: f1, wait: 1}",
            "unknown key 'guided.early_stop.wait'; allowed",
        ),
        ("grid.optimiser=sgd", "unknown key 'grid.0.optimiser'; allowed here: model, attribution"),
    ],
)
def test_a_value_that_is_none_is_named(sweep, write, setting, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        load_spec(write(sweep), [setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("baseline.optimizer=sdg", "baseline.optimizer: unknown optimizer 'sdg' (did you mean 'sg"),
        ("guided.schedule=cosin", "guided.schedule: unknown schedule 'cosin' (did you mean"),
        (
            "grid.warmup_epochs=[0, 7]",
            "grid.0.warmup_epochs: a warm-up of 7 epochs never ends in 2",
        ),
        (
            "guided.classification_loss=cross_entropy",
            "guided.classification_loss: cross_entropy ne",
        ),
        ("guided.augment=[auto_augment]", "guided.augment: auto_augment does not take images with"),
        (
            "guided.early_stop={metric: epg, patience: 2}",
            "guided.early_stop: a patience of 2 epoch",
        ),
        (
            "baseline.early_stop={metric: epg, patience: 1}",
            "baseline.early_stop: a baseline has no",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    sweep, write, refused, setting, sentence
):
    said = refused("run", write(sweep), "--set", setting, "--runner", "inline")
    assert sentence in said
    assert not (write(sweep).parent / "store").exists()


def test_cross_entropy_fits_data_with_tasks(sweep, write):
    sweep["data"] = {"name": "waterbirds100", "root": "somewhere", "image_size": 24}
    grid = trials(sweep, write, "guided.classification_loss=cross_entropy")
    assert {c.classification_loss for c in grid.guided.values()} == {"cross_entropy"}


def test_a_plan_without_such_keys_imports_no_pytorch(sweep, write):
    code = (
        "import sys; from sweeps.grid import expand; from sweeps.spec import load_spec\n"
        "expand(load_spec(sys.argv[1], sys.argv[2:])); print('torch' in sys.modules)"
    )
    for settings, is_there in (
        (["guided.schedule=cosine", "guided.optimizer=sgd", "guided.precision=fp16"], "False"),
        (["guided.optimizer={sgd: {momentum: 0.9}}"], "True"),
    ):
        found = subprocess.run(
            [sys.executable, "-c", code, str(write(sweep)), *settings],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == is_there


def test_the_example_is_a_sweep(repository):
    grid = expand(load_spec(repository / "sweeps" / "examples" / "recipes.yaml", []))
    assert (len(grid.guided), len(grid.baselines)) == (12, 1)
    assert {str(c.optimizer) for c in grid.guided.values()} == {
        "adam",
        "sgd(momentum=0.9, nesterov=true)",
    }
