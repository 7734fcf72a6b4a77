"""From stores to fronts, tests, tables, findings, figures and a report: one function a step.

Every function takes a store, several of them, mapping files of published tables among them, or
`Results` that were read before. Validation alone chooses; test results are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import pandas as pd

from analysis.efforts import hours_of_trials, with_seconds
from analysis.frame import StoreLike, finite, load_tests
from analysis.published import is_mapping, read_published
from analysis.results import Results, merge, read_results
from mg_core.errors import InputError, StorageError
from mg_core.paths import with_home, with_variables
from mg_core.store import ResultStore

if TYPE_CHECKING:
    from analysis.claims import Finding
    from analysis.plots import Drawing
    from analysis.tabular.formats import Table
    from analysis.testing.plan import Job
    from mg_core.data.reader import Progress

Source: TypeAlias = StoreLike | Results
Sources: TypeAlias = Source | Sequence[Source]
Say: TypeAlias = Callable[[str], None]
RUNNERS = ("inline", "ray")


@dataclass(frozen=True)
class Testing:
    """How checkpoints are tested.

    Attributes:
        data: folder of the data set; none for the one that the sweep names.
        device: `auto`, `cpu` or a CUDA device; none for the sweep's.
        runner: `inline` tests in this process, `ray` as many at once as there is room for.
        address: with `ray`, `local`, `auto` (join a cluster) or host:port.
        heatmaps: test images whose heat maps are kept of each checkpoint.

    Raises:
        InputError: there is no such runner.
    """

    data: str | None = None
    device: str | None = None
    runner: str = "inline"
    address: str = "local"
    heatmaps: int = 8

    def __post_init__(self) -> None:
        if self.runner not in RUNNERS:
            raise InputError(f"unknown --runner {self.runner!r}; choose from {', '.join(RUNNERS)}")


INLINE = Testing()


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: the HTML page.
        problems: one sentence for each checkpoint that could not be tested.
        is_finished: whether every trial is complete or failed.
    """

    path: Path
    problems: tuple[str, ...]
    is_finished: bool


def read(
    sources: Sources, objectives: Sequence[str] | None = None, tolerance: float = 0.0
) -> Results:
    """Read stores and published tables into one `Results`, in which each trial stands once.

    Args:
        sources: stores, mapping files, or results.
        objectives: metrics of the fronts, such as `["f1", "epg"]`; those of the sweep by default.
        tolerance: values in one bin of this width count as equal, in fractions.

    Raises:
        InputError: a source cannot be read, or an objective is unknown.
    """
    return merge(*_read_parts(sources, objectives, tolerance))


def _read_parts(
    sources: Sources, objectives: Sequence[str] | None, tolerance: float
) -> tuple[list[Results], pd.DataFrame]:
    """Return each store by itself, and the rows that others published."""
    is_single = isinstance(sources, Results | ResultStore | str | os.PathLike)
    named = cast("Sequence[Source]", [sources] if is_single else sources)
    objectives = [objectives] if isinstance(objectives, str) else objectives
    parts: list[Results] = []
    others: list[pd.DataFrame] = []
    for source in named:
        if isinstance(source, Results):
            parts.append(source)
        elif not isinstance(source, ResultStore) and is_mapping(str(source)):
            others.append(read_published(str(source)))
        else:
            parts.append(read_results(source, objectives, tolerance))
    return parts, pd.concat(others, ignore_index=True) if others else pd.DataFrame()


def fronts(
    store: Sources, objectives: Sequence[str] | None = None, tolerance: float = 0.0
) -> pd.DataFrame:
    """Return the checkpoints on the Pareto fronts that validation gives; arguments as for `read`.

    Returns:
        Rows of `load`, with the number of the front in `front`, and their test columns.

    Example:
        >>> import analysis
        >>> found = analysis.fronts("runs/demo")
        >>> found[["loss", "localization_weight", "epoch", "val_f1", "val_epg"]].shape[1]
        5
    """
    tested = read(store, objectives, tolerance).tested
    return tested[~tested["is_reference"]].reset_index(drop=True)


