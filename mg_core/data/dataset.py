"""Data sets as a trial sees them: splits of images at the trained size."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mg_core.config import DataConfig, parse
from mg_core.data.arrays import Arrays
from mg_core.data.boxes import dilate, rasterise
from mg_core.data.cache import FORMAT_VERSION, cache_folder, cached_split
from mg_core.data.decoding import check_labels, copies, shortcomings
from mg_core.data.images import file_print
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import SPLITS, Progress, Reader, Task, find_task, silent
from mg_core.data.readers import DATASETS
from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LOGGER = logging.getLogger(__name__)

Indices: TypeAlias = "Sequence[int] | NDArray[np.integer[Any]] | Tensor"


class Split:
    """Images of S × S pixels with their labels, boxes and masks, as a task sees them.

    Attributes:
        size: side S in pixels.
        ids: N image ids.
        labels: (N, K) bool: whether an image shows a class, or is of the class in the task.
        located: (N, K) bool: whether boxes say where; only then a map can be guided or judged.
        outlined: (N, K) bool: whether a segmentation mask says which pixels.
        n_boxes: (N, K) number of boxes.
        classes: K class names, in the order of the label columns.
        groups: (N,) group of each image; none for a data set without groups.
        group_names: names of the groups, which `groups` are indices into.
        has_segmentation: whether any image has masks.
        is_outside: whether masks are what lies outside the boxes.
    """

    def __init__(
        self,
        arrays: Arrays,
        size: int,
        classes: tuple[str, ...],
        task: Task | None = None,
        group_names: tuple[str, ...] = (),
    ) -> None:
        self._arrays = arrays if task is None else _relabelled(arrays, task)
        self.size = size
        self.is_outside = task is not None and task.is_outside
        self.groups = arrays.groups if group_names else None
        self.group_names = group_names
        self.classes = classes if task is None else task.names
        self.ids: Sequence[str] = arrays.ids.tolist()
        self.labels = self._arrays.labels
        self.located = self._arrays.located
        self.outlined = self._arrays.outlined
        self.n_boxes = self._arrays.n_boxes
        self.has_segmentation = bool(arrays.is_segmented.any())

    def __len__(self) -> int:
        return len(self._arrays.images)

    def images(self, indices: Indices) -> Tensor:
        """Read images, (B, 3, S, S) uint8, contiguous."""
        return _tensor(self._arrays.images.read(_integers(indices)))

    def masks(self, indices: Indices, classes: Indices, dilation: float = 0.0) -> Tensor:
        """Draw, for each image, the union of its boxes of one class, each dilated (R8).

        In a task whose evidence lies outside the boxes, the mask is the rest of the image. Masks
        (B, S, S) are all False where the image has no such box.
        """
        rows, found = _matches(self._arrays.box_offsets, self._arrays.box_classes, indices, classes)
        boxes = self._arrays.boxes[found]
        if dilation:
            boxes = dilate(boxes, dilation, self.size)
        masks = rasterise(boxes, rows, len(indices), self.size)
        if self.is_outside:
            has_box = np.unique(rows)
            masks[has_box] = ~masks[has_box]
        return _tensor(masks)

    def boxes(self, index: int, class_id: int) -> NDArray[np.int64]:
        """Return the undilated boxes (n, 4) of one class in one image, max outside."""
        arrays = self._arrays
        _, found = _matches(arrays.box_offsets, arrays.box_classes, [index], [class_id])
        return arrays.boxes[found].astype(np.int64)

    def segmentation(self, indices: Indices, classes: Indices) -> Tensor | None:
        """Read, for each image, the pixels of one class, (B, S, S); none if no image has masks."""
        if not self.has_segmentation:
            return None
        arrays = self._arrays
        rows, found = _matches(arrays.mask_offsets, arrays.mask_classes, indices, classes)
        pixels = np.unpackbits(arrays.masks.read(found), axis=1, count=self.size**2)
        masks = np.zeros((len(indices), self.size, self.size), dtype=np.bool_)
        drawn = pixels.reshape(-1, self.size, self.size).astype(np.bool_)
        for row, mask in zip(rows.tolist(), drawn, strict=True):
            masks[row] |= mask  # In a task, several classes of the data set may be one class.
        return _tensor(masks)

    def segmented(self, indices: Indices) -> Tensor:
        """Tell which images have masks, (B,) bool."""
        return _tensor(self._arrays.is_segmented[_integers(indices)])


class Data:
    """A data set at one trained size; each split is decoded when it is first asked for.

    Attributes:
        classes: class names, in the order of the label columns.
        tasks: task names, the default one first; most data sets have none.
        groups: names of the groups whose accuracies are told apart; most data sets have none.
        fingerprint: hash of the files, the same on every node.
        folder: folder of the decoded arrays, which may not exist yet.
    """

    def __init__(
        self,
        config: DataConfig,
        reader: Reader,
        cache: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.classes = reader.classes
        self.tasks = tuple(reader.tasks)
        self.groups = reader.group_names
        self.fingerprint = reader.fingerprint()
        reader.release()
        self._reader = reader
        self._size = config.image_size
        self._progress = progress or silent
        self._arrays: dict[str, Arrays] = {}
        self._splits: dict[tuple[str, str | None], Split] = {}
        content = [FORMAT_VERSION, config.key, self.classes, self.fingerprint]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self.folder = cache_folder(cache) / f"{config.name}-{config.image_size}px-{key}"

    def former_fingerprint(self) -> str:
        """Return the fingerprint by which earlier versions of this package knew these files."""
        return self._reader.former_fingerprint()

    def prepare(self) -> None:
        """Decode the training and validation images, and check what training and testing need.

        What only looks wrong is logged: images that come twice, and a test split that cannot be
        read or judged. The files of the test split are looked for and not decoded.

        Raises:
            InputError: the data set is wrong, or a split has no labels.
        """
        contents: dict[str, list[tuple[str, int]]] = {}
        for name in SPLITS[:2]:
            self.split(name)
            arrays = self._arrays[name]
            check_labels(bool(arrays.labels.any()), bool(len(arrays.boxes)), name)
            contents[name] = list(zip(arrays.ids.tolist(), arrays.contents.tolist(), strict=True))
        try:
            records = self._reader.records("test")
            prints = in_parallel(file_print, [record.image for record in records])
            if sentence := shortcomings(records):
                LOGGER.warning("%s", sentence)
            contents["test"] = [(r.id, found) for r, found in zip(records, prints, strict=True)]
        except InputError as error:
            LOGGER.warning("trained models cannot be tested: %s", error)
        self._reader.release()
        for sentence in copies(contents):
            LOGGER.warning("%s", sentence)

    def split(self, name: str, task: str | None = None) -> Split:
        """Open one of `SPLITS`, after decoding its images if this node has not done so yet."""
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}; choose from {', '.join(SPLITS)}")
        asked = find_task(self._reader.tasks, task)
        key = (name, task or next(iter(self.tasks), None))
        if key not in self._splits:
            if name not in self._arrays:
                self._arrays[name] = cached_split(
                    self._reader, name, self._size, self.folder, self._progress
                )
                self._reader.release()
            self._splits[key] = Split(
                self._arrays[name], self._size, self.classes, asked, self.groups
            )
        return self._splits[key]


def data_config(
    name: str,
    image_size: int = 224,
    horizontal_flip: bool = False,
    options: Mapping[str, Any] | None = None,
    source: str = "",
) -> DataConfig:
    """Return a validated configuration, with the defaults of the options that are not given.

    Ids and decoded images therefore do not depend on which options were spelled out. Messages name
    `source`, the key of these values in a file ("data"), if there is one.

    Raises:
        InputError: the name, an option or a value is wrong.
    """
    try:
        variant = DATASETS[name]
    except InputError as error:
        raise InputError(f"{source}.name: {error}" if source else str(error)) from None
    where = f"{source}.options" if source else f"options of data set {name}"
    own = parse(variant.Options, dict(options or {}), where, is_key=bool(source))
    values = {
        "name": name,
        "image_size": image_size,
        "horizontal_flip": horizontal_flip,
        "options": own.model_dump(mode="json", exclude_none=True),
    }
    config: DataConfig = parse(DataConfig, values, source or f"data set {name}")
    return config


def open_reader(
    config: DataConfig, root: str | Path | None = None, cache: str | Path | None = None
) -> Reader:
    """Open the files of a data set as `open_data` does."""
    variant, options = variant_of(config)
    return variant(variant.locate(root, options, cache_folder(cache)), options)


def class_names(
    config: DataConfig,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    task: str | None = None,
) -> tuple[str, ...]:
    """Return the class names of a data set, those of `Split.classes`, without decoding images.

    The files in `root` are opened only if the options do not decide the class names.

    Raises:
        InputError: an option or the task is unknown, or the folder is needed and not given.

    Example:
        >>> class_names(data_config("waterbirds100"), task="reversed")
        ('land', 'water')
    """
    variant, options = variant_of(config)
    if variant.task_names(options) or task is not None:
        tasks = variant.tasks or open_reader(config, root, cache).tasks
        if asked := find_task(tasks, task):
            return asked.names
    return variant.class_names(options) or open_reader(config, root, cache).classes


def open_data(
    data: str | DataConfig,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    *,
    image_size: int | None = None,
    **options: Any,
) -> Data:
    """Open a data set.

    Args:
        data: registered name, or a whole configuration.
        root: folder of its files; a synthetic set without one is written to the cache.
        cache: folder for decoded arrays; none for `$MG_CACHE` or the user's cache folder.
        progress: called with a split, images done and images to do after every decoded image.
        image_size: side of the trained images in pixels, 224 if not given; only with a name.
        options: settings of the data set's own, as under `options` in a sweep file; only with a
            name.

    Raises:
        InputError: the name or an option is unknown, or the folder does not hold the data set.

    Example:
        >>> import mg_core
        >>> data = mg_core.open_data("shapes", image_size=32, train=8, val=4, test=4, size=32)
        >>> data.classes
        ('ellipse', 'rectangle', 'triangle', 'star', 'cross', 'ring')
        >>> split = data.split("train")
        >>> len(split)
        8
        >>> split.images([0]).shape
        torch.Size([1, 3, 32, 32])
        >>> split.masks([0, 1], classes=[2, 4]).shape
        torch.Size([2, 32, 32])
    """
    if not isinstance(data, DataConfig):
        size = 224 if image_size is None else image_size
        data = data_config(data, size, options=options)
    elif options or image_size is not None:
        raise InputError("a whole configuration has its own image_size and options: give no others")
    return Data(data, open_reader(data, root, cache), cache, progress)


def variant_of(config: DataConfig) -> tuple[type[Reader], Any]:
    """Return the reader class of a data set and its validated options."""
    variant = DATASETS[config.name]
    return variant, parse(variant.Options, config.options, f"options of data set {config.name}")


def _relabelled(arrays: Arrays, task: Task) -> Arrays:
    """Give every image, its boxes and its masks the class that its group has in a task."""
    classes = np.array(task.classes, dtype=np.int64)[arrays.groups]
    labels = np.zeros((len(classes), len(task.names)), dtype=np.bool_)
    labels[np.arange(len(labels)), classes] = True
    box_classes = np.repeat(classes, np.diff(arrays.box_offsets))
    mask_classes = np.repeat(classes, np.diff(arrays.mask_offsets))
    return replace(arrays, labels=labels, box_classes=box_classes, mask_classes=mask_classes)


def _integers(indices: Indices) -> NDArray[np.int64]:
    return np.asarray(indices, dtype=np.int64)


def _matches(
    offsets: NDArray[np.int64], table: NDArray[np.int64], indices: Indices, classes: Indices
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the entries of `table` that belong to the images and have their classes.

    Returns:
        (n,) positions in the batch, and (n,) entries of the table.
    """
    images = _integers(indices)
    counts = offsets[images + 1] - offsets[images]
    rows = np.repeat(np.arange(len(images)), counts)
    # Entry j of an image lies at its offset + j. `starts` also takes off the entries of the images
    # before it in the batch, so that adding a running number gives offset + j.
    starts = np.repeat(offsets[images] - (np.cumsum(counts) - counts), counts)
    entries = starts + np.arange(len(rows))
    is_match = table[entries] == _integers(classes)[rows]
    return rows[is_match], entries[is_match]


def _tensor(array: NDArray[Any]) -> Tensor:
    import torch  # Imported here: a driver only checks the data and needs no PyTorch.

    return torch.from_numpy(array)
