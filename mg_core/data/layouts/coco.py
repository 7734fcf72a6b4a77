"""COCO and any folder in the layout of its instance annotations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from mg_core.config import Frozen, Integer, Number
from mg_core.counter import permutation
from mg_core.data.layouts.coco_json import Entry, file_names, read_instances
from mg_core.data.layouts.files import (
    FORMER_SUFFIXES,
    ClassNames,
    Digits,
    existing_file,
    fingerprint,
    former_fingerprint,
    read_list,
    spellings,
    split_names,
)
from mg_core.data.layouts.polygons import draw
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


class CocoOptions(Frozen):
    """Options of a folder in COCO layout: names, and which training images are for validation.

    Attributes:
        year: suffix of `train` and `val` in the names of folders and annotations; may be empty.
        classes: class names, for data with other classes than COCO's.
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
        entries = read_instances(path, self.classes, report)
        if split != "test":
            wanted = self._validation(entries, report) == (split == "val")
            entries = [entry for entry, is_in in zip(entries, wanted, strict=True) if is_in]
        if not entries:
            raise InputError(f"{path} leaves no image for the {split} split")
        found = []
        for entry in entries:
            with reporting(report):
                image = existing_file(self._images(official), entry.file_name, entry.source)
                size = (entry.width, entry.height)
                outlines, flaw = entry.outlines, entry.mask_flaw
                found.append(Record(str(entry.id), image, entry.boxes, size, outlines, None, flaw))
        return found

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
        assert record.size is not None
        width, height = record.size
        masks: dict[int, NDArray[np.bool_]] = {}
        for box, outline in zip(record.boxes, record.segmentation, strict=True):
            drawn = draw(outline, width, height)
            masks[box.class_index] = masks.get(box.class_index, False) | drawn
        pictures = {index: Image.fromarray(masks[index]) for index in sorted(masks)}
        return {
            index: np.asarray(picture.resize((size, size), Image.Resampling.NEAREST))
            for index, picture in pictures.items()
        }

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

    def _validation(self, entries: Sequence[Entry], report: Report) -> NDArray[np.bool_]:
        if self.options.val_list is None:
            labels = np.zeros((len(entries), len(self.classes)), dtype=np.bool_)
            for row, entry in enumerate(entries):
                labels[row, [box.class_index for box in entry.boxes]] = True
            return stratified_draw(labels, self.options.val_fraction, self.options.val_seed)
        known = {str(entry.id) for entry in entries}
        chosen = read_list(self._val_list(), known.__contains__, report)
        for name, source in chosen.items():
            if name not in known:
                report(InputError(f"{source} names {name!r}, which is no training image"))
        return np.array([str(entry.id) in chosen for entry in entries], dtype=np.bool_)


def stratified_draw(labels: NDArray[np.bool_], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw int(fraction · N) images so that every class keeps its share.

    The stratum of an image is its rarest class. Images are sorted by stratum, in random order
    within it, and picked at equal distances (systematic sampling). Each stratum so gives its share
    of the draw, up to one image. The images without a label make up one more stratum.
    """
    counts = labels.sum(axis=0)
    rarest = np.where(labels, counts, len(labels) + 1).argmin(axis=1)
    strata = np.where(labels.any(axis=1), rarest, labels.shape[1])
    order = permutation(len(labels), seed, "validation")
    order = order[np.argsort(strata[order], kind="stable")]
    steps = np.floor(np.arange(len(labels) + 1) * fraction + 1e-9)
    drawn = np.zeros(len(labels), dtype=np.bool_)
    drawn[order] = np.diff(steps) > 0
    return drawn
