"""All that is wrong or odd in a data set's files, found without stopping at the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mg_core.data.boxes import FLAWS, box_flaws
from mg_core.data.images import read_image
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import SPLITS, Reader, Record
from mg_core.errors import InputError

Progress = Callable[[str, int, int], None]


@dataclass
class SplitSummary:
    """What a split holds.

    Attributes:
        n_images: images that can be used.
        n_without_labels: images without any box.
        images_by_class: images with a box of each class.
        boxes_by_class: boxes of each class.
        groups: images of each group, for a data set with tasks.
        n_segmented: images with masks.
        flaws: how many boxes are odd, by `boxes.FLAWS`.
        n_other_size: images of another size than their annotations say.
    """

    n_images: int = 0
    n_without_labels: int = 0
    images_by_class: Counter[int] = field(default_factory=Counter)
    boxes_by_class: Counter[int] = field(default_factory=Counter)
    groups: Counter[int] = field(default_factory=Counter)
    n_segmented: int = 0
    flaws: Counter[str] = field(default_factory=Counter)
    n_other_size: int = 0


@dataclass
class Verification:
    """A data set looked through.

    Attributes:
        splits: by name, those that could be read.
        problems: one sentence for everything that training would refuse.
        fingerprint: none where a file is missing.
    """

    splits: dict[str, SplitSummary] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fingerprint: str | None = None


def verify(reader: Reader, size: int, progress: Progress | None = None) -> Verification:
    """Read every annotation, image and mask of a data set.

    Args:
        reader: of the data set.
        size: side of the trained images, which decides what is too small.
        progress: called with a split, images done and images to do.
    """
    found = Verification()

    def report(split: str, total: int, done: int) -> None:
        if progress is not None:
            progress(split, done, total)

    def note(error: InputError) -> None:
        # The lists are read for the fingerprint too, and some of them for every split.
        if str(error) not in found.problems:
            found.problems.append(str(error))

    for split in SPLITS:
        try:
            records = reader.records(split, note)
        except InputError as error:
            note(error)
            continue
        found.splits[split] = _summary(
            reader, records, size, note, partial(report, split, len(records))
        )
    try:
        found.fingerprint = reader.fingerprint()
    except InputError as error:
        note(error)
    return found


def _summary(
    reader: Reader,
    records: Sequence[Record],
    size: int,
    note: Callable[[InputError], None],
    progress: Callable[[int], None],
) -> SplitSummary:
    summary = SplitSummary()

    def examine(record: Record) -> tuple[int, int] | InputError:
        try:
            _, width, height = read_image(record.image, size)
            if record.segmentation is not None:
                reader.segmentation(record, size)
        except InputError as error:
            return error
        return width, height

    examined = zip(records, in_parallel(examine, records), strict=True)
    for number, (record, result) in enumerate(examined, start=1):
        if isinstance(result, InputError):
            note(result)
        else:
            _add(summary, record, *result, size)
        progress(number)
    return summary


def _add(summary: SplitSummary, record: Record, width: int, height: int, size: int) -> None:
    classes = [box.class_index for box in record.boxes]
    summary.n_images += 1
    summary.n_without_labels += not classes
    summary.images_by_class.update(set(classes))
    summary.boxes_by_class.update(classes)
    if record.group is not None:
        summary.groups[record.group] += 1
    summary.n_segmented += record.segmentation is not None
    corners = np.array([box[1:] for box in record.boxes], dtype=np.float64)
    summary.flaws.update(box_flaws(corners, width, height, size))
    summary.n_other_size += record.size is not None and record.size != (width, height)


def report_lines(found: Verification, classes: Sequence[str]) -> list[str]:
    """Put a verification into words."""
    lines = []
    for split, summary in found.splits.items():
        lines.append(
            f"{split}: {summary.n_images:,} images, {summary.boxes_by_class.total():,} boxes, "
            f"{summary.n_without_labels:,} images without labels, "
            f"{summary.n_segmented:,} with masks"
        )
        if summary.groups:
            groups = (f"{group}: {summary.groups[group]:,}" for group in sorted(summary.groups))
            lines.append(f"  groups {', '.join(groups)}")
        for flaw in FLAWS:
            if summary.flaws[flaw]:
                lines.append(f"  {summary.flaws[flaw]:,} boxes {flaw}")
        if summary.n_other_size:
            lines.append(
                f"  {summary.n_other_size:,} images of another size than their annotations say"
            )
    if found.splits:
        lines += _class_table(found.splits, classes)
    lines += [f"problem: {problem}" for problem in found.problems]
    lines.append(f"{len(found.problems):,} problems")
    lines.append(f"fingerprint {found.fingerprint or 'none: files are missing'}")
    return lines


def _class_table(splits: dict[str, SplitSummary], classes: Sequence[str]) -> list[str]:
    width = max(map(len, [*classes, "images / boxes"]))
    lines = [f"{'images / boxes':{width}}" + "".join(f"{split:>18}" for split in splits)]
    for index, name in enumerate(classes):
        cells = (
            f"{summary.images_by_class[index]:,} / {summary.boxes_by_class[index]:,}"
            for summary in splits.values()
        )
        lines.append(f"{name:{width}}" + "".join(f"{cell:>18}" for cell in cells))
    return lines
