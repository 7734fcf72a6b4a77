"""Classification metrics against plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mg_core.errors import InputError
from mg_core.metrics import classification


def reference_average_precision(scores, labels):
    positives, area, recall_before = sum(labels), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [
            bool(label) for score, label in zip(scores, labels, strict=True) if score >= threshold
        ]
        recall = sum(chosen) / positives
        area += (recall - recall_before) * sum(chosen) / len(chosen)
        recall_before = recall
    return area


def reference_f1(logits, labels):
    hits = wrong = missed = 0
    for logit, label in zip(logits, labels, strict=True):
        hits += bool(logit >= 0 and label)
        wrong += bool(logit >= 0 and not label)
        missed += bool(logit < 0 and label)
    return 2 * hits / (2 * hits + wrong + missed)


def reference(logits, labels):
    pairs = [(float(x), bool(y)) for x, y in zip(logits.flat, labels.flat, strict=True)]
    hits = sum(x >= 0 and y for x, y in pairs)
    predicted, positive = sum(x >= 0 for x, _ in pairs), sum(y for _, y in pairs)
    classes = [k for k in range(labels.shape[1]) if labels[:, k].any()]
    own = [reference_f1(logits[:, k], labels[:, k]) for k in classes]
    areas = [reference_average_precision(logits[:, k].tolist(), labels[:, k]) for k in classes]
    bce = [math.log1p(math.exp(-abs(x))) + max(x, 0) - x * y for x, y in pairs]
    return {
        "f1": 2 * hits / (predicted + positive) if predicted + positive else 0.0,
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / positive if positive else 0.0,
        "map": sum(areas) / len(areas) if areas else 0.0,
        "macro_f1": sum(own) / len(own) if own else 0.0,
        "bce": sum(bce) / len(bce),
        "n_images": len(labels),
        "n_classes_without_positives": labels.shape[1] - len(classes),
    }


# Few distinct scores, so that ties are everywhere.
LOGITS = arrays(np.float32, (6, 3), elements=st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.5, 3.0]))


@given(logits=LOGITS, labels=arrays(np.bool_, (6, 3)))
@settings(max_examples=100, deadline=None)
def test_agrees_with_loops(logits, labels):
    found = classification(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found == pytest.approx(reference(logits, labels), rel=1e-9)


@given(logits=LOGITS, labels=arrays(np.bool_, (6, 3)), order=st.permutations(range(6)))
@settings(max_examples=100, deadline=None)
def test_order_of_images_does_not_matter(logits, labels, order):
    found = classification(torch.from_numpy(logits), torch.from_numpy(labels))
    other = classification(torch.from_numpy(logits[order]), torch.from_numpy(labels[order]))
    assert other == pytest.approx(found, rel=1e-12)


def test_no_prediction_at_all_scores_zero():
    scores = classification(torch.full((4, 3), -1.0), torch.ones(4, 3))
    assert (scores["f1"], scores["precision"], scores["recall"]) == (0, 0, 0)
    assert scores["map"] == 1


def test_no_labels_at_all_scores_zero():
    scores = classification(torch.randn(4, 3), torch.zeros(4, 3))
    assert (scores["f1"], scores["recall"], scores["map"]) == (0, 0, 0)
    assert scores["n_classes_without_positives"] == 3


def test_logit_zero_is_a_prediction():
    scores = classification(torch.zeros(1, 2), torch.tensor([[True, False]]))
    assert (scores["precision"], scores["recall"]) == (0.5, 1)


def test_empty_split():
    scores = classification(torch.zeros(0, 3), torch.zeros(0, 3))
    assert scores["n_images"] == 0
    assert all(scores[name] == 0 for name in ("f1", "precision", "recall", "map", "bce"))


@pytest.mark.slow
def test_counts_beyond_float32_stay_exact():
    # 2^24 + 1 true decisions: float32 counters stop at 2^24.
    n = 2**24 + 1
    logits = torch.ones(n, 1, dtype=torch.bfloat16)
    labels = torch.ones(n, 1, dtype=torch.bool)
    labels[0] = False
    assert classification(logits, labels)["precision"] == (n - 1) / n


def test_nan_logits_score_nan():
    logits = torch.zeros(2, 2)
    logits[0, 0] = math.nan
    scores = classification(logits, torch.ones(2, 2))
    assert all(math.isnan(scores[name]) for name in ("f1", "precision", "recall", "map", "bce"))
    assert scores["n_images"] == 2


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"\(2, 3\) and \(3, 2\)"):
        classification(torch.zeros(2, 3), torch.zeros(3, 2))
