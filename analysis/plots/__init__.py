"""Figures of the study, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from analysis.plots import qualitative, tradeoff, variations  # noqa: F401  register
from analysis.plots.drawing import FIGURES, FORMATS, Drawing, render
from analysis.results import Results

__all__ = ["FIGURES", "FORMATS", "Drawing", "drawings", "render"]


def drawings(results: Results, only: Sequence[str] = ()) -> Iterator[Drawing]:
    """Yield the figures that a store has results for, the paper's in the order of their numbers.

    `only` names figures; all are drawn where none are named.

    Raises:
        InputError: a name is unknown.
    """
    figures = [FIGURES[name] for name in only or sorted(FIGURES, key=_number)]
    if results.selected.empty and results.published.empty:
        return
    for figure in figures:
        yield from figure(results)


def _number(name: str) -> float:
    """Return the number of one of the paper's figures; all others come after them."""
    found = re.fullmatch(r"fig(\d+)", name)
    return int(found[1]) if found else float("inf")
