"""What trials are expected to take: from what others of the store took, else from their models."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from mg_core.config import TrialConfig
from mg_core.store.progress import Progress

BACKBONES = {"resnet50": 4.1, "densenet121": 2.9, "vit_s": 4.6, "vitc_s": 4.6, "resnet18": 1.8}
"""Relative cost of a forward pass, in GFLOPs at 224 × 224; any other model counts as 1."""

DEPTHS = {"input": 2.1, "mid1": 1.85, "mid2": 1.6, "mid3": 1.3}
"""A guided step against an unguided one: an explanation at an earlier layer takes a longer
backward pass. Any other layer counts as 1."""


class Costs:
    """Expected times of the trials of a sweep.

    A static estimate is scaled by what similar trials took: those of the same model, attribution
    and layer if there are any, else of the same model and stage, else of the same stage, else all.

    Args:
        trials: of the sweep.
        progress: of those that have committed an epoch.
    """

    def __init__(self, trials: Mapping[str, TrialConfig], progress: Mapping[str, Progress]) -> None:
        self._progress = progress
        took: dict[Hashable, list[float]] = {}
        for trial_id, done in progress.items():
            config = trials.get(trial_id)
            if config is None or not done.seconds:
                continue
            n_epochs = done.epoch - config.first_epoch + 1
            for group in _groups(config):
                sums = took.setdefault(group, [0.0, 0.0])
                sums[0] += done.seconds
                sums[1] += static_cost(config) * n_epochs
        self._scale = {group: seconds / units for group, (seconds, units) in took.items()}

    @property
    def is_measured(self) -> bool:
        """Whether estimates are in seconds, because some trial has recorded its times."""
        return bool(self._scale)

    def epoch(self, config: TrialConfig) -> float:
        """Return what an epoch is expected to take."""
        scale = next((self._scale[g] for g in _groups(config) if g in self._scale), 1.0)
        return static_cost(config) * scale

    def left(self, trial_id: str, config: TrialConfig) -> float:
        """Return what the epochs that a trial still needs are expected to take."""
        return self.epoch(config) * epochs_left(config, self._progress.get(trial_id))


def epochs_left(config: TrialConfig, progress: Progress | None) -> int:
    """Return how many epochs a trial still needs, epoch 0 of a guided one included."""
    return config.epochs - (progress.epoch if progress else config.first_epoch - 1)


def static_cost(config: TrialConfig) -> float:
    """Return the relative cost of an epoch, from the model and where it is explained."""
    backbone = config.model.partition("_")[2]
    layer = config.guidance.layer if config.guidance else ""
    return BACKBONES.get(backbone, 1.0) * DEPTHS.get(layer, 1.0)


def _groups(config: TrialConfig) -> Iterable[Hashable]:
    if config.guidance is not None:
        yield config.model, config.guidance.attribution, config.guidance.layer
    yield config.model, config.kind
    yield config.kind
    yield ()
