"""Deletion of a store, or of the results of some of its trials."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from mg_core.errors import InputError
from mg_core.store import ResultStore, layout, reading
from mg_core.store.shelf import read_shelf
from mg_core.store.written import Written
from sweeps.display import counted
from sweeps.lock import refuse_driven


@dataclass(frozen=True)
class Removal:
    """A deletion that the user has not confirmed yet.

    Attributes:
        store: the store that loses objects.
        description: what is deleted and what stays, in words.
        trials: trials whose results are deleted; none for the whole store.
        keys: keys of the objects, in the order of their deletion.
        folders: folders that are empty afterwards and are deleted too.
        is_whole: whether the whole store is deleted.
        is_shelf: whether it is the shelved trials that are deleted.
    """

    store: ResultStore
    description: str
    trials: Sequence[str]
    keys: list[str]
    folders: list[str]
    is_whole: bool = False
    is_shelf: bool = False

    def carry_out(self) -> None:
        """Delete the objects.

        Raises:
            InputError: a driver is at work on the store by now, or the store cannot be written.
        """
        refuse_driven(self.store)
        if set(removal(self.store, self.trials, self.is_shelf).keys) != set(self.keys):
            raise InputError(
                f"store {self.store.uri!r} has changed meanwhile; give the command again"
            )
        with reading(self.store):
            self.store.files.delete(self.keys)
            for folder in self.folders:
                self.store.files.delete_empty_folder(folder)
            self.store.files.remove_empty_temporary()
        if self.is_whole and self.store.local_path is not None:
            with contextlib.suppress(OSError):  # The folder holds files of the user's too.
                self.store.local_path.rmdir()


def removal(store: ResultStore, trials: Sequence[str], shelved: bool = False) -> Removal:
    """List what the deletion of a store, or of the results of some trials, removes.

    Args:
        store: the store that loses objects.
        trials: ids of trials or their first digits; the whole store if there are none.
        shelved: only the trials that left the sweep, in place of `trials`.

    Raises:
        InputError: this is no store, it lacks a trial, or a driver is at work on it.
    """
    with reading(store):
        store.spec()
        refuse_driven(store)
        if shelved:
            return _of_shelf(store)
        return _of_trials(store, trials) if trials else _of_store(store)


def _of_store(store: ResultStore) -> Removal:
    files = store.files
    present = set(files.keys(""))
    written = Written(files, layout.ANALYSIS).unchanged()
    own = [
        key
        for folder in layout.FOLDERS
        for key in sorted(present)
        if key.startswith(f"{folder}/") and (layout.is_own(key) or key in written)
    ]
    # The spec last: while it is there, an interrupted deletion can be repeated.
    own += [key for key in (layout.LOCK, layout.SHELF, layout.CODE, layout.SPEC) if key in present]
    n_foreign = len(present) - len(own)
    stays = f"; other files in its folder stay: {n_foreign}" if n_foreign else ""
    n_trials = sum(key.startswith(f"{layout.TRIALS}/") for key in own)
    trials = counted(n_trials, "trial", "trials")
    text = f"store {store.uri}: {trials} with all results, {len(own)} files{stays}"
    return Removal(store, text, (), own, list(layout.FOLDERS), is_whole=True)


def _of_shelf(store: ResultStore) -> Removal:
    shelved = read_shelf(store)
    if not shelved:
        raise InputError(f"store {store.uri!r} has no shelved trials")
    keys = [
        key
        for folder in (*layout.RESULTS, layout.TRIALS)
        for key in store.files.keys(folder)
        if layout.is_own(key) and layout.trial_of(key) in shelved
    ]
    trials = counted(len(shelved), "trial that left", "trials that left")
    text = f"{trials} the sweep, with all results, {len(keys)} files"
    folders = [layout.prefix(folder, t) for folder in layout.RESULTS for t in sorted(shelved)]
    return Removal(store, text, (), [*keys, layout.SHELF], folders, is_shelf=True)


def _of_trials(store: ResultStore, names: Sequence[str]) -> Removal:
    chosen = {store.find_trial(name) for name in names}
    configs = store.trials()
    # Guided trials started from the weights of their baseline, so they are deleted with it.
    children = {t for t, config in configs.items() if config.baseline in chosen} - chosen
    deleted = chosen | children
    keys = [
        key
        for folder in layout.RESULTS
        for key in store.files.keys(folder)
        if layout.is_own(key) and layout.trial_of(key) in deleted
    ]
    lines = [f"results of {trial} {configs[trial].label}" for trial in sorted(chosen)]
    if children:
        guided = counted(len(children), "guided trial", "guided trials")
        lines.append(f"and of {guided} that started from {'it' if len(chosen) == 1 else 'them'}")
    lines.append(f"{len(keys)} files; the next run trains these trials again")
    folders = [
        layout.prefix(folder, trial) for folder in layout.RESULTS for trial in sorted(deleted)
    ]
    return Removal(store, "\n".join(lines), names, keys, folders)
