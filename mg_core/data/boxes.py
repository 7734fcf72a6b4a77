"""Boxes as trained on: scaled, dilated, drawn as masks, and kept for a share of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mg_core.counter import permutation
from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

IntBoxes = NDArray[np.int32]
"""(n, 4): xmin, ymin, xmax, ymax in pixels of the trained size; max is the first pixel outside."""
Side = int | NDArray[np.int64] | NDArray[np.float64]
"""Width or height of the stored image in pixels, or (n,) one for each box."""

FLAWS = (
    "with reversed corners",
    "without area",
    "outside their image",
    "partly outside their image",
    "under a pixel as trained on",
)
"""What may be odd about a box."""
REPAIRS = {
    FLAWS[0]: "were put in order",
    FLAWS[1]: "became one pixel at the nearest place",
    FLAWS[2]: "became one pixel at the nearest place",
}
"""What is done about the flaws that training cannot use as they are."""


def scale_boxes(boxes: NDArray[np.float64], width: Side, height: Side, size: int) -> IntBoxes:
    """Scale boxes (n, 4) of stored images to trained ones: int(x · scale), inside, never empty.

    Corners that are reversed are put in order.
    """
    boxes = _ordered(boxes)
    scale = size / _sides(width, height, len(boxes))
    # Clip before the conversion: a huge coordinate does not fit into an integer.
    scaled = np.clip(np.trunc(boxes * np.tile(scale, 2)), 0, size).astype(np.int32)
    low = np.minimum(scaled[:, :2], size - 1)
    high = np.maximum(scaled[:, 2:], low + 1)
    return np.concatenate([low, high], axis=1)


def _ordered(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 4) boxes whose minimum comes first in each direction."""
    corners = boxes.reshape(-1, 2, 2)
    return np.sort(corners, axis=1).reshape(-1, 4)


def _sides(width: Side, height: Side, n_boxes: int) -> NDArray[np.float64]:
    """Return (n, 2) width and height of each box's image."""
    sides = np.empty((n_boxes, 2), dtype=np.float64)
    sides[:, 0], sides[:, 1] = width, height
    return sides


def dilate(boxes: IntBoxes, dilation: float, size: int) -> IntBoxes:
    """Widen boxes by int(dilation · width) on each side, likewise in height, inside the image."""
    extent = boxes[:, 2:] - boxes[:, :2]
    # A margin of the image's size reaches every edge, and a larger one may not fit an integer.
    margin = np.minimum(np.trunc(dilation * extent), size).astype(np.int32)
    return np.concatenate(
        [np.maximum(boxes[:, :2] - margin, 0), np.minimum(boxes[:, 2:] + margin, size)], axis=1
    )


def rasterise(
    boxes: IntBoxes, rows: NDArray[np.int64], n_images: int, size: int
) -> NDArray[np.bool_]:
    """Draw the union of each image's boxes, (n_images, size, size); `rows` has a box's image."""
    masks = np.zeros((n_images, size, size), dtype=np.bool_)
    for row, (xmin, ymin, xmax, ymax) in zip(rows.tolist(), boxes.tolist(), strict=True):
        masks[row, ymin:ymax, xmin:xmax] = True
    return masks


