"""Trained networks that baselines start from: which file of which store stands for which."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from itertools import product

from mg_core.config import DataConfig, TrialConfig
from mg_core.data import data_config
from mg_core.errors import InputError
from mg_core.losses.classification import judge
from mg_core.registry import import_variants
from mg_core.store import ResultStore, reading
from mg_core.store.progress import Progress
from sweeps.pinning import DIGEST, TRIAL, is_store
from sweeps.spec import BaselineSpec, SweepSpec
from sweeps.stages import KEYS

KEY = "baseline.from"

Start = tuple[str, int]
"""Model and seed of a baseline."""


def origin_of(spec: SweepSpec, model: str, seed: int) -> str | None:
    """Return the trained network of a model and seed; none where a baseline is trained."""
    origin = spec.baseline.origin
    of_model = origin.get(model) if isinstance(origin, dict) else origin
    return of_model.get(seed) if isinstance(of_model, dict) else of_model


def with_origins(spec: SweepSpec) -> SweepSpec:
    """Return a sweep in which each result store under `baseline.from` is one of its checkpoints.

    A store without a fitting baseline stays, and `check_origins` says so if a trial needs it.
    """
    wanted = {start: origin_of(spec, *start) for start in _starts(spec)}
    if not any(origin and is_store(origin) for origin in wanted.values()):
        return spec
    import_variants(spec.imports)
    chosen: dict[str, dict[int, str]] = {}
    for (model, seed), origin in wanted.items():
        if origin is not None:
            chosen.setdefault(model, {})[seed] = _pinned(spec, origin, model, seed) or origin
    baseline = spec.baseline.model_copy(update={"origin": chosen})
    return spec.model_copy(update={"baseline": baseline})


def check_names(spec: SweepSpec) -> None:
    """Refuse models and seeds under `baseline.from` that the grid does not have.

    Raises:
        InputError: names the key and what is allowed.
    """
    found = spec.baseline.origin
    starts = list(_starts(spec))
    for model, values in (found if isinstance(found, dict) else {}).items():
        seeds = [seed for own, seed in starts if own == model]
        if not seeds:
            models = ", ".join(sorted({own for own, _ in starts}))
            raise InputError(f"{KEY}: the grid has no model {model!r}; choose from {models}")
        for seed in values if isinstance(values, dict) else ():
            if seed not in seeds:
                allowed = ", ".join(map(str, seeds))
                raise InputError(f"{KEY}.{model}: the grid has no seed {seed}; it has {allowed}")


def check_origins(spec: SweepSpec, starts: Collection[Start]) -> None:
    """Refuse stores that do not fit, and weights that have no effect.

    Args:
        spec: a sweep that `with_origins` returned.
        starts: the baselines of its grid.

    Raises:
        InputError: names the key.
    """
    for model, seed in starts:
        origin = origin_of(spec, model, seed)
        if origin and is_store(origin):
            _choose(spec, origin, model, seed)
    named = spec.weights if isinstance(spec.weights, dict) else dict.fromkeys(m for m, _ in starts)
    trained = {model for model, seed in starts if origin_of(spec, model, seed) is None}
    if spec.weights is not None and not trained & named.keys():
        raise InputError(
            f"weights: without effect, since {KEY} names the trained network of "
            f"{', '.join(sorted(named))}; take one of the two out"
        )


def origins_in_words(spec: SweepSpec, todo: Mapping[str, TrialConfig]) -> list[str]:
    """Say of each baseline that is trained already which file it is, and which keys do nothing."""
    found = [f"{c.label} is {c.origin}, judged once" for c in todo.values() if c.origin]
    return [*found, *without_effect(spec)]


def without_effect(spec: SweepSpec) -> list[str]:
    """Say which settings of training do nothing, since every baseline is trained already."""
    if not all(origin_of(spec, *start) for start in _starts(spec)):
        return []
    # Whether a key was written is not known: a stored sweep has all of them.
    usual = BaselineSpec.model_fields
    set_keys = [
        f"baseline.{key}"
        for key in KEYS
        if key != "batch_size" and getattr(spec.baseline, key) != usual[key].default
    ]
    if not set_keys:
        return []
    verb = "has" if len(set_keys) == 1 else "have"
    return [f"{', '.join(set_keys)} {verb} no effect: {KEY} names networks, which are not trained"]


def check_starts(spec: SweepSpec, todo: Mapping[str, TrialConfig]) -> None:
    """Load the files that baselines start from, so that their errors come before any trial starts.

    Raises:
        InputError: a file is not there, or does not fit its model or the classes of the data.
    """
    files = {
        (config.model, config.origin, config.weights): config
        for config in todo.values()
        if config.origin or (config.weights and os.path.isabs(config.weights))
    }
    if files:
        from mg_core.data import class_names
        from mg_core.training.checkpoint import initial_model

        for config in files.values():
            names = class_names(config.data, spec.data.root, spec.data.cache)
            initial_model(config, len(names), spec.data.cache)


def _starts(spec: SweepSpec) -> Iterator[Start]:
    for block in spec.grid:
        yield from product(block.model, block.seed or spec.seed)


def _pinned(spec: SweepSpec, origin: str, model: str, seed: int) -> str | None:
    try:
        return _choose(spec, origin, model, seed) if is_store(origin) else origin
    except InputError:
        return None


def _choose(spec: SweepSpec, origin: str, model: str, seed: int) -> str:
    """Return the file of a store's checkpoint, with its checksum.

    That of a named trial is the kept epoch with the best validation F1, or accuracy where it was
    trained for one label in each image. Without a name it is the best baseline of those that have
    this data, model and seed, and of equal ones the one that trained for fewer epochs.

    Raises:
        InputError: the store has no such trial, or it has kept no weights.
    """
    uri, _, name = origin.partition(TRIAL)
    store = ResultStore(uri)
    with reading(store):
        store.spec()
        if name:
            candidates = store.trials([store.find_trial(name)])
            (config,) = candidates.values()
            if config.model != model:
                raise InputError(f"{KEY}: trial {name} of {uri} is a {config.model}, no {model}")
            _check_classes(spec, config, f"trial {name} of {uri}")
        else:
            options = spec.data.model_dump(exclude={"root", "cache"})
            data = data_config(**options, source="data")
            candidates = _baselines(store, data, model, seed)
        progress = {t: p for t in candidates for p in store.progress(t).values() if p.checkpoints}
        if not name:
            progress = {t: found for t, found in progress.items() if found.is_complete}
        if not progress:
            what = f"trial {name} of {uri}" if name else f"the baseline {model} s{seed} of {uri}"
            state = "kept no weights yet" if name else "is not complete"
            raise InputError(f"{KEY}: {what} {state}")
        return _file(store, progress, candidates)


def _check_classes(spec: SweepSpec, config: TrialConfig, what: str) -> None:
    """Refuse a network whose logits stand for other classes, or in another order.

    Raises:
        InputError: says both.
    """
    from mg_core.data import class_names

    place = (spec.data.root, spec.data.cache)
    options = spec.data.model_dump(exclude={"root", "cache"})
    own = class_names(data_config(**options, source="data"), *place)
    try:
        theirs = class_names(config.data, *place)
    except InputError:
        return  # Its data are not here; that their number fits is checked when it is loaded.
    if theirs != own:
        raise InputError(
            f"{KEY}: the classes of {what} are {', '.join(theirs)}, those of this sweep are "
            f"{', '.join(own)}; name the same ones in the same order"
        )


def _baselines(
    store: ResultStore, data: DataConfig, model: str, seed: int
) -> dict[str, TrialConfig]:
    found = {t: c for t, c in store.trials().items() if c.kind == "baseline"}
    fitting = {
        trial: config
        for trial, config in found.items()
        if (config.model, config.seed, config.data.key) == (model, seed, data.key)
    }
    if not fitting:
        labels = ", ".join(sorted({config.label for config in found.values()})) or "none"
        same = "" if any(c.data.key == data.key for c in found.values()) else ", of other data"
        raise InputError(
            f"{KEY}: {store.uri} has no baseline {model} s{seed} of these data; its baselines are "
            f"{labels}{same}; STORE{TRIAL}ID names any of its trials"
        )
    return fitting


def _file(
    store: ResultStore, progress: dict[str, Progress], configs: dict[str, TrialConfig]
) -> str:
    rows = store.rows(["trial_id", "epoch", "val_f1", "val_accuracy"], progress).to_pylist()
    kept = [row for row in rows if row["epoch"] in progress[row["trial_id"]].checkpoints]
    judges = {f"val_{judge(config.classification_loss)}" for config in configs.values()}
    metric = judges.pop() if len(judges) == 1 else "val_f1"
    if any(row[metric] is None for row in kept):
        metric = "val_f1"

    def order(row: dict[str, object]) -> tuple[float, int, int, str]:
        found, trial = row[metric], str(row["trial_id"])
        score = found if isinstance(found, float) and found == found else -1.0
        return -score, configs[trial].epochs, int(str(row["epoch"])), trial

    best = min(kept, key=order)
    found = progress[best["trial_id"]]
    key = found.checkpoints[best["epoch"]]
    digest = found.digests.get(key) or hashlib.sha256(store.get(key)).hexdigest()
    # A URI of object storage may end in settings of the connection.
    folder, mark, settings = store.uri.partition("?" if "://" in store.uri else "\0")
    return f"{folder.rstrip('/')}/{key}{mark}{settings}{DIGEST}{digest[:16]}"
