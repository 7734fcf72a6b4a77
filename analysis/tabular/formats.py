"""A table of results, and how it is written: for a terminal, as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from analysis.frame import as_csv
from mg_core.columns import BY_METRIC, COLUMNS, SPLITS
from mg_core.redaction import harmless

HEADERS = {"n_points": "points", "is_kept": "weights kept"}
"""Headers of columns that tables compute; `mg_core.columns` has all others."""
MISSING = "–"
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    # A bracket or star after the end of a row would be an option of the row.
    | {"[": "{[}", "*": "{*}"}
    | {"λ": r"$\lambda$", "±": r"$\pm$", "×": r"$\times$", "–": "--"}
)
MARKDOWN = re.compile(r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown would obey; inside a word an underscore is none."""


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        name: stem of the table's files.
        title: what it shows, in a sentence.
        frame: raw values, metrics as fractions. The names of its columns decide headers and
            formats; metrics are then printed in percent.
    """

    name: str
    title: str
    frame: pd.DataFrame

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return to_html(self)

    @property
    def headers(self) -> list[str]:
        """Column headers for people."""
        return [" ".join(filter(None, heading(name))) for name in map(str, self.frame)]

    @property
    def cells(self) -> list[list[str]]:
        """Rows of formatted values."""
        names = map(str, self.frame)
        columns = [[cell(name, value) for value in self.frame[name]] for name in names]
        return [list(row) for row in zip(*columns, strict=True)]

    @property
    def is_numeric(self) -> list[bool]:
        """Which columns are aligned to the right."""
        return [pd.api.types.is_numeric_dtype(dtype) for dtype in self.frame.dtypes]


def heading(name: str) -> tuple[str, str]:
    """Return the group that a column stands under, empty for most, and its own header."""
    split, metric, kind = _parts(name)
    if metric:
        header = BY_METRIC[metric].header
        return SPLITS[split], f"{header} {kind.replace('start', 'before')}".strip()
    known = COLUMNS[name].header if name in COLUMNS else name.replace("_", " ")
    return "", HEADERS.get(name, one_line(known))


def cell(name: str, value: Any) -> str:
    """Format one value of a column."""
    if value is None or value is pd.NA or value != value:
        return MISSING
    _, metric, kind = _parts(name)
    if kind == "ratio":
        return f"{value:.2f}"
    if metric and BY_METRIC[metric].is_share:
        return f"{100 * value:.1f}"
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def one_line(text: str) -> str:
    """Return a text without line breaks, tabs and control characters."""
    return harmless(text).replace("\n", " ").replace("\t", " ")


def escaped(text: str) -> str:
    """Return a text for HTML, its control characters as visible signs."""
    return html.escape(harmless(text))


def _parts(name: str) -> tuple[str, str, str]:
    """Split a metric's column into split, metric and `start`, `ratio` or nothing.

    All three are empty for other columns.
    """
    split, _, metric = name.partition("_")
    base, _, kind = metric.rpartition("_")
    if kind not in ("start", "ratio"):
        base, kind = metric, ""
    return (split, base, kind) if split in SPLITS and base in BY_METRIC else ("", "", "")


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, its title above."""
    rule = ["---:" if right else "---" for right in table.is_numeric]
    lines = [table.headers, rule, *table.cells]
    safe = [[MARKDOWN.sub(r"\\\g<0>", text) for text in line] for line in lines]
    body = "\n".join(f"| {' | '.join(line)} |" for line in safe)
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
    lines = [table.headers, *table.cells]
    head, *body = [[text.translate(LATEX) for text in line] for line in lines]
    rows = "\n".join(" & ".join(line) + r" \\" for line in body)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{table.title.translate(LATEX)}}}",
            rf"\label{{tab:{table.name}}}",
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
    return as_csv(table.frame)


def to_html(table: Table) -> str:
    """Write a table as HTML with its title as the caption; columns of a split share a header."""
    headings = [heading(name) for name in map(str, table.frame)]
    groups = [(group, len(list(same))) for group, same in groupby(headings, lambda pair: pair[0])]
    sides = ["num" if right else "text" for right in table.is_numeric]
    own = _html_cells("th", [label for _, label in headings], sides, ' scope="col"')
    head = f"<tr>{own}</tr>"
    if any(group for group, _ in groups):
        head = f"<tr>{''.join(_html_group(*group) for group in groups)}</tr>{head}"
    rows = "".join(f"<tr>{_html_cells('td', row, sides)}</tr>" for row in table.cells)
    caption = escaped(table.title)
    return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>"


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
}


def _html_cells(tag: str, texts: Sequence[str], sides: Sequence[str], extra: str = "") -> str:
    return "".join(
        f'<{tag}{extra} class="{side}">{escaped(text)}</{tag}>'
        for side, text in zip(sides, texts, strict=True)
    )


def _html_group(group: str, span: int) -> str:
    if not group:
        return f'<td colspan="{span}"></td>'
    return f'<th colspan="{span}" scope="colgroup" class="group">{group}</th>'
