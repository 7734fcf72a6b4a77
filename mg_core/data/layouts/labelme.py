"""LabelMe: a JSON file for each image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mg_core.data.layouts.choice import Labelled
from mg_core.data.layouts.collection import Collection, CollectionOptions, Item
from mg_core.data.layouts.files import existing_file, existing_image, files_below, joined
from mg_core.data.layouts.json_values import load_object, number, size_at, text_at, value_of
from mg_core.data.layouts.splits import SPLIT_NAMES, split_of
from mg_core.data.reader import Report, reporting
from mg_core.errors import InputError

KINDS = ("rectangle", "polygon", "circle", "mask")
"""Shapes that have an area; of a `mask` the box is used."""
FOLDERS = {name for names in SPLIT_NAMES.values() for name in names}


class LabelMe(Collection):
    """Reader of LabelMe's JSON files, one an image, anywhere below the data folder.

    Rectangles, polygons, circles and masks are objects; where all of an image are polygons, they
    give masks. Folders called train, val (valid, validation, dev) and test right below the data
    folder are the splits; otherwise they are drawn. An image without a file is not used, one whose
    file has no shape is a negative. Flags are not read.
    """

    options: CollectionOptions

    def tables(self) -> list[Path]:
        """Return the JSON files."""
        found = sorted(path for path in files_below(self.root) if path.suffix == ".json")
        if not found:
            raise InputError(f"{self.root} holds no LabelMe: there is no JSON file")
        return found

    def read(self, report: Report) -> Iterable[Item]:
        """Read all JSON files."""
        for path in self.tables():
            with reporting(report):
                yield self._item(path)

    def _item(self, path: Path) -> Item:
        content = load_object(path, "shapes and the path of an image")
        shapes = content.get("shapes")
        if not isinstance(shapes, list):
            raise InputError(f"{path} has no list 'shapes', so it is not LabelMe's")
        below = path.relative_to(self.root)
        first = below.parts[0].lower()
        split = split_of(first, str(path)) if len(below.parts) > 1 and first in FOLDERS else None
        size = None
        if content.get("imageWidth") is not None:
            size = size_at(content, "imageWidth", "imageHeight", str(path))
        objects = [_object(shape, f"{path}, shapes[{place}]") for place, shape in enumerate(shapes)]
        return Item(self._image_path(path, content), str(path), objects, split, size)

    def _image_path(self, path: Path, content: Mapping[str, Any]) -> str:
        """Return the image that a file names, from its own folder; else the one of its name."""
        folder = path.parent.relative_to(self.root).as_posix()
        named = joined(folder, text_at(content, "imagePath", str(path)))
        try:
            return existing_file(self.root, named, str(path)).relative_to(self.root).as_posix()
        except InputError:
            beside = PurePosixPath(folder, path.stem).as_posix()
            try:
                image = existing_image(self.root, beside, str(path))
            except InputError:
                image = None
            if image is None:
                raise
            return image.relative_to(self.root).as_posix()


def _object(shape: Any, where: str) -> Labelled:
    name = text_at(shape, "label", where)
    kind = value_of(shape, "shape_type") or "polygon"
    if kind not in KINDS:
        return Labelled(name, where, None, flaw=f"a {kind} has no area; use {', '.join(KINDS)}")
    points = _points(value_of(shape, "points"), where)
    outline = None
    if kind == "circle":
        radius = math.dist(points[0], points[1])
        points = np.array([points[0] - radius, points[0] + radius])
    elif kind == "polygon":
        outline = (points.ravel(),)
    (xmin, ymin), (xmax, ymax) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Labelled(name, where, (xmin, ymin, xmax, ymax), outline)


def _points(value: Any, where: str) -> NDArray[np.float64]:
    """Return (n, 2) corners, at least two."""
    pairs = value if isinstance(value, list) else []
    found = [[number(part) for part in pair] for pair in pairs if isinstance(pair, list)]
    is_whole = len(found) == len(pairs) >= 2 and all(len(pair) == 2 for pair in found)
    if not is_whole or not np.isfinite(found).all():
        raise InputError(f"{where}: points are {str(value)[:60]}, not two or more pairs x, y")
    return np.array(found, dtype=np.float64)
