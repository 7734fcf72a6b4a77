"""Images whose background is another image's: whether a prediction depends on what is behind.

The objects of an image stay, the rest is taken from an image without its classes, from which that
image's own objects were removed: they would otherwise be seen, and rightly predicted (the swapped
backgrounds of Xiao et al., 2021, "Noise or Signal").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mg_core.counter import permutation

if TYPE_CHECKING:
    from torch import Tensor

    from mg_core.data import Split

SEED = 0
"""Seed of the pairs, which are the same for all trials of a data set."""
MOST_IMAGES = 1000
"""Images of a split whose background is swapped; of more, as many are drawn."""
WIDEST_SEARCH = 256
"""Images looked through for one without a common class; failing that, the next one is taken."""
GRID = 8
"""Removed objects are covered by pixels from multiples of this part of a side away."""


def swapped_backgrounds(
    split: Split, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Yield images of a split as they are, and with the background of another one.

    The objects of an image are the pixels of its classes in segmentation masks or, in a set
    without any, in boxes; in a task whose evidence lies outside the boxes, they are what is
    outside. Images without a pixel of object or of background are left out.

    Yields:
        Indices (B,), the images and the same with other backgrounds, both (B, 3, S, S) uint8.
    """
    order = permutation(len(split), SEED, "backgrounds")
    usable = []
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        shown = objects(split, some).flatten(1)
        usable.append(some[(shown.any(1) & ~shown.all(1)).numpy()])
        if sum(map(len, usable)) >= MOST_IMAGES:
            break
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *usable])[:MOST_IMAGES]
    donors = chosen[pair_up(split.labels[chosen])]
    for start in range(0, len(donors), batch_size):
        own = chosen[start : start + batch_size]
        other = donors[start : start + batch_size]
        images = split.images(own)
        behind = without_objects(split.images(other), objects(split, other))
        yield own, images, torch.where(objects(split, own)[:, None], images, behind)


def objects(split: Split, indices: NDArray[np.int64]) -> Tensor:
    """Return the pixels of all objects of images, (B, S, S) bool; see `swapped_backgrounds`."""
    rows, classes = np.nonzero(split.labels[indices])
    found = split.segmentation(indices[rows], classes)
    if found is None:
        found = split.masks(indices[rows], classes)
    union = torch.zeros((len(indices), *found.shape[1:]), dtype=torch.int64)
    return union.index_add_(0, torch.from_numpy(rows), found.long()) > 0


def pair_up(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each image (N, K) the next one after it, around the end, without its classes.

    Where none of the next `WIDEST_SEARCH` is without them, it is the next one. A single image has
    no other, and the result is empty.
    """
    n_images = len(labels)
    if n_images < 2:
        return np.zeros(0, dtype=np.int64)
    others = np.arange(1, min(n_images, WIDEST_SEARCH + 1))
    pairs = np.zeros(n_images, dtype=np.int64)
    for image in range(n_images):
        candidates = (image + others) % n_images
        has_common = (labels[candidates] & labels[image]).any(1)
        # The first False, which is the first of all where every one is True.
        pairs[image] = candidates[np.argmin(has_common)]
    return pairs


def without_objects(images: Tensor, is_object: Tensor) -> Tensor:
    """Cover the objects of images by the background nearest to them on a coarse grid.

    A pixel of an object becomes that of the background at the nearest multiple of side /
    `GRID` away, around the border, so that no outline stays; where there is none, the mean of the
    image's background.

    Args:
        images: (B, 3, S, S) uint8.
        is_object: (B, S, S) bool.

    Returns:
        (B, 3, S, S) uint8.
    """
    side = images.shape[-1]
    hole, found = is_object.clone(), images.clone()
    for shift in _shifts(side):
        if not hole.any():
            return found
        is_known = hole & ~is_object.roll(shift, (1, 2))
        found = torch.where(is_known[:, None], images.roll(shift, (2, 3)), found)
        hole &= ~is_known
    background = ~is_object[:, None]
    total = (images * background).sum((2, 3), keepdim=True)
    mean = total / background.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(hole[:, None], mean.round().to(images.dtype), found)


def _shifts(side: int) -> list[tuple[int, int]]:
    step = max(1, side // GRID)
    steps = range(-(GRID // 2), GRID // 2 + 1)
    shifts = [(step * down, step * right) for down in steps for right in steps if down or right]
    return sorted(shifts, key=lambda shift: (shift[0] ** 2 + shift[1] ** 2, shift))
