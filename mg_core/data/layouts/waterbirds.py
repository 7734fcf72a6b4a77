"""Waterbirds-100: birds of two kinds, in training always over the background of their kind."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mg_core.data.reader import (
    SPLITS,
    Box,
    NoOptions,
    Reader,
    Record,
    Report,
    Task,
    existing_file,
    fingerprint,
    refuse,
)
from mg_core.errors import InputError

FOLDER = "waterbird_1.0_forest2water2"
CUB = "CUB_200_2011"
COLUMNS = ("img_id", "img_filename", "y", "split", "place")


class Row(NamedTuple):
    """One line of `metadata.csv`.

    Attributes:
        image_id: of CUB.
        name: of the image below the folder.
        y: 1 for a waterbird.
        split: index into `SPLITS`.
        place: 1 for water.
        source: file and line, for sentences.
    """

    image_id: str
    name: str
    y: int
    split: int
    place: int
    source: str

    @property
    def group(self) -> int:
        """0 landbird on land, 1 landbird on water, 2 waterbird on land, 3 waterbird on water."""
        return 2 * self.y + self.place


class Waterbirds(Reader):
    """Reader of `waterbird_1.0_forest2water2` with `CUB_200_2011` beside it.

    Of the validation images only those with the background of their kind are used: there, as in
    training, both tasks have the same labels.
    """

    tasks: ClassVar[Mapping[str, Task]] = {
        "conventional": Task(classes=(0, 0, 1, 1), names=("landbird", "waterbird")),
        "reversed": Task(classes=(0, 1, 0, 1), names=("land", "water"), is_outside=True),
    }
    classes = ("landbird", "waterbird")

    def __init__(self, root: Path, options: NoOptions) -> None:
        self.root, self.cub = data_folders(root)
        self.folder = self.root / FOLDER

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the images of a split, in the order of `metadata.csv`."""
        boxes = read_boxes(self.cub / "bounding_boxes.txt", report)
        ids = self._ids(report)
        found = []
        for row in self._rows(split, report):
            try:
                found.append(self._record(row, boxes, ids))
            except InputError as error:
                report(error)
        return found

    def fingerprint(self) -> str:
        """Hash the tables by content and images by size."""
        images = [
            existing_file(self.folder, row.name, row.source)
            for row in read_metadata(self.folder / "metadata.csv")
        ]
        tables = [self.folder / "metadata.csv", self.cub / "bounding_boxes.txt"]
        if self._names.is_file():
            tables.append(self._names)
        return fingerprint(self.root, tables, images)

    @property
    def _names(self) -> Path:
        return self.cub / "images.txt"

    def _ids(self, report: Report) -> Mapping[str, str] | None:
        """Return CUB's ids by file name; without the list, ids are those of `metadata.csv`."""
        return read_names(self._names, report) if self._names.is_file() else None

    def _rows(self, split: str, report: Report) -> list[Row]:
        path = self.folder / "metadata.csv"
        rows = [row for row in read_metadata(path, report) if SPLITS[row.split] == split]
        if split == "val":
            rows = [row for row in rows if row.place == row.y]
        if not rows:
            raise InputError(f"{path} lists no image of the {split} split")
        return rows

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


def data_folders(root: Path) -> tuple[Path, Path]:
    """Return the folder around the images' own, at `root` or above it, and that of CUB's lists.

    Raises:
        InputError: one of them is not there.
    """
    parent = root.resolve().parent if root.resolve().name == FOLDER else root
    for needed in (parent / FOLDER / "metadata.csv", parent / CUB / "bounding_boxes.txt"):
        if not needed.is_file():
            raise InputError(f"{root} holds no Waterbirds-100: {needed} is missing")
    return parent, parent / CUB


def read_metadata(path: Path, report: Report = refuse) -> list[Row]:
    """Read `metadata.csv`, its columns in any order.

    Args:
        path: of the file.
        report: what to do about a line that is wrong.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    (_, header), *lines = list(_csv_lines(path)) or [(0, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for number, values in lines:
        try:
            row = _row(dict(zip(header, values, strict=False)), f"{path} line {number}")
            if row.name in seen:
                raise InputError(f"{row.source} repeats image {row.name} of {seen[row.name]}")
        except InputError as error:
            report(error)
            continue
        seen[row.name] = row.source
        rows.append(row)
    return rows


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for values in reader:
                if values:
                    yield reader.line_num, values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error})") from None


def _row(values: Mapping[str, Any], source: str) -> Row:
    numbers = {}
    for name, allowed in (("y", "01"), ("split", "012"), ("place", "01")):
        text = (values.get(name) or "").strip()
        if len(text) != 1 or text not in allowed:
            raise InputError(f"{source}: {name} is {text!r}; choose from {', '.join(allowed)}")
        numbers[name] = int(text)
    image_id, name = ((values.get(key) or "").strip() for key in ("img_id", "img_filename"))
    if not name:
        raise InputError(f"{source}: img_filename is empty")
    return Row(image_id, name, numbers["y"], numbers["split"], numbers["place"], source)


def read_names(path: Path, report: Report = refuse) -> dict[str, str]:
    """Read CUB's `images.txt` (`id name`): ids by file name."""
    return {words[1]: words[0] for words, _ in _words(path, 2, report)}


def read_boxes(path: Path, report: Report = refuse) -> dict[str, tuple[float, ...]]:
    """Read CUB's `bounding_boxes.txt` (`id x y w h`) as corners by image id.

    Args:
        path: of the file.
        report: what to do about a line that is wrong.

    Raises:
        InputError: the file cannot be read.
    """
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
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table ({error})") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) == count:
            yield words, f"{path} line {number}"
        elif words:
            report(InputError(f"{path} line {number} has {len(words)} words, {count} are wanted"))
