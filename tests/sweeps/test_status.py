"""What a store says of its sweep: states, times, fronts, and what may be deleted."""

import io
import threading

import numpy as np
import pytest
from rich.console import Console

from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt
from mg_core.store.written import Written
from sweeps.cost import Costs, static_cost
from sweeps.fronts import current_fronts
from sweeps.lock import StoreLock
from sweeps.planning import admit, make_plan
from sweeps.removal import removal
from sweeps.spec import load_spec
from sweeps.status import read_status
from sweeps.status_view import status_view
from sweeps.watch import follow

OBJECTIVES = ("f1", "epg", "iou")


@pytest.fixture
def plan(sweep, write, tmp_path):
    sweep["resources"] = {"cpu": 1, "gpu": 0.5}
    sweep["guided"]["epochs"] = 3
    plan = make_plan(load_spec(write(sweep), [], str(tmp_path / "store")))
    admit(plan, ResultStore(plan.spec.store))
    return plan


@pytest.fixture
def store(plan):
    return ResultStore(plan.spec.store)


def commit(store, config, until=None, seconds=10.0, run="run"):
    attempt = Attempt(store, config, OBJECTIVES, run)
    while not attempt.is_complete and (until is None or attempt.next_epoch <= until):
        draw = np.random.default_rng([attempt.next_epoch, int(config.trial_id, 16)])
        scores = dict(zip(("val_f1", "val_epg", "val_iou"), draw.random(3), strict=True))
        rows = [
            {"attribution": p.attribution, "layer": p.layer, "seconds_train": seconds, **scores}
            for p in config.evaluate
        ]
        baseline = [{"val_f1": 0.5, "seconds_train": seconds}]
        attempt.commit(attempt.next_epoch, rows or baseline, bytes, bytes)
    return attempt


def shown(found):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(status_view(found))
    return console.export_text()


def test_times_come_from_what_similar_trials_took(plan, store):
    (baseline,) = plan.grid.baselines.values()
    first, second, *others = plan.grid.guided.values()
    commit(store, baseline, seconds=30).end("complete")
    commit(store, first, until=1, seconds=10)
    with StoreLock(store, "run"):
        found = read_status(store)
        assert found.having("running") == [first.trial_id]
        assert found.costs.epoch(first) == pytest.approx(10)
        # Another λ of the same place takes the same, another layer in proportion.
        assert found.costs.epoch(second) == pytest.approx(10)
        for config in others:
            expected = 10 * static_cost(config) / static_cost(first)
            assert found.costs.epoch(config) == pytest.approx(expected)
        left = 2 * 10 + sum(4 * found.costs.epoch(c) for c in (second, *others))
        assert found.seconds_left == pytest.approx(left)
        assert found.seconds_to_end == pytest.approx(left)
        assert found.epochs_per_hour == pytest.approx(360)
        json = found.to_json()
    assert json["epochs"] == {"done": 4, "total": 2 + 8 * 4}
    assert json["gpu_hours"]["spent"] == pytest.approx(0.5 * 80 / 3600)
    assert json["gpu_hours"]["left"] == pytest.approx(0.5 * left / 3600)
    assert json["attempts"] == 2


def test_before_any_epoch_nothing_is_promised(store):
    found = read_status(store)
    assert found.seconds_left is found.seconds_to_end is found.epochs_per_hour is None
    assert "9 trials: 0 complete, 0 running, 0 failed, 9 waiting" in shown(found)


def test_expected_long_trials_start_first(plan, store):
    commit(store, *plan.grid.baselines.values())
    light = [c for c in plan.grid.guided.values() if c.guidance.layer == "final"]
    heavy = [c for c in plan.grid.guided.values() if c.guidance.layer == "input"]
    assert all(static_cost(a) < static_cost(b) for a in light for b in heavy)
    # Here the light ones turn out to take longer.
    commit(store, light[0], until=0, seconds=100)
    commit(store, heavy[0], until=0, seconds=1)
    todo = list(make_plan(plan.spec).todo(retry_failed=False).values())
    costs = Costs(plan.grid.trials, store.progress())
    left = [costs.left(c.trial_id, c) for c in todo]
    assert left == sorted(left, reverse=True)
    assert todo[0].guidance.layer == "final"


