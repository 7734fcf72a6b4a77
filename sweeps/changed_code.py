"""Trials that another version of the user's own code computed: asked about before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Literal, get_args

from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore, reading
from mg_core.store.attempt import results_of, set_aside
from mg_core.store.code import ABSENT, SHOWN, Change, accept, changes, newest, read_accepted
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
        if answer == "accept":
            accept(store, set().union(*found.values()))
            return f"imports: {_described(plan, found)}; accepted, they stand together"
        if answer == "rerun":
            trials = _with_guided(found, plan.grid.trials)
            keys = [key for trial in sorted(trials) for key in results_of(store, trial)]
            folder = set_aside(store, keys) if keys else "nothing"
            return (
                f"imports: {_described(plan, found)}; {len(trials)} trials are trained again, what "
                f"they had is in {folder}"
            )
    raise InputError(
        f"imports: {_described(plan, found)}; --accept-code lets the versions stand together, "
        "--rerun-code trains these trials again"
    )


def _with_guided(outdated_ids: Collection[str], trials: Mapping[str, TrialConfig]) -> set[str]:
    """Return trials and, of baselines, the trials that started from their weights."""
    return {t for t, c in trials.items() if t in outdated_ids or c.baseline in outdated_ids}


def _described(plan: Plan, found: Mapping[str, set[Change]]) -> str:
    complete = plan.complete
    trials: Counter[Change] = Counter()
    n_complete: Counter[Change] = Counter()
    for trial_id, changed in found.items():
        trials.update(changed)
        n_complete.update(changed if trial_id in complete else ())
    parts = [
        f"module {module!r} has changed since it computed {number} trials ({n_complete[change]} "
        f"complete): they are of version {_short(old)}, and here is {_short(new)}"
        for change, number in sorted(trials.items())
        for module, old, new in [change]
    ]
    return "; ".join(parts)


def _short(version: str) -> str:
    return version if version == ABSENT else version[:SHOWN]
