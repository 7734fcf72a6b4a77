"""Test evaluation over the machines of a Ray cluster: the one file of analysis that knows Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import ray

from analysis.testing.bench import HEATMAPS, Bench
from analysis.testing.plan import Job
from mg_core.cluster import connect
from mg_core.config import Runtime
from mg_core.errors import InputError, StorageError

RETRIES = 3
"""Of a checkpoint whose worker or node was lost."""
PATIENCE = 10.0
"""Seconds without a result after which the cluster is asked whether it is still there."""
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

    `resources` are the `cpu` and `gpu` of one checkpoint. The address `local` starts Ray on this
    machine, `auto` or a host and port joins a cluster.

    Yields:
        None, or one sentence on why a checkpoint could not be tested, as they are done.

    Raises:
        InputError: the cluster is not there or has no room for a single one, or the data are
            missing or differ from those of the sweep.
        StorageError: the store cannot be written.
    """
    connect(ray, address)
    try:
        room = _room(resources)
        work = ray.remote(_test).options(
            num_cpus=resources.get("cpu", 1),
            num_gpus=resources.get("gpu", 0),
            max_retries=0,  # Ray would repeat without end what its memory monitor ends.
            scheduling_strategy="SPREAD",
        )
        waiting = [(job, RETRIES) for job in jobs]
        running: dict[Any, tuple[Job, int]] = {}
        settings = runtime.model_dump_json()
        while waiting or running:
            while waiting and len(running) < AHEAD * room:
                job, retries = waiting.pop(0)
                running[work.remote(settings, n_heatmaps, job)] = job, retries
            finished, _ = ray.wait(list(running), timeout=PATIENCE)
            if not finished:
                if _is_alive():
                    continue
                for job, _ in [*running.values(), *waiting]:
                    yield f"checkpoint {job.weights}: the Ray cluster was lost"
                return
            (done,) = finished
            job, retries = running.pop(done)
            try:
                problem = _result(done)
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                if retries:
                    waiting.append((job, retries - 1))
                    continue
                problem = f"checkpoint {job.weights}: {_loss(error)}, {1 + RETRIES} times"
            yield problem
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
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InputError):
            raise InputError(str(cause)) from None
        if isinstance(cause, StorageError):
            raise StorageError(cause.errno, cause.strerror) from None
        raise
    return found


def _loss(error: Exception) -> str:
    is_memory = isinstance(error, ray.exceptions.OutOfMemoryError)
    return "its machine ran out of memory" if is_memory else "the process that tests it was lost"


def _is_alive() -> bool:
    """Say whether this process's own node, which hands out its work, is in the cluster."""
    own = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["Alive"] and node["NodeID"] == own for node in nodes)


def _room(resources: dict[str, float]) -> int:
    """Return how many checkpoints fit at once."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {"CPU": resources.get("cpu", 1), "GPU": resources.get("gpu", 0)}
    for name, amount in wanted.items():
        if amount > there.get(name, 0):
            raise InputError(
                f"testing asks for {amount:g} {name} per checkpoint, as the sweep's `resources`, "
                f"and this Ray has {there.get(name, 0):g}; use --runner inline --device cpu"
            )
    return max(1, int(min(there[n] / amount for n, amount in wanted.items() if amount > 0)))
