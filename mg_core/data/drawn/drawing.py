"""Drawing of synthetic pictures: coloured shapes over textured backgrounds."""

from __future__ import annotations

import colorsys
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLING = 4
MAX_OBJECTS = 3
N_OBJECTS = (0.4, 0.35, 0.25)
"""Probabilities of 1, 2 and 3 objects."""
SAME_CLASS = 0.6
"""Probability that a further object has the first one's class, so that one texture fits most."""
OBJECT_SIZE = (0.28, 0.44)
MAX_OVERLAP = 0.15
"""Largest overlap, as a share of the smaller of two boxes, so that every object stays visible."""
PLACEMENTS = 40
PIECE_SIZE = (0.2, 0.5)
"""Bounds of the sides of a piece of clutter, as a share of the box's longer side."""
OUTLINE = 0.016
TONES = (0.35, 0.88)
"""The darkest and the lightest tone behind objects at contrast 1."""

Polygon = NDArray[np.float64]
Colour = tuple[float, float, float]


class Scene(NamedTuple):
    """A picture with its annotations."""

    image: NDArray[np.uint8]  # (size, size, 3)
    object_classes: NDArray[np.int64]  # (n,) in the order of drawing
    boxes: NDArray[np.int64]  # (n, 4) of `visible_box`
    class_ids: NDArray[np.uint8]  # (size, size), class + 1 where an object is visible, else 0
    texture: int  # class whose texture the background has


def _regular(corners: int, inner: float = 1.0) -> Polygon:
    angle = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
    radius = np.where(np.arange(corners) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart() -> Polygon:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 16, (y - 2.5) / 15], axis=1)


def _crescent() -> Polygon:
    t = np.linspace(0.28 * np.pi, 1.72 * np.pi, 40)
    outer = np.stack([np.cos(t), np.sin(t)], axis=1)
    s = np.linspace(1.58 * np.pi, 0.42 * np.pi, 40)
    tip = outer[-1]
    inner = np.stack([np.cos(s), np.sin(s)], axis=1)
    inner = inner * (tip[1] / inner[0, 1])
    inner[:, 0] += tip[0] - inner[0, 0]
    outline: Polygon = np.concatenate([outer, inner]) + np.array([0.2, 0.0])
    return outline


_CROSS = np.array(
    [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1),
     (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
) / 3.0  # fmt: skip

SHAPES: dict[str, tuple[Polygon, ...]] = {
    "ellipse": (_regular(48),),
    "rectangle": (np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),),
    "triangle": (np.array([(0, -1), (1, 0.85), (-1, 0.85)]),),
    "star": (_regular(10, inner=0.42),),
    "cross": (_CROSS,),
    "ring": (_regular(48), 0.55 * _regular(48)),
    "heart": (_heart(),),
    "crescent": (_crescent(),),
}
"""Outlines in [-1, 1]²; a second polygon is a hole."""


def draw_scene(
    rng: np.random.Generator,
    size: int,
    n_classes: int,
    correlation: float,
    object_size: tuple[float, float] = OBJECT_SIZE,
    clutter: int = 0,
    contrast: float = 1.0,
) -> Scene:
    """Draw 1–3 objects over a background texture that mostly follows the class of one of them.

    With the probability `correlation`, the texture is that of an object's class; otherwise it is
    that of a class which is not in the picture, if there is one. `object_size` bounds an object's
    longer side before rotation, as a share of the picture's. `clutter` pieces behind each object
    hide the texture in its box, so that only the object there tells the class. `contrast` stretches
    the tones of texture and clutter.
    """
    n_objects = 1 + rng.choice(MAX_OBJECTS, p=N_OBJECTS)
    classes = rng.integers(n_classes, size=n_objects)
    classes[rng.random(n_objects) < SAME_CLASS] = classes[0]
    outlines = [outline_of(rng, size, object_size) for _ in classes]
    texture = _texture_class(rng, classes, n_classes, correlation)
    canvas = background(rng, texture, size, contrast)
    owner = np.full((size, size), -1)
    names = list(SHAPES)
    placed: list[int] = []
    boxes: list[NDArray[np.float64]] = []
    for index, transform in enumerate(outlines):
        polygons = [polygon @ transform.T for polygon in SHAPES[names[classes[index]]]]
        offset = _place(rng, polygons[0], boxes, size)
        colour = vivid(rng)
        if offset is None:
            continue
        boxes.append(bounds(polygons[0] + offset))
        placed.append(index)
        _scatter(rng, canvas, boxes[-1], owner < 0, clutter, contrast)
        covered = paint(canvas, [polygon + offset for polygon in polygons], colour)
        owner[covered] = index
    visible = [visible_box(owner == index) for index in placed]
    class_ids = np.where(owner >= 0, classes[owner] + 1, 0).astype(np.uint8)
    return Scene(to_bytes(canvas), classes[placed], np.array(visible), class_ids, texture)


