"""The runner on Ray Tune; no other module of the package drives Tune.

Tune assigns trials to resources and starts lost trials again. Each run is a new `Tuner` with the
trials that are left: all progress is in the store, and Tune's own state is never read back.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mg_core.cluster import connect
from mg_core.config import Runtime
from mg_core.errors import InputError
from mg_core.paths import with_home
from mg_core.redaction import redacted
from mg_core.store.ledger import FailureKind
from mg_core.training.execution import Outcome, record_interrupted, record_lost
from mg_core.yaml_text import read_yaml
from sweeps.runner import Listener, Queue, RunTrials
from sweeps.spec import ResourceSpec, SweepSpec
from sweeps.yaml_file import BOOTSTRAP

LOOK_SECONDS = 10.0
NODE_SECONDS = 1800.0
RESOURCES = ("CPU", "GPU", "memory")
OUT_OF_MEMORY = "low on memory"

# Without Tune's own loggers and snapshots, which nothing reads, and its handling of Ctrl-C.
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
os.environ |= {name: os.environ.get(name, value) for name, value in QUIET.items()}

import ray  # noqa: E402 (reads the environment when it is imported)
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from sweeps.trainable import TrialTrainable  # noqa: E402


class _NotSaved:
    """An object whose content Tune does not save: its experiments are never restored here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class BaselineFirst(_NotSaved, Searcher):
    """A searcher that gives Tune the trials of the queue, guided ones after their baselines."""

    def __init__(self, queue: Queue, runtime: Runtime, max_concurrent: int | None) -> None:
        super().__init__()
        self._queue = queue
        # Tune's own limiter is no help: it does not pass on all completions.
        self._max_concurrent = max_concurrent or float("inf")
        self._runtime = runtime

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial, `None` if none may start yet, `FINISHED` if none is left."""
        if len(self._queue.running) >= self._max_concurrent:
            return None
        config = self._queue.next()
        if config is None:
            return Searcher.FINISHED if self._queue.is_done else None
        return {
            "trial": config.model_dump_json(),
            "trial_id": config.trial_id,
            "runtime": self._runtime.model_dump_json(),
        }

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        """Accept Tune's empty search space: the queue has all trials."""
        return True

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `Reporter` handles the ends of trials."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: all progress is in the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class Reporter(_NotSaved, tune.Callback):
    """Tells the queue and the listener what happens in Tune."""

    def __init__(self, queue: Queue, runtime: Runtime, listener: Listener) -> None:
        self._queue = queue
        self._runtime = runtime
        self._listener = listener
        self.started: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report the start of a trial."""
        self.started.add(trial.config["trial_id"])
        self._listener.started(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Report an epoch or the end of a trial."""
        if "outcome" not in result:
            return
        outcome = Outcome(**result["outcome"])
        if outcome.state != "running":
            self._queue.end(outcome.trial_id, outcome.state == "complete")
        self._listener.outcome(outcome)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that a lost trial starts again."""
        self._listener.lost(trial.config["trial_id"], _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record and report a trial that was lost too often."""
        trial_id = trial.config["trial_id"]
        config = self._queue.running[trial_id]
        self._queue.end(trial_id, is_complete=False)
        reason, kind = _reason(trial), _kind_of_loss(trial)
        self._listener.outcome(record_lost(config, self._runtime, reason, kind))


class EarlyStop(_NotSaved, tune.Stopper):
    """Ends Tune's experiment before all trials are done.

    It ends once the queue has been stopped, or if no node has had the resources of a trial for
    half an hour: Ray would wait forever for a node that is gone or that the autoscaler cannot get.

    Args:
        queue: the queue of the run.
        wanted: resources that a trial reserves.
    """

    def __init__(self, queue: Queue, wanted: ResourceSpec) -> None:
        self._queue = queue
        self._wanted = wanted
        self._fitting = self._looked = time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials must stop; every 10 seconds look for a large enough node.

        Raises:
            InputError: no node has been large enough for too long.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            lack = lacking(self._wanted)
            if lack is None:
                self._fitting = now
            elif now - self._fitting > NODE_SECONDS:
                raise InputError(
                    f"resources: {lack}, and no larger node came in {NODE_SECONDS / 60:.0f} "
                    "minutes; ask for less or look at the autoscaler (ray status); the same "
                    "command goes on from here"
                )
        return self._queue.stopped is not None


@contextmanager
def on_ray(
    spec: SweepSpec, address: str | None = None, num_gpus: int | None = None
) -> Iterator[RunTrials]:
    """Join or start a Ray cluster and yield the function that runs the trials of a queue there.

    Args:
        spec: the sweep, with the resources and limits of its trials.
        address: running cluster to join, `auto` for that of this machine; none starts one here.
        num_gpus: logical GPUs of a cluster that starts here; none for those that Ray finds.

    Raises:
        InputError: the cluster cannot be joined, or none of its nodes is large enough for a trial.
    """

    def run_trials(queue: Queue, runtime: Runtime, listener: Listener) -> None:
        reporter = Reporter(queue, runtime, listener)
        try:
            # Threads of Ray may still write to the folder while it is deleted.
            with tempfile.TemporaryDirectory(
                prefix="mg-sweep-", ignore_cleanup_errors=True
            ) as folder:
                _fit(spec, queue, runtime, reporter, folder)
        finally:
            # Trials of a run that ends early: their processes may be killed before they record it.
            if cut_short := [queue.running[t] for t in reporter.started & queue.running.keys()]:
                ray.shutdown()
                for config in cut_short:
                    record_interrupted(config, runtime)

    try:
        address = address or os.environ.get("RAY_ADDRESS")
        connect(ray, address, num_gpus)
        check_resources(spec.resources, may_grow=address is not None)
        yield run_trials
    finally:
        ray.shutdown()


