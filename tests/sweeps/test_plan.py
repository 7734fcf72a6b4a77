"""What is left to do, and which stores a sweep may enter."""

import multiprocessing
import subprocess
import sys
import time

import pytest

from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt
from mg_core.store.layout import LOCK
from mg_core.training.execution import Outcome
from sweeps.lock import StoreLock, is_held, process_birth, read_lock
from sweeps.planning import admit, check_admission, make_plan
from sweeps.runner import FailFast, Queue
from sweeps.spec import load_spec
from sweeps.status import read_status


@pytest.fixture
def planned(sweep, write, tmp_path):
    """Return plans of a sweep with settings, on one store."""
    file = write(sweep)

    def plan(*settings):
        return make_plan(load_spec(file, list(settings), str(tmp_path / "store")))

    return plan


@pytest.fixture
def store(tmp_path):
    return ResultStore(str(tmp_path / "store"))


def enter(plan, store, extend=False):
    check_admission(plan, store, extend)
    admit(plan, store)


def commit(store, config, until=None):
    attempt = Attempt(store, config, ("f1", "epg", "iou"), "run")
    while not attempt.is_complete and (until is None or attempt.next_epoch <= until):
        rows = [
            {"attribution": p.attribution, "layer": p.layer, "val_f1": 0.5} for p in config.evaluate
        ]
        attempt.commit(attempt.next_epoch, rows or [{"val_f1": 0.5}], bytes, bytes)
    return attempt


def test_complete_trials_are_skipped_and_failed_ones_wait_to_be_asked(planned, store):
    plan = planned()
    (baseline,) = plan.grid.baselines.values()
    first, second, *_ = plan.grid.guided.values()
    assert next(iter(plan.todo(retry_failed=False))) == baseline.trial_id
    commit(store, baseline).end("complete")
    commit(store, first, until=1)
    commit(store, second, until=0).end("failed", kind="bug", error="e", traceback="t")
    plan = planned()
    assert plan.ledger.state(baseline.trial_id) == "complete"
    assert plan.ledger.state(first.trial_id) == "waiting"
    assert plan.epochs_left(first.trial_id) == 1
    assert plan.ledger.state(second.trial_id) == "failed"
    assert not {baseline.trial_id, second.trial_id} & plan.todo(retry_failed=False).keys()
    assert second.trial_id in plan.todo(retry_failed=True)


def test_a_trial_that_the_machine_lost_is_tried_again_unasked(planned, store):
    plan = planned()
    (baseline,) = plan.grid.baselines.values()
    commit(store, baseline, until=1).end("failed", kind="lost", error="e", traceback=None)
    assert baseline.trial_id in planned().todo(retry_failed=False)


def test_trials_without_a_spec_are_those_of_a_driver_killed_at_its_start(planned, store):
    store.put_trials(planned("guided.epochs=5").grid.trials)
    enter(planned(), store)
    assert store.trial_ids() == planned().grid.trials.keys()


def test_damaged_stores_are_sentences(planned, store):
    enter(planned(), store)
    for data in (b"\xff\xfe", b"- a list"):
        store.put("sweep.yaml", data)
        with pytest.raises(InputError, match=r"sweep\.yaml is no mapping"):
            read_status(store)
    enter(planned(), store)  # Of the same trials: the spec is written again.
    assert read_status(store).spec["name"] == "small"
    store.put(LOCK, b"[]")
    assert read_lock(store) is None
    store.put("metrics/0123456789abcdef/0001-abababab.parquet", b"torn")
    with pytest.raises(InputError, match=r"cannot be read: .*0001-abababab.parquet is damaged"):
        planned()


def test_the_same_sweep_enters_again_and_another_does_not(planned, store):
    enter(planned(), store, extend=False)
    before = {key: store.get(key) for key in store.files.keys("")}
    enter(planned(), store, extend=False)
    with pytest.raises(
        InputError, match=r"holds a different sweep: data\.image_size: 24 → 32; name"
    ):
        enter(planned("data.image_size=32"), store, extend=True)
    with pytest.raises(InputError, match=r"holds a different sweep: objectives: "):
        enter(planned("objectives=[f1, epg]"), store, extend=True)
    assert before == {key: store.get(key) for key in store.files.keys("")}


def test_a_larger_grid_enters_when_asked(planned, store):
    enter(planned(), store, extend=False)
    larger = "grid.loss={energy: [0.01, 0.1, 1.0]}"
    with pytest.raises(InputError, match="--extend takes the change: new trials: 4"):
        enter(planned(larger), store, extend=False)
    n_before = len(store.trial_ids())
    # Killed between the trials and the spec: the same command enters all the same.
    store.put_trials(planned(larger).grid.trials)
    enter(planned(larger), store, extend=False)
    assert len(store.trial_ids()) == n_before + 4
    assert store.spec()["grid"][0]["loss"] == {"energy": [0.01, 0.1, 1.0]}


def test_guided_trials_start_as_their_own_baseline_completes(planned):
    plan = planned("seed=[0, 1]")
    queue = Queue.of(plan.todo(retry_failed=False), set())
    first, second = queue.next(), queue.next()
    assert {first.kind, second.kind} == {"baseline"}
    assert queue.next() is None
    assert not queue.is_done
    queue.end(second.trial_id, is_complete=True)
    released = [queue.next() for _ in range(8)]
    assert {config.baseline for config in released} == {second.trial_id}
    assert queue.next() is None
    queue.end(first.trial_id, is_complete=False)
    assert queue.is_done
    assert len(queue.blocked) == 8


