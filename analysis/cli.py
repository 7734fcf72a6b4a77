"""`mg-analysis`: from a result store to fronts, test results, figures and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mg_core.cli import new_app, run
from mg_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from analysis.page.output import Output
    from analysis.plots import Drawing
    from analysis.results import Results
    from analysis.tabular.formats import Table
    from analysis.testing.plan import Job
    from mg_core.config import Runtime

EXAMPLE_FOLDER = Path("example")
"""Of the report on the recorded study, which has no store to write to."""

app = new_app("Fronts, test results, figures and reports of guidance sweeps.")

Stores = Annotated[
    list[str],
    typer.Argument(
        metavar="STORE...",
        help="Result stores of sweeps, finished or running; or mapping files of published tables.",
    ),
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
Format = Annotated[str | None, typer.Option("--format", help="Print text, markdown, latex or csv.")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder of the data set, if moved.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or a CUDA device.")]
Runner = Annotated[
    str, typer.Option(help="inline: in this process; ray: as many at once as there is room for.")
]
Address = Annotated[
    str, typer.Option(help="With --runner ray: local, auto (join a cluster) or host:port.")
]
Heatmaps = Annotated[
    int, typer.Option(min=0, max=1000, help="Test images whose heat maps are kept, per checkpoint.")
]


@dataclass(frozen=True)
class _Testing:
    """How checkpoints are tested."""

    data: str | None
    device: str | None
    runner: str
    address: str
    n_heatmaps: int


@app.command()
def fronts(
    stores: Stores, objectives: Objectives = None, tolerance: Tolerance = 0.0, out: Out = None
) -> None:
    """Write the Pareto fronts that validation gives, as tables."""
    from analysis.page.output import Output
    from analysis.tabular.formats import to_text
    from analysis.tabular.study import front_listing, front_sizes

    results = _merged(stores, objectives, tolerance)
    output = Output(results, out)
    typer.echo(to_text(front_sizes(results)))
    _write_tables(output, [front_listing(results)])
    typer.echo(
        f"{results.n_selected:,} of {results.n_checkpoints:,} checkpoints are on a front; "
        f"listed in {output.folder / 'tables' / 'fronts.csv'}"
    )


@app.command(name="test")
def run_test(
    stores: Stores,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    data: Data = None,
    device: Device = None,
    runner: Runner = "inline",
    address: Address = "local",
    heatmaps: Heatmaps = 8,
) -> None:
    """Evaluate the selected checkpoints, and no others, on the test split.

    What is tested already is not computed again. Exit code 1: some could not be tested.
    """
    testing = _Testing(data, device, runner, address, heatmaps)
    parts, _ = _read(stores, objectives, tolerance)
    if any([_test(part, testing)[1] for part in parts]):
        raise typer.Exit(1)


@app.command()
def tables(
    stores: Stores,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Such as table1; may be repeated.")
    ] = None,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    format_: Format = None,
    out: Out = None,
) -> None:
    """Write the tables as Markdown, LaTeX and CSV, or print them with --format."""
    from analysis.page.output import Output
    from analysis.tabular.formats import FORMATS
    from analysis.tabular.study import tables as all_tables

    if format_ is not None and format_ not in FORMATS:
        raise InputError(f"unknown --format {format_!r}; choose from {', '.join(FORMATS)}")
    results = _merged(stores, objectives, tolerance)
    chosen = _only(all_tables(results), only, "table")
    if format_ is not None:
        typer.echo("\n\n".join(FORMATS[format_](table).rstrip() for table in chosen))
        return
    output = Output(results, out)
    for path in _write_tables(output, chosen):
        typer.echo(path)


@app.command()
def findings(
    stores: Stores,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    tolerance: Tolerance = 0.0,
) -> None:
    """Judge the paper's findings R1 to R9 and Table 1 on what these sweeps measured."""
    from analysis.claims import judge, to_json, to_text

    found = judge(_merged(stores, None, tolerance))
    typer.echo(to_json(found) if json else to_text(found))


@app.command()
def figures(
    stores: Stores,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Such as fig5; may be repeated.")
    ] = None,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    out: Out = None,
) -> None:
    """Draw the figures from the test results that there are, as PNG and PDF, with their data."""
    from analysis.page.output import Output
    from analysis.plots import FORMATS

    results = _merged(stores, objectives, tolerance)
    output = Output(results, out)
    drawn = _write_figures(output, results, only or [], FORMATS)
    for drawing, _ in drawn:
        typer.echo(output.folder / "figures" / f"{drawing.name}.png")
    if not drawn:
        typer.echo(f"{', '.join(stores)}: no test results to draw; run `mg-analysis test` first")


@app.command()
def report(
    stores: Annotated[
        list[str] | None,
        typer.Argument(metavar="STORE...", help="Result stores of sweeps, finished or running."),
    ] = None,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    data: Data = None,
    device: Device = None,
    runner: Runner = "inline",
    address: Address = "local",
    heatmaps: Heatmaps = 8,
    out: Out = None,
    watch: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=5, help="Write the page again so often, until done."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Test first what is left to test.")
    ] = True,
    example: Annotated[
        bool,
        typer.Option("--example", help="Report the recorded study, by default into ./example."),
    ] = False,
) -> None:
    """Test what is left to test, draw everything, and write one HTML page."""
    from analysis.watching import repeat

    if bool(stores) == example:
        raise InputError("name the stores to report on, or --example for the recorded study")
    testing = _Testing(data, device, runner, address, heatmaps) if test and not example else None

    folder = out or (EXAMPLE_FOLDER if example else None)

    def write() -> bool:
        parts, published = _example() if example else _read(stores or [], objectives, tolerance)
        return _report(parts, published, testing, folder, watch)

    repeat(write, watch)


