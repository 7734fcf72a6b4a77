"""Tables of text: rows by the names of their columns, with file and line for messages."""

from __future__ import annotations

import csv
from pathlib import Path

from mg_core.errors import InputError

DELIMITERS = ",;\t|"
Rows = list[tuple[list[str], str]]
"""The values of each row, without space at their ends, and where it stands."""


def read_table(path: Path, delimiter: str | None = None) -> tuple[list[str], Rows]:
    """Return the header and the rows of a table, empty ones left out.

    Without a delimiter, it is the one of `DELIMITERS` that the first line has most of.

    Raises:
        InputError: the file is missing, is no text in UTF-8, or has no header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            chosen = delimiter or max(DELIMITERS, key=file.readline().count)
            file.seek(0)
            lines = [
                ([value.strip() for value in values], f"{path} line {reader.line_num}")
                for reader in [csv.reader(file, delimiter=chosen, skipinitialspace=True)]
                for values in reader
                if any(value.strip() for value in values)
            ]
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as a table ({error}); save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error})") from None
    if not lines:
        raise InputError(f"{path} is empty; its first line has the names of the columns")
    return lines[0][0], lines[1:]
