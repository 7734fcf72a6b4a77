"""`mg-sweep`: validate, plan, run and watch a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mg_core.cli import new_app, run

if TYPE_CHECKING:
    from sweeps.plan import Plan
    from sweeps.spec import SweepSpec
    from sweeps.status import Status

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
    from sweeps.plan import make_plan

    _print_plan(make_plan(_spec(file, settings, store)))


@app.command(name="run")
def run_sweep(
    file: FileOrStore,
    settings: Settings = None,
    store: StoreOption = None,
    runner: Annotated[
        str, typer.Option(metavar="ray|inline", help="On Ray, or in this process.")
    ] = "ray",
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to join, `auto` for this machine's; default: start one."),
    ] = None,
    num_gpus: Annotated[
        int | None, typer.Option(min=0, help="Logical GPUs of a Ray started here.")
    ] = None,
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
def status(
    store: Annotated[
        str, typer.Argument(metavar="FILE-or-STORE", help="A result store, or its sweep file.")
    ],
    override: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a sweep is and what failed."""
    import json

    from mg_core.store import ResultStore
    from sweeps.status import read_status

    uri = override or (_spec(store, None, None).store if Path(store).is_file() else store)
    found = read_status(ResultStore(uri))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        _print_status(found)


def main() -> None:
    """Run `mg-sweep`."""
    run(app)


def _spec(file: str, settings: list[str] | None, store: str | None) -> SweepSpec:
    from sweeps.spec import load_spec

    return load_spec(Path(file), settings or [], store)


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


def _print_status(found: Status) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sweeps.status import STATES

    console = Console(highlight=False)
    counts = ", ".join(f"{found.count(state)} {state}" for state in STATES)
    console.print(f"{len(found.trials)} trials: {counts}")
    if found.driver:
        console.print(f"driven by process {found.driver['pid']} on {found.driver['name']}")
    table = Table("trial", "state", "epoch", "seconds", "what", box=None)
    unfinished = [t for t, state in found.states.items() if state != "complete"]
    for trial in unfinished:
        progress = found.progress.get(trial)
        config = found.trials[trial]
        epoch = f"{progress.epoch if progress else '-'}/{config.epochs}"
        seconds = f"{progress.seconds:.0f}" if progress else "-"
        table.add_row(trial, found.states[trial], epoch, seconds, config.label)
    if unfinished:
        console.print(table)
    for trial, record in found.failures.items():
        head = f"\n{trial} {found.trials[trial].label} failed on {record['host']}"
        console.print(Text(f"{head}: {record.get('kind')}: {record.get('error')}", style="red"))
        if record.get("traceback"):
            console.print(Text(record["traceback"].rstrip(), style="dim"))
