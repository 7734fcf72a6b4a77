"""Trials: what they draw, what they train on, and that stopping changes nothing."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mg_core.config import Runtime, TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt
from mg_core.training.batches import drawn_classes, slices, training_batches
from mg_core.training.execution import run_trial
from mg_core.training.trial import Trial

OPTIONS = {"train": 40, "val": 24, "test": 8, "size": 24}
TIMES = ["attempt", "seconds_train", "seconds_val", "seconds_step"]


def config(**changes):
    values = {
        "numerics": 1,
        "data": {"name": "shapes", "image_size": 24, "horizontal_flip": False, "options": OPTIONS},
        "model": "vanilla_tiny",
        "weights": None,
        "seed": 3,
        "epochs": 2,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "precision": "fp32",
        "baseline": None,
        "guidance": None,
        "evaluate": [],
    }
    return TrialConfig.model_validate(values | changes)


def guided(baseline, guidance=(), **changes):
    values = {
        "attribution": "ixg",
        "layer": "input",
        "loss": "energy",
        "localization_weight": 0.05,
        "reduction": "sum",
        "annotated_fraction": 1.0,
        "box_dilation": 0.0,
        "task": None,
    }
    return config(
        baseline=baseline.trial_id,
        guidance=values | dict(guidance),
        evaluate=[
            {"attribution": "gradcam", "layer": "final"},
            {"attribution": "ixg", "layer": "input"},
        ],
        **changes,
    )


@pytest.fixture
def runtime(tmp_path):
    return Runtime(store=str(tmp_path / "store"))


def test_a_stopped_trial_equals_one_that_never_stopped(tmp_path, runtime):
    baseline = config()
    trial = guided(baseline)
    whole = Runtime(store=str(tmp_path / "whole"))
    for each in (baseline, trial):
        assert list(run_trial(each, whole))[-1].state == "complete"
        while True:  # one epoch, then stop, then begin again from the files alone
            outcomes = run_trial(each, runtime)
            last = next(outcomes)
            outcomes.close()
            if last.state != "running":
                break
    stores = [ResultStore(r.store) for r in (whole, runtime)]
    tables = [store.rows().drop_columns(TIMES) for store in stores]
    assert tables[0].equals(tables[1])
    weights = [
        {epoch: store.get(key) for epoch, key in store.progress()[t.trial_id].checkpoints.items()}
        for store in stores
        for t in (baseline, trial)
    ]
    assert weights[:2] == weights[2:]
    ends = [record["how"] for record in stores[1].attempts().values()]
    assert ends == ["complete", "complete"]


def test_guided_trials_need_their_baseline(runtime):
    outcome = list(run_trial(guided(config()), runtime))[-1]
    assert outcome.state == "failed"
    assert outcome.error.endswith(f"baseline {config().trial_id} is not complete")


def test_another_numerics_version_is_not_mixed_in(runtime):
    other = config(numerics=999)
    attempt = Attempt(ResultStore(runtime.store), other, ("f1",), "r")
    with pytest.raises(InputError, match="needs numerics version 999"):
        Trial(other, runtime, attempt)


@given(
    arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 6))),
    st.integers(0, 2**32 - 1),
)
def test_a_drawn_class_is_one_of_the_labels(labels, seed):
    classes = drawn_classes(labels, np.random.default_rng(seed).random(len(labels)))
    has_labels = labels.any(axis=1)
    assert labels[has_labels, classes[has_labels]].all()
    assert (classes[~has_labels] == 0).all()


def test_classes_are_drawn_uniformly():
    labels = np.tile([True, False, True, True], (9000, 1))
    counts = np.bincount(drawn_classes(labels, np.random.default_rng(0).random(9000)), minlength=4)
    assert counts[1] == 0
    assert abs(counts[[0, 2, 3]] - 3000).max() < 5 * np.sqrt(2000)


@given(st.integers(1, 200), st.integers(1, 64))
def test_batches_cover_the_order_without_a_single_last_image(length, batch_size):
    order = np.arange(length)
    parts = slices(order, batch_size)
    assert (np.concatenate(parts) == order).all()
    assert all(len(part) <= batch_size + 1 for part in parts)
    if length > 1 and batch_size > 1:
        assert min(map(len, parts)) > 1


def batches(shapes, model, trial, epoch=1):
    return list(training_batches(model, shapes.split("train"), trial, epoch, torch.device("cpu")))


def test_every_image_is_seen_once_in_a_new_order_each_epoch(shapes, model):
    trial = guided(config())
    images = model.encode(shapes.split("train").images(range(40)))

    def order(epoch):
        inputs = torch.cat([batch.inputs for batch in batches(shapes, model, trial, epoch)])
        return [int((images == x).flatten(1).all(1).nonzero()[0]) for x in inputs]

    assert sorted(order(1)) == list(range(40))
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_only_the_annotated_subset_is_guided_and_subsets_are_nested(shapes, model):
    seen = []
    for fraction, expected in ((0.01, 1), (0.1, 4), (0.5, 20), (1.0, 40)):
        trial = guided(config(), {"annotated_fraction": fraction})
        parts = batches(shapes, model, trial)
        assert sum(len(batch.annotated) for batch in parts) == expected
        assert all(len(b.masks) == len(b.target_classes) == len(b.annotated) for b in parts)
        pictures = torch.cat([batch.inputs[batch.annotated] for batch in parts])
        seen.append({picture.numpy().tobytes() for picture in pictures})
    assert all(small <= large for small, large in itertools.pairwise(seen))


def test_masks_and_images_are_flipped_together(shapes, model):
    plain = guided(config())
    data = plain.data.model_copy(update={"horizontal_flip": True})
    flipped = plain.model_copy(update={"data": data})
    n_flipped = 0
    for a, b in zip(batches(shapes, model, plain), batches(shapes, model, flipped), strict=True):
        assert (a.labels == b.labels).all()
        for i in range(len(a.inputs)):
            is_same = torch.equal(a.inputs[i], b.inputs[i])
            n_flipped += not is_same
            image, mask = a.inputs[i], a.masks[i]
            expected = (image, mask) if is_same else (image.flip(-1), mask.flip(-1))
            assert torch.equal(b.inputs[i], expected[0])
            assert torch.equal(b.masks[i], expected[1])
    assert 8 < n_flipped < 32


def test_dilation_widens_the_boxes_that_are_trained_on(shapes, model):
    small = batches(shapes, model, guided(config()))
    large = batches(shapes, model, guided(config(), {"box_dilation": 0.5}))
    for a, b in zip(small, large, strict=True):
        assert (a.masks <= b.masks).all()
        assert b.masks.sum() > 1.5 * a.masks.sum()


@pytest.mark.parametrize(("reduction", "weight"), [("sum", 0.02), ("mean", 0.3)])
def test_a_guided_trial_raises_what_it_guides(runtime, reduction, weight):
    options = {"train": 200, "val": 60, "test": 1, "size": 32}
    data = {"name": "shapes", "image_size": 32, "horizontal_flip": False, "options": options}
    baseline = config(data=data, epochs=4, batch_size=16)
    guidance = {"layer": "final", "reduction": reduction, "localization_weight": weight}
    trial = guided(baseline, guidance, data=data, epochs=5, batch_size=16)
    for each in (baseline, trial):
        assert list(run_trial(each, runtime))[-1].state == "complete"
    rows = ResultStore(runtime.store).rows(trial_ids=[trial.trial_id]).to_pylist()
    epg = [row["val_epg"] for row in rows if row["attribution"] == "gradcam"]
    assert max(epg[1:]) > 1.3 * epg[0]
