"""The baselines of a sweep, and the guided trials that start from each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from mg_core.config import (
    NUMERICS_VERSION,
    DataConfig,
    EvaluationPair,
    GuidanceConfig,
    TrialConfig,
    digest,
)
from mg_core.errors import InputError
from sweeps.origins import origin_of
from sweeps.places import at_module, misfit
from sweeps.spec import SweepSpec
from sweeps.stages import combinations, settings
from sweeps.texts import pieces

_DEFAULTS = {
    name: field.default
    for name, field in TrialConfig.model_fields.items()
    if not field.is_required()
}
TRAINED = {"epochs": 0, "learning_rate": 1e-4, "precision": "fp32", "weights": None}
"""Settings of a baseline that is trained already, for none of which it matters."""


class Starts:
    """The baselines of a sweep by model and seed, each made when it is first asked for.

    Args:
        spec: the sweep.
        data: the data set of all trials.

    Attributes:
        found: the baselines that were asked for: one for each combination of their settings.
    """

    def __init__(self, spec: SweepSpec, data: DataConfig) -> None:
        self._spec, self._data = spec, data
        self._kinds: dict[tuple[str, str | None], list[BaselineKind]] = {}
        self.found: dict[tuple[str, int], list[Baseline]] = {}

    def of(self, model: str, seed: int) -> list[Baseline]:
        """Return the baselines of a model and seed."""
        if (model, seed) not in self.found:
            origin = origin_of(self._spec, model, seed)
            if (model, origin) not in self._kinds:
                self._kinds[model, origin] = _kinds(self._spec, self._data, model, seed, origin)
            self.found[model, seed] = [kind.at(seed) for kind in self._kinds[model, origin]]
        return self.found[model, seed]

    @property
    def trained(self) -> list[TrialConfig]:
        """One baseline of each model and combination of settings that is trained here."""
        return [
            kind.config for (_, origin), of in self._kinds.items() if origin is None for kind in of
        ]

    @property
    def trials(self) -> dict[str, TrialConfig]:
        """All baselines that were asked for, by id."""
        return {start.trial_id: start.config for of in self.found.values() for start in of}


def weights_of(spec: SweepSpec, model: str) -> str | None:
    """Return the initial weights of a model's baselines."""
    return spec.weights.get(model) if isinstance(spec.weights, dict) else spec.weights


def _kinds(
    spec: SweepSpec, data: DataConfig, model: str, seed: int, origin: str | None
) -> list[BaselineKind]:
    stages = settings(spec.baseline)
    own: dict[str, Any] = {"weights": weights_of(spec, model)}
    if origin:
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
    return [BaselineKind(spec, config) for config in configs]


class BaselineKind:
    """Baselines that differ in their seed alone.

    Args:
        spec: the sweep.
        config: one of them.
    """

    def __init__(self, spec: SweepSpec, config: TrialConfig) -> None:
        self.config = config
        self._text = pieces(config, "seed")
        self._evaluate = [at_module(spec, config.model, pair) for pair in spec.evaluate]
        self._guided = [
            at_module(spec, config.model, EvaluationPair(attribution=attribution, layer=layer))
            for block in spec.grid
            if config.model in block.model
            for attribution, layer in product(block.attribution, block.layer)
        ]
        self._children: dict[tuple[str, str, str], tuple[TrialConfig, list[str]]] = {}

    def at(self, seed: int) -> Baseline:
        """Return the baseline of a seed."""
        config = self.config.model_copy(update={"seed": seed})
        return Baseline(self, digest(str(seed).join(self._text)), config)

    def child(
        self, guidance: GuidanceConfig, name: str, stage: dict[str, Any]
    ) -> tuple[TrialConfig, list[str]]:
        """Return a guided trial, and the text around what may be another's; see `Baseline.guided`.

        Those with equal settings differ in their guidance, baseline and seed alone.
        """
        shared = (guidance.attribution, guidance.layer, name)
        if shared not in self._children:
            # What the baseline has and this stage does not say is at its default.
            update = {**_DEFAULTS, **stage, "guidance": guidance, "evaluate": self._pairs(guidance)}
            trial = self.config.model_copy(update=update)
            self._children[shared] = trial, pieces(trial, "baseline", "guidance", "seed")
        return self._children[shared]

    def _pairs(self, guidance: GuidanceConfig) -> tuple[EvaluationPair, ...]:
        # What is guided nowhere is judged wherever something is.
        at = EvaluationPair(attribution=guidance.attribution, layer=guidance.layer)
        own = self._guided if guidance.is_none else [at]
        pairs = {
            str(pair): pair
            for pair in [*own, *self._evaluate]
            if misfit(self.config.model, pair.attribution, pair.layer) is None
        }
        return tuple(pairs[name] for name in sorted(pairs))


@dataclass(frozen=True)
class Baseline:
    """A baseline, from which guided trials are made.

    Attributes:
        kind: what it has in common with those of other seeds.
        trial_id: its id.
        config: its configuration.
    """

    kind: BaselineKind
    trial_id: str
    config: TrialConfig

    def guided(
        self, guidance: GuidanceConfig, text: str, name: str, stage: dict[str, Any]
    ) -> tuple[str, TrialConfig]:
        """Return a guided trial that starts from this baseline, with its id.

        Args:
            guidance: how it is guided.
            text: the canonical text of that.
            name: of its training settings, the same for equal ones.
            stage: its training settings.
        """
        trial, (start, middle, late, end) = self.kind.child(guidance, name, stage)
        seed = self.config.seed
        own = {"baseline": self.trial_id, "guidance": guidance, "seed": seed}
        whole = f'{start}"{self.trial_id}"{middle}{text}{late}{seed}{end}'
        return digest(whole), trial.model_copy(update=own)