def check_resources(wanted: ResourceSpec, may_grow: bool = False) -> None:
    """Raise an error if no node is large enough for a trial; Ray would wait forever for one.

    Args:
        wanted: resources that a trial reserves.
        may_grow: whether an autoscaler may add larger nodes.

    Raises:
        InputError: no node is large enough; the message names the resource and the largest node.
    """
    lack = lacking(wanted, [*_nodes(), *(_nodes_to_come() if may_grow else [])])
    if lack is not None:
        raise InputError(f"resources: {lack}; ask for less or add nodes")


def visible_gpus() -> int:
    """Return the number of GPUs of all nodes that are there now."""
    return int(sum(node.get("GPU", 0) for node in _nodes()))


def lacking(wanted: ResourceSpec, nodes: list[dict[str, float]] | None = None) -> str | None:
    """Return in words what even the largest node lacks; none if one is large enough.

    Args:
        wanted: resources that a trial reserves.
        nodes: resources of each node; by default those of the nodes that are there now.
    """
    request = _request(wanted)
    nodes = _nodes() if nodes is None else nodes
    if any(all(node.get(k, 0) >= need for k, need in request.items()) for node in nodes):
        return None
    have = {name: max((node.get(name, 0) for node in nodes), default=0) for name in request}
    short = [name for name, need in request.items() if need > have[name]] or list(request)
    shown = {"CPU": "CPUs", "GPU": "GPUs", "memory": "bytes of memory"}
    text = " and ".join(
        f"{request[name]:g} {shown[name]} where the largest node has {have[name]:g}"
        for name in short
    )
    return f"a trial asks for {text}"


def nodes_for(wanted: ResourceSpec) -> list[str]:
    """Return Ray's ids of the nodes that are large enough for a trial; others may still come."""
    return [node for node, there in _nodes_by_id().items() if lacking(wanted, [there]) is None]


def large_enough(wanted: ResourceSpec) -> list[dict[str, float]]:
    """Return the resources of the nodes that are large enough for a trial."""
    return [there for there in _nodes() if lacking(wanted, [there]) is None]


def _nodes() -> list[dict[str, float]]:
    return list(_nodes_by_id().values())


def _nodes_by_id() -> dict[str, dict[str, float]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def _nodes_to_come() -> list[dict[str, float]]:
    """Return the resources of the nodes that an autoscaler may add.

    The cluster file of `ray up` on the head lists the node types; KubeRay and other autoscalers
    report them to Ray. A type without resources in the file may have any. A cluster of one's own
    machines (`provider: local`) does not grow once all of them have joined.
    """
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    found = [dict(group.resources) for group in groups if group.max_count]
    with contextlib.suppress(OSError, InputError, TypeError, KeyError, AttributeError):
        cluster = read_yaml(with_home(BOOTSTRAP), "cluster file")
        if cluster["provider"]["type"] == "local" and len(_nodes()) > cluster["max_workers"]:
            return found
        for kind in cluster["available_node_types"].values():
            if kind.get("max_workers", cluster.get("max_workers")):
                found.append(kind.get("resources") or dict.fromkeys(RESOURCES, math.inf))
    return found


def _request(wanted: ResourceSpec) -> dict[str, float]:
    amounts = (wanted.cpu, wanted.gpu, (wanted.memory_gb or 0) * 1e9)
    return {name: amount for name, amount in zip(RESOURCES, amounts, strict=True) if amount}


def _fit(spec: SweepSpec, queue: Queue, runtime: Runtime, reporter: Reporter, folder: str) -> None:
    wanted = _request(spec.resources)
    trainable = tune.with_resources(TrialTrainable, {k.lower(): v for k, v in wanted.items()})
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=BaselineFirst(queue, runtime, spec.max_concurrent),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["trial_id"],
            trial_dirname_creator=lambda trial: trial.config["trial_id"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=folder,
            verbose=0,
            stop=EarlyStop(queue, spec.resources),
            callbacks=[reporter],
            failure_config=tune.FailureConfig(max_failures=spec.max_retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _kind_of_loss(trial: Any) -> FailureKind:
    """Return `host-memory` if Ray ended the trial's process for lack of memory, else `lost`."""
    error = trial.get_pickled_error()
    is_memory = isinstance(error, ray.exceptions.OutOfMemoryError) or OUT_OF_MEMORY in str(error)
    return "host-memory" if is_memory else "lost"


def _reason(trial: Any) -> str:
    """Return in one line Tune's reason for the loss of a trial."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    return redacted(lines[0]) if lines else "the trial's process was lost"
