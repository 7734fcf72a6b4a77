"""Progress bars of long work on data sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import progress as bars
from rich.console import Console

if TYPE_CHECKING:  # The command line imports this module for its help, too.
    from mg_core.data.reader import Progress


@contextlib.contextmanager
def progress_bars(verb: str) -> Iterator[Progress]:
    """Yield a callback `(split, done, total)` that shows a bar "<verb> <split>" in a terminal."""
    console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )  # fmt: skip
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def report(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = shown.add_task(f"{verb} {split}".strip(), total=total)
            shown.update(tasks[split], completed=done)

        yield report
