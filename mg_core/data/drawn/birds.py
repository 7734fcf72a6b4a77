"""A synthetic Waterbirds-100 in the layout of the real one: drawn birds over land or water."""

from __future__ import annotations

import colorsys
import csv
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from mg_core.config import Frozen, Integer, Number
from mg_core.counter import generator
from mg_core.data.drawn.drawing import Colour, Polygon, paint, rotation, to_bytes, visible_box
from mg_core.data.drawn.generated import write_once
from mg_core.data.layouts.choice import LimitOptions
from mg_core.data.layouts.waterbirds import CUB, FOLDER, Waterbirds
from mg_core.data.reader import SPLITS, Progress, silent

GENERATOR_VERSION = 1
"""Raised when the same options would give other bytes."""
JPEG_QUALITY = 95
WATERBIRDS = 0.23
"""Share of waterbirds in every split, as in the real set."""
TYPICAL = 0.8
"""Probability that a bird's colour is its kind's; its outline always is."""
HUE = 0.41
"""Between the hues of land and water."""
BIRD_SIZE = (0.38, 0.6)
"""Half-size of the drawing's unit square, as a share of half the image."""
KINDS, PLACES = ("Landbird", "Waterbird"), ("forest", "ocean")


class BirdsOptions(Frozen):
    """Options of the synthetic birds; they decide every byte of the set.

    The background fits the bird in all training images and in half of the others.
    """

    train: Annotated[Integer, Field(ge=10)] = 800
    val: Annotated[Integer, Field(ge=10)] = 400
    test: Annotated[Integer, Field(ge=10)] = 400
    size: Annotated[Integer, Field(ge=24, le=2048)] = 64
    # How far colour and texture tell land from water, from 0 (not at all) to 1.
    clarity: Annotated[Number, Field(ge=0, le=1)] = 1.0
    seed: Annotated[Integer, Field(ge=0)] = 0


class Bird(NamedTuple):
    """A picture and the box (xmin, ymin, xmax, ymax) around its bird; max is outside."""

    image: NDArray[np.uint8]
    box: tuple[int, int, int, int]


def write_birds(folder: Path, options: BirdsOptions, progress: Progress = silent) -> bool:
    """Write the set as `write_once` does; the same options give the same bytes."""
    return write_once(
        folder,
        "birds",
        {"version": GENERATOR_VERSION, "options": options.model_dump()},
        lambda temporary: _write(temporary, options, progress),
        lambda written: Waterbirds(written, LimitOptions()).former_fingerprint(),
    )


def _write(root: Path, options: BirdsOptions, progress: Progress) -> None:
    (root / CUB).mkdir()
    for number, kind in enumerate(KINDS, start=1):
        (root / FOLDER / f"{number:03d}.{kind}").mkdir(parents=True)
    rows: list[list[object]] = []
    boxes: list[str] = []
    for split, count in enumerate((options.train, options.val, options.test)):
        for index, (y, place) in enumerate(_groups(split, count, options.seed)):
            rng = generator(options.seed, "birds", SPLITS[split], index)
            bird = draw_bird(rng, options.size, y, place, options.clarity)
            name = f"{y + 1:03d}.{KINDS[y]}/{KINDS[y]}_{SPLITS[split]}_{index:06d}.jpg"
            path = root / FOLDER / name
            Image.fromarray(bird.image).save(path, quality=JPEG_QUALITY, subsampling=0)
            xmin, ymin, xmax, ymax = bird.box
            image_id = len(rows) + 1
            rows.append([image_id, name, y, split, place, f"/drawn/{PLACES[place]}.jpg"])
            boxes.append(f"{image_id} {xmin:.1f} {ymin:.1f} {xmax - xmin:.1f} {ymax - ymin:.1f}\n")
            progress(SPLITS[split], index + 1, count)
    with (root / FOLDER / "metadata.csv").open("w", newline="") as file:
        header = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    (root / CUB / "images.txt").write_text("".join(f"{row[0]} {row[1]}\n" for row in rows))
    (root / CUB / "bounding_boxes.txt").write_text("".join(boxes))


