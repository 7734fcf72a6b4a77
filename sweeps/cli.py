"""The command line `mg-sweep`: check, plan, run, watch and delete sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mg_core.cli import INTERRUPTED, new_app, run
from mg_core.errors import InputError

if TYPE_CHECKING:
    from mg_core.store import ResultStore
    from sweeps.changed_code import Answer
    from sweeps.planning import Plan

SHOWN_VALUES = 50
"""Values of an axis that `plan` counts."""

app = new_app("Sweeps that guide models with explanations, on Ray Tune or in this process.")

FileOrStore = Annotated[
    str, typer.Argument(metavar="FILE-or-STORE", help="A sweep file or the store of a sweep.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as guided.epochs=2."),
]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Override the file's store.")
]
Runner = Annotated[str, typer.Option(metavar="ray|inline", help="On Ray, or in this process.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join, `auto` for this machine's; default: start one."),
]
AcceptCode = Annotated[
    bool,
    typer.Option("--accept-code", help="Keep trials of another version of your own code."),
]
RerunCode = Annotated[
    bool,
    typer.Option("--rerun-code", help="Train trials of another version of your own code again."),
]
NumGpus = Annotated[int | None, typer.Option(min=0, help="Logical GPUs of a Ray started here.")]


@app.command()
def validate(file: FileOrStore, settings: Settings = None, store: StoreOption = None) -> None:
    """Check a sweep file and the names in it, without touching data or store."""
    from sweeps.display import counted
    from sweeps.grid import expand
    from sweeps.layers import check_layers
    from sweeps.origins import without_effect
    from sweeps.spec import load_spec

    spec = load_spec(file, settings or (), store)
    grid = expand(spec)
    check_layers(grid)
    for sentence in without_effect(spec):
        typer.echo(sentence)
    guided = counted(len(grid.guided), "guided trial", "guided trials")
    typer.echo(f"{file}: valid; {len(grid.baselines)} baseline and {guided}")


@app.command()
def plan(file: FileOrStore, settings: Settings = None, store: StoreOption = None) -> None:
    """Show the number of trials, their axes and states, and the combinations left out."""
    from sweeps import library

    _print_plan(library.plan(file, store, settings or ()))


@app.command(name="check")
def run_check(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE-or-STORE", help="A sweep file or a store.")
    ] = None,
    settings: Settings = None,
    store: StoreOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare gradients with finite differences.")
    ] = False,
    contracts: Annotated[
        str | None,
        typer.Option(metavar="MODULE", help="Check the variants that a module registers instead."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster on a node of which to check; default: this machine."),
    ] = None,
) -> None:
    """Try every combination on one batch, and measure how long, how large and how many at a time.

    That is done on this machine, or in a Ray task on a node of the cluster that `--address` or
    RAY_ADDRESS names.
    Data are decoded and nothing is trained. Exit code 0: all can work; 1: some cannot.
    """
    if contracts is not None:
        from mg_core.testing import check_module

        problems = check_module(contracts)
        typer.echo("\n".join(problems) or f"every variant of {contracts} keeps its contract")
        raise typer.Exit(1 if problems else 0)
    if file is None:
        raise InputError("name a sweep file, or a module with --contracts")
    import os
    import sys

    from mg_core import terminal
    from sweeps.check_view import check_view
    from sweeps.spec import load_spec

    spec = load_spec(file, settings or (), store)
    try:
        if address or os.environ.get("RAY_ADDRESS"):
            from sweeps.check_on_cluster import check_there

            found = check_there(spec, exact, address)
        else:
            from mg_core.progress import progress_bars
            from sweeps.check import check

            with progress_bars() as progress:
                found = check(spec, exact, progress)
    except KeyboardInterrupt:
        print("interrupted; nothing was trained, and the next check begins anew", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    terminal.console().print(check_view(found))
    raise typer.Exit(1 if found.problems else 0)


@app.command(name="run")
def run_sweep(
    file: FileOrStore,
    settings: Settings = None,
    store: StoreOption = None,
    runner: Runner = "ray",
    address: Address = None,
    num_gpus: NumGpus = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials too.")
    ] = False,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Take what the file changes: new, longer and fewer trials."),
    ] = False,
    into: Annotated[
        bool, typer.Option("--into", help="Put a new store among other files of a folder.")
    ] = False,
    accept_code: AcceptCode = False,
    rerun_code: RerunCode = False,
) -> None:
    """Run the waiting trials; the same command goes on where a run was stopped.

    Exit code 0: all trials are complete; 1: some are not; 2: the input is wrong; 130: interrupted.
    """
    from sweeps import library

    done = library.run(
        file,
        store,
        settings or (),
        runner,
        address,
        num_gpus,
        retry_failed,
        extend,
        into=into,
        changed_code=_answer(accept_code, rerun_code),
    )
    raise typer.Exit(0 if done.is_complete else 1)


@app.command()
def retry(
    file: FileOrStore,
    only: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only failures of this kind.")
    ] = None,
    settings: Settings = None,
    store: StoreOption = None,
    runner: Runner = "ray",
    address: Address = None,
    num_gpus: NumGpus = None,
    accept_code: AcceptCode = False,
    rerun_code: RerunCode = False,
) -> None:
    """Run the waiting and the failed trials; each goes on from its last epoch.

    Kinds of failure: lost, host-memory, gpu-memory, numerical, data, node, storage, bug.
    """
    from sweeps import library

    done = library.run(
        file,
        store,
        settings or (),
        runner,
        address,
        num_gpus,
        retry_failed=True,
        only=only,
        changed_code=_answer(accept_code, rerun_code),
    )
    raise typer.Exit(0 if done.is_complete else 1)


@app.command()
def status(
    file: FileOrStore,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a sweep is, the time it needs, its fronts so far, and its failures."""
    import json

    from mg_core import terminal
    from sweeps.status import read_status
    from sweeps.status_view import status_view

    found = read_status(_store(file, store))
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        terminal.console().print(status_view(found))


