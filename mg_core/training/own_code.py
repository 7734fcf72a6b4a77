"""The user's own modules that a trial's results depend on, and their versions on this node."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from mg_core.attributions import ATTRIBUTIONS
from mg_core.config import Runtime, TrialConfig
from mg_core.data import DATASETS
from mg_core.data.annotations import ANNOTATIONS
from mg_core.errors import InputError, NodeError
from mg_core.losses import CLASSIFICATION_LOSSES, LOSSES
from mg_core.models import MODELS
from mg_core.registry import Registry, import_variants
from mg_core.sources import loaded, members, on_disk
from mg_core.store.code import ABSENT, SHOWN
from mg_core.training.schedule import SCHEDULES

REGISTRIES: tuple[Registry[Any], ...] = (
    *(MODELS, ATTRIBUTIONS, LOSSES, DATASETS),
    *(CLASSIFICATION_LOSSES, SCHEDULES, ANNOTATIONS),
)


def modules_of(config: TrialConfig, imports: Sequence[str]) -> tuple[str, ...]:
    """Return the modules under `imports` that a trial depends on; they must be imported.

    They are those that one of its variants was registered from, and those that register nothing:
    what they do is not known, so it counts for every trial.
    """
    if not imports:
        return ()
    used = {MODELS.home(config.model), DATASETS.home(config.data.name)}
    used |= {SCHEDULES.home(config.schedule.name)}
    used |= {CLASSIFICATION_LOSSES.home(config.classification_loss)}
    used |= {config.optimizer.name.rpartition(".")[0]}
    used |= {ATTRIBUTIONS.home(pair.attribution) for pair in config.evaluate}
    if config.guidance is not None:
        used |= {ATTRIBUTIONS.home(config.guidance.attribution), LOSSES.home(config.guidance.loss)}
        used |= {ANNOTATIONS.home(config.guidance.annotation.name)}
    homes = {registry.home(name) for registry in REGISTRIES for name in registry}
    found = []
    for module in imports:
        own = members(module).keys()
        if own & used or not own & homes:
            found.append(module)
    return tuple(found)


def check_imported(imports: Sequence[str], wanted: dict[str, str] | None = None) -> dict[str, str]:
    """Import the user's modules and return their versions, once they are all as they should be.

    Args:
        imports: names of the modules.
        wanted: versions that they should have; by default those that this process imported.

    Raises:
        InputError: a module cannot be imported, has another version, or its files have changed
            since this process imported them.
    """
    import_variants(imports)
    here, now = loaded(imports), on_disk(imports)
    wanted = here if wanted is None else wanted
    for module in {**wanted, **now}:
        versions = [found.get(module, ABSENT)[:SHOWN] for found in (wanted, here, now)]
        if len(set(versions)) > 1:
            before, mine, on = versions
            if before == mine:
                what = f"its files have changed since this process imported it ({mine}, now {on})"
            else:
                what = f"the sweep was started with version {before}, and here is {on}"
            raise InputError(f"imports: module {module!r} is not what it was: {what}")
    return here


def code_of(config: TrialConfig, runtime: Runtime) -> dict[str, str]:
    """Return the versions of the user's modules that a trial depends on, as they are here.

    Raises:
        NodeError: a module is not the one that the sweep was started with.
    """
    try:
        code = check_imported(runtime.imports, dict(runtime.code) if runtime.code else None)
    except InputError as error:
        raise NodeError(
            f"node {socket.gethostname()}: {error}; the next run says which trials are of which "
            "version, and what can be done"
        ) from None
    modules = modules_of(config, runtime.imports)
    return {module: code[module] for module in modules if module in code}
