"""Trials that left their sweep: kept in the store, and left out of all that is said about it.

The driver alone writes the list. A trial that stands in the sweep again is taken off it.
"""

from __future__ import annotations

from collections.abc import Iterable

from mg_core.store import layout
from mg_core.store.integrity import sealed, unsealed
from mg_core.store.result_store import ResultStore
from mg_core.store.tables import damaged


def read_shelf(store: ResultStore) -> frozenset[str]:
    """Return the ids of the trials that are shelved.

    Raises:
        DamagedError: the list is damaged; the next run of the sweep's file writes it again.
    """
    try:
        text = store.get(layout.SHELF)
    except FileNotFoundError:
        return frozenset()
    try:
        return frozenset(map(str, unsealed(text, layout.SHELF)["trials"]))
    except (LookupError, TypeError) as error:
        raise damaged(layout.SHELF, error) from None


def write_shelf(store: ResultStore, trial_ids: Iterable[str]) -> None:
    """Replace the list of shelved trials; without any there is no file."""
    shelved = sorted(trial_ids)
    if shelved:
        store.put(layout.SHELF, sealed({"trials": shelved}))
    else:
        store.files.delete(key for key in store.files.keys("") if key == layout.SHELF)


def in_words(n_shelved: int) -> str | None:
    """Return one sentence on how many trials are shelved, none where none are."""
    if not n_shelved:
        return None
    trials = "1 trial that is" if n_shelved == 1 else f"{n_shelved:,} trials that are"
    return f"shelved: {trials} no longer in the sweep; kept in the store, and not counted here"
