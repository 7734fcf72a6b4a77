"""The trials of a sweep and how far they are, from its grid and its store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore, reading
from mg_core.store.layout import SPEC
from mg_core.store.ledger import Ledger, read_ledger
from mg_core.store.shelf import write_shelf
from sweeps.cost import Costs, epochs_left
from sweeps.edits import Edit, edit_of
from sweeps.grid import Grid, expand
from sweeps.lock import driven_ledger
from sweeps.origins import with_origins
from sweeps.spec import SweepSpec, differences


@dataclass(repr=False)
class Plan:
    """The trials of a sweep and how far they are.

    Attributes:
        spec: the validated sweep file.
        grid: all trials of the sweep.
        ledger: progress, last failure and state of each trial.
        edit: what the sweep changes of the trials in its store.
    """

    spec: SweepSpec
    grid: Grid
    ledger: Ledger = field(default_factory=Ledger)
    edit: Edit = field(default_factory=Edit)

    def __repr__(self) -> str:
        states = ", ".join(f"{number} {state}" for state, number in self.counts().items())
        return f"<Plan of {self.spec.name}: {len(self.grid.trials)} trials, {states}>"

    @property
    def complete(self) -> set[str]:
        """Ids of the trials whose epochs are all committed."""
        return {trial_id for trial_id in self.grid.trials if self.ledger.is_complete(trial_id)}

    @property
    def is_complete(self) -> bool:
        """Whether all trials are complete."""
        return len(self.complete) == len(self.grid.trials)

    def counts(self) -> Counter[str]:
        """Count the trials by state."""
        return self.ledger.counts(self.grid.trials)

    def todo(self, retry_failed: bool, only: str | None = None) -> dict[str, TrialConfig]:
        """Return the trials to run: baselines first, then the longest ones.

        A long trial that starts last would leave the other workers idle.

        Args:
            retry_failed: include failed trials.
            only: kind of failure of the failed trials to include; all kinds by default.
        """
        wanted = {
            trial_id: config
            for trial_id, config in self.grid.trials.items()
            if (state := self.ledger.state(trial_id)) == "waiting"
            or (
                state == "failed"
                and retry_failed
                and only in {None, self.ledger.records[trial_id].get("kind")}
            )
        }
        costs = Costs(self.grid.trials, self.ledger.progress)

        def order(item: tuple[str, TrialConfig]) -> tuple[bool, float]:
            return item[1].kind == "guided", -costs.left(*item)

        return dict(sorted(wanted.items(), key=order))

    def epochs_left(self, trial_id: str) -> int:
        """Return how many epochs a trial still needs, including epoch 0 of a guided one."""
        done = self.ledger.progress.get(trial_id) or self.edit.begun.get(trial_id)
        return epochs_left(self.grid.trials[trial_id], done)


def make_plan(spec: SweepSpec) -> Plan:
    """Return the trials of a sweep and how far they are; its store need not exist yet.

    Raises:
        InputError: the sweep is wrong, or the store cannot be read.
    """
    spec = with_origins(spec)
    grid, store = expand(spec), ResultStore(spec.store)
    with reading(store):
        ledger, _ = driven_ledger(store, grid.trials)
        return Plan(spec, grid, ledger, edit_of(store, grid))


def look(spec: SweepSpec, grid: Grid, patience: float = 0.0) -> Plan:
    """Return how far the trials of a grid are, for the driver itself: none of them is running.

    Args:
        spec: the sweep, which names the store.
        grid: the trials of the sweep.
        patience: seconds to repeat requests to object storage that does not answer.

    Raises:
        InputError: the store cannot be read.
    """
    store = ResultStore(spec.store, patience)
    with reading(store):
        return Plan(spec, grid, read_ledger(store, grid.trials), edit_of(store, grid))


def check_admission(plan: Plan, store: ResultStore, extend: bool) -> None:
    """Raise an error if the store holds another sweep.

    Args:
        plan: the sweep to run.
        store: the result store that its spec names.
        extend: whether the sweep may have other trials than the stored one.

    Raises:
        InputError: the store holds another sweep; the message lists the differences.
    """
    edit = plan.edit
    with reading(store):
        if store.spec_text() is None:
            return _check_without_spec(edit, store, extend)
        if not store.is_store():
            return
        try:
            stored = store.spec()
        except InputError:
            if not edit.is_none:
                raise
            return  # A damaged spec of these very trials: `admit` writes it again.
    changes = "; ".join(differences(stored, plan.spec))
    are_objectives_other = set(stored.get("objectives") or ()) != set(plan.spec.objectives)
    if are_objectives_other or edit.is_of_another:
        hint = "name another store with --store"
    elif edit.cut:
        hint = (
            f"{len(edit.cut)} of the trials have trained for more epochs than that, and no shorter "
            "trial can be cut from them, since weights are kept only where no later epoch "
            "dominates them; name another store with --store"
        )
    elif changes and not (edit.is_none or extend):
        hint = f"--extend takes the change: {edit}"
    else:
        return  # Where nothing differs, records of trials were lost; `admit` writes them again.
    raise InputError(f"store {store.uri!r} holds a different sweep: {changes}; {hint}")


def _check_without_spec(edit: Edit, store: ResultStore, extend: bool) -> None:
    """Raise an error if a store that lost its spec has results of trials outside the sweep."""
    others = edit.leaving & _begun(store)
    if others and not extend:
        raise InputError(
            f"store {store.uri!r} lacks its {SPEC} and holds {len(others)} trials that are not in "
            "this sweep; run the file that they were trained with, which writes it again, or "
            "--extend takes the change"
        )


def _begun(store: ResultStore) -> set[str]:
    """Return the trials that any attempt was made at."""
    return store.attempt_counts().keys() | store.metrics_keys().keys()


def admit(plan: Plan, store: ResultStore) -> None:
    """Write the spec and the trials of a sweep, once `check_admission` has passed."""
    present = store.trial_ids()
    if store.spec_text() is None and (outside := present - plan.grid.trials.keys()):
        # A driver was killed before it wrote the spec; what has begun is of a spec that was lost.
        planned = outside - _begun(store)
        store.remove_trials(planned)
        present -= planned
    # Trials before the spec: a store with a spec has all trials of it.
    added = plan.grid.trials.keys() - present
    store.put_trials({key: plan.grid.trials[key] for key in sorted(added)})
    if plan.edit.shelved != (outside := present - plan.grid.trials.keys()):
        write_shelf(store, outside)
    text = plan.spec.to_yaml()
    if not (store.spec_text() or "").startswith(text):
        store.put_spec(text)