def _texture_class(
    rng: np.random.Generator, classes: NDArray[np.int64], n_classes: int, correlation: float
) -> int:
    # The first object is always placed, so its class is always in the picture.
    others = np.setdiff1d(np.arange(n_classes), classes)
    if not len(others):
        others = np.setdiff1d(np.arange(n_classes), classes[:1])
    other = int(others[rng.integers(len(others))])
    return int(classes[0]) if rng.random() < correlation else other


def outline_of(
    rng: np.random.Generator, size: int, object_size: tuple[float, float] = OBJECT_SIZE
) -> NDArray[np.float64]:
    """Draw how an outline in [-1, 1]² is scaled and turned: a matrix (2, 2)."""
    longer = rng.uniform(*object_size) * size / 2
    aspect = rng.uniform(0.75, 1)
    half = np.array([longer, longer * aspect])
    if rng.random() < 0.5:
        half = half[::-1]
    transform: NDArray[np.float64] = rotation(np.deg2rad(rng.uniform(-12, 12))) * half
    return transform


def rotation(angle: float) -> NDArray[np.float64]:
    """Return the matrix that turns a point by an angle in radians."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def to_bytes(canvas: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round a picture in [0, 1] to bytes."""
    return np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)


def _place(
    rng: np.random.Generator, polygon: Polygon, boxes: list[NDArray[np.float64]], size: int
) -> NDArray[np.float64] | None:
    low, high = np.split(bounds(polygon), 2)
    margin = OUTLINE * size
    # All draws happen at once: later random draws must not depend on how many were needed.
    for draw in rng.random((PLACEMENTS, 2)):
        offset: NDArray[np.float64] = margin - low + draw * (size - 2 * margin - (high - low))
        box = bounds(polygon + offset)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in boxes):
            return offset
    return None


def bounds(polygon: Polygon) -> NDArray[np.float64]:
    """Return the lowest x and y, then the highest."""
    return np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))


def paint(
    canvas: NDArray[np.float64], polygons: list[Polygon], colour: Colour
) -> NDArray[np.bool_]:
    """Paint a shape with a dark outline; return the (size, size) pixels that it half covers."""
    alpha = coverage(polygons, len(canvas))
    outline = np.minimum(_edges(polygons, len(canvas)), alpha)
    shaded = np.asarray(colour, dtype=np.float64)
    canvas += alpha[..., None] * (shaded - canvas)
    canvas -= 0.55 * outline[..., None] * shaded
    return alpha >= 0.5


