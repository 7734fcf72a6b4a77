"""The grid: every valid combination of a sweep's axes as a trial, baselines first."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from mg_core.attributions import ATTRIBUTIONS, INPUT
from mg_core.config import (
    NUMERICS_VERSION,
    DataConfig,
    EvaluationPair,
    GuidanceConfig,
    TrialConfig,
    parse,
)
from mg_core.data import DATASETS
from mg_core.errors import InputError
from mg_core.guidance.pairs import check_pair
from mg_core.losses import LOSSES
from mg_core.models import MODELS
from mg_core.registry import Registry
from sweeps.spec import BlockSpec, SweepSpec


@dataclass
class Grid:
    """The trials of a sweep.

    Attributes:
        trials: by id, baselines before the guided trials that start from them.
        dropped: how many combinations of the product were left out, by reason.
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


def expand(spec: SweepSpec) -> Grid:
    """Work out the trials of a sweep.

    Raises:
        InputError: an unknown variant, a block without a valid combination, or a combination
            that two blocks share.
    """
    import_variants(spec.imports)
    _misfit.cache_clear()  # The user's own variants may be others than the last time.
    data = _data_config(spec)
    guided: dict[str, TrialConfig] = {}
    baselines: dict[str, TrialConfig] = {}
    starts: dict[tuple[str, int], str] = {}
    grid = Grid()
    for number, block in enumerate(spec.grid):
        _check_names(block, f"grid.{number}")
        _check_layers(block, f"grid.{number}")
        _check_tasks(block, spec.data.name, f"grid.{number}")
        before = len(guided)
        for model, seed, guidance in _combinations(spec, block):
            reason = _misfit(model, guidance.attribution, guidance.layer)
            if reason:
                grid.dropped[reason] += 1
                continue
            if (model, seed) not in starts:
                baseline = _baseline(spec, data, model, seed)
                starts[model, seed] = baseline.trial_id
                baselines[baseline.trial_id] = baseline
            start = starts[model, seed]
            trial = _guided(spec, baselines[start], start, guidance)
            trial_id = trial.trial_id
            if trial_id in guided:
                raise InputError(f"grid.{number}: the combination {trial.label} stands twice")
            guided[trial_id] = trial
        if len(guided) == before:
            raise InputError(f"grid.{number}: no valid combination; {'; '.join(grid.dropped)}")
    _check_evaluate(spec, baselines)
    _check_weights(spec, {config.model for config in baselines.values()})
    grid.trials = baselines | guided
    return grid


def import_variants(modules: tuple[str, ...]) -> None:
    """Import the modules that register the user's own variants.

    Raises:
        InputError: one of them cannot be found.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, TypeError, ValueError) as error:
            raise InputError(
                f"imports: module {module!r} cannot be imported ({error}); "
                "install it on every node or put it on PYTHONPATH"
            ) from None


def _check_names(block: BlockSpec, where: str) -> None:
    named: list[tuple[str, Registry[object], tuple[str, ...]]] = [
        ("model", MODELS, block.model),  # type: ignore[list-item]
        ("attribution", ATTRIBUTIONS, block.attribution),  # type: ignore[list-item]
        ("loss", LOSSES, tuple(block.loss)),  # type: ignore[list-item]
    ]
    for key, registry, names in named:
        for name in names:
            try:
                registry[name]
            except InputError as error:
                raise InputError(f"{where}.{key}: {error}") from None


def _check_layers(block: BlockSpec, where: str) -> None:
    """Refuse a layer that none of the block's models has: a misspelt name is no combination."""
    for layer in block.layer:
        known = [INPUT, *(name for m in block.model for name in MODELS[m].guidance_layers)]
        if layer not in known:
            names = ", ".join(dict.fromkeys(known))
            raise InputError(
                f"{where}.layer: no model of this block has layer {layer!r}; choose from {names}"
            )


