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
from mg_core.data.annotations import check_annotatable
from mg_core.errors import InputError
from mg_core.paths import with_home
from mg_core.sources import file_digests
from mg_core.store import ResultStore, reading
from mg_core.store.code import note_parts
from mg_core.store.files import PATIENCE
from mg_core.store.garbage import collect_garbage
from mg_core.store.layout import SPEC, is_own
from mg_core.store.ledger import FAILURE_KINDS
from mg_core.store.verification import mend, mend_baseline, missing_weights
from mg_core.training.checks import check_all_labels
from mg_core.training.own_code import check_imported
from sweeps.changed_code import ANSWERS, Answer, settle_code
from sweeps.check_view import automatic_line
from sweeps.display import Display, counted
from sweeps.grid import Grid, expand
from sweeps.guidances import annotations_of
from sweeps.hopeless import refuse_hopeless
from sweeps.lock import StoreLock
from sweeps.notice import check_notify, notify
from sweeps.origins import check_starts, origins_in_words, with_origins
from sweeps.planning import Plan, admit, check_admission, look
from sweeps.recall import measured_for_resources
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
    changed_code: Answer = "ask",
) -> Plan:
    """Run what is missing of a sweep and return how far it is then; `sweeps.run` explains all.

    Raises:
        InputError: the sweep is wrong, and nothing was started.
        KeyboardInterrupt: the run was interrupted.
    """
    _choose("runner", runner, RUNNERS)
    _choose("answer to changed code", changed_code, ANSWERS)
    if only is not None:
        _choose("kind of failure", only, FAILURE_KINDS)
    console = terminal.console()
    spec = with_origins(spec)
    run = secrets.token_hex(4)
    code = check_imported(spec.imports)
    grid = expand(spec)  # All errors of the sweep come before any write.
    is_elsewhere = runner == "ray" and bool(address or os.environ.get("RAY_ADDRESS"))
    spec = _fitted(spec, grid, is_elsewhere, console)
    runtime = spec.runtime(run).model_copy(update={"code": code})
    store = ResultStore(runtime.store)
    refuse_others_folder(store, into)
    check_tracking(spec)
    check_notify(spec)
    store.files.check_writable()
    store.files.patience = PATIENCE
    with StoreLock(store, run) as lock:
        plan = _mended(spec, grid, store, retry_failed, console)
        check_admission(plan, store, extend)
        if said := settle_code(plan, code, store, changed_code):
            console.print(said, style="yellow", soft_wrap=True)
            plan = look(spec, grid, PATIENCE)
        if plan.edit.present and not plan.edit.is_none:
            console.print(f"store {spec.store}: {plan.edit}", soft_wrap=True)
        todo = plan.todo(retry_failed, only)
        console.print(f"store {spec.store}: {_opening(plan, len(todo))}", soft_wrap=True)
        if todo:
            refuse_hopeless(todo.values())
            if not is_elsewhere:  # The nodes of a cluster have their own copies.
                prepare_data(plan, todo)
                check_starts(spec, todo)
            for sentence in origins_in_words(spec, todo):
                console.print(sentence, soft_wrap=True)
            with _ready(spec, runner, address, num_gpus) as run_trials:
                if is_elsewhere:
                    prepare_nodes(spec, todo, runtime, console)
                admit(plan, store)
                note_parts(
                    store, {version: file_digests(module) for module, version in code.items()}
                )
                if note := idle_gpus(spec, _visible_gpus(spec, runner)):
                    console.print(note, style="yellow", soft_wrap=True)
                runtime = runtime.model_copy(update={"lengths": plan.edit.lengths})
                _run(plan, todo, run_trials, runtime, console, lock)
        else:
            admit(plan, store)
            with tracked(spec, run, console, plan.complete):
                pass  # No trial runs, but epochs of earlier runs may not be copied yet.
        if lock.successor is None:  # Trials of a successor are running.
            collect_garbage(store, run)
        return look(spec, grid, PATIENCE)


def _fitted(spec: SweepSpec, grid: Grid, is_elsewhere: bool, console: Console) -> SweepSpec:
    """Return a sweep whose trials reserve what was measured here, if it asks for that."""
    from mg_core.progress import progress_bars

    if not spec.resources.auto:
        return spec
    if is_elsewhere:
        raise InputError(
            "resources: auto measures this machine, and the trials run on a cluster that was "
            "started elsewhere; run mg-sweep check on one of its nodes and write its line"
        )
    with progress_bars() as progress:
        found = measured_for_resources(spec, grid, progress)
    console.print(automatic_line(found), soft_wrap=True)
    return spec.model_copy(update={"resources": found.resources})


