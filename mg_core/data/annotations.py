"""The ladder of supervision: what an annotator says about where an object is, drawn as a mask.

Each annotation is one registered function. Whatever it draws at random depends on the trial's seed,
the image, the class and the box alone, so that neither order nor batch size changes it, and a
resumed trial sees what an uninterrupted one would have seen. Masks are drawn before augmentation,
which then transforms them. In a task whose evidence lies outside, the rest of the image counts.
Maps are judged by the full boxes, whatever they were guided by.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mg_core.counter import generator
from mg_core.data.boxes import dilate as dilated
from mg_core.data.boxes import rasterise
from mg_core.errors import InputError
from mg_core.recipe import Named, annotation_of
from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from mg_core.data.dataset import Indices, Split

POINT_RADIUS = 0.05
"""Radius of the disc around a point, as a share of the image's side: losses need an area."""

Pixels: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Located:
    """Where an image shows one class, as the data set knows it.

    Attributes:
        boxes: (n, 4) int: xmin, ymin, xmax, ymax of at least one box; max is the first pixel
            outside.
        size: side S of the image in pixels.
        key: seed, image and class, which together with a box decide what is drawn.
        read_pixels: reads the (S, S) pixels of the class; none where the image has no mask.
    """

    boxes: NDArray[np.int64]
    size: int
    key: tuple[int | str, ...] = ()
    read_pixels: Callable[[], Pixels | None] = lambda: None

    def draws(self, name: str, box: NDArray[np.int64]) -> np.random.Generator:
        """Return the random numbers of one box, the same whenever they are asked for."""
        return generator(*self.key, name, *map(int, box))

    def fill(self, boxes: NDArray[np.int64]) -> Pixels:
        """Return the (S, S) union of boxes."""
        rows = np.zeros(len(boxes), dtype=np.int64)
        drawn: Pixels = rasterise(boxes.astype(np.int32), rows, 1, self.size)[0]
        return drawn


Annotation: TypeAlias = Callable[..., Pixels]
"""(Located, **arguments) -> (S, S) bool. An argument that is given as a number alone is `count`."""

ANNOTATIONS: Registry[Annotation] = Registry("annotation")

NEEDS_MASKS = {"mask"}
"""Annotations that images without segmentation masks cannot have; such images are not guided."""


@ANNOTATIONS.register("mask")
def mask(place: Located) -> Pixels:
    """Outline the object: its segmentation mask."""
    pixels = place.read_pixels()
    return np.zeros((place.size, place.size), dtype=np.bool_) if pixels is None else pixels


@ANNOTATIONS.register("box")
def box(place: Located, dilate: float = 0, shrink: float = 0, shift: float = 0) -> Pixels:
    """Draw boxes, which may be too wide, too narrow or beside the object.

    `dilate` and `shrink` move each side out or in by int(share · width), and likewise in height; a
    box keeps at least one pixel. `shift` then moves it by that share of its size in a direction
    that is drawn, as far as the image goes.
    """
    _check_share("dilate", dilate)
    _check_share("shrink", shrink, below=0.5)
    _check_share("shift", shift)
    if dilate and shrink:
        raise InputError("a box is dilated or shrunk, not both")
    boxes = dilated(place.boxes.astype(np.int32), dilate, place.size).astype(np.int64)
    margin = np.trunc(shrink * (boxes[:, 2:] - boxes[:, :2])).astype(np.int64)
    boxes = boxes + np.concatenate([margin, -margin], axis=1)
    if shift:
        angles = [2 * math.pi * place.draws("shift", own).random() for own in place.boxes]
        ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        offsets = np.rint(shift * (boxes[:, 2:] - boxes[:, :2]) * ways).astype(np.int64)
        boxes = boxes + np.tile(_inside(offsets, boxes, place.size), 2)
    return place.fill(boxes)


