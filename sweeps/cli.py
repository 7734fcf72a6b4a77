"""`mg-sweep`: validate, plan, run and watch a sweep, and what failed of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mg_core.cli import new_app, run

if TYPE_CHECKING:
    from mg_core.store import ResultStore
    from sweeps.planning import Plan
    from sweeps.spec import SweepSpec

app = new_app("Sweeps that guide models with explanations, on Ray Tune or in this process.")

FileOrStore = Annotated[
    str, typer.Argument(metavar="FILE-or-STORE", help="A sweep file, or the store of a sweep.")
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
NumGpus = Annotated[int | None, typer.Option(min=0, help="Logical GPUs of a Ray started here.")]


@app.command()
def validate(file: FileOrStore, settings: Settings = None, store: StoreOption = None) -> None:
    """Check a sweep file and everything it names, without touching data or store."""
    from sweeps.grid import expand

    spec = _spec(file, settings, store)
    grid = expand(spec)
    typer.echo(
        f"{file}: valid; {len(grid.baselines)} baseline and {len(grid.guided)} guided trials"
    )


@app.command()
def plan(file: FileOrStore, settings: Settings = None, store: StoreOption = None) -> None:
    """Show how many trials there are, of which kinds, how many are done and what was dropped."""
    from sweeps.planning import make_plan

    _print_plan(make_plan(_spec(file, settings, store)))


@app.command(name="run")
def run_sweep(
    file: FileOrStore,
    settings: Settings = None,
    store: StoreOption = None,
    runner: Runner = "ray",
    address: Address = None,
    num_gpus: NumGpus = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Start failed trials again.")
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add the new trials of a larger grid to the store.")
    ] = False,
) -> None:
    """Run what is missing; the same command again goes on where it was stopped.

    Exit code 0: all trials are complete; 1: some failed; 2: the input is wrong; 130: interrupted.
    """
    from sweeps.drive import drive

    spec = _spec(file, settings, store)
    raise typer.Exit(
        drive(
            spec,
            runner=runner,
            address=address,
            num_gpus=num_gpus,
            retry_failed=retry_failed,
            extend=extend,
        )
    )


@app.command()
def retry(
    file: FileOrStore,
    only: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only what failed in this way.")
    ] = None,
    settings: Settings = None,
    store: StoreOption = None,
    runner: Runner = "ray",
    address: Address = None,
    num_gpus: NumGpus = None,
) -> None:
    """Run what is missing, and the trials that failed; each goes on from its last epoch.

    Kinds of failure: lost, host-memory, gpu-memory, numerical, data, node, storage, bug.
    """
    from sweeps.drive import drive

    spec = _spec(file, settings, store)
    raise typer.Exit(
        drive(spec, runner=runner, address=address, num_gpus=num_gpus, retry_failed=True, only=only)
    )


@app.command()
def status(
    file: FileOrStore,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a sweep is, what it takes, its fronts so far, and what failed."""
    import json

    from rich.console import Console

    from sweeps.status import read_status
    from sweeps.status_view import status_view

    found = read_status(_store(file, store))
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        Console(highlight=False).print(status_view(found))


@app.command()
def watch(
    file: FileOrStore,
    store: StoreOption = None,
    every: Annotated[
        float, typer.Option(min=1.0, metavar="SECONDS", help="Time between two looks.")
    ] = 5.0,
) -> None:
    """Follow a sweep until nobody drives it any more; Ctrl-C leaves, and the sweep goes on."""
    from sweeps.watch import follow

    follow(_store(file, store), every)


@app.command()
def logs(
    file: FileOrStore,
    trial: Annotated[str, typer.Argument(help="Id of a trial, or how it begins.")],
    store: StoreOption = None,
    every_attempt: Annotated[
        bool, typer.Option("--all", help="All attempts, not the last one alone.")
    ] = False,
) -> None:
    """Show what a trial logged, with a running one up to half a minute late."""
    from sweeps.removal import find_trial

    place = _store(file, store)
    found = place.logs(find_trial(place, trial))
    if not found:
        typer.echo(f"trial {trial} has not logged anything yet")
    for attempt, text in list(found.items())[0 if every_attempt else -1 :]:
        typer.echo(f"attempt {attempt}\n{text}", nl=False)


@app.command()
def rm(
    file: FileOrStore,
    trial: Annotated[
        list[str] | None,
        typer.Option("--trial", metavar="ID", help="Only this trial's results; repeatable."),
    ] = None,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a store, or the results of trials, which the next run makes again."""
    from sweeps.removal import removal

    found = removal(_store(file, store), trial or [])
    typer.echo(found.description)
    if not (yes or typer.confirm("delete?")):
        raise typer.Exit(1)
    found.carry_out()


def main() -> None:
    """Run `mg-sweep`."""
    run(app)


def _spec(file: str, settings: list[str] | None, store: str | None) -> SweepSpec:
    from sweeps.spec import load_spec

    return load_spec(file, settings or [], store)


def _store(file: str, override: str | None) -> ResultStore:
    """Open the store that a command line names, or that its sweep file does."""
    from pathlib import Path

    from mg_core.store import ResultStore

    is_file = override is None and Path(file).is_file()
    return ResultStore(override or (_spec(file, None, None).store if is_file else file))


def _print_plan(plan: Plan) -> None:
    counts = plan.counts()
    n_epochs = sum(plan.epochs_left(trial) for trial in plan.todo(retry_failed=False))
    typer.echo(f"sweep {plan.spec.name}, store {plan.spec.store}")
    typer.echo(
        f"{len(plan.grid.trials)} trials: {len(plan.grid.baselines)} baseline and "
        f"{len(plan.grid.guided)} guided"
    )
    for line in axes(plan):
        typer.echo(f"  {line}")
    typer.echo(
        f"{counts['complete']} complete, {counts['failed']} failed, {counts['waiting']} to run "
        f"({n_epochs} epochs)"
    )
    for reason, number in plan.grid.dropped.items():
        typer.echo(f"{number} combinations dropped: {reason}")


def axes(plan: Plan) -> list[str]:
    """Say how the guided trials spread over the axes that take several values."""
    columns = (
        "model",
        "attribution",
        "layer",
        "loss",
        "seed",
        "annotated_fraction",
        "box_dilation",
        "task",
        "reduction",
    )
    found = []
    for column in columns:
        values: dict[Any, int] = {}
        for config in plan.grid.guided.values():
            assert config.guidance is not None
            value = getattr(config.guidance, column, getattr(config, column, None))
            values[value] = values.get(value, 0) + 1
        if len(values) > 1:
            found.append(f"{column}: " + ", ".join(f"{v} {n}" for v, n in values.items()))
    return found
