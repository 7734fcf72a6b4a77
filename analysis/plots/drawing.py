"""What a figure is: data computed first as a frame, then drawn."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.frame import as_csv
from analysis.plots.style import house_style
from analysis.results import Results
from mg_core.registry import Registry

FORMATS = ("png", "pdf")


@dataclass(frozen=True)
class Drawing:
    """One figure of a store, not drawn yet.

    Attributes:
        name: stem of the figure's files; ends in the setting where the store has several.
        caption: what it shows, as under a figure of a paper.
        alt: what is to be seen, for those who cannot see it.
        data: all that is drawn: one row per point, or per cell with its picture and heat map.
        draw: makes the figure from `data` alone.
    """

    name: str
    caption: str
    alt: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]

    def _repr_png_(self) -> bytes:
        """Show the figure in a notebook."""
        return render(self, ["png"])["png"]

    def csv(self) -> str:
        """Return the data as CSV, without the columns that hold arrays."""
        is_array = self.data.map(lambda value: isinstance(value, np.ndarray)).any()
        return as_csv(self.data.loc[:, ~is_array])


FIGURES: Registry[Callable[[Results], Iterator[Drawing]]] = Registry("figure")
"""Figures by name; each yields one drawing per setting of the store, or none."""


def file_name(*parts: str) -> str:
    """Return the name of a figure and what tells it from the store's others, joined by dashes."""
    return re.sub(r"[^\w.=-]+", "_", "-".join(filter(None, parts)))


def render(drawing: Drawing, formats: Sequence[str] = FORMATS) -> dict[str, bytes]:
    """Draw a figure and return its files by format, the same bytes for the same data."""
    files = {}
    with house_style(), warnings.catch_warnings():
        # A box stands for a character that the font lacks, such as one of a Chinese class name.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = drawing.draw(drawing.data)
        # The layout takes longer than drawing: it is computed once for all formats.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for name in formats:
            buffer = BytesIO()
            # Dates and versions would make every file a new one.
            key = "Software" if name == "png" else "CreationDate"
            figure.savefig(buffer, format=name, metadata={key: None})
            files[name] = buffer.getvalue()
    return files
