"""The line between a user's mistake and a bug."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence, shown without a traceback.

    The sentence names the file, the key and what would be allowed. Command lines print it and
    leave with exit code 2. Any other exception is a bug and keeps its traceback.
    """


class NodeError(InputError):
    """This node cannot take part in the sweep as it is; other nodes may be in order."""


class StorageError(OSError):
    """The store refused for good, as a full disk does; `strerror` is one sentence."""


class NumericalError(ArithmeticError):
    """A training step produced a value that is not finite; the message names the batch.

    Args:
        message: what was not finite, and where.
        images: ids of the batch's images.
    """

    def __init__(self, message: str, images: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.images = tuple(images)
