"""What stands in the sections of the report, as HTML."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import yaml

from analysis.claims import FAILS, HOLDS, UNKNOWN, Finding
from analysis.plots import Drawing
from analysis.plots.style import DPI, model_label
from analysis.results import Results
from analysis.selection import SLACK
from analysis.tabular.formats import Table, escaped, to_html
from analysis.tabular.study import guidance_gains
from mg_core.columns import SPLITS

PACKAGES = (
    "model-guidance-sweeps", "torch", "torchvision", "ray", "bcos", "numpy", "pyarrow", "pandas",
    "matplotlib",
)  # fmt: skip
CSS_PIXELS_PER_INCH = 140
EXPLORER = {
    "x": "horizontal", "y": "vertical", "split": "split", "colour": "colour", "panel": "panel"
}  # fmt: skip
LONG = 30
"""Rows from which a table scrolls inside its own box."""


def summary(results: Results, problems: Sequence[str]) -> str:
    """Count trials, checkpoints and fronts, and say what could not be tested."""
    states = results.states
    n_trials = len(results.trials)
    kinds = [config.kind for config in results.trials.values()]
    failed = f'<span class="bad">{states["failed"]}</span>' if states["failed"] else "0"
    selected = results.selected
    facts = {
        "Complete": f"{states['complete']:,}<small>of {n_trials:,} trials: "
        f"{kinds.count('baseline'):,} baseline, {kinds.count('guided'):,} guided</small>",
        "Failed": failed,
        "Running or waiting": f"{states['unfinished']:,}",
        "Checkpoints": f"{results.n_checkpoints:,}<small>epochs of guided trials</small>",
        "Selected on validation": f"{results.n_selected:,}<small>on "
        f"{selected.loc[selected['front'] >= 0, 'front'].nunique():,} fronts</small>",
        "Tested": f"{results.n_tested:,}<small>of {results.n_checkpoints:,} checkpoints</small>",
    }
    body = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    tolerance = f", equal within bins of {results.tolerance:g}" if results.tolerance else ""
    parts = [f'<dl class="facts">{body}</dl>']
    if states["unfinished"]:
        parts.append(
            '<p class="note" role="note">This sweep is not finished: the page shows the epochs '
            "committed so far, and fronts may still move.</p>"
        )
    parts += [f'<p class="note" role="note">{escaped(said)}.</p>' for said in results.caveats]
    parts.append(
        f"<p>Checkpoints are selected on validation as those non-dominated in "
        f"{results.objectives_in_words}"
        f"{tolerance}, separately for each configuration, seed and judged (attribution, layer); "
        "only they and the baselines are evaluated on the test split.</p>"
    )
    if zero := _zero_maps(results):
        items = "".join(f"<li>{escaped(sentence)}</li>" for sentence in zero)
        parts.append(f'<h3>Maps that are zero everywhere</h3><ul class="bad">{items}</ul>')
    if problems:
        items = "".join(f"<li>{escaped(problem)}</li>" for problem in problems)
        parts.append(f'<h3>Not tested</h3><ul class="bad">{items}</ul>')
    return "\n".join(parts)


def _zero_maps(results: Results) -> list[str]:
    """Return a sentence for each kind of map that is zero everywhere at selected checkpoints."""
    counted = results.selected.dropna(subset=["val_n_zero_map"])
    sentences = []
    for (model, attribution, layer), rows in counted.groupby(["model", "attribution", "layer"]):
        zero, total = rows["val_n_zero_map"].sum(), rows["val_n_pairs"].sum()
        if zero:
            sentences.append(
                f"{model_label(str(model))}, {attribution} at {layer}: {zero:,.0f} of {total:,.0f} "
                f"validation maps; they explain nothing and count 0"
            )
    return sentences


def explorer(results: Results) -> str:
    """Return the form, the plot and the details of the front explorer."""
    if results.selected.empty and results.published.empty:
        return '<p class="soft">No front yet: no guided trial has committed an epoch.</p>'
    choices = "".join(
        f'<label>{label} <select id="explorer-{name}"></select></label>'
        for name, label in EXPLORER.items()
    )
    return (
        "<p>The checkpoints that validation selects, and the baselines they start from. Choose "
        "one in the plot or in the list to see its heat maps. A line joins what is non-dominated "
        "in the two axes shown.</p>"
        f'<form class="choices" aria-label="What the plot shows">{choices}'
        '<label><input type="checkbox" id="explorer-lines" checked> lines</label></form>'
        '<div id="explorer-plot" role="img" aria-label="Selected checkpoints in the two chosen '
        'metrics; the list below names each"></div>'
        '<p id="explorer-count" class="soft" aria-live="polite"></p>'
        '<label class="wide">Checkpoint <select id="explorer-point"></select></label>'
        '<div id="explorer-detail" role="region" aria-live="polite" '
        'aria-label="The chosen checkpoint"></div>'
        "<noscript><p>The explorer needs JavaScript; figures and tables do not.</p></noscript>"
    )


def verdicts(findings: Sequence[Finding]) -> str:
    """List the findings with their verdicts."""
    counts = {v: sum(f.verdict == v for f in findings) for v in (HOLDS, FAILS, UNKNOWN)}
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    return (
        "<p>What the paper claims (R1 to R9, Table 1), controls of what guidance did (C), and what "
        f"these results say: {summary}. A finding holds where the whole 95 % bootstrap interval "
        "over configurations and seeds is above its threshold, and does not hold where none of it "
        "is.</p>" + _folded(findings)
    )


def verdicts_of_others(judged: Mapping[str, Sequence[Finding]]) -> str:
    """List the findings on tables of others, by the tables' names."""
    blocks = [f"<h3>{escaped(name)}</h3>{_folded(found)}" for name, found in judged.items()]
    return (
        "<p>The same findings on the checkpoints that others published, chosen by the validation "
        "values of their tables, or by the test values where a table has no other.</p>"
        + "".join(blocks)
        if blocks
        else ""
    )


