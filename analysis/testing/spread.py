"""Test evaluation over the machines of a Ray cluster: the one file of analysis that knows Ray."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import ray

from analysis.testing.bench import HEATMAPS, Bench
from analysis.testing.plan import Job
from mg_core.config import Runtime
from mg_core.errors import InputError

RETRIES = 3
"""Of a checkpoint whose worker or node was lost."""
REACH_SECONDS = 10.0
"""To wait for the head of a cluster to take a connection."""
AHEAD = 2
"""Checkpoints handed out for each one that can be tested at the same time."""


def run_tests_on_ray(
    jobs: Sequence[Job],
    runtime: Runtime,
    resources: dict[str, float],
    address: str = "local",
    n_heatmaps: int = HEATMAPS,
) -> Iterator[str | None]:
    """Evaluate checkpoints as `run_tests` does, as many at once as the cluster has room for.

    Args:
        jobs: as `plan_tests` lists them.
        runtime: the store, where the data are on every node, and on which device to work.
        resources: `cpu` and `gpu` of one checkpoint, as a trial of the sweep has them.
        address: `local` starts Ray on this machine, `auto` or a host and port joins a cluster.
        n_heatmaps: images that are shown of each checkpoint.

    Yields:
        None, or one sentence on why a checkpoint could not be tested, as they are done.

    Raises:
        InputError: the cluster is not there or has no room for a single one, or the data are
            missing or differ from those of the sweep.
    """
    _connect(address)
    try:
        room = _room(resources)
        work = ray.remote(_test).options(
            num_cpus=resources.get("cpu", 1),
            num_gpus=resources.get("gpu", 0),
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        waiting = list(jobs)
        running: list[Any] = []
        settings = runtime.model_dump_json()
        while waiting or running:
            while waiting and len(running) < AHEAD * room:
                running.append(work.remote(settings, n_heatmaps, waiting.pop(0)))
            (done,), running = ray.wait(running)
            yield _result(done)
    finally:
        ray.shutdown()


def _test(settings: str, n_heatmaps: int, job: Job) -> str | None:
    return _bench(settings, n_heatmaps).test(job)


@lru_cache(maxsize=1)
def _bench(settings: str, n_heatmaps: int) -> Bench:
    # A worker process tests one checkpoint after another with the same data and model.
    return Bench(Runtime.model_validate_json(settings), n_heatmaps)


def _result(done: Any) -> str | None:
    try:
        found: str | None = ray.get(done)
    except InputError:
        raise
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise
    return found


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    if port.isdigit():
        # Ray itself would wait for minutes for what is not there.
        try:
            socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
        except OSError as error:
            raise InputError(f"no Ray cluster at --address {address}: {error}") from None
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            ignore_reinit_error=True,
        )
    except ConnectionError as error:
        raise InputError(f"no Ray cluster at --address {address}: {error}") from None


def _room(resources: dict[str, float]) -> int:
    """Return how many checkpoints fit at once."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {
        "CPU": resources.get("cpu", 1),
        "GPU": resources.get("gpu", 0),
    }
    for name, amount in wanted.items():
        if amount > there.get(name, 0):
            raise InputError(
                f"testing asks for {amount:g} {name} per checkpoint, as the sweep's `resources`, "
                f"and this Ray has {there.get(name, 0):g}; use --runner inline --device cpu"
            )
    return max(1, int(min(there[n] / amount for n, amount in wanted.items() if amount > 0)))
