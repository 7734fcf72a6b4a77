"""Paths that a user writes, with `~` and variables of the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mg_core.errors import InputError

VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def with_variables(path: str) -> str:
    """Replace `$NAME` and `${NAME}` by the variables of the environment.

    Raises:
        InputError: a variable is not set, or is empty.
    """
    for found in VARIABLE.finditer(path):
        if not os.environ.get(found[1].strip("{}")):
            raise InputError(f"the variable {found[0]} in {path!r} is not set")
    return os.path.expandvars(path)


def with_home(path: str | Path) -> Path:
    """Replace `~` by the user's home folder, and `~name` by another user's.

    Raises:
        InputError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{str(path)!r} cannot be found: no home folder is known for "
            f"{str(path).split('/')[0]!r}; set HOME, or give a path without ~"
        ) from None
