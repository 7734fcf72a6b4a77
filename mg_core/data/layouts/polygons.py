"""Outlines of objects, as polygons or COCO's run lengths, checked before they are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mg_core.data.boxes import is_scaled
from mg_core.data.images import opened
from mg_core.errors import InputError

Outline = tuple[NDArray[np.float64], ...] | NDArray[np.int64] | Path
"""Polygons (2 n,) of corners x, y, …; or (m,) run lengths of pixels outside and inside in turn; or
a picture in which the object's pixels are not 0."""


def parse_outline(value: Any, width: int, height: int, source: str) -> Outline:
    """Check a `segmentation` from JSON: a list of polygons, or run lengths, compressed or not.

    A flat list of numbers is one polygon.
    """
    if isinstance(value, list):
        if not any(isinstance(part, (list, tuple)) for part in value):
            value = [value]
        return tuple(_polygon(polygon, width, height, source) for polygon in value)
    if not isinstance(value, dict) or value.get("size") != [height, width]:
        raise InputError(f"{source}: segmentation is no outline of {width} × {height} pixels")
    counts = value.get("counts")
    runs = _decompressed(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(type(run) is int and run >= 0 for run in runs)
        or sum(runs) != width * height
    ):
        raise InputError(f"{source}: run lengths do not add up to {width} × {height} pixels")
    return np.array(runs, dtype=np.int64)


class Outlines(NamedTuple):
    """The outlines of all objects of an image, of a class each."""

    width: int  # of the image that they refer to
    height: int
    items: tuple[tuple[int, Outline], ...]


def class_masks(outlines: Outlines, size: int) -> dict[int, NDArray[np.bool_]]:
    """Return the (size, size) pixels of every class, drawn at the outlines' own size."""
    masks: dict[int, NDArray[np.bool_]] = {}
    for index, outline in outlines.items:
        drawn = draw(outline, outlines.width, outlines.height)
        masks[index] = masks.get(index, False) | drawn
    pictures = {index: Image.fromarray(masks[index]) for index in sorted(masks)}
    return {
        index: np.asarray(picture.resize((size, size), Image.Resampling.NEAREST))
        for index, picture in pictures.items()
    }


def draw(outline: Outline, width: int, height: int) -> NDArray[np.bool_]:
    """Return the pixels of an object, (height, width), polygons as pycocotools draws them."""
    if isinstance(outline, Path):
        return _painted(outline, width, height)
    if isinstance(outline, np.ndarray):
        # Runs go down the columns.
        columns = np.repeat(np.arange(len(outline)) % 2, outline).reshape(width, height)
        return np.asarray(columns.T, dtype=np.bool_)
    # Imported here: only this layout needs it.
    from pycocotools import mask

    polygons = [corners.tolist() for corners in outline]
    drawn = mask.decode(mask.merge(mask.frPyObjects(polygons, height, width)))
    return np.asarray(drawn, dtype=np.bool_)


def _painted(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """Return the pixels of a picture that are not 0, at the size of the annotated image."""
    with opened(path) as picture:
        if not is_scaled(picture.size, (width, height)):
            raise InputError(
                f"{path} has {picture.width} × {picture.height} pixels, and its image "
                f"{width} × {height}"
            )
        picture.load()
        values = picture if picture.mode in ("1", "L", "P") else picture.convert("L")
        resized = values.resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(np.asarray(resized) != 0, dtype=np.bool_)


def _polygon(value: Any, width: int, height: int, source: str) -> NDArray[np.float64]:
    try:
        corners = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        corners = np.array([math.nan])
    if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not np.isfinite(corners).all():
        raise InputError(f"{source}: a polygon is no list of at least three corners x, y")
    # pycocotools walks the whole outline, so a distant point would cost memory in proportion.
    if (np.abs(corners.reshape(-1, 2)) > (2 * width, 2 * height)).any():
        raise InputError(f"{source}: a polygon leads far out of the {width} × {height} image")
    return corners


def _decompressed(text: str) -> list[int] | None:
    """Read run lengths from the LEB128-like text of pycocotools; none if it is malformed.

    A character holds five bits and a sixth that says whether more follow. From the fourth run on,
    the difference to the run two before is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 50:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs
