"""`mg-analysis`: from a result store to fronts, test results, figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mg_core.cli import new_app, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.figures import Drawing
    from analysis.output import Output
    from analysis.results import Results
    from analysis.tables import Table

app = new_app("Fronts, test results, figures and reports of guidance sweeps.")

Store = Annotated[
    str, typer.Argument(metavar="STORE", help="Result store of a sweep, finished or running.")
]
Objectives = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Of the fronts, such as f1,epg; default: the sweep's."),
]
Tolerance = Annotated[
    float, typer.Option(help="Values in one bin of this width count as equal, such as 0.005.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for the files; default: STORE/analysis.")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder of the data set, if moved.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or a CUDA device.")]


@app.command()
def fronts(
    store: Store, objectives: Objectives = None, tolerance: Tolerance = 0.0, out: Out = None
) -> None:
    """Write the Pareto fronts that validation gives, as tables."""
    from analysis.output import Output
    from analysis.tables import front_listing, front_sizes, to_text

    results = _results(store, objectives, tolerance)
    output = Output(results.store, out)
    typer.echo(to_text(front_sizes(results)))
    _write_tables(output, [front_listing(results)])
    typer.echo(
        f"{results.n_selected:,} of {results.n_checkpoints:,} checkpoints are on a front; "
        f"listed in {output.folder / 'tables' / 'fronts.csv'}"
    )


@app.command(name="test")
def run_test(
    store: Store,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    data: Data = None,
    device: Device = None,
) -> None:
    """Evaluate the selected checkpoints, and no others, on the test split.

    What is tested already is not computed again. Exit code 1: some could not be tested.
    """
    _, problems = _test(_results(store, objectives, tolerance), data, device)
    if problems:
        raise typer.Exit(1)


@app.command()
def figures(
    store: Store,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Such as fig5; may be repeated.")
    ] = None,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    out: Out = None,
) -> None:
    """Draw the figures from the test results that there are, as PNG and PDF, with their data."""
    from analysis.output import Output

    results = _results(store, objectives, tolerance)
    output = Output(results.store, out)
    drawn = _write_figures(output, results, only or [])
    for drawing, _ in drawn:
        typer.echo(output.folder / "figures" / f"{drawing.name}.png")
    if not drawn:
        typer.echo(f"store {store!r} has no test results to draw; run `mg-analysis test` first")


@app.command()
def report(
    store: Store,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    data: Data = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Test what is left to test, draw everything, and write one HTML page."""
    from analysis.output import Output
    from analysis.report import report_page
    from analysis.tables import tables

    results = _results(store, objectives, tolerance)
    output = Output(results.store, out)
    results, problems = _test(results, data, device)
    written = tables(results)
    _write_tables(output, written)
    drawn = _write_figures(output, results, [])
    path = output.write("report.html", report_page(results, drawn, written, problems))
    typer.echo(f"report: {path}")


def main() -> None:
    """Run `mg-analysis`."""
    run(app)


def _results(store: str, objectives: str | None, tolerance: float) -> Results:
    from analysis.results import read_results

    names = [name.strip() for name in objectives.split(",")] if objectives else None
    return read_results(store, names, tolerance)


def _test(results: Results, data: str | None, device: str | None) -> tuple[Results, list[str]]:
    """Test what is left; return the results with it, and what could not be tested."""
    from dataclasses import replace

    from analysis.frame import load_tests
    from analysis.plan import plan_tests
    from analysis.progress import Progress

    plan = plan_tests(results)
    problems = [plan.unkept] if plan.unkept else []
    if plan.jobs:
        # PyTorch is not loaded when there is nothing to test.
        from analysis.evaluate import run_tests, runtime_of

        runtime = runtime_of(results, data, device)
        with Progress(len(plan.jobs)) as progress:
            for problem in run_tests(results, plan.jobs, runtime, progress.decoding):
                problems += [problem] if problem else []
                progress.advance()
        results = replace(results, tests=load_tests(results.store))
    for problem in problems:
        typer.echo(f"not tested: {problem}", err=True)
    typer.echo(results.tested_sentence)
    return results, problems


def _write_tables(output: Output, tables: Sequence[Table]) -> None:
    from analysis.tables import to_csv, to_markdown

    for table in tables:
        output.write(f"tables/{table.name}.csv", to_csv(table))
        output.write(f"tables/{table.name}.md", to_markdown(table))


def _write_figures(
    output: Output, results: Results, only: Sequence[str]
) -> list[tuple[Drawing, bytes]]:
    """Draw figures into files; return them with their PNG files."""
    from analysis.figures import drawings, render

    drawn = []
    for drawing in drawings(results, only):
        rendered = render(drawing)
        for kind, content in rendered.items():
            output.write(f"figures/{drawing.name}.{kind}", content)
        output.write(f"figures/{drawing.name}.csv", drawing.data.to_csv(index=False))
        drawn.append((drawing, rendered["png"]))
    return drawn
