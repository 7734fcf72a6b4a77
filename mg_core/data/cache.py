"""The array cache: a node decodes every image of a split once, for all trials on it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mg_core.atomic import locked, new_folder
from mg_core.data.boxes import FLAWS, box_flaws, scale_boxes
from mg_core.data.images import read_image
from mg_core.data.mapped import MappedRows
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import Progress, Reader, Record, silent
from mg_core.errors import NodeError

FORMAT_VERSION = 2
"""Raised when older files cannot be read any more; those are left alone."""

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrays:
    """What the cache holds of a split of N images of K classes and S × S pixels.

    Image i has the boxes from `box_offsets[i]` up to `box_offsets[i + 1]`, and masks likewise.
    """

    images: MappedRows  # (N, 3, S, S) pixels on disk
    masks: MappedRows  # (n, ⌈S²/8⌉) on disk, each of one class in one image, eight pixels to a byte
    ids: NDArray[np.str_]  # (N,) unique in the split
    labels: NDArray[np.bool_]  # (N, K) whether a class is in an image
    boxes: NDArray[np.int32]  # (m, 4) xmin, ymin, xmax, ymax at the trained size
    box_classes: NDArray[np.int64]  # (m,)
    box_offsets: NDArray[np.int64]  # (N + 1,)
    is_segmented: NDArray[np.bool_]  # (N,) whether the image has masks
    mask_classes: NDArray[np.int64]  # (n,)
    mask_offsets: NDArray[np.int64]  # (N + 1,)
    groups: NDArray[np.int64]  # (N,); empty for a data set without tasks


def cache_folder(cache: str | Path | None) -> Path:
    """Return `cache`, else `$MG_CACHE`, else this project's folder in the user's cache folder."""
    if chosen := cache or os.environ.get("MG_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "model-guidance-sweeps"


def cached_split(
    reader: Reader, split: str, size: int, folder: Path, progress: Progress = silent
) -> Arrays:
    """Open a split in the folder of a data set and size, after building it if it is missing."""
    target = folder / split
    found = _open(target, size, len(reader.classes))
    if found is None:
        with locked(target):
            # Another trial may have built it while this one waited.
            if _open(target, size, len(reader.classes)) is None:
                records = reader.records(split)
                _check_space(target, len(records) * 3 * size * size)
                with new_folder(target) as temporary:
                    _write(temporary, reader, split, records, size, progress)
        found = _open(target, size, len(reader.classes))
    assert found is not None
    return found


def _open(folder: Path, size: int, n_classes: int) -> Arrays | None:
    """Open a split; none if it is missing, incomplete, foreign or of another version."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["version"] != FORMAT_VERSION:
            return None
        images = (int(meta["images"]), 3, size, size)
        masks = (int(meta["masks"]), (size * size + 7) // 8)
        with (folder / "annotations.npz").open("rb") as file:
            tables = dict(np.load(file, allow_pickle=False))
        if tables["labels"].shape != (images[0], n_classes):
            return None
        return Arrays(
            images=MappedRows(folder / "images.u8", images),
            masks=MappedRows(folder / "masks.u8", masks),
            **tables,
        )
    # Sizes do not fit, or np.load raises BadZipFile and others for a file that is not its own.
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


def decode(
    reader: Reader, record: Record, size: int
) -> tuple[NDArray[np.uint8], int, int, Mapping[int, NDArray[np.bool_]]]:
    """Return what `read_image` returns, and the masks of the classes in the image."""
    pixels, width, height = read_image(record.image, size)
    masks = reader.segmentation(record, size) if record.segmentation is not None else {}
    return pixels, width, height, masks


def _write(
    folder: Path,
    reader: Reader,
    split: str,
    records: Sequence[Record],
    size: int,
    progress: Progress,
) -> None:
    """Write the files of a split, the small meta.json last."""
    sides: list[tuple[int, int]] = []
    mask_classes: list[list[int]] = []
    # Ordinary writes: a full disk raises an error, where a memory mapping would crash.
    with (folder / "images.u8").open("wb") as images, (folder / "masks.u8").open("wb") as masks:
        decoded = in_parallel(lambda record: decode(reader, record, size), records)
        for number, (pixels, width, height, found) in enumerate(decoded, start=1):
            images.write(pixels.tobytes())
            sides.append((width, height))
            mask_classes.append(list(found))
            for mask in found.values():
                masks.write(np.packbits(mask).tobytes())
            progress(split, number, len(records))
        _flush(images)
        _flush(masks)
    box_classes = [[box.class_index for box in record.boxes] for record in records]
    labels = np.zeros((len(records), len(reader.classes)), dtype=np.bool_)
    for row, classes in enumerate(box_classes):
        labels[row, classes] = True
    with (folder / "annotations.npz").open("wb") as file:
        np.savez(
            file,
            ids=np.array([record.id for record in records], dtype=np.str_),
            labels=labels,
            boxes=_trained_boxes(records, sides, size),
            box_classes=_flat(box_classes),
            box_offsets=_offsets(box_classes),
            is_segmented=np.array([record.segmentation is not None for record in records]),
            mask_classes=_flat(mask_classes),
            mask_offsets=_offsets(mask_classes),
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
    """Scale all boxes of a split, and log how many had to be repaired."""
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
    # On disk before the folder is renamed: a power cut must not leave a folder of empty files.
    file.flush()
    os.fsync(file.fileno())


def _flat(lists: list[list[int]]) -> NDArray[np.int64]:
    return np.array([value for values in lists for value in values], dtype=np.int64)


def _offsets(lists: list[list[int]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, lists)], dtype=np.int64)
