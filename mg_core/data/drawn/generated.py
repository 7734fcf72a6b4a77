"""Folders of synthetic data: written once, told apart by a marker of what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mg_core.atomic import locked, new_folder
from mg_core.errors import InputError


@dataclass(frozen=True)
class Generated:
    """A synthetic data set that a folder may hold.

    Attributes:
        what: the set, in the plural or as a mass ("shapes"); its marker is `<what>.json`.
        version: raised when the same options would give other bytes.
        options: that decide every byte.
        fingerprint: of the set in a folder.
    """

    what: str
    version: int
    options: dict[str, Any]
    fingerprint: Callable[[Path], str]

    def write(self, folder: Path, content: Callable[[Path], None]) -> bool:
        """Write the set to a new folder, completely or not at all.

        Args:
            folder: missing, empty, or holding this very set, which is then left as it is.
            content: writes it into an empty folder.

        Returns:
            Whether anything was written.

        Raises:
            InputError: the folder holds something else, or cannot be written.
        """
        if self._is_in(folder):
            return False
        with locked(folder):
            if self._is_in(folder):
                return False
            with new_folder(folder) as temporary:
                content(temporary)
                marker = {
                    "version": self.version,
                    "options": self.options,
                    "fingerprint": self.fingerprint(temporary),
                }
                (temporary / self._marker).write_text(json.dumps(marker, indent=2) + "\n")
        return True

    @property
    def _marker(self) -> str:
        return f"{self.what}.json"

    def _is_in(self, folder: Path) -> bool:
        try:
            if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
                return False
            marker = json.loads((folder / self._marker).read_text())
            version, found = marker["version"], marker["options"]
        except (OSError, ValueError, TypeError, KeyError):
            raise InputError(
                f"{folder} is neither empty nor a generated set of {self.what}; choose another "
                f"folder"
            ) from None
        if version != self.version or found != self.options:
            raise InputError(
                f"{folder} holds another set of {self.what} ({_spelled(found)}), not the one "
                f"asked for ({_spelled(self.options)})"
            )
        if self.fingerprint(folder) != marker.get("fingerprint"):
            raise InputError(
                f"{folder} was changed after it was generated; remove it and generate it"
            )
        return True


def _spelled(options: Any) -> str:
    if not isinstance(options, dict):
        return "unreadable options"
    return ", ".join(f"{key} {value}" for key, value in options.items())
