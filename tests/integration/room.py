"""A real Ray cluster on this machine, whose processes can be killed one by one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

# A cluster in a process of its own: a head on which no trial runs, and nodes of one CPU each.
ROOM = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
def raylet(node):
    return node.all_processes["raylet"][0].process.pid
def add():
    return raylet(cluster.add_node(num_cpus=1))
gcs = cluster.head_node.all_processes["gcs_server"][0].process.pid
print(json.dumps({"address": cluster.address, "gcs": gcs, "raylets": [add(), add()]}), flush=True)
for line in sys.stdin:
    print(add(), flush=True)
cluster.shutdown()
"""


class Room:
    """A Ray cluster of several nodes on this machine, whose parts can be killed one by one."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ROOM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        found = json.loads(self.process.stdout.readline())
        self.address, self.gcs, self.raylets = found["address"], found["gcs"], found["raylets"]

    def add_node(self) -> None:
        """Start another node."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.raylets.append(int(self.process.stdout.readline()))

    def trials(self) -> list[int]:
        """Return the processes of trials that are at work."""
        found = [pid for raylet in self.raylets for pid in children(raylet)]
        return [pid for pid in found if "ResourceTrainable" in command_line(pid)]

    def close(self) -> None:
        """End everything that this room started."""
        ours = [self.gcs, *self.raylets, *(p for r in self.raylets for p in children(r))]
        ours += descendants(self.process.pid)
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.communicate(timeout=30)
        for pid in [self.process.pid, *ours]:
            kill(pid)
        self.process.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def descendants(pid: int) -> list[int]:
    """Return those, and what they have started."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def command_line(pid: int) -> str:
    """Return what a process calls itself, nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
