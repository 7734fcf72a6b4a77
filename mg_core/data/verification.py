"""Verification of a data set: reads all its files and lists everything that is wrong or odd."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mg_core.data.boxes import FLAWS, box_flaws
from mg_core.data.decoding import Decoded, beyond, check_labels, check_units, copies, decode
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import SPLITS, Progress, Reader, Record, reporting, silent
from mg_core.errors import InputError

NOTHING = np.empty((3, 0, 0), dtype=np.uint8)
SHOWN = 3
"""Sentences of one kind that are shown."""
SPECIFIC = re.compile(r"'[^']*'|\S*/.*?\.\w+(?=\W|$)|\d+")
"""Quoted text, paths of files, and numbers."""


@dataclass
class SplitSummary:
    """Counts of the images of a split that can be used."""

    n_images: int = 0
    n_without_labels: int = 0
    images_by_class: Counter[int] = field(default_factory=Counter)
    boxes_by_class: Counter[int] = field(default_factory=Counter)
    groups: Counter[int] = field(default_factory=Counter)  # images; empty without groups
    n_segmented: int = 0
    n_unlocated: int = 0  # labels of images without a box of their class
    n_other: int = 0  # objects of classes that are not used
    flaws: Counter[str] = field(default_factory=Counter)  # odd boxes, by `boxes.FLAWS`
    oddities: Counter[str] = field(default_factory=Counter)  # images, by `Decoded.oddities`
    mask_flaws: list[str] = field(default_factory=list)  # why images lack their masks

    def add(self, record: Record, found: Decoded, size: int) -> None:
        """Count an image that is trained on at `size`."""
        classes = [box.class_index for box in record.boxes]
        self.n_images += 1
        self.n_without_labels += not record.classes
        self.n_unlocated += len(set(record.classes) - set(classes))
        self.n_other += record.n_other
        self.images_by_class.update(record.classes)
        self.boxes_by_class.update(classes)
        if record.group is not None:
            self.groups[record.group] += 1
        self.n_segmented += found.masks is not None
        corners = np.array([box[1:] for box in record.boxes], dtype=np.float64)
        self.flaws.update(box_flaws(corners, *found.size, size))
        self.oddities.update(found.oddities)
        self.mask_flaws += [found.mask_flaw] if found.mask_flaw else []


@dataclass
class Verification:
    """What a verification found."""

    splits: dict[str, SplitSummary] = field(default_factory=dict)  # those that could be read
    problems: list[str] = field(default_factory=list)  # what should be put right
    fingerprint: str | None = None  # none if a file is missing


def verify(reader: Reader, size: int, progress: Progress = silent) -> Verification:
    """Read every annotation, image and mask of a data set that is trained on at `size` pixels."""
    found = Verification()
    # Some files are read more than once: for the fingerprint, or for every split.
    problems: dict[str, None] = {}

    def note(error: InputError) -> None:
        problems[str(error)] = None

    def examine(record: Record) -> Decoded | InputError:
        try:
            decoded = decode(reader, record, size)
            # Copies may be stored in another format, or with other metadata.
            seen = hashlib.sha256(decoded.pixels.tobytes()).digest()[:8]
            # The pixels of all images do not fit into memory.
            return replace(decoded, pixels=NOTHING, content=int.from_bytes(seen, "big"))
        except InputError as error:
            return error

    contents: dict[str, list[tuple[str, int]]] = {}
    for split in SPLITS:
        with reporting(note):
            records = reader.records(split, note)
            summary = found.splits[split] = SplitSummary()
            contents[split], sizes, usable = [], [], []
            examined = zip(records, in_parallel(examine, records), strict=True)
            for number, (record, decoded) in enumerate(examined, start=1):
                if isinstance(decoded, InputError):
                    note(decoded)
                else:
                    summary.add(record, decoded, size)
                    contents[split].append((record.id, decoded.content))
                    sizes.append(decoded.size)
                    usable.append(record)
                progress(split, number, len(records))
            if sentence := beyond(usable, sizes, split):
                problems[sentence] = None
            with reporting(note):
                has_labels = bool(summary.images_by_class) or not usable
                check_labels(has_labels, bool(summary.boxes_by_class) or not usable, split)
            check_units(usable, split, reader.units_advice)
    problems |= dict.fromkeys(copies(contents))
    with reporting(note):
        found.fingerprint = reader.fingerprint()
    found.problems = list(problems)
    return found


def report_lines(
    found: Verification, classes: Sequence[str], names: Sequence[str] = ()
) -> list[str]:
    """Return the lines that `mg-data verify` prints: counts, flaws, classes and problems.

    `names` are those of the groups, if there are any.
    """
    lines = []
    for split, summary in found.splits.items():
        lines.append(
            f"{split}: {summary.n_images:,} images, {summary.boxes_by_class.total():,} boxes, "
            f"{summary.n_without_labels:,} images without labels, "
            f"{summary.n_segmented:,} with masks"
        )
        if summary.groups:
            groups = (f"{group}: {summary.groups[group]:,}" for group in sorted(summary.groups))
            absent = [str(number) for number in range(len(names)) if number not in summary.groups]
            rest = f"; none of {', '.join(absent)}" if absent else ""
            lines.append(f"  groups {', '.join(groups)}{rest}")
        if summary.n_unlocated:
            lines.append(f"  {summary.n_unlocated:,} labels without a box")
        if summary.n_other:
            lines.append(f"  {summary.n_other:,} objects of other classes left out")
        for flaw in FLAWS:
            if summary.flaws[flaw]:
                lines.append(f"  {summary.flaws[flaw]:,} boxes {flaw}")
        lines += [f"  {count:,} images {oddity}" for oddity, count in summary.oddities.items()]
        lines += grouped(summary.mask_flaws, "  masks left out: ")
    lines += [f"group {number}: {name}" for number, name in enumerate(names)]
    if found.splits:
        lines += _class_table(found.splits, classes)
    lines += grouped(found.problems, "problem: ")
    fingerprint = found.fingerprint or "none: files are missing"
    return [*lines, f"{len(found.problems):,} problems", f"fingerprint {fingerprint}"]


def grouped(sentences: Sequence[str], prefix: str) -> list[str]:
    """Return a line for each of the first sentences of a kind, and one that counts its others.

    Sentences of a kind differ in paths, numbers and what they quote.
    """
    kinds: dict[str, list[str]] = {}
    for sentence in sentences:
        kinds.setdefault(SPECIFIC.sub("", sentence), []).append(sentence)
    lines = []
    for found in kinds.values():
        lines += [f"{prefix}{sentence}" for sentence in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(
                f"{prefix}{len(found) - SHOWN:,} more of this kind ({len(found):,} in all)"
            )
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
