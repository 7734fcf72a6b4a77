"""Images of one's own: what the readers of tables, YOLO, LabelMe and COCO exports share."""

from __future__ import annotations

import contextlib
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mg_core.data.images import opened
from mg_core.data.layouts.choice import (
    ChoiceOptions,
    Chosen,
    Classes,
    ClassNames,
    Labelled,
    choose,
    limited,
    split_names,
)
from mg_core.data.layouts.files import SUFFIXES, existing_file, existing_image, fingerprint
from mg_core.data.layouts.polygons import Outlines, class_masks, parse_outline
from mg_core.data.layouts.splits import SplitOptions, draw_splits
from mg_core.data.reader import Reader, Record, Report, refuse, reporting
from mg_core.errors import InputError

HUNDREDTH = 2
"""Digits of a pixel that are kept of shares: files have six digits of these."""


class CollectionOptions(ChoiceOptions, SplitOptions):
    """Options of images of one's own.

    Attributes:
        classes: names of the classes, in the order of the label columns; none for all that the
            files name, in YOLO's order, else in alphabetical order.
    """

    classes: ClassNames | None = None


@dataclass(slots=True)
class Item:
    """An annotated image, as the files have it."""

    image: str  # path below the data folder, with slashes
    source: str  # file and line, for messages
    objects: list[Labelled] = field(default_factory=list)
    split: str | None = None  # none if the files name none
    size: tuple[int, int] | None = None  # width and height that the objects refer to
    is_relative: bool = False  # whether objects are shares of the image, not pixels
    mask_flaw: str = ""
    group: tuple[str, ...] | None = None  # its value in each column that makes up groups


class Collection(Reader):
    """Images that annotations name, with classes by name, in splits that are named or drawn.

    A subclass says in `read` what the files hold. All else is decided here: the classes that are
    used, the splits, and which file is which.
    """

    Options: ClassVar[type[BaseModel]] = CollectionOptions

    def __init__(self, root: Path, options: Any) -> None:
        self.root = root
        self.options = options
        self.classes = self.class_names(options) or self.named_classes()
        if not self.classes:
            raise next(iter(self._problems), InputError(f"{root}: the annotations name no class"))

    @classmethod
    def class_names(cls, options: Any) -> tuple[str, ...] | None:
        """Return the names that the option `classes` lists; none if the files are to name them."""
        return None if options.classes is None else split_names(options.classes)

    @abstractmethod
    def read(self, report: Report) -> Iterable[Item]:
        """Read the annotations of all images, each image once.

        Args:
            report: called for every item that is wrong; the item is left out.

        Raises:
            InputError: names the file that cannot be read at all.
        """

    @abstractmethod
    def tables(self) -> list[Path]:
        """Return the files that hold annotations."""

    def named_classes(self) -> tuple[str, ...]:
        """Return the classes that the files name."""
        return _names(self._items)

    def of_split(self, split: str) -> list[Item]:
        """Return the images of a split."""
        return [item for item in self._items if item.split == split]

    def group_of(self, item: Item) -> int | None:
        """Return the group of an image; none in a set without groups."""
        return None

    @cached_property
    def _content(self) -> tuple[list[Item], list[InputError]]:
        """All images, each in a split, and what is wrong with others."""
        problems: list[InputError] = []
        items = _each_once(self.read(problems.append), problems.append)
        return _in_splits(items, self.options, problems.append), problems

    @property
    def _items(self) -> list[Item]:
        return self._content[0]

    @property
    def _problems(self) -> list[InputError]:
        return self._content[1]

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the images of a split, in the order of the files."""
        for problem in self._problems:
            report(problem)
        chosen = self.of_split(split)
        if not chosen:
            total = f"{len(self._items):,} images in all"
            raise InputError(f"{self.root} has no image for the {split} split ({total})")
        classes = Classes(self.classes, self.options.other_classes == "ignore")
        found = []
        for item in chosen:
            with reporting(report):
                found.append(self._record(item, classes, report))
        if split == "train":
            with reporting(report):
                classes.check(found)
        return limited(found, split, self.options.limit)

    def _record(self, item: Item, classes: Classes, report: Report) -> Record:
        image = self._image(item)
        objects, size = item.objects, item.size
        if item.is_relative and objects:
            # Shares refer to the picture as it is stored, whatever its size.
            size, stored = None, _stored_size(image)
            objects = [_in_pixels(thing, *stored) for thing in objects]
        chosen = choose(objects, classes, report)
        masks, flaw = None, item.mask_flaw
        if chosen.outlines is not None:
            try:
                masks = _outlines(chosen, size or _stored_size(image), item.source)
            except InputError as error:
                flaw = str(error)
        return Record(
            item.image,
            image,
            chosen.boxes,
            size,
            masks,
            self.group_of(item),
            mask_flaw=flaw,
            image_classes=chosen.image_classes,
            n_other=chosen.n_other,
        )

    def _image(self, item: Item) -> Path:
        """Return the file of an image, whose name may lack its suffix."""
        if Path(item.image).suffix not in SUFFIXES:
            with contextlib.suppress(InputError):
                return existing_image(self.root, item.image, item.source)
        return existing_file(self.root, item.image, item.source)

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the pixels of every class, drawn at the size that the outlines refer to."""
        return class_masks(record.segmentation, size)

    def release(self) -> None:
        """Let go of the annotations: a trial needs none of them once its images are decoded."""
        vars(self).pop("_content", None)

    def fingerprint(self) -> str:
        """Hash annotations by content, and the pictures that they name by parts of theirs."""
        images = [self._image(item) for item in self._items]
        outlines = (thing.outline for item in self._items for thing in item.objects)
        images += [outline for outline in outlines if isinstance(outline, Path)]
        return fingerprint(self.root, self.tables(), images)


