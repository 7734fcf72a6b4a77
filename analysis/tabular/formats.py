"""A table of results, and how it is written: for a terminal, as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

PERCENT = ("f1", "precision", "recall", "map", "epg", "iou", "on_object")
SPLITS = {"val": "validation", "test": "test"}
NAMES = {"f1": "F1", "map": "mAP", "epg": "EPG", "iou": "IoU", "on_object": "on object"}
HEADERS = {
    "guided_attribution": "guided",
    "guided_layer": "at",
    "attribution": "judged by",
    "layer": "at",
    "localization_weight": "λ",
    "annotated_fraction": "boxes kept",
    "box_dilation": "dilation",
    "dataset_options": "options",
    "best_by": "best by",
    "is_reference": "reference",
    "epg_ratio": "EPG ratio",
    "n_points": "points",
    "trial_id": "trial",
    "is_kept": "weights kept",
}
MISSING = "–"
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "λ": r"$\lambda$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
}


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        name: for files.
        title: what it shows, in a sentence.
        frame: raw values, metrics as fractions; its columns decide headers and formats, in
            which they are percent.
    """

    name: str
    title: str
    frame: pd.DataFrame

    @property
    def headers(self) -> list[str]:
        """Column headers for people."""
        return [" ".join(filter(None, heading(name))) for name in map(str, self.frame)]

    @property
    def cells(self) -> list[list[str]]:
        """Rows of formatted values."""
        columns = [
            [cell(name, value) for value in self.frame[name]] for name in map(str, self.frame)
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    @property
    def is_numeric(self) -> list[bool]:
        """Which columns are aligned to the right."""
        return [pd.api.types.is_numeric_dtype(dtype) for dtype in self.frame.dtypes]


def heading(name: str) -> tuple[str, str]:
    """Return the group that a column stands under, empty for most, and its own header."""
    split, _, metric = name.partition("_")
    if split not in SPLITS or not metric:
        return "", HEADERS.get(name, name.replace("_", " "))
    base = metric.removesuffix("_start").removesuffix("_ratio")
    label = NAMES.get(base, base)
    if metric.endswith("_start"):
        label = f"{label} before"
    return SPLITS[split], f"{label} ratio" if metric.endswith("_ratio") else label


def cell(name: str, value: Any) -> str:
    """Format one value of a column."""
    if value is None or value is pd.NA or value != value:
        return MISSING
    metric = name.partition("_")[2].removesuffix("_start")
    if metric in PERCENT:
        return f"{100 * value:.1f}"
    if metric.endswith("ratio"):
        return f"{value:.2f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, its title above."""
    rule = ["---:" if right else "---" for right in table.is_numeric]
    lines = [table.headers, rule, *table.cells]
    body = "\n".join("| " + " | ".join(_escaped(cells)) + " |" for cells in lines)
    return f"{table.title}\n\n{body}\n"


def to_text(table: Table) -> str:
    """Write a table for a terminal, in columns."""
    lines = [table.headers, *table.cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = (
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, table.is_numeric, strict=True)
        ).rstrip()
        for line in lines
    )
    return "\n".join(aligned)


def to_latex(table: Table) -> str:
    """Write a table as LaTeX for the package booktabs, its title as the caption."""
    sides = "".join("r" if right else "l" for right in table.is_numeric)
    head, *body = [[_latex(text) for text in line] for line in [table.headers, *table.cells]]
    rows = "\n".join(" & ".join(line) + r" \\" for line in body)
    label = f"tab:{table.name}"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *([rows] if rows else []),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_csv(table: Table) -> str:
    """Write a table's raw values, metrics as fractions under their column names."""
    return str(table.frame.to_csv(index=False))


def to_html(table: Table) -> str:
    """Write a table as HTML with its title as the caption; columns of a split share a header."""
    headings = [heading(name) for name in map(str, table.frame)]
    groups = [(group, len(list(same))) for group, same in groupby(headings, lambda pair: pair[0])]
    above = "".join(
        f'<th colspan="{span}" scope="colgroup" class="group">{group}</th>'
        if group
        else f'<td colspan="{span}"></td>'
        for group, span in groups
    )
    sides = ["num" if right else "text" for right in table.is_numeric]
    own = _html_cells("th", [label for _, label in headings], sides, ' scope="col"')
    rows = "".join(f"<tr>{_html_cells('td', row, sides)}</tr>" for row in table.cells)
    head = f"<tr>{above}</tr><tr>{own}</tr>" if any(g for g, _ in groups) else f"<tr>{own}</tr>"
    caption = html.escape(table.title)
    return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>"


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
}


def _html_cells(tag: str, texts: Sequence[str], sides: Sequence[str], extra: str = "") -> str:
    return "".join(
        f'<{tag}{extra} class="{side}">{html.escape(text)}</{tag}>'
        for side, text in zip(sides, texts, strict=True)
    )


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _escaped(cells: Sequence[str]) -> list[str]:
    return [text.replace("|", "\\|") for text in cells]
