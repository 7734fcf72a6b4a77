"""Any network as one that maps inputs to logits, with its layers by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mg_core.attributions.methods import INPUT
from mg_core.errors import InputError

Hook = Callable[[Tensor], Tensor]
"""Replaces the output of a module in a forward pass."""


def plain(model: nn.Module) -> nn.Module:
    """Return the network inside one that `torch.compile` has wrapped; both share parameters."""
    inside = getattr(model, "_orig_mod", model)
    return inside if isinstance(inside, nn.Module) else model


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Run compiled parts of a network as they are written.

    Compiled code neither calls hooks nor can be differentiated twice.

    Raises:
        InputError: a part is compiled and this PyTorch cannot run it uncompiled.
    """
    if not any(_is_compiled(module) for module in model.modules()):
        yield
        return
    if not hasattr(torch.compiler, "set_stance"):
        raise InputError(
            f"{type(model).__name__} has compiled parts, which PyTorch {torch.__version__} cannot "
            f"explain; explain the network as it is before torch.compile"
        )
    with torch.compiler.set_stance("force_eager"):
        yield


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def logits_of(output: object, model: nn.Module) -> Tensor:
    """Return the logits (B, K) in what a network returns: them alone, or `output.logits`.

    Networks with auxiliary classifiers, such as torchvision's Inception in training mode, return
    the others beside the logits; these take no part in guidance or in the classification loss.

    Raises:
        InputError: there are none.
    """
    if isinstance(output, Mapping):
        found = output.get("logits")
    else:
        found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor) or found.ndim != 2:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise InputError(
            f"{type(model).__name__} returns {given}, not logits (B, K); wrap it in a module that "
            f"returns them"
        )
    return found


def classify(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits (B, K) of a network for encoded inputs."""
    return logits_of(model(inputs), model)


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """Return the submodule of a guidance layer or of a dotted name.

    Raises:
        InputError: there is none.
    """
    layers = getattr(model, "guidance_layers", {})
    try:
        return model.get_submodule(layers.get(layer, layer))
    except AttributeError:
        raise InputError(
            f"unknown layer {layer!r} of {type(model).__name__}; choose from "
            f"{', '.join([INPUT, *layers])} or the dotted name of a submodule"
        ) from None


def first_map(output: object) -> Tensor | None:
    """Return what may be a map in a module's output: a tensor, alone or the only one in a tuple."""
    parts = output if isinstance(output, tuple) else (output,)
    found = [part for part in parts if isinstance(part, Tensor) and part.ndim in (3, 4)]
    return found[0] if len(found) == 1 else None


@contextmanager
def hooked(modules: Mapping[str, nn.Module], hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Replace the outputs of layers by those of their hooks in forward passes inside."""

    def forward_hook(layer: str) -> Callable[[nn.Module, object, object], object]:
        def replace(module: nn.Module, args: object, output: object) -> object:
            features = first_map(output)
            if features is None:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise InputError(
                    f"layer {layer!r} gives no map: its output is {shape}, not features of places "
                    "such as (B, C, h, w), (B, h, w, C) or (B, N, C)"
                )
            replaced = hooks[layer](features)
            if isinstance(output, tuple):
                return tuple(replaced if part is features else part for part in output)
            return replaced

        return replace

    handles = [modules[layer].register_forward_hook(forward_hook(layer)) for layer in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put a network into a mode, and every module back into its own afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        # Some networks keep what they compute in evaluation mode until they are trained again.
        model.train(True)
        model.train(before[0][1])
        for module, mode in before:
            module.training = mode


def run_apart(
    model: nn.Module, inputs: Tensor, parameters: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return logits without changing buffers or random numbers, if wanted of other parameters."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices), eager(model):
        torch.manual_seed(0)
        return logits_of(
            functional_call(model, {**buffers, **(parameters or {})}, (inputs,)), model
        )


def with_small_weights(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose matrices and kernels are small and random.

    In a network with residual branches every place then keeps to itself, as before any training.
    """
    twin = copy.deepcopy(plain(model))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in twin.parameters():
            if weight.ndim >= 2:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return twin


def features_of(model: nn.Module, module: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """Return the output of a layer in evaluation mode, without changing the network."""
    seen: list[Tensor] = []

    def keep(features: Tensor) -> Tensor:
        seen.append(features.clone())
        return features

    with torch.no_grad(), in_mode(model, training=False), hooked({layer: module}, {layer: keep}):
        run_apart(model, inputs)
    return seen[-1]