def _each_once(items: Iterable[Item], report: Report) -> list[Item]:
    """Return the items, and report an image that comes again."""
    found: dict[str, Item] = {}
    for item in items:
        # File systems differ in how they store accents: one image, whatever its spelling.
        first = found.setdefault(unicodedata.normalize("NFC", item.image), item)
        if first is not item:
            here, there = (
                f" in the {one.split} split" if one.split and first.split != item.split else ""
                for one in (item, first)
            )
            report(
                InputError(
                    f"{item.source} names {item.image!r}{here}, as {first.source} does{there}"
                )
            )
    return list(found.values())


def _in_splits(items: list[Item], options: SplitOptions, report: Report) -> list[Item]:
    """Return the items, all with a split: named for all of them, or drawn."""
    if any(item.split for item in items):
        for item in items:
            if item.split is None:
                report(InputError(f"{item.source} names no split for {item.image!r}, as others do"))
        items = [item for item in items if item.split is not None]
    # In alphabetical order, so that the draw does not depend on that of the files.
    ordered = sorted(items, key=lambda item: unicodedata.normalize("NFC", item.image))
    names = _names(ordered)
    indices = {name: index for index, name in enumerate(names)}
    labels = np.zeros((len(ordered), len(names)), dtype=np.bool_)
    for row, item in enumerate(ordered):
        labels[row, [indices[thing.name] for thing in item.objects]] = True
    splits = draw_splits([item.split for item in ordered], labels, options)
    for item, split in zip(ordered, splits, strict=True):
        item.split = split
    return items


def _names(items: Iterable[Item]) -> tuple[str, ...]:
    return tuple(sorted({thing.name for item in items for thing in item.objects}))


def _stored_size(path: Path) -> tuple[int, int]:
    with opened(path) as image:
        return image.size


def _in_pixels(thing: Labelled, width: int, height: int) -> Labelled:
    """Return an object whose corners and outline, shares of the image, are now in pixels."""
    if thing.corners is None:
        return thing
    if not all(-1 <= share <= 2 for share in thing.corners):
        raise InputError(
            f"{thing.where}: the box {', '.join(f'{share:g}' for share in thing.corners)} is no "
            f"share of the image from 0 to 1"
        )
    sides = (width, height, width, height)
    xmin, ymin, xmax, ymax = (
        round(share * side, HUNDREDTH) for share, side in zip(thing.corners, sides, strict=True)
    )
    outline = thing.outline
    if isinstance(outline, tuple):
        outline = tuple((polygon.reshape(-1, 2) * (width, height)).ravel() for polygon in outline)
    return Labelled(thing.name, thing.where, (xmin, ymin, xmax, ymax), outline)


def _outlines(chosen: Chosen, size: tuple[int, int], source: str) -> Outlines:
    """Check the outlines of all objects of an image of this size."""
    items = []
    for box, outline in zip(chosen.boxes, chosen.outlines or (), strict=True):
        if isinstance(outline, tuple):
            outline = parse_outline([corners.tolist() for corners in outline], *size, source)
        items.append((box.class_index, outline))
    return Outlines(*size, tuple(items))