def _folded(findings: Sequence[Finding]) -> str:
    """Write findings, and in one line those that have nothing to judge."""
    judged = "".join(_finding(finding) for finding in findings if finding.is_judged)
    idle = [finding for finding in findings if not finding.is_judged]
    if not idle:
        return judged
    names = ", ".join(finding.name for finding in idle)
    items = "".join(map(_finding, idle))
    return (
        f'{judged}<details class="finding"><summary>Nothing to judge here: {names}</summary>'
        f"{items}</details>"
    )


def _finding(finding: Finding) -> str:
    verdict = finding.verdict
    kind = {HOLDS: "good", FAILS: "bad", UNKNOWN: "soft"}[verdict]
    conditions = "".join(f"<li>{escaped(str(c))}</li>" for c in finding.conditions)
    needs = f"<p>Needs {escaped(finding.needs)}.</p>" if finding.needs else ""
    table = Table(finding.name, f"The numbers behind {finding.name}.", finding.detail)
    detail = _scrolling(table) if len(finding.detail) else ""
    paper = f"Paper: {escaped(finding.published)}. " if finding.published else ""
    shown = f"Shown in {finding.figure}." if finding.figure else ""
    reference = f'<p class="soft">{paper}{shown}</p>' if paper or shown else ""
    return (
        f'<details class="finding"><summary><strong>{finding.name}</strong> '
        f'<span class="verdict {kind}">{verdict}</span> {escaped(finding.claim)}</summary>'
        f"<ul>{conditions}</ul>{needs}{reference}{detail}</details>"
    )


def guidance(results: Results, table: Table | None) -> str:
    """Say what guidance gained at a bounded loss of F1."""
    table = table or guidance_gains(results)
    gains = table.frame
    if gains.empty:
        return (
            '<p class="soft">No guided checkpoint is within '
            f"{100 * SLACK:g} points of its baseline's F1 so far.</p>"
        )
    split = "test" if gains["test_epg_ratio"].notna().any() else "val"
    ratio = gains[f"{split}_epg_ratio"]
    n_doubled = int((ratio >= 2).sum())
    where = f"on {SPLITS[split]}"
    paragraphs = [
        f"Guidance at least doubled EPG in {n_doubled} of {len(gains)} fronts {where}, at a loss "
        f"of at most {100 * SLACK:g} points of F1 on validation.",
        table.title,
    ]
    if ratio.notna().any():
        largest = gains.iloc[int(np.nanargmax(ratio))].to_dict()
        paragraphs.insert(0, _headline(largest, split, where))
    return "\n".join([*(f"<p>{escaped(text)}</p>" for text in paragraphs), _scrolling(table)])


