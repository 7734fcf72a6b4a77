"""Files that `mg-analysis` writes into a folder, told from a user's own by their digests."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import PurePosixPath

from mg_core.store.files import Files
from mg_core.store.layout import RECORD


class Written:
    """A folder of written files, with a record of their SHA-256.

    Args:
        files: access to the folder, or to one above it.
        folder: where below `files` the folder is.
    """

    def __init__(self, files: Files, folder: str = "") -> None:
        self._files = files
        self._prefix = f"{folder}/" if folder else ""

    def put(self, name: str, data: bytes) -> str | None:
        """Write a file; one of the user's in its place is kept under another name.

        A file is the user's if it is not as the record says that it was written.

        Returns:
            The new name of the user's file, none if there was none.

        Raises:
            StorageError: the folder cannot be written.
        """
        digests, new = self._digests(), hashlib.sha256(data).hexdigest()
        there, kept = self._files.digest(self._prefix + name), None
        if there not in (None, new, digests.get(name)):
            kept = self._free(name)
            self._files.move(self._prefix + name, self._prefix + kept)
        self._files.put(self._prefix + name, data)
        record = json.dumps(digests | {name: new}, indent=1, sort_keys=True)
        self._files.put(self._prefix + RECORD, record.encode())
        return kept

    def unchanged(self) -> set[str]:
        """Return the keys of the files that are as they were written."""
        keys = {self._prefix + name: digest for name, digest in self._digests().items()}
        return {key for key, digest in keys.items() if self._files.digest(key) == digest}

    def _digests(self) -> dict[str, str]:
        try:
            found = json.loads(self._files.get(self._prefix + RECORD))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _free(self, name: str) -> str:
        path = PurePosixPath(name)
        names = (path.with_stem(f"{path.stem}.kept-{number}") for number in itertools.count(1))
        return next(str(n) for n in names if self._files.digest(f"{self._prefix}{n}") is None)
