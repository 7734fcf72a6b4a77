"""Accuracy where images have one label, and in each group of a data set with groups (Sec. 5.5)."""

from __future__ import annotations

import torch
from torch import Tensor

from mg_core.errors import InputError, check_shapes

N_GROUPS = 4
"""Group = 2 · kind of bird + background."""
WORST_GROUP = 2
"""Waterbirds on land, the worst group of Table 1 in both tasks."""


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> float | None:
    """Return the share of images whose largest logit is their class.

    Args:
        logits: (N, K).
        labels: (N, K), bool or 0/1, one class an image.

    Returns:
        None without images; NaN if a logit is NaN.

    Raises:
        InputError: logits and labels of different shapes.
    """
    check_shapes("(N, K)", logits=logits, labels=labels)
    return _mean(_hits(logits, labels))


@torch.no_grad()
def group_accuracy(logits: Tensor, labels: Tensor, groups: Tensor) -> dict[str, float | None]:
    """Return the share of images whose largest logit is their class, in all and in each group.

    Args:
        logits: (N, K).
        labels: (N, K), bool or 0/1, one class an image.
        groups: (N,) integers in [0, 4).

    Returns:
        `accuracy`, `accuracy_group_0` to `_3`, `accuracy_worst_group` (that of waterbirds on land)
        and `accuracy_min_group` (the lowest of a group). None for a group without images; NaN if
        a logit of the images is NaN.

    Raises:
        InputError: logits, labels and groups of different shapes, or an unknown group.
    """
    check_shapes("(N, K)", logits=logits, labels=labels)
    if groups.shape != logits.shape[:1]:
        raise InputError(f"groups must have shape ({len(logits)},), not {tuple(groups.shape)}")
    groups = groups.to(logits.device)
    if len(groups) and (int(groups.min()) < 0 or int(groups.max()) >= N_GROUPS):
        raise InputError(f"groups must be in [0, {N_GROUPS})")
    hits = _hits(logits, labels)
    by_group = [_mean(hits[groups == group]) for group in range(N_GROUPS)]
    present = [value for value in by_group if value is not None]
    return {
        "accuracy": _mean(hits),
        **{f"accuracy_group_{group}": value for group, value in enumerate(by_group)},
        "accuracy_worst_group": by_group[WORST_GROUP],
        # Python's min keeps or drops a NaN depending on its place, a tensor's always keeps it.
        "accuracy_min_group": float(torch.tensor(present).double().min()) if present else None,
    }


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    hits = (logits.argmax(1) == labels.to(logits.device).int().argmax(1)).double()
    return hits.masked_fill(logits.isnan().any(1), float("nan"))


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
