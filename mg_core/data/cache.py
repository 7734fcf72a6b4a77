"""The array cache: every image of a split decoded once per node, for all trials on it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mg_core.atomic import locked, new_folder
from mg_core.data.boxes import FLAWS, box_flaws, scale_boxes
from mg_core.data.images import read_image
from mg_core.data.mapped import MappedRows
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import Reader, Record
from mg_core.errors import NodeError

FORMAT_VERSION = 2
"""Raised when files written before cannot be read any more; they are left alone."""

LOGGER = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Arrays:
    """What the cache holds of a split of N images; offsets cut the rows of image i out of all.

    Attributes:
        images: (N, 3, S, S) on disk.
        masks: (n, ⌈S²/8⌉) on disk: pixels of one class in one image, eight to a byte.
        ids: (N,) of the images.
        labels: (N, K) classes in an image.
        boxes: (m, 4) at the trained size.
        box_classes: (m,).
        box_offsets: (N + 1,) into boxes.
        is_segmented: (N,) whether the image has masks.
        mask_classes: (n,).
        mask_offsets: (N + 1,) into masks.
        groups: (N,) of a data set with tasks, else empty.
    """

    images: MappedRows
    masks: MappedRows
    ids: NDArray[np.str_]
    labels: NDArray[np.bool_]
    boxes: NDArray[np.int32]
    box_classes: NDArray[np.int64]
    box_offsets: NDArray[np.int64]
    is_segmented: NDArray[np.bool_]
    mask_classes: NDArray[np.int64]
    mask_offsets: NDArray[np.int64]
    groups: NDArray[np.int64]


def cache_folder(cache: str | None) -> Path:
    """Return `cache`, else `$MG_CACHE`, else a folder of ours in the user's cache folder."""
    if chosen := cache or os.environ.get("MG_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "model-guidance-sweeps"


def cached_split(
    reader: Reader, split: str, size: int, folder: Path, progress: Progress | None = None
) -> Arrays:
    """Open a split, building it first when it is not there completely.

    Args:
        reader: of the data set.
        split: name of the split.
        size: side of the trained images.
        folder: that of this data set, fingerprint and size in the cache.
        progress: called with the split, images done and images to do.

    Raises:
        InputError: an annotation or image cannot be read, or the cache cannot be written.
    """
    target = folder / split
    found = _open(target, size, len(reader.classes))
    if found is not None:
        return found
    with locked(target):
        # Another trial may have built it while this one waited.
        found = _open(target, size, len(reader.classes))
        if found is not None:
            return found
        records = reader.records(split)
        _check_space(target, len(records) * 3 * size * size)
        with new_folder(target) as temporary:
            report = progress or (lambda split, done, total: None)
            _write(temporary, reader, records, size, lambda n: report(split, n, len(records)))
        found = _open(target, size, len(reader.classes))
    assert found is not None
    return found


def _open(folder: Path, size: int, n_classes: int) -> Arrays | None:
    """Open what is there; none for anything half-written, foreign or of another version."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["version"] != FORMAT_VERSION:
            return None
        images = (int(meta["images"]), 3, size, size)
        masks = (int(meta["masks"]), _packed_bytes(size))
        for name, shape in (("images.u8", images), ("masks.u8", masks)):
            if (folder / name).stat().st_size != np.prod(shape, dtype=np.int64):
                return None
        with (folder / "annotations.npz").open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            tables = {name: stored[name] for name in stored.files}
        if tables["labels"].shape != (images[0], n_classes):
            return None
        return Arrays(
            images=MappedRows(folder / "images.u8", images),
            masks=MappedRows(folder / "masks.u8", masks),
            **tables,
        )
    # np.load raises BadZipFile, EOFError and others over bytes that are not its own.
    except Exception:
        return None


def _check_space(target: Path, needed: int) -> None:
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(target.parent).free
        if free < needed:
            raise NodeError(
                f"cannot write {target}: it takes {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB "
                f"are free; choose another cache folder with MG_CACHE"
            )


class _Decoded(NamedTuple):
    image: NDArray[np.uint8]
    width: int
    height: int
    masks: Mapping[int, NDArray[np.bool_]]


def _decode(reader: Reader, size: int, record: Record) -> _Decoded:
    masks = reader.segmentation(record, size) if record.segmentation is not None else {}
    return _Decoded(*read_image(record.image, size), masks)


def _write(
    folder: Path,
    reader: Reader,
    records: Sequence[Record],
    size: int,
    progress: Callable[[int], None],
) -> None:
    """Write the files of a split, the small meta.json last."""
    sides: list[tuple[int, int]] = []
    mask_classes: list[list[int]] = []
    # Ordinary writes: a full disk is an error here, where writing to a mapping would be a crash.
    with (folder / "images.u8").open("wb") as images, (folder / "masks.u8").open("wb") as masks:
        decode = partial(_decode, reader, size)
        for number, decoded in enumerate(in_parallel(decode, records), start=1):
            images.write(decoded.image.tobytes())
            sides.append((decoded.width, decoded.height))
            mask_classes.append(list(decoded.masks))
            for mask in decoded.masks.values():
                masks.write(np.packbits(mask).tobytes())
            progress(number)
        _flush(images)
        _flush(masks)
    labels = np.zeros((len(records), len(reader.classes)), dtype=np.bool_)
    for row, record in enumerate(records):
        labels[row, [box.class_index for box in record.boxes]] = True
    with (folder / "annotations.npz").open("wb") as file:
        np.savez(
            file,
            ids=np.array([record.id for record in records], dtype=np.str_),
            labels=labels,
            boxes=_trained_boxes(records, sides, size),
            box_classes=_flat([[box.class_index for box in record.boxes] for record in records]),
            box_offsets=_offsets([len(record.boxes) for record in records]),
            is_segmented=np.array([record.segmentation is not None for record in records]),
            mask_classes=_flat(mask_classes),
            mask_offsets=_offsets([len(classes) for classes in mask_classes]),
            groups=np.array([r.group for r in records if r.group is not None], dtype=np.int64),
        )
        _flush(file)
    meta = {"version": FORMAT_VERSION, "images": len(records), "masks": sum(map(len, mask_classes))}
    with (folder / "meta.json").open("w") as text:
        text.write(json.dumps(meta))
        _flush(text)


def _trained_boxes(
    records: Sequence[Record], sides: Sequence[tuple[int, int]], size: int
) -> NDArray[np.int32]:
    """Scale all boxes of a split, and say how many had to be repaired."""
    corners = np.array([box[1:] for record in records for box in record.boxes], dtype=np.float64)
    counts = [len(record.boxes) for record in records]
    width, height = np.repeat(np.array(sides, dtype=np.int64).reshape(-1, 2), counts, axis=0).T
    flaws = box_flaws(corners, width, height, size)
    for flaw in FLAWS[:2]:
        if flaw in flaws:
            LOGGER.warning(
                "%d boxes %s became one pixel at the nearest place; `mg-data verify` counts them",
                flaws[flaw],
                flaw,
            )
    return scale_boxes(corners, width, height, size)


def _flush(file: IO[Any]) -> None:
    # On the disk before the rename: after a power cut a renamed folder must not be hollow.
    file.flush()
    os.fsync(file.fileno())


def _flat(lists: list[list[int]]) -> NDArray[np.int64]:
    return np.array([value for values in lists for value in values], dtype=np.int64)


def _offsets(counts: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _packed_bytes(size: int) -> int:
    return (size * size + 7) // 8
