"""Boxes as trained on: scaled, dilated, drawn as masks, and who may keep them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mg_core.counter import permutation

IntBoxes = NDArray[np.int32]
"""(n, 4): xmin, ymin, xmax, ymax in pixels of the trained size; max is the first pixel outside."""
Side = int | NDArray[np.int64]

FLAWS = (
    "without area",
    "outside their image",
    "partly outside their image",
    "under a pixel as trained on",
)
"""What may be odd about a box; the first two are no boxes at all until they are repaired."""


def scale_boxes(boxes: NDArray[np.float64], width: Side, height: Side, size: int) -> IntBoxes:
    """Scale boxes to images resized to `size` × `size`: int(x · scale), inside, never empty.

    Args:
        boxes: (n, 4) xmin, ymin, xmax, ymax in pixels of the stored image.
        width: of the stored image, or (n,) of each box's.
        height: likewise.
        size: side of the trained image.
    """
    boxes = boxes.reshape(-1, 4)
    scale = size / _sides(width, height, len(boxes))
    # Clipping before the conversion: a huge coordinate has no integer.
    scaled = np.clip(np.trunc(boxes * np.tile(scale, 2)), 0, size).astype(np.int32)
    low = np.minimum(scaled[:, :2], size - 1)
    high = np.maximum(scaled[:, 2:], low + 1)
    return np.concatenate([low, high], axis=1)


def _sides(width: Side, height: Side, n_boxes: int) -> NDArray[np.float64]:
    """Return (n, 2) width and height of each box's image."""
    sides = np.empty((n_boxes, 2), dtype=np.float64)
    sides[:, 0], sides[:, 1] = width, height
    return sides


def dilate(boxes: IntBoxes, dilation: float, size: int) -> IntBoxes:
    """Widen boxes by int(dilation · width) on either side and likewise in height, inside the image.

    Args:
        boxes: (n, 4) at the trained size.
        dilation: share of the box's own width and height (R8).
        size: side of the trained image.
    """
    extent = boxes[:, 2:] - boxes[:, :2]
    # A margin beyond the image is as good as one that reaches its edge.
    margin = np.minimum(np.trunc(dilation * extent), size).astype(np.int32)
    return np.concatenate(
        [np.maximum(boxes[:, :2] - margin, 0), np.minimum(boxes[:, 2:] + margin, size)], axis=1
    )


def rasterise(
    boxes: IntBoxes, rows: NDArray[np.int64], n_images: int, size: int
) -> NDArray[np.bool_]:
    """Draw the union of each image's boxes.

    Args:
        boxes: (n, 4) at the trained size.
        rows: (n,) image that each box belongs to, in [0, n_images).
        n_images: how many masks.
        size: side of the trained image.

    Returns:
        (n_images, size, size), all False for an image without a box.
    """
    masks = np.zeros((n_images, size, size), dtype=np.bool_)
    for row, (xmin, ymin, xmax, ymax) in zip(rows.tolist(), boxes.tolist(), strict=True):
        masks[row, ymin:ymax, xmin:xmax] = True
    return masks


def annotated_indices(
    n_or_labels: int | NDArray[np.bool_], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose the training images that keep their boxes: int(fraction · N), at least one.

    The subsets of one seed are nested and depend on nothing but the seed and the data set. Given
    labels, images without any come last: a small subset spent on them would guide nothing.

    Args:
        n_or_labels: number of training images N, or their labels (N, K).
        fraction: in (0, 1].
        seed: of the trial.

    Returns:
        Sorted indices.
    """
    n_images = n_or_labels if isinstance(n_or_labels, int) else len(n_or_labels)
    order = permutation(n_images, seed, "annotated")
    if not isinstance(n_or_labels, int):
        is_empty = ~n_or_labels[order].any(axis=1)
        order = order[np.argsort(is_empty, kind="stable")]
    return np.sort(order[: max(1, int(fraction * n_images))])


def box_flaws(boxes: NDArray[np.float64], width: Side, height: Side, size: int) -> dict[str, int]:
    """Count the boxes that are odd, each under the first of `FLAWS` that it has.

    Args:
        boxes: (n, 4) xmin, ymin, xmax, ymax in pixels of the stored image.
        width: of the stored image, or (n,) of each box's.
        height: likewise.
        size: side of the trained image.
    """
    boxes = boxes.reshape(-1, 4)
    image = _sides(width, height, len(boxes))
    low, high = boxes[:, :2], boxes[:, 2:]
    found = np.stack(
        [
            (high <= low).any(axis=1),
            ((low >= image) | (high <= 0)).any(axis=1),
            ((low < 0) | (high > image)).any(axis=1),
            ((high - low) * size / image < 1).any(axis=1),
        ],
        axis=1,
    )
    first = found & (found.cumsum(axis=1) == 1)
    counts = zip(FLAWS, first.sum(axis=0).tolist(), strict=True)
    return {flaw: count for flaw, count in counts if count}
