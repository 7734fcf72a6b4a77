"""A table (CSV) with a row for each object: path, class and box."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, StringConstraints

from mg_core.data.layouts.choice import Labelled
from mg_core.data.layouts.collection import Collection, CollectionOptions, Item
from mg_core.data.layouts.delimited import read_table
from mg_core.data.layouts.files import existing_file, is_below, joined, option_file
from mg_core.data.layouts.grouping import (
    Grouping,
    GroupOptions,
    columns_of,
    in_natural_order,
    names_of,
    shown_value,
)
from mg_core.data.layouts.splits import split_files, split_of
from mg_core.data.reader import Report, reporting
from mg_core.errors import InputError

BOX = ("xmin", "ymin", "xmax", "ymax")
NEEDED = ("path", "class", *BOX)
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image", "image_path", "filename", "file_name", "file", "img", "img_filename"),
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


class TableOptions(GroupOptions, CollectionOptions):
    """Options of a table.

    Attributes:
        file: the table, below the data folder; `{split}` in it stands for train, val (or valid,
            validation, dev) and test, each with a table of its own.
        images: folder that the paths count from, below the data folder; none for the table's own.
        columns: names of columns that have others than the usual ones, as in `{class: species}`.
        delimiter: what separates values; none for the most frequent of , ; | and tab.
        box_units: `pixels`, the default, or `relative` for shares of the image from 0 to 1.
        boxes: a further table beside it, which has the boxes and maybe masks of the images by
            their path; none if the table has them.
    """

    file: Annotated[str, StringConstraints(min_length=1)] = "annotations.csv"
    images: str | None = None
    columns: Annotated[str | None, BeforeValidator(_pairs)] = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    # None stands for `pixels`.
    box_units: Annotated[str | None, BeforeValidator(_units)] = None
    boxes: str | None = None


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
    group: tuple[str, ...] | None = None  # its value in each column that makes up groups

    def item(self, place: Place, split: str | None, is_relative: bool) -> Item:
        """Return the row's image without any object."""
        if not self.values["path"]:
            raise InputError(f"{self.source}: path is empty")
        if word := self.values.get("split"):
            split = split_of(word, f"{self.source}, split")
        path = place.path(self.values["path"])
        size = self._size()
        return Item(path, self.source, [], split, size, is_relative, group=self.group)

    def labelled(self, place: Place) -> Labelled | None:
        """Return the row's object, or what it says of the whole image; none if it is a negative."""
        name, box = self.values["class"], [self.values.get(key, "") for key in BOX]
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
    where all objects of the image have one. Further columns may tell groups of images apart, whose
    accuracies are measured (options groups and tasks).
    """

    Options: ClassVar[type[BaseModel]] = TableOptions
    units_advice = "give them in pixels, or set the option box_units: relative"
    options: TableOptions

    def __init__(self, root: Path, options: Any) -> None:
        super().__init__(root, options)
        if options.groups:
            found = [item.group for item in self._items if item.group is not None]
            if not found:
                raise next(iter(self._problems), InputError(f"{root}: no image has a group"))
            where = str(next(iter(self.tables())))
            self._grouping = Grouping.of(options, found, self.classes, where)
            self.groups, self.tasks = self._grouping.names, self._grouping.tasks

    @classmethod
    def task_names(cls, options: Any) -> tuple[str, ...]:
        """Return the columns that are labels to learn."""
        return columns_of(options.tasks)

    @classmethod
    def has_groups(cls, options: Any) -> bool:
        """Tell whether columns make up groups."""
        return options.groups is not None

    @classmethod
    def is_outside(cls, task: str, options: Any) -> bool:
        """Tell whether the evidence for a column lies outside the boxes."""
        return task in columns_of(options.outside)

    def named_classes(self) -> tuple[str, ...]:
        """Return the classes, numbers in their order where these are values of a task."""
        named = super().named_classes()
        return tuple(in_natural_order(named)) if self.options.tasks else named

    def of_split(self, split: str) -> list[Item]:
        """Return the images of a split, of all groups or, in validation, of those trained on."""
        found = super().of_split(split)
        if split == "val" and self.options.val_groups:
            trained = {item.group for item in super().of_split("train")}
            return [item for item in found if item.group in trained]
        return found

    def group_of(self, item: Item) -> int | None:
        """Return the group of an image, which has one class; none in a set without groups.

        Raises:
            InputError: the image has no class or several.
        """
        if item.group is None:
            return None
        classes = {thing.name for thing in item.objects}
        if len(classes) != 1:
            shown = ", ".join(sorted(classes)) or "none"
            raise InputError(
                f"{item.source}: an image of a set with groups has one class, and "
                f"{item.image!r} has {shown}"
            )
        return self._grouping.numbers[item.group]

    def tables(self) -> list[Path]:
        """Return the tables."""
        return [*self._files().values(), *self._tables_of_boxes().values()]

    def _tables_of_boxes(self) -> dict[Path, Path]:
        """Return the further table beside each table, if the option boxes names one."""
        name = self.options.boxes
        if name is None:
            return {}
        files = self._files().values()
        return {file: option_file(file.parent, name, "*.[ct]sv") for file in files}

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
            for row in self._joined(path, report):
                with reporting(report):
                    item = row.item(place, split, is_relative)
                    found = row.labelled(place)
                    first = items.setdefault((item.split, item.image), item)
                    if first.size != item.size:
                        raise InputError(f"{row.source}: another size than in {first.source}")
                    if first.group != item.group:
                        raise InputError(f"{row.source}: another group than in {first.source}")
                    first.objects += [] if found is None else [found]
        return items.values()

    def _joined(self, path: Path, report: Report) -> Iterator[Row]:
        """Yield the rows of a table, each once for every box that another table has for it."""
        further = self._tables_of_boxes().get(path)
        if further is None:
            yield from self._rows(path, report)
            return
        self._check_columns(path, further)
        boxes: dict[str, list[Row]] = {}
        for row in self._rows(further, report, ("path", *BOX), with_groups=False):
            boxes.setdefault(row.values["path"], []).append(row)
        has_any = False
        for row in self._rows(path, report, ("path", "class")):
            own = boxes.get(row.values["path"], [])
            has_any |= bool(own)
            for box in own:
                source = f"{row.source} and {box.source}"
                yield replace(row, values={**box.values, **row.values}, source=source)
            if not own:
                yield row
        if boxes and not has_any:
            first = next(iter(boxes))
            report(InputError(f"{further} names none of the images of {path}, as in {first!r}"))

    def _check_columns(self, path: Path, further: Path) -> None:
        """Refuse a name under the option columns that neither of two tables has."""
        headers = [read_table(file, self.options.delimiter)[0] for file in (path, further)]
        known = {_plain(name) for header in headers for name in header}
        for key, name in self._given().items():
            if _plain(name) not in known:
                own, others = (", ".join(map(repr, header))[:300] for header in headers)
                raise InputError(
                    f"neither {path} nor {further} has a column {name!r}, which the option columns "
                    f"names for {key}; their first lines have {own} and {others}"
                )

    def _given(self) -> dict[str, str]:
        """Return the names that the option columns gives."""
        pairs = (self.options.columns or "").split(",")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    def _rows(
        self,
        path: Path,
        report: Report,
        needed: Sequence[str] = NEEDED,
        with_groups: bool = True,
    ) -> Iterator[Row]:
        header, lines = read_table(path, self.options.delimiter)
        columns = columns_of(self.options.groups) if with_groups else ()
        groups = {name: self._group_place(path, header, name) for name in columns}
        if self.options.tasks:
            needed = [key for key in needed if key != "class"]
        places = self._places(path, header, needed)
        for values, source in lines:
            with reporting(report):
                if len(values) != len(header):
                    raise InputError(
                        f"{source} has {len(values)} values, and the header {len(header)}"
                    )
                yield self._row(values, places, groups, source)

    def _row(
        self, values: list[str], places: dict[str, int], groups: dict[str, int], source: str
    ) -> Row:
        """Return the row at the `places` of columns, its label that of the first task if any."""
        empty = next((name for name, place in groups.items() if not values[place]), None)
        if empty is not None:
            raise InputError(f"{source}: {empty} is empty, and every image has a group")
        names = names_of(self.options.names)
        shown = {name: shown_value(name, values[place], names) for name, place in groups.items()}
        own = {key: values[place] for key, place in places.items()}
        if self.options.tasks and groups:
            own["class"] = shown[columns_of(self.options.tasks)[0]]
        return Row(own, source, tuple(shown.values()) or None)

    def _group_place(self, path: Path, header: list[str], name: str) -> int:
        """Find a column of the groups by its name, or by the usual one of a column."""
        if name in COLUMNS and (place := self._places(path, header, ()).get(name)) is not None:
            return place
        names = [_plain(one) for one in header]
        if _plain(name) in names:
            return names.index(_plain(name))
        raise InputError(
            f"{path} has no column {name!r}, which the option groups names; its first line has "
            f"{', '.join(map(repr, header))[:300]}"
        )

    def _places(self, path: Path, header: list[str], needed: Sequence[str]) -> dict[str, int]:
        """Find the columns."""
        names = [_plain(name) for name in header]
        given = self._given()
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
            # Of two tables, `_check_columns` knows what either must have.
            elif key in needed or (key in given and not self.options.boxes):
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