def _headline(row: Mapping[Any, Any], split: str, where: str) -> str:
    before, after = 100 * row[f"{split}_epg_start"], 100 * row[f"{split}_epg"]
    change = 100 * (row[f"{split}_f1"] - row[f"{split}_f1_start"])
    sign = "more" if change >= 0 else "less"
    return (
        f"The largest gain: {model_label(row['model'])} guided by {row['loss']} with "
        f"λ = {row['localization_weight']:g} on {row['guided_attribution']} at "
        f"{row['guided_layer']} raised EPG from {before:.1f} to {after:.1f} % {where} "
        f"({row[f'{split}_epg_ratio']:.2f} times the baseline's) at {abs(change):.1f} points of "
        f"F1 {sign}."
    )


def drawn(results: Results, figures: Sequence[tuple[Drawing, bytes]]) -> str:
    """Show figures with their captions."""
    if not figures:
        why = "nothing was tested yet" if results.n_checkpoints else "no guided trial has begun"
        return f'<p class="soft">No figure yet: {why}.</p>'
    return "\n".join(_figure(drawing, png) for drawing, png in figures)


def _figure(drawing: Drawing, png: bytes) -> str:
    name, width = escaped(drawing.name), _shown_width(png)
    data = base64.b64encode(png).decode()
    # On a phone a figure scrolls sideways in its box rather than shrink to illegible.
    return (
        f'<figure id="{name}"><div class="scroll" role="region" tabindex="0" aria-label="{name}">'
        f'<img alt="{escaped(drawing.alt)}" width="{width}" '
        f'style="min-width:min(34rem,{width}px)" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escaped(drawing.caption)}</figcaption></figure>"
    )


def _shown_width(png: bytes) -> int:
    """Return a width in CSS pixels at which a figure's text is as large as the page's."""
    # The header of a PNG holds its width in pixels as a big-endian integer at byte 16.
    return round(int.from_bytes(png[16:20], "big") / DPI * CSS_PIXELS_PER_INCH)


def listed(tables: Sequence[Table]) -> str:
    """Show tables that have rows, long ones closed."""
    shown = [table for table in tables if len(table.frame)]
    if not shown:
        return '<p class="soft">No table yet: no guided trial has committed an epoch.</p>'
    return "\n".join(
        f"<details{' open' if len(table.frame) <= LONG else ''}><summary>"
        f"{escaped(table.title)}</summary>{_scrolling(table)}</details>"
        for table in shown
    )


def _scrolling(table: Table) -> str:
    tall = " tall" if len(table.frame) > LONG else ""
    title = escaped(table.title)
    return (
        f'<div class="scroll{tall}" role="region" tabindex="0" aria-label="{title}">'
        f"{to_html(table)}</div>"
    )


def failures(results: Results) -> str:
    """List the failed trials with their tracebacks."""
    parts = []
    for trial_id, record in results.ledger.failures.items():
        label = results.trials[trial_id].label if trial_id in results.trials else ""
        what = escaped(f"{trial_id} {label}: {record.get('kind')}: {record.get('error')}")
        trace = escaped(record.get("traceback") or "no traceback was recorded")
        summary = f'<summary class="bad">{what}</summary>'
        parts.append(f"<details>{summary}<pre>{trace}</pre></details>")
    return "\n".join(parts)


def sweep_file(results: Results) -> str:
    """Show the resolved sweep file."""
    text = escaped(yaml.safe_dump(dict(results.spec), sort_keys=False, allow_unicode=True))
    return f"<details><summary>The resolved sweep file</summary><pre>{text}</pre></details>"


def versions(results: Results) -> str:
    """Compare the versions that trained with those here."""
    here = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    trained = results.versions
    # A recorded study has its commit among them.
    rows = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>'
        f"<td>{escaped(trained.get(name, '–'))}</td>"
        f"<td>{escaped(here.get(name, '–'))}</td></tr>"
        for name in dict.fromkeys([*here, *trained])
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Versions"><table><thead><tr>'
        '<th scope="col">package</th><th scope="col">trained with</th>'
        f'<th scope="col">analysed with</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "–"
