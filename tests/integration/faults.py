"""Random faults on real sweeps: what is killed, stopped, filled up or cut, and what must be left.

A campaign runs one small sweep again and again, each time into a new store, and does something to
it that machines do. After every fault the same command is given again until the sweep is complete;
then its table must be that of a sweep nothing happened to, bit for bit.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from finished import check, table
from room import Room, children, kill
from s3_server import CREDENTIALS, Server
from swept import COMMAND, MORTAL, Sweep, wait_for

from mg_core.store.layout import LOCK, SPEC, is_own
from sweeps.lock import read_lock

# Faults. Each leaves the sweep somewhere on its way, the driver at work or not, and says whether
# it hit anything: a sweep may be over first.


def kill_driver(sweep: Sweep, is_time: Callable[[], object] | None = None) -> bool:
    """SIGKILL of the driver at any moment from some time on; without Ray it is the trial too."""
    process = sweep.start()
    wait_for(is_time or sweep.progress, process)
    time.sleep(sweep.rng.uniform(0, 2))
    kill(process.pid)
    return process.wait() == -signal.SIGKILL


def cut_write(sweep: Sweep) -> bool:
    """The end of the process at some byte of some file that it writes."""
    (sweep.folder / "sitecustomize.py").write_text(MORTAL)
    limit = int(10 ** sweep.rng.uniform(2, 5.5))
    process = sweep.start(
        env={**os.environ, "PYTHONPATH": str(sweep.folder)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    return process.wait() == -signal.SIGXFSZ


def fill_disk(sweep: Sweep) -> bool:
    """No space for a file beyond some size, until somebody makes room."""
    limit = int(10 ** sweep.rng.uniform(2, 5.5))
    process = sweep.start(
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        stdout=subprocess.PIPE,
    )
    said = process.communicate()[0].decode()
    assert "Traceback" not in said, said
    return process.returncode != 0


def two_drivers(sweep: Sweep) -> bool:
    """A second driver that misses the lock, and works on the same trials at the same time."""
    first = sweep.start()
    wait_for(sweep.progress, first)
    sweep.store.files.delete([LOCK])
    second = sweep.start()
    both = wait_for(lambda: read_lock(sweep.store), second) and first.poll() is None
    for process in (first, second):
        process.wait()
    return both


def flipped_bit(sweep: Sweep) -> bool:
    """One bit of one file after the death of the driver; the store is looked through then."""
    kill_driver(sweep)
    keys = [key for key in sweep.store.files.keys("") if is_own(key) and not key.startswith("logs")]
    key = sweep.rng.choice([key for key in keys if key not in (LOCK, SPEC)])
    data = bytearray(sweep.store.get(key))
    if data:
        data[sweep.rng.randrange(len(data))] ^= 1 << sweep.rng.randrange(8)
        sweep.store.put(key, bytes(data))
    _verified(sweep)
    return bool(data)


def swapped_files(sweep: Sweep) -> bool:
    """The metrics of one trial in the place of another's."""
    # On a busy machine a driver that is killed too soon would never get as far as a second trial.
    kill_driver(sweep, lambda: len(sweep.store.metrics_keys()) > 1)
    keys = sorted(sweep.store.metrics_keys().values())
    if len(keys) > 1:
        one, other = sweep.rng.sample(keys, 2)
        sweep.store.put(other, sweep.store.get(one))
    return len(keys) > 1


def files_of_others(sweep: Sweep) -> bool:
    """A user's own files and links among those of the store, which stay as they are."""
    kill_driver(sweep)
    path = sweep.store.local_path
    assert path is not None
    for name in ("thesis.docx", "metrics/notes.txt", ".tmp/draft", "trials/x.json~"):
        sweep.store.put(name, b"mine")
    trial = sweep.rng.choice(sorted(sweep.store.trial_ids()))
    (path / "metrics" / trial).mkdir(parents=True, exist_ok=True)
    (path / "metrics" / trial / "up").unlink(missing_ok=True)
    (path / "metrics" / trial / "up").symlink_to(path)
    return True


