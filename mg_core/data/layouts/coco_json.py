"""COCO's instance annotations, with every value checked."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mg_core.data.layouts.polygons import Outline, parse_outline
from mg_core.data.reader import Box, Report, refuse, reporting
from mg_core.errors import InputError

FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
MAX_SIDE = 2**16
"""In pixels; a longer side is taken for a mistake."""


@dataclass(slots=True)
class Entry:
    """An image and its objects, those marked as crowds included."""

    id: int
    file_name: str  # relative to the split's image folder
    width: int
    height: int
    source: str  # file and item number, for messages
    objects: list[tuple[Box, Outline | None]] = field(default_factory=list)
    mask_flaw: str = ""  # why an outline is left out

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The box of each object."""
        return tuple(box for box, _ in self.objects)

    @property
    def outlines(self) -> tuple[Outline, ...] | None:
        """The outline of each object; none if one has no outline or there is no object."""
        found = tuple(outline for _, outline in self.objects if outline is not None)
        return found if found and len(found) == len(self.objects) else None


def read_instances(path: Path, classes: Sequence[str], report: Report = refuse) -> list[Entry]:
    """Read the images of a file of annotations, in the order of their ids; classes go by name."""
    content = _load(path)
    names = _categories(path, content)
    images: dict[int, Entry] = {}
    for item, source in _items(path, content, "images"):
        with reporting(report):
            entry = _image(item, source)
            if entry.id in images:
                raise InputError(f"{source} repeats id {entry.id} of {images[entry.id].source}")
            images[entry.id] = entry
    indices = {name: index for index, name in enumerate(classes)}
    seen: set[int] = set()
    for item, source in _items(path, content, "annotations"):
        with reporting(report):
            _add_object(item, source, images, names, indices, seen)
    return [images[key] for key in sorted(images)]


def file_names(path: Path) -> Iterator[str]:
    """Yield the file names in a file of annotations, found without parsing all of its text."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if 0 in text[:4]:  # UTF-16 or UTF-32
                items = _load(path).get("images")
                names = [_text(item, "file_name", "") for item in items or ()]
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
            key = _integer(item, "id", source)
            try:
                name: str | InputError = _text(item, "name", source)
            except InputError as error:
                name = error
            is_same = names.get(key, name) == name
            names[key] = name if is_same else InputError(f"{source} repeats id {key}")
    return names


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


def _items(path: Path, content: Mapping[str, Any], key: str) -> Iterator[tuple[Any, str]]:
    """Yield the items of a list, and their file and number for messages."""
    items = content.get(key)
    if not isinstance(items, list):
        raise InputError(f"{path} has no list {key!r}")
    for number, item in enumerate(items):
        yield item, f"{path}, {key}[{number}]"


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
    names: Mapping[int, str | InputError],
    indices: Mapping[str, int],
    seen: set[int],
) -> None:
    image_id, category = (_integer(item, key, source) for key in ("image_id", "category_id"))
    if image_id not in images:
        raise InputError(f"{source} is about image {image_id}, which is not listed")
    name = names.get(category)
    if isinstance(name, InputError):
        raise name
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
    parsed = None
    if outline := item.get("segmentation"):
        try:
            parsed = parse_outline(outline, image.width, image.height, source)
        except InputError as error:
            image.mask_flaw = str(error)
    image.objects.append((box, parsed))


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
