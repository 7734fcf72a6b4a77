"""Several drivers that start on one store at the very same moment."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from mg_core.errors import InputError
from mg_core.store import ResultStore
from sweeps.lock import StoreLock, host_identity, refuse_driven
from sweeps.status import read_status

STARTS, ROUNDS = 4, 25

# In every round each process waits for the others, and then enters the lock of a new store. The one
# that has it keeps it until all have tried.
DRIVER = """
import sys, time
from pathlib import Path
from mg_core.errors import InputError
from mg_core.store import ResultStore
from sweeps.lock import StoreLock

folder, starts, rounds, name = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def wait_for_all(place):
    end = time.monotonic() + 60
    while len(list(folder.glob(f"{place}-*"))) < starts and time.monotonic() < end:
        time.sleep(0.001)

for number in range(rounds):
    store = ResultStore(f"{folder}/store{number}")
    (folder / f"ready{number}-{name}").touch()
    wait_for_all(f"ready{number}")
    try:
        with StoreLock(store, name):
            (folder / f"tried{number}-{name}").write_text("won")
            wait_for_all(f"tried{number}")
    except InputError as error:
        said = "refused" if "is driven by process" in str(error) else str(error)
        (folder / f"tried{number}-{name}").write_text(said)
"""


def test_of_drivers_that_start_together_exactly_one_gets_the_store(tmp_path):
    arguments = [sys.executable, "-c", DRIVER, tmp_path, str(STARTS), str(ROUNDS)]
    processes = [subprocess.Popen([*arguments, f"run{number}"]) for number in range(STARTS)]
    assert [process.wait() for process in processes] == [0] * STARTS
    for number in range(ROUNDS):
        said = Counter(path.read_text() for path in tmp_path.glob(f"tried{number}-*"))
        assert said == {"won": 1, "refused": STARTS - 1}


@pytest.mark.parametrize("_", range(3))
def test_of_runs_that_start_together_one_runs_all_trials(_, sweep, write, command, tmp_path):
    sweep["store"] = str(tmp_path / "store")
    arguments = [*command, "run", str(write(sweep)), "--runner", "inline"]
    processes = [
        subprocess.Popen(
            arguments, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = [(*process.communicate(), process.returncode) for process in processes]
    refused = [err for _, err, code in said if code == 2]
    assert sorted(code for *_, code in said) in ([0, 2, 2], [0, 0, 2], [0, 0, 0]), said
    assert all("is driven by process" in err for err in refused)
    ran = [out for out, _, code in said if code == 0 and "9 to run" in out]
    assert len(ran) == 1
    assert read_status(ResultStore(sweep["store"])).to_json()["counts"]["complete"] == 9


def test_a_copy_of_a_driven_store_is_free_and_a_moved_store_is_not(tmp_path):
    store = ResultStore(str(tmp_path / "store"))
    with StoreLock(store, "first"):
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
        (tmp_path / "store").rename(tmp_path / "moved")
        with StoreLock(ResultStore(str(tmp_path / "copy")), "second"):
            pass
        with pytest.raises(InputError, match=f"is driven by process {os.getpid()} on"):
            refuse_driven(ResultStore(str(tmp_path / "moved")))


@pytest.mark.parametrize("change", [{"born": None}, {"pid": "self"}, {"pid": None}, {"host": 1}])
def test_a_lock_that_no_driver_can_have_written_is_none(tmp_path, change):
    store = ResultStore(str(tmp_path / "store"))
    own = {"run": "x", "host": host_identity(), "pid": 2**30, "born": "1", "beat": "0"}
    store.put("lock.json", json.dumps(own | change).encode())
    refuse_driven(store)


def test_a_lock_on_object_storage_is_looked_at_again(tmp_path, monkeypatch):
    # A driver that overtakes another one between its look and its write: the last writer has it.
    import sweeps.lock

    class Slow(ResultStore):
        local_path = None

        def overtaken(self, seconds):
            other = StoreLock(ResultStore(self.uri), "other")
            other._write(other._entered)

    store = Slow(str(tmp_path / "store"))
    monkeypatch.setattr(sweeps.lock.time, "sleep", store.overtaken)
    with pytest.raises(InputError, match=f"is driven by process {os.getpid()} on"):
        StoreLock(store, "first").__enter__()
    assert json.loads((tmp_path / "store" / "lock.json").read_text())["run"] == "other"
