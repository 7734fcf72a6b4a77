"""One run of a sweep: plan, lock, run, sweep up, and say how it ended."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from rich.console import Console

from mg_core.attempt import sweep
from mg_core.cli import INTERRUPTED
from mg_core.config import Runtime, TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore
from sweeps.display import Display
from sweeps.lock import StoreLock
from sweeps.plan import Plan, admit, check_admission, make_plan
from sweeps.runner import Queue, RunTrials, run_inline
from sweeps.spec import SweepSpec

RUNNERS = ("ray", "inline")


def drive(
    spec: SweepSpec,
    runner: str = "ray",
    address: str | None = None,
    num_gpus: int | None = None,
    retry_failed: bool = False,
    extend: bool = False,
) -> int:
    """Run what is missing of a sweep and return the exit code.

    Args:
        spec: of the sweep.
        runner: `ray` or `inline`.
        address: Ray cluster to join; none starts one on this machine.
        num_gpus: logical GPUs of a Ray started here.
        retry_failed: start failed trials again.
        extend: take a larger grid into the store.

    Raises:
        InputError: nothing was started.
    """
    if runner not in RUNNERS:
        raise InputError(f"unknown runner {runner!r}; choose from {', '.join(RUNNERS)}")
    console = Console(highlight=False)
    run = secrets.token_hex(4)
    runtime = spec.runtime(run)
    store = ResultStore(runtime.store)
    make_plan(spec)  # Whatever is wrong with it is said before anything is touched.
    store.files.check_writable()
    with StoreLock(store, run):
        plan = make_plan(spec)
        check_admission(plan, store, extend)
        todo = plan.todo(retry_failed)
        console.print(f"store {spec.store}: {_opening(plan, len(todo))}", soft_wrap=True)
        if todo:
            is_elsewhere = runner == "ray" and (address or os.environ.get("RAY_ADDRESS"))
            if not is_elsewhere:  # A cluster's nodes have a copy of their own.
                prepare_data(plan, todo)
            with _ready(spec, runner, address, num_gpus) as run_trials:
                admit(plan, store)
                code = _run(plan, todo, run_trials, runtime, console)
            if code == INTERRUPTED:
                return code  # Trials elsewhere may still be writing; the next start sweeps.
        else:
            admit(plan, store)
        sweep(store, run)
        return _exit_code(make_plan(spec))


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
) -> int:
    sweep(ResultStore(runtime.store), runtime.run)
    display = Display(plan, set(todo), console)
    complete = {trial for trial in plan.grid.trials if plan.is_complete(trial)}
    queue = Queue.of(todo, complete)
    _raise_on_terminate()
    try:
        with display:
            run_trials(queue, runtime, display)
    except KeyboardInterrupt:
        text = f"stopped: {display.summary()}; the same command goes on from here"
        console.print(text, soft_wrap=True)
        return INTERRUPTED
    console.print(display.summary())
    for trial in sorted(queue.blocked):
        label = plan.grid.trials[trial].label
        console.print(f"not started, its baseline is not complete: {trial} {label}", soft_wrap=True)
    return 0


def _opening(plan: Plan, n_todo: int) -> str:
    counts = plan.counts()
    parts = [f"{len(plan.grid.trials)} trials", f"{counts['complete']} complete"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed (see mg-sweep status; retry with --retry-failed)")
    return ", ".join([*parts, f"{n_todo} to run"])


def _exit_code(plan: Plan) -> int:
    return 0 if plan.counts()["complete"] == len(plan.grid.trials) else 1


def _raise_on_terminate() -> None:
    """Let a polite kill, as of a batch system, stop the sweep the way Ctrl-C does."""

    def stop(signum: int, frame: FrameType | None) -> None:
        print(f"received {signal.Signals(signum).name}", file=sys.stderr)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