def _mended(
    spec: SweepSpec, grid: Grid, store: ResultStore, retry_failed: bool, console: Console
) -> Plan:
    """Return how far the sweep is, once damaged and misplaced files are set aside."""
    with reading(store):
        said = mend(store, set(grid.trials))
        plan = look(spec, grid, PATIENCE)
        needed = {config.baseline for config in plan.todo(retry_failed).values()}
        found = [
            mend_baseline(store, plan.ledger.progress[baseline])
            for baseline in sorted(filter(None, needed))
            if plan.ledger.is_complete(baseline)
        ]
        if any(found):
            plan = look(spec, grid, PATIENCE)
        found.append(missing_weights(store, plan.ledger.progress))
    for sentence in [*said, *filter(None, found)]:
        console.print(sentence, style="yellow", soft_wrap=True)
    return plan


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


def prepare_data(plan: Plan, todo: dict[str, TrialConfig]) -> None:
    """Read the data set in this process, so that its errors come before any trial starts.

    What some images lack for an annotation is said.

    Raises:
        InputError: the data set is wrong, which the message names the file of, or has no image
            that an annotation can be drawn of.
    """
    from mg_core.data import open_data
    from mg_core.progress import progress_bars

    spec, said = plan.spec, []
    with progress_bars("decoding") as progress:
        for config in {trial.data.key: trial.data for trial in todo.values()}.values():
            data = open_data(config, spec.data.root, spec.data.cache, progress)
            data.prepare()
            check_all_labels(data, todo.values())
            said += check_annotatable(data.split("train"), annotations_of(todo.values()))
    for sentence in said:
        terminal.console().print(sentence, style="yellow", soft_wrap=True)


def prepare_nodes(
    spec: SweepSpec, todo: dict[str, TrialConfig], runtime: Runtime, console: Console
) -> None:
    """Read the data set on every node of a cluster that has room for a trial.

    Raises:
        InputError: the data of a node are wrong; the message names the file.
    """
    from sweeps.nodes import prepare_on_nodes
    from sweeps.scheduler import nodes_for

    nodes = nodes_for(spec.resources)
    configs = {config.data.key: config.data for config in todo.values()}
    console.print(f"reading the data on {counted(len(nodes), 'node', 'nodes')}")
    for sentence in prepare_on_nodes(
        nodes, list(configs.values()), runtime, annotations_of(todo.values())
    ):
        console.print(sentence, style="yellow", soft_wrap=True)


def _ready(
    spec: SweepSpec, runner: str, address: str | None, num_gpus: int | None
) -> AbstractContextManager[RunTrials]:
    if runner == "inline":
        return nullcontext(run_inline)
    with_home("~")  # Ray fails without a home folder when it is imported.
    from sweeps.scheduler import on_ray

    return on_ray(spec, address, num_gpus)


def idle_gpus(spec: SweepSpec, n_gpus: int) -> str | None:
    """Say how the GPUs that are there would be used, if no trial uses one; else nothing."""
    if not n_gpus or spec.resources.gpu or spec.device != "auto":
        return None
    are = "a GPU is" if n_gpus == 1 else f"{n_gpus} GPUs are"
    return (
        f"{are} visible, and trials run on the CPU, since they ask for none; to use "
        f"{'it' if n_gpus == 1 else 'them'} write in the sweep file\n"
        f"resources: {{cpu: {spec.resources.cpu:g}, gpu: 1}}   # or a share, such as gpu: 0.5"
    )


def _visible_gpus(spec: SweepSpec, runner: str) -> int:
    if spec.resources.gpu or spec.device != "auto":
        return 0
    if runner == "inline":
        import torch  # Its trials need it in this process anyway.

        return torch.cuda.device_count()
    from sweeps.scheduler import visible_gpus

    return visible_gpus()


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
        notify(plan.spec, "stopped", display.summary(), console)
        raise
    except Exception as error:
        notify(plan.spec, "stopped", f"{display.summary()}; {type(error).__name__}", console)
        raise
    console.print(display.summary())
    unfinished = "stopped" if queue.stopped else "incomplete"
    is_whole = plan.grid.trials.keys() <= queue.complete
    notify(plan.spec, "complete" if is_whole else unfinished, display.summary(), console)
    if queue.stopped:
        console.print(f"stopped: {queue.stopped}", style="red", soft_wrap=True)
        console.print("correct that, then mg-sweep retry goes on from here")
    for trial in sorted(queue.blocked):
        label = plan.grid.trials[trial].label
        console.print(f"not started, its baseline is not complete: {trial} {label}", soft_wrap=True)


def _opening(plan: Plan, n_todo: int) -> str:
    counts = plan.counts()
    parts = [counted(len(plan.grid.trials), "trial", "trials"), f"{counts['complete']} complete"]
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
