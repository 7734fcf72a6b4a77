"""Figures of the study, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from analysis.plots import breakdowns, groups, ladder, qualitative, variations  # noqa: F401  register
from analysis.plots.drawing import FIGURES, FORMATS, Drawing, render
from analysis.plots.tradeoff import OF_METRIC
from analysis.results import Results

__all__ = ["FIGURES", "FORMATS", "Drawing", "drawings", "render"]


def drawings(results: Results, only: Sequence[str] = ()) -> Iterator[Drawing]:
    """Yield the figures that a store has results for, the paper's in the order of their numbers.

    `only` names figures. Where none are named, all are drawn but those of single metrics that are
    no objectives.

    Raises:
        InputError: a name is unknown.
    """
    usual = [n for n in FIGURES if n not in OF_METRIC or n in results.objectives]
    figures = [FIGURES[name] for name in only or sorted(usual, key=_number)]
    if results.selected.empty and results.published.empty:
        return
    names: Counter[str] = Counter()
    for drawing in chain.from_iterable(figure(results) for figure in figures):
        names[drawing.name] += 1
        number = names[drawing.name]
        # Names that differ in punctuation alone would be one file.
        yield drawing if number == 1 else replace(drawing, name=f"{drawing.name}-{number}")


def _number(name: str) -> float:
    """Return the number of one of the paper's figures; all others come after them."""
    found = re.fullmatch(r"fig(\d+)", name)
    return int(found[1]) if found else float("inf")
