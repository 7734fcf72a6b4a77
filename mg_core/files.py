"""Whole-object reads and writes on any filesystem that pyarrow knows: the store's only I/O."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyarrow import fs

from mg_core.errors import InputError

TEMPORARY = ".tmp"
PARALLEL_REQUESTS = 16
RENAME_RETRIES = 10


class Files:
    """Objects under one URI, addressed by keys with forward slashes.

    An object is there completely or not at all: on local and network folders it is written under
    a temporary name and renamed; on object storage it is serialised in memory and put at once.

    Args:
        uri: a folder, `file://`, `s3://`, `gs://` or any other URI that pyarrow resolves.

    Raises:
        InputError: the URI names no filesystem.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            if "://" in uri:
                self._fs, root = fs.FileSystem.from_uri(uri)
            else:
                self._fs, root = fs.LocalFileSystem(), str(Path(uri).expanduser().resolve())
        except (OSError, ValueError) as error:
            raise InputError(
                f"store {uri!r} is not a folder or a URI of pyarrow.fs: {error}"
            ) from None
        self._root = root.rstrip("/")
        if not self._root:
            raise InputError(f"store {uri!r} names no folder or bucket")
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        # A command that is refused leaves no empty store behind, but keeps what a user made.
        self._end = Path(self._root) if self.is_local and Path(self._root).exists() else None

    @property
    def filesystem(self) -> Any:
        """The pyarrow filesystem, for readers of many files at once."""
        return self._fs

    @property
    def local_path(self) -> Path | None:
        """The folder itself where the store is one."""
        return Path(self._root) if self.is_local else None

    def path(self, key: str) -> str:
        """Return what the filesystem calls the object `key`."""
        return f"{self._root}/{key}"

    def get(self, key: str) -> bytes:
        """Return the object's bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._fs.open_input_stream(self.path(key)) as stream:
            data: bytes = stream.read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object, replacing one that is there.

        Raises:
            OSError: the filesystem refused; the object is as it was before.
        """
        if not self.is_local:
            # Leaving the stream through an exception would publish what was written so far, so
            # nothing but one write of finished bytes happens inside.
            with self._fs.open_output_stream(self.path(key)) as stream:
                stream.write(data)
            return
        for _ in range(RENAME_RETRIES):
            try:
                return self._replace(key, data)
            except FileNotFoundError:
                # Somebody swept the temporary folder or an empty one at this very moment.
                continue
        return self._replace(key, data)

    def _replace(self, key: str, data: bytes) -> None:
        target = Path(self.path(key))
        temporary = Path(self.path(TEMPORARY)) / secrets.token_hex(8)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                # Else a power cut may leave the new name with nothing behind it.
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all objects below the folder `prefix`, sorted; it need not exist."""
        selector = fs.FileSelector(self.path(prefix), recursive=True, allow_not_found=True)
        start = len(self._root) + 1
        found = self._fs.get_file_info(selector)
        return sorted(info.path[start:] for info in found if info.type == fs.FileType.File)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are none of anybody's concern."""
        for key in keys:
            # Object stores answer an absent key in ways of their own.
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(self.path(key))
            if self.is_local:
                self._remove_empty_parents(Path(self.path(key)).parent)

    def _remove_empty_parents(self, folder: Path) -> None:
        end = self._end or Path(self._root).parent
        with contextlib.suppress(OSError):
            while folder != end:
                folder.rmdir()
                folder = folder.parent

    def sweep_temporary(self) -> None:
        """Remove what killed writers left under temporary names."""
        if self.is_local:
            self.delete(self.keys(TEMPORARY))
            self.remove_empty_temporary()

    def remove_empty_temporary(self) -> None:
        """Remove the folder of temporary names if nobody is writing."""
        if self.is_local:
            self._remove_empty_parents(Path(self.path(TEMPORARY)))

    def get_many(self, keys: Iterable[str]) -> list[bytes]:
        """Read several objects at once, in the order of the keys."""
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return list(pool.map(self.get, keys))

    def put_many(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write several objects at once."""
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            list(pool.map(lambda item: self.put(*item), objects))

    def check_writable(self) -> None:
        """Write and remove a probe.

        Raises:
            InputError: says why the store cannot be written.
        """
        probe = f"{TEMPORARY}/probe-{secrets.token_hex(8)}"
        try:
            self.put(probe, b"")
            self.delete([probe])
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"store {self.uri!r} cannot be written ({reason}); name a writable one with --store"
            ) from None
