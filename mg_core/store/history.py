"""Epochs that two trials share: those of a sweep that was given more epochs are not trained again.

A trial's id holds its number of epochs, so a longer trial is another one. It begins with the rows,
the weights and the state of the shorter one, copied under its own keys, and goes on from there: its
epochs are bit for bit those of a trial that was that long from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from mg_core.config import TrialConfig, digest
from mg_core.errors import DamagedError
from mg_core.store import layout
from mg_core.store.attempt import Attempt
from mg_core.store.code import changes, newest, read_accepted
from mg_core.store.progress import Progress

LENGTHLESS = ("constant", "step")
"""Schedules whose rate after some epochs does not depend on how many are still to come."""


def lineage(config: TrialConfig) -> str | None:
    """Return what trials have in common that share their epochs up to the end of the shorter one.

    They differ in the number of epochs alone. Here it is decided whether a trial's epochs may be
    another's. Training that depends on its own length, as most schedules of the learning rate do,
    shares its epochs with no other trial. A trained network that is judged once has none to share.
    """
    if config.origin is not None or config.schedule.name not in LENGTHLESS:
        return None
    return kinship(config)


def kinship(config: TrialConfig) -> str:
    """Return what trials have in common that differ in the number of epochs alone."""
    return digest(config.model_copy(update={"epochs": 1}).canonical)


def goes_on(config: TrialConfig, found: Progress) -> bool:
    """Say whether one trial can begin with all epochs that another of its lineage has."""
    if found.epoch < config.epochs:
        return found.state is not None
    return found.epoch == config.epochs


def is_longer(config: TrialConfig, found: Progress) -> bool:
    """Say whether another trial of the lineage has trained for more epochs than one asks for.

    Its first epochs are no trial of their own: of their weights it kept those alone that its
    later epochs do not dominate.
    """
    return found.epoch > config.epochs


def adopt(attempt: Attempt, lengths: Sequence[int]) -> str | None:
    """Let a trial without epochs begin with those of its lineage's furthest; say so in a sentence.

    Another trial whose files cannot be read is no reason to stop: its epochs are trained again.

    Args:
        attempt: the attempt of the trial that begins.
        lengths: numbers of epochs that the store's trials of this lineage may have.
    """
    config = attempt.config
    if not lengths or attempt.progress is not None or lineage(config) is None:
        return None
    twins = [config.model_copy(update={"epochs": length}).trial_id for length in lengths]
    found = {t: p for twin in twins for t, p in attempt.store.progress(twin).items()}
    accepted = read_accepted(attempt.store)
    fitting = [
        trial
        for trial, progress in found.items()
        if goes_on(config, progress) and not changes(newest(progress), attempt.code, accepted)
    ]
    for trial_id in sorted(fitting, key=lambda trial: -found[trial].epoch):
        try:
            rows, progress = attempt.store.read_rows(trial_id)
            if progress is not None and goes_on(config, progress):
                _begin_with(attempt, rows, progress)
                return f"begins with the epochs of trial {trial_id}, up to {progress.epoch}"
        except DamagedError as error:
            attempt.note(f"{error.strerror}; the epochs of trial {trial_id} are not gone on from")
    return None


def _begin_with(attempt: Attempt, rows: pa.Table, found: Progress) -> None:
    trial_id = attempt.trial_id
    keys = {
        old: layout.weights_key(trial_id, attempt.key, epoch)
        for epoch, old in found.checkpoints.items()
    }
    if found.state:
        keys[found.state] = layout.state_key(trial_id, attempt.key, found.epoch)
    for old, own in keys.items():
        attempt.store.put(own, attempt.store.referenced(old, found.digests.get(old)))
    progress = replace(
        found,
        trial_id=trial_id,
        attempt=str(attempt.key),
        epochs=attempt.config.epochs,
        checkpoints={epoch: keys[old] for epoch, old in found.checkpoints.items()},
        state=keys[found.state] if found.state else None,
        digests={keys[old]: value for old, value in found.digests.items() if old in keys},
    )
    attempt.take_over(_renamed(rows, attempt.config), progress)


def _renamed(rows: pa.Table, config: TrialConfig) -> pa.Table:
    """Return rows as the trial itself would have written them."""
    values: Mapping[str, object] = {"trial_id": config.trial_id, "epochs": config.epochs}
    for name, value in values.items():
        field = rows.schema.field(name)
        column = pa.array([value] * rows.num_rows, field.type)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows
