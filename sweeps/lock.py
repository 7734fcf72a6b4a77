"""A best-effort lock on a store: who drives it now.

The holder rewrites one object every other second. Nobody's clock is compared: a lock is held as
long as its object changes under the eyes of whoever waits, or, on the holder's own host, as long
as its process lives. A holder that was cut off from the store, and finds another one there when
it comes back, knows that it was given up. What a store holds stays right without the lock
(`mg_core.store.attempt`); it keeps two drivers from doing the same work twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from mg_core.errors import InputError
from mg_core.store.result_store import LOCK, ResultStore

BEAT_SECONDS = 1.5
MISSED_BEATS = 8


class StoreLock:
    """Held inside a `with` block.

    Args:
        store: to be driven.
        run: nonce of this driver.

    Attributes:
        successor: record of the driver that has taken the store over, none as it should be.

    Raises:
        InputError: another driver holds the store.
    """

    def __init__(self, store: ResultStore, run: str) -> None:
        self._entered = store
        # Without patience: a beat that waits for the store would be missed, and so would Ctrl-C.
        self._store = ResultStore(store.uri)
        self.successor: dict[str, Any] | None = None
        self._record: dict[str, Any] = {
            "run": run,
            "host": host_identity(),
            "name": socket.gethostname(),
            "pid": os.getpid(),
            "born": process_birth(os.getpid()),
            "beat": secrets.token_hex(4),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> StoreLock:
        holder = read_lock(self._entered)
        if holder is not None and is_held(self._entered, holder):
            raise InputError(
                f"store {self._store.uri!r} is driven by {described(holder)}; "
                "wait for it, or stop it first"
            )
        self._write(self._entered)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # A lock without beats is soon nobody's.
            holder = read_lock(self._store)
            if holder is not None and self._is_own(holder):
                self._store.files.delete([LOCK])
                self._store.files.remove_empty_temporary()

    def _write(self, store: ResultStore) -> None:
        self._record["beat"] = secrets.token_hex(4)
        store.put(LOCK, json.dumps(self._record).encode())

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                holder = read_lock(self._store)
                if holder is not None and not self._is_own(holder):
                    self.successor = holder
                    return
                self._write(self._store)
            except OSError:
                continue  # The store may be back by the next beat.

    def _is_own(self, holder: dict[str, Any]) -> bool:
        return bool(holder["run"] == self._record["run"])


def read_lock(store: ResultStore) -> dict[str, Any] | None:
    """Return the lock's record, none where there is no lock."""
    try:
        record = json.loads(store.get(LOCK))
    except (FileNotFoundError, ValueError):
        return None
    is_lock = isinstance(record, dict) and {"run", "host", "pid", "born", "beat"} <= record.keys()
    return record if is_lock else None


def is_held(store: ResultStore, holder: dict[str, Any], since: float | None = None) -> bool:
    """Find out whether the driver that wrote a lock is alive, watching it if need be.

    Args:
        store: that is locked.
        holder: the lock's record.
        since: `time.monotonic()` when it was read; none for now.
    """
    if holder["host"] == host_identity():
        return bool(process_birth(holder["pid"]) == holder["born"])
    end = (time.monotonic() if since is None else since) + MISSED_BEATS * BEAT_SECONDS
    while True:
        now = read_lock(store)
        if now is None:
            return False
        if now["beat"] != holder["beat"]:
            return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, BEAT_SECONDS / 3))


def described(holder: dict[str, Any]) -> str:
    """Say which process a lock's record is of."""
    return f"process {holder['pid']} on {holder['name']}"


def host_identity() -> str:
    """Return what two processes share if and only if they can see each other's process ids."""
    parts = [socket.gethostname()]
    for source in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            is_link = source.is_symlink()
            parts.append(os.readlink(source) if is_link else source.read_text().strip())
        except OSError:
            continue
    return "/".join(parts)


def process_birth(pid: int) -> str | None:
    """Return when a process began, none if it is gone; a reused id has another birth."""
    try:
        # The name in parentheses may hold spaces; the start time is the 20th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _alive(pid)
    return None if fields[0] in {"Z", "X"} else fields[19]


def _alive(pid: int) -> str | None:
    if Path("/proc/self").exists():
        return None
    # A system without /proc, such as macOS.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
