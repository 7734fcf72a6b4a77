"""The interface of a data set: a reader turns a folder into records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mg_core.config import Frozen
from mg_core.errors import InputError
from mg_core.paths import with_home

SPLITS = ("train", "val", "test")

Progress = Callable[[str, int, int], None]
"""Called with the split in work, images done and images to do."""
Report = Callable[[InputError], None]
"""Called with what is wrong with one item, which is then left out."""


def silent(split: str, done: int, total: int) -> None:
    """Show no progress."""


def refuse(error: InputError) -> None:
    """Raise the error: training uses a data set without a mistake or not at all."""
    raise error


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Hand an InputError of the block to `report` instead of raising it."""
    try:
        yield
    except InputError as error:
        report(error)


class Box(NamedTuple):
    """An annotated object, in pixels of the stored image; `max` is the first pixel outside."""

    class_index: int
    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a split; its labels are the classes of its boxes and its `image_classes`.

    In a data set with groups every image has one; where there are tasks, it decides the image's
    label in each of them.

    Attributes:
        id: unique within the split.
        image: path of the image file.
        boxes: annotated objects, those marked difficult included.
        size: width and height according to the annotations, to which the boxes refer; none if they
            refer to the stored image.
        segmentation: whatever the reader's `segmentation` needs; none for an image without masks.
        group: index into the reader's `groups`, and into the `classes` of every task.
        mask_flaw: why the image's masks are left out, in a sentence; empty if they are not.
        image_classes: classes that the image shows at an unknown place: the classifier learns them,
            and no map is guided or judged by them.
        n_other: annotated objects that are left out, since their class is not used.
    """

    id: str
    image: Path
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    segmentation: Any = None
    group: int | None = None
    mask_flaw: str = ""
    image_classes: tuple[int, ...] = ()
    n_other: int = 0

    @property
    def classes(self) -> list[int]:
        """The classes of the image, each once."""
        return sorted({*(box.class_index for box in self.boxes), *self.image_classes})


@dataclass(frozen=True)
class Task:
    """One of several questions about the same images.

    Attributes:
        classes: the class of an image, by its group.
        names: class names in this task.
        is_outside: whether the evidence lies outside the boxes.
    """

    classes: tuple[int, ...]
    names: tuple[str, ...]
    is_outside: bool = False


def find_task(tasks: Mapping[str, Task], name: str | None) -> Task | None:
    """Return a task, by default the first; none for a data set without tasks.

    Raises:
        InputError: there is no task of this name.
    """
    if name is None:
        return next(iter(tasks.values()), None)
    if name not in tasks:
        raise InputError(
            f"unknown task {name!r}; this data set has {', '.join(tasks) or 'no tasks'}"
        )
    return tasks[name]


class NoOptions(Frozen):
    """The options of a data set that has none."""


class Reader(ABC):
    """The files of a data set; subclasses are registered in `DATASETS`.

    Args:
        root: folder that `locate` returned.
        options: validated instance of `Options`.

    Attributes:
        Options: pydantic model of the `options` in a data set's configuration.
        tasks: by name, the default one first; empty where the boxes decide the labels.
        groups: names of the groups whose accuracies are told apart; empty where there are none.
            Those of a data set with tasks need no names.
        is_multi_label: whether an image may have several labels; none where the files decide. One
            in a data set with tasks or groups has one label in each task.
        classes: class names, in the order of the label columns.
        units_advice: what to do about boxes that are shares of the image.

    Example:
        A table with columns path, class, xmin, ymin, xmax, ymax and split. (The one that is there,
        `csv`, takes more spellings, and says where a mistake is.) In a module of its own, it is
        named by `imports` in a sweep file and by `mg-data verify robins --import my_module`.

        >>> import csv, hashlib, mg_core
        >>> from collections import defaultdict
        >>> @mg_core.DATASETS.register("robins")
        ... class Robins(mg_core.Reader):
        ...     classes = ("robin", "wren")
        ...
        ...     def __init__(self, root, options):
        ...         self.root, self.table = root, root / "birds.csv"
        ...
        ...     def records(self, split, report=None):
        ...         boxes = defaultdict(list)
        ...         with self.table.open() as file:
        ...             for row in csv.DictReader(file):
        ...                 if row["split"] == split:
        ...                     kind = self.classes.index(row["class"])
        ...                     corners = (row[key] for key in ("xmin", "ymin", "xmax", "ymax"))
        ...                     boxes[row["path"]].append(mg_core.Box(kind, *map(float, corners)))
        ...         return [mg_core.Record(p, self.root / p, tuple(boxes[p])) for p in boxes]
        ...
        ...     def fingerprint(self):
        ...         return hashlib.sha256(self.table.read_bytes()).hexdigest()
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    is_multi_label: ClassVar[bool | None] = None
    tasks: Mapping[str, Task] = MappingProxyType({})
    groups: tuple[str, ...] = ()
    units_advice: ClassVar[str] = "give them in pixels"
    classes: tuple[str, ...]

    @abstractmethod
    def __init__(self, root: Path, options: Any) -> None: ...

    @classmethod
    def class_names(cls, options: Any) -> tuple[str, ...] | None:
        """Return the class names if they are known without the files, else none."""
        return getattr(cls, "classes", None)

    @classmethod
    def task_names(cls, options: Any) -> tuple[str, ...]:
        """Return the names of the tasks, which are known without the files."""
        return tuple(cls.tasks)

    @classmethod
    def has_groups(cls, options: Any) -> bool:
        """Tell whether the images have groups, which is known without the files."""
        return bool(cls.groups or cls.task_names(options))

    @classmethod
    def is_outside(cls, task: str, options: Any) -> bool:
        """Tell whether the evidence for a task lies outside the boxes."""
        return task in cls.tasks and cls.tasks[task].is_outside

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names of the groups; numbers where a data set with tasks names none."""
        if self.groups or not self.tasks:
            return tuple(self.groups)
        first = next(iter(self.tasks.values()))
        return tuple(f"group {number}" for number in range(len(first.classes)))

    @classmethod
    def locate(cls, root: str | Path | None, options: Any, cache: Path) -> Path:
        """Return the folder to read; a synthetic data set is written first.

        Args:
            root: folder that the user gave, if any.
            options: validated instance of `Options`.
            cache: folder for what can be made again.

        Raises:
            InputError: no folder is given, or it does not exist.
        """
        if root is None:
            raise InputError(
                "this data set needs the folder it lies in: give it as `root` (--root)"
            )
        folder = with_home(root)
        if not folder.is_dir():
            raise InputError(f"data folder {folder} does not exist")
        return folder

    @abstractmethod
    def records(self, split: str, report: Report = refuse) -> Sequence[Record]:
        """Read the annotations of a split.

        Args:
            split: one of `SPLITS`.
            report: called for every item that is wrong; the item is left out.

        Raises:
            InputError: names the file that cannot be read at all.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the files of all splits, the same on every node.

        Raises:
            InputError: a listed file is missing.
        """

    def former_fingerprint(self) -> str:
        """Return the fingerprint by which earlier versions of this package knew the same files."""
        return self.fingerprint()

    def release(self) -> None:
        """Let go of what can be read again; called when nothing is asked for for a while."""
        return

    def segmentation(self, record: Record, size: int) -> Mapping[int, NDArray[np.bool_]]:
        """Return the (size, size) pixels of every class in an image that has masks.

        Args:
            record: its `segmentation` is not none.
            size: side of the trained image in pixels.

        Raises:
            InputError: names the file that cannot be read.
        """
        # Called only for records with masks; a reader that makes such records overrides it.
        raise NotImplementedError
