"""What made a trial fail: its kind, where, and whether two failures are the same one."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mg_core.errors import InputError, NodeError, NumericalError, StorageError
from mg_core.redaction import redacted

FailureKind = Literal[
    "lost", "host-memory", "gpu-memory", "numerical", "data", "node", "storage", "bug"
]
KINDS: tuple[FailureKind, ...] = get_args(FailureKind)


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, as its record has it.

    Attributes:
        kind: what sort of failure.
        error: what went wrong, in one line.
        traceback: where; none for a process that was lost.
        signature: equal for failures that are the same bug.
        images: ids of the batch that made a loss not finite.
        log: the newest lines that were logged.
    """

    kind: FailureKind
    error: str
    traceback: str | None = None
    signature: str = ""
    images: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException, log: Sequence[str] = ()) -> Failure:
        """Describe an exception that is being handled; secrets are left out."""
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
        """Return what the attempt's record says of it."""
        return asdict(self)


def failure_kind(error: BaseException) -> FailureKind:
    """Classify what made a trial fail."""
    torch = sys.modules.get("torch")  # Without it nothing of its can have failed.
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
    # PyTorch's allocator on the host raises no class of its own.
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def signature(error: BaseException) -> str:
    """Return what two failures share if they are the same one.

    A mistake of the user's is its sentence; a bug is its class and the line that raised it, since
    its message may hold numbers.
    """
    if isinstance(error, InputError):
        return redacted(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
