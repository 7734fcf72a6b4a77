"""One image as trained on: its pixels, its masks, and the size that its boxes refer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mg_core.data.boxes import is_scaled, outliers
from mg_core.data.images import file_print, read_image
from mg_core.data.reader import Reader, Record
from mg_core.errors import InputError

RESIZED = "of another size than their annotations say, to which their boxes are scaled"
TURNED = "that EXIF tags turn: the boxes are taken for stored pixels"
MANY = 0.05
"""Share of a split's boxes that are no single slips."""


@dataclass(frozen=True)
class Decoded:
    """A decoded image of a data set.

    Attributes:
        pixels: (3, S, S) RGB.
        size: width and height that the boxes refer to.
        masks: (S, S) pixels by class; none for an image without masks.
        content: `file_print` of the image file.
        oddities: what may be wrong, each worded to follow "3 images".
        mask_flaw: why masks are left out; empty if they are not.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    masks: Mapping[int, NDArray[np.bool_]] | None
    content: int
    oddities: tuple[str, ...]
    mask_flaw: str


def decode(reader: Reader, record: Record, size: int) -> Decoded:
    """Decode an image and its masks at `size` pixels; masks that cannot be read are left out.

    Raises:
        InputError: the image cannot be read, or is not the one that was annotated.
    """
    found = read_image(record.image, size)
    stored = (found.width, found.height)
    oddities = found.oddities
    annotated = record.size or stored
    if annotated != stored:
        _check_aspect(record, annotated, stored, found.orientation)
        oddities += (RESIZED,)
    elif found.orientation > 1 and record.boxes and not _is_decided(record, found.orientation):
        oddities += (TURNED,)
    masks, flaw = None, record.mask_flaw
    if record.segmentation is not None:
        try:
            masks = reader.segmentation(record, size)
        except InputError as error:
            flaw = str(error)
    return Decoded(found.pixels, annotated, masks, file_print(record.image), oddities, flaw)


def _is_decided(record: Record, orientation: int) -> bool:
    """Tell whether the annotated size shows that boxes refer to stored pixels."""
    return orientation >= 5 and record.size is not None and record.size[0] != record.size[1]


def _check_aspect(
    record: Record, annotated: tuple[int, int], stored: tuple[int, int], orientation: int
) -> None:
    """Refuse an image that is not the annotated one at another scale."""
    if is_scaled(annotated, stored):
        return
    (width, height), (own_width, own_height) = annotated, stored
    what = f"{record.image} has {own_width} × {own_height} pixels, but its annotations are for "
    what += f"{width} × {height}"
    if is_scaled((height, width), stored):
        tag = f" (EXIF orientation {orientation})" if orientation > 1 else ""
        what += f": the picture is turned{tag}; turn its pixels to the annotated size"
    raise InputError(what)


def check_units(records: Sequence[Record], split: str, advice: str) -> None:
    """Refuse boxes that are given as shares of the image.

    Raises:
        InputError: all boxes of the split, or too many for slips, end within the first pixel.
    """
    found = [(record.image, box[1:]) for record in records for box in record.boxes]
    corners = np.array([box for _, box in found], dtype=np.float64).reshape(-1, 4)
    is_within = ((corners > -0.5) & (corners < 1.5)).all(axis=1)
    places = np.flatnonzero(is_within & (np.ptp(corners, axis=1) > 0))
    if len(places) and (len(places) == len(found) or len(places) > max(1, MANY * len(found))):
        raise InputError(
            f"{found[places[0]][0]}: {len(places):,} of {len(found):,} boxes of the {split} split "
            f"lie under a pixel, as if given as shares of the image from 0 to 1; {advice}"
        )


def check_labels(has_labels: bool, has_boxes: bool, split: str) -> None:
    """Refuse a split without labels or boxes; the test split may lack them.

    Raises:
        InputError: none of its images has a label, or none has a box.
    """
    if not has_labels and split != "test":
        raise InputError(
            f"no image of the {split} split has a label, so there is nothing to learn or to score"
        )
    if not has_boxes and split != "test":
        raise InputError(
            f"no image of the {split} split has a box, so there is nothing to guide or to judge"
        )


def shortcomings(records: Sequence[Record]) -> str:
    """Return a sentence if the images of a test split have no labels or no boxes."""
    if not any(record.classes or record.group is not None for record in records):
        return "trained models cannot be tested: no image of the test split has a label"
    if not any(record.boxes for record in records):
        return "maps cannot be judged on the test split: none of its images has a box"
    return ""


def beyond(records: Sequence[Record], sizes: Sequence[tuple[int, int]], split: str) -> str:
    """Return a sentence if many boxes reach out of their images, which have these sizes."""
    counts = [len(record.boxes) for record in records]
    corners = np.array([box[1:] for record in records for box in record.boxes], dtype=np.float64)
    sides = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    n_outside = outliers(corners, np.repeat(sides, counts, axis=0))
    if n_outside <= MANY * sum(counts):
        return ""
    return (
        f"{n_outside:,} of {sum(counts):,} boxes of the {split} split reach out of their images: "
        f"the images seem to be of another size than they were annotated at"
    )


def copies(contents: Mapping[str, Sequence[tuple[str, int]]]) -> list[str]:
    """Return a sentence for each split, or pair of splits, in which the same image comes twice.

    Args:
        contents: id and `file_print` of each image, by split.
    """
    sentences = []
    first: dict[str, dict[int, str]] = {}
    for split, items in contents.items():
        known: dict[int, str] = {}
        twice = [
            (name, known[value]) for name, value in items if known.setdefault(value, name) != name
        ]
        for other, found in first.items():
            shared = [(name, found[value]) for name, value in items if value in found]
            if shared:
                sentences.append(
                    f"{len(shared):,} images of the {split} split are in the {other} split too: "
                    f"{_pairs(shared)}"
                )
        if twice:
            sentences.append(
                f"{len(twice):,} images of the {split} split are copies of others in it: "
                f"{_pairs(twice)}"
            )
        first[split] = known
    return sentences


def _pairs(found: Sequence[tuple[str, str]]) -> str:
    named = [name if name == other else f"{name} = {other}" for name, other in found[:3]]
    return ", ".join(named) + (", …" if len(found) > 3 else "")
