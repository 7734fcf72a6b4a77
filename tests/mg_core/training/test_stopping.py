"""When training stops, and that a trial with any recipe resumes as if it had never stopped."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mg_core.config import Runtime, TrialConfig
from mg_core.store import ResultStore
from mg_core.training.batches import training_batches
from mg_core.training.execution import run_trial
from mg_core.training.stopping import has_stalled, is_stopped

TIMES = ["attempt", "seconds_train", "seconds_val", "seconds_step"]
DATA = {
    "name": "shapes",
    "image_size": 24,
    "horizontal_flip": True,
    "options": {"train": 40, "val": 24, "test": 8, "size": 24},
}
SETTINGS = {"data": DATA, "epochs": 3, "batch_size": 16}
EVERYTHING = {
    "optimizer": {"sgd": {"momentum": 0.9, "nesterov": True}},
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "clip_norm": 0.5,
    "label_smoothing": 0.1,
    "augment": [
        {"random_resized_crop": {"scale": [0.4, 1]}},
        {"rotation": {"degrees": 20}},
        {"color_jitter": {"brightness": 0.3}},
    ],
    "early_stop": {"metric": "bce", "patience": 2},
}


@pytest.fixture
def stages(baseline, guided):
    """Return a function that gives baseline and guided trial a recipe."""

    def make(**changes):
        first = TrialConfig.model_validate(
            {**baseline.model_dump(mode="json"), **SETTINGS, **changes}
        )
        content = {**guided.model_dump(mode="json"), **SETTINGS, **changes}
        return first, TrialConfig.model_validate({**content, "baseline": first.trial_id})

    return make


def finish(config, runtime):
    """Run a trial one epoch at a time, each from the files alone."""
    while True:
        outcomes = run_trial(config, runtime)
        last = next(outcomes)
        outcomes.close()
        if last.state != "running":
            assert last.state == "complete", last.error
            return


RECIPES = [
    EVERYTHING,
    {"optimizer": "adamw", "schedule": {"step": {"every": 1, "factor": 0.5}}},
    {"optimizer": "torch.optim.RAdam", "schedule": "linear", "weight_decay": 0.1},
    {"optimizer": "adagrad", "warmup_epochs": 2},
    {"optimizer": "nadam", "augment": ["elastic_transform"]},
    {"optimizer": "asgd"},
    {"optimizer": {"rmsprop": {"momentum": 0.5, "centered": True}}},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: str(recipe["optimizer"])[:20])
def test_a_recipe_resumes_bit_for_bit(stages, tmp_path, recipe):
    check_resumed(stages(**recipe), tmp_path, "cpu")


@pytest.mark.parametrize(
    "annotation", [{"points": 2}, {"box": {"shift": 0.3}}, "random_box"], ids=str
)
def test_annotations_that_are_drawn_resume_bit_for_bit(stages, tmp_path, annotation):
    first, second = stages(epochs=2)
    content = second.model_dump(mode="json")
    content["guidance"] |= {"annotation": annotation, "annotated_fraction": 0.5}
    drawn = TrialConfig.model_validate(content)
    rows = check_resumed((first, drawn), tmp_path, "cpu").rows().to_pylist()
    losses = [row["train_localization_loss"] for row in rows if row["kind"] == "guided"]
    assert sum(loss is not None and loss > 0 for loss in losses) >= 2


def test_a_scaled_loss_resumes_bit_for_bit(stages, tmp_path):
    few = {**DATA, "options": {"train": 8, "val": 4, "test": 4, "size": 24}}
    first, second = stages(precision="fp16", data=few, batch_size=4, epochs=2)
    # So strong a guidance does not fit into fp16 at the scale that a scaler begins with.
    guidance = second.guidance.model_copy(update={"localization_weight": 1e4})
    second = second.model_copy(update={"guidance": guidance})
    rows = check_resumed((first, second), tmp_path, "cpu").rows().to_pylist()
    skipped = {(row["kind"], row["epoch"]): row["n_skipped_steps"] for row in rows}
    assert skipped["guided", 0] is None
    assert skipped["guided", 1] > skipped["baseline", 1] == 0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_recipe_resumes_bit_for_bit_on_a_gpu(stages, tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    check_resumed(stages(**EVERYTHING, precision=precision), tmp_path, "cuda")


def check_resumed(trials, tmp_path, device):
    whole, parts = (
        Runtime(store=str(tmp_path / name), device=device) for name in ("whole", "parts")
    )
    for each in trials:
        assert list(run_trial(each, whole))[-1].state == "complete"
        finish(each, parts)
    stores = [ResultStore(runtime.store) for runtime in (whole, parts)]
    tables = [store.rows().drop_columns(TIMES) for store in stores]
    assert tables[0].equals(tables[1])
    weights = [
        {epoch: store.get(key) for epoch, key in found.checkpoints.items()}
        for store in stores
        for _, found in sorted(store.progress().items())
    ]
    assert weights[:2] == weights[2:]
    return stores[0]


def test_a_trial_that_stops_early_is_complete_and_says_so(stages, tmp_path):
    # Nothing is learnt at this rate, so no epoch is better than the first by the least change.
    stop = {"metric": "f1", "patience": 2, "min_change": 0.5}
    first, second = stages(epochs=9, learning_rate=1e-9, early_stop=stop)
    runtime = Runtime(store=str(tmp_path / "store"))
    for config in (first, second):
        finish(config, runtime)
        (last,) = list(run_trial(config, runtime))  # nothing is left to do
        assert (last.state, last.epoch) == ("complete", 3)
    store = ResultStore(runtime.store)
    for config in (first, second):
        progress = store.progress()[config.trial_id]
        assert progress.is_stopped
        assert progress.is_complete
        assert (progress.epoch, progress.epochs) == (3, 9)
        assert str(progress.state).endswith("state-0003.pt")  # from which more epochs go on
        log = "".join(store.logs(config.trial_id).values())
        assert "training stopped early (f1, patience 2, min_change 0.5)" in log


def test_the_last_epoch_is_no_early_stop(stages, tmp_path):
    config, _ = stages(epochs=3, learning_rate=1e-9, early_stop={"metric": "f1", "patience": 2})
    runtime = Runtime(store=str(tmp_path / "store"))
    list(run_trial(config, runtime))
    assert not ResultStore(runtime.store).progress()[config.trial_id].is_stopped


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, math.nan]), max_size=8),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.06]),
)
def test_training_stalls_where_no_late_value_is_better(values, patience, change):
    def beats(value, earlier):
        return not math.isnan(value) and all(value > e + change for e in earlier)

    # Written out: the values that count as records, each against the last record.
    records = []
    for place, value in enumerate(values):
        if beats(value, [values[r] for r in records[-1:]]):
            records.append(place)
    waited = len(values) - (records[-1] + 1 if records else 0)
    assert has_stalled(values, patience, change) == (waited >= patience)


def test_a_metric_of_maps_is_that_of_the_guided_place(stages):
    _, config = stages(epochs=9, early_stop={"metric": "epg", "patience": 2})
    own = [(0, 0.9), (1, 0.2), (2, 0.1), (3, 0.1)]
    rows = [
        {"epoch": e, "attribution": a, "layer": layer, "val_epg": value}
        for epoch, v in own
        for e, a, layer, value in [(epoch, "ixg", "input", v), (epoch, "gradcam", "final", epoch)]
    ]
    assert is_stopped(config, rows)  # and epoch 0, which is the baseline, does not count
    assert not is_stopped(config, rows[:-2])


def test_a_lower_loss_is_better(stages):
    config, _ = stages(epochs=9, early_stop={"metric": "bce", "patience": 2})
    rows = [{"epoch": e, "val_bce": v} for e, v in ((1, 0.5), (2, 0.4), (3, 0.3))]
    assert not is_stopped(config, rows)
    assert is_stopped(config, [*rows[:1], {"epoch": 2, "val_bce": 0.6}, {"epoch": 3, "val_bce": 1}])


def test_an_image_whose_object_is_cropped_away_is_not_guided(stages, shapes, model):
    crop = [{"random_resized_crop": {"scale": [0.05, 0.2]}}]
    _, config = stages(augment=crop)
    _, plain = stages()
    n_guided, n_pairs = 0, 0
    for epoch in range(1, 4):
        for batch, other in zip(
            training_batches(model, shapes.split("train"), config, epoch, torch.device("cpu")),
            training_batches(model, shapes.split("train"), plain, epoch, torch.device("cpu")),
            strict=True,
        ):
            assert torch.equal(batch.labels, other.labels)
            assert batch.inputs.shape == other.inputs.shape
            assert batch.masks.any((1, 2)).all()
            place = {int(row): n for n, row in enumerate(other.annotated)}
            rows = [place[int(row)] for row in batch.annotated]
            assert torch.equal(batch.target_classes, other.target_classes[rows])
            n_guided, n_pairs = n_guided + len(rows), n_pairs + len(place)
    assert 0.2 * n_pairs < n_guided < 0.95 * n_pairs


def test_a_dilated_box_is_dilated_before_it_is_augmented(stages, shapes, model):
    def masks(dilation, **changes):
        _, config = stages(**changes)
        guidance = config.guidance.model_copy(update={"box_dilation": dilation})
        config = config.model_copy(update={"guidance": guidance})
        split = shapes.split("train")
        found = list(training_batches(model, split, config, 1, torch.device("cpu")))
        return torch.cat([batch.masks for batch in found])

    flip = [{"vertical_flip": {"p": 1}}]
    assert torch.equal(masks(0.3, augment=flip), masks(0.3).flip(1))
    assert masks(0.3, augment=flip).sum() > 1.3 * masks(0.0, augment=flip).sum()


def test_six_channels_are_made_of_augmented_images(stages, shapes):
    from mg_core.models import build_model

    _, config = stages(augment=["random_invert", {"rotation": {"degrees": 30}}])
    batch = next(
        training_batches(
            build_model("bcos_tiny", 6), shapes.split("train"), config, 1, torch.device("cpu")
        )
    )
    assert batch.inputs.shape[1] == 6
    np.testing.assert_allclose(batch.inputs[:, :3] + batch.inputs[:, 3:], 1, atol=1e-6)


def test_cross_entropy_needs_one_label_in_each_image(stages, tmp_path):
    config, _ = stages(classification_loss="cross_entropy")
    outcome = list(run_trial(config, Runtime(store=str(tmp_path / "store"))))[-1]
    assert outcome.state == "failed"
    assert "cross_entropy needs exactly one label in each image, and " in outcome.error
    assert outcome.kind == "data"
