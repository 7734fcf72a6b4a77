"""The store and its commit protocol, on real files."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mg_core.errors import InputError, StorageError
from mg_core.store import ResultStore, garbage
from mg_core.store.attempt import Attempt, SupersededError, kept_epochs
from mg_core.store.files import Files
from mg_core.store.garbage import collect_garbage
from mg_core.store.layout import TEMPORARY
from mg_core.store.tables import METRICS, config_columns

TRIAL = "0123456789abcdef"
OBJECTIVES = ("f1", "epg", "iou")


def rows_of(config, epoch, scores=None):
    """Return made-up but reproducible rows of one epoch."""
    draw = np.random.default_rng(epoch)
    f1, epg, iou = scores or draw.random(3)
    common = {"val_f1": f1, "seconds_train": 1.0, "seconds_val": 0.5}
    return [
        common | {"attribution": p.attribution, "layer": p.layer, "val_epg": epg, "val_iou": iou}
        for p in config.evaluate
    ] or [common]


def run(store, config, until=None, scores=None):
    attempt = Attempt(store, config, OBJECTIVES, run="r")
    while not attempt.is_complete and (until is None or attempt.next_epoch <= until):
        epoch = attempt.next_epoch
        rows = rows_of(config, epoch, scores[epoch] if scores else None)
        weights, state = b"weights %d" % epoch, b"state %d" % epoch
        attempt.commit(epoch, rows, partial(bytes, weights), partial(bytes, state))
    return attempt


@pytest.fixture
def store(tmp_path):
    return ResultStore(str(tmp_path / "store"))


def test_a_trial_keeps_its_front_and_its_newest_state(store, guided):
    scores = {0: (1, 1, 1), 1: (0.5, 0.5, 0.5), 2: (0.6, 0.4, 0.5), 3: (0.6, 0.6, 0.6)}
    run(store, guided, until=2, scores=scores)
    progress = store.progress()[guided.trial_id]
    assert (progress.epoch, progress.is_complete) == (2, False)
    assert set(progress.checkpoints) == {1, 2}  # epoch 0 is better, but never a candidate
    assert store.get(progress.state) == b"state 2"
    assert set(store.files.keys("checkpoints")) == progress.references

    run(store, guided, scores=scores)
    progress = store.progress()[guided.trial_id]
    assert progress.is_complete
    assert set(progress.checkpoints) == {3}
    assert store.get(progress.state) == b"state 3"
    assert set(store.files.keys("checkpoints")) == progress.references
    assert store.get(progress.checkpoints[3]) == b"weights 3"


def test_a_baseline_keeps_its_best_f1_of_equals_the_earliest(store, baseline):
    scores = {1: (0.5, None, None), 2: (0.7, None, None), 3: (0.7, None, None)}
    run(store, baseline, scores=scores)
    assert set(store.progress()[baseline.trial_id].checkpoints) == {2}
    table = store.rows(["attribution", "layer", "epoch", "kind"]).to_pydict()
    assert table["attribution"] == table["layer"] == [None] * 3
    assert table["epoch"] == [1, 2, 3]


def test_rows_carry_every_parameter_with_its_type(store, guided):
    run(store, guided)
    table = store.rows()
    assert table.schema.equals(METRICS)
    row = table.to_pylist()[0]
    described = config_columns(guided)
    assert {name: row[name] for name in described} == described
    assert row["guided_attribution"] == "ixg"
    assert table.num_rows == (guided.epochs + 1) * len(guided.evaluate)


def test_an_interrupted_trial_equals_one_that_was_not(tmp_path, guided):
    whole, parts = ResultStore(str(tmp_path / "a")), ResultStore(str(tmp_path / "b"))
    run(whole, guided)
    for epoch in range(guided.epochs + 1):
        run(parts, guided, until=epoch)
    tables = [s.rows().drop_columns(["attempt"]) for s in (whole, parts)]
    assert tables[0].equals(tables[1])
    assert parts.rows(["attempt"])["attempt"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert len(parts.files.keys("metrics")) == 1


def test_an_attempt_that_lost_its_node_removes_nothing_of_its_successor(store, guided):
    zombie = run(store, guided, until=1)
    # The successor has read what the zombie committed and refers to its files.
    successor = Attempt(store, guided, OBJECTIVES, "r2")
    assert successor.next_epoch == 2
    with pytest.raises(SupersededError):
        zombie.commit(2, rows_of(guided, 2, (2, 2, 2)), lambda: b"z", lambda: b"z")
    assert store.get(successor.progress.state) == b"state 1"
    for key in successor.progress.references:
        store.get(key)
    successor.commit(2, rows_of(guided, 2), lambda: b"weights 2", lambda: b"state 2")
    assert set(store.files.keys("checkpoints")) == successor.progress.references
    assert [k.split("/")[-1] for k in store.files.keys("metrics")] == [f"{successor.key}.parquet"]


class _PausedFiles(Files):
    """A process that is suspended once it has looked for a successor."""

    def keys(self, prefix):
        found = super().keys(prefix)
        if prefix.startswith("attempts/") and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return found


def test_a_paused_predecessor_removes_nothing_that_came_meanwhile(store, guided):
    zombie = run(store, guided, until=1)
    zombie.store = ResultStore(store.uri)
    zombie.store.files = _PausedFiles(store.uri)
    zombie.store.files.meanwhile = lambda: run(ResultStore(store.uri), guided, until=3)
    zombie.commit(2, rows_of(guided, 2), lambda: b"weights 2", lambda: b"state 2")
    progress = store.progress()[guided.trial_id]
    assert progress.epoch == 3
    for key in progress.references:
        store.get(key)


def test_a_complete_trial_is_taken_over_before_its_garbage_is_removed(store, guided):
    run(store, guided, until=2)
    store.put_trials({guided.trial_id: guided})
    first = Attempt(store, guided, OBJECTIVES, "r")
    second = Attempt(store, guided, OBJECTIVES, "r")
    # The first was thought dead and completes the trial; the second is about to commit.
    with pytest.raises(SupersededError):
        first.commit(3, rows_of(guided, 3), lambda: b"weights 3", lambda: b"state 3")
    collect_garbage(store, "r")
    with pytest.raises(SupersededError):
        second.commit(3, rows_of(guided, 3), lambda: b"weights 3", lambda: b"state 3")
    progress = store.progress()[guided.trial_id]
    assert progress.is_complete
    for key in progress.references:
        store.get(key)
    collect_garbage(store, "r")
    assert set(store.files.keys("checkpoints")) == progress.references


def test_a_failed_trial_is_taken_over_before_its_garbage_is_removed(store, guided, monkeypatch):
    store.put_trials({guided.trial_id: guided})
    zombie = run(store, guided, until=1)
    zombie.end("failed", kind="lost", error="gone", host="there", pid=7)
    store.put(f"checkpoints/{guided.trial_id}/0000-deadbeef/epoch-0001.safetensors", b"garbage")
    found = garbage.with_garbage(store)
    # The first attempt only seemed dead; it commits again after the garbage was listed.
    zombie.commit(2, rows_of(guided, 2), lambda: b"weights 2", lambda: b"state 2")
    store.put(f"checkpoints/{guided.trial_id}/0000-deadbeef/epoch-0001.safetensors", b"garbage")
    monkeypatch.setattr(garbage, "with_garbage", lambda store: found)
    collect_garbage(store, "r")
    with pytest.raises(SupersededError):
        zombie.commit(3, rows_of(guided, 3), lambda: b"weights 3", lambda: b"state 3")
    progress = store.progress()[guided.trial_id]
    assert progress.epoch == 2
    assert set(store.files.keys("checkpoints")) >= progress.references
    assert "deadbeef" not in str(store.files.keys("checkpoints"))
    record = store.attempts()[guided.trial_id]
    assert [record[name] for name in ("how", "kind", "host", "pid")] == [
        "failed",
        "lost",
        "there",
        7,
    ]
    assert run(store, guided).is_complete


def test_garbage_of_a_trial_that_another_driver_runs_is_left(store, guided, monkeypatch):
    store.put_trials({guided.trial_id: guided})
    run(store, guided, until=1).end("failed", kind="bug", error="e")
    store.put(f"checkpoints/{guided.trial_id}/0000-deadbeef/epoch-0001.safetensors", b"garbage")
    found = garbage.with_garbage(store)
    monkeypatch.setattr(garbage, "with_garbage", lambda store: found)
    retried = Attempt(store, guided, OBJECTIVES, "other")
    collect_garbage(store, "r")
    for epoch in (2, 3):
        retried.commit(epoch, rows_of(guided, epoch), lambda: b"weights", lambda: b"state")
    assert store.progress()[guided.trial_id].is_complete


def test_reading_a_folder_as_an_object_is_a_storage_error(store):
    store.put("folder/x", b"1")
    with pytest.raises(StorageError, match="folder cannot be read: Is a directory"):
        store.get("folder")


def test_files_of_other_programs_are_ignored(store, guided):
    run(store, guided)
    for key in ("metrics/.DS_Store", f"metrics/{guided.trial_id}/.nfs0001", "attempts/x/notes.txt"):
        store.put(key, b"")
    assert set(store.progress()) == set(store.attempts()) == {guided.trial_id}


def test_two_attempts_that_begin_together_are_ordered(store, guided):
    attempts = [Attempt(store, guided, OBJECTIVES, "r") for _ in range(5)]
    assert sorted(a.key for a in attempts) == [a.key for a in attempts]
    with pytest.raises(SupersededError):
        attempts[0].commit(0, rows_of(guided, 0), bytes, bytes)


class _FailingFiles(Files):
    """A disk that is full after some writes."""

    def __init__(self, uri, writes):
        super().__init__(uri)
        self.writes = writes

    def put(self, key, data):
        self.writes -= 1
        if self.writes < 0:
            raise OSError(28, "No space left on device")
        super().put(key, data)


@pytest.mark.parametrize("writes", range(14))
def test_a_disk_that_fills_at_any_write_loses_no_committed_epoch(tmp_path, guided, writes):
    store = ResultStore(str(tmp_path))
    store.files = _FailingFiles(str(tmp_path), writes)
    store.put = store.files.put
    with contextlib.suppress(OSError):
        run(store, guided)
    store = ResultStore(str(tmp_path))
    before = store.rows().num_rows
    run(store, guided)
    reference = ResultStore(str(tmp_path / "reference"))
    run(reference, guided)
    assert before % len(guided.evaluate) == 0
    same = [s.rows().drop_columns(["attempt"]) for s in (store, reference)]
    assert same[0].equals(same[1])
    assert set(store.files.keys("checkpoints")) == store.progress()[guided.trial_id].references


def _run_slowly(uri, config):
    store = ResultStore(uri)
    put = store.put

    def slow(key, data):
        time.sleep(0.002)
        put(key, data)

    store.put = slow
    run(store, config)


def test_sigkill_at_random_moments_leaves_a_store_to_go_on_from(tmp_path, guided):
    context = multiprocessing.get_context("fork")
    uri = str(tmp_path / "store")
    moments = np.random.default_rng(0).uniform(0.005, 0.08, size=12)
    for moment in moments:
        process = context.Process(target=_run_slowly, args=(uri, guided))
        process.start()
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    store = ResultStore(uri)
    store.put_trials({guided.trial_id: guided})
    run(store, guided)
    collect_garbage(store, "r")
    reference = ResultStore(str(tmp_path / "reference"))
    run(reference, guided)
    same = [s.rows().drop_columns(["attempt"]) for s in (store, reference)]
    assert same[0].equals(same[1])
    assert set(store.files.keys("checkpoints")) == store.progress()[guided.trial_id].references
    assert len(store.files.keys("metrics")) == 1
    assert not (store.local_path / TEMPORARY).exists()


def test_garbage_collection_removes_what_no_metrics_file_names_and_no_more(store, guided, baseline):
    run(store, guided)
    run(store, baseline, until=1)
    kept = set(store.files.keys(""))
    garbage = f"checkpoints/{guided.trial_id}/0001-deadbeef/epoch-0001.safetensors"
    # A trial that will go on may be writing at this moment.
    in_flight = f"checkpoints/{baseline.trial_id}/0009-beefbeef/epoch-0002.safetensors"
    store.put(garbage, b"x")
    store.put(in_flight, b"x")
    (store.local_path / TEMPORARY).mkdir(exist_ok=True)
    (store.local_path / TEMPORARY / f"{TRIAL}.part").write_bytes(b"x")
    collect_garbage(store, "r")
    assert set(store.files.keys("")) == kept | {in_flight}


def test_a_reader_that_races_with_a_new_attempt_reads_one_or_the_other(store, guided):
    run(store, guided, until=0)
    read, calls = store.metrics_keys, []

    def raced(trial_id=None):
        keys = read(trial_id)
        calls.append(keys)
        if len(calls) == 1:
            run(store, guided, until=1)
        return keys

    store.metrics_keys = raced
    assert set(store.rows(["epoch"])["epoch"].to_pylist()) == {0, 1}
    assert len(calls) > 1


def test_nodes_with_different_data_are_told(store):
    store.record_fingerprint("d", "bbbb", "/data")
    store.record_fingerprint("d", "bbbb", "/data")
    for other in ("aaaa", "cccc"):
        with pytest.raises(InputError, match="the data in /data differ"):
            store.record_fingerprint("d", other, "/data")
    assert store.files.keys("data") == ["data/d/bbbb"]


def test_configurations_come_back_as_they_were(store, guided, baseline):
    configs = {c.trial_id: c for c in (guided, baseline)}
    store.put_trials(configs)
    assert store.trials() == configs
    assert store.trial_ids() == set(configs)


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a result store: it holds no sweep\.yaml"):
        ResultStore(str(tmp_path)).spec()
    with pytest.raises(InputError, match="not a folder or a URI"):
        ResultStore("nonsense://bucket")
    with pytest.raises(StorageError, match=r"checkpoints/x of .* is missing"):
        ResultStore(str(tmp_path)).weights("checkpoints/x")


def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Files(str(tmp_path / "file" / "store")).check_writable()
    Files(str(tmp_path / "new" / "store")).check_writable()


def test_attempts_say_where_and_how(store, guided):
    attempt = run(store, guided)
    attempt.end("failed", kind="bug", error="e", traceback="Traceback")
    record = store.attempts()[guided.trial_id]
    assert record["how"] == "failed"
    assert record["pid"] == os.getpid()
    assert record["versions"]["torch"]
    assert json.dumps(record)


@given(
    st.lists(
        st.tuples(*[st.sampled_from([0.1, 0.2, 0.3, float("nan")])] * 3), min_size=1, max_size=8
    )
)
def test_kept_epochs_are_the_union_of_the_pairs_fronts(points):
    rows = []
    for epoch, (f1, epg, iou) in enumerate(points):
        for pair, value in (("a", epg), ("b", iou)):
            rows.append(
                {
                    "kind": "guided",
                    "epoch": epoch,
                    "attribution": pair,
                    "layer": "input",
                    "val_f1": f1,
                    "val_epg": value,
                }
            )
    table = pa.Table.from_pylist(rows, schema=METRICS)

    def beaten(first, second):
        return all(s >= f for f, s in zip(first, second, strict=True)) and first != second

    expected = set()
    for which in (1, 2):
        candidates = {
            e: (p[0], p[which])
            for e, p in enumerate(points)
            if e and not (np.isnan(p[0]) or np.isnan(p[which]))
        }
        expected |= {
            e
            for e, p in candidates.items()
            if not any(beaten(p, other) for other in candidates.values())
        }
    assert kept_epochs(table, ("f1", "epg")) == expected
