"""Folders of synthetic data, written once, with a marker file that records their options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mg_core.atomic import locked, new_folder
from mg_core.errors import InputError


def write_once(
    folder: Path,
    what: str,
    decisive: dict[str, Any],
    content: Callable[[Path], None],
    fingerprint: Callable[[Path], str],
) -> bool:
    """Write a set of `what` ("shapes") to a new folder completely, and return whether it did.

    A folder that already holds the set is left as it is; one that holds something else is refused.
    The marker `<what>.json` records the `decisive` "version" of the generator and "options", and
    the former fingerprint of what `content` wrote, so that its bytes stay the same.
    """
    if _holds(folder, what, decisive, fingerprint):
        return False
    with locked(folder):
        if _holds(folder, what, decisive, fingerprint):
            return False
        with new_folder(folder) as temporary:
            content(temporary)
            marker = {**decisive, "fingerprint": fingerprint(temporary)}
            (temporary / f"{what}.json").write_text(json.dumps(marker, indent=2) + "\n")
    return True


def _holds(
    folder: Path, what: str, decisive: dict[str, Any], fingerprint: Callable[[Path], str]
) -> bool:
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return False
        marker = json.loads((folder / f"{what}.json").read_text())
        found = {key: marker[key] for key in decisive}
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(
            f"{folder} is neither empty nor a generated set of {what}; choose another folder"
        ) from None
    if found != decisive:
        raise InputError(
            f"{folder} holds another set of {what} ({_spelled(found['options'])}), not the one "
            f"asked for ({_spelled(decisive['options'])})"
        )
    if fingerprint(folder) != marker.get("fingerprint"):
        raise InputError(f"{folder} was changed after it was generated; remove it and generate it")
    return True


def _spelled(options: Any) -> str:
    if not isinstance(options, dict):
        return "unreadable options"
    return ", ".join(f"{key} {value}" for key, value in options.items())
