"""One sweep of a fault campaign: its command, and how far it is."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from room import Room
from s3_server import Server

from mg_core.errors import DamagedError
from mg_core.store import ResultStore
from mg_core.store.progress import Progress

PROGRAM = "import sys; sys.argv[0] = 'mg-sweep'; from sweeps.cli import main; main()"
COMMAND = [sys.executable, "-c", PROGRAM]
MOST_RUNS = 12
"""Of the same command, until a sweep must be complete."""
PATIENCE = 180.0
"""Seconds to wait for what a fault needs, such as a trial at work."""

# Python ignores the signal that ends a process at the byte it may not write.
MORTAL = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"


@dataclass
class Sweep:
    """One sweep of a campaign.

    Attributes:
        file: of the sweep.
        folder: to work in; its store is `store` there.
        rng: of this sweep's faults.
        room: of Ray; none for the runner without it.
        server: of object storage, where the store is there; none for a folder.
        done: faults so far, by kind.
        n_runs: how often the command was given.
    """

    file: Path
    folder: Path
    rng: random.Random
    room: Room | None = None
    server: Server | None = None
    done: list[str] = field(default_factory=list)
    n_runs: int = 0

    @property
    def store(self) -> ResultStore:
        """Where its results are."""
        return ResultStore(self.uri)

    @property
    def uri(self) -> str:
        """The store's name: a folder, or one of its own on the server."""
        return self.server.uri(self.folder.name) if self.server else str(self.folder / "store")

    def start(self, **options: object) -> subprocess.Popen[bytes]:
        """Give the command, and return while it runs."""
        self.n_runs += 1
        runner = ["--runner", "inline"] if self.room is None else ["--address", self.room.address]
        # Without retries a lost trial has failed, until the command is given again.
        runner += ["--set", f"max_retries={self.rng.choice([0, 3])}"]
        with (self.folder / f"run{self.n_runs}.log").open("wb") as log:
            settings = {"stdout": log, "stderr": subprocess.STDOUT} | options
            return subprocess.Popen(
                [*COMMAND, "run", str(self.file), "--store", self.uri, *runner],
                cwd=self.folder,
                start_new_session=True,
                **settings,  # type: ignore[call-overload]
            )

    def is_complete(self) -> bool:
        """Say whether nothing is left that a fault could hit."""
        found, wanted = self.progress(), self.store.trial_ids()
        return bool(wanted) and all(t in found and found[t].is_complete for t in wanted)

    def is_begun(self) -> bool:
        """Say whether a guided trial has committed an epoch."""
        return any(found.epoch == 0 for found in self.progress().values())

    def progress(self) -> dict[str, Progress]:
        """Return how far each trial is; nothing while a damaged file lies in the store.

        The store refuses to say how far its trials are until a run has set such a file aside.
        """
        try:
            return self.store.progress()
        except DamagedError:
            return {}

    def finish(self) -> None:
        """Give the command until the sweep is complete.

        Raises:
            AssertionError: it never is.
        """
        while self.n_runs < MOST_RUNS:
            if self.start().wait() == 0:
                return
        raise AssertionError(f"{self.folder}: not complete after {MOST_RUNS} runs ({self.done})")


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> bool:
    """Wait until something is so; return whether it is, and not too late for a fault."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.05)
    return False
