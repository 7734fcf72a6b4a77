"""Verification of a data set: reads all its files and lists everything that is wrong or odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mg_core.data.boxes import FLAWS, box_flaws
from mg_core.data.cache import decode
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import SPLITS, Progress, Reader, Record, reporting, silent
from mg_core.errors import InputError


@dataclass
class SplitSummary:
    """Counts of the images of a split that can be used."""

    n_images: int = 0
    n_without_labels: int = 0
    images_by_class: Counter[int] = field(default_factory=Counter)
    boxes_by_class: Counter[int] = field(default_factory=Counter)
    groups: Counter[int] = field(default_factory=Counter)  # images; empty without tasks
    n_segmented: int = 0
    flaws: Counter[str] = field(default_factory=Counter)  # odd boxes, by `boxes.FLAWS`
    n_other_size: int = 0  # images of another size than their annotations say

    def add(self, record: Record, width: int, height: int, size: int) -> None:
        """Count an image of width × height pixels that is trained on at `size`."""
        classes = [box.class_index for box in record.boxes]
        self.n_images += 1
        self.n_without_labels += not classes
        self.images_by_class.update(set(classes))
        self.boxes_by_class.update(classes)
        if record.group is not None:
            self.groups[record.group] += 1
        self.n_segmented += record.segmentation is not None
        corners = np.array([box[1:] for box in record.boxes], dtype=np.float64)
        self.flaws.update(box_flaws(corners, width, height, size))
        self.n_other_size += record.size is not None and record.size != (width, height)


@dataclass
class Verification:
    """What a verification found."""

    splits: dict[str, SplitSummary] = field(default_factory=dict)  # those that could be read
    problems: list[str] = field(default_factory=list)  # what training would refuse
    fingerprint: str | None = None  # none if a file is missing


def verify(reader: Reader, size: int, progress: Progress = silent) -> Verification:
    """Read every annotation, image and mask of a data set that is trained on at `size` pixels."""
    found = Verification()

    def note(error: InputError) -> None:
        # Some files are read more than once: for the fingerprint, or for every split.
        if str(error) not in found.problems:
            found.problems.append(str(error))

    def examine(record: Record) -> tuple[int, int] | InputError:
        try:
            _, width, height, _ = decode(reader, record, size)
        except InputError as error:
            return error
        return width, height

    for split in SPLITS:
        with reporting(note):
            records = reader.records(split, note)
            summary = found.splits[split] = SplitSummary()
            examined = zip(records, in_parallel(examine, records), strict=True)
            for number, (record, sides) in enumerate(examined, start=1):
                if isinstance(sides, InputError):
                    note(sides)
                else:
                    summary.add(record, *sides, size)
                progress(split, number, len(records))
    with reporting(note):
        found.fingerprint = reader.fingerprint()
    return found


def report_lines(found: Verification, classes: Sequence[str]) -> list[str]:
    """Return the lines that `mg-data verify` prints: counts, flaws, classes and problems."""
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
    fingerprint = found.fingerprint or "none: files are missing"
    return [*lines, f"{len(found.problems):,} problems", f"fingerprint {fingerprint}"]


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
