"""The live view of a sweep that another process drives, through its store."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live

from mg_core import terminal
from mg_core.store import ResultStore
from sweeps.status import read_status
from sweeps.status_view import status_view, summary


def follow(store: ResultStore, every: float, console: Console | None = None) -> None:
    """Show the status of a sweep until no driver is at work, then its failures.

    A terminal shows one view that is updated in place; elsewhere each status is one line.

    Args:
        store: the store of the sweep.
        every: seconds between two reads of the store.
        console: where to show the status; standard output by default.

    Raises:
        InputError: this is no store.
    """
    console = console or terminal.console()
    found = read_status(store)
    if console.is_terminal:
        with Live(status_view(found, False), console=console, auto_refresh=False) as live:
            while found.driver:
                time.sleep(every)
                found = read_status(store)
                live.update(status_view(found, False), refresh=True)
    else:
        while found.driver:
            console.print("; ".join(summary(found)), soft_wrap=True)
            time.sleep(every)
            found = read_status(store)
    console.print(status_view(found))
