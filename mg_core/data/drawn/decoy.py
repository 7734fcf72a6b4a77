"""Shapes beside a grey patch that tells the label in training and lies in test.

In the manner of DecoyMNIST (Ross et al. 2017, Right for the Right Reasons, Sec. 5.3): a patch in a
random corner has the grey 255 − 25·class in training, and that of a random class in test. That is
for ten classes; the greys of fewer are as far apart as they can be.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from mg_core.config import Frozen, Integer, Number, PositiveInt
from mg_core.counter import generator
from mg_core.data.drawn.drawing import (
    SHAPES,
    background,
    bounds,
    outline_of,
    paint,
    to_bytes,
    visible_box,
    vivid,
)
from mg_core.data.drawn.generated import write_once
from mg_core.data.layouts.csv_table import Table, TableOptions
from mg_core.data.reader import SPLITS, Progress, Reader, Record, Report, refuse, silent
from mg_core.paths import with_home

GENERATOR_VERSION = 1
"""Raised when the same options would give other bytes."""
PATCH = 1 / 7
"""Side of the patch, as a share of the image's: 4 of 28 pixels in DecoyMNIST."""
DARKNESS = 0.4
"""Factor of the background's tones: DecoyMNIST's is black, so that every grey stands out."""
TABLE = "annotations.csv"
GROUPS = ("patch lies", "patch tells")
HEADER = (
    *("path", "class", "xmin", "ymin", "xmax", "ymax", "split", "mask", "patch"),
    *("grey", "patch_xmin", "patch_ymin", "patch_xmax", "patch_ymax"),
)


class DecoyOptions(Frozen):
    """Options of the decoy set; they decide every byte of the set.

    Attributes:
        classes: number of classes; the set uses the first ones of `SHAPES`.
        correlation: probability that a training image's patch tells its label; otherwise it is of
            a random class, as in test.
        val_patches: whether the patches of validation are like those of `train`, so that choosing
            checkpoints sees nothing of the test's, or like those of `test`.
    """

    train: PositiveInt = 1000
    val: PositiveInt = 300
    test: PositiveInt = 300
    size: Annotated[Integer, Field(ge=24, le=2048)] = 64
    classes: Annotated[Integer, Field(ge=2, le=len(SHAPES))] = 6
    correlation: Annotated[Number, Field(ge=0, le=1)] = 1.0
    val_patches: Literal["train", "test"] = "train"
    seed: Annotated[Integer, Field(ge=0)] = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names, in the order of the class indices."""
        return tuple(SHAPES)[: self.classes]

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify the set's bytes."""
        text = json.dumps([GENERATOR_VERSION, self.model_dump()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Decoy(Reader):
    """Reader of the drawn decoy set, whose shortcut is a grey patch in a corner.

    An empty or missing folder is filled first. Each image has one object, with its box and its
    pixels; the patch lies outside of both. Its groups are the images whose patch tells the label
    and those whose patch lies.
    """

    Options: ClassVar[type[BaseModel]] = DecoyOptions
    is_multi_label = False
    groups = GROUPS

    def __init__(self, root: Path, options: DecoyOptions) -> None:
        names = ",".join(options.class_names)
        self._table = Table(root, TableOptions(file=TABLE, classes=names, groups="patch"))
        self.classes = self._table.classes

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the images of a split."""
        return self._table.records(split, report)

    def fingerprint(self) -> str:
        """Hash the table by content, and the pictures by parts of theirs."""
        return self._table.fingerprint()

    def release(self) -> None:
        """Let go of the table."""
        self._table.release()

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the pixels of the object."""
        return self._table.segmentation(record, size)

    @classmethod
    def class_names(cls, options: DecoyOptions) -> tuple[str, ...]:
        """Return the names of the first shapes."""
        return options.class_names

    @classmethod
    def locate(cls, root: str | Path | None, options: DecoyOptions, cache: Path) -> Path:
        """Return the folder of the set, which is written to the cache when none is given."""
        folder = with_home(root) if root else cache / f"decoy-{options.key}"
        write_decoy(folder, options)
        return folder


class Picture(NamedTuple):
    """A picture of one object and a patch; boxes are xmin, ymin, xmax, ymax, max is outside."""

    image: NDArray[np.uint8]  # (size, size, 3)
    mask: NDArray[np.bool_]  # (size, size) pixels of the object
    box: tuple[int, int, int, int]
    patch: tuple[int, int, int, int]


def write_decoy(folder: Path, options: DecoyOptions, progress: Progress = silent) -> bool:
    """Write the set as `write_once` does; the same options give the same bytes.

    Random draws depend on the seed, the split and the image's number alone.
    """
    return write_once(
        folder,
        "decoy",
        {"version": GENERATOR_VERSION, "options": options.model_dump()},
        lambda temporary: _write(temporary, options, progress),
        lambda written: Decoy(written, options).former_fingerprint(),
    )


def _write(root: Path, options: DecoyOptions, progress: Progress) -> None:
    (root / "images").mkdir()
    (root / "masks").mkdir()
    rows: list[tuple[object, ...]] = []
    for split, count in zip(SPLITS, (options.train, options.val, options.test), strict=True):
        is_random = split == "test" or (split == "val" and options.val_patches == "test")
        correlation = 0.0 if is_random else options.correlation
        for index in range(count):
            rng = generator(options.seed, "decoy", split, index)
            label = int(rng.integers(options.classes))
            told = label if rng.random() < correlation else int(rng.integers(options.classes))
            grey = grey_of(told, options.classes)
            picture = draw_decoy(rng, options.size, label, grey)
            # Uncompressed, so that the bytes do not depend on a library of compression.
            image, mask = (f"{kind}/{split}_{index:06d}.bmp" for kind in ("images", "masks"))
            Image.fromarray(picture.image).save(root / image)
            Image.fromarray(picture.mask.astype(np.uint8) * 255).save(root / mask)
            name, group = options.class_names[label], GROUPS[told == label]
            annotated = (image, name, *picture.box, split, mask, group)
            rows.append((*annotated, grey, *picture.patch))
            progress(split, index + 1, count)
    with (root / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def grey_of(class_index: int, n_classes: int) -> int:
    """Return the grey of the patch that tells a class: 255 − 25·class, were there ten of them."""
    return 255 - 250 // n_classes * class_index


def draw_decoy(rng: np.random.Generator, size: int, label: int, grey: int) -> Picture:
    """Draw an object over a texture that tells nothing, and a grey patch in a random corner.

    The object keeps clear of all corners, so that its box never holds the patch.
    """
    side = max(2, round(PATCH * size))
    canvas = DARKNESS * background(rng, int(rng.integers(len(SHAPES))), size)
    transform = outline_of(rng, size)
    polygons = [polygon @ transform.T for polygon in tuple(SHAPES.values())[label]]
    low, high = np.split(bounds(polygons[0]), 2)
    free = size - 2 * (side + 1) - (high - low)
    offset = side + 1 - low + rng.random(2) * free
    mask = paint(canvas, [polygon + offset for polygon in polygons], vivid(rng))
    left, top = (int(corner) * (size - side) for corner in rng.integers(2, size=2))
    image = to_bytes(canvas)
    image[top : top + side, left : left + side] = grey
    return Picture(image, mask, visible_box(mask), (left, top, left + side, top + side))