def _groups(split: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Return (kind, place) of every image of a split, in a random order."""
    n_waterbirds = round(WATERBIRDS * count)
    kinds = [0] * (count - n_waterbirds) + [1] * n_waterbirds
    places = kinds if split == 0 else [number % 2 for number in range(count)]
    order = generator(seed, "birds", SPLITS[split]).permutation(count)
    return [(kinds[i], places[i]) for i in order]


def draw_bird(
    rng: np.random.Generator, size: int, y: int, place: int, clarity: float = 1.0
) -> Bird:
    """Draw a bird over a background.

    A landbird (y 0) has a short neck, a round body and mostly warm colours, a waterbird (y 1) a
    long neck, a flat body and mostly pale ones. Land (place 0) has upright stems, water (1) waves.
    """
    canvas = _water(rng, size, clarity) if place else _land(rng, size, clarity)
    half = rng.uniform(*BIRD_SIZE) * size / 2
    angle = np.deg2rad(rng.uniform(-10, 10))
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    transform = half * rotation(angle) @ mirror
    plumage = _plumage(rng, y)
    parts = [polygon @ transform.T for polygon in (_WATERBIRD if y else _LANDBIRD)]
    everything = np.concatenate(parts)
    low, high = everything.min(axis=0), everything.max(axis=0)
    # Leave at least a pixel of background on every side.
    offset = 1 - low + rng.random(2) * np.maximum(size - 2 - (high - low), 0)
    beak = colorsys.hsv_to_rgb(rng.uniform(0.08, 0.14), 0.9, 0.85)
    colours = [*[plumage] * (len(parts) - 1), beak]
    covered = np.zeros((size, size), dtype=np.bool_)
    for polygon, colour in zip(parts, colours, strict=True):
        covered |= paint(canvas, [polygon + offset], colour)
    return Bird(to_bytes(canvas), visible_box(covered))


def _plumage(rng: np.random.Generator, y: int) -> Colour:
    typical = rng.random() < TYPICAL
    pale = (rng.uniform(0.5, 0.65), rng.uniform(0, 0.1), rng.uniform(0.88, 1))
    warm = (rng.uniform(0.0, 0.07), rng.uniform(0.6, 0.9), rng.uniform(0.55, 0.85))
    return colorsys.hsv_to_rgb(*(pale if bool(y) == typical else warm))


def _land(rng: np.random.Generator, size: int, clarity: float) -> NDArray[np.float64]:
    x = np.mgrid[:size, :size][1]
    wave = np.sin(2 * np.pi * x / (size * rng.uniform(0.12, 0.2)) + rng.uniform(0, 2 * np.pi))
    return _blend(rng, wave, rng.uniform(0.2, 0.36), rng.uniform(0.25, 0.5), clarity)


def _water(rng: np.random.Generator, size: int, clarity: float) -> NDArray[np.float64]:
    y, x = np.mgrid[:size, :size].astype(np.float64)
    bend = 0.6 * np.sin(2 * np.pi * x / (size * rng.uniform(0.4, 0.7)))
    wave = np.sin(2 * np.pi * y / (size * rng.uniform(0.1, 0.16)) + bend)
    return _blend(rng, wave, rng.uniform(0.52, 0.62), rng.uniform(0.25, 0.5), clarity)


def _blend(
    rng: np.random.Generator,
    wave: NDArray[np.float64],
    hue: float,
    saturation: float,
    clarity: float,
) -> NDArray[np.float64]:
    if clarity < 1:
        # The hues of land and water move together, and noise replaces the waves.
        hue = HUE + clarity * (hue - HUE) + (1 - clarity) * rng.uniform(-0.2, 0.2)
        wave = clarity * wave + (1 - clarity) * rng.normal(0, 0.7, wave.shape)
    dark = np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.35, 0.5)))
    light = np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.6, 0.75)))
    share = (0.5 + 0.5 * wave)[..., None]
    grain = rng.normal(0, 0.025, (*wave.shape, 1))
    field: NDArray[np.float64] = dark + share * (light - dark) + grain
    return field


def _ellipse(x: float, y: float, width: float, height: float) -> Polygon:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + width * np.cos(t), y + height * np.sin(t)], axis=1)


_LANDBIRD = (
    np.array([(-0.35, 0.0), (-1.0, 0.25), (-0.9, 0.5), (-0.3, 0.4)]),
    _ellipse(-0.05, 0.2, 0.55, 0.5),
    _ellipse(0.42, -0.35, 0.32, 0.32),
    np.array([(0.68, -0.5), (1.0, -0.3), (0.68, -0.2)]),
)
"""Outlines in [-1, 1]² of a bird that faces right: tail, body, head and beak."""
_WATERBIRD = (
    np.array([(0.15, 0.4), (0.2, -0.6), (0.4, -0.7), (0.4, -0.4), (0.48, 0.5)]),
    _ellipse(-0.3, 0.5, 0.7, 0.3),
    _ellipse(0.4, -0.72, 0.2, 0.2),
    np.array([(0.5, -0.82), (1.0, -0.68), (1.0, -0.58), (0.5, -0.6)]),
)
"""Outlines in [-1, 1]² of a bird that faces right: neck, body, head and beak."""
