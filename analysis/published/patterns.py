"""Names of files and keys cut into columns by patterns such as `{model}_{loss}.json`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from mg_core.columns import COLUMNS
from mg_core.errors import InputError

PARTS = re.compile(r"\{(\w+)\}|\*")
"""A placeholder, or a star that stands for anything."""
NUMBERS = ("int32", "int64", "float64")


def placeholders(patterns: Sequence[str]) -> list[str]:
    """Return the columns that patterns name, each once."""
    found = (match[1] for pattern in patterns for match in PARTS.finditer(pattern))
    return list(dict.fromkeys(filter(None, found)))


def as_glob(pattern: str) -> str:
    """Return the pattern as a shell would write it."""
    return PARTS.sub("*", pattern)


def cut(
    text: str, patterns: Sequence[str], known: Mapping[str, Collection[str]]
) -> dict[str, str] | None:
    """Cut a text by the first pattern that fits it.

    A pattern fits where all parts are known values of their columns, and numbers where their
    columns hold numbers. Where none does, the parts may be any.

    Args:
        text: such as `bcos_BCos_Input_Energy.json`.
        patterns: such as `{model}_{attribution}_{layer}_{loss}.json`; a part holds no slash.
        known: by column, values that are known to be meant.

    Returns:
        The parts by column; none where no pattern fits.

    Raises:
        InputError: there are several ways, and what is known does not decide.
    """
    ways: list[dict[str, str]] = []
    for pattern in patterns:
        here = [way for way in _ways(_pieces(pattern), text) if way not in ways]
        fitting = [way for way in here if all(_is_known(*part, known) for part in way.items())]
        if fitting:
            ways = fitting
            break
        ways += here
    if len(ways) > 1:
        one, other = (", ".join(f"{k}={v}" for k, v in way.items()) for way in ways[:2])
        raise InputError(
            f"{text!r} can be cut in more than one way ({one}; or {other}): say under `rename` "
            "which values these columns have, or give a pattern of its own to such names"
        )
    return ways[0] if ways else None


def _is_known(column: str, part: str, known: Mapping[str, Collection[str]]) -> bool:
    if COLUMNS[column].type in NUMBERS:
        return re.fullmatch(r"[-+]?\d+([.,]\d+)?(e[-+]?\d+)?", part) is not None
    return column not in known or part in known[column]


def _pieces(pattern: str) -> list[tuple[str, str]]:
    """Return literal texts, stars and placeholders in order, as (kind, text)."""
    pieces, end = [], 0
    for match in PARTS.finditer(pattern):
        pieces.append(("text", pattern[end : match.start()]))
        pieces.append(("column", match[1]) if match[1] else ("star", ""))
        end = match.end()
    return [*pieces, ("text", pattern[end:])]


def _ways(pieces: Sequence[tuple[str, str]], text: str) -> Iterator[dict[str, str]]:
    """Yield every way in which pieces make up a text, as parts by column."""
    if not pieces:
        if not text:
            yield {}
        return
    (kind, content), rest = pieces[0], pieces[1:]
    if kind == "text":
        if text.startswith(content):
            yield from _ways(rest, text[len(content) :])
        return
    longest = text.split("/", 1)[0]
    for end in range(len(longest) + 1) if kind == "star" else range(1, len(longest) + 1):
        part = text[:end]
        for way in _ways(rest, text[end:]):
            if kind == "star":
                yield way
            elif way.get(content, part) == part:
                yield {content: part, **way}