def test_fronts_are_those_of_all_trials_of_a_configuration(plan, store):
    for config in plan.grid.guided.values():
        commit(store, config)
    fronts = current_fronts(store.trials(), store.progress(), OBJECTIVES)
    assert len(fronts) == 4
    assert {front.n_trials for front in fronts} == {2}
    rows = store.rows().to_pylist()
    for front in fronts:
        members = {row["trial_id"] for row in front.points}
        configs = [plan.grid.trials[trial] for trial in members]
        assert {f"{c.guidance.attribution}@{c.guidance.layer}" for c in configs} == {front.judged}
        same = [
            [row["val_f1"], row["val_epg"], row["val_iou"]]
            for row in rows
            if f"{row['attribution']}@{row['layer']}" == front.judged and row["epoch"]
        ]
        expected = {
            tuple(a) for a in same if not any(all(np.greater_equal(b, a)) and b != a for b in same)
        }
        assert {(r["val_f1"], r["val_epg"], r["val_iou"]) for r in front.points} == expected
    text = shown(read_status(store))
    assert all(front.configuration in text for front in fronts)


def test_equal_failures_are_shown_once(plan, store):
    guided = list(plan.grid.guided.values())
    details = {"kind": "bug", "signature": "ValueError at x.py:1", "traceback": "Traceback 1"}
    for number, config in enumerate(guided[:3]):
        commit(store, config, until=0).end("failed", error=f"no {number}", **details)
    nan = {"kind": "numerical", "error": "nan", "traceback": "Traceback 2", "images": ["im7"]}
    commit(store, guided[3], until=0).end("failed", **nan)
    found = read_status(store)
    assert found.failures_by_kind() == {"bug": 3, "numerical": 1}
    text = shown(found)
    assert text.count("Traceback 1") == 1
    assert "and 2 more failed" in text
    assert "images of the batch: im7" in text
    assert "failures: 3 bug, 1 numerical" in text


def test_rm_deletes_what_is_the_stores_and_nothing_else(plan, store):
    (baseline,) = plan.grid.baselines.values()
    commit(store, baseline).end("complete")
    store.put("notes.txt", b"mine")
    Written(store.files, "analysis").put("tables/fronts.csv", b"")
    found = removal(store, [])
    assert "9 trials with all results" in found.description
    assert "other files in its folder stay: 1" in found.description
    found.carry_out()
    assert store.files.keys("") == ["notes.txt"]
    assert [p.name for p in store.local_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="is not a result store"):
        removal(store, [])


def test_rm_of_a_trial_makes_it_wait_and_takes_the_children_of_a_baseline(plan, store):
    (baseline,) = plan.grid.baselines.values()
    first, second, *_ = plan.grid.guided.values()
    for config in (baseline, first, second):
        commit(store, config).end("complete")
        store.put(f"test/{config.trial_id}/0001-abababab.parquet", b"")
    removal(store, [first.trial_id[:10]]).carry_out()
    states = read_status(store).states
    assert (states[first.trial_id], states[second.trial_id]) == ("waiting", "complete")
    assert not [key for key in store.files.keys("") if first.trial_id in key][1:]
    found = removal(store, [baseline.trial_id])
    assert "and of 8 guided trials that started from it" in found.description
    found.carry_out()
    assert set(read_status(store).states.values()) == {"waiting"}
    assert store.trial_ids() == plan.grid.trials.keys()


def test_rm_refuses_what_is_driven_or_not_there(store):
    with StoreLock(store, "run"), pytest.raises(InputError, match="is driven by process"):
        removal(store, [])
    ready = removal(store, [])
    with StoreLock(store, "run"), pytest.raises(InputError, match="is driven by process"):
        ready.carry_out()
    with pytest.raises(InputError, match="no trial begins in 'zz'"):
        store.find_trial("zz")
    with pytest.raises(InputError, match="9 trials begin in ''"):
        store.find_trial("")


def test_watch_follows_until_nobody_drives(store, plan):
    (baseline,) = plan.grid.baselines.values()
    console = Console(width=200, file=io.StringIO())
    lock = StoreLock(store, "run").__enter__()
    finish = threading.Timer(
        0.5, lambda: (commit(store, baseline), lock.__exit__(None, None, None))
    )
    finish.start()
    follow(store, 0.1, console)
    finish.join()
    first, *_, last = console.file.getvalue().strip().split("9 trials: ")[1:]
    assert first.startswith("0 complete, 0 running, 0 failed, 9 waiting; 0 of 34 epochs")
    assert last.startswith("1 complete, 0 running, 0 failed, 8 waiting")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("- f1", "- f3", "unknown objective 'f3'; allowed: f1, "),
        ("objectives:", "objectives: {a: b}\nx:", "objectives is"),
        ("imports: []", "imports: 5", "imports is '5', not a list"),
        ("resources:", "resources: 7\nx:", "resources is '7', not a mapping"),
    ],
)
def test_a_stored_spec_that_was_edited_wrongly_is_a_sentence(plan, store, old, new, said):
    text = store.spec_text().rpartition("# crc32")[0]  # as a user who edits it has to
    assert old in text
    store.put("sweep.yaml", text.replace(old, new, 1).encode())
    with pytest.raises(InputError, match=f"sweep.yaml: {said}"):
        read_status(store)
