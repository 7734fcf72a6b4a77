"""COCO's instance annotations, every value checked: a file from anywhere is read or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mg_core.data.layouts.polygons import Outline, parse_outline
from mg_core.data.reader import Box, Report, refuse
from mg_core.errors import InputError

MAX_SIDE = 2**16
"""Pixels; beyond is no photograph but a mistake."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image and its objects, those marked as crowds included.

    Attributes:
        id: of the image.
        file_name: below the folder of its images.
        width: in pixels, as annotated.
        height: in pixels, as annotated.
        source: file and item, for sentences.
        boxes: of its objects.
        outlines: one for each box; none where an object has only a box, or where there are none.
    """

    id: int
    file_name: str
    width: int
    height: int
    source: str
    boxes: tuple[Box, ...] = ()
    outlines: tuple[Outline, ...] | None = None


@dataclass
class _Objects:
    boxes: list[Box] = field(default_factory=list)
    outlines: list[Outline | None] = field(default_factory=list)


def read_instances(path: Path, classes: Sequence[str], report: Report = refuse) -> list[Entry]:
    """Read a file of instance annotations.

    Args:
        path: of the JSON file.
        classes: known names; categories are matched to them.
        report: what to do about an image or annotation that is wrong.

    Returns:
        Its images in the order of their ids.

    Raises:
        InputError: the file is no such annotations at all.
    """
    content = _load(path)
    names = _categories(path, _items(path, content, "categories"), report)
    indices = {name: index for index, name in enumerate(classes)}
    images: dict[int, Entry] = {}
    for number, item in enumerate(_items(path, content, "images")):
        try:
            entry = _image(item, f"{path}, images[{number}]")
            if entry.id in images:
                raise InputError(
                    f"{entry.source} repeats id {entry.id} of {images[entry.id].source}"
                )
            images[entry.id] = entry
        except InputError as error:
            report(error)
    objects: dict[int, _Objects] = {}
    seen: set[int] = set()
    for number, item in enumerate(_items(path, content, "annotations")):
        source = f"{path}, annotations[{number}]"
        try:
            _add_object(item, source, images, names, indices, objects, seen)
        except InputError as error:
            report(error)
    return [_with_objects(images[key], objects.get(key)) for key in sorted(images)]


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object with images, annotations and categories")
    return content


def _items(path: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    items = content.get(key)
    if not isinstance(items, list):
        raise InputError(f"{path} has no list {key!r}")
    return items


def _categories(path: Path, items: list[Any], report: Report) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, item in enumerate(items):
        source = f"{path}, categories[{number}]"
        try:
            key, name = _integer(item, "id", source), _text(item, "name", source)
            if key in names or name in names.values():
                raise InputError(f"{source} repeats id {key} or name {name!r}")
            names[key] = name
        except InputError as error:
            report(error)
    return names


def _image(item: Any, source: str) -> Entry:
    width, height = (_integer(item, key, source) for key in ("width", "height"))
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise InputError(f"{source}: {width} × {height} is no size of an image")
    key, name = _integer(item, "id", source), _text(item, "file_name", source)
    return Entry(key, name, width, height, source)


def _add_object(
    item: Any,
    source: str,
    images: Mapping[int, Entry],
    names: Mapping[int, str],
    indices: Mapping[str, int],
    objects: dict[int, _Objects],
    seen: set[int],
) -> None:
    image_id, category = (_integer(item, key, source) for key in ("image_id", "category_id"))
    if image_id not in images:
        raise InputError(f"{source} is about image {image_id}, which is not listed")
    name = names.get(category)
    if name not in indices or name is None:
        what = f"category {category}" if name is None else f"class {name!r}"
        raise InputError(f"{source}: {what} is not one of {', '.join(indices)}")
    if "id" in item:
        key = _integer(item, "id", source)
        if key in seen:
            raise InputError(f"{source} repeats id {key}")
        seen.add(key)
    box = _box(item, indices[name], source)
    image = images[image_id]
    outline = item.get("segmentation")
    found = objects.setdefault(image_id, _Objects())
    parsed = parse_outline(outline, image.width, image.height, source) if outline else None
    found.boxes.append(box)
    found.outlines.append(parsed)


def _box(item: Any, class_index: int, source: str) -> Box:
    values = item.get("bbox")
    numbers = [_number(value) for value in values] if isinstance(values, list) else []
    if len(numbers) != 4 or not all(math.isfinite(value) for value in numbers):
        raise InputError(f"{source}: bbox is {str(values)[:60]}, not four numbers x, y, w, h")
    x, y, width, height = numbers
    corners = (x, y, x + width, y + height)
    if not all(math.isfinite(value) for value in corners):
        raise InputError(f"{source}: bbox is {str(values)[:60]}, beyond all numbers")
    return Box(class_index, *corners)


def _with_objects(entry: Entry, objects: _Objects | None) -> Entry:
    if objects is None:
        return entry
    outlines = [outline for outline in objects.outlines if outline is not None]
    complete = tuple(outlines) if len(outlines) == len(objects.boxes) else None
    return Entry(
        entry.id, entry.file_name, entry.width, entry.height, entry.source,
        tuple(objects.boxes), complete,
    )  # fmt: skip


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _integer(item: Any, key: str, source: str) -> int:
    value = item.get(key) if isinstance(item, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{source}: {key!r} is {str(value)[:60]!r}, not an integer")
    return value


def _text(item: Any, key: str, source: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value:
        raise InputError(f"{source}: {key!r} is {str(value)[:60]!r}, not a name")
    return value
