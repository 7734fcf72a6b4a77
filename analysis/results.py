"""What a store holds, as analysis needs it: read once, then passed around."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import pandas as pd

from analysis.frame import StoreLike, load, load_tests, open_store, with_tests
from analysis.pareto import OBJECTIVES
from analysis.selection import select
from mg_core.config import Objective, TrialConfig
from mg_core.errors import InputError
from mg_core.progress import Progress
from mg_core.store import ResultStore, reading


@dataclass(frozen=True)
class Results:
    """A store at one moment; a running sweep may be further by now.

    Attributes:
        store: where it was read from.
        spec: of the sweep.
        trials: configurations of all trials by id, those without any row too.
        progress: of the trials that have committed an epoch.
        failures: record of the last attempt of each trial that failed.
        rows: every committed row, see `analysis.load`.
        tests: every test row, see `analysis.frame.load_tests`.
        versions: of Python and the packages that trained, as one attempt recorded them.
        objectives: of the fronts.
        tolerance: of the fronts, in fractions.
    """

    store: ResultStore
    spec: Mapping[str, Any]
    trials: Mapping[str, TrialConfig]
    progress: Mapping[str, Progress]
    failures: Mapping[str, Mapping[str, Any]]
    rows: pd.DataFrame
    tests: pd.DataFrame
    versions: Mapping[str, str]
    objectives: tuple[str, ...]
    tolerance: float

    @cached_property
    def selected(self) -> pd.DataFrame:
        """What validation selects; no test column is in sight."""
        return select(self.rows, self.objectives, self.tolerance)

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The selected rows with their test columns, missing where not tested yet."""
        return with_tests(self.selected, self.tests)

    @property
    def n_checkpoints(self) -> int:
        """Guided checkpoints that there were, kept or not: (trial, epoch ≥ 1)."""
        return _n_checkpoints(self.rows)

    @property
    def n_tested(self) -> int:
        """Guided checkpoints among them that were tested."""
        return _n_checkpoints(self.tests[self.tests["layer"].notna()])

    @property
    def n_selected(self) -> int:
        """Guided checkpoints among them that validation selects."""
        return _n_checkpoints(self.selected)

    @property
    def tested_sentence(self) -> str:
        """How many checkpoints were tested."""
        return f"tested {self.n_tested:,} of {self.n_checkpoints:,} checkpoints"

    @property
    def states(self) -> dict[str, int]:
        """Number of trials that are complete, failed, or neither."""
        n_complete = sum(progress.is_complete for progress in self.progress.values())
        n_left = len(self.trials) - n_complete - len(self.failures)
        return {"complete": n_complete, "failed": len(self.failures), "unfinished": n_left}


def read_results(
    store: StoreLike, objectives: Sequence[str] | None = None, tolerance: float = 0.0
) -> Results:
    """Read a store, of a finished sweep or a running one.

    Args:
        store: a folder, a URI or a `ResultStore`.
        objectives: of the fronts; those of the sweep where none are named.
        tolerance: of the fronts, in fractions.

    Raises:
        InputError: the store is none or cannot be read, or an objective is unknown.
    """
    opened = open_store(store)
    spec = opened.spec()
    chosen = check_objectives(objectives or spec.get("objectives") or OBJECTIVES)
    if not 0 <= tolerance < 1:
        raise InputError(f"a tolerance is a fraction from 0 to below 1, not {tolerance:g}")
    with reading(opened):
        # Rows first: a trial that commits meanwhile names more checkpoints than they need.
        rows = load(opened)
        progress = opened.progress()
        trials = opened.trials()
        left = set(trials) - {t for t, found in progress.items() if found.is_complete}
        attempts = opened.attempts(left | set(sorted(trials)[:1]))
        tests = load_tests(opened)
    nameless = sorted(progress.keys() - trials.keys())
    if nameless:
        raise InputError(f"store {opened.uri!r} cannot be read: it lacks trials/{nameless[0]}.json")
    return Results(
        store=opened,
        spec=spec,
        trials=trials,
        progress=progress,
        failures={t: a for t, a in attempts.items() if t in left and a["how"] == "failed"},
        rows=rows,
        tests=tests,
        versions=_versions(attempts.values()),
        objectives=chosen,
        tolerance=tolerance,
    )


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of objectives.

    Raises:
        InputError: one is unknown or stands twice.
    """
    known = get_args(Objective)
    for name in names:
        if name not in known:
            raise InputError(f"unknown objective {name!r}; choose from {', '.join(known)}")
    if len(set(names)) < len(names):
        raise InputError(f"an objective stands twice in {', '.join(names)}")
    return tuple(names)


def _versions(attempts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    first = next(iter(attempts), {})
    versions = dict(first.get("versions") or {})
    return versions | {"python": first["python"]} if "python" in first else versions


def _n_checkpoints(frame: pd.DataFrame) -> int:
    # A baseline's rows have no layer; epoch 0 is a baseline's checkpoint.
    guided = frame[frame["layer"].notna() & (frame["epoch"] >= 1)]
    return len(guided[["trial_id", "epoch"]].drop_duplicates())
