"""A table (CSV) with a row for each object: path, class and box."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, StringConstraints

from mg_core.data.layouts.choice import Labelled
from mg_core.data.layouts.collection import Collection, CollectionOptions, Item
from mg_core.data.layouts.delimited import read_table
from mg_core.data.layouts.files import existing_file, is_below, joined, option_file
from mg_core.data.layouts.splits import split_files, split_of
from mg_core.data.reader import Report, reporting
from mg_core.errors import InputError

BOX = ("xmin", "ymin", "xmax", "ymax")
NEEDED = ("path", "class", *BOX)
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image", "image_path", "filename", "file_name", "file", "img"),
    "class": ("class", "class_name", "label", "category", "object"),
    "xmin": ("xmin", "x_min", "x1", "left", "bbox_xmin"),
    "ymin": ("ymin", "y_min", "y1", "top", "bbox_ymin"),
    "xmax": ("xmax", "x_max", "x2", "right", "bbox_xmax"),
    "ymax": ("ymax", "y_max", "y2", "bottom", "bbox_ymax"),
    "split": ("split", "subset", "set", "partition"),
    "mask": ("mask", "mask_path"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}
"""The names that a column may have; upper case, spaces and dashes make no difference."""


def _pairs(value: Any) -> Any:
    """Spell a mapping of columns as one string, sorted."""
    if isinstance(value, str):
        value = dict(part.partition("=")[::2] for part in value.split(","))
    if not isinstance(value, Mapping):
        return value
    pairs = {str(key).strip(): str(name).strip() for key, name in value.items()}
    unknown = next((key for key in pairs if key not in COLUMNS), None)
    if unknown is not None:
        raise ValueError(f"{unknown!r} is no column; choose from {', '.join(COLUMNS)}")
    if not all(pairs.values()) or any(set(name) & set(",=") for name in pairs.values()):
        raise ValueError("a column's name is empty, or holds a comma or =")
    return ",".join(f"{key}={pairs[key]}" for key in sorted(pairs))


def _units(value: Any) -> Any:
    if value not in (None, "pixels", "relative"):
        raise ValueError(f"unknown unit {value!r}; choose from pixels, relative")
    return None if value == "pixels" else value


class TableOptions(CollectionOptions):
    """Options of a table.

    Attributes:
        file: the table, below the data folder; `{split}` in it stands for train, val (or valid,
            validation, dev) and test, each with a table of its own.
        images: folder that the paths count from, below the data folder; none for the table's own.
        columns: names of columns that have others than the usual ones, as in `{class: species}`.
        delimiter: what separates values; none for the most frequent of , ; | and tab.
        box_units: `pixels`, the default, or `relative` for shares of the image from 0 to 1.
    """

    file: Annotated[str, StringConstraints(min_length=1)] = "annotations.csv"
    images: str | None = None
    columns: Annotated[str | None, BeforeValidator(_pairs)] = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    # None stands for `pixels`.
    box_units: Annotated[str | None, BeforeValidator(_units)] = None


class Place:
    """The folder, below the data folder `root`, that the paths of a table count from."""

    def __init__(self, root: Path, folder: str) -> None:
        self.root = root
        self._folder = folder
        self._whole = f"{root.resolve().as_posix()}/"

    def path(self, name: str) -> str:
        """Return a path as it counts from `root`; a whole one into it is good too."""
        # One spelling, so that all rows of an image find each other.
        path = joined(self._folder, unicodedata.normalize("NFC", name))
        return path.removeprefix(self._whole)


@dataclass(frozen=True)
class Row:
    """A line of a table, by the usual names of its columns."""

    values: Mapping[str, str]
    source: str  # file and line number, for messages

    def item(self, place: Place, split: str | None, is_relative: bool) -> Item:
        """Return the row's image without any object."""
        if not self.values["path"]:
            raise InputError(f"{self.source}: path is empty")
        if word := self.values.get("split"):
            split = split_of(word, f"{self.source}, split")
        path = place.path(self.values["path"])
        return Item(path, self.source, [], split, self._size(), is_relative)

    def labelled(self, place: Place) -> Labelled | None:
        """Return the row's object, or what it says of the whole image; none if it is a negative."""
        name, box = self.values["class"], [self.values[key] for key in BOX]
        if not name and any(box):
            raise InputError(f"{self.source}: there is a box and no class")
        if not name:
            return None
        if not any(box):
            return Labelled(name, self.source, None)
        xmin, ymin, xmax, ymax = (self._number(key) for key in BOX)
        mask = None
        if path := self.values.get("mask"):
            mask = existing_file(place.root, place.path(path), self.source)
        return Labelled(name, self.source, (xmin, ymin, xmax, ymax), mask)

    def _number(self, key: str) -> float:
        try:
            found = float(self.values[key])
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise InputError(f"{self.source}: {key} is {self.values[key]!r}, not a number")
        return found

    def _size(self) -> tuple[int, int] | None:
        if not (self.values.get("width") and self.values.get("height")):
            return None
        width, height = self._number("width"), self._number("height")
        if not (width >= 1 and height >= 1):
            raise InputError(f"{self.source}: {width:g} × {height:g} is no size of an image")
        return int(width), int(height)


