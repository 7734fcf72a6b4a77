"""Files that a sweep names, each with the checksum of what is in it: the file is part of the id."""

from __future__ import annotations

import os
from pathlib import Path

from mg_core.download import ADDRESS, file_digest
from mg_core.errors import InputError
from mg_core.paths import with_home, with_variables
from mg_core.redaction import refuse_secrets
from mg_core.store.layout import SPEC

DIGEST, TRIAL = "#sha256=", "#trial="


def absolute(path: str) -> str:
    """Return the absolute path; a URI and a path with `~`, which nodes resolve, stay the same."""
    path = with_variables(path)
    return path if "://" in path or path.startswith("~") else str(Path(path).absolute())


def pinned(weights: str) -> str:
    """Return a path of weights with the file's checksum, which tells changed files apart.

    A name without a folder is a path if it has an ending and something in the current folder is
    called so. Names, addresses and paths without a file on this machine stay the same.

    Raises:
        InputError: the path is there and is no file, or cannot be read.
    """
    refuse_secrets(weights, "the address")
    weights = weights if "://" in weights else with_variables(weights)
    is_path = "/" in weights or ("." in weights and os.path.lexists(weights))
    if not is_path or "://" in weights or DIGEST in weights:
        return weights
    return _with_digest(absolute(weights))


def pinned_origin(origin: str) -> str:
    """Return where a trained network is, with the checksum if it is a file on this machine.

    A result store stays without one: `sweeps.origins` chooses one of its checkpoints.

    Raises:
        InputError: a folder is there that is no store, or the file cannot be read.
    """
    refuse_secrets(origin, "the address")
    if DIGEST in origin or ADDRESS.match(origin) or origin.startswith("file://"):
        return origin
    path, mark, trial = origin.partition(TRIAL)
    path = absolute(path)
    if "://" in path or mark or os.path.isfile(with_home(path) / SPEC):
        return path + mark + trial
    if with_home(path).is_dir():
        raise InputError(f"{path} is a folder and no result store: it holds no {SPEC}")
    return _with_digest(path)


def is_store(origin: str) -> bool:
    """Say whether a `pinned_origin` is a result store, or a trial of one, and no file."""
    if DIGEST in origin or ADDRESS.match(origin) or origin.startswith("file://"):
        return False
    return "://" in origin or TRIAL in origin or with_home(origin).is_dir()


def _with_digest(path: str) -> str:
    file = with_home(path)
    try:
        if not file.exists():
            return path  # It may be on the nodes.
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "no file but a device or a pipe"
            raise InputError(f"{path} is {kind}; name a file of weights")
        return f"{path}{DIGEST}{file_digest(file, 'sha256')[:16]}"
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