def coverage(polygons: list[Polygon], size: int) -> NDArray[np.float64]:
    """Return how far a polygon, less a second one, covers each pixel, (size, size) in [0, 1]."""
    filled = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    for polygon, value in zip(polygons, (255, 0), strict=False):
        corners = (polygon * SUPERSAMPLING).ravel().tolist()
        ImageDraw.Draw(filled).polygon(corners, fill=value)
    return np.asarray(filled.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _edges(polygons: list[Polygon], size: int) -> NDArray[np.float64]:
    drawn = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    width = max(2, round(OUTLINE * size * SUPERSAMPLING))
    for polygon in polygons:
        # Closed, and on to the second corner, so that the first one gets a joint too.
        line = (np.concatenate([polygon, polygon[:2]]) * SUPERSAMPLING).ravel().tolist()
        ImageDraw.Draw(drawn).line(line, fill=255, width=width, joint="curve")
    return np.asarray(drawn.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _scatter(
    rng: np.random.Generator,
    canvas: NDArray[np.float64],
    box: NDArray[np.float64],
    free: NDArray[np.bool_],
    pieces: int,
    contrast: float,
) -> None:
    """Scatter pieces in muted colours over a box, except where an object is."""
    low, extent = box[:2], box[2:] - box[:2]
    for _ in range(pieces):
        centre, turn = low + rng.random(2) * extent, rng.uniform(0, 2 * np.pi)
        half = rng.uniform(*PIECE_SIZE, size=2) * extent.max() / 2
        corners = _regular(4) * half @ rotation(turn).T + centre
        hue, saturation, value = rng.random(), rng.uniform(0.08, 0.3), rng.uniform(*TONES)
        colour = colorsys.hsv_to_rgb(hue, saturation, _stretched(value, contrast))
        alpha = coverage([corners], len(canvas))[..., None] * free[..., None]
        canvas += alpha * (np.asarray(colour) - canvas)


def visible_box(visible: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return xmin, ymin, xmax, ymax around all true pixels; max is the first pixel outside."""
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def vivid(rng: np.random.Generator) -> Colour:
    """Draw a strong colour of any hue."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.8, 1), rng.uniform(0.75, 1))


def _stretched(value: float, contrast: float) -> float:
    """Move a tone away from the middle of `TONES`, at most to black or white."""
    if contrast == 1:
        return value  # The formula below could change the last bit.
    middle = sum(TONES) / 2
    return min(max(middle + contrast * (value - middle), 0.0), 1.0)


def background(
    rng: np.random.Generator, texture: int, size: int, contrast: float = 1.0
) -> NDArray[np.float64]:
    """Draw the texture of a class in two muted colours, (size, size, 3) in [0, 1].

    Double precision: processors differ in the last bits only, which never reach a pixel.
    """
    period = size * rng.uniform(0.10, 0.15)
    angle, phase = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(0, 2 * np.pi, size=2)
    centre = rng.uniform(0.2, 0.8, size=2) * size
    hue, saturation = rng.random(), rng.uniform(0.08, 0.3)
    dark, light = rng.uniform(0.35, 0.5), rng.uniform(0.68, 0.88)
    grain = rng.normal(0, 0.025, (size, size, 1))
    y, x = np.mgrid[:size, :size].astype(np.float64)
    u = (x * math.cos(angle) + y * math.sin(angle)) * (2 * np.pi / period) + phase[0]
    v = (y * math.cos(angle) - x * math.sin(angle)) * (2 * np.pi / period) + phase[1]
    radius = np.hypot(x - centre[0], y - centre[1]) * (2 * np.pi / period)
    waves = (
        lambda: np.sin(v),
        lambda: np.sin(u),
        lambda: 1.6 * np.sin(0.8 * u) * np.sin(0.8 * v),
        lambda: np.cos(u) + np.cos(v) - 0.7,
        lambda: np.sin(radius),
        lambda: np.sin((u + v) / math.sqrt(2)),
        lambda: np.sin(v + 1.6 * np.sin(0.6 * u)),
        lambda: np.maximum(np.cos(u), np.cos(v)) - 0.75,
    )
    blend = (0.5 + 0.5 * np.tanh(3 * waves[texture]()))[..., None]
    dark, light = _stretched(dark, contrast), _stretched(light, contrast)
    low = np.array(colorsys.hsv_to_rgb(hue, saturation, dark), dtype=np.float64)
    high = np.array(colorsys.hsv_to_rgb(hue, saturation / 2, light), dtype=np.float64)
    field: NDArray[np.float64] = low + blend * (high - low) + grain
    return field
