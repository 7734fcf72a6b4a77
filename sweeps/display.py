"""Live progress of a run: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sweeps.fronts import best_front, best_rows, of_trial

if TYPE_CHECKING:
    from mg_core.training.execution import Outcome
    from sweeps.planning import Plan

PLAIN_SECONDS = 10.0
SHOWN = 8
STYLES = {"complete": "green", "running": "cyan", "failed": "red", "waiting": "dim"}


class Display:
    """A listener that shows what it is told, inside a `with` block.

    Args:
        plan: the sweep as it is before the run.
        todo: ids of the trials that this run is to do.
        console: where to write; live tables need a terminal.
    """

    def __init__(self, plan: Plan, todo: set[str], console: Console) -> None:
        self._plan = plan
        self._console = console
        self._states = {trial: plan.state(trial) for trial in plan.grid.trials}
        self._states |= dict.fromkeys(todo, "waiting")
        fronts = {trial: progress.front for trial, progress in plan.progress.items()}
        # Renewed with each epoch: going through all trials twice a second would cost half a core.
        self._front = best_front(fronts, plan.spec.objectives)
        self._epochs_left = {trial: plan.epochs_left(trial) for trial in todo}
        self._epochs_total = sum(self._epochs_left.values())
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.__exit__(kind, error, trace)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(self._states.values())

    def started(self, trial_id: str) -> None:
        """Show a trial as running."""
        self._states[trial_id] = "running"

    def outcome(self, outcome: Outcome) -> None:
        """Show a trial's new epoch or its end."""
        trial = outcome.trial_id
        is_end = outcome.state != "running"
        state = "failed" if outcome.state == "superseded" else outcome.state
        self._states[trial] = state
        others = [row for row in self._front if row["trial_id"] != trial]
        rows = [*others, *of_trial(outcome.front, trial)]
        self._front = best_rows(rows, self._plan.spec.objectives)
        left = self._plan.grid.trials[trial].epochs - outcome.epoch
        if outcome.epoch >= 0 and trial in self._epochs_left:
            self._epochs_left[trial] = min(left, self._epochs_left[trial])
        if self._first is None:
            # Rates count from here: until now Ray and its workers were starting.
            self._first = (time.monotonic(), self._left())
        self._bar.update(
            self._task, completed=self._epochs_total - self._left(), rate=self._rate_text()
        )
        if outcome.error:
            self._say(f"failed: {self._label(trial)}: {outcome.error}", "red")
        elif not self._console.is_terminal and (is_end or self._is_time_for_a_line()):
            self._plain_line(trial, outcome)

    def lost(self, trial_id: str, reason: str) -> None:
        """Say that a trial starts again."""
        self._say(f"lost and started again: {self._label(trial_id)} ({reason})", "yellow")

    def summary(self, running: str = "running") -> str:
        """Say in one line how the run stands.

        Args:
            running: what to call trials that were running when it was asked.
        """
        counts, words = self.counts, {"running": running}
        parts = [f"{counts[state]} {words.get(state, state)}" for state in STYLES if counts[state]]
        return f"{', '.join(parts)} of {len(self._states)} trials"

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

    def _is_time_for_a_line(self) -> bool:
        return time.monotonic() - self._last_line >= PLAIN_SECONDS

    def _plain_line(self, trial: str, outcome: Outcome) -> None:
        self._last_line = time.monotonic()
        epochs = self._plan.grid.trials[trial].epochs
        self._console.print(
            "; ".join(filter(None, [self.summary(), self._rate_text()]))
            + f"; {self._label(trial)} epoch {outcome.epoch}/{epochs} {outcome.state}",
            soft_wrap=True,
            highlight=False,
        )

    def _render(self) -> Group:
        counts = self.counts
        line = Text("trials  ")
        for state, style in STYLES.items():
            line.append(f"{counts[state]} {state}  ", style=style)
        parts: list[Any] = [line, self._bar]
        if front := self._front:
            parts.append(self._front_table(front))
        return Group(*parts)

    def _front_table(self, front: list[dict[str, Any]]) -> Table:
        objectives = self._plan.spec.objectives
        table = Table(title="best front so far (validation, %)", title_justify="left", box=None)
        for name in ("trial", "judged at", "epoch"):
            table.add_column(name, no_wrap=True)
        for name in objectives:
            table.add_column(name, justify="right")
        for row in front[:SHOWN]:
            values = [f"{100 * row[f'val_{name}']:.1f}" for name in objectives]
            judged = f"{row['attribution']}@{row['layer']}"
            label = self._plan.grid.trials[row["trial_id"]].label
            table.add_row(label, judged, str(row["epoch"]), *values)
        if len(front) > SHOWN:
            table.add_row(Text(f"… and {len(front) - SHOWN} more", style="dim"))
        return table


def duration(seconds: float) -> str:
    """Write a length of time for people."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
