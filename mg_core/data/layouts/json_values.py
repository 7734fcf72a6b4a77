"""Values of JSON files, each checked; messages name the file and the place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mg_core.errors import InputError

MAX_SIDE = 2**16
"""In pixels; a longer side of an image is taken for a mistake."""


def load_object(path: Path, what: str) -> Mapping[str, Any]:
    """Read a JSON file that holds an object of `what`, such as "images and annotations"."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object with {what}")
    return content


def value_of(item: Any, key: str) -> Any:
    """Return the value of a key; none if the item is no object or lacks it."""
    return item.get(key) if isinstance(item, dict) else None


def number(value: Any) -> float:
    """Return a number; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def integer_at(item: Any, key: str, source: str) -> int:
    """Return the integer of a key."""
    value = value_of(item, key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{source}: {key!r} is {str(value)[:60]!r}, not an integer")
    return value


def text_at(item: Any, key: str, source: str) -> str:
    """Return the text of a key, which is not empty."""
    value = value_of(item, key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{source}: {key!r} is {str(value)[:60]!r}, not a name")
    return value


def size_at(item: Any, width: str, height: str, source: str) -> tuple[int, int]:
    """Return the size of an image from the keys of its width and height."""
    size = integer_at(item, width, source), integer_at(item, height, source)
    if not all(0 < side <= MAX_SIDE for side in size):
        raise InputError(f"{source}: {size[0]} × {size[1]} is no size of an image")
    return size
