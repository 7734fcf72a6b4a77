"""One self-contained HTML page: what a sweep found, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from string import Template
from types import MappingProxyType

from plotly.offline import get_plotlyjs

from analysis.claims import Finding
from analysis.page import sections as content
from analysis.page.explorer import embedded, explorer_data
from analysis.plots import Drawing
from analysis.results import Results
from analysis.tabular.formats import Table, escaped

RECORDED = "Recorded study, without its stores"


def report_page(
    results: Results,
    figures: Sequence[tuple[Drawing, bytes]],
    tables: Sequence[Table],
    findings: Sequence[Finding] = (),
    problems: Sequence[str] = (),
    watch: float | None = None,
    published: Mapping[str, Sequence[Finding]] = MappingProxyType({}),
) -> str:
    """Write the page, with figures (and their PNG files) and tables in the order given.

    `problems` are sentences on what could not be tested; `published` has the findings on tables of
    others. A page of an unfinished sweep loads
    itself again after `watch` seconds.
    """
    by_name = {table.name: table for table in tables}
    sections = {
        "summary": ("Summary", content.summary(results, problems)),
        "explorer": ("Front explorer", content.explorer(results)),
        "findings": ("Findings", content.verdicts(findings) if findings else ""),
        "published": ("Findings on tables of others", content.verdicts_of_others(published)),
        "guidance": ("What guidance did", content.guidance(results, by_name.pop("gains", None))),
        "figures": ("Figures", content.drawn(results, figures)),
        "tables": ("Tables", content.listed(list(by_name.values()))),
        "failures": ("Failures", content.failures(results)),
        "spec": ("Sweep", content.sweep_file(results)),
        "versions": ("Versions", content.versions(results)),
    }
    shown = {anchor: (heading, body) for anchor, (heading, body) in sections.items() if body}
    where = ", ".join(store.uri for store in results.stores)
    is_watched = watch is not None and bool(results.states["unfinished"])
    return Template(_file("report.html")).substitute(
        title=escaped(f"Guidance sweep {results.name}"),
        subtitle=escaped(f"Result store {where}" if where else RECORDED),
        refresh=f'<meta http-equiv="refresh" content="{watch:.0f}">' if is_watched else "",
        scripts=_scripts(results),
        links="".join(f'<li><a href="#{a}">{shown[a][0]}</a></li>' for a in shown),
        sections="\n".join(_section(a, *section) for a, section in shown.items()),
        footer=f"Written {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by mg-analysis.",
    )


def _section(anchor: str, heading: str, body: str) -> str:
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-heading">'
        f'<h2 id="{anchor}-heading">{heading}</h2>\n{body}</section>'
    )


def _scripts(results: Results) -> str:
    """Return the explorer's data and code, with the plotting library: no network is needed."""
    if results.selected.empty and results.published.empty:
        return ""
    data = embedded(explorer_data(results))
    own = (_file(name) for name in ("points.js", "explorer.js"))
    codes = "\n".join(f"<script>{code}</script>" for code in (get_plotlyjs(), *own))
    return f'<script type="application/json" id="explorer-data">{data}</script>\n{codes}'


def _file(name: str) -> str:
    return (files("analysis.page") / name).read_text(encoding="utf-8")
