"""Classification of a whole split: F1, precision, recall, average precision and BCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mg_core.errors import check_shapes


@torch.no_grad()
def classification(logits: Tensor, labels: Tensor) -> dict[str, float | int]:
    """Return F1, precision and recall over all decisions, macro F1, mean AP and BCE.

    A class is predicted at logit ≥ 0. F1, precision and recall are micro averages over all (image,
    class) pairs, from integer counts; 0/0 is 0. `macro_f1` is the mean of the classes' own F1, in
    which rare classes count as much as frequent ones. If a logit is NaN, so is every float.

    Args:
        logits: (N, K).
        labels: (N, K), bool or 0/1.

    Returns:
        `f1`, `precision`, `recall`, `map`, `macro_f1`, `bce` and the counts `n_images` and
        `n_classes_without_positives`; `map` and `macro_f1` leave the latter classes out.

    Raises:
        InputError: logits and labels of different shapes.
    """
    check_shapes("(N, K)", logits=logits, labels=labels)
    logits, labels = logits.double(), labels.to(logits.device) != 0
    predicted = logits >= 0
    class_hits = (predicted & labels).sum(0)
    class_decisions = predicted.sum(0) + labels.sum(0)
    hits, n_predicted, n_positive = map(int, (class_hits.sum(), predicted.sum(), labels.sum()))
    precisions, has_positives = average_precision(logits, labels)
    f1_by_class = 2 * class_hits.double() / class_decisions.clamp_min(1)
    scores = {
        "f1": _ratio(2 * hits, n_predicted + n_positive),
        "precision": _ratio(hits, n_predicted),
        "recall": _ratio(hits, n_positive),
        "map": float(precisions[has_positives].mean()) if has_positives.any() else 0.0,
        "macro_f1": float(f1_by_class[has_positives].mean()) if has_positives.any() else 0.0,
        "bce": float(F.binary_cross_entropy_with_logits(logits, labels.double()))
        if logits.numel()
        else 0.0,
    }
    if logits.isnan().any():
        scores = dict.fromkeys(scores, float("nan"))
    return {
        **scores,
        "n_images": len(logits),
        "n_classes_without_positives": int((~has_positives).sum()),
    }


def average_precision(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the area under each class's precision-recall steps, without interpolation.

    AP = Σ_i (R_i − R_{i−1}) P_i over the distinct scores in descending order. Equal scores are one
    threshold, so the order of the images does not matter.

    Args:
        scores: (N, K).
        labels: (N, K) bool.

    Returns:
        (K,) float64, which is 0 for a class without positives, and (K,) bool, which classes have
        positives.
    """
    positives = labels.sum(0)
    if not len(scores):
        return scores.new_zeros(scores.shape[1], dtype=torch.float64), positives > 0
    ranked, order = scores.sort(0, descending=True)
    hit = labels.gather(0, order)
    rank = torch.arange(len(scores), device=scores.device)[:, None].expand_as(ranked)
    # At the threshold of a score, all ranks up to its last occurrence are predicted.
    last = torch.ones_like(hit)
    last[:-1] = ranked[:-1] != ranked[1:]
    end = rank.masked_fill(~last, len(scores)).flip(0).cummin(0).values.flip(0)
    precision = hit.cumsum(0).gather(0, end).double() / (end + 1)
    return (precision * hit).sum(0) / positives.clamp_min(1), positives > 0


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0
