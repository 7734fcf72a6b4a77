"""What `mg-data list` prints: the data sets by name, and the options of one."""

from __future__ import annotations

import inspect
import textwrap

from pydantic import BaseModel

from mg_core.data.reader import Reader
from mg_core.data.readers import DATASETS


def names() -> list[str]:
    """Return a line for each data set: its name and the first sentence about its reader."""
    width = max(map(len, DATASETS))
    return [f"{name:{width}}  {_summary(variant)}" for name, variant in DATASETS.items()]


def details(name: str) -> list[str]:
    """Return what is written about a data set and its options, with their defaults.

    Raises:
        InputError: there is no data set of this name.
    """
    variant = DATASETS[name]
    lines = (inspect.getdoc(variant) or "").splitlines()
    fields = variant.Options.model_fields
    notes = _notes(variant.Options)
    lines += ["", "options and their defaults:" if fields else "It has no options."]
    # Those of the data set itself come first, then those that it shares with others.
    for key in sorted(fields, key=lambda key: list(notes).index(key) if key in notes else -1):
        default = fields[key].default
        shown = "none" if default is None else str(default)
        lines.append(f"  {key}: {shown if len(shown) <= 40 else shown[:37] + '...'}")
        lines += [f"    {line}" for line in notes.get(key, [])]
    return lines


def _summary(variant: type[Reader]) -> str:
    return (inspect.getdoc(variant) or "").partition("\n")[0]


def _notes(options: type[BaseModel]) -> dict[str, list[str]]:
    """Return the lines about each option, from the docstrings of its model and of its bases."""
    notes: dict[str, list[str]] = {}
    for model in options.__mro__:
        text = inspect.cleandoc(vars(model).get("__doc__") or "").partition("Attributes:\n")[2]
        key = ""
        for line in textwrap.dedent(text).splitlines():
            name, separator, rest = line.partition(": ")
            if separator and name in options.model_fields:
                key = name
                notes[key] = [rest]
            elif key and line.startswith(" "):
                notes[key].append(line.strip())
    return notes
