"""What of a set is used: its classes, by name, and how many of its images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from mg_core.config import Frozen, PositiveInt
from mg_core.counter import permutation
from mg_core.data.layouts.polygons import Outline
from mg_core.data.reader import Box, Record, Report, reporting
from mg_core.errors import InputError

Corners = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax."""


def _joined(value: Any) -> Any:
    """Join a list of class names as they are spelled in one string."""
    if not isinstance(value, (list, tuple)):
        return value
    if not value:
        raise ValueError("the list is empty; name at least one class")
    for name in value:
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise ValueError(f"{name!r} is no class name; put names such as 'no' in quotes")
        if "," in str(name):
            raise ValueError(f"{name!r} holds a comma, which separates names")
    return ",".join(map(str, value))


def _digits(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _others(value: Any) -> Any:
    if value not in (None, "ignore", "refuse"):
        raise ValueError(f"unknown word {value!r}; choose from ignore, refuse")
    return None if value == "refuse" else value


ClassNames = Annotated[str, Field(min_length=1), BeforeValidator(_joined), BeforeValidator(_digits)]
"""Class names separated by commas, or a list of them."""
Digits = BeforeValidator(lambda value: "" if value is None else _digits(value))
"""Reads a number, such as a year, as its digits, and null as no text."""


class LimitOptions(Frozen):
    """How many images are used.

    Attributes:
        limit: for a quick look, this many images of each split, drawn at random and always the
            same; a larger number draws these and more. None for all.
    """

    limit: PositiveInt | None = None


class ChoiceOptions(LimitOptions):
    """Which objects and images are used. As part of the options both are part of a trial's id.

    Attributes:
        other_classes: what becomes of objects whose class is not among `classes`: they are an
            error (`refuse`, the default), or are left out and counted (`ignore`). An image that
            has no other objects then stays, as a negative of every class: it decides precision,
            as the images of COCO without any object do.
    """

    # None stands for `refuse`, so that the ids of earlier trials stay valid.
    other_classes: Annotated[str | None, BeforeValidator(_others)] = None


def split_names(text: str) -> tuple[str, ...]:
    """Split a list of class names at its commas."""
    names = tuple(name.strip() for name in text.split(","))
    repeated = [name for name in names if names.count(name) > 1]
    if "" in names or repeated:
        what = f"{repeated[0]!r} is there twice" if repeated and repeated[0] else "a name is empty"
        raise InputError(f"option classes: {what} in {text!r}")
    return names


@dataclass
class Classes:
    """The classes that are used; `left_out` notes the others that were met."""

    names: tuple[str, ...]
    ignores_others: bool = False
    left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._indices = {name: index for index, name in enumerate(self.names)}

    def index(self, name: str, where: str) -> int | None:
        """Return the index of a class; none for one that is left out.

        Raises:
            InputError: another class, if others are refused; the message begins with `where`.
        """
        found = self._indices.get(name)
        if found is None and not self.ignores_others:
            raise InputError(
                f"{where}: class {name!r} is not one of {', '.join(self.names)}; add it to the "
                f"option classes, or leave others out by other_classes: ignore"
            )
        if found is None:
            self.left_out.add(name)
        return found

    def check(self, records: Iterable[Record], official: Sequence[str] = ()) -> None:
        """Refuse a class that nothing shows, where a misspelt one would not be noticed.

        Args:
            records: the training images.
            official: names that are listed without being chosen.

        Raises:
            InputError: others are ignored, and no record has a class that was chosen.
        """
        if not self.ignores_others or self.names == tuple(official):
            return
        shown = {index for record in records for index in record.classes}
        absent = [name for index, name in enumerate(self.names) if index not in shown]
        if absent:
            others = ", ".join(sorted(self.left_out)[:20]) or "none"
            raise InputError(
                f"option classes: no training image shows {absent[0]!r}; other classes there: "
                f"{others}"
            )


@dataclass(slots=True)
class Labelled:
    """An object of an image, or a class that is known of the whole image."""

    name: str
    where: str  # for messages
    corners: Corners | None  # none if only the class is known
    outline: Outline | None = None
    flaw: str = ""  # why it is of no use; empty if it is


@dataclass
class Chosen:
    """The objects of an image that are used.

    Attributes:
        boxes: an object each.
        outlines: one for each box; none if one has no outline or there is no box.
        image_classes: classes that are known of the whole image.
        n_other: objects and classes that are left out.
    """

    boxes: tuple[Box, ...]
    outlines: tuple[Outline, ...] | None
    image_classes: tuple[int, ...]
    n_other: int


def choose(found: Sequence[Labelled], classes: Classes, report: Report) -> Chosen:
    """Find the classes of an image's objects; what is wrong with one is reported."""
    boxes: list[Box] = []
    outlines: list[Outline | None] = []
    labels: dict[int, None] = {}
    n_other = 0
    for item in found:
        with reporting(report):
            index = classes.index(item.name, item.where)
            if index is None:
                n_other += 1
            elif item.flaw:
                raise InputError(f"{item.where}: {item.flaw}")
            elif item.corners is None:
                labels[index] = None
            else:
                boxes.append(Box(index, *item.corners))
                outlines.append(item.outline)
    whole = tuple(outline for outline in outlines if outline is not None)
    has_all = bool(whole) and len(whole) == len(boxes)
    return Chosen(tuple(boxes), whole if has_all else None, tuple(labels), n_other)


def limited(records: Sequence[Record], split: str, limit: int | None) -> Sequence[Record]:
    """Return a random part of a split, in its order; all of it without a limit."""
    if limit is None or limit >= len(records):
        return records
    drawn = permutation(len(records), 0, "limit", split)[:limit]
    return [records[index] for index in np.sort(drawn)]
