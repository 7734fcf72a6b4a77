"""What a store holds, as analysis needs it: read once, then passed around."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

import pandas as pd

from analysis.frame import (
    StoreLike,
    finite,
    open_store,
    to_frame,
    with_tests,
    without_repeats,
    without_trials,
)
from analysis.heatmaps import HeatMaps, Key, Row
from analysis.pareto import OBJECTIVES, front_ids
from analysis.selection import judged_elsewhere, select
from mg_core.columns import BY_METRIC, KEY
from mg_core.config import TrialConfig, objective
from mg_core.errors import InputError
from mg_core.store import ResultStore, reading
from mg_core.store.code import SHOWN, versions_of
from mg_core.store.layout import trial_key
from mg_core.store.ledger import Ledger, read_ledger
from mg_core.store.progress import Progress
from mg_core.store.shelf import in_words as shelved_in_words
from mg_core.store.shelf import read_shelf
from mg_core.store.tables import METRICS, TEST

T = TypeVar("T")


@dataclass(frozen=True)
class Results:
    """One store or several at one moment; a running sweep may be further by now.

    Attributes:
        stores: the stores that were read; none where others published all there is.
        spec: the sweep as its author wrote it, the first one where there are several.
        trials: configurations of all trials by id, those without any row too.
        ledger: how far each trial is.
        rows: every committed row, see `analysis.load`.
        tests: every test row, see `analysis.frame.load_tests`.
        versions: Python and the packages that trained, as one attempt recorded them.
        objectives: metrics that the fronts are taken over.
        tolerance: width of the bins in which values count as equal, in fractions.
        heatmap_keys: keys of all heat maps that were made, see `heatmaps`.
        published: rows of others, see `analysis.published`; figures show them beside.
        recorded_heatmaps: rows of heat maps that were recorded without their store.
        n_infinite: values of metrics that are infinite; `rows` and `tests` miss them.
        n_shelved: trials that left their sweep; nothing here holds anything of them.
        fingerprints: fingerprints of the data sets that were trained on, by `DataConfig.key`.
        differing: names of the data sets of which the stores had different copies.
        seconds: the user's own seconds for one object, by annotation; see `annotation_hours`.
    """

    stores: tuple[ResultStore, ...]
    spec: Mapping[str, Any]
    trials: Mapping[str, TrialConfig]
    ledger: Ledger
    rows: pd.DataFrame
    tests: pd.DataFrame
    versions: Mapping[str, str]
    objectives: tuple[str, ...]
    tolerance: float
    heatmap_keys: frozenset[Key] = frozenset()
    published: pd.DataFrame = field(default_factory=pd.DataFrame)
    recorded_heatmaps: Mapping[Key, list[Row]] = field(default_factory=dict)
    n_infinite: int = 0
    n_shelved: int = 0
    fingerprints: Mapping[str, frozenset[str]] = field(default_factory=dict)
    differing: frozenset[str] = frozenset()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def store(self) -> ResultStore:
        """The store, the first one where there are several; an `InputError` where there is none."""
        if not self.stores:
            raise InputError("this needs a result store, and only tables of others are given")
        return self.stores[0]

    @property
    def name(self) -> str:
        """What the sweeps and the tables of others are called."""
        own = self.spec.get("name") if len(self.stores) == 1 else None
        names = [str(own)] if own else [s.uri.rstrip("/").split("/")[-1] for s in self.stores]
        others = [] if self.published.empty else list(self.published["source"].unique())
        return ", ".join([*names, *others])

    @property
    def objectives_in_words(self) -> str:
        """The objectives as tables print them, such as "F1, EPG"."""
        return ", ".join(BY_METRIC[name].header for name in self.objectives)

    @property
    def progress(self) -> Mapping[str, Progress]:
        """How far the trials are that have committed an epoch."""
        return self.ledger.progress

    @cached_property
    def selected(self) -> pd.DataFrame:
        """What validation selects; no test column is in sight."""
        return select(self.rows, self.objectives, self.tolerance)

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The selected rows with their test columns, missing where not tested yet."""
        return with_tests(self.selected, self.tests)

    @cached_property
    def elsewhere(self) -> pd.DataFrame:
        """Each front's chosen checkpoint as attributions that were not guided judge it."""
        return judged_elsewhere(self.rows, self.selected)

    @cached_property
    def heatmaps(self) -> HeatMaps:
        """The reader of heat maps, whose cache lives as long as these results."""
        recorded = dict(self.recorded_heatmaps)
        return HeatMaps(self.stores, self.trials, self.progress, self.heatmap_keys, recorded)

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
        none = "" if self.n_checkpoints else "; no guided trial has committed an epoch"
        return f"tested {self.n_tested:,} of {self.n_checkpoints:,} checkpoints{none}"

    @property
    def unselected(self) -> str | None:
        """One sentence where validation selects no checkpoint though there are some."""
        if self.n_selected or not self.n_checkpoints:
            return None
        return (
            f"no checkpoint is selected: none of the {self.n_checkpoints:,} has a value in each of "
            f"{self.objectives_in_words} on validation"
        )

    @cached_property
    def mixed_code(self) -> str | None:
        """One sentence where versions of the user's own code meet on a front, else none."""
        if not any(progress.code for progress in self.progress.values()):
            return None
        fronts = pd.DataFrame({"front": front_ids(self.rows), "trial": self.rows["trial_id"]})
        members = fronts[fronts["front"] >= 0].drop_duplicates().groupby("front")["trial"]
        found = [versions_of(self._with_baselines(trials)) for _, trials in members]
        mixed = [each for each in found if any(len(counts) > 1 for counts in each.values())]
        if not mixed:
            return None
        versions = {
            f"{module} {version[:SHOWN]}"
            for each in mixed
            for module, counts in each.items()
            for version in (counts if len(counts) > 1 else ())
        }
        return (
            f"fronts with rows from different versions of your own code: {len(mixed)} "
            f"({', '.join(sorted(versions))}); mg-sweep run --rerun-code makes them one"
        )

    def _with_baselines(self, trial_ids: Iterable[str]) -> list[Progress]:
        ids = set(trial_ids)
        ids |= {self.trials[trial].baseline or trial for trial in ids}
        return [self.progress[trial] for trial in ids if trial in self.progress]

    @property
    def caveats(self) -> list[str]:
        """One sentence on each thing that a reader of the numbers has to know."""
        found = list(filter(None, [shelved_in_words(self.n_shelved), self.mixed_code]))
        if self.n_infinite:
            found.append(
                f"values of metrics that are infinite count as missing: {self.n_infinite:,}"
            )
        found += [
            f"the stores hold different fingerprints of {name!r}: their trials saw different "
            "copies of the data, or different versions of this package recorded them"
            for name in sorted(self.differing)
        ]
        return found

    @property
    def states(self) -> dict[str, int]:
        """Number of trials that are complete, failed, or unfinished: running or waiting."""
        counts = self.ledger.counts(self.trials)
        done = {name: counts[name] for name in ("complete", "failed")}
        return done | {"unfinished": counts["waiting"] + counts["running"]}


