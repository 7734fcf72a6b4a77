"""One run of a sweep: plan, lock, run, sweep up, and say how it ended."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from rich.console import Console

from mg_core.cli import INTERRUPTED
from mg_core.config import Runtime, TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.attempt import sweep
from mg_core.store.files import PATIENCE
from mg_core.training.failures import KINDS
from sweeps.display import Display
from sweeps.lock import StoreLock, described
from sweeps.planning import Plan, admit, check_admission, look, make_plan
from sweeps.runner import FailFast, Listeners, Queue, RunTrials, run_inline
from sweeps.spec import SweepSpec
from sweeps.tracking import check_tracking, tracked

RUNNERS = ("ray", "inline")


def drive(
    spec: SweepSpec,
    runner: str = "ray",
    address: str | None = None,
    num_gpus: int | None = None,
    retry_failed: bool = False,
    extend: bool = False,
    only: str | None = None,
) -> int:
    """Run what is missing of a sweep and return the exit code.

    Args:
        spec: of the sweep.
        runner: `ray` or `inline`.
        address: Ray cluster to join; none starts one on this machine.
        num_gpus: logical GPUs of a Ray started here.
        retry_failed: start failed trials again.
        extend: take a larger grid into the store.
        only: of the failed trials, start those again that failed in this way.

    Raises:
        InputError: nothing was started.
    """
    _choose("runner", runner, RUNNERS)
    if only is not None:
        _choose("kind of failure", only, KINDS)
    console = Console(highlight=False, markup=False)  # Brackets in an error are no markup.
    run = secrets.token_hex(4)
    runtime = spec.runtime(run)
    store = ResultStore(runtime.store)
    grid = make_plan(spec).grid  # Whatever is wrong is said before anything is touched.
    check_tracking(spec)
    store.files.check_writable()
    store.files.patience = PATIENCE
    with StoreLock(store, run) as lock:
        plan = look(spec, grid, PATIENCE)
        check_admission(plan, store, extend)
        todo = plan.todo(retry_failed, only)
        console.print(f"store {spec.store}: {_opening(plan, len(todo))}", soft_wrap=True)
        if todo:
            is_elsewhere = runner == "ray" and (address or os.environ.get("RAY_ADDRESS"))
            if not is_elsewhere:  # A cluster's nodes have a copy of their own.
                prepare_data(plan, todo)
            with _ready(spec, runner, address, num_gpus) as run_trials:
                admit(plan, store)
                code = _run(plan, todo, run_trials, runtime, console, lock)
            if code == INTERRUPTED:
                return code  # Trials elsewhere may still be writing; the next start sweeps.
        else:
            admit(plan, store)
            with tracked(spec, run, console, _complete(plan)):
                pass  # Nothing runs, but a mirror may lack what earlier runs committed.
        if lock.successor is None:  # Else its trials are running.
            sweep(store, run)
        return _exit_code(look(spec, grid, PATIENCE))


def _choose(what: str, name: str, allowed: Sequence[str]) -> None:
    if name not in allowed:
        raise InputError(f"unknown {what} {name!r}; choose from {', '.join(allowed)}")


def prepare_data(plan: Plan, todo: dict[str, TrialConfig]) -> None:
    """Open the data set here, so that what is wrong with it is said before anything starts.

    Raises:
        InputError: names the file and what is wrong.
    """
    from mg_core.data import open_data
    from mg_core.data.progress import progress_bars

    spec = plan.spec
    with progress_bars("decoding") as progress:
        for config in {trial.data.key: trial.data for trial in todo.values()}.values():
            data = open_data(config, spec.data.root, spec.data.cache, progress)
            for name in ("train", "val"):
                data.split(name)


def _ready(
    spec: SweepSpec, runner: str, address: str | None, num_gpus: int | None
) -> AbstractContextManager[RunTrials]:
    if runner == "inline":
        return nullcontext(run_inline)
    from sweeps.scheduler import on_ray

    return on_ray(spec, address, num_gpus)


def _run(
    plan: Plan,
    todo: dict[str, TrialConfig],
    run_trials: RunTrials,
    runtime: Runtime,
    console: Console,
    lock: StoreLock,
) -> int:
    sweep(ResultStore(runtime.store, PATIENCE), runtime.run)
    display = Display(plan, set(todo), console)
    complete = _complete(plan)
    queue = Queue.of(todo, complete)

    def successor() -> str | None:
        return described(lock.successor) if lock.successor else None

    _raise_on_terminate()
    try:
        with display, tracked(plan.spec, runtime.run, console, complete) as mirror:
            fail_fast = FailFast(queue, plan.spec.fail_fast_on, successor)
            listener = Listeners(display, mirror, fail_fast)
            run_trials(queue, runtime, listener)
    except KeyboardInterrupt:
        text = f"stopped: {display.summary('interrupted')}; the same command goes on from here"
        console.print(text, soft_wrap=True)
        return INTERRUPTED
    console.print(display.summary())
    if queue.stopped:
        console.print(f"stopped: {queue.stopped}", style="red", soft_wrap=True)
        console.print("once that is put right, mg-sweep retry goes on from here")
    for trial in sorted(queue.blocked):
        label = plan.grid.trials[trial].label
        console.print(f"not started, its baseline is not complete: {trial} {label}", soft_wrap=True)
    return 0


def _complete(plan: Plan) -> set[str]:
    return {trial for trial in plan.grid.trials if plan.is_complete(trial)}


def _opening(plan: Plan, n_todo: int) -> str:
    counts = plan.counts()
    parts = [f"{len(plan.grid.trials)} trials", f"{counts['complete']} complete"]
    if counts["failed"]:
        parts.append(
            f"{counts['failed']} failed (see mg-sweep status; mg-sweep retry starts them again)"
        )
    return ", ".join([*parts, f"{n_todo} to run"])


def _exit_code(plan: Plan) -> int:
    return 0 if plan.counts()["complete"] == len(plan.grid.trials) else 1


def _raise_on_terminate() -> None:
    """Let a polite kill, as of a batch system, stop the sweep the way Ctrl-C does."""

    def stop(signum: int, frame: FrameType | None) -> None:
        print(f"received {signal.Signals(signum).name}", file=sys.stderr)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
