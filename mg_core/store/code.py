"""Which versions of the user's own code computed a store's trials, and which may stand together.

A version is a digest of sources, see `mg_core.sources`. Each commit records those of the modules
that its trial depends on. Results of two versions are not mixed unless the user has said that they
may be, which the driver writes down here, with the files that each version consists of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mg_core.store import layout
from mg_core.store.integrity import sealed, unsealed
from mg_core.store.progress import Progress
from mg_core.store.result_store import ResultStore
from mg_core.store.tables import damaged

ABSENT = "absent"
SHOWN = 8

Code = Mapping[str, str]
"""Version by module."""

Change = tuple[str, str, str]
"""A module, one version of it, and another."""


def newest(progress: Progress | None) -> Code:
    """Return the versions that computed a trial's newest epoch; none where none were recorded."""
    recorded = progress.code if progress is not None else {}
    return recorded[max(recorded)] if recorded else {}


def changes(recorded: Code, now: Code, accepted: Iterable[Change] = ()) -> set[Change]:
    """Return the modules whose version is another one now, those aside that may stand together.

    Older versions of this package recorded nothing, which differs from nothing.
    """
    if not recorded:
        return set()
    found = {(m, recorded.get(m, ABSENT), now.get(m, ABSENT)) for m in {*recorded, *now}}
    known = list(accepted)
    return {(m, old, new) for m, old, new in found if new not in _alike(m, old, known)}


def _alike(module: str, version: str, accepted: Iterable[Change]) -> set[str]:
    """Return the versions of a module that may stand beside one, itself included."""
    pairs = [{old, new} for name, old, new in accepted if name == module]
    alike = {version}
    while more := [pair for pair in pairs if pair & alike and not pair <= alike]:
        alike |= set().union(*more)
    return alike


def read_accepted(store: ResultStore) -> set[Change]:
    """Return the changes of code that the user has accepted for this store.

    Raises:
        DamagedError: the file is damaged.
    """
    try:
        found = _read(store)["accepted"]
        return {(str(m), str(old), str(new)) for m, old, new in found}
    except (ValueError, LookupError, TypeError) as error:
        raise damaged(layout.CODE, error) from None


def accept(store: ResultStore, found: Iterable[Change]) -> None:
    """Write down that results of these versions may stand together."""
    known = sorted(read_accepted(store) | set(found))
    _write(store, _read(store) | {"accepted": known})


def note_parts(store: ResultStore, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Write down of which files versions consist, so that it can be said which one changed.

    Args:
        store: the store.
        parts: by version, the digest of each file by the name of its module.
    """
    read_accepted(store)  # A damaged file is not written over.
    content = _read(store)
    known = content.get("parts", {})
    if parts.keys() - known.keys():
        _write(store, content | {"parts": {**known, **parts}})


def read_parts(store: ResultStore) -> dict[str, dict[str, str]]:
    """Return what `note_parts` wrote; older versions of this package noted nothing."""
    try:
        return {str(v): dict(files) for v, files in _read(store).get("parts", {}).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _read(store: ResultStore) -> dict[str, Any]:
    try:
        text = store.get(layout.CODE)
    except FileNotFoundError:
        return {"accepted": []}
    return unsealed(text, layout.CODE)


def _write(store: ResultStore, content: Mapping[str, Any]) -> None:
    store.put(layout.CODE, sealed(content))


def versions_of(progress: Iterable[Progress]) -> dict[str, Counter[str]]:
    """Count the trials that each version of each module computed, epochs of both in each."""
    found: dict[str, Counter[str]] = {}
    for item in progress:
        for module, version in {pair for code in item.code.values() for pair in code.items()}:
            found.setdefault(module, Counter())[version] += 1
    return dict(sorted(found.items()))


def in_words(module: str, versions: Mapping[str, int]) -> str:
    """Say how many trials each version of a module computed."""
    counts = ", ".join(f"version {v[:SHOWN]} computed {n}" for v, n in versions.items())
    return f"trials by version of module {module}: {counts}"
