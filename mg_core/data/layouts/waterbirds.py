"""Waterbirds-100: landbirds and waterbirds; in training the background always fits the bird."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from pydantic import BaseModel

from mg_core.data.layouts.choice import LimitOptions, limited
from mg_core.data.layouts.delimited import read_table
from mg_core.data.layouts.files import (
    existing_file,
    fingerprint,
    former_fingerprint,
    read_lines,
)
from mg_core.data.reader import SPLITS, Box, Reader, Record, Report, Task, refuse, reporting
from mg_core.errors import InputError

FOLDER = "waterbird_1.0_forest2water2"
CUB = "CUB_200_2011"
COLUMNS = ("img_id", "img_filename", "y", "split", "place")


class Row(NamedTuple):
    """One line of `metadata.csv`."""

    image_id: str  # in CUB-200-2011
    name: str  # path of the image relative to `FOLDER`
    y: int  # 1 for a waterbird, 0 for a landbird
    split: int  # index into `SPLITS`
    place: int  # 1 for a water background, 0 for land
    source: str  # file and line number, for messages

    @property
    def group(self) -> int:
        """0 landbird on land, 1 landbird on water, 2 waterbird on land, 3 waterbird on water."""
        return 2 * self.y + self.place


class Waterbirds(Reader):
    """Reader of `waterbird_1.0_forest2water2` with `CUB_200_2011` beside it.

    Only those validation images are used whose background fits the bird. Both tasks then have the
    same labels, as in training.
    """

    Options: ClassVar[type[BaseModel]] = LimitOptions
    groups = ("landbird, land", "landbird, water", "waterbird, land", "waterbird, water")
    tasks = MappingProxyType(
        {
            "conventional": Task(classes=(0, 0, 1, 1), names=("landbird", "waterbird")),
            "reversed": Task(classes=(0, 1, 0, 1), names=("land", "water"), is_outside=True),
        }
    )
    classes = ("landbird", "waterbird")

    def __init__(self, root: Path, options: LimitOptions) -> None:
        self.options = options
        self.root = root.resolve().parent if root.resolve().name == FOLDER else root
        self.folder, cub = self.root / FOLDER, self.root / CUB
        self._table = self.folder / "metadata.csv"
        self._boxes, self._names = cub / "bounding_boxes.txt", cub / "images.txt"
        for needed in (self._table, self._boxes):
            if not needed.is_file():
                raise InputError(f"{root} holds no Waterbirds-100: {needed} is missing")

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the images of a split, in the order of `metadata.csv`."""
        boxes = read_boxes(self._boxes, report)
        ids = None  # Without CUB's list of ids by file name, those of `metadata.csv` are CUB's.
        if self._names.is_file():
            ids = {name: image_id for (image_id, name), _ in _words(self._names, 2, report)}
        rows = [row for row in read_metadata(self._table, report) if SPLITS[row.split] == split]
        if split == "val":
            rows = [row for row in rows if row.place == row.y]
        if not rows:
            raise InputError(f"{self._table} lists no image of the {split} split")
        found = []
        for row in rows:
            with reporting(report):
                found.append(self._record(row, boxes, ids))
        return limited(found, split, self.options.limit)

    def fingerprint(self) -> str:
        """Hash the tables by content and images by parts of theirs."""
        return fingerprint(self.root, *self._files())

    def former_fingerprint(self) -> str:
        """Hash the same files, images by their sizes."""
        return former_fingerprint(self.root, *self._files())

    def _files(self) -> tuple[list[Path], list[Path]]:
        """Return the tables and the images that they list."""
        rows = read_metadata(self._table)
        images = [existing_file(self.folder, row.name, row.source) for row in rows]
        return [path for path in (self._table, self._boxes, self._names) if path.is_file()], images

    def _record(
        self, row: Row, boxes: Mapping[str, tuple[float, ...]], ids: Mapping[str, str] | None
    ) -> Record:
        image = existing_file(self.folder, row.name, row.source)
        image_id = row.image_id if ids is None else ids.get(row.name)
        if image_id is None:
            raise InputError(f"{row.name}, named by {row.source}, is not in {self._names}")
        if image_id not in boxes:
            raise InputError(f"image {image_id} of {row.source} has no line in bounding_boxes.txt")
        box = Box(row.y, *boxes[image_id])
        return Record(Path(row.name).with_suffix("").as_posix(), image, (box,), group=row.group)


def read_metadata(path: Path, report: Report = refuse) -> list[Row]:
    """Read `metadata.csv`, which has the `COLUMNS` in any order and maybe others."""
    header, lines = read_table(path, ",")
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    rows: dict[str, Row] = {}
    for values, source in lines:
        with reporting(report):
            row = _row(dict(zip(header, values, strict=False)), source)
            if row.name in rows:
                raise InputError(f"{source} repeats image {row.name} of {rows[row.name].source}")
            rows[row.name] = row
    return list(rows.values())


def _row(values: Mapping[str, str], source: str) -> Row:
    text = {name: values.get(name, "").strip() for name in COLUMNS}
    for name, allowed in (("y", "01"), ("split", "012"), ("place", "01")):
        value = text[name]
        if len(value) != 1 or value not in allowed:
            raise InputError(f"{source}: {name} is {value!r}; choose from {', '.join(allowed)}")
    if not text["img_filename"]:
        raise InputError(f"{source}: img_filename is empty")
    y, split, place = (int(text[name]) for name in ("y", "split", "place"))
    return Row(text["img_id"], text["img_filename"], y, split, place, source)


def read_boxes(path: Path, report: Report = refuse) -> dict[str, tuple[float, ...]]:
    """Read CUB's `bounding_boxes.txt` (`id x y w h`): xmin, ymin, xmax, ymax by image id."""
    boxes: dict[str, tuple[float, ...]] = {}
    for words, source in _words(path, 5, report):
        try:
            x, y, width, height = (float(word) for word in words[1:])
        except ValueError:
            x = y = width = height = math.nan
        corners = (x, y, x + width, y + height)
        if not all(math.isfinite(value) for value in corners):
            report(InputError(f"{source}: {' '.join(words[1:])!r} is no box x y w h"))
        elif words[0] in boxes:
            report(InputError(f"{source} repeats image {words[0]}"))
        else:
            boxes[words[0]] = corners
    return boxes


def _words(path: Path, count: int, report: Report) -> Iterator[tuple[list[str], str]]:
    for line, source in read_lines(path, "a table"):
        words = line.split(maxsplit=count - 1)  # A file name, which comes last, may hold spaces.
        if len(words) == count:
            yield words, source
        else:
            report(InputError(f"{source} has {len(words)} words, {count} are wanted"))