def _verified(sweep: Sweep) -> None:
    program = [*COMMAND, "verify", sweep.uri, "--repair"]
    said = subprocess.run(program, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def storage_down(sweep: Sweep) -> bool:
    """The end of the S3 server while a trial is at work, or a stall; it comes back."""
    assert sweep.server is not None
    process = sweep.start()
    is_hit = wait_for(sweep.progress, process)
    if is_hit:
        time.sleep(sweep.rng.uniform(0, 2))
        if sweep.rng.random() < 0.7:
            sweep.server.stop()
            time.sleep(sweep.rng.uniform(0, 4))
            sweep.server.start()
        else:
            kill(sweep.server.process.pid, signal.SIGSTOP)
            time.sleep(sweep.rng.uniform(0, 4))
            kill(sweep.server.process.pid, signal.SIGCONT)
    process.wait()
    return is_hit


def with_ray(fault: Callable[[Sweep, Room, subprocess.Popen[bytes]], None]) -> Callable[..., None]:
    """Do something to a sweep on a cluster once a trial is at work, then wait for its driver."""

    def run(sweep: Sweep) -> bool:
        assert sweep.room is not None
        process = sweep.start()
        room = sweep.room
        is_hit = wait_for(lambda: sweep.is_begun() and room.trials(), process)
        if is_hit:
            time.sleep(sweep.rng.uniform(0, 1))
            is_hit = process.poll() is None
            fault(sweep, room, process)
        process.wait()
        return is_hit

    return run


@with_ray
def kill_trial(sweep: Sweep, room: Room, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL of a trial's process."""
    if trials := room.trials():
        kill(sweep.rng.choice(trials))


@with_ray
def kill_raylet(sweep: Sweep, room: Room, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL of a node's raylet, whose trial goes on for a while; another node comes."""
    victim = room.raylets.pop(sweep.rng.randrange(len(room.raylets)))
    kill(victim)
    room.add_node()


@with_ray
def kill_node(sweep: Sweep, room: Room, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL of a raylet and all its processes; another node comes."""
    victim = room.raylets.pop(sweep.rng.randrange(len(room.raylets)))
    for pid in [*children(victim), victim]:
        kill(pid)
    room.add_node()


@with_ray
def kill_ray_driver(sweep: Sweep, room: Room, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL of the driver while its trials are at work."""
    kill(process.pid)


@with_ray
def zombie(sweep: Sweep, room: Room, process: subprocess.Popen[bytes]) -> None:
    """A trial stopped past the death of its node, that goes on when its successor is at work."""
    trials = {pid: raylet for raylet in room.raylets for pid in children(raylet)}
    at_work = [pid for pid in room.trials() if pid in trials]
    if not at_work:
        return
    victim = sweep.rng.choice(at_work)
    kill(victim, signal.SIGSTOP)
    kill(trials[victim])
    room.raylets.remove(trials[victim])
    room.add_node()
    time.sleep(sweep.rng.uniform(2, 12))
    kill(victim, signal.SIGCONT)


@with_ray
def kill_head(sweep: Sweep, room: Room, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL of the cluster's head; a new cluster comes."""
    kill(room.gcs)
    time.sleep(sweep.rng.uniform(0, 5))
    kill(process.pid)
    room.close()
    sweep.room = Room()


WITHOUT_RAY = {
    "driver": kill_driver,
    "cut write": cut_write,
    "full disk": fill_disk,
    "two drivers": two_drivers,
    "flipped bit": flipped_bit,
    "swapped files": swapped_files,
    "files of others": files_of_others,
}
WITH_S3 = {"storage": storage_down}
WITH_RAY = {
    "trial": kill_trial,
    "raylet": kill_raylet,
    "node": kill_node,
    "driver on Ray": kill_ray_driver,
    "zombie": zombie,
    "head": kill_head,
}
FAULTS = WITHOUT_RAY | WITH_S3 | WITH_RAY
PLACES = {
    **dict.fromkeys(WITHOUT_RAY, "folder"),
    **dict.fromkeys(WITH_S3, "s3"),
    **dict.fromkeys(WITH_RAY, "ray"),
}
"""Where each kind happens."""


def undisturbed(file: Path, folder: Path) -> pa.Table:
    """Run the sweep without any fault and return its table."""
    sweep = Sweep(file, folder, random.Random(0))
    sweep.finish()
    check(sweep.store)
    return table(sweep.store)


class Places:
    """Where sweeps run; what is started for the first one that needs it serves all the others.

    Args:
        file: of the sweep.
        folder: to work in.
        rng: of all faults.
    """

    def __init__(self, file: Path, folder: Path, rng: random.Random) -> None:
        self.file, self.folder, self.rng = file, folder, rng
        self.room: Room | None = None
        self.server: Server | None = None
        self.n_sweeps = 0

    def new_sweep(self, place: str) -> Sweep:
        """Return a sweep that is still to begin."""
        if place == "s3" and self.server is None:
            os.environ.update(CREDENTIALS)
            self.server = Server(self.folder)
        if place == "ray" and self.room is None:
            self.room = Room()
        folder = self.folder / f"sweep{self.n_sweeps}"
        folder.mkdir()
        self.n_sweeps += 1
        room, server = self.room if place == "ray" else None, self.server if place == "s3" else None
        return Sweep(self.file, folder, self.rng, room, server)

    def finish(self, sweep: Sweep, expected: pa.Table) -> None:
        """Give the command until a sweep is complete, and check what it left.

        Raises:
            AssertionError: a table or a file is not what it should be.
        """
        sweep.finish()
        self.room = sweep.room or self.room  # a killed head has a successor
        if "zombie" in sweep.done:
            time.sleep(5)  # for what it may still write
            sweep.finish()
        assert table(sweep.store).equals(expected), f"{sweep.folder}: {sweep.done}"
        check(sweep.store)

    def close(self) -> None:
        """End everything that was started."""
        for started in (self.room, self.server):
            if started is not None:
                started.close()


def campaign(
    file: Path, folder: Path, expected: pa.Table, seed: int, kinds: list[str]
) -> Iterator[tuple[str, float]]:
    """Do faults to sweeps, some to each, and check every sweep when it is complete.

    A fault that hit nothing, because its sweep was over first, is done again to a new one.

    Args:
        file: of the sweep.
        folder: to work in.
        expected: table of the sweep without faults.
        seed: of everything random.
        kinds: names of faults, in order; those of different places never share a sweep.

    Yields:
        The kind of each fault that hit, and the seconds it took.

    Raises:
        AssertionError: a sweep's table or its files are not what they should be.
    """
    rng = random.Random(seed)
    places = Places(file, folder, rng)
    todo = deque(kinds)
    try:
        while todo:
            place, size = PLACES[todo[0]], rng.randint(1, 4)
            sweep = places.new_sweep(place)
            while todo and PLACES[todo[0]] == place and len(sweep.done) < size:
                start = time.monotonic()
                if FAULTS[todo[0]](sweep):
                    sweep.done.append(todo[0])
                    yield todo.popleft(), time.monotonic() - start
                if sweep.is_complete():
                    break
            places.finish(sweep, expected)
    finally:
        places.close()


def drawn(seed: int, count: int) -> list[str]:
    """Draw kinds of faults; those of a place come together, so that a cluster serves many."""
    rng = random.Random(f"{seed} kinds")
    return sorted((rng.choice(list(FAULTS)) for _ in range(count)), key=PLACES.__getitem__)
