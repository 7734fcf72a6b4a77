"""Live progress of a run: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mg_core.columns import BY_METRIC
from mg_core.store.ledger import STATES, state_after
from mg_core.store.progress import zero_maps_in_words
from sweeps.fronts import best_front, best_rows, of_trial
from sweeps.runner import Listener

if TYPE_CHECKING:
    from mg_core.training.execution import Outcome
    from sweeps.planning import Plan

PLAIN_SECONDS = 10.0
"""Shortest time between two plain lines, the ends of trials aside."""
SHOWN = 8
STYLES = {"complete": "green", "running": "cyan", "failed": "red", "waiting": "dim"}


class Display(Listener):
    """A listener that shows the progress of a run, inside a `with` block.

    Args:
        plan: the sweep as it is before the run.
        todo: ids of the trials that this run starts.
        console: where to write; live tables need a terminal.
    """

    def __init__(self, plan: Plan, todo: set[str], console: Console) -> None:
        self._plan = plan
        self._console = console
        self._states = {trial: plan.ledger.state(trial) for trial in plan.grid.trials}
        fronts = {trial: progress.front for trial, progress in plan.ledger.progress.items()}
        # Updated once an epoch: two searches of all trials a second would take half a core.
        self._front = best_front(fronts, plan.spec.objectives)
        self._epochs_left = {trial: plan.epochs_left(trial) for trial in todo}
        self._epochs_total = sum(self._epochs_left.values())
        self._zero: set[tuple[str, str]] = set()
        self._damage: set[tuple[str, str]] = set()
        self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._bar = Progress(
            TextColumn("epochs"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=console,
        )
        self._task = self._bar.add_task("", total=self._epochs_total, rate="")
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=2, transient=False
        )

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for trial, state in self._states.items():
            if state == "running":  # A run that was stopped leaves its trials to the next one.
                self._states[trial] = "waiting"
        if self._console.is_terminal:
            self._live.__exit__(None, None, None)

    def started(self, trial_id: str) -> None:
        """Show a trial as running."""
        self._states[trial_id] = "running"

    def _say_zero_maps(self, outcome: Outcome) -> None:
        """Say once for each kind of map that most of them are zero, which is no result."""
        found = {pair: share for pair, share in outcome.zero_maps.items() if share > 0.5}
        model = self._plan.grid.trials[outcome.trial_id].model
        new = {pair: share for pair, share in found.items() if (model, pair) not in self._zero}
        self._zero |= {(model, pair) for pair in new}
        if new:
            self._say(f"{self._label(outcome.trial_id)}: {zero_maps_in_words(new)}", "yellow")

    def _say_damage(self, outcome: Outcome) -> None:
        """Say once for each trial what was wrong with its files."""
        if outcome.damage and (outcome.trial_id, outcome.damage) not in self._damage:
            self._damage.add((outcome.trial_id, outcome.damage))
            self._say(f"{self._label(outcome.trial_id)}: {outcome.damage}", "yellow")

    def outcome(self, outcome: Outcome) -> None:
        """Show a trial's new epoch or its end."""
        trial = outcome.trial_id
        is_end = outcome.state != "running"
        state = state_after(outcome.state, outcome.kind) if is_end else "running"
        self._states[trial] = state
        others = [row for row in self._front if row["trial_id"] != trial]
        rows = [*others, *of_trial(outcome.front, trial)]
        self._front = best_rows(rows, self._plan.spec.objectives)
        is_complete = outcome.state == "complete"  # before its last epoch, if it stopped early
        left = 0 if is_complete else self._plan.grid.trials[trial].epochs - outcome.epoch
        if outcome.epoch >= 0 and trial in self._epochs_left:
            self._epochs_left[trial] = min(left, self._epochs_left[trial])
        if self._first is None:
            # The rate counts from the first epoch, without the start of Ray and its workers.
            self._first = (time.monotonic(), self._left())
        self._bar.update(
            self._task, completed=self._epochs_total - self._left(), rate=self._rate_text()
        )
        self._say_damage(outcome)
        self._say_zero_maps(outcome)
        if outcome.error:
            again = "; the next run tries it again" if state == "waiting" else ""
            self._say(f"{state}: {self._label(trial)}: {outcome.error}{again}", "red")
        elif not self._console.is_terminal and (
            is_end or time.monotonic() - self._last_line >= PLAIN_SECONDS
        ):
            self._plain_line(trial, outcome)

    def lost(self, trial_id: str, reason: str) -> None:
        """Show that a trial starts again."""
        self._say(f"lost and started again: {self._label(trial_id)} ({reason})", "yellow")

    def summary(self) -> str:
        """Return the number of trials in each state, in one line."""
        counts = Counter(self._states.values())
        return (
            f"{in_words(counts, is_brief=True)} of {counted(len(self._states), 'trial', 'trials')}"
        )

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def _label(self, trial_id: str) -> str:
        return f"{trial_id} {self._plan.grid.trials[trial_id].label}"

    def _left(self) -> int:
        return sum(self._epochs_left.values())

    def _rate_text(self) -> str:
        if self._first is None:
            return ""
        start, left = self._first
        elapsed, done = time.monotonic() - start, left - self._left()
        if not done:
            return ""
        return f"{done / elapsed:.2f} epochs/s, {duration(self._left() * elapsed / done)} left"

    def _plain_line(self, trial: str, outcome: Outcome) -> None:
        self._last_line = time.monotonic()
        epochs = self._plan.grid.trials[trial].epochs
        self._console.print(
            "; ".join(filter(None, [self.summary(), self._rate_text()]))
            + f"; {self._label(trial)} epoch {outcome.epoch}/{epochs} {self._states[trial]}",
            soft_wrap=True,
            highlight=False,
        )

    def _render(self) -> Group:
        counts = Counter(self._states.values())
        states = ((f"{counts[state]} {state}  ", STYLES[state]) for state in STATES)
        parts: list[RenderableType] = [Text.assemble("trials  ", *states), self._bar]
        if self._front:
            objectives = self._plan.spec.objectives
            headers = [BY_METRIC[name].header for name in objectives]
            rows = [
                (
                    self._plan.grid.trials[row["trial_id"]].label,
                    f"{row['attribution']}@{row['layer']}",
                    str(row["epoch"]),
                    *(f"{100 * row[f'val_{name}']:.1f}" for name in objectives),
                )
                for row in self._front
            ]
            columns = ("trial", "judged at", "epoch")
            title = "best front so far (validation, %)"
            parts.append(table(title, columns, headers, rows, SHOWN))
        return Group(*parts)


def table(
    title: str | None,
    texts: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    limit: int,
) -> Table:
    """Lay out the first rows of a table, with the number of the others below.

    Args:
        title: text above the table.
        texts: names of the first columns, which are aligned left.
        numbers: names of the other columns, which are aligned right.
        rows: cells of each row, one for each column.
        limit: number of rows to show.
    """
    found = Table(title=title, title_justify="left", box=None)
    for name in texts:
        found.add_column(name, overflow="fold")
    for name in numbers:
        found.add_column(name, no_wrap=True, justify="right")
    for row in rows[:limit]:
        found.add_row(*row)
    if len(rows) > limit:
        found.add_row(Text(f"… and {len(rows) - limit} more", style="dim"))
    return found


def in_words(counts: Counter[Any], is_brief: bool = False) -> str:
    """Return the number of trials in each state; a brief text leaves out states without any."""
    return ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s] or not is_brief)


def counted(number: int, one: str, several: str) -> str:
    """Return a number with the words for what it counts."""
    return f"{number} {one if number == 1 else several}"


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