def read_results(
    store: StoreLike, objectives: Sequence[str] | None = None, tolerance: float = 0.0
) -> Results:
    """Read a store, of a finished sweep or a running one.

    Fronts are taken over the sweep's objectives where none are named.

    Raises:
        InputError: the store is none or cannot be read, or an objective is unknown.
    """
    opened = open_store(store)
    spec = opened.spec()
    chosen = check_objectives(objectives or spec.get("objectives") or OBJECTIVES)
    if not 0 <= tolerance < 1:
        raise InputError(f"a tolerance is a fraction from 0 to below 1, not {tolerance:g}")
    with reading(opened):
        shelved = read_shelf(opened)
        rows, trials, ledger, first, tests, made = _read_store(opened, shelved)
        fingerprints = opened.fingerprints()
    nameless = sorted(set(rows["trial_id"]) - trials.keys())
    if nameless:
        raise InputError(f"store {opened.uri!r} cannot be read: it lacks {trial_key(nameless[0])}")
    # The files of a trial may be set aside after its rows were read.
    rows = rows[rows["trial_id"].isin(ledger.progress)].reset_index(drop=True)
    rows, n_rows = finite(rows)
    tests, n_tests = finite(tests)
    return Results(
        stores=(opened,),
        spec=spec,
        trials=trials,
        ledger=ledger,
        rows=rows,
        tests=tests,
        versions=_versions(first.values()),
        objectives=chosen,
        tolerance=tolerance,
        heatmap_keys=frozenset(made),
        n_infinite=n_rows + n_tests,
        n_shelved=len(shelved & opened.trial_ids()) if shelved else 0,
        fingerprints=fingerprints,
    )