def _check_weights(spec: SweepSpec, models: set[str]) -> None:
    """Refuse weights of models that are not in the grid, and names that a model does not have."""
    weights = spec.weights
    for model in weights if isinstance(weights, dict) else ():
        if model not in models:
            raise InputError(
                f"weights: model {model!r} is not in the grid; choose from "
                f"{', '.join(sorted(models))}"
            )
    for model in sorted(models):
        name = weights.get(model) if isinstance(weights, dict) else weights
        published = MODELS[model].pretrained
        # A path or address is for the nodes to find; a bare name must be one of the model's.
        if name is not None and name not in published and "/" not in name:
            raise InputError(
                f"weights: model {model!r} has no weights called {name!r}; choose from "
                f"{', '.join(published) or 'none'}, or give a path or an http(s) address"
            )


def _check_tasks(block: BlockSpec, dataset: str, where: str) -> None:
    tasks = DATASETS[dataset].tasks
    for task in block.task or ():
        if task not in tasks:
            raise InputError(
                f"{where}.task: data set {dataset} has no task {task!r}; "
                f"choose from {', '.join(tasks) or 'none'}"
            )


def _data_config(spec: SweepSpec) -> DataConfig:
    try:
        variant = DATASETS[spec.data.name]
    except InputError as error:
        raise InputError(f"data.name: {error}") from None
    options = parse(variant.Options, spec.data.options, "data.options")
    return DataConfig(
        name=spec.data.name,
        image_size=spec.data.image_size,
        horizontal_flip=spec.data.horizontal_flip,
        # All options with their values, so that an id does not depend on which were spelt out.
        options=options.model_dump(mode="json", exclude_none=True),
    )


def _combinations(spec: SweepSpec, block: BlockSpec) -> Iterator[tuple[str, int, GuidanceConfig]]:
    weighted_losses = [(loss, weight) for loss, weights in block.loss.items() for weight in weights]
    axes = product(
        block.model,
        block.seed or spec.seed,
        block.attribution,
        block.layer,
        weighted_losses,
        block.reduction,
        block.annotated_fraction,
        block.box_dilation,
        block.task or (None,),
    )
    for model, seed, attribution, layer, (
        loss,
        weight,
    ), reduction, fraction, dilation, task in axes:
        yield (
            model,
            seed,
            GuidanceConfig(
                attribution=attribution,
                layer=layer,
                loss=loss,
                localization_weight=weight,
                reduction=reduction,
                annotated_fraction=fraction,
                box_dilation=dilation,
                task=task,
            ),
        )


@cache
def _misfit(model: str, attribution: str, layer: str) -> str | None:
    try:
        check_pair(model, attribution, layer)
    except InputError as error:
        return str(error)
    return None


def _baseline(spec: SweepSpec, data: DataConfig, model: str, seed: int) -> TrialConfig:
    weights = spec.weights.get(model) if isinstance(spec.weights, dict) else spec.weights
    return TrialConfig(
        numerics=NUMERICS_VERSION,
        data=data,
        model=model,
        weights=weights,
        seed=seed,
        baseline=None,
        guidance=None,
        evaluate=(),
        **spec.baseline.model_dump(),
    )


def _guided(
    spec: SweepSpec, baseline: TrialConfig, baseline_id: str, guidance: GuidanceConfig
) -> TrialConfig:
    own = EvaluationPair(attribution=guidance.attribution, layer=guidance.layer)
    further = [
        pair
        for pair in spec.evaluate
        if _misfit(baseline.model, pair.attribution, pair.layer) is None
    ]
    pairs = {str(pair): pair for pair in [own, *further]}
    return baseline.model_copy(
        update={
            **spec.guided.model_dump(),
            "baseline": baseline_id,
            "guidance": guidance,
            "evaluate": tuple(pairs[name] for name in sorted(pairs)),
        }
    )


def _check_evaluate(spec: SweepSpec, baselines: dict[str, TrialConfig]) -> None:
    models = {config.model for config in baselines.values()}
    for number, pair in enumerate(spec.evaluate):
        reasons = [_misfit(model, pair.attribution, pair.layer) for model in sorted(models)]
        if all(reasons):
            raise InputError(f"evaluate.{number}: {reasons[0]}")