@ANNOTATIONS.register("points")
def points(place: Located, count: int, radius: float = POINT_RADIUS) -> Pixels:
    """Click on each object `count` times: discs around pixels of its mask, or else of its box.

    The first points of a larger count are those of a smaller one. `radius` is a share of the
    image's side.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"count is {count!r}, and must be a whole number of at least 1")
    _check_share("radius", radius, below=1.0)
    pixels = place.read_pixels()
    drawn = np.zeros((place.size, place.size), dtype=np.bool_)
    for own in place.boxes:
        inside = place.fill(own[None])
        on_object = inside if pixels is None else inside & pixels
        rows, columns = np.nonzero(on_object if on_object.any() else inside)
        chosen = place.draws("points", own).permutation(len(rows))[:count]
        for row, column in zip(rows[chosen], columns[chosen], strict=True):
            _add_disc(drawn, int(row), int(column), radius * place.size)
    return drawn


@ANNOTATIONS.register("random_box")
def random_box(place: Located) -> Pixels:
    """Draw a box of the right size in a wrong place: the control.

    Each place inside the image is equally likely, so that the box may overlap the object by
    chance, as much as one that knows nothing of the image.
    """
    extent = place.boxes[:, 2:] - place.boxes[:, :2]
    corners = [
        place.draws("random_box", own).integers(place.size - own[2:] + own[:2] + 1)
        for own in place.boxes
    ]
    low = np.array(corners, dtype=np.int64).reshape(-1, 2)
    return place.fill(np.concatenate([low, low + extent], axis=1))


@ANNOTATIONS.register("none")
def none(place: Located) -> Pixels:
    """Say nothing of the place: the same number of further epochs without guidance."""
    return np.zeros((place.size, place.size), dtype=np.bool_)


def annotation_masks(
    split: Split, indices: Indices, classes: Indices, annotation: Any = "box", seed: int = 0
) -> Tensor:
    """Draw what guides a trial: for each image, the mask of one class under an annotation.

    Args:
        split: images with their boxes and masks.
        indices: (B,) images of the split.
        classes: (B,) class of each mask.
        annotation: as under `annotation` in a sweep file, such as `"mask"` or `{"points": 5}`.
        seed: seed of the trial.

    Returns:
        (B, S, S) bool on the CPU, all False where the image has no box of the class, or nothing
        that the annotation can be drawn of.

    Raises:
        InputError: there is no such annotation, or its arguments are wrong.

    Example:
        >>> import mg_core
        >>> data = mg_core.open_data("shapes", image_size=32, train=8, val=4, test=4, size=32)
        >>> split = data.split("train")
        >>> classes = split.labels.argmax(axis=1)
        >>> boxes, clicks = (
        ...     mg_core.annotation_masks(split, range(8), classes, annotation)
        ...     for annotation in ("box", {"points": 1})
        ... )
        >>> boxes.shape
        torch.Size([8, 32, 32])
        >>> bool((boxes.sum((1, 2)) > clicks.sum((1, 2))).all())
        True
    """
    import torch  # Imported here: a driver only checks annotations and needs no PyTorch.

    found = check_annotation(annotation)
    if found.name == "box" and set(found.arguments) <= {"dilate"}:
        # The usual annotation is drawn for a whole batch at once, in a hundredth of the time.
        return split.masks(indices, classes, found.arguments.get("dilate", 0.0))
    size = split.size
    masks = np.zeros((len(indices), size, size), dtype=np.bool_)
    pairs = zip(np.asarray(indices).tolist(), np.asarray(classes).tolist(), strict=True)
    for row, (index, class_id) in enumerate(pairs):
        boxes = split.boxes(index, class_id)
        if len(boxes):
            key = (seed, "annotation", str(split.ids[index]), class_id)
            place = Located(boxes, size, key, _reader(split, index, class_id))
            masks[row] = ANNOTATIONS[found.name](place, **found.arguments)
            if split.is_outside and masks[row].any():
                masks[row] = ~masks[row]
    return torch.from_numpy(masks)


def _reader(split: Split, index: int, class_id: int) -> Callable[[], Pixels | None]:
    def read() -> Pixels | None:
        if not split.outlined[index, class_id]:
            return None
        pixels = split.segmentation([index], [class_id])
        return None if pixels is None else pixels[0].numpy()

    return read


def check_annotation(value: Any) -> Named:
    """Return an annotation in the one form of all ways to write it.

    Arguments that have their defaults are left out.

    Raises:
        InputError: there is no such annotation, or its arguments are wrong.
    """
    found = annotation_of(value)
    function = ANNOTATIONS[found.name]
    wanted = [*inspect.signature(function).parameters.values()][1:]
    # What an annotation is asked for on a small image: a box in the middle, all of it the object.
    whole = np.ones((8, 8), dtype=np.bool_)
    probe = Located(np.array([[2, 2, 6, 6]], dtype=np.int64), 8, (), lambda: whole)
    try:
        drawn = function(probe, **found.arguments)
    except (TypeError, ValueError) as error:
        allowed = ", ".join(parameter.name for parameter in wanted) or "none"
        raise InputError(f"{found.name}: {error}; its arguments are {allowed}") from None
    if not isinstance(drawn, np.ndarray) or drawn.shape != whole.shape or drawn.dtype != np.bool_:
        raise InputError(f"{found.name} does not return (S, S) bool")
    usual = {parameter.name: parameter.default for parameter in wanted}
    arguments = {key: v for key, v in found.arguments.items() if v != usual[key]}
    return found.model_copy(update={"arguments": arguments})


def annotatable(split: Split, annotation: Named) -> NDArray[np.bool_]:
    """Return of which classes of which images an annotation can be drawn, (N, K)."""
    if annotation.name == "none":
        return np.zeros_like(split.located)
    if annotation.name in NEEDS_MASKS:
        return split.located & split.outlined
    return split.located


def check_annotatable(split: Split, annotations: Iterable[Named]) -> list[str]:
    """Refuse annotations that no training image can have, and say how many images lack others.

    Raises:
        InputError: no training image has a mask, and an annotation needs one.
    """
    said = []
    n_located = int(split.located.any(axis=1).sum())
    for annotation in dict.fromkeys(annotations):
        if annotation.name not in NEEDS_MASKS:
            continue
        n_lacking = n_located - int(annotatable(split, annotation).any(axis=1).sum())
        if n_lacking == n_located:
            others = ", ".join(name for name in ANNOTATIONS if name not in NEEDS_MASKS)
            raise InputError(
                f"annotation: {annotation} needs segmentation masks, and none of the "
                f"{n_located:,} training images with a box has one; choose from {others}"
            )
        if n_lacking:
            said.append(
                f"annotation {annotation}: {n_lacking:,} of {n_located:,} training images with a "
                "box have no mask, and are not guided"
            )
    return said


def _check_share(name: str, value: Any, below: float = math.inf) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < below:
        limit = f" and below {below:g}" if below < math.inf else ""
        raise InputError(f"{name} is {value!r}, and must be a share of at least 0{limit}")


def _inside(offsets: NDArray[np.int64], boxes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return (n, 2) offsets as far as they leave boxes in the image."""
    found: NDArray[np.int64] = np.clip(offsets, -boxes[:, :2], size - boxes[:, 2:])
    return found


def _add_disc(drawn: Pixels, row: int, column: int, radius: float) -> None:
    """Draw the pixels whose centres lie within a radius of a pixel's."""
    reach = int(radius)
    top, left = max(0, row - reach), max(0, column - reach)
    window = drawn[top : row + reach + 1, left : column + reach + 1]
    rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
    window |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
