"""Failures of trials: their kind, their place, and whether two of them have the same cause."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mg_core.errors import InputError, NodeError, NumericalError, StorageError
from mg_core.redaction import redacted
from mg_core.store.ledger import FailureKind


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, as its record says.

    Attributes:
        kind: kind of the failure.
        error: message of the error, in one line.
        traceback: traceback of the error; none if the process was lost.
        signature: equal for failures with the same cause, see `signature`.
        images: ids of the images in the batch whose loss was not finite.
        log: the newest lines of the log.
    """

    kind: FailureKind
    error: str
    traceback: str | None = None
    signature: str = ""
    images: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException, log: Sequence[str] = ()) -> Failure:
        """Describe an exception, without secrets."""
        line = " ".join(str(error).split()) or type(error).__name__
        return cls(
            kind=failure_kind(error),
            error=redacted(line),
            traceback=redacted("".join(traceback.format_exception(error))),
            signature=signature(error),
            images=error.images if isinstance(error, NumericalError) else (),
            log=tuple(log),
        )

    def record(self) -> dict[str, Any]:
        """Return the failure as keys of an attempt's record."""
        return asdict(self)


def failure_kind(error: BaseException) -> FailureKind:
    """Return the kind of failure that an exception is."""
    torch = sys.modules.get("torch")  # If PyTorch is not loaded, the error is not from it.
    if isinstance(error, NodeError):
        return "node"
    if isinstance(error, InputError):
        return "data"
    if isinstance(error, NumericalError):
        return "numerical"
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "gpu-memory"
    if _is_host_memory(error):
        return "host-memory"
    return "storage" if isinstance(error, StorageError) else "bug"


def _is_host_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # PyTorch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def signature(error: BaseException) -> str:
    """Return a text that is equal for failures with the same cause.

    For an `InputError` it is the message. For any other error it is the class and the line that
    raised it, since messages may contain numbers that differ.
    """
    if isinstance(error, InputError):
        return redacted(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
