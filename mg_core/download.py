"""Archives from their publishers: fetched in as many attempts as it takes, checked, unpacked."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mg_core.atomic import locked
from mg_core.errors import InputError

TIMEOUT = 60.0
ATTEMPTS = 5
CHUNK = 2**20

Progress = Callable[[int, int], None]


class _BrokenOffError(Exception):
    """The connection ended before the file did; the next attempt goes on from there."""


def fetch(
    url: str,
    target: Path,
    md5: str | None = None,
    progress: Progress | None = None,
    pause: float = 1.0,
) -> None:
    """Download a file, going on where an earlier attempt or process stopped.

    Args:
        url: http or https.
        target: where it is to lie once it is complete and checked.
        md5: its checksum, where the publisher gives one.
        progress: called with bytes done and bytes in all (0 where the server does not say).
        pause: seconds before the second attempt, twice as many before each further one.

    Raises:
        InputError: the address does not answer, keeps breaking off, or sends something else.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"cannot download {url!r}: only http and https addresses")
    partial = target.with_name(f"{target.name}.partial")
    with locked(target), _writing(target):
        for attempt in range(ATTEMPTS):
            try:
                _continue(url, partial, progress or (lambda done, total: None))
                break
            except _BrokenOffError as error:
                if attempt == ATTEMPTS - 1:
                    raise InputError(
                        f"downloading {url} failed {ATTEMPTS} times ({error}); the same command "
                        f"goes on where it stopped"
                    ) from None
                time.sleep(pause * 2**attempt)
        _check(partial, url, md5)
        _validator(partial).unlink(missing_ok=True)
        partial.replace(target)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None


def _continue(url: str, partial: Path, progress: Progress) -> None:
    """Append what is missing of a file."""
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "model-guidance-sweeps"})
    known = _validator(partial).read_text() if _validator(partial).is_file() else ""
    if start and known:
        # Only of the very file that was begun; otherwise the server sends all of the new one.
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
            raise _BrokenOffError("nothing is left to send") from None
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise _BrokenOffError(f"{error.code} {error.reason}") from None
        raise InputError(f"cannot download {url}: {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        # A weak tag does not promise the same bytes.
        _validator(partial).write_text("" if tag.startswith("W/") else tag)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else 0
        with partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            _copy(response, file, start, total, progress)


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int, progress: Progress
) -> None:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from None
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        progress(done, total)
    if done < total:
        raise _BrokenOffError(f"{done} of {total} bytes")


def _validator(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}-tag")


def _check(partial: Path, url: str, md5: str | None) -> None:
    if md5 is None:
        return
    found = hashlib.md5(usedforsecurity=False)
    with partial.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    if found.hexdigest() != md5:
        partial.unlink()
        _validator(partial).unlink(missing_ok=True)
        raise InputError(f"{url} has md5 {found.hexdigest()} instead of {md5}; it was removed")


class _Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def extract(
    archive: Path, folder: Path, only: Iterable[str] = (), progress: Progress | None = None
) -> None:
    """Unpack a tar or zip archive; nothing is ever written outside the folder.

    Links and devices are left out, and so is everything if one name leads outside.

    Args:
        archive: of any compression that Python knows.
        folder: to unpack in; files that are there already are replaced.
        only: names of members; all of them where none are named.
        progress: called with bytes done and bytes in all.

    Raises:
        InputError: the archive is broken or dangerous, or the disk is too small.
    """
    wanted = frozenset(only)
    try:
        with _members(archive) as members:
            chosen = [member for member in members if not wanted or member.name in wanted]
            _check_members(archive, folder, chosen)
            total, done = sum(member.size for member in chosen), 0
            for member in chosen:
                _unpack(member, folder / PurePosixPath(member.name))
                done += member.size
                if progress is not None:
                    progress(done, total)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(f"{archive} is no complete archive ({error}); remove it") from None
    # Encrypted, or of a compression that this Python was built without.
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"{archive} cannot be unpacked ({error})") from None
    except OSError as error:
        raise InputError(f"cannot unpack {archive} to {folder}: {error}") from None


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield [
                _Member(info.filename, info.file_size, lambda info=info: packed.open(info))  # type: ignore[misc]
                for info in packed.infolist()
                if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
            ]
    else:
        with tarfile.open(archive) as tar:
            yield [
                _Member(item.name, item.size, lambda item=item: tar.extractfile(item))  # type: ignore[misc]
                for item in tar.getmembers()
                if item.isreg()
            ]


def _check_members(archive: Path, folder: Path, members: list[_Member]) -> None:
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
            raise InputError(f"{archive} would write outside of {folder}: {member.name!r}")
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"unpacking {archive} takes {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free"
        )


def _unpack(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = member.open()
    assert content is not None
    # A link that was there before must not lead the way out.
    target.unlink(missing_ok=True)
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file, CHUNK)
