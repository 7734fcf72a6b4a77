"""Sweeps from Python: `sweeps.plan` and `sweeps.run`, which the command line calls too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.changed_code import Answer
from sweeps.planning import Plan, make_plan
from sweeps.spec import SweepSpec, load_spec

Sweep = SweepSpec | Mapping[str, Any] | Path | str


def plan(sweep: Sweep, store: Path | str | None = None, settings: Sequence[str] = ()) -> Plan:
    """Return the trials of a sweep and how far each of them is, without running any.

    Args:
        sweep: path of a sweep file, its content, or the result store of a sweep.
        store: result store to use instead of the one that the sweep names.
        settings: overrides such as `guided.epochs=2`.

    Raises:
        InputError: the sweep is wrong, or its store cannot be read.

    Example:
        >>> import sweeps
        >>> planned = sweeps.plan("sweep.yaml")
        >>> len(planned.grid.trials), planned.counts()["waiting"]
        (3, 3)
    """
    return make_plan(_spec(sweep, store, settings))


def run(
    sweep: Sweep,
    store: Path | str | None = None,
    settings: Sequence[str] = (),
    runner: str = "ray",
    address: str | None = None,
    num_gpus: int | None = None,
    retry_failed: bool = False,
    extend: bool = False,
    only: str | None = None,
    into: bool = False,
    changed_code: Answer = "ask",
) -> Plan:
    """Run the waiting trials of a sweep; the same call goes on where a run was stopped.

    Args:
        sweep: path of a sweep file, its content, or the result store of a sweep.
        store: result store to use instead of the one that the sweep names.
        settings: overrides such as `guided.epochs=2`.
        runner: `ray`, or `inline` for one trial after another in this process.
        address: Ray cluster to join; by default this machine starts its own.
        num_gpus: logical GPUs of a Ray cluster that this machine starts.
        retry_failed: run the failed trials too.
        into: put a new store into a folder that holds other files.
        extend: take what the file changes: new trials are added, those with more epochs go on,
            and those that it does not have any more are shelved.
        only: the kind of failure to run again; with `retry_failed` alone all kinds.
        changed_code: what becomes of trials that another version of a module under `imports`
            computed: `ask` refuses to run, `accept` lets the versions stand together, `rerun`
            trains these trials again.

    Returns:
        The trials and how far each of them is then, see `Plan.counts`.

    Raises:
        InputError: the sweep is wrong, and nothing was started.
        KeyboardInterrupt: the run was interrupted.

    Example:
        >>> import sweeps
        >>> done = sweeps.run("sweep.yaml", store="runs/own", runner="inline")  # doctest: +ELLIPSIS
        store ...
        >>> done.counts()["complete"]
        3
    """
    from sweeps.drive import drive

    retry_failed = retry_failed or only is not None
    spec = _spec(sweep, store, settings)
    return drive(spec, runner, address, num_gpus, retry_failed, extend, only, into, changed_code)


def _spec(sweep: Sweep, store: Path | str | None, settings: Sequence[str]) -> SweepSpec:
    settings = [settings] if isinstance(settings, str) else settings
    content = sweep.model_dump() if isinstance(sweep, SweepSpec) else sweep
    return load_spec(content, settings, None if store is None else str(store))
