"""Files from their publishers: downloaded in as many attempts as it takes, and checked."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mg_core.atomic import locked
from mg_core.errors import InputError, NodeError

TIMEOUT = 60.0  # seconds without an answer from the publisher
ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt, twice as many before each further one
CHUNK = 2**20
ADDRESS = re.compile("https?://", re.IGNORECASE)

Progress = Callable[[int, int], None]


class _BrokenOffError(Exception):
    """The connection ended before the file did; the next attempt continues from there."""


def fetch(
    url: str, target: Path, checksum: str | None = None, progress: Progress | None = None
) -> None:
    """Download a file unless it is there already, and test its checksum as `verify` does.

    One process at a time downloads a file, others wait for it. The file grows beside the target, in
    one that ends in ".partial", where the next attempt or process continues. `progress` gets the
    bytes done and the bytes in all (0 if the server does not say).

    Raises:
        InputError: the address is invalid or does not answer, the connection keeps breaking off,
            or the checksum is wrong; a new file is removed then, one that was there is kept.
        NodeError: the target cannot be written.
    """
    if not ADDRESS.match(url):
        raise InputError(f"cannot download {url!r}: only http and https addresses")
    try:
        if not target.is_file():
            with locked(target):
                if not target.is_file():
                    _download(url, target, checksum, progress or (lambda done, total: None))
                    return
        verify(target, checksum, str(target))
    except OSError as error:
        raise NodeError(f"cannot write {target}: {error.strerror or error}") from None


def verify(path: Path, checksum: str | None, source: str) -> None:
    """Compare a file with its checksum: "md5=" or "sha256=" and leading digits of the digest."""
    if checksum is None:
        return
    algorithm, _, expected = checksum.partition("=")
    try:
        found = file_digest(path, algorithm)[: len(expected)]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if found != expected.lower():
        raise InputError(f"{source}: wrong checksum, {algorithm} {found} instead of {expected}")


def file_digest(path: Path, algorithm: str) -> str:
    """Return the hex digest of a file, read in chunks: some files are larger than memory."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, target: Path, checksum: str | None, progress: Progress) -> None:
    partial = target.with_name(f"{target.name}.partial")
    tag_file = target.with_name(f"{target.name}.partial-tag")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _continue(url, partial, tag_file, progress)
            break
        except _BrokenOffError as error:
            if attempt == ATTEMPTS:
                raise InputError(
                    f"downloading {url} failed {ATTEMPTS} times ({error}); the same command "
                    f"continues where it stopped"
                ) from None
            time.sleep(PAUSE * 2 ** (attempt - 1))
    tag_file.unlink(missing_ok=True)
    try:
        verify(partial, checksum, url)
    except InputError:
        partial.unlink()
        raise
    partial.replace(target)


def _continue(url: str, partial: Path, tag_file: Path, progress: Progress) -> None:
    """Append the missing bytes to a partial file, or begin anew if the server's tag has changed."""
    start = partial.stat().st_size if partial.is_file() else 0
    tag = tag_file.read_text() if tag_file.is_file() else ""
    wanted = {"Range": f"bytes={start}-", "If-Range": tag} if start and tag else {}
    with _open(url, partial, wanted) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
            partial.unlink(missing_ok=True)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        # A weak tag does not promise the same bytes.
        tag_file.write_text("" if tag.startswith("W/") else tag)
        _append(response, partial, start, progress)


def _open(url: str, partial: Path, headers: dict[str, str]) -> http.client.HTTPResponse:
    try:
        headers = {"User-Agent": "model-guidance-sweeps", **headers}
        request = urllib.request.Request(url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
        elif error.code < http.client.INTERNAL_SERVER_ERROR:
            raise InputError(f"cannot download {url}: {error.code} {error.reason}") from None
        raise _BrokenOffError(f"{error.code} {error.reason}") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise InputError(f"cannot download {url!r}: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None
    return response


def _append(
    response: http.client.HTTPResponse, partial: Path, start: int, progress: Progress
) -> None:
    length = response.headers.get("Content-Length") or ""
    done, total = start, start + int(length) if length.isdecimal() else 0
    with partial.open("r+b" if start else "wb") as file:
        file.seek(start)
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