def main() -> None:
    """Run `mg-analysis`."""
    run(app)


def _report(
    parts: Sequence[Results],
    published: pd.DataFrame,
    testing: _Testing | None,
    out: Path | None,
    watch: float | None,
) -> bool:
    """Write the page once; return whether every trial is complete or failed."""
    from analysis.claims import judge
    from analysis.page.output import Output
    from analysis.page.report import report_page
    from analysis.results import merge
    from analysis.tabular.study import tables as all_tables

    problems: list[str] = []
    if testing is not None:
        tested = [_test(part, testing) for part in parts]
        parts = [part for part, _ in tested]
        problems = [problem for _, found in tested for problem in found]
    results = merge(parts, published)
    output = Output(results, out)
    written = all_tables(results)
    _write_tables(output, written)
    # The page shows PNG files; `figures` draws those for a paper, which take as long again.
    drawn = _write_figures(output, results, [], ["png"])
    page = report_page(results, drawn, written, judge(results), problems, watch)
    typer.echo(f"report: {output.write('report.html', page)}")
    return not results.states["unfinished"]


def _example() -> tuple[list[Results], pd.DataFrame]:
    import pandas as pd

    from analysis.example import recorded_study

    return [recorded_study()], pd.DataFrame()


def _merged(stores: Sequence[str], objectives: str | None, tolerance: float) -> Results:
    from analysis.results import merge

    return merge(*_read(stores, objectives, tolerance))


def _read(
    sources: Sequence[str], objectives: str | None, tolerance: float
) -> tuple[list[Results], pd.DataFrame]:
    import pandas as pd

    from analysis.published import is_mapping, read_published
    from analysis.results import read_results

    names = [name.strip() for name in objectives.split(",")] if objectives else None
    parts = [read_results(s, names, tolerance) for s in sources if not is_mapping(s)]
    others = [read_published(source) for source in sources if is_mapping(source)]
    return parts, pd.concat(others, ignore_index=True) if others else pd.DataFrame()


def _test(results: Results, testing: _Testing) -> tuple[Results, list[str]]:
    """Test what is left; return the results with it, and what could not be tested."""
    from dataclasses import replace

    from analysis.frame import load_tests
    from analysis.testing.plan import plan_tests
    from analysis.testing.progress import Progress

    plan = plan_tests(results, with_heatmaps=testing.n_heatmaps > 0)
    problems = [plan.unkept] if plan.unkept else []
    if plan.jobs:
        # PyTorch is not loaded when there is nothing to test.
        from analysis.testing.bench import runtime_of

        runtime = runtime_of(results, testing.data, testing.device)
        failed: list[str] = []
        with Progress(len(plan.jobs)) as progress:
            for problem in _runner(results, plan.jobs, runtime, testing, progress.decoding):
                failed += [problem] if problem else []
                progress.advance()
        problems += failed
        if len(failed) < len(plan.jobs):
            results = replace(
                results,
                tests=load_tests(results.store),
                heatmap_keys=frozenset(results.store.heatmap_keys()),
            )
    for problem in problems:
        typer.echo(f"not tested: {problem}", err=True)
    typer.echo(results.tested_sentence)
    return results, problems


def _runner(
    results: Results,
    jobs: Sequence[Job],
    runtime: Runtime,
    testing: _Testing,
    decoding: Callable[[str, int, int], None],
) -> Iterator[str | None]:
    if testing.runner == "inline":
        from analysis.testing.bench import run_tests

        return run_tests(jobs, runtime, testing.n_heatmaps, decoding)
    if testing.runner == "ray":
        from analysis.testing.spread import run_tests_on_ray

        asked = dict(results.spec.get("resources") or {})
        return run_tests_on_ray(jobs, runtime, asked, testing.address, testing.n_heatmaps)
    raise InputError(f"unknown --runner {testing.runner!r}; choose from inline, ray")


def _only(tables: Sequence[Table], names: Sequence[str] | None, kind: str) -> list[Table]:
    by_name = {table.name: table for table in tables}
    unknown = [name for name in names or () if name not in by_name]
    if unknown:
        raise InputError(f"unknown {kind} {unknown[0]!r}; choose from {', '.join(by_name)}")
    return [by_name[name] for name in names or by_name]


def _write_tables(output: Output, tables: Sequence[Table]) -> list[Path]:
    from analysis.tabular.formats import to_csv, to_latex, to_markdown

    written = []
    for table in tables:
        output.write(f"tables/{table.name}.csv", to_csv(table))
        output.write(f"tables/{table.name}.tex", to_latex(table))
        written.append(output.write(f"tables/{table.name}.md", to_markdown(table)))
    return written


def _write_figures(
    output: Output, results: Results, only: Sequence[str], formats: Sequence[str]
) -> list[tuple[Drawing, bytes]]:
    """Draw figures into files; return them with their PNG files."""
    from analysis.plots import drawings, render

    drawn = []
    for drawing in drawings(results, only):
        rendered = render(drawing, formats)
        for kind, content in rendered.items():
            output.write(f"figures/{drawing.name}.{kind}", content)
        output.write(f"figures/{drawing.name}.csv", drawing.data.to_csv(index=False))
        drawn.append((drawing, rendered["png"]))
    return drawn
