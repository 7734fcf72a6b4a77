"""Progress of long work, on stderr: bars in a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars

from mg_core import terminal

PLAIN_SECONDS = 10.0


@contextmanager
def progress_bars(verb: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback `(what, done, total)` that shows how far "<verb> <what>" is."""
    console = terminal.console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}", markup=False), bars.BarColumn(),
        bars.MofNCompleteColumn(), bars.TimeRemainingColumn(),
    )  # fmt: skip
    with bars.Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as shown:
        tasks: dict[str, bars.TaskID] = {}
        starts: dict[str, tuple[float, int]] = {}
        last_line = time.monotonic()

        def report(what: str, done: int, total: int) -> None:
            nonlocal last_line
            now, name = time.monotonic(), f"{verb} {what}".strip()
            if what not in tasks:
                tasks[what] = shown.add_task(name, total=total)
                # A download that goes on where it was begins with a part done.
                starts[what] = now, done
            shown.update(tasks[what], completed=done)
            began, had = starts[what]
            if not console.is_terminal and done > had and now - last_line >= PLAIN_SECONDS:
                last_line = now
                left = (now - began) / (done - had) * (total - done)
                console.print(f"{name}: {done} of {total}, about {left:.0f} s left")

        yield report
