"""The grid: one trial for each valid combination of a sweep's axes, baselines first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import attrgetter
from typing import Any

from mg_core.attributions import ATTRIBUTIONS, INPUT
from mg_core.columns import AXES, as_value
from mg_core.config import DataConfig, TrialConfig
from mg_core.data import data_config
from mg_core.data.dataset import variant_of
from mg_core.errors import InputError
from mg_core.losses import LOSSES
from mg_core.models import MODELS
from mg_core.models.library import is_of_library
from mg_core.registry import Registry, import_variants
from mg_core.training.checks import check_recipe
from sweeps.guidances import GUIDANCE_AXES, check_annotations, guidances
from sweeps.origins import check_names, check_origins, with_origins
from sweeps.places import at_module, misfit
from sweeps.spec import BlockSpec, SweepSpec
from sweeps.stages import combinations, settings
from sweeps.starts import Starts, weights_of

MOST_TRIALS = 200_000
"""Trials of a sweep, baselines included; each takes some 3 kB of memory and a file in the store."""


@dataclass
class Grid:
    """The trials of a sweep.

    Attributes:
        trials: configurations by id, baselines before the guided trials.
        dropped: number of combinations that were left out, by reason.
    """

    trials: dict[str, TrialConfig] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def baselines(self) -> dict[str, TrialConfig]:
        """The trials of the first stage."""
        return {key: c for key, c in self.trials.items() if c.kind == "baseline"}

    @property
    def guided(self) -> dict[str, TrialConfig]:
        """The trials of the second stage."""
        return {key: c for key, c in self.trials.items() if c.kind == "guided"}

    def axes(self) -> dict[str, Counter[Any]]:
        """Count the guided trials by value, for each axis with several values except λ."""
        guided = self.guided.values()
        found: dict[str, Counter[Any]] = {}
        for axis in AXES:
            values = Counter(map(attrgetter(axis.source), guided))
            if axis.name != "localization_weight" and len(values) > 1:
                name = axis.source.split(".")[-1]
                found[name] = Counter()
                for value, number in values.items():
                    found[name][as_value(value, axis)] += number
        return found


def expand(spec: SweepSpec) -> Grid:
    """Return the trials of a sweep.

    Raises:
        InputError: a name is unknown, a block has no valid combination, or two blocks share one.
    """
    import_variants(spec.imports)
    misfit.cache_clear()  # The user may have changed own variants since the last call.
    _check_size(spec)
    _check_layers(spec)
    check_names(spec)
    spec = with_origins(spec)
    options = spec.data.model_dump(exclude={"root", "cache"})
    data = data_config(**options, source="data")
    starts = Starts(spec, data)
    guided: dict[str, TrialConfig] = {}
    first: dict[str, tuple[BlockSpec, str, TrialConfig]] = {}
    grid = Grid()
    for number, block in enumerate(spec.grid):
        where = f"grid.{number}"
        _check_block(block, data, where)
        n_valid = 0
        for trial_id, trial, name in _guided(spec, number, starts, grid.dropped):
            if trial_id in guided and trial.guidance and not trial.guidance.is_none:
                raise InputError(f"{where}: the combination {trial.label} stands twice")
            guided[trial_id] = trial
            n_valid += 1
            first.setdefault(name, (block, where, trial))
        if not n_valid:
            raise InputError(f"{where}: no valid combination; {'; '.join(grid.dropped)}")
    models = sorted({model for model, _ in starts.found})
    _check_evaluate(spec, models)
    _check_weights(spec, models)
    check_origins(spec, starts.found.keys())
    grid.trials = starts.trials | guided
    _check_recipes(starts.trained, first.values())
    return grid


def _guided(
    spec: SweepSpec, number: int, starts: Starts, dropped: Counter[str]
) -> Iterator[tuple[str, TrialConfig, str]]:
    """Yield id and configuration of a block's guided trials, with a name of their settings.

    Combinations that are left out are counted in `dropped`.
    """
    block = spec.grid[number]
    named, seeds = guidances(block), block.seed or spec.seed
    stages = [
        (f"{number}.{n}", s) for n, s in enumerate(combinations(settings(spec.guided, block)))
    ]
    for model in block.model:
        fitting = []
        for guidance, text in named:
            at = at_module(spec, model, guidance)
            reason = misfit(model, at.attribution, at.layer)
            if reason and not at.is_none:
                dropped[reason] += len(seeds)
            else:
                fitting.append((at, text if at is guidance else at.canonical))
        for seed in seeds if fitting else ():
            combined = product(fitting, starts.of(model, seed), stages)
            for (guidance, text), start, (name, stage) in combined:
                yield (*start.guided(guidance, text, name, stage), name)


def _check_size(spec: SweepSpec) -> None:
    """Raise an error for a grid that is too large to be listed, without listing it."""
    total, n_starts = 0, prod(map(len, settings(spec.baseline).values()))
    starts: set[tuple[str, int]] = set()
    for number, block in enumerate(spec.grid):
        seeds = block.seed or spec.seed
        sizes = {name: len(getattr(block, name) or (None,)) for name in GUIDANCE_AXES}
        sizes |= {"loss": sum(map(len, block.loss.values()))}
        sizes |= {"model": len(block.model), "seed": len(seeds)}
        sizes |= {key: len(values) for key, values in settings(spec.guided, block).items()}
        sizes |= {f"baseline.{key}": len(v) for key, v in settings(spec.baseline).items()}
        total += prod(sizes.values())
        axes = sorted((name for name in sizes if sizes[name] > 1), key=lambda n: -sizes[n])
        shown = " × ".join(f"{sizes[name]:,} {name}" for name in axes)
        found = f"{total:,} combinations"
        if total <= MOST_TRIALS:  # There are no more baselines than combinations.
            starts.update(product(block.model, seeds))
            found += f" and their {n_starts * len(starts):,} baselines"
        if total + n_starts * len(starts) > MOST_TRIALS:
            raise InputError(
                f"grid: {found} are more than the {MOST_TRIALS:,} that a sweep may "
                f"have; grid.{number} has {shown}; make several sweeps of it"
            )


def _check_block(block: BlockSpec, data: DataConfig, where: str) -> None:
    registries: dict[str, Registry[Any]] = {
        "model": MODELS,
        "attribution": ATTRIBUTIONS,
        "loss": LOSSES,
    }
    for key, registry in registries.items():
        for name in getattr(block, key):
            try:
                registry[name]
            except InputError as error:
                raise InputError(f"{where}.{key}: {error}") from None
    # A layer that no model has is a mistake; one that some models lack leaves out combinations.
    layers = dict.fromkeys(
        [INPUT, *(name for m in block.model for name in MODELS[m].guidance_layers)]
    )
    if not any(is_of_library(model) for model in block.model):
        _check(block.layer, layers, f"{where}.layer: no model of this block has layer")
    check_annotations(block, where)
    dataset, options = variant_of(data)
    tasks = dataset.task_names(options)
    _check(block.task or (), tasks, f"{where}.task: data set {data.name} has no task")


def _check(names: Iterable[str], allowed: Collection[str], problem: str) -> None:
    """Raise an error that starts with `problem` for a name that is not allowed."""
    for name in names:
        if name not in allowed:
            choices = ", ".join(allowed) or "none"
            raise InputError(f"{problem} {name!r}; choose from {choices}")


def _check_weights(spec: SweepSpec, models: list[str]) -> None:
    """Raise an error for weights of a model outside the grid, or that the model does not have."""
    if isinstance(spec.weights, dict):
        _check(spec.weights, models, "weights: the grid has no model")
    for model in models:
        name, published = weights_of(spec, model), MODELS[model].pretrained
        # A path or an address may exist on the nodes only; a name must be one of the model's.
        if name is not None and name not in published and "/" not in name:
            raise InputError(
                f"weights: model {model!r} has no weights called {name!r}; choose from "
                f"{', '.join(published) or 'none'}, or give a path or an http(s) address; there "
                "is no file of this name in the current folder"
            )


def _check_layers(spec: SweepSpec) -> None:
    models = {model for block in spec.grid for model in block.model}
    _check(spec.layers, sorted(models), "layers: the grid has no model")
    for model in spec.layers:
        if not is_of_library(model):
            raise InputError(
                f"layers: model {model!r} names its guidance layers itself; only those of a "
                "library's network can be others"
            )


def _check_recipes(
    baselines: Iterable[TrialConfig], guided: Iterable[tuple[BlockSpec, str, TrialConfig]]
) -> None:
    """Raise an error for training settings that cannot be trained.

    Args:
        baselines: one of each combination of settings that is trained.
        guided: a trial of each combination of settings, with its block and the block's place.
    """
    for config in baselines:
        try:
            check_recipe(config)
        except InputError as error:
            raise InputError(f"baseline.{error}") from None
    for block, where, config in guided:
        try:
            check_recipe(config)
        except InputError as error:
            is_own = getattr(block, str(error).partition(":")[0]) is not None
            raise InputError(f"{where if is_own else 'guided'}.{error}") from None


def _check_evaluate(spec: SweepSpec, models: list[str]) -> None:
    for number, pair in enumerate(spec.evaluate):
        places = [(model, at_module(spec, model, pair)) for model in models]
        reasons = [misfit(model, at.attribution, at.layer) for model, at in places]
        if all(reasons):
            raise InputError(f"evaluate.{number}: {reasons[0]}")