def test_children_of_a_baseline_that_failed_before_are_blocked(planned, store):
    plan = planned()
    (baseline,) = plan.grid.baselines.values()
    commit(store, baseline, until=1).end("failed", kind="bug", error="e", traceback="t")
    queue = Queue.of(planned().todo(retry_failed=False), set())
    assert queue.is_done
    assert len(queue.blocked) == 8


def test_costly_layers_come_first(planned):
    layers = [c.guidance.layer for c in planned().todo(retry_failed=False).values() if c.guidance]
    assert layers == sorted(layers, key=("input", "final").index)


def _hold(uri, seconds):
    with StoreLock(ResultStore(uri), "first"):
        time.sleep(seconds)


def test_a_second_driver_is_told_who_holds_the_store(store):
    context = multiprocessing.get_context("fork")
    holder = context.Process(target=_hold, args=(store.uri, 60))
    holder.start()
    while read_lock(store) is None:
        time.sleep(0.01)
    with pytest.raises(InputError, match=rf"is driven by process {holder.pid} on "):
        StoreLock(store, "second").__enter__()
    # Killed, it can release nothing; its lock is taken over at once.
    holder.kill()
    holder.join()
    start = time.monotonic()
    with StoreLock(store, "third"):
        assert time.monotonic() - start < 1
        assert read_lock(store)["run"] == "third"
    assert read_lock(store) is None


def test_a_driver_on_another_host_is_watched_not_timed(store, monkeypatch):
    monkeypatch.setattr("sweeps.lock.BEAT_SECONDS", 0.05)
    lock = StoreLock(store, "first")
    lock._record["host"] = "another"
    with lock, pytest.raises(InputError, match="is driven by process"):
        StoreLock(store, "second").__enter__()
    lock = StoreLock(store, "first")
    lock._record["host"] = "another"
    lock._write(store)  # and never again
    with StoreLock(store, "second"):
        assert read_lock(store)["run"] == "second"


def test_a_driver_that_was_given_up_notices_and_starts_nothing_more(planned, store, monkeypatch):
    monkeypatch.setattr("sweeps.lock.BEAT_SECONDS", 0.02)
    queue = Queue.of(planned().todo(retry_failed=False), set())
    with StoreLock(store, "first") as first:
        fail_fast = FailFast(queue, None, lambda: first.successor)
        fail_fast.outcome(Outcome("t", "running"))
        assert queue.stopped is None
        # Cut off from the store for a while, it is thought dead by a driver elsewhere.
        monkeypatch.setattr("sweeps.lock.is_held", lambda store, holder: False)
        monkeypatch.setattr(first, "_write", lambda store: None)
        with StoreLock(store, "second"):
            end = time.monotonic() + 20
            while first.successor is None and time.monotonic() < end:
                time.sleep(0.01)
            fail_fast.outcome(Outcome("t", "running"))
            assert queue.stopped.startswith("the store is driven by process ")
            assert read_lock(store)["run"] == "second"
    assert read_lock(store) is None


def test_a_look_at_a_lock_counts_the_time_since_it_was_read(store, monkeypatch):
    monkeypatch.setattr("sweeps.lock.BEAT_SECONDS", 0.2)
    lock = StoreLock(store, "first")
    lock._record["host"] = "another"
    lock._write(store)
    holder, start = read_lock(store), time.monotonic()
    assert not is_held(store, holder, start - 10)
    assert time.monotonic() - start < 0.2
    lock._write(store)
    assert is_held(store, holder, start - 10)


def test_a_process_is_known_by_its_birth():
    import os

    assert process_birth(os.getpid()) is not None
    assert process_birth(2**22 + 1) is None


def test_status_tells_running_from_lost(planned, store):
    plan = planned()
    enter(plan, store, extend=False)
    (baseline,) = plan.grid.baselines.values()
    guided = next(iter(plan.grid.guided.values()))
    commit(store, baseline).end("complete")
    commit(store, guided, until=0)
    assert read_status(store).states[guided.trial_id] == "waiting"
    with StoreLock(store, "run"):
        found = read_status(store)
        assert found.states[guided.trial_id] == "running"
        assert found.driver["run"] == "run"
    assert found.to_json()["counts"] == {"complete": 1, "running": 1, "failed": 0, "waiting": 7}
    with pytest.raises(InputError, match="is not a result store"):
        read_status(ResultStore(store.uri + "-nowhere"))


PLANNED_AND_PREPARED = """
import sys
import sweeps.scheduler
from sweeps.drive import prepare_data
from sweeps.planning import make_plan
from sweeps.spec import load_spec

small = ["data.image_size=8", "data.options={train: 4, val: 2, test: 2, size: 24}"]
for name in sys.argv[2:]:
    plan = make_plan(load_spec(name, [], sys.argv[1]))
plan = make_plan(load_spec(name, small, sys.argv[1]))
prepare_data(plan, plan.todo(retry_failed=False))
print(len(plan.grid.trials), "torch" in sys.modules)
"""


def test_a_driver_does_without_pytorch(tmp_path, repository):
    # It would take seconds to plan, and most of a gigabyte beside the trials.
    files = [str(repository / "sweeps" / f"{name}.yaml") for name in ("voc_full", "study")]
    command = [sys.executable, "-c", PLANNED_AND_PREPARED, str(tmp_path / "store"), *files]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["222", "False"]
