"""The arrays of a decoded split, and whether they are what was written."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mg_core.data.mapped import MappedRows


@dataclass(frozen=True)
class Arrays:
    """What the cache holds of a split of N images of K classes and S × S pixels.

    Image i has the boxes from `box_offsets[i]` up to `box_offsets[i + 1]`, and masks likewise.
    """

    images: MappedRows  # (N, 3, S, S) pixels on disk
    masks: MappedRows  # (n, ⌈S²/8⌉) on disk, each of one class in one image, eight pixels to a byte
    ids: NDArray[np.str_]  # (N,) unique in the split
    labels: NDArray[np.bool_]  # (N, K) whether a class is in an image, with a box or without
    boxes: NDArray[np.int32]  # (m, 4) xmin, ymin, xmax, ymax at the trained size
    box_classes: NDArray[np.int64]  # (m,)
    box_offsets: NDArray[np.int64]  # (N + 1,)
    is_segmented: NDArray[np.bool_]  # (N,) whether the image has masks
    mask_classes: NDArray[np.int64]  # (n,)
    mask_offsets: NDArray[np.int64]  # (N + 1,)
    groups: NDArray[np.int64]  # (N,); empty for a data set without groups
    contents: NDArray[np.uint64]  # (N,) `file_print` of each image file
    image_sums: NDArray[np.uint32]  # (N,) CRC-32 of each image's pixels
    mask_sums: NDArray[np.uint32]  # (n,) CRC-32 of each mask's bytes

    @property
    def located(self) -> NDArray[np.bool_]:
        """(N, K) whether an image has a box of a class."""
        found: NDArray[np.bool_] = self.n_boxes > 0
        return found

    @property
    def n_boxes(self) -> NDArray[np.int64]:
        """(N, K) number of boxes of a class in an image."""
        return self._counted(self.box_offsets, self.box_classes)

    @property
    def outlined(self) -> NDArray[np.bool_]:
        """(N, K) whether an image has a mask of a class, with a pixel in it."""
        nothing = zlib.crc32(bytes(self.masks.row_bytes))
        is_any = (self.mask_sums != nothing).astype(np.int64)
        found: NDArray[np.bool_] = self._counted(self.mask_offsets, self.mask_classes, is_any) > 0
        return found

    def _counted(
        self,
        offsets: NDArray[np.int64],
        classes: NDArray[np.int64],
        values: NDArray[np.int64] | int = 1,
    ) -> NDArray[np.int64]:
        """Add up the values of each class in each image, (N, K)."""
        found = np.zeros(self.labels.shape, dtype=np.int64)
        np.add.at(found, (np.repeat(np.arange(len(found)), np.diff(offsets)), classes), values)
        return found

    def are_sound(self, size: int, n_classes: int) -> bool:
        """Tell whether the tables fit together and every pixel is as it was written."""
        return (
            self._have_shapes(n_classes)
            and _are_offsets(self.box_offsets, len(self.boxes))
            and _are_offsets(self.mask_offsets, len(self.masks))
            and self._are_labelled(n_classes)
            and _are_inside(self.boxes, size)
            and self.images.have(self.image_sums)
            and self.masks.have(self.mask_sums)
        )

    def _have_shapes(self, n_classes: int) -> bool:
        n_images, n_boxes, n_masks = len(self.images), len(self.boxes), len(self.masks)
        wanted = {
            **dict.fromkeys(("ids", "is_segmented", "contents", "image_sums"), (n_images,)),
            **dict.fromkeys(("box_offsets", "mask_offsets"), (n_images + 1,)),
            **dict.fromkeys(("mask_classes", "mask_sums"), (n_masks,)),
            "labels": (n_images, n_classes),
            "boxes": (n_boxes, 4),
            "box_classes": (n_boxes,),
        }
        is_grouped = len(self.groups) in (0, n_images)
        return is_grouped and all(getattr(self, key).shape == wanted[key] for key in wanted)

    def _are_labelled(self, n_classes: int) -> bool:
        classes = np.concatenate([self.box_classes, self.mask_classes])
        if ((classes < 0) | (classes >= n_classes)).any():
            return False
        return not (self.located & ~self.labels).any()


def _are_offsets(offsets: NDArray[np.int64], count: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == count and (np.diff(offsets) >= 0).all())


def _are_inside(boxes: NDArray[np.int32], size: int) -> bool:
    low, high = boxes[:, :2], boxes[:, 2:]
    return not ((low < 0) | (high > size) | (low >= high)).any()
