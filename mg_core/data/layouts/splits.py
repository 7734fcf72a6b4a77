"""Which images are for training, validation and testing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mg_core.config import Frozen, Integer, Number
from mg_core.counter import permutation
from mg_core.data.reader import SPLITS
from mg_core.errors import InputError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What a split is called."""
SPLIT_NUMBERS = dict(zip("012", SPLITS, strict=True))
"""What tables of WILDS and CelebA call it."""


def stratified_draw(labels: NDArray[np.bool_], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw int(fraction · N) images so that every class keeps its share.

    The stratum of an image is its rarest class. Images are sorted by stratum, in random order
    within it, and picked at equal distances (systematic sampling). Each stratum so gives its share
    of the draw, up to one image. The images without a label make up one more stratum.
    """
    counts = labels.sum(axis=0)
    rarest = np.where(labels, counts, len(labels) + 1).argmin(axis=1)
    strata = np.where(labels.any(axis=1), rarest, labels.shape[1])
    order = permutation(len(labels), seed, "validation")
    order = order[np.argsort(strata[order], kind="stable")]
    steps = np.floor(np.arange(len(labels) + 1) * fraction + 1e-9)
    drawn = np.zeros(len(labels), dtype=np.bool_)
    drawn[order] = np.diff(steps) > 0
    return drawn


def split_of(word: str, source: str) -> str:
    """Return the split that a word names, such as `train` for "Training".

    Raises:
        InputError: the word names none.
    """
    wanted = word.strip().lower()
    if wanted in SPLIT_NUMBERS:
        return SPLIT_NUMBERS[wanted]
    for split, names in SPLIT_NAMES.items():
        if wanted in names:
            return split
    known = ", ".join([*chain.from_iterable(SPLIT_NAMES.values()), *SPLIT_NUMBERS])
    raise InputError(f"{source}: {word!r} is no split; choose from {known}")


def spelled(split: str) -> list[str]:
    """Return what files and folders of a split may be called, most usual first."""
    return [word for name in SPLIT_NAMES[split] for word in (name, name.capitalize())]


def split_files(root: Path, pattern: str) -> dict[str, Path]:
    """Return the file of each split that has one; `{split}` in the pattern stands for its name."""
    found = {}
    for split in SPLITS:
        paths = (root / pattern.replace("{split}", word) for word in spelled(split))
        existing = next((path for path in paths if os.path.isfile(path)), None)
        if existing is not None:
            found[split] = existing
    return found


class SplitOptions(Frozen):
    """Which training images are drawn for validation and testing, if the files name none for it.

    Attributes:
        val_fraction: share of the training images for validation, if the files name none for it.
        test_fraction: share of the training images for testing, if the files name none for it.
        split_seed: seed of the draws, in which every class keeps its share.
    """

    val_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    test_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    split_seed: Annotated[Integer, Field(ge=0)] = 0


def draw_splits(
    named: Sequence[str | None], labels: NDArray[np.bool_], options: SplitOptions
) -> list[str]:
    """Return the split of each of N images, after drawing those that the files name none for.

    Args:
        named: N splits; none for an image whose files name none.
        labels: (N, K) whether an image shows a class.
        options: shares and seed of the draw.
    """
    # Images without a label come first, so that the single image of a small draw has one.
    labels = np.concatenate([~labels.any(axis=1, keepdims=True), labels], axis=1)
    found = np.array([split or "train" for split in named], dtype=object)
    total = int((found == "train").sum())
    for split, fraction in (("val", options.val_fraction), ("test", options.test_fraction)):
        if split in named:
            continue
        rows = np.flatnonzero(found == "train")
        # At least one image, if one is left.
        share = min(1.0, max(1.0, fraction * total) / max(1, len(rows)))
        chosen = stratified_draw(labels[rows], share, options.split_seed)
        found[rows[chosen]] = split
    return [str(split) for split in found]
