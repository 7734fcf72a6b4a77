"""Progress of long work on data sets, for people who watch a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def progress_bars(verb: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback `(split, done, total)` with one bar a split; silent without a terminal.

    Args:
        verb: what is being done ("decoding").
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, object] = {}

        def report(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(f"{verb} {split}".strip(), total=total)
            bars.update(tasks[split], completed=done)  # type: ignore[arg-type]

        yield report