@app.command()
def watch(
    file: FileOrStore,
    store: StoreOption = None,
    every: Annotated[
        float, typer.Option(min=1.0, metavar="SECONDS", help="Time between two updates.")
    ] = 5.0,
) -> None:
    """Show the status of a running sweep until it ends; Ctrl-C ends only this view."""
    from sweeps.watch import follow

    follow(_store(file, store), every)


@app.command()
def logs(
    file: FileOrStore,
    trial: Annotated[str, typer.Argument(help="Id of a trial, or its first digits.")],
    store: StoreOption = None,
    every_attempt: Annotated[
        bool, typer.Option("--all", help="All attempts, not only the last one.")
    ] = False,
) -> None:
    """Show the log of a trial; that of a running trial is up to half a minute old."""
    from mg_core.store import reading

    place = _store(file, store)
    with reading(place):
        place.spec()
        found = place.logs(place.find_trial(trial))
    if not found:
        typer.echo(f"trial {trial} has not logged anything yet")
    for attempt, text in list(found.items())[0 if every_attempt else -1 :]:
        typer.echo(f"attempt {attempt}\n{text}", nl=False)


@app.command()
def verify(
    file: FileOrStore,
    store: StoreOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set what is damaged aside, to be made again.")
    ] = False,
) -> None:
    """Read every file of a store, and list what is damaged and what repairs it.

    Exit code 0: nothing is, or it was set aside; 1: something is.
    """
    from mg_core.progress import progress_bars
    from mg_core.store import reading
    from mg_core.store.code import in_words, versions_of
    from mg_core.store.verification import set_damage_aside
    from mg_core.store.verification import verify as verify_store
    from sweeps.lock import refuse_driven

    place = _store(file, store)
    with reading(place), progress_bars() as progress:
        found = verify_store(place, progress)
    for damage in found:
        typer.echo(f"{damage.problem}: {damage.repair}")
    if not found:
        for module, versions in versions_of(place.progress().values()).items():
            typer.echo(in_words(module, versions))
    if not found:
        typer.echo("every file is as it was written")
    movable = [damage for damage in found if damage.keys]
    if repair and movable:
        with reading(place):
            refuse_driven(place)
            typer.echo(f"set aside in {set_damage_aside(place, movable)}")
    raise typer.Exit(1 if len(found) > (len(movable) if repair else 0) else 0)


