"""Checkpoints that another version of the user's own code trained are not tested with this one."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.results import Results
from analysis.testing.plan import Job
from mg_core.store.code import SHOWN, Change, changes, newest, read_accepted
from mg_core.training.own_code import check_imported, modules_of


def of_this_code(results: Results, jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """Return the checkpoints of one store to test with the code that is here.

    Returns:
        The jobs, and one sentence on the others.

    Raises:
        InputError: a module of the sweep cannot be imported, or has changed since it was.
    """
    imports = tuple(results.spec.get("imports") or ())
    if not imports or not any(progress.code for progress in results.progress.values()):
        return list(jobs), []
    here, accepted = check_imported(imports), read_accepted(results.store)

    def changed(trial_id: str) -> set[Change]:
        modules = modules_of(results.trials[trial_id], imports)
        now = {module: here[module] for module in modules if module in here}
        return changes(newest(results.progress.get(trial_id)), now, accepted)

    by_job = [
        set().union(*(changed(t) for t in {job.owner[0], *(x.trial_id for x in job.targets)}))
        for job in jobs
    ]
    others = [found for found in by_job if found]
    if not others:
        return list(jobs), []
    modules = "; ".join(
        f"module {module!r} was of version {old[:SHOWN]}, and here is {now[:SHOWN]}"
        for module, old, now in sorted(set().union(*others))
    )
    problem = (
        f"{len(others)} checkpoints that another version of your own code trained: {modules}; "
        "mg-sweep run says what can be done"
    )
    return [job for job, found in zip(jobs, by_job, strict=True) if not found], [problem]
