"""COCO and any folder in the layout of its instance annotations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mg_core.config import Integer, Number
from mg_core.data.layouts.choice import (
    ChoiceOptions,
    Chosen,
    Classes,
    ClassNames,
    Digits,
    choose,
    limited,
    split_names,
)
from mg_core.data.layouts.coco_json import Entry, file_names, read_instances
from mg_core.data.layouts.files import (
    FORMER_SUFFIXES,
    existing_file,
    fingerprint,
    former_fingerprint,
    read_list,
    spellings,
)
from mg_core.data.layouts.polygons import Outlines, class_masks
from mg_core.data.layouts.splits import stratified_draw
from mg_core.data.reader import Reader, Record, Report, refuse, reporting
from mg_core.errors import InputError

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""In the order of their ids, 1 to 90 with gaps."""


class CocoOptions(ChoiceOptions):
    """Options of a folder in COCO layout: names, and which training images are for validation.

    Attributes:
        year: suffix of `train` and `val` in the names of folders and annotations; may be empty.
        classes: class names, for data with other classes than COCO's, or for some of them.
        val_list: file below the data folder that lists the ids of the validation images.
    """

    year: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]*$"), Digits] = "2014"
    classes: ClassNames = ",".join(COCO_CLASSES)
    val_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    val_seed: Annotated[Integer, Field(ge=0)] = 0
    val_list: str | None = None


class Coco(Reader):
    """Reader of `annotations/instances_{train,val}2014.json`, `train2014` and `val2014`.

    The test split is the official validation set. Classes are matched by name, so that gaps in
    their ids do not matter. Crowds count as boxes; images without annotations are negatives.
    """

    Options: ClassVar[type[BaseModel]] = CocoOptions
    is_multi_label: ClassVar[bool | None] = True

    def __init__(self, root: Path, options: CocoOptions) -> None:
        self.root = root
        self.options = options
        self.classes = self.class_names(options)
        if not self._annotations("train").is_file():
            raise InputError(f"{root} holds no COCO: {self._annotations('train')} is missing")

    @classmethod
    def class_names(cls, options: Any) -> tuple[str, ...]:
        """Return the names that the option `classes` lists."""
        return split_names(options.classes)

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the images of a split, in the order of their ids."""
        official = "val" if split == "test" else "train"
        path = self._annotations(official)
        entries = read_instances(path, report)
        classes = Classes(self.classes, self.options.other_classes == "ignore")
        chosen = [choose(entry.objects, classes, report) for entry in entries]
        pairs = list(zip(entries, chosen, strict=True))
        if split != "test":
            wanted = self._validation(entries, chosen, report) == (split == "val")
            pairs = [pair for pair, is_in in zip(pairs, wanted, strict=True) if is_in]
        if not pairs:
            raise InputError(f"{path} leaves no image for the {split} split")
        found = []
        for entry, objects in pairs:
            with reporting(report):
                image = existing_file(self._images(official), entry.file_name, entry.source)
                found.append(entry_record(entry, str(entry.id), image, objects))
        if split == "train":
            with reporting(report):
                classes.check(found, COCO_CLASSES)
        return limited(found, split, self.options.limit)

    def fingerprint(self) -> str:
        """Hash annotations by content, and the images that they name by parts of theirs."""
        images = [
            path
            for part in ("train", "val")
            if self._annotations(part).is_file()
            for name in file_names(self._annotations(part))
            for path in self._named(part, name)
        ]
        return fingerprint(self.root, self._tables(), images)

    def former_fingerprint(self) -> str:
        """Hash annotations by content, and all images in the folders by their sizes."""
        images = [
            path
            for part in ("train", "val")
            for path in self._images(part).rglob("*")
            if path.suffix in FORMER_SUFFIXES
        ]
        return former_fingerprint(self.root, self._tables(), images)

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the pixels of every class, drawn at the annotated size."""
        return class_masks(record.segmentation, size)

    def _tables(self) -> list[Path]:
        tables = [path for part in ("train", "val") if (path := self._annotations(part)).is_file()]
        return tables if self.options.val_list is None else [*tables, self._val_list()]

    def _named(self, part: str, name: str) -> list[Path]:
        """Return the image of a name; none if it is no file below, which `records` refuses."""
        if os.path.isabs(name) or ".." in name.split("/"):
            return []
        paths = (self._images(part) / spelling for spelling in spellings(name))
        return [path for path in paths if os.path.isfile(path)][:1]

    def _annotations(self, part: str) -> Path:
        return self.root / "annotations" / f"instances_{part}{self.options.year}.json"

    def _images(self, part: str) -> Path:
        return self.root / f"{part}{self.options.year}"

    def _val_list(self) -> Path:
        return existing_file(self.root, self.options.val_list or "", "option val_list")

    def _validation(
        self, entries: Sequence[Entry], objects: Sequence[Chosen], report: Report
    ) -> NDArray[np.bool_]:
        if self.options.val_list is None:
            labels = np.zeros((len(entries), len(self.classes)), dtype=np.bool_)
            for row, found in enumerate(objects):
                labels[row, [box.class_index for box in found.boxes]] = True
            return stratified_draw(labels, self.options.val_fraction, self.options.val_seed)
        known = {str(entry.id) for entry in entries}
        listed = read_list(self._val_list(), known.__contains__, report)
        for name, source in listed.items():
            if name not in known:
                report(InputError(f"{source} names {name!r}, which is no training image"))
        return np.array([str(entry.id) in listed for entry in entries], dtype=np.bool_)


def entry_record(entry: Entry, name: str, image: Path, objects: Chosen) -> Record:
    """Return an image of a file of annotations with those of its objects that are used."""
    size = (entry.width, entry.height)
    masks = None
    if objects.outlines is not None:
        classes = (box.class_index for box in objects.boxes)
        masks = Outlines(*size, tuple(zip(classes, objects.outlines, strict=True)))
    flaw, n_other = entry.mask_flaw, objects.n_other
    return Record(name, image, objects.boxes, size, masks, mask_flaw=flaw, n_other=n_other)
