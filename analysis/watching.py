"""Doing something again and again while a sweep runs."""

from __future__ import annotations

import time
from collections.abc import Callable


def repeat(write: Callable[[], bool], every: float | None) -> None:
    """Call `write` once, or until it says that everything is done.

    Args:
        write: returns whether everything is done.
        every: seconds from one call to the next; none calls it once.
    """
    while True:
        started = time.monotonic()
        if write() or every is None:
            return
        # A page that takes longer than the interval is followed by a pause all the same.
        time.sleep(max(1.0, every - (time.monotonic() - started)))
