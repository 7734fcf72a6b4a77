"""A check on a node of a cluster that was started elsewhere, on the device that will train."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import ray

from mg_core.cluster import connect
from mg_core.errors import InputError
from sweeps.check import Check, check
from sweeps.machine import Machine
from sweeps.scheduler import check_resources, large_enough, visible_gpus
from sweeps.spec import ResourceSpec, SweepSpec


def check_there(spec: SweepSpec, exact: bool, address: str | None) -> Check:
    """Check a sweep as `sweeps.check.check` does, in one task with the resources of a trial.

    Args:
        spec: the sweep; with `resources: auto` the task gets a GPU if the cluster has any.
        exact: compare gradients with finite differences.
        address: address of the cluster; by default that of RAY_ADDRESS.

    Raises:
        InputError: the cluster cannot be joined, no node is large enough for a trial, or the sweep
            is wrong; the message names the node.
    """
    connect(ray, address or os.environ.get("RAY_ADDRESS"))
    try:
        wanted = spec.resources
        if wanted.auto and visible_gpus():
            wanted = wanted.model_copy(update={"gpu": 1})
        check_resources(wanted, may_grow=True)
        task = ray.remote(_check).options(
            num_cpus=wanted.cpu,
            num_gpus=wanted.gpu,
            memory=int((wanted.memory_gb or 0) * 1e9) or None,
            max_retries=0,
        )
        found: Check = ray.get(task.remote(spec, exact))
        return _on_all_nodes(found, wanted)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the node that the check ran on was lost: {reason}") from None
    finally:
        ray.shutdown()


def _check(spec: SweepSpec, exact: bool) -> Check:
    try:
        found = check(spec, exact, is_shared=True)
    except InputError as error:
        raise InputError(f"node {socket.gethostname()}: {error}") from None
    return replace(found, host=socket.gethostname())


def _on_all_nodes(found: Check, wanted: ResourceSpec) -> Check:
    """Count the trials that run at a time on the nodes that are there now."""
    of_gpu = found.machine.gpus[:1]
    nodes = [
        Machine(
            cpus=int(node.get("CPU", 0)),
            memory=int(node.get("memory", 0)),
            gpus=of_gpu * int(node.get("GPU", 0)),
        )
        for node in large_enough(wanted)
    ]
    return replace(found, nodes=tuple(nodes))
