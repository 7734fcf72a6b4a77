"""YOLO: a folder of images, a folder of label files, and `data.yaml`."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, StringConstraints

from mg_core.data.layouts.choice import Labelled
from mg_core.data.layouts.collection import Collection, CollectionOptions, Item
from mg_core.data.layouts.files import SUFFIXES, files_below, option_file, read_lines, spellings
from mg_core.data.layouts.splits import SPLIT_NAMES
from mg_core.data.reader import Report, refuse, reporting
from mg_core.errors import InputError
from mg_core.yaml_text import read_yaml

FEWEST_CORNERS = 3


class YoloOptions(CollectionOptions):
    """Options of a YOLO set.

    Attributes:
        file: the YAML file of names and folders, below the data folder.
    """

    file: Annotated[str, StringConstraints(min_length=1)] = "data.yaml"


class Yolo(Collection):
    """Reader of a YOLO set: `data.yaml` with `names` and a folder or list of images a split.

    The label file of `…/images/a.jpg` is `…/labels/a.txt`, else `a.txt` beside the image. A line is
    `class x y w h`, or `class x1 y1 x2 y2 …` for an outline, which gives a mask too; all in shares
    of the image. An image without a label file is a negative. What lies outside the data folder is
    not read: `path` counts only if it leads below.
    """

    Options: ClassVar[type[BaseModel]] = YoloOptions
    options: YoloOptions

    def __init__(self, root: Path, options: YoloOptions) -> None:
        self._file = option_file(root, options.file, "*.y*ml")
        content = read_yaml(self._file, "YOLO's file of names")
        self._settings: Mapping[str, Any] = content if isinstance(content, dict) else {}
        self._names = _class_names(self._file, self._settings)
        self._has_key_points = "kpt_shape" in self._settings
        super().__init__(root, options)

    def named_classes(self) -> tuple[str, ...]:
        """Return the names in the order of their numbers."""
        return tuple(dict.fromkeys(self._names[key] for key in sorted(self._names)))

    def tables(self) -> list[Path]:
        """Return `data.yaml`, the lists of images and the label files."""
        lists = [path for _, paths in self._places(refuse) for path in paths if not path.is_dir()]
        labels = (_label_file(self.root, item.image) for item in self._items)
        return [self._file, *lists, *(path for path in labels if os.path.isfile(path))]

    def read(self, report: Report) -> Iterable[Item]:
        """Read the label file of every image in the folders and lists of all splits."""
        for split, paths in self._places(report):
            for path in paths:
                for image, source in self._images(path, report):
                    with reporting(report):
                        name = image.relative_to(self.root).as_posix()
                        item = Item(name, source, split=split, is_relative=True)
                        item.objects = self._objects(_label_file(self.root, name))
                        yield item

    def _places(self, report: Report) -> Iterator[tuple[str, list[Path]]]:
        """Yield the folders and lists of images of each split."""
        is_any = False
        for split, words in SPLIT_NAMES.items():
            values = [self._settings[word] for word in words if self._settings.get(word)]
            if values:
                is_any = True
                value = values[0] if isinstance(values[0], list) else [values[0]]
                with reporting(report):
                    yield split, [self._below(split, str(part)) for part in value]
        if not is_any:
            raise InputError(f"{self._file} has no key 'train': it names a folder or a list")

    def _below(self, split: str, text: str) -> Path:
        """Return a folder or list; Roboflow's ../train/images is train/images."""
        base = str(self._settings.get("path") or "")
        name = text.replace("\\", "/")
        for candidate in (posixpath.join(base, name), name, name.removeprefix("../")):
            path = posixpath.normpath(candidate)
            is_below = not path.startswith(("/", "../")) and path != ".."
            if is_below and os.path.exists(self.root / path):
                return self.root / path
        advice = "" if split == "train" else "; without this key, the images are drawn"
        raise InputError(
            f"{self._file}, {split}: {text!r} is no folder or list below {self.root}{advice}"
        )

    def _images(self, path: Path, report: Report) -> Iterator[tuple[Path, str]]:
        if path.is_dir():
            found = (item for item in files_below(path) if item.suffix in SUFFIXES)
            yield from ((image, str(path)) for image in sorted(found))
            return
        for line, source in read_lines(path, "a list of images"):
            name = posixpath.normpath(line.replace("\\", "/"))
            folders = (path.parent, self.root)
            paths = [folder / text for folder in folders for text in spellings(name)]
            image = next((one for one in paths if os.path.isfile(one)), None)
            if image is None or name.startswith(("/", "../")):
                report(InputError(f"{source} names {line!r}, which is no file below {self.root}"))
            else:
                yield image, source

    def _objects(self, path: Path) -> list[Labelled]:
        if not path.is_file():
            return []
        return [self._object(line, source) for line, source in read_lines(path, "labels")]

    def _object(self, line: str, where: str) -> Labelled:
        words = line.split()
        try:
            key = float(words[0])
            values = [float(word) for word in words[1:]]
        except ValueError:
            key, values = math.nan, []
        if self._has_key_points:
            values = values[:4]
        n_values = len(values)
        is_outline = n_values >= 2 * FEWEST_CORNERS and n_values % 2 == 0
        if not (n_values == 4 or is_outline) or not all(map(math.isfinite, values)):
            raise InputError(f"{where}: {line[:60]!r} is no class x y w h, nor an outline")
        if key not in self._names:
            raise InputError(
                f"{where}: class {words[0]} is not in {self._file.name}, which has "
                f"{min(self._names)} to {max(self._names)}"
            )
        name = self._names[int(key)]
        if n_values == 4:
            x, y, width, height = values
            half = width / 2, height / 2
            return Labelled(name, where, (x - half[0], y - half[1], x + half[0], y + half[1]))
        corners = np.array(values)
        xs, ys = corners[::2], corners[1::2]
        box = (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))
        return Labelled(name, where, box, (corners,))


def _class_names(path: Path, settings: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each class number."""
    names = settings.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise InputError(f"{path} has no key 'names': a list of class names, or one by number")
    if settings.get("nc", len(names)) != len(names):
        raise InputError(f"{path} has nc: {settings['nc']}, and {len(names)} names")
    for key, name in names.items():
        is_name = isinstance(name, (str, int)) and not isinstance(name, bool) and str(name).strip()
        if not is_name or not str(key).isdecimal():
            raise InputError(f"{path}, names: {key!r}: {name!r} is no class name by its number")
    return {int(key): str(name).strip() for key, name in names.items()}


def _label_file(root: Path, image: str) -> Path:
    """Return the label file of an image: in `labels` beside `images`, else beside the image."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
        found = root.joinpath(*parts)
        if os.path.isfile(found) or not os.path.isfile(root / path):
            return found
    return root / path
