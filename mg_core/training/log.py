"""What a trial says while it runs: its newest lines, bounded, without secrets."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone

from mg_core.redaction import redacted

LOG_BYTES = 64 * 1024
LOG_SECONDS = 30.0
TAIL_LINES = 20

_LINE = logging.Formatter("%(levelname)s %(name)s: %(message)s")


class TrialLog(logging.Handler):
    """The log of one attempt: its own lines, and what Python's logging says meanwhile.

    Args:
        publish: writes the whole text; called at once, now and then, and at the end. Failing to is
            no reason to fail the trial.
    """

    def __init__(self, publish: Callable[[str], None]) -> None:
        super().__init__()
        self.setFormatter(_LINE)
        self._publish = publish
        self._lines: deque[str] = deque()
        self._writing, self._publishing = threading.RLock(), threading.Lock()
        self._size = 0
        self._is_published = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish_now_and_then, daemon=True)
        self._is_capturing = False

    def write(self, text: str) -> None:
        """Add lines, dropping the oldest where there are too many."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._writing:
            for line in redacted(text).splitlines():
                kept = f"{now} {line}"[:LOG_BYTES]
                self._lines.append(kept)
                self._size += len(kept) + 1
            while self._size > LOG_BYTES and len(self._lines) > 1:
                self._size -= len(self._lines.popleft()) + 1
            self._is_published = False

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record of Python's logging."""
        try:
            self.write(self.format(record))
        except Exception:
            self.handleError(record)

    def tail(self) -> list[str]:
        """Return the newest lines."""
        with self._writing:
            return list(self._lines)[-TAIL_LINES:]

    def publish(self) -> None:
        """Write the log out if there is anything new in it."""
        with self._publishing:  # Else an older text, long on its way, might come last.
            with self._writing:
                text, is_new = "".join(f"{line}\n" for line in self._lines), not self._is_published
                self._is_published = True
            if not is_new:
                return
            try:
                self._publish(text)
            except OSError as error:
                self.write(f"this log could not be written: {error}")

    def _publish_now_and_then(self) -> None:
        # In a thread of its own: an epoch may take hours, and a process may die in its first one.
        while not self._stop.wait(LOG_SECONDS):
            self.publish()

    def start(self) -> None:
        """Listen to Python's logging and warnings; one trial at a time runs in a process."""
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)
        self._is_capturing = True
        self._thread.start()
        self.publish()

    def stop(self) -> None:
        """Write the log out and listen no more."""
        if self._is_capturing:
            self._stop.set()
            self._is_capturing = False
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(self)
            self.publish()
