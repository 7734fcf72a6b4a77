"""Errors that are not bugs: each is shown to the user as one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class InputError(ValueError):
    """The user's input is wrong; the message is one sentence, shown without a traceback.

    The sentence names the file, the key and the allowed values. Command lines print it and exit
    with code 2. Exceptions of no class in this module are bugs and keep their traceback.
    """


class NodeError(InputError):
    """Something on this node keeps it from running trials; other nodes may work."""


class StorageError(OSError):
    """The store cannot be read or written, as when a disk is full; `strerror` is one sentence."""


class DamagedError(StorageError):
    """A file of the store was read, and is not what was written there."""


class NumericalError(ArithmeticError):
    """A loss or a logit is not finite.

    Args:
        message: names the value that is not finite, and the epoch and batch.
        images: ids of the images in the batch.
    """

    def __init__(self, message: str, images: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.images = tuple(images)


def check_shapes(form: str, **tensors: Tensor) -> None:
    """Refuse two named tensors that do not both have a shape of a form such as "(B, H, W)".

    Raises:
        InputError: the shapes differ, or have another number of dimensions.
    """
    first, second = (tuple(tensor.shape) for tensor in tensors.values())
    if first != second or len(first) != form.count(",") + 1:
        names = " and ".join(tensors)
        raise InputError(f"{names} must both have shape {form}, not {first} and {second}")
