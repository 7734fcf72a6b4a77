"""The log of a running trial: its newest lines, limited in size and without secrets."""

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
    """The log of one attempt: its own lines, and those of Python's logging while it runs.

    Args:
        publish: writes the whole text; called at the start, every `LOG_SECONDS` and at the end. An
            OSError is logged and does not fail the trial.
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
        """Add lines, and drop the oldest above `LOG_BYTES`."""
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
        """Publish the log if it has new lines."""
        with self._publishing:  # Else a slow write of an older text might end last.
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
        # In a thread: an epoch may take hours, and a process may die in its first epoch.
        while not self._stop.wait(LOG_SECONDS):
            self.publish()

    def start(self) -> None:
        """Capture Python's logging and warnings; a process runs one trial at a time."""
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)
        self._is_capturing = True
        self._thread.start()
        self.publish()

    def stop(self) -> None:
        """Stop capturing, and publish the log."""
        if self._is_capturing:
            self._stop.set()
            self._is_capturing = False
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(self)
            self.publish()