@app.command()
def rm(
    file: FileOrStore,
    trial: Annotated[
        list[str] | None,
        typer.Option("--trial", metavar="ID", help="Only the results of this trial; repeatable."),
    ] = None,
    shelved: Annotated[
        bool, typer.Option("--shelved", help="Only the trials that left the sweep file.")
    ] = False,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a store, or the results of some trials, which the next run trains again."""
    from mg_core.errors import InputError
    from sweeps.removal import removal

    if trial and shelved:
        raise InputError("--trial and --shelved name different trials; give one of the two")
    found = removal(_store(file, store), trial or [], shelved)
    typer.echo(found.description)
    if not (yes or typer.confirm("delete?")):
        raise typer.Exit(1)
    found.carry_out()


def main() -> None:
    """Run `mg-sweep`."""
    run(app)


def _answer(accept_code: bool, rerun_code: bool) -> Answer:
    from mg_core.errors import InputError

    if accept_code and rerun_code:
        raise InputError("--accept-code keeps what --rerun-code trains again; give one of the two")
    return "accept" if accept_code else "rerun" if rerun_code else "ask"


def _store(file: str, override: str | None) -> ResultStore:
    """Return the store that a command line names, itself or by a sweep file."""
    import os

    from mg_core.store import ResultStore
    from sweeps.spec import load_spec

    is_file = override is None and os.path.isfile(file)
    return ResultStore(override or (load_spec(file, ()).store if is_file else file))


def _print_plan(plan: Plan) -> None:
    from mg_core.store import ResultStore
    from mg_core.store.shelf import in_words as shelved_in_words
    from sweeps.changed_code import warning
    from sweeps.display import counted, in_words
    from sweeps.origins import without_effect

    grid = plan.grid
    typer.echo(f"sweep {plan.spec.name}, store {plan.spec.store}")
    trials = counted(len(grid.trials), "trial", "trials")
    typer.echo(f"{trials}: {len(grid.baselines)} baseline and {len(grid.guided)} guided")
    for axis, values in grid.axes().items():
        shown = ", ".join(f"{value} {n}" for value, n in list(values.items())[:SHOWN_VALUES])
        more = f" … and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
        typer.echo(f"  {axis}: {shown}{more}")
    n_epochs = sum(plan.epochs_left(trial) for trial in plan.todo(retry_failed=False))
    typer.echo(f"{in_words(plan.counts())} ({counted(n_epochs, 'epoch', 'epochs')} to run)")
    if plan.edit.present and not plan.edit.is_none:
        typer.echo(f"with --extend: {plan.edit}")
    if shelved := shelved_in_words(len(plan.edit.shelved - plan.edit.back)):
        typer.echo(shelved)
    for reason, number in grid.dropped.items():
        typer.echo(f"{counted(number, 'combination', 'combinations')} dropped: {reason}")
    changed = warning(plan, ResultStore(plan.spec.store))
    for line in [*filter(None, [changed]), *without_effect(plan.spec), *_remembered(plan)]:
        typer.echo(line)


def _remembered(plan: Plan) -> list[str]:
    """Return what earlier measurements on this machine say of a sweep."""
    from sweeps.check_view import recalled_lines
    from sweeps.recall import recalled

    is_open = {"waiting", "running"}
    left = {
        trial: plan.epochs_left(trial)
        for trial in plan.grid.trials
        if plan.ledger.state(trial) in is_open
    }
    try:
        found = recalled(plan.spec, plan.grid, left)
    except InputError as error:
        return [str(error)]
    return recalled_lines(found) if found else []
