"""Pascal VOC and any folder in the layout of its devkit."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray
from pydantic import BaseModel

from mg_core.data.boxes import is_scaled
from mg_core.data.images import opened, read_class_ids
from mg_core.data.layouts.choice import (
    ChoiceOptions,
    Classes,
    ClassNames,
    Labelled,
    choose,
    limited,
    split_names,
)
from mg_core.data.layouts.files import (
    existing_file,
    existing_image,
    fingerprint,
    former_fingerprint,
    read_list,
    spellings,
)
from mg_core.data.reader import SPLITS, Reader, Record, Report, refuse, reporting
from mg_core.errors import InputError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
VOID = 255
"""Id of the pixels that belong to no class."""


class VocOptions(ChoiceOptions):
    """Options of a folder in VOC layout: class names, if not VOC's own or not all of them."""

    classes: ClassNames = ",".join(VOC_CLASSES)


class Voc(Reader):
    """Reader of `VOCdevkit/VOC2007` or another folder in its layout.

    Lists are `ImageSets/Main/<split>.txt`. Objects marked difficult are kept as labels and boxes;
    coordinates are taken as they are, without a 1-based shift.
    """

    Options: ClassVar[type[BaseModel]] = VocOptions
    is_multi_label: ClassVar[bool | None] = True

    def __init__(self, root: Path, options: Any) -> None:
        folders = (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007")
        found = [folder for folder in folders if (folder / "ImageSets" / "Main").is_dir()]
        if not found:
            raise InputError(f"{root} holds no VOC devkit: {folders[-1]}/ImageSets/Main is missing")
        self.folder = found[0]
        self.classes = self.class_names(options)
        self.ignores_others = options.other_classes == "ignore"
        self.limit: int | None = options.limit

    @classmethod
    def class_names(cls, options: Any) -> tuple[str, ...]:
        """Return the names that the option `classes` lists."""
        return split_names(options.classes)

    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the annotations of a split, in the order of its list."""
        path = self._list(split)
        if not path.is_file():
            raise InputError(f"{path}, the image list of the {split} split, is missing")
        items = self._items(path, report)
        if not items:
            raise InputError(f"{path} lists no image")
        classes = Classes(self.classes, self.ignores_others)
        found = []
        for name, source in items.items():
            with reporting(report):
                objects, size = read_annotation(self._annotation(name, source))
                chosen = choose(objects, classes, refuse)
                image, mask = self._image(name, source), self._mask(name)
                masks = mask if os.path.isfile(mask) else None
                found.append(Record(name, image, chosen.boxes, size, masks, n_other=chosen.n_other))
        if split == "train":
            with reporting(report):
                classes.check(found, VOC_CLASSES)
        return limited(found, split, self.limit)

    def fingerprint(self) -> str:
        """Hash lists and annotations by content, images and masks by parts of theirs."""
        return fingerprint(self.folder, *self._files())

    def former_fingerprint(self) -> str:
        """Hash the same files, images and masks by their sizes."""
        return former_fingerprint(self.folder, *self._files())

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the pixels of every class; void pixels belong to none."""
        ids, width, height = read_class_ids(record.segmentation, size)
        with opened(record.image) as image:
            if not is_scaled(image.size, (width, height)):
                raise InputError(
                    f"{record.segmentation} has {width} × {height} pixels and its image "
                    f"{image.size[0]} × {image.size[1]}"
                )
        # VOC's own classes keep their official ids, in whatever order the option lists them.
        official = set(self.classes) <= set(VOC_CLASSES)
        if self.ignores_others and not official:
            raise InputError(
                f"{record.segmentation} numbers all classes of the set, and only some are named: "
                f"list all in the option classes to use the masks"
            )
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

    def _files(self) -> tuple[list[Path], list[Path]]:
        """Return lists and annotations, and images and masks, of all splits."""
        lists = [path for split in SPLITS if (path := self._list(split)).is_file()]
        items = [item for path in lists for item in self._items(path).items()]
        masks = [mask for name, _ in items if os.path.isfile(mask := self._mask(name))]
        annotations = [self._annotation(*item) for item in items]
        return lists + annotations, [self._image(*item) for item in items] + masks

    def _items(self, path: Path, report: Report = refuse) -> dict[str, str]:
        """Read an image list: an id is known if it has an annotation."""
        return read_list(path, self._is_annotated, report)

    def _is_annotated(self, name: str) -> bool:
        with contextlib.suppress(InputError):
            return self._annotation(name, "a list").is_file()
        return False

    def _list(self, split: str) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{split}.txt"

    def _annotation(self, name: str, source: str) -> Path:
        return existing_file(self.folder, f"Annotations/{name}.xml", source)

    def _image(self, name: str, source: str) -> Path:
        return existing_image(self.folder, f"JPEGImages/{name}", source)

    def _mask(self, name: str) -> Path:
        folder = self.folder / "SegmentationClass"
        paths = [folder / f"{spelling}.png" for spelling in spellings(name)]
        return next((path for path in paths if os.path.isfile(path)), paths[0])


def read_annotation(path: Path) -> tuple[list[Labelled], tuple[int, int] | None]:
    """Read the objects of one XML file, and the image's (width, height) if it gives them."""
    try:
        root = fromstring(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except DefusedXmlException as error:
        raise InputError(f"{path} declares XML entities, which are refused ({error})") from None
    except (ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not valid XML ({error})") from None
    objects = [
        _object(element, f"{path}, object {number}")
        for number, element in enumerate(root.findall("object"), start=1)
    ]
    try:
        width, height = (
            int(float(root.findtext(f"size/{key}", ""))) for key in ("width", "height")
        )
    except (ValueError, OverflowError):
        return objects, None
    return objects, (width, height) if width > 0 and height > 0 else None


def _object(element: Element, where: str) -> Labelled:
    name = (element.findtext("name") or "").strip()
    xmin, ymin, xmax, ymax = (
        _coordinate(element, key, where) for key in ("xmin", "ymin", "xmax", "ymax")
    )
    return Labelled(name, where, (xmin, ymin, xmax, ymax))


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
