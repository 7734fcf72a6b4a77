"""Data sets as a trial sees them: splits of images at the trained size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mg_core.config import DataConfig, parse
from mg_core.data.boxes import dilate, rasterise
from mg_core.data.cache import FORMAT_VERSION, Arrays, Progress, cache_folder, cached_split
from mg_core.data.reader import SPLITS, Reader, Task
from mg_core.data.readers import DATASETS
from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Indices: TypeAlias = "Sequence[int] | NDArray[np.integer[Any]] | Tensor"


class Split:
    """Images of S × S pixels with their labels, boxes and masks.

    Args:
        arrays: the split in the cache.
        size: S.
        classes: of the data set.
        task: what is asked about the images, for a data set with tasks.

    Attributes:
        ids: of the images.
        labels: (N, K), whether an image has a box of a class, or its class in the task.
        classes: names of the label columns.
        groups: (N,) group of each image; none for a data set without tasks.
        has_segmentation: whether any image has masks.
    """

    def __init__(
        self, arrays: Arrays, size: int, classes: tuple[str, ...], task: Task | None = None
    ) -> None:
        self._arrays = arrays if task is None else _relabelled(arrays, task)
        self._size = size
        self._is_outside = task is not None and task.is_outside
        self.groups = None if task is None else arrays.groups
        self.classes = classes if task is None else task.names
        self.ids: Sequence[str] = arrays.ids.tolist()
        self.labels = self._arrays.labels
        self.has_segmentation = bool(arrays.is_segmented.any())

    def __len__(self) -> int:
        return len(self._arrays.images)

    def images(self, indices: Indices) -> Tensor:
        """Read images.

        Returns:
            (B, 3, S, S) uint8, contiguous.
        """
        return _tensor(self._arrays.images.read(_integers(indices)))

    def masks(self, indices: Indices, classes: Indices, dilation: float = 0.0) -> Tensor:
        """Draw, for each image, the union of its boxes of one class.

        In a task whose evidence lies outside, it is what the (dilated) boxes leave out.

        Args:
            indices: (B,) images.
            classes: (B,) one class for each of them.
            dilation: share of its width and height that a box grows by on each side (R8).

        Returns:
            (B, S, S) bool, all False where the image has no such box.
        """
        rows, found = _matches(self._arrays.box_offsets, self._arrays.box_classes, indices, classes)
        boxes = self._arrays.boxes[found]
        if dilation:
            boxes = dilate(boxes, dilation, self._size)
        masks = rasterise(boxes, rows, len(indices), self._size)
        if self._is_outside:
            has_box = np.unique(rows)
            masks[has_box] = ~masks[has_box]
        return _tensor(masks)

    def boxes(self, index: int, class_id: int) -> NDArray[np.int64]:
        """Return the boxes of one class in one image, undilated.

        Returns:
            (n, 4) xmin, ymin, xmax, ymax in pixels of the trained image; max is outside.
        """
        arrays = self._arrays
        _, found = _matches(arrays.box_offsets, arrays.box_classes, [index], [class_id])
        return arrays.boxes[found].astype(np.int64)

    def segmentation(self, indices: Indices, classes: Indices) -> Tensor | None:
        """Read, for each image, the pixels of one class.

        Args:
            indices: (B,) images.
            classes: (B,) one class for each of them.

        Returns:
            (B, S, S) bool, all False for an image without masks; none when no image has any.
        """
        if not self.has_segmentation:
            return None
        rows, found = _matches(
            self._arrays.mask_offsets, self._arrays.mask_classes, indices, classes
        )
        pixels = np.unpackbits(self._arrays.masks.read(found), axis=1, count=self._size**2)
        masks = np.zeros((len(indices), self._size, self._size), dtype=np.bool_)
        masks[rows] = pixels.reshape(-1, self._size, self._size).astype(np.bool_)
        return _tensor(masks)

    def segmented(self, indices: Indices) -> Tensor:
        """Tell which images have masks, (B,) bool."""
        return _tensor(self._arrays.is_segmented[_integers(indices)])


class Data:
    """A data set at one trained size; its splits are decoded when they are first asked for.

    Args:
        config: the data set as trained on.
        reader: of its files.
        cache: folder for decoded arrays; none for `$MG_CACHE` or the user's cache folder.
        progress: called with a split, images done and images to do while it is decoded.

    Attributes:
        classes: names, in the order of the label columns.
        tasks: names of its tasks, the usual one first; most data sets have none.
        fingerprint: hash of the files, the same on every node.
        folder: where its decoded arrays lie or will lie.
    """

    def __init__(
        self,
        config: DataConfig,
        reader: Reader,
        cache: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.classes = reader.classes
        self.tasks = tuple(reader.tasks)
        self.fingerprint = reader.fingerprint()
        self._reader = reader
        self._size = config.image_size
        self._progress = progress
        self._splits: dict[tuple[str, str | None], Split] = {}
        content = [FORMAT_VERSION, config.key, self.classes, self.fingerprint]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self.folder = cache_folder(cache) / f"{config.name}-{config.image_size}px-{key}"

    def split(self, name: str, task: str | None = None) -> Split:
        """Open a split, decoding its images first when this node has not done so yet.

        Args:
            name: of the split.
            task: of the data set; none for its usual one.

        Raises:
            InputError: there is no such split or task, or one of its files is wrong.
        """
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}; choose from {', '.join(SPLITS)}")
        if task is not None and task not in self.tasks:
            raise InputError(
                f"unknown task {task!r}; this data set has {', '.join(self.tasks) or 'no tasks'}"
            )
        key = (name, task or next(iter(self.tasks), None))
        if key not in self._splits:
            arrays = cached_split(self._reader, name, self._size, self.folder, self._progress)
            asked = self._reader.tasks[key[1]] if key[1] else None
            self._splits[key] = Split(arrays, self._size, self.classes, asked)
        return self._splits[key]


def open_data(
    config: DataConfig,
    root: str | None = None,
    cache: str | None = None,
    progress: Progress | None = None,
) -> Data:
    """Open a data set.

    Args:
        config: the data set as trained on.
        root: folder of its files; a synthetic set without one makes itself in the cache.
        cache: folder for decoded arrays; none for `$MG_CACHE` or the user's cache folder.
        progress: called with a split, images done and images to do while it is decoded.

    Raises:
        InputError: the name or an option is unknown, or the folder does not hold the data set.
    """
    variant = DATASETS[config.name]
    options = parse(variant.Options, config.options, f"options of data set {config.name}")
    folder = variant.locate(root, options, cache_folder(cache))
    return Data(config, variant(folder, options), cache, progress)


def _relabelled(arrays: Arrays, task: Task) -> Arrays:
    """Give every image and box the class that its group has in a task."""
    classes = np.array(task.classes, dtype=np.int64)[arrays.groups]
    labels = np.zeros_like(arrays.labels)
    labels[np.arange(len(labels)), classes] = True
    box_classes = np.repeat(classes, np.diff(arrays.box_offsets))
    return replace(arrays, labels=labels, box_classes=box_classes)


def _integers(indices: Indices) -> NDArray[np.int64]:
    return np.asarray(indices, dtype=np.int64)


def _matches(
    offsets: NDArray[np.int64], table: NDArray[np.int64], indices: Indices, classes: Indices
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the entries of each image that are of its class.

    Returns:
        (n,) positions in the batch, and (n,) entries of the table.
    """
    images = _integers(indices)
    counts = offsets[images + 1] - offsets[images]
    rows = np.repeat(np.arange(len(images)), counts)
    # Entry j of an image lies at its offset + j; `starts` undoes the count of the images before.
    starts = np.repeat(offsets[images] - (np.cumsum(counts) - counts), counts)
    entries = starts + np.arange(len(rows))
    is_match = table[entries] == _integers(classes)[rows]
    return rows[is_match], entries[is_match]


def _tensor(array: NDArray[Any]) -> Tensor:
    import torch  # Here, so that a driver, which only looks whether all is in order, needs none.

    return torch.from_numpy(array)