def boxes_to_masks(
    boxes: Sequence[ArrayLike | Tensor],
    size: int,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    dilation: float = 0.0,
) -> Tensor:
    """Draw the union of each image's boxes as training does: scaled, dilated, rasterised.

    A box covers at least one pixel.

    Args:
        boxes: B times (n, 4) xmin, ymin, xmax, ymax in pixels of the image, max exclusive; n may
            differ between images and be 0.
        size: side S of the masks; trained images are square.
        image_sizes: B times (width, height) of the images that the boxes refer to; none if they
            have S × S pixels already.
        dilation: share of its width and height that a box grows by on each side (R8).

    Returns:
        (B, S, S) bool on the CPU, all False for an image without a box.

    Raises:
        InputError: an argument is malformed; the sentence names the image.

    Example:
        >>> import mg_core
        >>> boxes = [[[2, 2, 6, 4]], []]  # one box in the first image, none in the second
        >>> masks = mg_core.boxes_to_masks(boxes, size=4, image_sizes=[(8, 8), (6, 9)])
        >>> masks.shape
        torch.Size([2, 4, 4])
        >>> masks[0].int()
        tensor([[0, 0, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 0, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    import torch  # Imported here: a driver only checks the data and needs no PyTorch.

    if not isinstance(size, int) or size < 1:
        raise InputError(f"size is {size!r}: masks are square, so it is one positive integer")
    if not dilation >= 0:
        raise InputError(f"dilation is {dilation!r}, but a box grows by a share of at least 0")
    sides = np.full((len(boxes), 2), size, dtype=np.float64)
    if image_sizes is not None:
        sides = _table(image_sizes, 2, "image_sizes")
    if len(sides) != len(boxes) or (sides < 1).any():
        raise InputError(f"image_sizes needs one positive (width, height) for {len(boxes)} images")
    corners = [_table(values, 4, f"boxes of image {number}") for number, values in enumerate(boxes)]
    rows = np.repeat(np.arange(len(boxes)), [len(found) for found in corners])
    width, height = sides[rows].T
    joined = np.concatenate([np.empty((0, 4)), *corners])
    scaled = dilate(scale_boxes(joined, width, height, size), dilation, size)
    return torch.from_numpy(rasterise(scaled, rows, len(boxes), size))


def _table(values: ArrayLike | Tensor, columns: int, what: str) -> NDArray[np.float64]:
    """Return finite numbers as an array (n, columns)."""
    import torch

    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu().double()
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: rows of {columns} numbers are wanted") from None
    if found.size == 0:
        return np.empty((0, columns))
    if found.ndim != 2 or found.shape[1] != columns or not np.isfinite(found).all():
        raise InputError(
            f"{what}: rows of {columns} finite numbers are wanted, not shape {found.shape}"
        )
    return found


def annotated_indices(
    n_or_labels: int | NDArray[np.bool_], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose the training images that keep their boxes: int(fraction · N), at least one, sorted.

    The subsets of one seed are nested and depend on the seed and the data set only. Given labels
    (N, K), images without any are chosen last: they have no boxes to guide with.
    """
    n_images = n_or_labels if isinstance(n_or_labels, int) else len(n_or_labels)
    order = permutation(n_images, seed, "annotated")
    if not isinstance(n_or_labels, int):
        is_empty = ~n_or_labels[order].any(axis=1)
        order = order[np.argsort(is_empty, kind="stable")]
    return np.sort(order[: max(1, int(fraction * n_images))])


def box_flaws(boxes: NDArray[np.float64], width: Side, height: Side, size: int) -> dict[str, int]:
    """Count the boxes (n, 4) of stored images that are odd, under the first of `FLAWS` of each."""
    boxes = boxes.reshape(-1, 4)
    image = _sides(width, height, len(boxes))
    is_reversed = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    boxes = _ordered(boxes)
    low, high = boxes[:, :2], boxes[:, 2:]
    found = np.stack(
        [
            is_reversed,
            (high == low).any(axis=1),
            ((low >= image) | (high <= 0)).any(axis=1),
            ((low < 0) | (high > image)).any(axis=1),
            ((high - low) * size / image < 1).any(axis=1),
        ]
    )
    first = found & (found.cumsum(axis=0) == 1)
    counts = zip(FLAWS, first.sum(axis=1).tolist(), strict=True)
    return {flaw: count for flaw, count in counts if count}


def outliers(boxes: NDArray[np.float64], image: NDArray[np.float64]) -> int:
    """Count the boxes (n, 4) that reach out of their images (n, 2) by more than a pixel."""
    corners = _ordered(boxes).reshape(-1, 2, 2)
    return int(((corners < -1) | (corners > image[:, None] + 1)).any(axis=(1, 2)).sum())


def is_scaled(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Tell whether two sizes have the same aspect ratio, up to the rounding of their sides."""
    return abs(first[0] * second[1] - first[1] * second[0]) <= max(*first, *second)
