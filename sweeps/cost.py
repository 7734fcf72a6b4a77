"""Expected times of trials, from measured times in the store and the models' GFLOPs."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Mapping

from mg_core.config import TrialConfig
from mg_core.models import MODELS
from mg_core.store.progress import Progress

DEPTHS = {"input": 2.1, "mid1": 1.85, "mid2": 1.6, "mid3": 1.3}
"""Cost of a guided step relative to an unguided one, by layer; 1 at all other layers.

The earlier the layer, the longer the backward pass of its explanation.
"""


class Costs:
    """Expected times of the trials of a sweep.

    The static cost of an epoch is scaled by the measured times of similar trials: those with the
    same model, attribution and layer; if there are none, those with the same model and stage;
    then those of the same stage; then all.

    Args:
        trials: configurations of all trials of the sweep, by id.
        progress: progress of the trials that have committed an epoch, by id.
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
        self._epoch: dict[tuple[Hashable, ...], float] = {}

    @property
    def is_measured(self) -> bool:
        """Whether times are in seconds; without any measured time they are relative."""
        return bool(self._scale)

    def epoch(self, config: TrialConfig) -> float:
        """Return the expected time of an epoch."""
        groups = tuple(_groups(config))
        if groups not in self._epoch:
            scale = next((self._scale[group] for group in groups if group in self._scale), 1.0)
            self._epoch[groups] = static_cost(config) * scale
        return self._epoch[groups]

    def left(self, trial_id: str, config: TrialConfig) -> float:
        """Return the expected time of the epochs that a trial still needs."""
        return self.epoch(config) * epochs_left(config, self._progress.get(trial_id))


def epochs_left(config: TrialConfig, progress: Progress | None) -> int:
    """Return how many epochs a trial still needs, including epoch 0 of a guided one."""
    if progress is not None and progress.is_complete:
        return 0
    return config.epochs - (progress.epoch if progress else config.first_epoch - 1)


def finish_time(
    trials: Mapping[str, TrialConfig], seconds: Mapping[str, float], n_workers: int
) -> float:
    """Return when the last of some trials ends that run on a number of workers.

    As in a run, baselines start before guided trials, long ones before short ones, and a guided
    trial when its baseline is complete.

    Args:
        trials: configurations of all trials of the sweep, by id.
        seconds: times of those that run, by id.
        n_workers: how many run at a time.
    """
    waiting: dict[str, list[str]] = {}
    ready: list[tuple[bool, float, str]] = []

    def release(trial_id: str) -> None:
        is_guided = trials[trial_id].kind == "guided"
        heapq.heappush(ready, (is_guided, -seconds[trial_id], trial_id))

    for trial_id in seconds:
        baseline = trials[trial_id].baseline
        if baseline in seconds:
            waiting.setdefault(str(baseline), []).append(trial_id)
        else:
            release(trial_id)
    now, running = 0.0, list[tuple[float, str]]()
    while ready or running:
        while ready and len(running) < n_workers:
            _, time, trial_id = heapq.heappop(ready)
            heapq.heappush(running, (now - time, trial_id))
        now, ended = heapq.heappop(running)
        for trial_id in waiting.pop(ended, []):
            release(trial_id)
    return now


def static_cost(config: TrialConfig) -> float:
    """Return the relative cost of an epoch, from the model and the guided layer."""
    # `mg-sweep status` does not import the user's own models.
    gflops = MODELS[config.model].gflops if config.model in MODELS else 1.0
    layer = config.guidance.layer if config.guidance else ""
    return gflops * DEPTHS.get(layer, 1.0)


def _groups(config: TrialConfig) -> Iterable[Hashable]:
    if config.guidance is not None:
        yield config.model, config.guidance.attribution, config.guidance.layer
    yield config.model, config.kind
    yield config.kind
    yield ()
