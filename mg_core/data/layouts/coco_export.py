"""COCO's annotations as Roboflow, CVAT and other programs export them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, StringConstraints

from mg_core.data.layouts.coco_json import Entry, read_instances
from mg_core.data.layouts.collection import Collection, CollectionOptions, Item
from mg_core.data.layouts.files import existing_file, is_below, joined
from mg_core.data.layouts.splits import spelled, split_files
from mg_core.data.reader import Report, reporting
from mg_core.errors import InputError

FILES = (
    "{split}/_annotations.coco.json",
    "annotations/instances_{split}.json",
    "annotations/{split}.json",
    "{split}.json",
    "_annotations.coco.json",
    "annotations/instances_default.json",
    "annotations.json",
    "instances.json",
    "labels.json",
    "result.json",
)
"""Where programs put the annotations; the first that is there counts."""
FOLDERS = ("{folder}", "images/{split}", "{split}", "images/default", "images", "data", ".")
"""Where they put the images, relative to the data folder; `{folder}` is that of annotations."""


class CocoExportOptions(CollectionOptions):
    """Options of an export in COCO's format.

    Attributes:
        file: the annotations, below the data folder; `{split}` in it stands for train, val (or
            valid, validation, dev) and test. None for the usual places.
        images: folder that the file names count from, below the data folder, maybe with `{split}`;
            none for the usual places.
    """

    file: Annotated[str, StringConstraints(min_length=1)] | None = None
    images: str | None = None


class CocoExport(Collection):
    """Reader of `_annotations.coco.json` beside images, and of other exports in COCO's format.

    There is one file of annotations a split, or one for all images, of which splits are drawn.
    Classes are the categories that an annotation uses. Images without annotations are negatives;
    crowds count as boxes. (COCO's own folders are `coco2014`.)
    """

    Options: ClassVar[type[BaseModel]] = CocoExportOptions
    options: CocoExportOptions

    def tables(self) -> list[Path]:
        """Return the files of annotations."""
        return [path for _, path in self._files()]

    def read(self, report: Report) -> Iterable[Item]:
        """Read all files of annotations."""
        for split, path in self._files():
            entries = read_instances(path, report)
            folder = self._folder(split, path, entries)
            for entry in entries:
                with reporting(report):
                    yield _item(entry, folder, split)

    def _files(self) -> list[tuple[str | None, Path]]:
        """Return the annotations with the split that they are of, if they are of one."""
        asked = (self.options.file,) if self.options.file else FILES
        for pattern in asked:
            if is_below(pattern) and "{split}" in pattern:
                found: list[tuple[str | None, Path]] = [*split_files(self.root, pattern).items()]
            else:
                path = self.root / pattern
                found = [(None, path)] if is_below(pattern) and os.path.isfile(path) else []
            if found:
                return found
        wanted = " or ".join(asked[:2]).replace("{split}", "train")
        raise InputError(
            f"{self.root} holds no COCO export: {wanted} is missing; name the annotations by the "
            f"option file"
        )

    def _folder(self, split: str | None, path: Path, entries: list[Entry]) -> str:
        """Return the folder, relative to the data folder, that the file names count from."""
        beside = path.parent.relative_to(self.root).as_posix()
        asked = (self.options.images,) if self.options.images else FOLDERS
        folders = [
            pattern.replace("{folder}", beside).replace("{split}", word)
            for pattern in asked
            for word in (spelled(split) if split else [""])
        ]
        for folder in folders:
            with contextlib.suppress(InputError):
                for entry in entries[:1]:
                    existing_file(self.root, _item(entry, folder, split).image, entry.source)
                return folder
        return folders[0]


def _item(entry: Entry, folder: str, split: str | None) -> Item:
    image = joined(folder, entry.file_name)
    size = (entry.width, entry.height)
    return Item(image, entry.source, entry.objects, split, size, mask_flaw=entry.mask_flaw)
