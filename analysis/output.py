"""Where files go: whole or not at all, into one folder."""

from __future__ import annotations

from pathlib import Path

from mg_core.errors import InputError
from mg_core.files import Files
from mg_core.store import ResultStore

FOLDER = "analysis"


class Output:
    """The folder that an analysis writes to.

    Args:
        store: whose results are analysed; a local one takes them into its folder `analysis`.
        folder: another place.

    Raises:
        InputError: the store is not local and no folder is named.
    """

    def __init__(self, store: ResultStore, folder: Path | None = None) -> None:
        if folder is None and store.local_path is None:
            raise InputError(
                f"store {store.uri!r} is not on this machine: name a folder for the output with "
                "--out"
            )
        self.folder = folder or Path(store.uri) / FOLDER
        self._files = Files(str(self.folder))

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one file and return its path.

        Raises:
            InputError: the folder cannot be written.
        """
        data = content.encode() if isinstance(content, str) else content
        try:
            self._files.put(name, data)
            self._files.sweep_temporary()
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"{self.folder / name} cannot be written ({reason}); name another folder with --out"
            ) from None
        return self.folder / name