def _read_store(
    store: ResultStore, shelved: frozenset[str], retries: int = 10
) -> tuple[
    pd.DataFrame, dict[str, TrialConfig], Ledger, dict[str, dict[str, Any]], pd.DataFrame, set[Key]
]:
    """Read a store, anew if a running sweep removes a file between listing and reading."""
    try:
        # Rows first: a trial that commits meanwhile names more checkpoints than they need.
        rows = without_trials(to_frame(store.rows()), shelved)
        rows = rows.drop_duplicates(KEY, ignore_index=True)
        trials = store.trials(store.trial_ids() - shelved)
        ledger = read_ledger(store, trials)
        first = store.attempts(sorted(trials)[:1])
        tests = without_trials(to_frame(store.test_rows()), shelved)
        tests = tests.drop_duplicates(KEY, ignore_index=True)
        return rows, trials, ledger, first, tests, store.heatmap_keys()
    except FileNotFoundError:
        if not retries:
            raise
        return _read_store(store, shelved, retries - 1)


def merge(parts: Sequence[Results], published: pd.DataFrame | None = None) -> Results:
    """Put several stores together, and the tables of others beside them.

    A trial's id stands for everything that decides its results, so a trial that several stores
    hold is one trial: the first store's. Where only tables of others are given, there is no row
    of one's own.

    Raises:
        InputError: fronts of different objectives are to be put together, or a trial that was
            trained on different data.
    """
    others = pd.DataFrame() if published is None else published
    if len(parts) == 1:
        # The same object where nothing is added: it keeps what it has read.
        return parts[0] if others.empty else replace(parts[0], published=others)
    if len({part.objectives for part in parts}) > 1:
        raise InputError(
            "these sweeps have different objectives; say with --objectives which ones count"
        )
    differing = {name for one, other in combinations(parts, 2) for name in _differing(one, other)}
    rows = [part.rows for part in parts] or [to_frame(METRICS.empty_table())]
    tests = [part.tests for part in parts] or [to_frame(TEST.empty_table())]
    return Results(
        stores=tuple(store for part in parts for store in part.stores),
        spec=parts[0].spec if parts else {},
        trials=_first_of(part.trials for part in parts),
        ledger=Ledger(
            _first_of(part.ledger.progress for part in parts),
            _first_of(part.ledger.records for part in parts),
        ),
        rows=without_repeats(rows),
        tests=without_repeats(tests),
        versions=_first_of(part.versions for part in parts),
        objectives=parts[0].objectives if parts else OBJECTIVES,
        tolerance=parts[0].tolerance if parts else 0.0,
        heatmap_keys=frozenset().union(*(part.heatmap_keys for part in parts)),
        published=others,
        n_infinite=sum(part.n_infinite for part in parts),
        n_shelved=sum(part.n_shelved for part in parts),
        fingerprints=_first_of(part.fingerprints for part in parts),
        differing=frozenset(differing),
    )


def _differing(one: Results, other: Results) -> Iterator[str]:
    """Yield the names of the data sets of which two stores had different copies.

    Raises:
        InputError: they trained the same trial on them, with other results.
    """
    for key in one.fingerprints.keys() & other.fingerprints.keys():
        if one.fingerprints[key] & other.fingerprints[key]:
            continue
        trained = [{t: c for t, c in p.trials.items() if c.data.key == key} for p in (one, other)]
        if both := trained[0].keys() & trained[1].keys():
            rows = one.rows[one.rows["trial_id"].isin(both)]
            pairs = rows.merge(other.rows, on=KEY, suffixes=("", "_other"))
            if not pairs["val_bce"].equals(pairs["val_bce_other"].rename("val_bce")):
                raise InputError(
                    f"{one.name} and {other.name} trained trial {min(both)} on different data "
                    "(the fingerprints differ, and so do the results); analyse them one by one"
                )
        yield from {config.data.name for part in trained for config in part.values()}


def _first_of(mappings: Iterable[Mapping[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for mapping in mappings:
        found = {**mapping, **found}
    return found


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of objectives.

    Raises:
        InputError: one is unknown or stands twice.
    """
    for name in names:
        try:
            objective(name)
        except ValueError as error:
            raise InputError(str(error)) from None
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
