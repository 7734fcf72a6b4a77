"""Batched evaluation against one image and one class at a time, written out in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mg_core import metrics
from mg_core.attributions import attribute
from mg_core.columns import METRICS
from mg_core.config import EvaluationPair
from mg_core.training.evaluation import (
    BOX_SIZE_EDGES,
    averages,
    batches_by_label_count,
    breakdown,
    evaluate,
)

PAIRS = [
    EvaluationPair(attribution="ixg", layer="input"),
    EvaluationPair(attribution="gradcam", layer="final"),
    EvaluationPair(attribution="ixg", layer="mid2"),
]


def one_by_one(model, split, pair):
    """Return (image, class, epg, iou by threshold, area, on-object share) of every pair."""
    model = model.double().eval()
    found = []
    for i in range(len(split)):
        inputs = model.encode(split.images([i]).double() / 255)
        for k in np.flatnonzero(split.labels[i]):
            raw = attribute(model, inputs, torch.tensor([k]), pair.attribution, pair.layer)
            up = F.interpolate(raw[:, None], (24, 24), mode="bilinear", align_corners=False)
            a = up[0, 0].clamp(min=0).numpy()
            m = split.masks([i], [k])[0].numpy()
            s = split.segmentation([i], [k])[0].numpy()
            total, inside = a.sum(), a[m].sum()
            epg = inside / total if total > 0 else 0.0
            on = a[m & s].sum() / inside if inside > 0 else np.nan
            binary = [(a / a.max() > t) if total > 0 else a > 1 for t in metrics.IOU_THRESHOLDS]
            iou = [(b & m).sum() / max((b | m).sum(), 1) for b in binary]
            found.append((i, k, epg, iou, m.mean(), on))
    return found


@pytest.mark.parametrize("batch_size", [5, 64])
def test_equals_one_pair_at_a_time(shapes, model, batch_size):
    split = shapes.split("val")
    evaluation = evaluate(model, split, PAIRS, batch_size)
    for pair in PAIRS:
        expected = one_by_one(model, split, pair)
        scores = evaluation.scores[pair]
        assert scores.targets.tolist() == [k for _, k, *_ in expected]
        np.testing.assert_allclose(scores.values["epg"], [e[2] for e in expected], atol=2e-5)
        np.testing.assert_allclose(scores.values["box_area"], [e[4] for e in expected], atol=1e-6)
        np.testing.assert_allclose(scores.values["on_object"], [e[5] for e in expected], atol=2e-4)
        # A pixel at a threshold may fall on either side of it in single precision.
        np.testing.assert_allclose(
            scores.values["iou_by_threshold"], [e[3] for e in expected], atol=0.02
        )
        summary = averages(scores)
        means = np.mean([e[3] for e in expected], axis=0)
        assert summary["epg"] == pytest.approx(np.mean([e[2] for e in expected]), abs=1e-5)
        assert summary["iou"] == pytest.approx(means.max(), abs=2e-3)
        assert summary["iou_at_0.5"] == pytest.approx(
            means[metrics.IOU_THRESHOLDS.index(0.5)], abs=2e-3
        )
        assert summary["n_pairs"] == split.labels.sum()
        model.float()


def test_what_is_measured_is_what_the_catalogue_declares(shapes, model):
    found = evaluate(model, shapes.split("val"), PAIRS[:1])
    scores = found.scores[PAIRS[0]]
    measured = {*found.classification, *averages(scores), *breakdown(scores, len(shapes.classes))}
    others = {"groups", "one label"}
    assert measured == {metric.name for metric in METRICS if metric.needs not in others}


def test_batches_do_not_change_results(shapes, model):
    results = [evaluate(model, shapes.split("val"), PAIRS[:1], size) for size in (3, 24)]
    np.testing.assert_allclose(*[r.scores[PAIRS[0]].values["epg"] for r in results], atol=1e-5)
    assert results[0].classification["f1"] == results[1].classification["f1"]


def test_a_batch_takes_one_backward_pass_per_label(shapes, model, monkeypatch):
    split = shapes.split("val")
    calls, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    evaluate(model, split, PAIRS, 64)
    counts = np.unique(split.labels.sum(axis=1))
    assert len(counts) > 1
    assert len(calls) == counts.sum()  # three pairs, and still one pass per label


def test_all_images_of_a_batch_have_the_same_number_of_labels():
    labels = np.random.default_rng(0).random((50, 6)) < 0.3
    batches = list(batches_by_label_count(labels, 8))
    assert sorted(np.concatenate(batches)) == list(range(50))
    assert all(len(batch) <= 8 for batch in batches)
    assert all(len(set(labels[batch].sum(axis=1))) == 1 for batch in batches)


def test_parameters_are_trainable_afterwards_and_have_no_gradient(shapes, model):
    model.fc.bias.requires_grad_(False)
    evaluate(model, shapes.split("val"), PAIRS[:1], 8)
    assert not model.fc.bias.requires_grad
    assert model.fc.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_threshold_of_validation_is_used_on_test(shapes, model):
    scores = evaluate(model, shapes.split("val"), PAIRS[:1], 64).scores[PAIRS[0]]
    best = averages(scores)
    assert best["iou"] == max(best["iou_by_threshold"])
    other = averages(scores, iou_threshold=0.5)
    assert other["iou"] == other["iou_at_0.5"] == best["iou_at_0.5"]
    assert other["iou_threshold"] == 0.5


class _WithoutLabels:
    """A split whose images have no labels."""

    def __init__(self, split):
        self._split = split
        self.labels = self.located = np.zeros_like(split.labels)
        self.groups = None

    def __getattr__(self, name):
        return getattr(self._split, name)


def test_images_without_labels_count_for_classification_alone(shapes, model):
    split = _WithoutLabels(shapes.split("val"))
    evaluation = evaluate(model, split, PAIRS[:1], 8)
    summary = averages(evaluation.scores[PAIRS[0]])
    assert summary["n_pairs"] == 0
    assert np.isnan(summary["epg"])
    assert np.isnan(summary["iou"])
    assert evaluation.classification["f1"] == 0
    assert evaluation.classification["n_images"] == 24


def test_breakdown_partitions_the_pairs(shapes, model):
    scores = evaluate(model, shapes.split("val"), PAIRS[:1], 64).scores[PAIRS[0]]
    found = breakdown(scores, len(shapes.classes))
    for k, value in enumerate(found["epg_by_class"]):
        assert value == pytest.approx(scores.values["epg"][scores.targets == k].mean(), nan_ok=True)
    for low, high, value in zip(
        BOX_SIZE_EDGES[:-1], BOX_SIZE_EDGES[1:], found["epg_by_box_size"], strict=True
    ):
        inside = (scores.values["box_area"] > low) & (scores.values["box_area"] <= high)
        expected = scores.values["epg"][inside].mean() if inside.any() else np.nan
        assert value == pytest.approx(expected, nan_ok=True)
