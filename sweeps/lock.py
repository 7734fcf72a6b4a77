"""A best-effort lock on a store, held by the process that drives the sweep.

The lock keeps two drivers from doing the same work twice. The results stay right without it (see
`mg_core.store.attempt`).

The holder rewrites the lock's object every 1.5 seconds. No clocks are compared: on the holder's
own host the lock is held while its process lives and drives this very folder, not one that it was
copied from; on another host, while the object keeps changing. A holder that lost contact with the
store may find another driver's lock there afterwards; it then stops.

Of several drivers that start at the same moment one gets the lock. In a folder, looking for a lock
and writing one's own happen under a lock of the operating system. Where there is none, as on object
storage, a driver looks again after a pause, and the last one that wrote has the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mg_core.atomic import locked
from mg_core.errors import InputError
from mg_core.redaction import harmless
from mg_core.store import ResultStore
from mg_core.store.layout import LOCK
from mg_core.store.ledger import Ledger, read_ledger

BEAT_SECONDS = 1.5
MISSED_BEATS = 8
SETTLE_SECONDS = 2.0
"""Longer than a driver takes from looking for a lock to writing its own on object storage."""


class StoreLock:
    """The lock of a store, held inside a `with` block.

    Args:
        store: the store that this process drives.
        run: nonce of this driver.

    Attributes:
        successor: the other driver that has taken the store meanwhile; none normally.

    Raises:
        InputError: another driver holds the lock.
    """

    def __init__(self, store: ResultStore, run: str) -> None:
        self._entered = store
        # No patience: a beat that waits for the store would come too late and delay Ctrl-C.
        self._store = ResultStore(store.uri)
        self.successor: str | None = None
        self._record: dict[str, Any] = {
            "run": run,
            "host": host_identity(),
            "name": harmless(socket.gethostname()),
            "pid": os.getpid(),
            "born": process_birth(os.getpid()),
            "folder": None,
            "beat": secrets.token_hex(4),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> StoreLock:
        store, is_alone = self._entered, False
        with contextlib.ExitStack() as exclusive:
            # Some network folders have no locks.
            with contextlib.suppress(NotImplementedError):
                if store.local_path is not None:
                    exclusive.enter_context(locked(store.local_path / LOCK))
                    is_alone = True
            refuse_driven(store)
            self._write(store)
        if not is_alone:
            time.sleep(SETTLE_SECONDS)
            holder = read_lock(store)
            if holder is not None and not self._is_own(holder):
                raise _driven(store, holder)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # A lock that stays is void: nobody renews it.
            holder = read_lock(self._store)
            if holder is not None and self._is_own(holder):
                self._store.files.delete([LOCK])
                self._store.files.remove_empty_temporary()

    def _write(self, store: ResultStore) -> None:
        self._record |= {"beat": secrets.token_hex(4), "folder": _identity(store)}
        store.put(LOCK, json.dumps(self._record).encode())

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                holder = read_lock(self._store)
                if holder is not None and not self._is_own(holder):
                    self.successor = described(holder)
                    return
                self._write(self._store)
            except OSError:
                continue  # The store may answer again at the next beat.

    def _is_own(self, holder: dict[str, Any]) -> bool:
        return bool(holder["run"] == self._record["run"])


def read_lock(store: ResultStore) -> dict[str, Any] | None:
    """Return the lock's record, none if there is no valid lock."""
    try:
        record = json.loads(store.get(LOCK))
    except (FileNotFoundError, ValueError):
        return None
    kinds = {"run": str, "host": str, "pid": int, "born": str, "beat": str}
    is_lock = isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in kinds.items()
    )
    return record if is_lock else None


def is_held(store: ResultStore, holder: dict[str, Any], since: float | None = None) -> bool:
    """Return whether the driver that wrote a lock is alive; on another host this takes time.

    Args:
        store: the store with the lock.
        holder: the lock's record, as it was read.
        since: `time.monotonic()` when it was read; none if it was read just now.
    """
    if holder["host"] == host_identity():
        # Locks of earlier versions name no folder.
        is_here = holder.get("folder") in (None, _identity(store))
        return bool(is_here and process_birth(holder["pid"]) == holder["born"])
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


def refuse_driven(store: ResultStore) -> None:
    """Raise an error if a driver is at work on a store.

    Raises:
        InputError: the store is driven; the message names the process and its host.
    """
    holder = read_lock(store)
    if holder is not None and is_held(store, holder):
        raise _driven(store, holder)


def _driven(store: ResultStore, holder: dict[str, Any]) -> InputError:
    return InputError(
        f"store {store.uri!r} is driven by {described(holder)}; wait for it, or stop it first"
    )


def driven_ledger(
    store: ResultStore, trial_ids: Iterable[str]
) -> tuple[Ledger, dict[str, Any] | None]:
    """Return the states of trials, and the lock's record if a driver is at work.

    Args:
        store: the store of the trials.
        trial_ids: the trials to read; others are left out.
    """
    holder, since = read_lock(store), time.monotonic()
    ledger = read_ledger(store, trial_ids)
    # Last: meanwhile a driver on another host has renewed its lock, which saves waiting for it.
    if holder is None or not is_held(store, holder, since):
        return ledger, None
    return replace(ledger, driver=holder["run"]), holder


def described(holder: dict[str, Any]) -> str:
    """Return the process and host of a lock's record in words."""
    return harmless(f"process {holder['pid']} on {holder.get('name') or holder['host']}")


def _identity(store: ResultStore) -> int | None:
    """Return a number that a folder keeps when it is moved, and that a copy of it lacks."""
    path = store.local_path
    try:
        return None if path is None else path.stat().st_ino
    except FileNotFoundError:  # Nothing is written there yet.
        return None


def host_identity() -> str:
    """Return a text that two processes share exactly if they see each other's process ids."""
    parts = [socket.gethostname()]
    for source in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            is_link = source.is_symlink()
            parts.append(os.readlink(source) if is_link else source.read_text().strip())
        except OSError:
            continue
    return "/".join(parts)


def process_birth(pid: int) -> str | None:
    """Return when a process began, none if it has ended; it tells apart users of one id."""
    try:
        # The name in parentheses may hold spaces; the start time is the 20th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        fields = []
    if fields:
        return None if fields[0] in {"Z", "X"} else fields[19]
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
