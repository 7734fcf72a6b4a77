"""Progress of test evaluation: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 10.0


class Progress:
    """Shows how many checkpoints are tested, inside a `with` block.

    Args:
        total: checkpoints to test.
        console: where to show it; bars need a terminal.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._total = total
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._tasks = {"testing": self._bars.add_task("testing", total=total)}

    def __enter__(self) -> Progress:
        self._bars.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._bars.stop()

    def advance(self) -> None:
        """Note that one more checkpoint is done."""
        self._done += 1
        self._bars.update(self._tasks["testing"], completed=self._done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= PLAIN_SECONDS:
            self._last_line = now
            left = (now - self._start) / self._done * (self._total - self._done)
            self._console.print(f"testing: {self._done} of {self._total}, about {left:.0f} s left")

    def decoding(self, split: str, done: int, total: int) -> None:
        """Note how far the decoding of a split's images is."""
        if split not in self._tasks:
            self._tasks[split] = self._bars.add_task(f"decoding {split}", total=total)
        self._bars.update(self._tasks[split], completed=done)
