"""One run of a sweep: plan, lock, run, report and clean up."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

from rich.console import Console

from mg_core import terminal
from mg_core.config import Runtime, TrialConfig
from mg_core.errors import InputError
from mg_core.models import build_model
from mg_core.models.library import is_of_library
from mg_core.paths import with_home
from mg_core.store import ResultStore, reading
from mg_core.store.files import PATIENCE
from mg_core.store.garbage import collect_garbage
from mg_core.store.layout import SPEC, is_own
from mg_core.store.ledger import FAILURE_KINDS
from mg_core.store.verification import mend, mend_baseline
from sweeps.display import Display
from sweeps.grid import Grid, expand
from sweeps.lock import StoreLock
from sweeps.planning import Plan, admit, check_admission, look
from sweeps.runner import FailFast, Listeners, Queue, RunTrials, run_inline
from sweeps.spec import SweepSpec
from sweeps.tracking import check_tracking, tracked

RUNNERS = ("ray", "inline")
Pair = tuple[str, str]


@terminal.printing(is_optional=True)
def drive(
    spec: SweepSpec,
    runner: str = "ray",
    address: str | None = None,
    num_gpus: int | None = None,
    retry_failed: bool = False,
    extend: bool = False,
    only: str | None = None,
    into: bool = False,
) -> Plan:
    """Run what is missing of a sweep and return how far it is then; `sweeps.run` explains all.

    Raises:
        InputError: the sweep is wrong, and nothing was started.
        KeyboardInterrupt: the run was interrupted.
    """
    _choose("runner", runner, RUNNERS)
    if only is not None:
        _choose("kind of failure", only, FAILURE_KINDS)
    console = terminal.console()
    run = secrets.token_hex(4)
    runtime = spec.runtime(run)
    store = ResultStore(runtime.store)
    grid = expand(spec)  # All errors of the sweep come before any write.
    refuse_others_folder(store, into)
    check_tracking(spec)
    store.files.check_writable()
    store.files.patience = PATIENCE
    with StoreLock(store, run) as lock:
        plan = _mended(spec, grid, store, retry_failed, console)
        check_admission(plan, store, extend)
        todo = plan.todo(retry_failed, only)
        console.print(f"store {spec.store}: {_opening(plan, len(todo))}", soft_wrap=True)
        if todo:
            check_networks(todo)
            is_elsewhere = runner == "ray" and (address or os.environ.get("RAY_ADDRESS"))
            if not is_elsewhere:  # The nodes of a cluster have their own copies.
                prepare_data(plan, todo)
            with _ready(spec, runner, address, num_gpus) as run_trials:
                admit(plan, store)
                _run(plan, todo, run_trials, runtime, console, lock)
        else:
            admit(plan, store)
            with tracked(spec, run, console, plan.complete):
                pass  # No trial runs, but epochs of earlier runs may not be copied yet.
        if lock.successor is None:  # Trials of a successor are running.
            collect_garbage(store, run)
        return look(spec, grid, PATIENCE)


def _mended(
    spec: SweepSpec, grid: Grid, store: ResultStore, retry_failed: bool, console: Console
) -> Plan:
    """Return how far the sweep is, once damaged and misplaced files are set aside."""
    said = []
    with reading(store):
        said += mend(store, set(grid.trials))
        plan = look(spec, grid, PATIENCE)
        needed = {config.baseline for config in plan.todo(retry_failed).values()}
        for baseline in sorted(filter(None, needed)):
            if plan.ledger.is_complete(baseline):
                sentence = mend_baseline(store, plan.ledger.progress[baseline])
                said += [sentence] if sentence else []
    for sentence in said:
        console.print(sentence, style="yellow", soft_wrap=True)
    return look(spec, grid, PATIENCE) if said else plan


def refuse_others_folder(store: ResultStore, into: bool) -> None:
    """Refuse to begin a store among files that are not a store's, unless that is wanted.

    Raises:
        InputError: names some of the files.
    """
    with reading(store):
        if store.is_store():
            return
        if into and store.spec_text() is not None:
            raise InputError(
                f"store {store.uri!r} holds a {SPEC} of your own, which the store's would replace; "
                "give it another name"
            )
        if into:
            return
        keys = store.files.keys("")
        others = [key for key in keys if not is_own(key) or key == SPEC]
    if others:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise InputError(
            f"store {store.uri!r} is not empty: it holds {shown}; name an empty or new folder, or "
            "put the store among these files with --into"
        )


def _choose(what: str, name: str, allowed: Sequence[str]) -> None:
    if name not in allowed:
        raise InputError(f"unknown {what} {name!r}; choose from {', '.join(allowed)}")


def check_networks(todo: dict[str, TrialConfig]) -> None:
    """Build the networks of libraries in this process and try their maps, before any trial starts.

    What they can do is not declared, unlike that of registered models.

    Raises:
        InputError: a network cannot be built, or a layer or attribution cannot be used with it.
    """
    wanted: dict[tuple[str, int], tuple[dict[Pair, None], dict[Pair, None]]] = {}
    for config in todo.values():
        if is_of_library(config.model):
            key = (config.model, config.data.image_size)
            guided, evaluated = wanted.setdefault(key, ({}, {}))
            evaluated |= dict.fromkeys((p.attribution, p.layer) for p in config.evaluate)
            if config.guidance:
                guided[config.guidance.attribution, config.guidance.layer] = None
    for (name, size), (guided, evaluated) in wanted.items():
        # Imported here, because it takes seconds.
        from mg_core.guidance import check_guidance

        model = build_model(name, num_classes=2, image_size=size)
        try:
            check_guidance(model, list(guided), list(evaluated), size)
        except InputError as error:
            raise InputError(f"model {name!r}: {error}") from None


def prepare_data(plan: Plan, todo: dict[str, TrialConfig]) -> None:
    """Read the data set in this process, so that its errors come before any trial starts.

    Raises:
        InputError: the data set is wrong; the message names the file.
    """
    from mg_core.data import open_data
    from mg_core.progress import progress_bars

    spec = plan.spec
    with progress_bars("decoding") as progress:
        for config in {trial.data.key: trial.data for trial in todo.values()}.values():
            open_data(config, spec.data.root, spec.data.cache, progress).prepare()


def _ready(
    spec: SweepSpec, runner: str, address: str | None, num_gpus: int | None
) -> AbstractContextManager[RunTrials]:
    if runner == "inline":
        return nullcontext(run_inline)
    with_home("~")  # Ray fails without a home folder when it is imported.
    from sweeps.scheduler import on_ray

    return on_ray(spec, address, num_gpus)


def _run(
    plan: Plan,
    todo: dict[str, TrialConfig],
    run_trials: RunTrials,
    runtime: Runtime,
    console: Console,
    lock: StoreLock,
) -> None:
    collect_garbage(ResultStore(runtime.store, PATIENCE), runtime.run)
    display = Display(plan, set(todo), console)
    complete = plan.complete
    queue = Queue.of(todo, complete)
    fail_fast = FailFast(queue, plan.spec.fail_fast_on, lambda: lock.successor)
    try:
        with (
            _terminated_like_ctrl_c(),
            display,
            tracked(plan.spec, runtime.run, console, complete) as mirror,
        ):
            run_trials(queue, runtime, Listeners(display, mirror, fail_fast))
    except KeyboardInterrupt:
        # Trials elsewhere may still be writing, so the next run removes the garbage.
        console.print(f"stopped: {display.summary()}", soft_wrap=True)
        raise
    console.print(display.summary())
    if queue.stopped:
        console.print(f"stopped: {queue.stopped}", style="red", soft_wrap=True)
        console.print("correct that, then mg-sweep retry goes on from here")
    for trial in sorted(queue.blocked):
        label = plan.grid.trials[trial].label
        console.print(f"not started, its baseline is not complete: {trial} {label}", soft_wrap=True)


def _opening(plan: Plan, n_todo: int) -> str:
    counts = plan.counts()
    parts = [f"{len(plan.grid.trials)} trials", f"{counts['complete']} complete"]
    if counts["failed"]:
        parts.append(
            f"{counts['failed']} failed (see mg-sweep status; mg-sweep retry starts them again)"
        )
    return ", ".join([*parts, f"{n_todo} to run"])


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM, which batch systems send, like Ctrl-C."""

    def stop(signum: int, frame: FrameType | None) -> None:
        print(f"received {signal.Signals(signum).name}", file=sys.stderr)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can handle signals.
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
