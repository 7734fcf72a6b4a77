"""What a sweep changes of its store: trials that are added, go on, leave, and come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mg_core.config import TrialConfig
from mg_core.errors import DamagedError, InputError, StorageError
from mg_core.store import ResultStore
from mg_core.store.history import goes_on, is_longer, kinship, lineage
from mg_core.store.progress import Progress
from mg_core.store.shelf import read_shelf
from sweeps.grid import Grid


@dataclass(frozen=True)
class Edit:
    """The difference between the trials of a sweep and those of its store.

    Attributes:
        present: ids of all trials in the store.
        shelved: ids of those that left the sweep before.
        added: ids of trials of the sweep that the store does not have.
        back: ids of trials of the sweep that were shelved.
        leaving: ids of trials that the sweep does not have any more and that are not shelved yet.
        begun: progress with which an added trial can begin, of a trial of other length.
        lengths: numbers of epochs of trials outside the sweep that are alike otherwise.
        continued: ids of trials outside the sweep whose epochs longer trials begin with.
        n_of_length: added trials of which one of another length is there, whose epochs are others
            since the schedule depends on the length.
        n_without_state: added trials of which a shorter one is there, without a state to go on.
        cut: ids of added trials of which a longer one is there, and none to begin with.
    """

    present: frozenset[str] = frozenset()
    shelved: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    back: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    begun: Mapping[str, Progress] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    continued: frozenset[str] = frozenset()
    n_of_length: int = 0
    n_without_state: int = 0
    cut: frozenset[str] = frozenset()

    @property
    def is_none(self) -> bool:
        """Whether the sweep has the trials that the store has, those on the shelf aside."""
        return not (self.added or self.back or self.leaving)

    @property
    def is_of_another(self) -> bool:
        """Whether nothing that the store holds is of use to the sweep."""
        in_use = self.present - self.shelved - self.leaving
        return bool(self.present) and not (in_use or self.back or self.lengths)

    @property
    def outside(self) -> frozenset[str]:
        """Ids of all trials of the store that are not in the sweep."""
        return (self.shelved - self.back) | self.leaving

    def __str__(self) -> str:
        anew = len(self.added) - len(self.begun) - self.n_without_state - self.n_of_length
        parts = {
            "trials that go on with more epochs": len(self.begun),
            "longer trials from the start, as the shorter ones kept no state": self.n_without_state,
            "trials of another length from the start, as the course of their learning rate depends "
            "on the number of epochs": self.n_of_length,
            "new trials": anew,
            "trials back from the shelf": len(self.back),
            "trials that are shelved (kept, but in no front or table)": len(
                self.leaving - self.continued
            ),
        }
        return ", ".join(f"{what}: {number}" for what, number in parts.items() if number)


def edit_of(store: ResultStore, grid: Grid) -> Edit:
    """Compare the trials of a sweep with those of its store, which need not be there yet.

    Raises:
        OSError: the store cannot be read.
    """
    wanted = grid.trials.keys()
    present = frozenset(store.trial_ids())
    try:
        shelved = read_shelf(store) & present
    except DamagedError:
        shelved = frozenset()  # The driver writes the list again.
    added = frozenset(wanted - present)
    found = Edit(
        present=present,
        shelved=shelved,
        added=added,
        back=frozenset(shelved & wanted),
        leaving=frozenset(present - wanted - shelved),
    )
    return _with_histories(store, grid, found) if found.outside else found


def _with_histories(store: ResultStore, grid: Grid, edit: Edit) -> Edit:
    """Add what the trials outside the sweep have for those inside it."""
    by_lineage: dict[str, list[str]] = {}
    others = _readable(store, edit.outside)
    for trial_id, config in others.items():
        if key := lineage(config):
            by_lineage.setdefault(key, []).append(trial_id)
    relatives = {kinship(config) for config in others.values() if lineage(config) is None}
    progress = store.progress()
    begun: dict[str, Progress] = {}
    lengths: set[int] = set()
    without_state, cut, continued, of_length = set(), set(), set(), set()
    for trial_id, config in grid.trials.items():
        twins = by_lineage.get(lineage(config) or "", [])
        lengths |= {others[twin].epochs for twin in twins}
        if lineage(config) is None and kinship(config) in relatives:
            of_length.add(trial_id)
        if trial_id in progress or not twins:
            continue
        known = [progress[twin] for twin in twins if twin in progress]
        if fitting := [item for item in known if goes_on(config, item)]:
            begun[trial_id] = max(fitting, key=lambda item: item.epoch)
            continued.add(begun[trial_id].trial_id)
        elif any(is_longer(config, item) for item in known):
            cut.add(trial_id)
        elif known:
            without_state.add(trial_id)
    return replace(
        edit,
        begun=begun,
        lengths=tuple(sorted(lengths)),
        continued=frozenset(continued),
        n_of_length=len(of_length & edit.added),
        n_without_state=len(without_state & edit.added),
        cut=frozenset(cut & edit.added),
    )


def _readable(store: ResultStore, trial_ids: Iterable[str]) -> dict[str, TrialConfig]:
    """Return configurations of trials outside the sweep, those alone that are not damaged."""
    try:
        return store.trials(trial_ids)
    except (InputError, StorageError):
        found: dict[str, TrialConfig] = {}
        for trial_id in trial_ids:
            try:
                found |= store.trials([trial_id])
            except (InputError, StorageError):
                continue
        return found
