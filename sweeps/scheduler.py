"""The only file that drives Ray Tune.

Tune schedules and starts lost trials again; the store remembers. Every run is a fresh `Tuner`
over the trials that are left, so nothing of Tune's own experiment state is ever read back.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mg_core.config import Runtime
from mg_core.errors import InputError
from mg_core.training.execution import Outcome, record_interrupted, record_lost
from mg_core.training.failures import FailureKind
from sweeps.runner import Listener, Queue, RunTrials
from sweeps.spec import ResourceSpec, SweepSpec

REACH_SECONDS = 10.0
LOOK_SECONDS = 10.0
NODE_SECONDS = 1800.0
RESOURCES = ("CPU", "GPU", "memory")
OUT_OF_MEMORY = "low on memory"
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where Ray keeps the cluster file of `ray up` on the head."""

# Tune's own loggers and snapshots are not what this sweep is remembered by; Ctrl-C is ours.
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


class _OfThisProcess:
    """Something that Tune may pickle and copy but that means nothing in another process.

    Tune saves its searcher and callbacks for a restore that never happens here.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class BaselineFirst(_OfThisProcess, Searcher):
    """Suggests the queue's trials to Tune, each guided one once its baseline is complete."""

    def __init__(self, queue: Queue, runtime: Runtime, max_concurrent: int | None) -> None:
        super().__init__()
        self._queue = queue
        # Not Tune's own limit: its wrapper around a searcher swallows completions.
        self._max_concurrent = max_concurrent or float("inf")
        self._runtime = runtime

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial, `None` while all that are left wait, `FINISHED` at the end."""
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
        """Accept Tune's empty search space: the grid is the queue's."""
        return True

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Leave it to the callback, which knows the trial's configuration too."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the store remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class Reporter(_OfThisProcess, tune.Callback):
    """Passes on to the queue and the listener what Tune sees."""

    def __init__(self, queue: Queue, runtime: Runtime, listener: Listener) -> None:
        self._queue = queue
        self._runtime = runtime
        self._listener = listener
        self.started: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial has its resources."""
        self.started.add(trial.config["trial_id"])
        self._listener.started(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on an epoch; the last one ends the trial."""
        if "outcome" not in result:
            return
        outcome = Outcome(**result["outcome"])
        if outcome.state != "running":
            self._queue.end(outcome.trial_id, outcome.state == "complete")
        self._listener.outcome(outcome)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a lost trial starts again."""
        self._listener.lost(trial.config["trial_id"], _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Give up a trial that was lost too often."""
        trial_id = trial.config["trial_id"]
        config = self._queue.running[trial_id]
        self._queue.end(trial_id, is_complete=False)
        reason, kind = _reason(trial), _kind_of_loss(trial)
        self._listener.outcome(record_lost(config, self._runtime, reason, kind))


class NodesWait(_OfThisProcess, tune.Callback):
    """Ends a sweep that waits in vain for nodes, where Ray would wait for ever.

    An autoscaler may never get the nodes it asks for, and the last node that was large enough may
    be gone.

    Args:
        wanted: by a trial.
    """

    def __init__(self, wanted: ResourceSpec) -> None:
        self._wanted = wanted
        self._fitting = time.monotonic()
        self._looked = self._fitting

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look now and then whether there is a node that a trial fits on.

        Raises:
            InputError: there has been none for too long.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        lack = lacking(self._wanted)
        if lack is None:
            self._fitting = now
        elif now - self._fitting > NODE_SECONDS:
            raise InputError(
                f"resources: {lack}, and no such node has come in {NODE_SECONDS / 60:.0f} minutes; "
                "ask for less or look at the autoscaler (ray status); the same command goes on "
                "from here"
            )


class QueueStopper(_OfThisProcess, tune.Stopper):
    """Ends the experiment once the queue was stopped.

    Args:
        queue: whose end it is.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing more is to run."""
        return self._queue.stopped is not None


@contextmanager
def on_ray(
    spec: SweepSpec, address: str | None = None, num_gpus: int | None = None
) -> Iterator[RunTrials]:
    """Join or start a Ray cluster, and give what runs the trials of a queue there.

    Args:
        spec: resources and limits.
        address: of a running cluster, `auto` for the one of this machine; none starts one here.
        num_gpus: logical GPUs of the one started here; none for those that Ray finds.

    Raises:
        InputError: the cluster is not there, or can never give a trial what it asks for.
    """

    def run_trials(queue: Queue, runtime: Runtime, listener: Listener) -> None:
        reporter = Reporter(queue, runtime, listener)
        try:
            # Ray's own threads may still write there when it is to be removed.
            with tempfile.TemporaryDirectory(
                prefix="mg-sweep-", ignore_cleanup_errors=True
            ) as folder:
                _fit(spec, queue, runtime, reporter, folder)
        finally:
            # Stopped early: the trials' processes are ended and may not say so themselves.
            if cut_short := [queue.running[t] for t in reporter.started & queue.running.keys()]:
                ray.shutdown()
                for config in cut_short:
                    record_interrupted(config, runtime)

    try:
        address = address or os.environ.get("RAY_ADDRESS")
        connect(address, num_gpus)
        check_resources(spec.resources, may_grow=address is not None)
        yield run_trials
    finally:
        ray.shutdown()


def connect(address: str | None, num_gpus: int | None = None) -> None:
    """Join a Ray cluster or start one of this machine.

    Raises:
        InputError: there is no cluster at the address, or it does not let us in.
    """
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(address="local", include_dashboard=False, num_gpus=num_gpus, **common)
        return
    if address.startswith("ray://"):
        raise InputError(
            f"address {address!r} is one of Ray's client; run this on a node of the cluster with "
            "--address auto, or give the head's HOST:PORT (6379)"
        )
    try:
        _check_reachable(address)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from None
    try:
        ray.init(address=address, **common)
    # What Ray raises where versions of Ray or Python differ, or the token does, has no class.
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        ray.shutdown()
        reason = " ".join(str(error).split()) + _token()
        raise InputError(f"cannot join the Ray cluster at {address!r}: {reason}") from None


def _token() -> str:
    """Say which token was shown, since a wrong one looks like a cluster that does not answer."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return " (is ~/.ray/auth_token the cluster's?)"
    return " (if it asks for a token: RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token)"


def _check_reachable(address: str) -> None:
    """Try the port itself: Ray would try for minutes, and say so in many lines."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()


def check_resources(wanted: ResourceSpec, may_grow: bool = False) -> None:
    """Refuse what no node of the cluster could ever give a trial.

    Ray would wait for it for ever, with a warning.

    Args:
        wanted: by a trial.
        may_grow: whether an autoscaler may still add a larger node.

    Raises:
        InputError: names the resource and the most that a node has.
    """
    lack = lacking(wanted, [*_nodes(), *(_nodes_to_come() if may_grow else [])])
    if lack is not None:
        raise InputError(f"resources: {lack}; ask for less or add nodes")


def lacking(wanted: ResourceSpec, nodes: list[dict[str, float]] | None = None) -> str | None:
    """Say what the largest of some nodes, or of those there now, has not; none if all is there."""
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


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _nodes_to_come() -> list[dict[str, float]]:
    """Return what the autoscaler's node types have, none where there is no autoscaler.

    On the head of a cluster of `ray up` they stand in its file; KubeRay and other autoscalers
    report them to Ray. A type that says nothing of its resources may have anything; but of machines
    of one's own none is left to come once all are there.
    """
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    found = [dict(group.resources) for group in groups if group.max_count]
    with contextlib.suppress(OSError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        cluster = yaml.safe_load(BOOTSTRAP.expanduser().read_text())
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
    lower = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}
    trainable = tune.with_resources(TrialTrainable, {lower[k]: v for k, v in wanted.items()})
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
            stop=QueueStopper(queue),
            callbacks=[reporter, NodesWait(spec.resources)],
            failure_config=tune.FailureConfig(max_failures=spec.max_retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _kind_of_loss(trial: Any) -> FailureKind:
    """Tell a process that Ray ended for want of memory from one that was lost otherwise."""
    error = trial.get_pickled_error()
    is_memory = isinstance(error, ray.exceptions.OutOfMemoryError) or OUT_OF_MEMORY in str(error)
    return "host-memory" if is_memory else "lost"


def _reason(trial: Any) -> str:
    """Say in one line why Tune believes a trial was lost."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    return lines[0] if lines else "the trial's process was lost"
