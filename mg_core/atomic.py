"""Folders that exist completely or not at all, each built by one process at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from mg_core.errors import NodeError


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target`; the operating system releases it when the process dies.

    Raises:
        NodeError: the parent folder cannot be written.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    probe = target.with_name(f".{target.name}.probe-{secrets.token_hex(8)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # FileLock may wait for ever in a folder where nothing can be created.
        probe.mkdir()
        probe.rmdir()
        lock.acquire()
    except OSError as error:
        raise _cannot_write(target, error) from None
    try:
        yield
    finally:
        # The folder may be the user's, so the lock file is removed. A process that waits for the
        # lock then tries again: since filelock 3.24, a lock on an unlinked file is refused.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` at the end; an exception removes it.

    The caller holds `locked(target)`, since temporary folders of killed processes are removed
    first. An older folder or file at `target` is replaced.

    Raises:
        NodeError: the disk is full, or the parent folder cannot be written.
    """
    prefix = f".{target.name}.tmp-"
    for stale in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = target.with_name(prefix + secrets.token_hex(8))
    try:
        temporary.mkdir()
        yield temporary
        if target.is_dir():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        raise _cannot_write(target, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _cannot_write(target: Path, error: OSError) -> NodeError:
    is_cache = (os.environ.get("MG_CACHE") or "model-guidance-sweeps") in str(target)
    hint = "; name another cache folder in MG_CACHE" if is_cache else ""
    return NodeError(f"cannot write {target}: {error.strerror or error}{hint}")
