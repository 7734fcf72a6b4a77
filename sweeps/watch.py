"""Following a sweep from anywhere, through its store."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live

from mg_core.store import ResultStore
from sweeps.status import Status, read_status
from sweeps.status_view import status_view, summary


def follow(store: ResultStore, every: float, console: Console | None = None) -> None:
    """Show a sweep again and again until nobody drives it, then what failed.

    In a terminal the view is renewed in place; elsewhere each look is one line.

    Args:
        store: of the sweep.
        every: seconds between two looks.
        console: where to show it; none for standard output.

    Raises:
        InputError: this is no store.
    """
    console = console or Console(highlight=False)
    found = read_status(store)
    if console.is_terminal:
        with Live(status_view(found, False), console=console, auto_refresh=False) as live:
            while found.driver:
                time.sleep(every)
                found = read_status(store)
                live.update(status_view(found, False), refresh=True)
    else:
        while found.driver:
            console.print(_line(found), soft_wrap=True)
            time.sleep(every)
            found = read_status(store)
    console.print(status_view(found))


def _line(found: Status) -> str:
    return "; ".join(summary(found))
