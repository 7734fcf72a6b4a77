"""What `mg-sweep status` and `watch` show of a sweep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeps.display import STYLES, duration
from sweeps.status import HOUR, STATES, Status

SHOWN_TRIALS = 20
SHOWN_FRONTS = 20


def status_view(found: Status, with_failures: bool = True) -> RenderableType:
    """Lay out a status: totals, trials at work, fronts and, if wanted, what failed."""
    parts: list[RenderableType] = [Text(line) for line in summary(found)]
    running = found.having("running")
    waiting = [t for t in found.having("waiting") if t in found.progress]
    if running or waiting:
        parts.append(_trial_table(found, [*running, *waiting]))
    if found.fronts:
        parts.append(_front_table(found))
    if with_failures:
        parts += _failures(found)
    return Group(*parts)


def summary(found: Status) -> list[str]:
    """Say in a few lines how far a sweep is, and what is left."""
    counts = ", ".join(f"{found.count(state)} {state}" for state in STATES)
    done, total = found.epochs
    lines = [f"{len(found.trials)} trials: {counts}"]
    lines.append(f"{done} of {total} epochs, in {sum(found.attempts.values())} attempts")
    if found.gpus:
        lines.append(f"GPU-hours: {_hours(found, found.gpus)}")
    lines.append(f"trial-hours: {_hours(found, 1)}")
    if found.failures:
        kinds = ", ".join(f"{n} {kind}" for kind, n in found.failures_by_kind().most_common())
        lines.append(f"failures: {kinds}")
    if found.driver:
        rate, end = found.epochs_per_hour, found.seconds_to_end
        parts = [f"driven by process {found.driver['pid']} on {found.driver['name']}"]
        parts += [f"{rate:.0f} epochs an hour"] if rate else []
        parts += [f"{duration(end)} left"] if end is not None else []
        lines.append(", ".join(parts))
    return lines


def _hours(found: Status, share: float) -> str:
    spent = f"{share * found.seconds_spent / HOUR:.2f} spent"
    left = found.seconds_left
    return spent if left is None else f"{spent}, {share * left / HOUR:.2f} left"


def _trial_table(found: Status, trials: list[str]) -> Table:
    table = Table(box=None)
    for name in ("trial", "state", "epoch", "attempt", "seconds", "what"):
        table.add_column(name, no_wrap=name != "what")
    for trial in trials[:SHOWN_TRIALS]:
        progress, config = found.progress.get(trial), found.trials[trial]
        state = found.states[trial]
        table.add_row(
            trial,
            Text(state, style=STYLES[state]),
            f"{progress.epoch if progress else '-'}/{config.epochs}",
            str(found.attempts[trial]),
            f"{progress.seconds:.0f}" if progress else "-",
            config.label,
        )
    _say_more(table, len(trials) - SHOWN_TRIALS)
    return table


def _front_table(found: Status) -> Table:
    objectives = tuple(found.spec.get("objectives") or ())
    table = Table(
        title="fronts so far (validation, %: the best of each objective)",
        title_justify="left",
        box=None,
    )
    table.add_column("configuration")
    for name in ("trials", "points", *objectives):
        table.add_column(name, justify="right", no_wrap=True)
    for front in found.fronts[:SHOWN_FRONTS]:
        best = [_best(front.points, f"val_{name}") for name in objectives]
        table.add_row(front.configuration, str(front.n_trials), str(len(front.points)), *best)
    _say_more(table, len(found.fronts) - SHOWN_FRONTS)
    return table


def _best(points: Iterable[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in points if row[name] is not None]
    return f"{100 * max(values):.1f}" if values else "-"


def _say_more(table: Table, n_more: int) -> None:
    if n_more > 0:
        table.add_row(Text(f"… and {n_more} more (--json has all)", style="dim"))


def _failures(found: Status) -> list[RenderableType]:
    """Show each kind of failure once, with one traceback and all the trials it hit."""
    groups: dict[tuple[str, str], list[str]] = {}
    for trial, record in found.failures.items():
        same = record.get("signature") or record.get("error")
        groups.setdefault((str(record.get("kind")), str(same)), []).append(trial)
    parts: list[RenderableType] = []
    for trials in groups.values():
        record = found.failures[trials[0]]
        hit = f"{trials[0]} {found.trials[trials[0]].label}"
        more = f" and {len(trials) - 1} more" if len(trials) > 1 else ""
        head = f"\n{hit}{more} failed on {record['host']}: {record.get('kind')}"
        parts.append(Text(f"{head}: {record.get('error')}", style="red"))
        if record.get("images"):
            parts.append(Text(f"images of the batch: {', '.join(record['images'])}"))
        if record.get("traceback"):
            parts.append(Text(record["traceback"].rstrip(), style="dim"))
    return parts
