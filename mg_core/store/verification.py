"""A look at every file of a store: what is damaged or misplaced, and what repairs it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mg_core.errors import DamagedError, InputError, StorageError
from mg_core.store import integrity, layout
from mg_core.store.attempt import results_of, set_aside
from mg_core.store.code import read_accepted
from mg_core.store.progress import Progress
from mg_core.store.result_store import ResultStore
from mg_core.store.shelf import read_shelf
from mg_core.store.tables import check_seal

RUN_AGAIN = "--repair sets the trial's files aside; mg-sweep run trains it again"
TEST_AGAIN = "--repair sets it aside; mg-analysis test computes it again"
WRITE_AGAIN = "--repair sets it aside; mg-sweep run with the sweep's file writes it again"
UPDATE = "update the package; if this version wrote the file, remove it and run the sweep again"
ONLY_TO_GO_ON = "--repair sets it aside; with more epochs the trial then begins anew"
NOT_NEEDED = "--repair sets it aside; no result depends on it"

REPAIRS = {
    layout.TEST: TEST_AGAIN,
    layout.HEATMAPS: TEST_AGAIN,
    layout.METRICS: RUN_AGAIN,
    layout.LOGS: NOT_NEEDED,
}

Step = Callable[[str, int, int], None]

LISTS: Mapping[str, Callable[[ResultStore], object]] = {
    layout.SHELF: read_shelf,
    layout.CODE: read_accepted,
}
"""How the driver's own lists are read."""

READERS: Mapping[str, Callable[[ResultStore, str], object]] = {
    layout.TRIALS: lambda store, key: store.trials([layout.trial_of(key)]),
    layout.TEST: lambda store, key: store.test_rows(keys=[key]),
    layout.HEATMAPS: lambda store, key: store.heatmaps(*next(layout.heatmaps_in([key]))),
    layout.LOGS: lambda store, key: integrity.log_text(store.get(key), key),
}
"""How a file is read in each of these folders."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a store.

    Attributes:
        key: key of the file.
        problem: what is wrong, in a sentence that names the file.
        repair: what puts it right.
        keys: files to set aside.
    """

    key: str
    problem: str
    repair: str
    keys: tuple[str, ...]


def verify(store: ResultStore, progress: Step) -> list[Damage]:
    """Read every file that the store's layout can have made, and check all that it says.

    Args:
        store: to be checked.
        progress: called with what is done, files done and files in all.
    """
    keys = [key for key in store.files.keys("") if layout.is_own(key)]
    counted = {key for key in store.metrics_keys().values()}
    found = list(_missing(store))
    for number, key in enumerate(keys, start=1):
        is_garbage = key.startswith(f"{layout.METRICS}/") and key not in counted
        found += [] if is_garbage else _check(store, key)
        progress("verifying", number, len(keys))
    return found


def _missing(store: ResultStore) -> Iterator[Damage]:
    """Yield the files that others refer to and that are missing."""
    nameless = store.metrics_keys().keys() - store.trial_ids()
    missing = [layout.trial_key(trial_id) for trial_id in sorted(nameless)]
    missing += [layout.SPEC] if store.spec_text() is None else []
    for key in missing:
        yield Damage(key, f"{key} is missing", WRITE_AGAIN.partition("; ")[2], ())


def set_damage_aside(store: ResultStore, found: list[Damage]) -> str:
    """Move all damaged files into the quarantine and return its folder."""
    return set_aside(store, dict.fromkeys(key for damage in found for key in damage.keys))


def _check(store: ResultStore, key: str) -> Iterator[Damage]:
    folder = key.split("/")[0]
    try:
        if folder == layout.METRICS:
            yield from _check_trial(store, key)
        elif folder in READERS:
            READERS[folder](store, key)
        elif folder == layout.ATTEMPTS and store.attempt_record(key)["how"] == "unreadable":
            yield Damage(key, f"{key} is damaged", NOT_NEEDED, (key,))
        elif key in LISTS:
            LISTS[key](store)
        elif key == layout.SPEC:
            store.spec()
            integrity.check_text(str(store.spec_text()), key)
    except (StorageError, InputError, ValueError) as error:
        if isinstance(error, InputError) and key != layout.SPEC:
            yield Damage(key, _said(error), UPDATE, ())
            return
        keys = results_of(store, layout.trial_of(key)) if folder == layout.METRICS else [key]
        yield Damage(key, _said(error), REPAIRS.get(folder, WRITE_AGAIN), tuple(keys))


def _check_trial(store: ResultStore, key: str) -> Iterator[Damage]:
    """Check a metrics file, and the weights and the state that it names."""
    _, progress = store.committed(key)
    for reference in sorted(progress.references):
        try:
            if reference in progress.checkpoints.values():
                store.weights(reference, progress.digests.get(reference))
            else:
                store.referenced(reference, progress.digests.get(reference))
        except StorageError as error:
            keys = tuple(results_of(store, progress.trial_id))
            if progress.is_complete and reference == progress.state:
                if error.errno == errno.ENOENT:
                    continue  # It was set aside before.
                yield Damage(reference, _said(error), ONLY_TO_GO_ON, (reference,))
            else:
                yield Damage(reference, _said(error), RUN_AGAIN, keys)


def mend(store: ResultStore, trial_ids: set[str]) -> list[str]:
    """Set aside the files of trials whose newest metrics file is damaged or misplaced.

    Their checksums and footers are looked at. The trials then wait to be trained again.

    Returns:
        One sentence for each.
    """
    found = []
    keys = store.metrics_keys()
    damages = store.files.map(lambda key: _damage_of(store, key), keys.values())
    for trial_id, error in zip(keys, damages, strict=True):
        if error is not None:
            folder = set_aside(store, results_of(store, trial_id))
            found.append(f"{_said(error)}: set aside in {folder}, the trial is trained again")
    for trial_id in trial_ids & store.trial_ids():
        try:
            store.trials([trial_id])
        except DamagedError as error:
            folder = set_aside(store, [layout.trial_key(trial_id)])
            found.append(f"{_said(error)}: set aside in {folder}, and written again")
    return found


def _damage_of(store: ResultStore, key: str) -> DamagedError | None:
    try:
        check_seal(store.get(key), key)
        store.footer(key)
    except DamagedError as error:
        return error
    except FileNotFoundError:
        pass  # A later attempt of the trial has replaced it.
    return None


def mend_baseline(store: ResultStore, progress: Progress) -> str | None:
    """Set a complete baseline aside whose weights are missing or damaged; return a sentence."""
    try:
        for key in progress.checkpoints.values():
            store.weights(key, progress.digests.get(key))
    except DamagedError as error:
        folder = set_aside(store, results_of(store, progress.trial_id))
        return f"{_said(error)}: set aside in {folder}, baseline {progress.trial_id} trains again"
    return None


def missing_weights(store: ResultStore, progress: Mapping[str, Progress]) -> str | None:
    """Return a sentence if weights that trials kept are missing; nothing is done about it.

    Somebody may have removed them to save space, and what the trials measured stays right.
    """
    present = set(store.files.keys(layout.CHECKPOINTS))
    lost = [
        key for item in progress.values() for key in item.checkpoints.values() if key not in present
    ]
    if not lost:
        return None
    return (
        f"{len(lost)} kept checkpoints are missing, such as {lost[0]}, and cannot be tested; "
        "mg-sweep verify lists them and says what repairs it"
    )


def _said(error: Exception) -> str:
    text = str(error.strerror) if isinstance(error, StorageError) else str(error)
    return text.partition("; mg-sweep verify")[0]
