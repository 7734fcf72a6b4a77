"""Courses of the learning rate: factors of the configured rate, as functions of the time.

A schedule has no state: a resumed trial computes the factors that it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mg_core.errors import InputError
from mg_core.recipe import Named
from mg_core.registry import Registry


class Span(NamedTuple):
    """Epochs between which a schedule runs: the end of the warm-up, and the end of training."""

    first: float
    last: float


Schedule = Callable[..., float]
"""(epochs done, span, **arguments) -> factor, at least 0.

It is asked before every step, so the epochs done have a fraction inside an epoch.
"""

SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register("constant")
def constant(done: float, span: Span) -> float:
    """Keep the learning rate."""
    return 1.0


@SCHEDULES.register("cosine")
def cosine(done: float, span: Span, final: float = 0.0) -> float:
    """Let the rate fall by half a cosine to a share `final`, with every step (SGDR, Eq. 5)."""
    share = (done - span.first) / (span.last - span.first)
    return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2


@SCHEDULES.register("linear")
def linear(done: float, span: Span, final: float = 0.0) -> float:
    """Let the rate fall in a straight line to a share `final`, with every step."""
    return 1 - (1 - final) * (done - span.first) / (span.last - span.first)


@SCHEDULES.register("step")
def step(
    done: float,
    span: Span,
    every: int | None = None,
    at: Sequence[int] | None = None,
    factor: float = 0.1,
) -> float:
    """Multiply the rate by `factor` after `every` so many epochs, or after the epochs `at`.

    Epochs are counted from the start of the training, the warm-up included.
    """
    if (every is None) == (at is None):
        raise InputError("step: give either every, a number of epochs, or at, a list of epochs")
    if every is not None and every < 1:
        raise InputError(f"step: every is a number of epochs of at least 1, not {every}")
    marks = range(every, math.ceil(span.last), every) if every else sorted(at or ())
    if not marks or max(marks) >= span.last:
        late = f"every {every} epochs" if every else f"at {', '.join(map(str, marks)) or 'none'}"
        raise InputError(f"step: {late} is too late for a training of {span.last:g} epochs")
    return float(factor ** sum(done >= mark for mark in marks))


def rate_factor(
    schedule: Named, warmup_epochs: float, epochs: int, done: float, step_length: float
) -> float:
    """Return the factor of the learning rate in one step.

    In the warm-up the rate rises in a straight line with every step: the k-th of K steps has k/K
    of it (Goyal et al., 2017). The schedule begins after it.

    Args:
        schedule: name and arguments.
        warmup_epochs: length of the warm-up.
        epochs: length of the training.
        done: epochs trained before the step.
        step_length: length of the step, in epochs.

    Raises:
        InputError: unknown schedule, or arguments that do not fit it.
    """
    course = SCHEDULES[schedule.name]
    found = course(max(done, warmup_epochs), Span(warmup_epochs, epochs), **schedule.arguments)
    return found * min(1.0, (done + step_length) / warmup_epochs) if warmup_epochs else found
