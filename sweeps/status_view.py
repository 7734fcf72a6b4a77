"""What `mg-sweep status` and `watch` show of a sweep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mg_core.columns import BY_METRIC
from mg_core.store.code import in_words as code_in_words
from mg_core.store.shelf import in_words as shelved_in_words
from sweeps.display import STYLES, counted, duration, in_words, table
from sweeps.lock import described
from sweeps.status import Status

SHOWN = 20


def status_view(found: Status, with_failures: bool = True) -> RenderableType:
    """Lay out a status: totals, begun trials, fronts and, if wanted, failures."""
    parts: list[RenderableType] = [Text(line) for line in summary(found)]
    begun = [t for t in found.having("waiting") if t in found.ledger.progress]
    if trials := found.having("running") + begun:
        parts.append(_trial_table(found, trials))
    if found.fronts:
        parts.append(_front_table(found))
    if with_failures:
        parts += _failures(found)
    return Group(*parts)


def summary(found: Status) -> list[str]:
    """Return a few lines with the states of all trials and what is left to do."""
    done, total = found.epochs
    trials = counted(len(found.trials), "trial", "trials")
    lines = [f"{trials}: {in_words(found.ledger.counts(found.trials))}"]
    stopped = sum(progress.is_stopped for progress in found.ledger.progress.values())
    early = f"; {stopped} stopped early" if stopped else ""
    attempts = counted(found.attempts.total(), "attempt", "attempts")
    lines.append(f"{done} of {counted(total, 'epoch', 'epochs')}, in {attempts}{early}")
    lines += [code_in_words(module, v) for module, v in found.code.items() if len(v) > 1]
    if found.changed_code:
        lines.append(f"imports: {found.changed_code}; mg-sweep run asks what to do")
    lines += filter(None, [shelved_in_words(found.n_shelved)])
    if found.gpus:
        lines.append(f"GPU-hours: {_hours(found.hours(found.gpus))}")
    lines.append(f"trial-hours: {_hours(found.hours())}")
    if found.ledger.failures:
        kinds = ", ".join(f"{n} {kind}" for kind, n in found.failures_by_kind().most_common())
        lines.append(f"failures: {kinds}")
    for pair, models in found.zero_maps.items():
        shares = [p.zero_maps[pair] for p in found.ledger.progress.values() if pair in p.zero_maps]
        lines.append(
            f"maps of {pair} that are zero everywhere: in "
            f"{counted(models.total(), 'trial', 'trials')} "
            f"({', '.join(sorted(models))}), up to {100 * max(shares):.3g} %"
        )
    if found.driver:
        rate, end = found.epochs_per_hour, found.seconds_to_end
        parts = [f"driven by {described(found.driver)}"]
        parts += [f"{rate:.0f} epochs an hour"] if rate else []
        parts += [f"{duration(end)} left"] if end is not None else []
        lines.append(", ".join(parts))
    return lines


def _hours(hours: dict[str, float | None]) -> str:
    return ", ".join(f"{value:.2f} {name}" for name, value in hours.items() if value is not None)


def _trial_table(found: Status, trials: list[str]) -> Table:
    rows = []
    for trial in trials:
        progress, config = found.ledger.progress.get(trial), found.trials[trial]
        rows.append(
            (
                trial,
                Text(found.states[trial], style=STYLES[found.states[trial]]),
                f"{progress.epoch if progress else '-'}/{config.epochs}",
                str(found.attempts[trial]),
                f"{progress.seconds:.0f}" if progress else "-",
                config.label,
            )
        )
    return table(None, ("trial", "state", "epoch", "attempt", "seconds", "label"), (), rows, SHOWN)


def _front_table(found: Status) -> Table:
    objectives = tuple(found.spec.get("objectives") or ())
    rows = [
        (
            front.configuration,
            str(front.n_trials),
            str(len(front.points)),
            *(_best(front.points, f"val_{name}") for name in objectives),
        )
        for front in found.fronts
    ]
    title = "fronts so far (validation, %: the best of each objective)"
    headers = ("trials", "points", *(BY_METRIC[name].header for name in objectives))
    return table(title, ("configuration",), headers, rows, SHOWN)


def _best(points: Iterable[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in points if row[name] is not None]
    return f"{100 * max(values):.1f}" if values else "-"


def _failures(found: Status) -> list[RenderableType]:
    """Show equal failures once, with one traceback and the number of trials."""
    groups: dict[tuple[str, str], list[str]] = {}
    for trial, record in found.ledger.failures.items():
        same = record.get("signature") or record.get("error")
        groups.setdefault((str(record.get("kind")), str(same)), []).append(trial)
    parts: list[RenderableType] = []
    for (kind, _), trials in groups.items():
        record = found.ledger.failures[trials[0]]
        more = f" and {len(trials) - 1} more" if len(trials) > 1 else ""
        again = ", the next run tries again" if found.states[trials[0]] == "waiting" else ""
        text = f"\n{trials[0]} {found.trials[trials[0]].label}{more} failed on {record['host']}"
        parts.append(Text(f"{text}{again}: {kind}: {record.get('error')}", style="red"))
        if record.get("images"):
            parts.append(Text(f"images of the batch: {', '.join(record['images'])}"))
        if record.get("traceback"):
            parts.append(Text(record["traceback"].rstrip(), style="dim"))
    return parts
