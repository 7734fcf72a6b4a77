"""What is printed: anything that a terminal cannot show or would obey is replaced."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mg_core.redaction import harmless


class OutputError(OSError):
    """Standard output cannot be written, as when a disk is full."""


class Output:
    """A stream that shows control characters as signs, and `?` for what its encoding lacks.

    Args:
        stream: standard output or standard error.
        is_optional: whether to go on silently if the stream cannot be written.
        is_safe: whether control characters are written as they are.
    """

    def __init__(self, stream: TextIO, is_optional: bool, is_safe: bool = False) -> None:
        self._stream = stream
        self._is_optional = is_optional
        self._is_safe = is_safe

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # Click would write to it, past this object.
            raise AttributeError(name)
        return getattr(self._stream, name)

    @property
    def rich_proxied_file(self) -> Output:
        """The same stream for consoles of rich, which write control characters of their own."""
        return Output(self._stream, self._is_optional, is_safe=True)

    def write(self, text: str) -> int:
        """Write a text."""
        encoding = self._stream.encoding or "utf-8"
        shown = text if self._is_safe else harmless(text)
        with self._refusals():
            self._stream.write(shown.encode(encoding, "replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._refusals():
            self._stream.flush()

    def close_broken(self) -> OutputError | None:
        """Write what is buffered, or drop it and return why it cannot be written."""
        try:
            self._stream.flush()
        except OSError as error:
            # Python would try again at its end, and fail with an exit code of its own.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            return OutputError(error.errno, error.strerror)
        return None

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_optional:
                raise OutputError(error.errno, error.strerror) from None


class _Console(Console):
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            is_own = segment.control or segment.text == "\n"
            yield segment if is_own else Segment(harmless(segment.text), segment.style)


def console(stderr: bool = False) -> Console:
    """Return a console that neither interprets markup nor passes on control characters."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def printing(is_optional: bool = False) -> Iterator[None]:
    """Make standard output and standard error an `Output` inside the block.

    Args:
        is_optional: whether to go on silently if standard output cannot be written; standard error
            always is.

    Raises:
        OutputError: standard output cannot be written.
    """
    before = sys.stdout, sys.stderr
    shown = [
        Output(getattr(stream, "_stream", stream), is_optional or stream is sys.stderr)
        if stream is not None
        else None
        for stream in before
    ]
    sys.stdout, sys.stderr = shown
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        errors = {id(stream): stream.close_broken() for stream in shown if stream is not None}
    broken = errors.get(id(shown[0]))
    if broken is not None and not is_optional:
        raise broken
