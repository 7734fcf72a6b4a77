"""Contact sheets: images of a split with their boxes and masks as trained on."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mg_core.data.annotations import annotation_masks
from mg_core.data.dataset import Split

CAPTION = 24
GAP = 4
SCALE_TO = 192
"""Smaller images are enlarged by a whole factor, to a side of about this many pixels."""


def contact_sheet(
    split: Split, count: int, columns: int = 6, annotation: Any = "box", seed: int = 0
) -> Image.Image:
    """Draw evenly spaced images of a split: what an annotation says outlined, objects tinted.

    Pixels outside all masks are darkened, which shows whether a mask lies inside or outside boxes.
    `annotation` and `seed` are those of a trial.
    """
    n_images = min(count, len(split))
    indices = np.unique(np.linspace(0, len(split) - 1, n_images).round().astype(np.int64))
    tiles = [_tile(split, int(index), annotation, seed) for index in indices]
    width, height = tiles[0].size
    n_rows = -(-len(tiles) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + GAP) + GAP, n_rows * (height + GAP) + GAP), "white"
    )
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def _tile(split: Split, index: int, annotation: Any, seed: int) -> Image.Image:
    present = np.flatnonzero(split.labels[index])
    repeated = [index] * len(present)
    pixels = split.images([index])[0].permute(1, 2, 0).numpy().astype(np.float64)
    masks = annotation_masks(split, repeated, present, annotation, seed).numpy()
    objects = split.segmentation(repeated, present)
    if masks.any():
        pixels[~masks.any(axis=0)] *= 0.55
    # Steps of the golden ratio: neighbouring classes have distant hues.
    hues = [k * 0.618034 % 1 for k in present.tolist()]
    colours = [255 * np.array(colorsys.hsv_to_rgb(hue, 0.9, 1.0)) for hue in hues]
    for number, colour in enumerate(colours):
        if objects is not None:
            inside = objects[number].numpy()
            pixels[inside] += 0.35 * (colour - pixels[inside])
    factor = max(1, round(SCALE_TO / len(pixels)))
    large = np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)
    for number, colour in enumerate(colours):
        whole = np.repeat(np.repeat(masks[number], factor, axis=0), factor, axis=1)
        large[_edge(whole)] = colour
    side = len(large)
    tile = Image.new("RGB", (side, side + CAPTION), "white")
    tile.paste(Image.fromarray(np.clip(large, 0, 255).astype(np.uint8)))
    draw = ImageDraw.Draw(tile)
    draw.text((1, side), split.ids[index][-side // 6 :], fill="black")
    names = ", ".join(split.classes[k] for k in present.tolist()) or "no labels"
    if split.groups is not None:
        names += f" ({split.group_names[split.groups[index]]})"
    draw.text((1, side + CAPTION // 2), names[: side // 6], fill="black")
    return tile


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = mask & ~inner
    return edge
