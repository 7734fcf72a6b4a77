"""The array cache: a node decodes every image of a split once, for all trials on it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mg_core.atomic import locked, new_folder
from mg_core.data.arrays import Arrays
from mg_core.data.boxes import REPAIRS, box_flaws, scale_boxes
from mg_core.data.decoding import Decoded, beyond, check_units, decode
from mg_core.data.mapped import MappedRows
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import Progress, Reader, Record, silent
from mg_core.errors import InputError, NodeError
from mg_core.paths import with_home, with_variables

FORMAT_VERSION = 3
"""Raised when older files cannot be read any more; those are left alone."""

LOGGER = logging.getLogger(__name__)


def cache_folder(cache: str | Path | None) -> Path:
    """Return `cache`, else `$MG_CACHE`, else this project's folder in the user's cache folder.

    A folder that is named may be shared. The default one is for its user alone.

    Raises:
        InputError: the default folder belongs to another user, or the name has a variable that is
            not set.
    """
    if chosen := cache or os.environ.get("MG_CACHE"):
        return with_home(with_variables(str(chosen)))
    base = os.environ.get("XDG_CACHE_HOME") or with_home("~/.cache")
    folder = Path(base) / "model-guidance-sweeps"
    with contextlib.suppress(OSError):  # Whoever writes to it says that it cannot be written.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(folder)
    return folder


def _make_private(folder: Path) -> None:
    status = folder.stat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise InputError(
            f"the cache {folder} belongs to another user (id {status.st_uid}); name a folder of "
            f"your own, or one that you share, as data.cache or with MG_CACHE"
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def cached_split(
    reader: Reader, split: str, size: int, folder: Path, progress: Progress = silent
) -> Arrays:
    """Open a split in the folder of a data set and size, after building it if it is missing."""
    target = folder / split
    found = _open(target, size, len(reader.classes))
    if found is None:
        with locked(target):
            # Another trial may have built it while this one waited.
            found = _open(target, size, len(reader.classes))
            if found is None:
                if target.exists():
                    LOGGER.warning("%s is damaged; its images are decoded again", target)
                records = reader.records(split)
                check_units(records, split, reader.units_advice)
                _check_space(target, len(records) * 3 * size * size)
                with new_folder(target) as temporary:
                    _write(temporary, reader, split, records, size, progress)
                found = _open(target, size, len(reader.classes))
    if found is None:
        raise NodeError(f"{target} was written and cannot be read; the disk may be faulty")
    return found


def _open(folder: Path, size: int, n_classes: int) -> Arrays | None:
    """Open a split; none if it is missing, incomplete, damaged or of another version."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["version"] != FORMAT_VERSION:
            return None
        images = (int(meta["images"]), 3, size, size)
        masks = (int(meta["masks"]), (size * size + 7) // 8)
        tables = (folder / "annotations.npz").read_bytes()
        if hashlib.sha256(tables).hexdigest() != meta["sha256"]:
            return None
        found = Arrays(
            images=MappedRows(folder / "images.u8", images),
            masks=MappedRows(folder / "masks.u8", masks),
            **np.load(io.BytesIO(tables), allow_pickle=False),
        )
    # Sizes do not fit, or np.load raises BadZipFile and others for a file that is not its own.
    except Exception:
        return None
    return found if found.are_sound(size, n_classes) else None


def _check_space(target: Path, needed: int) -> None:
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(target.parent).free
        if free < needed:
            raise NodeError(
                f"cannot write {target}: it takes {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB "
                f"are free; choose another cache folder with MG_CACHE"
            )


@dataclass
class _Noted:
    """What is kept of every decoded image, besides its pixels."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    mask_classes: list[list[int]] = field(default_factory=list)
    is_segmented: list[bool] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)
    image_sums: list[int] = field(default_factory=list)
    mask_sums: list[int] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)
    mask_flaws: list[str] = field(default_factory=list)

    def add(self, found: Decoded, images: IO[bytes], masks: IO[bytes]) -> None:
        """Write the pixels of an image, and note the rest."""
        by_class = found.masks or {}
        self.image_sums.append(_write_rows(images, found.pixels))
        self.mask_sums += [_write_rows(masks, np.packbits(mask)) for mask in by_class.values()]
        self.sizes.append(found.size)
        self.mask_classes.append(list(by_class))
        self.is_segmented.append(found.masks is not None)
        self.contents.append(found.content)
        self.oddities.update(found.oddities)
        self.mask_flaws += [found.mask_flaw] if found.mask_flaw else []

    def log(self, split: str) -> None:
        """Log how many images are odd."""
        for oddity, count in self.oddities.items():
            LOGGER.warning("%s split: %d images %s", split, count, oddity)
        if self.mask_flaws:
            LOGGER.warning(
                "%s split: the masks of %d images are left out: %s",
                *(split, len(self.mask_flaws), self.mask_flaws[0]),
            )


def _write_rows(file: IO[bytes], pixels: NDArray[np.uint8]) -> int:
    content = pixels.tobytes()
    file.write(content)
    return zlib.crc32(content)


def _write(
    folder: Path,
    reader: Reader,
    split: str,
    records: Sequence[Record],
    size: int,
    progress: Progress,
) -> None:
    """Write the files of a split, the small meta.json last."""
    noted = _Noted()
    # Ordinary writes: a full disk raises an error, where a memory mapping would crash.
    with (folder / "images.u8").open("wb") as images, (folder / "masks.u8").open("wb") as masks:
        decoded = in_parallel(lambda record: decode(reader, record, size), records)
        for number, found in enumerate(decoded, start=1):
            noted.add(found, images, masks)
            progress(split, number, len(records))
        _flush(images)
        _flush(masks)
    noted.log(split)
    if sentence := beyond(records, noted.sizes, split):
        LOGGER.warning("%s", sentence)
    box_classes = [[box.class_index for box in record.boxes] for record in records]
    labels = np.zeros((len(records), len(reader.classes)), dtype=np.bool_)
    for row, record in enumerate(records):
        labels[row, record.classes] = True
    tables = io.BytesIO()
    np.savez(
        tables,
        ids=np.array([record.id for record in records], dtype=np.str_),
        labels=labels,
        boxes=_trained_boxes(records, noted.sizes, size),
        box_classes=_flat(box_classes),
        box_offsets=_offsets(box_classes),
        is_segmented=np.array(noted.is_segmented, dtype=np.bool_),
        mask_classes=_flat(noted.mask_classes),
        mask_offsets=_offsets(noted.mask_classes),
        groups=np.array([r.group for r in records if r.group is not None], dtype=np.int64),
        contents=np.array(noted.contents, dtype=np.uint64),
        image_sums=np.array(noted.image_sums, dtype=np.uint32),
        mask_sums=np.array(noted.mask_sums, dtype=np.uint32),
    )
    meta = {
        "version": FORMAT_VERSION,
        "images": len(records),
        "masks": len(noted.mask_sums),
        "sha256": hashlib.sha256(tables.getvalue()).hexdigest(),
    }
    for name, content in (
        ("annotations.npz", tables.getvalue()),
        ("meta.json", json.dumps(meta).encode()),
    ):
        with (folder / name).open("wb") as file:
            file.write(content)
            _flush(file)


def _trained_boxes(
    records: Sequence[Record], sizes: Sequence[tuple[int, int]], size: int
) -> NDArray[np.int32]:
    """Scale all boxes of a split, and log how many had to be repaired."""
    corners = np.array([box[1:] for record in records for box in record.boxes], dtype=np.float64)
    counts = [len(record.boxes) for record in records]
    width, height = np.repeat(np.array(sizes, dtype=np.int64).reshape(-1, 2), counts, axis=0).T
    flaws = box_flaws(corners, width, height, size)
    for flaw, repair in REPAIRS.items():
        if flaw in flaws:
            LOGGER.warning(
                "%d boxes %s %s; `mg-data verify` counts them", flaws[flaw], flaw, repair
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
