"""The only file that drives Ray Tune.

Tune schedules and starts lost trials again; the store remembers. Every run is a fresh `Tuner`
over the trials that are left, so nothing of Tune's own experiment state is ever read back.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mg_core.config import Runtime
from mg_core.errors import InputError
from mg_core.training.execution import Outcome, record_lost
from sweeps.runner import Listener, Queue, RunTrials
from sweeps.spec import ResourceSpec, SweepSpec

REACH_SECONDS = 10.0

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

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial has its resources."""
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
        self._listener.outcome(record_lost(config, self._runtime, _reason(trial)))


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
        with tempfile.TemporaryDirectory(prefix="mg-sweep-") as folder:
            _fit(spec, queue, runtime, listener, folder)

    try:
        connect(address, num_gpus)
        check_resources(spec.resources)
        yield run_trials
    finally:
        ray.shutdown()


def connect(address: str | None, num_gpus: int | None = None) -> None:
    """Join a Ray cluster or start one of this machine.

    Raises:
        InputError: there is no cluster at the address.
    """
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        ray.init(address="local", include_dashboard=False, num_gpus=num_gpus, **common)
        return
    try:
        _check_reachable(address)
        ray.init(address=address, **common)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"no Ray cluster at {address!r}: {reason}") from None


def _check_reachable(address: str) -> None:
    """Try the port itself: Ray would try for minutes, and say so in many lines."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()


def check_resources(wanted: ResourceSpec) -> None:
    """Refuse what no node of the cluster could ever give a trial.

    Ray would wait for it for ever, with a warning.

    Raises:
        InputError: names the resource and the most that a node has.
    """
    request = _request(wanted)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if any(all(node.get(k, 0) >= need for k, need in request.items()) for node in nodes):
        return
    have = {name: max((node.get(name, 0) for node in nodes), default=0) for name in request}
    lacking = [name for name, need in request.items() if need > have[name]] or list(request)
    shown = {"CPU": "CPUs", "GPU": "GPUs", "memory": "bytes of memory"}
    text = " and ".join(
        f"{request[name]:g} {shown[name]} where the largest node has {have[name]:g}"
        for name in lacking
    )
    raise InputError(f"resources: a trial asks for {text}; ask for less or add nodes")


def _request(wanted: ResourceSpec) -> dict[str, float]:
    request = {"CPU": wanted.cpu, "GPU": wanted.gpu, "memory": (wanted.memory_gb or 0) * 1e9}
    return {name: amount for name, amount in request.items() if amount}


def _fit(spec: SweepSpec, queue: Queue, runtime: Runtime, listener: Listener, folder: str) -> None:
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
            callbacks=[Reporter(queue, runtime, listener)],
            failure_config=tune.FailureConfig(max_failures=spec.max_retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _reason(trial: Any) -> str:
    """Say in one line why Tune believes a trial was lost."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    return lines[0] if lines else "the trial's process was lost"
