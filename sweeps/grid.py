"""The grid: one trial for each valid combination of a sweep's axes, baselines first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import prod
from typing import Any, TypeVar

from mg_core.attributions import ATTRIBUTIONS, INPUT
from mg_core.columns import AXES, configured
from mg_core.config import (
    NUMERICS_VERSION,
    DataConfig,
    EvaluationPair,
    GuidanceConfig,
    TrialConfig,
    digest,
)
from mg_core.data import data_config
from mg_core.data.dataset import variant_of
from mg_core.errors import InputError
from mg_core.guidance.pairs import check_pair
from mg_core.losses import LOSSES
from mg_core.models import MODELS
from mg_core.models.library import is_of_library
from mg_core.registry import Registry, import_variants
from mg_core.training.checks import check_recipe
from sweeps.guidances import GUIDANCE_AXES, check_annotations, guidances
from sweeps.origins import check_names, check_origins, origin_of, with_origins
from sweeps.spec import BlockSpec, SweepSpec
from sweeps.stages import KEYS, combinations, settings

MOST_TRIALS = 200_000
"""Combinations of a grid; each takes some 3 kB of memory and a file in the store."""
_DEFAULTS = {
    name: field.default
    for name, field in TrialConfig.model_fields.items()
    if not field.is_required()
}
TRAINED = {"epochs": 0, "learning_rate": 1e-4, "precision": "fp32", "weights": None}
"""Settings of a baseline that is trained already, for none of which it matters."""


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
        found = {
            axis.source.split(".")[-1]: Counter(configured(c, axis) for c in guided)
            for axis in AXES
            if axis.name != "localization_weight"
        }
        return {name: values for name, values in found.items() if len(values) > 1}


def expand(spec: SweepSpec) -> Grid:
    """Return the trials of a sweep.

    Raises:
        InputError: a name is unknown, a block has no valid combination, or two blocks share one.
    """
    import_variants(spec.imports)
    _misfit.cache_clear()  # The user may have changed own variants since the last call.
    _check_size(spec)
    _check_layers(spec)
    check_names(spec)
    spec = with_origins(spec)
    options = spec.data.model_dump(exclude={"root", "cache"})
    data = data_config(**options, source="data")
    guided: dict[str, TrialConfig] = {}
    starts: dict[tuple[str, int], list[Baseline]] = {}
    first: dict[str, tuple[BlockSpec, str, TrialConfig]] = {}
    grid = Grid()
    for number, block in enumerate(spec.grid):
        where = f"grid.{number}"
        _check_block(block, data, where)
        n_valid = 0
        stages = [
            (f"{number}.{n}", s) for n, s in enumerate(combinations(settings(spec.guided, block)))
        ]
        places = product(block.model, block.seed or spec.seed, guidances(block))
        for model, seed, named in places:
            guidance = _at_module(spec, model, named)
            reason = _misfit(model, guidance.attribution, guidance.layer)
            if reason and not guidance.is_none:
                grid.dropped[reason] += 1
                continue
            if (model, seed) not in starts:
                starts[model, seed] = _baselines(spec, data, model, seed)
            for start, (name, stage) in product(starts[model, seed], stages):
                trial_id, trial = start.guided(guidance, name, stage)
                if trial_id in guided and not guidance.is_none:
                    raise InputError(f"{where}: the combination {trial.label} stands twice")
                guided[trial_id] = trial
                n_valid += 1
                first.setdefault(name, (block, where, trial))
        if not n_valid:
            raise InputError(f"{where}: no valid combination; {'; '.join(grid.dropped)}")
    models = sorted({model for model, _ in starts})
    _check_evaluate(spec, models)
    _check_weights(spec, models)
    check_origins(spec, starts.keys())
    baselines = [start for found in starts.values() for start in found]
    grid.trials = {start.trial_id: start.config for start in baselines} | guided
    _check_recipes(baselines, first.values())
    return grid


def _check_size(spec: SweepSpec) -> None:
    """Raise an error for a grid that is too large to be listed, without listing it."""
    total = 0
    for number, block in enumerate(spec.grid):
        sizes = {name: len(getattr(block, name) or (None,)) for name in GUIDANCE_AXES}
        sizes |= {"loss": sum(map(len, block.loss.values()))}
        sizes |= {"model": len(block.model), "seed": len(block.seed or spec.seed)}
        sizes |= {key: len(values) for key, values in settings(spec.guided, block).items()}
        baseline = {f"baseline.{key}": len(v) for key, v in settings(spec.baseline).items()}
        sizes |= baseline
        total += prod(sizes.values())
        axes = sorted((name for name in sizes if sizes[name] > 1), key=lambda n: -sizes[n])
        shown = " × ".join(f"{sizes[name]:,} {name}" for name in axes)
        if total > MOST_TRIALS:
            raise InputError(
                f"grid: {total:,} combinations are more than the {MOST_TRIALS:,} that a sweep may "
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
        name, published = _weights(spec, model), MODELS[model].pretrained
        # A path or an address may exist on the nodes only; a name must be one of the model's.
        if name is not None and name not in published and "/" not in name:
            raise InputError(
                f"weights: model {model!r} has no weights called {name!r}; choose from "
                f"{', '.join(published) or 'none'}, or give a path or an http(s) address; there "
                "is no file of this name in the current folder"
            )


AtLayer = TypeVar("AtLayer", GuidanceConfig, EvaluationPair)


def _at_module(spec: SweepSpec, model: str, place: AtLayer) -> AtLayer:
    """Return a place at the module that `layers` names for its layer, if it names one."""
    module = spec.layers.get(model, {}).get(place.layer)
    return place.model_copy(update={"layer": module}) if module else place


def _check_layers(spec: SweepSpec) -> None:
    models = {model for block in spec.grid for model in block.model}
    _check(spec.layers, sorted(models), "layers: the grid has no model")
    for model in spec.layers:
        if not is_of_library(model):
            raise InputError(
                f"layers: model {model!r} names its guidance layers itself; only those of a "
                "library's network can be others"
            )


@cache
def _misfit(model: str, attribution: str, layer: str) -> str | None:
    try:
        check_pair(model, attribution, layer)
    except InputError as error:
        return str(error)
    return None


def _weights(spec: SweepSpec, model: str) -> str | None:
    return spec.weights.get(model) if isinstance(spec.weights, dict) else spec.weights


def _baselines(spec: SweepSpec, data: DataConfig, model: str, seed: int) -> list[Baseline]:
    """Return the baselines of a model and seed, one for each combination of their settings."""
    stages = settings(spec.baseline)
    own: dict[str, Any] = {"weights": _weights(spec, model)}
    if origin := origin_of(spec, model, seed):
        # A network that is not trained has no settings of training in its id.
        stages, own = {"batch_size": stages["batch_size"]}, TRAINED | {"origin": origin}
    elif "epochs" not in stages:
        raise InputError(
            f"baseline: 'epochs' is missing, and 'from' names no network of model {model!r} "
            f"and seed {seed}"
        )
    configs = [
        TrialConfig(
            numerics=NUMERICS_VERSION,
            data=data,
            model=model,
            seed=seed,
            baseline=None,
            guidance=None,
            evaluate=(),
            **own,
            **stage,
        )
        for stage in combinations(stages)
    ]
    return [Baseline(spec, config) for config in configs]


class Baseline:
    """The baseline of a model and seed, from which its guided trials are made.

    Args:
        spec: the sweep.
        config: configuration of the baseline.
    """

    def __init__(self, spec: SweepSpec, config: TrialConfig) -> None:
        self.config, self.trial_id = config, config.trial_id
        self._evaluate = [_at_module(spec, config.model, pair) for pair in spec.evaluate]
        self._guided = [
            _at_module(spec, config.model, EvaluationPair(attribution=attribution, layer=layer))
            for block in spec.grid
            if config.model in block.model
            for attribution, layer in product(block.attribution, block.layer)
        ]
        self._pairs: dict[tuple[str, str], tuple[EvaluationPair, ...]] = {}
        self._hashed: dict[tuple[str, str, str], tuple[str, str]] = {}

    def guided(
        self, guidance: GuidanceConfig, name: str, stage: dict[str, Any]
    ) -> tuple[str, TrialConfig]:
        """Return a guided trial that starts from this baseline, with its id.

        Args:
            guidance: how it is guided.
            name: of its training settings, the same for equal ones.
            stage: its training settings.
        """
        place = (guidance.attribution, guidance.layer)
        if place not in self._pairs:
            self._pairs[place] = self._pairs_at(guidance)
        # What the baseline has and this stage does not say is at its default.
        update = {**_DEFAULTS, **stage, "baseline": self.trial_id}
        update |= {"guidance": guidance, "evaluate": self._pairs[place]}
        trial = self.config.model_copy(update=update)
        # Such trials differ in their guidance alone, so the rest is made into text once.
        own = guidance.canonical
        shared = (*place, name)
        if shared not in self._hashed:
            before, _, after = trial.canonical.partition(own)
            self._hashed[shared] = before, after
        before, after = self._hashed[shared]
        return digest(before + own + after), trial

    def _pairs_at(self, guidance: GuidanceConfig) -> tuple[EvaluationPair, ...]:
        # What is guided nowhere is judged wherever something is.
        at = EvaluationPair(attribution=guidance.attribution, layer=guidance.layer)
        own = self._guided if guidance.is_none else [at]
        pairs = {
            str(pair): pair
            for pair in [*own, *self._evaluate]
            if _misfit(self.config.model, pair.attribution, pair.layer) is None
        }
        return tuple(pairs[name] for name in sorted(pairs))


def _check_recipes(
    baselines: Iterable[Baseline], guided: Iterable[tuple[BlockSpec, str, TrialConfig]]
) -> None:
    """Raise an error for training settings that cannot be trained.

    Args:
        baselines: all of them; those that train with equal settings are checked once.
        guided: a trial of each combination of settings, with its block and the block's place.
    """
    trained = [start.config for start in baselines if start.config.origin is None]
    distinct = {tuple(str(getattr(config, key)) for key in KEYS): config for config in trained}
    for config in distinct.values():
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
        places = [(model, _at_module(spec, model, pair)) for model in models]
        reasons = [_misfit(model, at.attribution, at.layer) for model, at in places]
        if all(reasons):
            raise InputError(f"evaluate.{number}: {reasons[0]}")
