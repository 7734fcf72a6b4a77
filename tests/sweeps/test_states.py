"""One trial has one state, whoever is asked."""

import io
import json
from collections import Counter

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.results import read_results
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt
from mg_core.training.execution import Outcome
from sweeps.cli import app
from sweeps.display import Display
from sweeps.lock import StoreLock
from sweeps.planning import Plan, admit, make_plan
from sweeps.spec import load_spec
from sweeps.status import read_status

ENDS = {
    "bug": {"how": "failed", "kind": "bug", "error": "e", "traceback": "t"},
    "lost": {"how": "failed", "kind": "lost", "error": "the process was lost"},
    "node": {"how": "failed", "kind": "node", "error": "the node is old"},
    "interrupted": {"how": "interrupted"},
    "running": None,
    "of a dead driver": None,
}
COUNTS = {"complete": 1, "running": 1, "failed": 1, "waiting": 6}
SUMMARY = "1 complete, 1 running, 1 failed, 6 waiting"


@pytest.fixture
def plan(sweep, write, tmp_path):
    """Return the plan of a sweep of nine trials that has not run yet."""
    plan = make_plan(load_spec(write(sweep), [], str(tmp_path / "store")))
    admit(plan, ResultStore(plan.spec.store))
    return plan


@pytest.fixture
def names(plan):
    """Put trials of all kinds into the store and return their ids by what happened to them."""
    store = ResultStore(plan.spec.store)
    ids = dict(zip(["complete", *ENDS, "never begun", "another"], plan.grid.trials, strict=True))
    for name, trial_id in list(ids.items())[:-2]:
        config = plan.grid.trials[trial_id]
        run = "dead" if name == "of a dead driver" else "run"
        attempt = Attempt(store, config, plan.spec.objectives, run)
        while not attempt.is_complete and (name == "complete" or attempt.next_epoch < 1):
            rows = [{"attribution": p.attribution, "layer": p.layer} for p in config.evaluate]
            attempt.commit(attempt.next_epoch, rows or [{"val_f1": 0.5}], bytes, bytes)
        if end := ENDS.get(name, {"how": "complete"}):
            attempt.end(**end, **({"log": [], "host": "h"} if name != "complete" else {}))
    return ids


def expected(names):
    states = {"complete": "complete", "running": "running", "bug": "failed"}
    return {trial: states.get(name, "waiting") for name, trial in names.items()}


def asked(*arguments):
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_a_trial_has_one_state_whoever_is_asked(plan, names):
    uri, states = plan.spec.store, expected(names)
    with StoreLock(ResultStore(uri), "run"):
        planned = make_plan(plan.spec)
        assert {trial: planned.ledger.state(trial) for trial in names.values()} == states
        assert planned.counts() == COUNTS
        assert {states[trial] for trial in planned.todo(retry_failed=False)} == {"waiting"}
        assert {states[t] for t in planned.todo(retry_failed=True)} == {"waiting", "failed"}
        assert SUMMARY in asked("plan", uri)

        found = json.loads(asked("status", uri, "--json"))
        assert {trial: found["trials"][trial]["state"] for trial in states} == states
        assert found["counts"] == COUNTS
        text = asked("status", uri)
        assert f"9 trials: {SUMMARY}" in text

        shown = Display(planned, set(planned.todo(False)), Console(file=io.StringIO()))
        assert shown.summary() == f"{SUMMARY} of 9 trials"

        results = read_results(uri)
        assert results.states == {"complete": 1, "failed": 1, "unfinished": 7}
        with_failure = {names[name] for name in ("bug", "lost", "node")}
        assert results.ledger.failures.keys() == with_failure
        assert {t for t, trial in found["trials"].items() if trial["failure"]} == with_failure
        assert " ".join(text.split()).count("the next run tries again") == 2

    # Without its driver the running trial waits, for all of them.
    idle = {"complete": 1, "failed": 1, "waiting": 7}
    assert make_plan(plan.spec).counts() == idle
    assert Counter(read_status(ResultStore(uri)).states.values()) == idle
    assert not make_plan(plan.spec).is_complete


def test_a_driver_shows_what_its_store_will_say(plan, names):
    fresh = Plan(plan.spec, plan.grid)
    console = Console(file=io.StringIO(), width=200)
    with Display(fresh, set(plan.grid.trials), console) as shown:
        for name in ("complete", *ENDS):
            if name != "of a dead driver":
                shown.started(names[name])
            if name == "complete":
                shown.outcome(Outcome(names[name], "complete"))
            elif "kind" in (end := ENDS[name] or {}):
                error = f"{end['kind']}: {end['error']}"
                shown.outcome(Outcome(names[name], "failed", error=error, kind=end["kind"]))
        assert shown.summary() == "1 complete, 2 running, 1 failed, 5 waiting of 9 trials"
    # Interrupted here, both trials that were running wait for the next run.
    assert shown.summary() == "1 complete, 1 failed, 7 waiting of 9 trials"
    assert f"failed: {names['bug']}" in console.file.getvalue()
    assert f"waiting: {names['lost']}" in console.file.getvalue()
    assert make_plan(plan.spec).counts() == {"complete": 1, "failed": 1, "waiting": 7}


def test_a_failed_trial_that_is_to_be_retried_is_failed_until_it_starts(plan, names):
    before = make_plan(plan.spec)
    shown = Display(before, set(before.todo(retry_failed=True)), Console(file=io.StringIO()))
    assert shown.summary() == "1 complete, 1 failed, 7 waiting of 9 trials"
    shown.started(names["bug"])
    assert shown.summary() == "1 complete, 1 running, 7 waiting of 9 trials"
