"""Files from their publishers: downloaded in as many attempts as it takes, and checked."""

from __future__ import annotations

import hashlib
import http.client
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

from mg_core.atomic import locked
from mg_core.errors import InputError, NodeError

TIMEOUT = 60.0  # seconds without an answer from the publisher
SLOWEST = 1024.0  # bytes a second, on average after the first `TIMEOUT` seconds
ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt, twice as many before each further one
CHUNK = 2**20
LONGEST_SIZE = 20  # digits of a size in bytes; longer ones are none
CONTENT = (http.client.OK, http.client.PARTIAL_CONTENT)
ADDRESS = re.compile("https?://", re.IGNORECASE)

Progress = Callable[[int, int], None]


class _NoOtherSchemes(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https addresses only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not ADDRESS.match(newurl):
            raise urllib.error.HTTPError(
                req.full_url, code, f"it leads to {newurl[:200]!r}, which is not http", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


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
        try:
            verify(target, checksum, str(target))
        except InputError as error:
            raise InputError(f"{error}; remove the file to download it again") from None
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
    tag = _header_value(tag_file.read_text("latin-1")) if tag_file.is_file() else ""
    wanted = {"Range": f"bytes={start}-", "If-Range": tag} if start and tag else {}
    with _open(url, partial, wanted) as response:
        if response.status not in CONTENT:
            raise InputError(f"cannot download {url}: the answer {response.status} is no file")
        given = response.headers.get("Content-Range") or ""
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
            partial.unlink(missing_ok=True)
        elif given and not given.startswith(f"bytes {start}-"):
            partial.unlink(missing_ok=True)
            raise _BrokenOffError(f"the server sent {given!r} instead of bytes from {start} on")
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        # A weak tag does not promise the same bytes.
        tag_file.write_text("" if tag.startswith("W/") else _header_value(tag))
        _append(response, partial, start, progress)


def _header_value(text: str) -> str:
    """Return a text that can be sent in a header, or none of it."""
    return text if text.isascii() and text.isprintable() else ""


def _open(url: str, partial: Path, headers: dict[str, str]) -> http.client.HTTPResponse:
    try:
        headers = {"User-Agent": "model-guidance-sweeps", **headers}
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener(_NoOtherSchemes)
        return _in_time(lambda: opener.open(request, timeout=TIMEOUT))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
        elif error.code < http.client.INTERNAL_SERVER_ERROR:
            raise InputError(
                f"cannot download {url}: {error.code} {_words(error.reason)}"
            ) from None
        raise _BrokenOffError(f"{error.code} {_words(error.reason)}") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise InputError(f"cannot download {url!r}: {_words(error)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_words(error)) from None


def _words(error: object) -> str:
    """Return a message in one line, cut short: a server may have written it."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _in_time(call: Callable[[], http.client.HTTPResponse]) -> http.client.HTTPResponse:
    """Return what `call` does within `TIMEOUT`, which bounds the wait for each byte of it too."""
    outcome: Future[http.client.HTTPResponse] = Future()

    def answer() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    # A daemon: a server that never ends its headers must not keep this process alive.
    threading.Thread(target=answer, daemon=True).start()
    try:
        return outcome.result(TIMEOUT)
    except FutureTimeoutError:
        raise TimeoutError("timed out") from None


def _append(
    response: http.client.HTTPResponse, partial: Path, start: int, progress: Progress
) -> None:
    length = response.headers.get("Content-Length") or ""
    is_size = length.isdecimal() and len(length) < LONGEST_SIZE
    done, total = start, start + int(length) if is_size else 0
    with partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        began = time.monotonic()
        while True:
            if time.monotonic() - began > TIMEOUT + (done - start) / SLOWEST:
                raise _BrokenOffError(f"slower than {SLOWEST:.0f} bytes a second")
            try:
                chunk = response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenOffError(_words(error)) from None
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if done < total:
        raise _BrokenOffError(f"{done} of {total} bytes")
