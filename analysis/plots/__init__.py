"""Figures of the study, by name: data computed first as a frame, then drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from mg_core.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.results import Results

FORMATS = ("png", "pdf")


@dataclass(frozen=True)
class Drawing:
    """One figure of a store, not drawn yet.

    Attributes:
        name: for files; the figure's, and its setting's where the store has several.
        caption: what it shows, as under a figure of a paper.
        alt: what is to be seen, for those who cannot see it.
        data: every point it shows.
        draw: draws them.
    """

    name: str
    caption: str
    alt: str
    data: pd.DataFrame
    draw: Callable[[], Figure]


FIGURES: Registry[Callable[[Results], Iterator[Drawing]]] = Registry("figure")
"""Figures by the paper's number; each yields one drawing per setting of the store, or none."""


def drawings(results: Results, only: Sequence[str] = ()) -> Iterator[Drawing]:
    """Yield the figures that a store has results for.

    Args:
        results: of the store.
        only: names of figures; all of them where none are named.

    Raises:
        InputError: a name is unknown.
    """
    from analysis.plots import qualitative, tradeoff, variations  # noqa: F401  register

    unknown = [name for name in only if name not in FIGURES]
    if not unknown and not len(results.selected) and results.published.empty:
        return

    numbers = sorted(FIGURES, key=lambda name: int(name.removeprefix("fig")))
    for figure in [FIGURES[name] for name in only or numbers]:
        yield from figure(results)


def render(drawing: Drawing, formats: Sequence[str] = FORMATS) -> dict[str, bytes]:
    """Draw a figure and return its files by format, the same bytes for the same data."""
    from analysis.plots.style import house_style

    figure = drawing.draw()
    files = {}
    with house_style():
        # Laid out once for all formats: that takes longer than drawing.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for name in formats:
            buffer = BytesIO()
            # Neither dates nor versions, which would make every file a new one.
            key = "Software" if name == "png" else "CreationDate"
            figure.savefig(buffer, format=name, metadata={key: None})
            files[name] = buffer.getvalue()
    return files
