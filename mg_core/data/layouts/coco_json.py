"""COCO's instance annotations, with every value checked."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mg_core.data.layouts.choice import Corners, Labelled
from mg_core.data.layouts.json_values import integer_at, load_object, number, size_at, text_at
from mg_core.data.layouts.polygons import parse_outline
from mg_core.data.reader import Report, refuse, reporting
from mg_core.errors import InputError

FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
WHAT = "images, annotations and categories"


@dataclass(slots=True)
class Entry:
    """An image and its objects, those marked as crowds included."""

    id: int
    file_name: str  # relative to the split's image folder
    width: int
    height: int
    source: str  # file and item number, for messages
    objects: list[Labelled] = field(default_factory=list)
    mask_flaw: str = ""  # why an outline is left out


def read_instances(path: Path, report: Report = refuse) -> list[Entry]:
    """Read the images of a file of annotations, in the order of their ids."""
    content = load_object(path, WHAT)
    names = _categories(path, content)
    images: dict[int, Entry] = {}
    for item, source in _items(path, content, "images"):
        with reporting(report):
            entry = _image(item, source)
            if entry.id in images:
                raise InputError(f"{source} repeats id {entry.id} of {images[entry.id].source}")
            images[entry.id] = entry
    seen: set[int] = set()
    for item, source in _items(path, content, "annotations"):
        with reporting(report):
            _add_object(item, source, images, names, seen)
    return [images[key] for key in sorted(images)]


def file_names(path: Path) -> Iterator[str]:
    """Yield the file names in a file of annotations, found without parsing all of its text."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if 0 in text[:4]:  # UTF-16 or UTF-32
                items = load_object(path, WHAT).get("images")
                names = [text_at(item, "file_name", "") for item in items or ()]
            else:
                names = [_unquoted(found) for found in FILE_NAME.findall(text)]
    # Reading the annotations says what is wrong: an empty file, or one that is not valid JSON.
    except (OSError, ValueError, TypeError):
        return
    yield from dict.fromkeys(name for name in names if name and "\0" not in name)


def _unquoted(text: bytes) -> str:
    try:
        name = str(json.loads(text))
        name.encode()
    except ValueError:
        return ""
    return name


def _categories(path: Path, content: Mapping[str, Any]) -> dict[int, str | InputError]:
    """Return the name of each category, or what is wrong with it, which matters if it is used."""
    names: dict[int, str | InputError] = {}
    for item, source in _items(path, content, "categories"):
        with contextlib.suppress(InputError):  # Without an id, nothing can use it.
            key = integer_at(item, "id", source)
            try:
                name: str | InputError = text_at(item, "name", source)
            except InputError as error:
                name = error
            is_same = names.get(key, name) == name
            names[key] = name if is_same else InputError(f"{source} repeats id {key}")
    return names


def _items(path: Path, content: Mapping[str, Any], key: str) -> Iterator[tuple[Any, str]]:
    """Yield the items of a list, and their file and number for messages."""
    items = content.get(key)
    if not isinstance(items, list):
        raise InputError(f"{path} has no list {key!r}")
    for place, item in enumerate(items):
        yield item, f"{path}, {key}[{place}]"


def _image(item: Any, source: str) -> Entry:
    width, height = size_at(item, "width", "height", source)
    key, name = integer_at(item, "id", source), text_at(item, "file_name", source)
    return Entry(key, name, width, height, source)


def _add_object(
    item: Any,
    source: str,
    images: Mapping[int, Entry],
    names: Mapping[int, str | InputError],
    seen: set[int],
) -> None:
    image_id, category = (integer_at(item, key, source) for key in ("image_id", "category_id"))
    if image_id not in images:
        raise InputError(f"{source} is about image {image_id}, which is not listed")
    name = names.get(category)
    if isinstance(name, InputError):
        raise name
    if name is None:
        known = ", ".join(str(value) for value in names.values())
        raise InputError(f"{source}: category {category} is not one of {known}")
    if "id" in item:
        key = integer_at(item, "id", source)
        if key in seen:
            raise InputError(f"{source} repeats id {key}")
        seen.add(key)
    corners = _corners(item, source)
    image = images[image_id]
    parsed = None
    if outline := item.get("segmentation"):
        try:
            parsed = parse_outline(outline, image.width, image.height, source)
        except InputError as error:
            image.mask_flaw = str(error)
    image.objects.append(Labelled(name, source, corners, parsed))


def _corners(item: Any, source: str) -> Corners:
    values = item.get("bbox")
    numbers = [number(value) for value in values] if isinstance(values, list) else []
    if len(numbers) != 4 or not all(math.isfinite(value) for value in numbers):
        raise InputError(f"{source}: bbox is {str(values)[:60]}, not four numbers x, y, w, h")
    x, y, width, height = numbers
    corners = (x, y, x + width, y + height)
    if not all(math.isfinite(value) for value in corners):
        raise InputError(f"{source}: bbox is {str(values)[:60]}, beyond all numbers")
    return corners