def test(
    store: Sources,
    objectives: Sequence[str] | None = None,
    tolerance: float = 0.0,
    testing: Testing = INLINE,
    say: Say | None = None,
) -> list[str]:
    """Evaluate the checkpoints that validation selects on the test split, and no others.

    What is tested already is not computed again. The first arguments are those of `read`;
    `testing` says where the data are and what to run on, and `say` takes a sentence on each store.

    Returns:
        One sentence for each checkpoint that could not be tested.

    Example:
        >>> import analysis
        >>> analysis.test("runs/demo")
        []
    """
    parts, _ = _read_parts(store, objectives, tolerance)
    return [problem for part in parts for problem in _tested(part, testing, say)[1]]


def tables(
    store: Sources, objectives: Sequence[str] | None = None, tolerance: float = 0.0
) -> dict[str, Table]:
    """Return the tables of a study by name, each with its title and a frame.

    Example:
        >>> import analysis
        >>> sorted(analysis.tables("runs/demo"))
        ['attained', 'baselines', 'best', 'fronts', 'gains', 'volumes']
    """
    from analysis.tabular.study import tables as all_tables

    found = all_tables(read(store, objectives, tolerance))
    return {table.name: table for table in found}


def annotation_hours(store: Sources, seconds: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return how long the annotations of each guided trial take a person to draw.

    The times of one object are published ones, `analysis.efforts.EFFORTS`, or one's own.

    Args:
        store: stores, or results.
        seconds: one's own seconds for an object by annotation, such as `{"box": 7}`.

    Returns:
        One row a trial: its annotation, the number of annotated objects, the seconds of each, and
        `hours`. Both are missing where older versions trained, which did not count objects, or
        where nobody said how long an annotation takes.

    Raises:
        InputError: no such annotation is known, or a time is none.

    Example:
        >>> import analysis
        >>> found = analysis.annotation_hours("runs/demo", seconds={"box": 7})
        >>> found.columns.tolist()[-3:]
        ['n_annotated_objects', 'seconds', 'hours']
    """
    return hours_of_trials(with_seconds(read(store), seconds))


def findings(
    store: Sources, tolerance: float = 0.0, seconds: Mapping[str, float] | None = None
) -> list[Finding]:
    """Judge the paper's findings R1 to R9 and Table 1, and C1 to C5, on what sweeps measured.

    `seconds` are those of `annotation_hours`. Where only tables of others are given, the findings
    are judged on them, on all together.

    Example:
        >>> import analysis
        >>> [finding.name for finding in analysis.findings("runs/demo")][:3]
        ['R1', 'R2', 'R3']
    """
    from analysis.claims import judge, judge_published

    results = with_seconds(read(store, None, tolerance), seconds)
    if results.trials or results.published.empty:
        return judge(results)
    return list(judge_published(results).values())[-1]


def figures(
    store: Sources,
    only: Sequence[str] = (),
    objectives: Sequence[str] | None = None,
    tolerance: float = 0.0,
    seconds: Mapping[str, float] | None = None,
) -> list[Drawing]:
    """Return the figures that stores have results for, with their data, not drawn yet.

    `only` names figures, such as `fig5` or `epg_by_class`, and metrics, such as `pointing_game`,
    which are drawn against F1; `seconds` are those of `annotation_hours`, and the other arguments
    those of `read`.

    Example:
        >>> import analysis
        >>> (figure,) = analysis.figures("runs/demo", only=["fig5"])
        >>> figure.draw(figure.data).savefig("fig5.png")
    """
    from analysis.plots import drawings

    names = [only] if isinstance(only, str) else only
    return list(drawings(with_seconds(read(store, objectives, tolerance), seconds), names))


def report(
    store: Sources,
    out: Path | str | None = None,
    objectives: Sequence[str] | None = None,
    tolerance: float = 0.0,
    testing: Testing | None = INLINE,
    watch: float | None = None,
    say: Say | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Report:
    """Test what is left, draw everything, and write tables, figures and one HTML page.

    Where nothing can be tested, as without the data set, the page says so.

    Args:
        store: stores and mapping files.
        out: folder for the files; `STORE/analysis` of the first store by default.
        objectives: metrics of the fronts; those of the sweep by default.
        tolerance: width of the bins in which values count as equal, in fractions.
        testing: how to test; none tests nothing.
        watch: seconds after which the page of an unfinished sweep loads itself again.
        say: takes a sentence on each store that was tested.
        seconds: those of `annotation_hours`.

    Example:
        >>> import analysis
        >>> analysis.report("runs/demo").path.name
        'report.html'
    """
    from analysis.claims import judge, judge_published
    from analysis.page.output import Output
    from analysis.page.report import report_page
    from analysis.tabular.study import tables as all_tables

    parts, published = _read_parts(store, objectives, tolerance)
    problems: list[str] = []
    for place, part in enumerate(parts):
        if testing is None:
            problems += [part.unselected] if part.unselected else []
            continue
        try:
            parts[place], found = _tested(part, testing, say)
        # A store that can only be read, or whose data are elsewhere, has a page all the same.
        except StorageError as error:
            found = [str(error.strerror)]
        except InputError as error:
            found = [str(error)]
        problems += found
    results = with_seconds(merge(parts, published), seconds)
    output = Output(results, None if out is None else with_home(with_variables(str(out))))
    written = all_tables(results)
    output.write_tables(written)
    # The page shows PNG files; a paper's take as long again.
    drawn = output.write_figures(figures(results), ["png"])
    own = judge(results) if results.trials else []
    others = judge_published(results)
    page = report_page(results, drawn, written, own, problems, watch, others)
    path = output.write("report.html", page)
    return Report(path, tuple(problems), not results.states["unfinished"])


def _tested(results: Results, testing: Testing, say: Say | None) -> tuple[Results, list[str]]:
    """Test what is left of one store; return its results anew, and what could not be tested."""
    from analysis.testing.plan import plan_tests

    plan = plan_tests(results, with_heatmaps=testing.heatmaps > 0)
    problems = list(filter(None, [results.unselected, plan.unkept]))
    jobs: Sequence[Job] = plan.jobs
    if jobs and results.spec.get("imports"):
        from analysis.testing.versions import of_this_code

        jobs, others = of_this_code(results, jobs)
        problems += others
    failed = list(filter(None, _run(results, jobs, testing))) if jobs else []
    if jobs:
        made = frozenset(results.store.heatmap_keys())
        tests, _ = finite(load_tests(results.store))
        results = replace(results, tests=tests, heatmap_keys=made)
    if say is not None:
        say("; ".join([results.tested_sentence, *results.caveats]))
    return results, [*problems, *failed]


def _run(results: Results, jobs: Sequence[Job], testing: Testing) -> Iterator[str | None]:
    """Test checkpoints and show how many are done; yield what their runner yields."""
    from mg_core.progress import progress_bars

    with progress_bars() as progress:

        def decoding(split: str, done: int, total: int) -> None:
            progress(f"decoding {split}", done, total)

        progress("testing", 0, len(jobs))
        for number, problem in enumerate(_runner(results, jobs, testing, decoding), start=1):
            progress("testing", number, len(jobs))
            yield problem


def _runner(
    results: Results, jobs: Sequence[Job], testing: Testing, decoding: Progress
) -> Iterator[str | None]:
    # PyTorch is loaded here: where nothing is left to test, nobody waits for it.
    from analysis.testing.bench import run_tests, runtime_of

    runtime = runtime_of(results, testing.data, testing.device)
    if testing.runner == "inline":
        return run_tests(jobs, runtime, testing.heatmaps, decoding)
    from analysis.testing.spread import run_tests_on_ray

    asked = dict(results.spec.get("resources") or {})
    return run_tests_on_ray(jobs, runtime, asked, testing.address, testing.heatmaps)
