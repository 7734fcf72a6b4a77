"""`mg-analysis`: from a result store to fronts, test results, figures and a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mg_core.cli import new_app, run
from mg_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.results import Results

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
Seconds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SECONDS",
        help="Time to annotate an object, such as box=7; default: published ones; repeatable.",
    ),
]
Heatmaps = Annotated[
    int, typer.Option(min=0, max=1000, help="Test images whose heat maps are kept, per checkpoint.")
]


@app.command()
def fronts(
    stores: Stores, objectives: Objectives = None, tolerance: Tolerance = 0.0, out: Out = None
) -> None:
    """Write the Pareto fronts that validation gives, as tables."""
    from analysis.page.output import Output
    from analysis.tabular.formats import to_text
    from analysis.tabular.study import front_listing, front_sizes

    results = _read(stores, _names(objectives), tolerance)
    output = Output(results, out)
    typer.echo(to_text(front_sizes(results)))
    output.write_tables([front_listing(results)])
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
    from analysis.pipeline import Testing, test

    testing = Testing(data, device, runner, address, heatmaps)
    if _say_problems(test(stores, _names(objectives), tolerance, testing, typer.echo)):
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
    from analysis.pipeline import tables as all_tables
    from analysis.tabular.formats import FORMATS

    if format_ is not None and format_ not in FORMATS:
        raise InputError(f"unknown --format {format_!r}; choose from {', '.join(FORMATS)}")
    results = _read(stores, _names(objectives), tolerance)
    by_name = all_tables(results)
    unknown = [name for name in only or () if name not in by_name]
    if unknown:
        raise InputError(f"unknown table {unknown[0]!r}; choose from {', '.join(by_name)}")
    chosen = [by_name[name] for name in only or by_name]
    if format_ is not None:
        typer.echo("\n\n".join(FORMATS[format_](table).rstrip() for table in chosen))
        return
    for path in Output(results, out).write_tables(chosen):
        typer.echo(path)


@app.command()
def findings(
    stores: Stores,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    tolerance: Tolerance = 0.0,
    seconds: Seconds = None,
) -> None:
    """Judge the paper's findings and those beyond it on what these sweeps measured."""
    from analysis.claims import judge_published, published_to_text, to_json, to_text
    from analysis.pipeline import findings as judged

    results = _read(stores, None, tolerance)
    own = judged(results, seconds=_times(seconds)) if results.trials else []
    others = judge_published(results)
    if json:
        typer.echo(to_json(own, others))
    else:
        texts = [to_text(own)] if results.trials or not others else []
        typer.echo("\n\n\n".join([*texts, *([published_to_text(others)] if others else [])]))


@app.command()
def figures(
    stores: Stores,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Such as fig5, or a metric; may be repeated."),
    ] = None,
    objectives: Objectives = None,
    tolerance: Tolerance = 0.0,
    seconds: Seconds = None,
    out: Out = None,
) -> None:
    """Draw the figures from the test results that there are, as PNG and PDF, with their data."""
    from analysis.page.output import Output
    from analysis.pipeline import figures as all_figures

    results = _read(stores, _names(objectives), tolerance)
    output = Output(results, out)
    made = all_figures(results, only or [], seconds=_times(seconds))
    drawn = output.write_figures(made, ["png", "pdf"])
    for drawing, _ in drawn:
        typer.echo(output.folder / "figures" / f"{drawing.name}.png")
    if not drawn:
        why = "no test results to draw; run `mg-analysis test` first"
        if not results.n_checkpoints:
            why = "nothing to draw: no guided trial has committed an epoch"
        typer.echo(f"{', '.join(stores)}: {why}")


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
    seconds: Seconds = None,
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
        typer.Option(
            "--example",
            help="Report a recorded study, of the name given or the paper's, by default "
            "into ./example.",
        ),
    ] = False,
) -> None:
    """Test what is left to test, draw everything, and write one HTML page."""
    from analysis.example import recorded_study, studies
    from analysis.pipeline import Testing
    from analysis.pipeline import report as written

    if not stores and not example:
        raise InputError("name the stores to report on, or --example for the recorded study")
    if example and len(stores or []) > 1:
        raise InputError(f"--example reports one study; choose from {', '.join(studies())}")
    sources = recorded_study(*(stores or [])) if example else stores or []
    place = out or (Path("example") if example else None)
    testing = Testing(data, device, runner, address, heatmaps) if test and not example else None
    named, times = _names(objectives), _times(seconds)
    while True:
        started = time.monotonic()
        found = written(sources, place, named, tolerance, testing, watch, typer.echo, times)
        _say_problems(found.problems)
        typer.echo(f"report: {found.path}")
        if watch is None or found.is_finished:
            return
        # A page that takes longer than the interval is followed by a pause all the same.
        time.sleep(max(1.0, watch - (time.monotonic() - started)))


def main() -> None:
    """Run `mg-analysis`."""
    run(app)


def _read(stores: list[str], objectives: list[str] | None, tolerance: float) -> Results:
    """Read stores, and say on stderr what no result shows."""
    from analysis.pipeline import read

    results = read(stores, objectives, tolerance)
    for sentence in filter(None, [*results.caveats, results.unselected]):
        typer.echo(sentence, err=True)
    return results


def _names(objectives: str | None) -> list[str] | None:
    return [name.strip() for name in objectives.split(",")] if objectives else None


def _times(settings: list[str] | None) -> dict[str, float]:
    """Return the seconds of annotations by their names."""
    found = {}
    for setting in settings or []:
        name, _, value = setting.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(f"--seconds {setting!r} is no NAME=SECONDS, such as box=7") from None
    return found


def _say_problems(problems: Sequence[str]) -> bool:
    for problem in problems:
        typer.echo(f"not tested: {problem}", err=True)
    return bool(problems)
