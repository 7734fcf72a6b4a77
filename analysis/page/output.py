"""Where files go: whole or not at all, into one folder."""

from __future__ import annotations

from pathlib import Path

from analysis.results import Results
from mg_core.errors import InputError
from mg_core.store.files import Files

FOLDER = "analysis"


class Output:
    """The folder that an analysis writes to.

    Args:
        results: that are analysed; the first store, where it is a local one, takes the files
            into its folder `analysis`.
        folder: another place.

    Raises:
        InputError: the store is not local and no folder is named.
    """

    def __init__(self, results: Results, folder: Path | None = None) -> None:
        place = results.stores[0].local_path if results.stores else None
        if folder is None and place is None:
            where = (
                f"store {results.store.uri!r} is not on this machine"
                if results.stores
                else ("there is no store to write to")
            )
            raise InputError(f"{where}: name a folder for the output with --out")
        self.folder = folder or Path(results.store.uri) / FOLDER
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
            raise InputError(f"{error.strerror}; name another folder with --out") from None
        return self.folder / name
