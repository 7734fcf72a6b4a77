"""What a data set is to the rest of the code: a folder, read into records."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mg_core.config import Frozen
from mg_core.errors import InputError

SPLITS = ("train", "val", "test")
CHUNK = 2**20

Report = Callable[[InputError], None]
"""Called with what is wrong with one item, which is then left out."""


def refuse(error: InputError) -> None:
    """Raise: nothing that is wrong is left out of training."""
    raise error


class Box(NamedTuple):
    """An annotated object, in pixels of the stored image; `max` is the first pixel outside."""

    class_index: int
    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a split; its labels are the classes of its boxes.

    A data set with tasks gives every image a group, which decides its label in each task.

    Attributes:
        id: unique within the split.
        image: file of the image.
        boxes: annotated objects, those marked difficult included.
        size: width and height according to the annotations, which may be wrong.
        segmentation: whatever the reader's `segmentation` needs; none where there are no masks.
        group: index into the `classes` of every task of the data set.
    """

    id: str
    image: Path
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    segmentation: Any = None
    group: int | None = None


@dataclass(frozen=True)
class Task:
    """One of several questions about the same images.

    Attributes:
        classes: the class of an image, by its group.
        names: of the classes in this task.
        is_outside: whether the evidence is what the boxes leave out.
    """

    classes: tuple[int, ...]
    names: tuple[str, ...]
    is_outside: bool = False


class NoOptions(Frozen):
    """A data set without settings of its own."""


class Reader(ABC):
    """A data set's files; subclasses are registered in `DATASETS`.

    Args:
        root: folder that `locate` returned.
        options: validated instance of `Options`.

    Attributes:
        Options: pydantic model of the settings under `options` of a data set.
        tasks: by name, the usual one first; empty where a label is what a box says.
        classes: names of the classes, in the order of the label columns.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    tasks: ClassVar[Mapping[str, Task]] = {}
    classes: tuple[str, ...]

    @abstractmethod
    def __init__(self, root: Path, options: Any) -> None: ...

    @classmethod
    def locate(cls, root: str | None, options: Any, cache: Path) -> Path:
        """Return the folder to read; a synthetic data set makes it first.

        Raises:
            InputError: no folder is given, or it is not there.
        """
        if root is None:
            raise InputError("this data set needs the folder it lies in: give it as `root`")
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise InputError(f"data folder {folder} does not exist")
        return folder

    @abstractmethod
    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the annotations of a split.

        Args:
            split: name of the split.
            report: what to do about an item that is wrong.

        Raises:
            InputError: names the file that cannot be read at all.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the files of all splits, the same on every node.

        Raises:
            InputError: a file that the lists name is missing.
        """

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the pixels of every class in an image that has masks, (size, size) each.

        Raises:
            InputError: names the file that cannot be read.
        """
        # Asked for only where a record names masks; a reader whose records do must read them.
        raise NotImplementedError


def fingerprint(root: Path, annotations: Iterable[Path], images: Iterable[Path]) -> str:
    """Hash the bytes of annotations and the sizes of images, with their paths below `root`.

    Modification times stay out, so that copies of a data set agree.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    total = hashlib.sha256()
    try:
        for path in sorted(set(annotations)):
            content = _sha256(path)
            total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
        for path in sorted(set(images)):
            size = path.stat().st_size
            total.update(f"{path.relative_to(root).as_posix()}\0{size}\n".encode())
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return total.hexdigest()[:32]


def _sha256(path: Path) -> str:
    # Piece by piece: the annotations of COCO are half a gigabyte, in every trial.
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def existing_file(folder: Path, name: str, source: str) -> Path:
    """Return the file that an annotation names, which must lie below the folder.

    Raises:
        InputError: it is missing, or the name leads elsewhere.
    """
    path = folder / name
    # Control characters and halves of surrogate pairs are in no encoding of file names.
    is_name = bool(name) and not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)
    try:
        is_there = is_name and path.is_file()
    except OSError:  # Too long, or in a folder that cannot be entered.
        is_name = False
    if not is_name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{source} names {name[:200]!r}, which is no file below {folder}")
    if not is_there:
        raise InputError(f"{path}, named by {source}, is missing")
    return path
