"""Runners: what stops a queue, and what a cluster can give."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray

from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt
from mg_core.training.execution import Outcome, check_node, record_interrupted, run_trial
from sweeps import scheduler
from sweeps.planning import make_plan
from sweeps.runner import FailFast, Queue
from sweeps.spec import ResourceSpec, load_spec


@pytest.fixture
def queue(sweep, write):
    todo = make_plan(load_spec(write(sweep), [])).todo(retry_failed=False)
    return Queue.of(todo, set())


def failed(kind, signature):
    return Outcome("t", "failed", error=f"{kind}: e", kind=kind, signature=signature)


def test_equal_failures_stop_a_queue_and_different_ones_do_not(queue):
    stop = FailFast(queue, 2)
    for outcome in (
        failed("bug", "a"),
        failed("bug", "b"),
        failed("numerical", "a"),
        failed("lost", "a"),
        Outcome("t", "complete"),
    ):
        stop.outcome(outcome)
        assert queue.stopped is None
    stop.outcome(failed("bug", "a"))
    assert "2 trials failed in the same way (fail_fast_on), the last one by bug: e" in queue.stopped
    assert queue.is_done
    assert queue.next() is None


def test_a_node_that_cannot_take_part_stops_a_queue_at_once(queue):
    FailFast(queue, None).outcome(failed("node", "n"))
    assert queue.stopped == "node: e"


def test_without_a_limit_failures_stop_nothing(queue):
    stop = FailFast(queue, None)
    for _ in range(9):
        stop.outcome(failed("bug", "a"))
    assert queue.stopped is None


def test_a_node_that_is_not_in_order_is_refused_before_it_writes(sweep, write, tmp_path):
    runtime = load_spec(write(sweep), [], str(tmp_path / "store")).runtime("r")
    config = next(iter(make_plan(load_spec(tmp_path / "sweep.yaml", [])).grid.trials.values()))
    older = runtime.model_copy(update={"version": "9.9"})
    for its_runtime, sentence in (
        (older, "the driver has 9.9; install the same one on every node"),
        (runtime, "does not see the store"),
    ):
        (outcome,) = run_trial(config, its_runtime)
        assert (outcome.state, outcome.kind) == ("failed", "node")
        assert sentence in outcome.error
    assert not (tmp_path / "store").exists()
    store = ResultStore(runtime.store)
    store.put_spec("name: x")
    check_node(store, runtime)


def test_a_driver_that_stops_leaves_its_successors_trials_alone(sweep, write, tmp_path):
    plan = make_plan(load_spec(write(sweep), [], str(tmp_path / "store")))
    config = next(iter(plan.grid.trials.values()))
    store = ResultStore(plan.spec.store)
    Attempt(store, config, (), "first")
    successor = Attempt(store, config, (), "second")
    record_interrupted(config, plan.spec.runtime("first"))
    assert max(store.attempt_keys(config.trial_id)) == successor.key
    record_interrupted(config, plan.spec.runtime("second"))
    record = store.attempts()[config.trial_id]
    assert (record["how"], record["attempt"]) == ("interrupted", 3)


WITHOUT_PYTORCH = """
import sys
sys.modules["torch"] = None  # as where its libraries cannot be loaded
from mg_core.training.execution import run_trial
from sweeps.planning import make_plan
from sweeps.spec import load_spec
plan = make_plan(load_spec(sys.argv[1], [], sys.argv[2]))
(outcome,) = run_trial(next(iter(plan.grid.trials.values())), plan.spec.runtime("r"))
print(outcome.state, outcome.kind, outcome.error)
"""


def test_a_node_without_pytorch_says_so(sweep, write, tmp_path):
    command = [sys.executable, "-c", WITHOUT_PYTORCH, str(write(sweep)), str(tmp_path / "store")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("failed node node: node ")
    assert "PyTorch fails to load" in found.stdout


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Task was killed due to the node running low on memory.", "host-memory"),
        ("The actor died unexpectedly: SIGKILL by OOM killer due to high memory usage", "lost"),
    ],
)
def test_a_process_that_ray_ended_for_want_of_memory_is_told_from_a_lost_one(said, kind):
    trial = SimpleNamespace(get_pickled_error=lambda: ray.exceptions.RayActorError(error_msg=said))
    assert scheduler._kind_of_loss(trial) == kind


CLUSTER = """
cluster_name: c
max_workers: 4
provider: {type: aws}
available_node_types:
  head: {resources: {CPU: 2}, max_workers: 0}
  worker: {resources: {CPU: 8, GPU: 2}}
"""


@pytest.fixture
def small_node(tmp_path, monkeypatch):
    """Pretend that the cluster is one node of two CPUs; return where its file would be."""
    monkeypatch.setattr(scheduler, "_nodes", lambda: [{"CPU": 2.0, "memory": 4e9}])
    state = SimpleNamespace(get_cluster_config=lambda: None)
    monkeypatch.setattr(scheduler.ray._private.state, "state", state)
    monkeypatch.setattr(scheduler, "BOOTSTRAP", tmp_path / "bootstrap.yaml")
    return tmp_path / "bootstrap.yaml"


def test_a_cluster_that_may_grow_is_not_refused_for_what_it_has_now(small_node):
    wanted = ResourceSpec(cpu=4, gpu=1)
    with pytest.raises(InputError, match="asks for 4 CPUs where the largest node has 2 and 1 GPUs"):
        scheduler.check_resources(wanted, may_grow=True)
    small_node.write_text(CLUSTER)
    scheduler.check_resources(wanted, may_grow=True)
    with pytest.raises(InputError, match="the largest node has 0"):
        scheduler.check_resources(wanted)
    with pytest.raises(InputError, match="4 GPUs where the largest node has 2"):
        scheduler.check_resources(ResourceSpec(gpu=4), may_grow=True)
    small_node.write_text(CLUSTER.replace("{CPU: 8, GPU: 2}", "{}"))
    scheduler.check_resources(ResourceSpec(gpu=4), may_grow=True)
    small_node.write_text("nonsense")
    with pytest.raises(InputError):
        scheduler.check_resources(wanted, may_grow=True)


def test_waiting_in_vain_for_nodes_ends_with_a_sentence(small_node, queue, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: now[0])
    fitting = scheduler.EarlyStop(queue, ResourceSpec(cpu=2))
    lacking = scheduler.EarlyStop(queue, ResourceSpec(cpu=4))
    for now[0] in (11.0, 1000.0, 1790.0):
        assert not lacking.stop_all()
    now[0] = math.ceil(scheduler.NODE_SECONDS) + 11.0
    assert not fitting.stop_all()
    with pytest.raises(InputError, match="no larger node came in 30 minutes"):
        lacking.stop_all()


WAITING = """
import sys
from sweeps import scheduler
from sweeps.cli import main
scheduler.check_resources = lambda *args, **kwargs: None  # as if an autoscaler had promised them
scheduler.LOOK_SECONDS, scheduler.NODE_SECONDS = 0.5, 1.0
sys.argv = ["mg-sweep", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_a_sweep_whose_nodes_never_come_ends(sweep, write, tmp_path):
    sweep["resources"] = {"cpu": 1000}
    arguments = [sys.executable, "-c", WAITING, "run", str(write(sweep)), "--store", "store"]
    found = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 2
    assert "error: resources: a trial asks for 1000 CPUs where the largest" in found.stderr
    assert "no larger node came" in found.stderr
