"""Accuracy where images have one label, and in each group of a data set with groups (Sec. 5.5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mg_core.errors import InputError, check_shapes

N_GROUPS = 4
"""Groups of Waterbirds: 2 · kind of bird + background."""
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
def accuracy_by_group(
    logits: Tensor, labels: Tensor, groups: Tensor, n_groups: int
) -> dict[str, Any]:
    """Return the share of images whose largest logit is their class, in all and in each group.

    Args:
        logits: (N, K).
        labels: (N, K), bool or 0/1, one class an image.
        groups: (N,) integers in [0, n_groups).
        n_groups: number of groups, of which some may have no image.

    Returns:
        `accuracy`, the lists `accuracy_by_group` (NaN for a group without images) and `n_by_group`,
        and over the groups with images the lowest, `accuracy_min_group`, and the mean,
        `accuracy_mean_group` (Sagawa et al. 2020 judge by the lowest). None without any image; NaN
        if a logit of the images is NaN.

    Raises:
        InputError: logits, labels and groups of different shapes, or an unknown group.
    """
    check_shapes("(N, K)", logits=logits, labels=labels)
    if groups.shape != logits.shape[:1]:
        raise InputError(f"groups must have shape ({len(logits)},), not {tuple(groups.shape)}")
    groups = groups.to(logits.device)
    if len(groups) and (int(groups.min()) < 0 or int(groups.max()) >= n_groups):
        raise InputError(f"groups must be in [0, {n_groups})")
    hits = _hits(logits, labels)
    members = [hits[groups == group] for group in range(n_groups)]
    # The mean of no image is NaN.
    by_group = torch.stack([own.mean() for own in members])
    present = by_group[torch.tensor([len(own) > 0 for own in members], device=by_group.device)]
    return {
        "accuracy": float(hits.mean()) if len(hits) else None,
        "accuracy_by_group": by_group.tolist(),
        "n_by_group": [float(len(own)) for own in members],
        "accuracy_min_group": float(present.min()) if len(present) else None,
        "accuracy_mean_group": float(present.mean()) if len(present) else None,
    }


def group_accuracy(logits: Tensor, labels: Tensor, groups: Tensor) -> dict[str, Any]:
    """Return what `accuracy_by_group` does of the four groups of Waterbirds, and Table 1's columns.

    Args:
        logits: (N, K).
        labels: (N, K), bool or 0/1, one class an image.
        groups: (N,) integers in [0, 4).

    Returns:
        In addition `accuracy_group_0` to `_3` and `accuracy_worst_group`, that of waterbirds on
        land. None for a group without images.

    Raises:
        InputError: logits, labels and groups of different shapes, or an unknown group.
    """
    found = accuracy_by_group(logits, labels, groups, N_GROUPS)
    known = [
        value if count else None
        for value, count in zip(found["accuracy_by_group"], found["n_by_group"], strict=True)
    ]
    own = {f"accuracy_group_{group}": value for group, value in enumerate(known)}
    return {**found, **own, "accuracy_worst_group": known[WORST_GROUP]}


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    hits = (logits.argmax(1) == labels.to(logits.device).int().argmax(1)).double()
    return hits.masked_fill(logits.isnan().any(1), float("nan"))


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
