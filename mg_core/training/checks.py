"""What a trial's recipe may be, checked before anything is trained.

PyTorch is imported only where a recipe names what only PyTorch knows.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

from mg_core.columns import BY_METRIC
from mg_core.config import TrialConfig
from mg_core.data.dataset import variant_of
from mg_core.errors import InputError
from mg_core.losses import CLASSIFICATION_LOSSES, NEEDS_ONE_LABEL
from mg_core.training.schedule import SCHEDULES, Span, rate_factor

if TYPE_CHECKING:
    from mg_core.data import Split

PLAIN = ("adam", "adamw", "sgd")
"""Optimisers that need no check as long as they have no arguments."""


def check_recipe(config: TrialConfig) -> None:
    """Refuse a recipe that cannot be trained.

    Raises:
        InputError: the sentence begins with the key.
    """
    for key, check in _CHECKS.items():
        try:
            check(config)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None


def check_labels(split: Split, config: TrialConfig) -> None:
    """Refuse images without exactly one label, where the classification loss needs it.

    Raises:
        InputError: says how many images are wrong.
    """
    n_wrong = int((split.labels.sum(axis=1) != 1).sum())
    if n_wrong and config.classification_loss in NEEDS_ONE_LABEL:
        raise InputError(
            f"classification_loss: {config.classification_loss} needs exactly one label in each "
            f"image, and {n_wrong} of {len(split)} training images have none or several; use bce"
        )


def check_task(split: Split, first: Split, task: str) -> None:
    """Refuse a task that does not go on from what the baseline has learnt.

    Args:
        split: the training images with the labels of the task.
        first: the same images with those of the data set's first task, the baseline's.
        task: its name, for the message.

    Raises:
        InputError: says how many labels differ.
    """
    if len(split.classes) != len(first.classes):
        differs = f"it has {len(split.classes)} classes, not {len(first.classes)},"
    elif n_other := int((split.labels != first.labels).any(axis=1).sum()):
        differs = f"{n_other} of {len(split)} training images have another label"
    else:
        return
    raise InputError(
        f"task: {task!r} is not what the baseline learns: {differs} than in the data set's first "
        f"task; give {task} a sweep of its own, in which the option tasks begins with it"
    )


def _check_optimizer(config: TrialConfig) -> None:
    if config.optimizer.name in PLAIN and not config.optimizer.arguments:
        return
    from mg_core.training.recipe import check_optimizer

    check_optimizer(config)


def _check_schedule(config: TrialConfig) -> None:
    name, arguments = config.schedule.name, config.schedule.arguments
    course, span = SCHEDULES[name], Span(0.0, config.epochs)
    try:
        inspect.signature(course).bind(0.0, span, **arguments)
        factors = [
            rate_factor(config.schedule, 0.0, config.epochs, epoch, 1.0)
            for epoch in range(config.epochs)
        ]
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        allowed = ", ".join([*inspect.signature(course).parameters][2:]) or "none"
        raise InputError(f"{name}: {error}; its arguments are {allowed}") from None
    if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
        raise InputError(f"{config.schedule} gives a learning rate that is negative or not finite")


def _check_warmup(config: TrialConfig) -> None:
    if config.warmup_epochs >= config.epochs:
        raise InputError(
            f"a warm-up of {config.warmup_epochs:g} epochs never ends in {config.epochs} epochs"
        )


def _check_loss(config: TrialConfig) -> None:
    name = config.classification_loss
    CLASSIFICATION_LOSSES[name]
    if name not in NEEDS_ONE_LABEL:
        return
    dataset, options = variant_of(config.data)
    if dataset.is_multi_label and not dataset.has_groups(options):
        raise InputError(
            f"{name} needs exactly one label in each image, and those of {config.data.name} may "
            "have several; use bce"
        )


def _check_augment(config: TrialConfig) -> None:
    if config.augment:
        from mg_core.data.augmentation import Augmentation

        Augmentation(config.augment, config.data.image_size, config.seed)


def _check_early_stop(config: TrialConfig) -> None:
    stop = config.early_stop
    if stop is None:
        return
    metric = BY_METRIC[stop.metric]
    if metric.of_pair and config.guidance is None:
        raise InputError(
            f"a baseline has no maps, so training cannot stop on {stop.metric}; use f1"
        )
    dataset, options = variant_of(config.data)
    if metric.needs == "groups" and not dataset.has_groups(options):
        raise InputError(f"{stop.metric} needs groups, which {config.data.name} does not have")
    if stop.patience >= config.epochs:
        raise InputError(
            f"a patience of {stop.patience} epochs never ends in {config.epochs} epochs"
        )


_CHECKS = {
    "optimizer": _check_optimizer,
    "warmup_epochs": _check_warmup,
    "schedule": _check_schedule,
    "classification_loss": _check_loss,
    "augment": _check_augment,
    "early_stop": _check_early_stop,
}
