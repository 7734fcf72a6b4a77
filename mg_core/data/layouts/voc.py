"""Pascal VOC and any folder in the layout of its devkit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mg_core.config import Frozen
from mg_core.data.images import read_class_ids
from mg_core.data.reader import (
    SPLITS,
    Box,
    Reader,
    Record,
    Report,
    existing_file,
    fingerprint,
    refuse,
)
from mg_core.errors import InputError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
VOID = 255


class VocOptions(Frozen):
    """Settings of a folder in VOC layout.

    Attributes:
        classes: names separated by commas, for data with classes of their own.
    """

    classes: str = Field(default=",".join(VOC_CLASSES), min_length=1)


class Item(NamedTuple):
    """One line of an image list."""

    id: str
    source: str


class Voc(Reader):
    """Reader of `VOCdevkit/VOC2007` or another folder in its layout.

    Lists are `ImageSets/Main/<split>.txt`. Objects marked difficult are kept as labels and boxes;
    coordinates are taken as they are, without a 1-based shift.
    """

    Options: ClassVar[type[BaseModel]] = VocOptions

    def __init__(self, root: Path, options: VocOptions) -> None:
        self.folder = devkit_folder(root)
        self.classes = class_names(options.classes)

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the annotations of a split, in the order of its list."""
        indices = {name: index for index, name in enumerate(self.classes)}
        found = []
        for item in self._items(split, report):
            try:
                found.append(self._record(item, indices))
            except InputError as error:
                report(error)
        return found

    def fingerprint(self) -> str:
        """Hash lists and annotations by content, images and masks by size."""
        lists = [path for split in SPLITS if (path := self._list(split)).is_file()]
        items = [item for path in lists for item in read_list(path)]
        masks = {path.stem for path in (self.folder / "SegmentationClass").glob("*.png")}
        return fingerprint(
            self.folder,
            lists + [self._annotation(item) for item in items],
            [self._image(item) for item in items]
            + [self._mask(item) for item in items if item.id in masks],
        )

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the pixels of every class; void pixels belong to none."""
        ids = read_class_ids(record.segmentation, size)
        # Official classes keep their official ids, in whatever order they are listed.
        official = set(self.classes) <= set(VOC_CLASSES)
        names = VOC_CLASSES if official else self.classes
        found = [int(value) for value in np.unique(ids) if value not in (0, VOID)]
        unknown = [value for value in found if value > len(names)]
        if unknown:
            raise InputError(
                f"{record.segmentation} holds class id {unknown[0]}, but there are {len(names)} "
                f"classes"
            )
        present = [value for value in found if names[value - 1] in self.classes]
        return {self.classes.index(names[value - 1]): ids == value for value in present}

    def _items(self, split: str, report: Report) -> list[Item]:
        path = self._list(split)
        if not path.is_file():
            raise InputError(f"{path}, the image list of the {split} split, is missing")
        items = read_list(path, report)
        if not items:
            raise InputError(f"{path} lists no image")
        return items

    def _record(self, item: Item, indices: Mapping[str, int]) -> Record:
        boxes, size = read_annotation(self._annotation(item), indices)
        mask = self._mask(item)
        return Record(item.id, self._image(item), boxes, size, mask if mask.is_file() else None)

    def _list(self, split: str) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{split}.txt"

    def _annotation(self, item: Item) -> Path:
        return existing_file(self.folder, f"Annotations/{item.id}.xml", item.source)

    def _image(self, item: Item) -> Path:
        for suffix in IMAGE_SUFFIXES:
            with contextlib.suppress(InputError):
                return existing_file(self.folder, f"JPEGImages/{item.id}{suffix}", item.source)
        # The usual name stands for all of them.
        return existing_file(self.folder, f"JPEGImages/{item.id}.jpg", item.source)

    def _mask(self, item: Item) -> Path:
        return self.folder / "SegmentationClass" / f"{item.id}.png"


def devkit_folder(root: Path) -> Path:
    """Return the folder that holds `ImageSets/Main`, at `root` or in the devkit's place below it.

    Raises:
        InputError: there is none.
    """
    candidates = (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007")
    for folder in candidates:
        if (folder / "ImageSets" / "Main").is_dir():
            return folder
    raise InputError(f"{root} holds no VOC devkit: {candidates[-1]}/ImageSets/Main is missing")


def class_names(text: str) -> tuple[str, ...]:
    """Split a list of class names at its commas.

    Raises:
        InputError: a name is empty or there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    repeated = [name for name in names if names.count(name) > 1]
    if "" in names or repeated:
        what = f"{repeated[0]!r} is there twice" if repeated and repeated[0] else "a name is empty"
        raise InputError(f"option classes: {what} in {text!r}")
    return names


def read_list(path: Path, report: Report = refuse) -> list[Item]:
    """Read an image list: the first word of each line is an id.

    Args:
        path: of the list.
        report: what to do about a line that repeats another one's image.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as an image list ({error})") from None
    items = [
        Item(words[0], f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if (words := line.split())
    ]
    seen: dict[str, Item] = {}
    for item in items:
        first = seen.setdefault(item.id, item)
        if first is not item:
            report(InputError(f"{item.source} repeats image {item.id} of {first.source}"))
    return list(seen.values())


def read_annotation(
    path: Path, indices: Mapping[str, int]
) -> tuple[tuple[Box, ...], tuple[int, int] | None]:
    """Read the boxes of one XML file, and the image size it claims.

    Args:
        path: annotation file.
        indices: index of every known class name.

    Raises:
        InputError: names the file and the object that is wrong.
    """
    try:
        root = fromstring(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except DefusedXmlException as error:
        raise InputError(f"{path} declares XML entities, which are refused ({error})") from None
    except (ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not valid XML ({error})") from None
    boxes = tuple(
        _box(element, f"{path}, object {number}", indices)
        for number, element in enumerate(root.findall("object"), start=1)
    )
    return boxes, _size(root)


def _box(element: Element, where: str, indices: Mapping[str, int]) -> Box:
    name = (element.findtext("name") or "").strip()
    if name not in indices:
        raise InputError(f"{where}: class {name!r} is not one of {', '.join(indices)}")
    corners = [_coordinate(element, key, where) for key in ("xmin", "ymin", "xmax", "ymax")]
    return Box(indices[name], *corners)


def _coordinate(element: Element, key: str, where: str) -> float:
    text = element.findtext(f"bndbox/{key}")
    if text is None:
        raise InputError(f"{where} has no bndbox/{key}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {key} is {text.strip()!r}, not a number")
    return value


def _size(root: Element) -> tuple[int, int] | None:
    try:
        return int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
    except ValueError:
        return None
