"""Reads and writes whole objects on any filesystem of pyarrow: all I/O of the store is here."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from mg_core.errors import InputError, StorageError
from mg_core.paths import with_home
from mg_core.redaction import refuse_secrets
from mg_core.store.layout import TEMPORARY, is_own, is_place

PARALLEL_REQUESTS = 16
PARALLEL_READS = 2  # On a folder; more threads would wait for Python's lock.
BATCH = 16
RACE_RETRIES = 10

PATIENCE = 600.0
"""Seconds for which a trial or a driver repeats requests to unreachable object storage."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
LASTING = re.compile(
    "ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE|CREDENTIALS|TOKEN|MALFORMED"
    "|INVALID_CLIENT|UNRECOGNIZED_CLIENT|AUTHENTICATION|[Bb]ucket '.*' not found"
)
"""Errors of object storage that a repeated request would meet again."""
QUOTED = re.compile(r"'[^']*'")
"""Quoted keys in its messages, which may contain any word."""

T = TypeVar("T")


class Files:
    """Objects under one URI, addressed by keys with forward slashes.

    An object exists completely or not at all: in a folder it is written under a temporary name and
    renamed; on object storage it is uploaded in one request.

    Args:
        uri: a folder, `file://`, `s3://`, `gs://` or any other URI that pyarrow resolves.
        patience: seconds for which requests to unreachable object storage are repeated; requests
            to a folder are not.

    Raises:
        InputError: the URI names no filesystem, or holds a secret.
    """

    def __init__(self, uri: str, patience: float = 0.0) -> None:
        refuse_secrets(uri, "store")
        self.uri = uri
        self.patience = patience
        self.is_local = "://" not in uri
        folder = with_home(uri)
        try:
            if self.is_local:
                self._fs, root = fs.LocalFileSystem(), str(folder.resolve())
            else:  # pyarrow asks S3 for the region if the URI has none.
                self._fs, root = self.retried(lambda: fs.FileSystem.from_uri(uri))
        except ValueError as error:
            raise InputError(
                f"store {uri!r} is not a folder or a URI of pyarrow.fs: {error}"
            ) from None
        except OSError as error:
            if patience:  # A trial or driver: its store existed before.
                raise StorageError(error.errno, f"store {uri!r} is away: {error}") from error
            raise InputError(f"store {uri!r} cannot be reached: {error}") from None
        self._root = root.rstrip("/")
        if not self._root:
            raise InputError(f"store {uri!r} names no folder or bucket")
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        # A refused command must leave no empty store, but must keep a folder that the user made.
        self._end = Path(self._root) if self.is_local and os.path.exists(self._root) else None

    @property
    def filesystem(self) -> Any:
        """The pyarrow filesystem, for readers of many files at once."""
        return self._fs

    @property
    def local_path(self) -> Path | None:
        """The folder of the objects; none on object storage."""
        return Path(self._root) if self.is_local else None

    def path(self, key: str) -> str:
        """Return the path of an object in `filesystem`."""
        return f"{self._root}/{key}"

    def get(self, key: str) -> bytes:
        """Return the object's bytes.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: the object cannot be read.
        """

        def read() -> bytes:
            with self._fs.open_input_stream(self.path(key)) as stream:
                data: bytes = stream.read()
            return data

        with self._refusals(key, "read"):
            return self._regular(key).read_bytes() if self.is_local else self.retried(read)

    def _regular(self, key: str) -> Path:
        """Return the path of a file; opening a pipe would wait for ever."""
        path = Path(self.path(key))
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise StorageError(errno.EINVAL, f"{path} cannot be read: it is no regular file")
        return path

    def get_end(self, key: str, size: int) -> bytes:
        """Return the object's last bytes, at most `size` of them; errors as for `get`."""

        def read_local() -> bytes:
            with self._regular(key).open("rb") as local:
                local.seek(max(0, local.seek(0, os.SEEK_END) - size))
                return local.read()

        def read() -> bytes:
            with self._fs.open_input_file(self.path(key)) as file:
                end = file.size()
                data: bytes = file.read_at(min(size, end), max(0, end - size))
            return data

        with self._refusals(key, "read"):
            return read_local() if self.is_local else self.retried(read)

    def digest(self, key: str) -> str | None:
        """Return the SHA-256 of an object, none where there is no object."""
        try:
            return hashlib.sha256(self.get(key)).hexdigest()
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object, replacing an existing one.

        Raises:
            StorageError: it cannot be written; an existing object is unchanged.
        """
        with self._refusals(key, "written"):
            self._put(key, data)

    @contextlib.contextmanager
    def _refusals(self, key: str, what: str) -> Iterator[None]:
        """Turn an OSError into a StorageError whose message names the object."""
        try:
            yield
        except OSError as error:
            if isinstance(error, StorageError) or (
                isinstance(error, FileNotFoundError) and what == "read"
            ):
                raise
            reason = error.strerror or " ".join(str(error).split())
            where = self.path(key) if self.is_local else f"{self.uri.split('?')[0]}: {key}"
            raise StorageError(error.errno, f"{where} cannot be {what}: {reason}") from error

    def _put(self, key: str, data: bytes) -> None:
        if not self.is_local:
            return self.retried(lambda: self._write(key, data))
        # Another process may remove the temporary folder or an empty one at the same time.
        return _despite_races(lambda: self._replace(key, data))

    def _write(self, key: str, data: bytes) -> None:
        # An exception inside would publish a partial object, so there is one write and no more.
        with self._fs.open_output_stream(self.path(key)) as stream:
            stream.write(data)

    def retried(self, request: Callable[[], T]) -> T:
        """Make a request and repeat it, with growing pauses, while object storage is unreachable.

        Requests replace, read or remove whole objects, so repeating them is safe.

        Raises:
            OSError: the error is permanent, or `patience` has run out.
        """
        start, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                return request()
            except (FileNotFoundError, PermissionError):
                raise
            except OSError as error:
                is_over = time.monotonic() + pause - start > self.patience
                if self.is_local or is_over or LASTING.search(QUOTED.sub("''", str(error))):
                    raise
            # A random pause, so that many trials do not return to a server at the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _replace(self, key: str, data: bytes) -> None:
        self._check_no_link_to(key)
        target = Path(self.path(key))
        temporary = Path(self.path(TEMPORARY)) / f"{secrets.token_hex(8)}.part"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                # Else a power cut may leave an empty file under the new name.
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def keys(self, prefix: str) -> list[str]:
        """Return the sorted keys of all objects below the folder `prefix`, which need not exist.

        Symbolic links are not followed: nothing outside the folder is ever listed or removed.

        Raises:
            StorageError: it cannot be listed, or a link stands where the store has files.
        """
        if self.is_local:
            with self._refusals(prefix, "listed"):
                return sorted(self._walked(prefix))
        selector = fs.FileSelector(self.path(prefix), recursive=True, allow_not_found=True)
        start = len(self._root) + 1

        with self._refusals(prefix, "listed"):
            found = self.retried(lambda: self._fs.get_file_info(selector))
        return sorted(info.path[start:] for info in found if info.type == fs.FileType.File)

    def _walked(self, prefix: str) -> Iterator[str]:
        folders = [prefix]
        for place in [*Path(prefix).parents][-2::-1] if prefix else []:
            self.check_no_link(place.as_posix())
        while folders:
            folder = folders.pop()
            if folder:
                self.check_no_link(folder)
            try:
                with os.scandir(self.path(folder)) as entries:
                    found = list(entries)
            except (FileNotFoundError, NotADirectoryError):
                continue  # Another process removed it.
            for entry in found:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    self.check_no_link(key)
                elif is_own(key) and not entry.is_file():
                    raise StorageError(errno.EINVAL, f"{self.path(key)} is no regular file")
                elif entry.is_dir():
                    folders.append(key)
                elif entry.is_file():
                    yield key

    def _check_no_link_to(self, key: str) -> None:
        for place in [TEMPORARY, *(parent.as_posix() for parent in list(Path(key).parents)[:-1])]:
            self.check_no_link(place)

    def check_no_link(self, key: str) -> None:
        """Refuse a link in the place of a file or folder of the store; others are ignored.

        Raises:
            StorageError: there is one.
        """
        if is_place(key) and Path(self.path(key)).is_symlink():
            raise StorageError(
                errno.ELOOP,
                f"{self.path(key)} is a symbolic link; links inside a store are not followed: "
                "put the files themselves there, or name the real store",
            )

    def move(self, key: str, target: str) -> None:
        """Give an object another key."""
        with self._refusals(key, "moved"):
            if self.is_local:
                self._check_no_link_to(target)
                Path(self.path(target)).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.path(key), self.path(target))
                self._remove_empty_parents(Path(self.path(key)).parent)
            else:
                self.retried(lambda: self._fs.move(self.path(key), self.path(target)))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; missing ones are ignored."""
        if not self.is_local:
            with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
                list(pool.map(self._delete, keys))
            return
        for key in keys:
            self._delete(key)
            self._remove_empty_parents(Path(self.path(key)).parent)

    def _delete(self, key: str) -> None:
        # Not every object store reports a missing key.
        with self._refusals(key, "removed"), contextlib.suppress(FileNotFoundError):
            self.retried(lambda: self._fs.delete_file(self.path(key)))

    def delete_empty_folder(self, prefix: str) -> None:
        """Remove what object storage keeps of a folder whose last object was removed."""
        if not self.is_local and not self.keys(prefix):
            with contextlib.suppress(FileNotFoundError):
                self.retried(lambda: self._fs.delete_dir(self.path(prefix)))

    def _remove_empty_parents(self, folder: Path) -> None:
        end = self._end or Path(self._root).parent
        with contextlib.suppress(OSError):
            while folder != end:
                folder.rmdir()
                folder = folder.parent

    def remove_temporary(self) -> None:
        """Remove the temporary files of killed processes."""
        if self.is_local:
            self.delete(key for key in self.keys(TEMPORARY) if is_own(key))
            self.remove_empty_temporary()

    def remove_empty_temporary(self) -> None:
        """Remove the folder of temporary files if no process is writing."""
        if self.is_local:
            self._remove_empty_parents(Path(self.path(TEMPORARY)))

    def get_many(self, keys: Iterable[str]) -> list[bytes]:
        """Read several objects in parallel; the result has the order of the keys."""
        return self.map(self.get, keys)

    def map(self, request: Callable[[str], T], keys: Iterable[str]) -> list[T]:
        """Make a request for each key in parallel; the result has the order of the keys."""
        every = list(keys)
        # In batches: in a folder a request takes less time than its way to a thread.
        batches = [every[start : start + BATCH] for start in range(0, len(every), BATCH)]
        with ThreadPoolExecutor(PARALLEL_READS if self.is_local else PARALLEL_REQUESTS) as pool:
            done = pool.map(lambda batch: [request(key) for key in batch], batches)
            return [answer for answers in done for answer in answers]

    def put_many(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write several objects, given as (key, data), in parallel."""
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            list(pool.map(lambda item: self.put(*item), objects))

    def check_writable(self) -> None:
        """Write and remove an empty object.

        Raises:
            InputError: the store cannot be written.
        """
        probe = f"{TEMPORARY}/{secrets.token_hex(8)}.part"
        try:
            self._put(probe, b"")
            self.delete([probe])
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"store {self.uri!r} cannot be written ({reason}); name a writable one with --store"
            ) from None


def _despite_races(request: Callable[[], T]) -> T:
    """Make a request, and repeat it if another process removes or creates a folder of its path."""
    for _ in range(RACE_RETRIES):
        with contextlib.suppress(FileNotFoundError):
            return request()
    return request()
