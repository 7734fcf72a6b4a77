"""The line between a user's mistake and a bug."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence, shown without a traceback.

    The sentence names the file, the key and what would be allowed. Command lines print it and
    leave with exit code 2. Any other exception is a bug and keeps its traceback.
    """


class NumericalError(ArithmeticError):
    """A training step produced a value that is not finite; the message names the batch."""
