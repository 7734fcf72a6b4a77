"""Deleting a store or the results of some of its trials, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from mg_core.errors import InputError
from mg_core.store.result_store import LOCK, SPEC, ResultStore, reading
from mg_core.store.files import TEMPORARY
from sweeps.lock import is_held, read_lock

# The metrics first: without them nothing else counts, wherever the deletion is cut short.
OF_TRIAL = ("metrics", "test", "heatmaps", "checkpoints", "attempts", "logs", "tensorboard")
OF_STORE = (*OF_TRIAL, "trials", "data", "analysis", TEMPORARY)


@dataclass(frozen=True)
class Removal:
    """What is to be deleted.

    Attributes:
        store: from which.
        description: of what goes and what stays, for the user to agree to.
        keys: of the objects, in the order in which they go.
        folders: that are empty then.
        is_whole: whether the store itself goes.
    """

    store: ResultStore
    description: str
    keys: list[str]
    folders: list[str]
    is_whole: bool = False

    def carry_out(self) -> None:
        """Delete.

        Raises:
            InputError: a driver has taken the store meanwhile, or it cannot be written.
        """
        _refuse_driven(self.store)
        with reading(self.store):
            self.store.files.delete(self.keys)
            for folder in self.folders:
                self.store.files.delete_folder(folder)
            self.store.files.remove_empty_temporary()
        if self.is_whole and self.store.local_path is not None:
            with contextlib.suppress(OSError):  # Something of the user's is left in it.
                self.store.local_path.rmdir()


def removal(store: ResultStore, trials: Sequence[str]) -> Removal:
    """Work out what belongs to a store, or to trials named by their ids.

    Raises:
        InputError: this is no store, a trial is not in it, or a driver is at work on it.
    """
    with reading(store):
        store.spec()
        _refuse_driven(store)
        return _of_trials(store, trials) if trials else _of_store(store)


def find_trial(store: ResultStore, name: str) -> str:
    """Return the trial whose id begins in a certain way.

    Raises:
        InputError: none does, or several do.
    """
    with reading(store):
        store.spec()
        found = sorted(trial for trial in store.trial_ids() if trial.startswith(name))
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} trials begin in" if found else "no trial begins in"
    raise InputError(f"store {store.uri!r}: {problem} {name!r}; mg-sweep status --json lists all")


def _refuse_driven(store: ResultStore) -> None:
    holder = read_lock(store)
    if holder is not None and is_held(store, holder):
        raise InputError(
            f"store {store.uri!r} is driven by process {holder['pid']} on {holder['name']}; "
            "stop it first"
        )


def _of_store(store: ResultStore) -> Removal:
    files = store.files
    present = set(files.keys(""))
    own = [key for folder in OF_STORE for key in sorted(present) if key.startswith(f"{folder}/")]
    # The spec last: until then the same command can be given again.
    own += [key for key in (LOCK, SPEC) if key in present]
    n_foreign = len(present) - len(own)
    stays = f"; what is not the store's stays: {n_foreign} files" if n_foreign else ""
    n_trials = len({key for key in own if key.startswith("trials/")})
    text = f"store {store.uri}: {n_trials} trials and all their results, {len(own)} files{stays}"
    return Removal(store, text, own, list(OF_STORE), is_whole=True)


def _of_trials(store: ResultStore, names: Sequence[str]) -> Removal:
    chosen = {find_trial(store, name) for name in names}
    configs = store.trials()
    # What started from a baseline's weights does not outlive them.
    children = {t for t, config in configs.items() if config.baseline in chosen} - chosen
    doomed = chosen | children
    keys = [
        key
        for folder in OF_TRIAL
        for key in store.files.keys(folder)
        if key.split("/")[1].split(".")[0] in doomed
    ]
    lines = [f"results of {trial} {configs[trial].label}" for trial in sorted(chosen)]
    if children:
        lines.append(f"and of the {len(children)} guided trials that started from them")
    lines.append(f"{len(keys)} files; the next run makes them again")
    folders = [f"{folder}/{trial}" for folder in OF_TRIAL for trial in sorted(doomed)]
    return Removal(store, "\n".join(lines), keys, folders)