class Table(Collection):
    """Reader of a table (CSV) with a row for each object: path, class, xmin, ymin, xmax, ymax.

    Several rows may be about one image. A row without a box says that the image shows the class
    somewhere: the classifier learns it, and no map is guided or judged by it. A row with a path
    alone is a negative. A column `split` says which images are for train, val and test; otherwise
    they are drawn. Columns `width` and `height` give the size that the boxes refer to, if the
    pictures were resized since; `mask` is a picture in which an object's pixels are not 0, used
    where all objects of the image have one.
    """

    Options: ClassVar[type[BaseModel]] = TableOptions
    units_advice = "give them in pixels, or set the option box_units: relative"
    options: TableOptions

    def tables(self) -> list[Path]:
        """Return the tables."""
        return list(self._files().values())

    def _files(self) -> dict[str | None, Path]:
        """Return the table of each split, or that of all."""
        name = self.options.file
        if "{split}" in name and is_below(name):
            found = split_files(self.root, name)
            if found:
                return dict(found.items())
        return {None: option_file(self.root, name, "*.[ct]sv")}

    def read(self, report: Report) -> Iterable[Item]:
        """Read all tables, and gather the rows of each image."""
        items: dict[tuple[str | None, str], Item] = {}
        for split, path in self._files().items():
            beside = path.parent.relative_to(self.root).as_posix()
            place = Place(self.root, beside if self.options.images is None else self.options.images)
            is_relative = self.options.box_units == "relative"
            for row in self._rows(path, report):
                with reporting(report):
                    item = row.item(place, split, is_relative)
                    found = row.labelled(place)
                    first = items.setdefault((item.split, item.image), item)
                    if first.size != item.size:
                        raise InputError(f"{row.source}: another size than in {first.source}")
                    first.objects += [] if found is None else [found]
        return items.values()

    def _rows(self, path: Path, report: Report) -> Iterator[Row]:
        header, lines = read_table(path, self.options.delimiter)
        places = self._places(path, header)
        for values, source in lines:
            if len(values) == len(header):
                yield Row({key: values[place] for key, place in places.items()}, source)
            else:
                report(
                    InputError(f"{source} has {len(values)} values, and the header {len(header)}")
                )

    def _places(self, path: Path, header: list[str]) -> dict[str, int]:
        """Find the columns."""
        names = [_plain(name) for name in header]
        given = dict(part.split("=", 1) for part in (self.options.columns or "").split(",") if part)
        places = {}
        for key, usual in COLUMNS.items():
            accepted = (_plain(given[key]),) if key in given else usual
            found = next((names.index(name) for name in accepted if name in names), None)
            if found is not None and names.count(names[found]) > 1:
                raise InputError(
                    f"{path}: its first line has {header[found]!r} {names.count(names[found])} "
                    f"times; each column needs a name of its own"
                )
            if found is not None:
                places[key] = found
            elif key in NEEDED or key in given:
                advice = f"name it by the option columns, as in {{{key}: its name there}}"
                if len(header) == 1:
                    advice = "say by the option delimiter what separates its values"
                raise InputError(
                    f"{path} has no column {given.get(key, key)!r}; its first line has "
                    f"{', '.join(map(repr, header))[:300]}: {advice}"
                )
        return places


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
