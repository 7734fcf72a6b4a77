"""Failures of trials: their kind, their place, and whether two of them have the same cause."""

from __future__ import annotations

import errno
import hashlib
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mg_core.errors import InputError, NodeError, NumericalError, StorageError
from mg_core.redaction import redacted
from mg_core.store.ledger import FailureKind

VARYING = (
    (re.compile(r"""(['"`])[^'"`]*[/\\][^'"`]*\1"""), "…"),  # quoted paths and addresses
    (re.compile(r"\b[a-z][a-z0-9+.\-]*://[^\s,;)'\"\]]+", re.I), "…"),
    (re.compile(r"(?<![\w<>/])[.~]{0,2}(?:/[^\s/:,;()'\"\]]+)+|(?:[\w.\-]+/)+[\w\-]+\.\w+"), "…"),
    (
        re.compile(
            r"(?<![\w.])[\w\-]+\.(?:jpe?g|png|webp|bmp|tiff?|gif|npy|npz|json|xml|csv|txt)\b", re.I
        ),
        "…",
    ),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*"), "#"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "#"),
    (re.compile(r"\b(?=[a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b", re.I), "#"),  # ids
    (re.compile(r"(?<![A-Za-z\d])[+-]?\d[\d,_]*(?:\.\d+)*(?:e[+-]?\d+)?", re.I), "#"),
)
"""Parts of a message that differ between failures with the same cause, and their replacement."""
LONGEST_SIGNATURE, LONGEST_CHAIN = 300, 5


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

    It is the class and the message, without what differs from trial to trial: numbers, ids,
    addresses, paths and names of files. An error without a message has the lines that led to it. An
    error that was raised from another one has that one's text, too.
    """
    chain: list[BaseException] = []
    while error not in chain and len(chain) < LONGEST_CHAIN:
        chain.append(error)
        error = error.__cause__ or error
    return ", from ".join(map(_signature_of_one, chain))


def _signature_of_one(error: BaseException) -> str:
    said = redacted(" ".join(str(error).split()))
    for pattern, sign in VARYING:
        said = pattern.sub(sign, said)
    if len(said) > LONGEST_SIGNATURE:
        said = f"{said[:LONGEST_SIGNATURE]}… {_short_digest(said)}"
    return f"{type(error).__name__}: {said}" if said else _unsaid(error)


def _unsaid(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__} at {lines[-1]}, {_short_digest(' '.join(lines))}"


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
