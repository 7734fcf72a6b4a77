"""Trials that another version of the user's own code computed: asked about before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Literal, get_args

from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.sources import file_digests, on_disk, version_here
from mg_core.store import ResultStore, reading
from mg_core.store.attempt import results_of, set_aside
from mg_core.store.code import (
    ABSENT,
    SHOWN,
    Change,
    accept,
    changes,
    newest,
    read_accepted,
    read_parts,
)
from mg_core.store.progress import Progress
from mg_core.training.own_code import modules_of
from sweeps.planning import Plan

Answer = Literal["ask", "accept", "rerun"]
"""What to do with trials of another version: ask the user, keep them, or train them again."""
ANSWERS: tuple[Answer, ...] = get_args(Answer)


def outdated(
    plan: Plan, code: Mapping[str, str], accepted: Collection[Change]
) -> dict[str, set[Change]]:
    """Return the trials whose epochs another version of the user's modules computed.

    Those that go on and those that are complete count alike. A trial that would begin with the
    epochs of a shorter one counts if that one is of another version.

    Args:
        plan: the trials and how far they are.
        code: version of each module under `imports`.
        accepted: changes that the user lets stand.
    """
    begun = {**plan.edit.begun, **plan.ledger.progress}
    if not any(progress.code for progress in begun.values()):
        return {}
    found = {}
    for trial_id, progress in begun.items():
        modules = modules_of(plan.grid.trials[trial_id], tuple(code))
        now = {module: code[module] for module in modules}
        if changed := changes(newest(progress), now, accepted):
            found[trial_id] = changed
    return found


def settle_code(
    plan: Plan, code: Mapping[str, str], store: ResultStore, answer: Answer
) -> str | None:
    """Do with trials of other versions what the user has answered; return what was done.

    Raises:
        InputError: there are such trials, and there is no answer yet; the message lists them by
            version.
    """
    with reading(store):
        # Who wants them trained again takes back what was accepted.
        accepted = read_accepted(store) if answer != "rerun" else frozenset()
        found = outdated(plan, code, accepted)
        if not found:
            return None
        said = f"imports: {described(found, plan.complete, read_parts(store))}"
        if answer == "accept":
            accept(store, set().union(*found.values()))
            return f"{said}; accepted, they stand together"
        if answer == "rerun":
            trials = _with_guided(found, plan.grid.trials)
            keys = [key for trial in sorted(trials) for key in results_of(store, trial)]
            folder = set_aside(store, keys) if keys else "nothing"
            again = "1 trial is" if len(trials) == 1 else f"{len(trials)} trials are"
            return f"{said}; {again} trained again, the results so far are in {folder}"
    raise InputError(
        f"{said}; --accept-code lets the versions stand together, "
        "--rerun-code trains these trials again"
    )


def _with_guided(outdated_ids: Collection[str], trials: Mapping[str, TrialConfig]) -> set[str]:
    """Return trials and, of baselines, the trials that started from their weights."""
    return {t for t, c in trials.items() if t in outdated_ids or c.baseline in outdated_ids}


def warning(plan: Plan, store: ResultStore) -> str | None:
    """Say which trials another version of the user's code computed, for those who only look."""
    with reading(store):
        found = outdated(plan, on_disk(plan.spec.imports), read_accepted(store))
        said = described(found, plan.complete, read_parts(store))
    return f"imports: {said}; mg-sweep run asks what to do" if found else None


def outdated_here(
    progress: Mapping[str, Progress], accepted: Collection[Change]
) -> dict[str, set[Change]]:
    """Return trials of other versions than the files here, as far as these are found.

    No module is imported.
    """
    now: dict[str, str | None] = {}
    found = {}
    for trial_id, item in progress.items():
        recorded = {}
        for module, version in newest(item).items():
            if module not in now:
                now[module] = version_here(module)
            if now[module]:
                recorded[module] = version
        here = {module: str(now[module]) for module in recorded}
        if changed := changes(recorded, here, accepted):
            found[trial_id] = changed
    return found


def described(
    found: Mapping[str, set[Change]],
    complete: Collection[str],
    noted: Mapping[str, Mapping[str, str]],
) -> str:
    """Say which modules changed, in which of their files, and what older versions computed.

    Args:
        found: trials of other versions.
        complete: ids of complete trials.
        noted: files of each version as far as they were noted.
    """
    trials: Counter[Change] = Counter()
    n_complete: Counter[Change] = Counter()
    for trial_id, changed in found.items():
        trials.update(changed)
        n_complete.update(changed if trial_id in complete else ())
    return "; ".join(
        f"module {change[0]!r} has changed{_files(change, noted)} since it computed "
        f"{number} {'trial' if number == 1 else 'trials'} ({n_complete[change]} complete): of "
        f"version {_short(change[1])}, and here is {_short(change[2])}"
        for change, number in sorted(trials.items())
    )


def _files(change: Change, known: Mapping[str, Mapping[str, str]]) -> str:
    """Say which of the files that a module stands on are others, unless it is its own alone."""
    module, old, _ = change
    before, now = known.get(old), file_digests(module)
    if not (before and now):
        return ""
    changed = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
    return f" in {', '.join(changed)}" if changed and changed != [module] else ""


def _short(version: str) -> str:
    return version if version == ABSENT else version[:SHOWN]
