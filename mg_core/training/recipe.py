"""How a loss becomes an update of the weights: optimiser, schedule, clipping and loss scaling."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mg_core.config import TrialConfig
from mg_core.errors import InputError, NumericalError
from mg_core.registry import did_you_mean, named_object
from mg_core.training.schedule import rate_factor

KEYS_OF_THEIR_OWN = {"lr": "learning_rate", "weight_decay": "weight_decay"}
"""Arguments of optimisers that have a key of a stage of their own."""


class Recipe:
    """The optimiser of a trial, and what is done around its steps.

    Args:
        config: configuration of the trial.
        parameters: what is trained.
        device: device of the parameters.
    """

    def __init__(
        self, config: TrialConfig, parameters: Iterable[nn.Parameter], device: torch.device
    ) -> None:
        self._config = config
        self._parameters = list(parameters)
        self.optimizer = make_optimizer(config, self._parameters)
        self._scaler = torch.amp.GradScaler(device.type) if config.precision == "fp16" else None

    def update(self, loss: Tensor, done: float, step_length: float) -> bool:
        """Take one step on a loss; return false if a gradient does not fit into fp16 and it is not.

        Args:
            loss: () with its graph.
            done: epochs trained before this step, with the part of this one.
            step_length: length of the step, in epochs.
        """
        self._set_rate(done, step_length)
        self.optimizer.zero_grad(set_to_none=True)
        if self._scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._clip()
            self.optimizer.step()
            return True
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self.optimizer)
        self._clip()
        self._scaler.step(self.optimizer)
        before = self._scaler.get_scale()
        self._scaler.update()
        # Only a step that was left out makes the scale smaller.
        return self._scaler.get_scale() >= before

    def check_scale(self, epoch: int) -> None:
        """Refuse a training in which no gradient fits into fp16.

        Raises:
            NumericalError: the loss had to be scaled down.
        """
        if self._scaler is not None and self._scaler.get_scale() < 1:
            raise NumericalError(
                f"epoch {epoch}: gradients do not fit into fp16, even of a loss that is not "
                "scaled; train with bf16 or fp32"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed trial needs; schedules are functions of the epoch."""
        scaler = {} if self._scaler is None else {"scaler": self._scaler.state_dict()}
        return {"optimizer": self.optimizer.state_dict(), **scaler}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _set_rate(self, done: float, step_length: float) -> None:
        config = self._config
        if config.schedule.name == "constant" and not config.warmup_epochs:
            return  # Some optimisers change their rate themselves.
        factor = rate_factor(
            config.schedule, config.warmup_epochs, config.epochs, done, step_length
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor

    def _clip(self) -> None:
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm)


def make_optimizer(
    config: TrialConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Build the optimiser of a trial.

    Raises:
        InputError: there is none of this name, or it does not take its arguments.
    """
    chosen = config.optimizer
    made: Callable[..., torch.optim.Optimizer] = optimizer_class(chosen.name)
    arguments = dict(chosen.arguments)
    for name, key in KEYS_OF_THEIR_OWN.items():
        if name in arguments:
            raise InputError(f"{name} is no argument of {chosen.name} here; give {key}")
    if config.weight_decay is not None:
        arguments["weight_decay"] = config.weight_decay
    allowed = [name for name in inspect.signature(made).parameters if name != "params"]
    unknown = [name for name in arguments if name not in allowed]
    if unknown and "kwargs" not in allowed:
        raise InputError(
            f"{chosen.name} takes no {unknown[0]!r}; its arguments are {', '.join(allowed)}"
        )
    try:
        return made(parameters, lr=config.learning_rate, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{chosen.name}: {error}") from None


def check_optimizer(config: TrialConfig) -> None:
    """Take one step of a trial's optimiser with a weight and a bias, to see that it can.

    Raises:
        InputError: there is none of this name, it does not take its arguments, or it needs more
            than gradients.
    """
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(config, layer.parameters())
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    except Exception as error:
        raise InputError(f"{config.optimizer.name} cannot be used here: {error}") from None


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return a class of `torch.optim`, or of another module by its dotted name.

    Raises:
        InputError: there is none.
    """
    known = {
        found.__name__.lower(): found
        for found in vars(torch.optim).values()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    }
    known.pop("optimizer")
    found: Any = known.get(name)
    if "." in name:
        found = named_object(name)
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return found
    hint = did_you_mean(name, known)
    choices = f"{', '.join(known)}, or the dotted name of a class"
    raise InputError(f"unknown optimizer {name!r}{hint}; choose from {choices}")
