"""What is tested once for each network and layer, so that no map is zero or stays as it is unsaid.

The tests cost a few passes through the network and are not repeated in later steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mg_core.attributions.layout import Layout, certain, find
from mg_core.attributions.methods import INPUT
from mg_core.attributions.network import (
    features_of,
    find_layer,
    hooked,
    run_apart,
    with_small_weights,
)
from mg_core.errors import InputError

NO_DERIVATIVE = re.compile(
    r"derivative for aten::(?P<aten>\w+) is not implemented"
    r"|[Dd]ouble backwards? (?:on|for|through) (?P<op>\w+)"
)
"""What PyTorch says where it has no second derivative."""

_passed: WeakKeyDictionary[nn.Module, set[Hashable]] = WeakKeyDictionary()
_layouts: WeakKeyDictionary[nn.Module, dict[Hashable, Layout]] = WeakKeyDictionary()


def once(model: nn.Module, key: Hashable, check: Callable[[], None]) -> None:
    """Run a check of a network unless it has passed before."""
    passed = _passed.setdefault(model, set())
    if key not in passed:
        check()
        passed.add(key)


def layout_of(model: nn.Module, layer: str, shape: torch.Size, inputs: Tensor) -> Layout:
    """Return the layout of a layer's features, found once for each size of images.

    Args:
        model: the network.
        layer: "input", a guidance layer or the dotted name of a submodule.
        shape: shape of the features.
        inputs: (B, C, H, W), those of the forward pass that gave the features.

    Raises:
        InputError: the features are not places of a grid, or nothing tells which.
    """
    size = (inputs.shape[-2], inputs.shape[-1])
    if layer == INPUT:
        return Layout(0, 1, (2, 3), size)
    if sure := certain(shape, len(inputs), size):
        return sure
    known = _layouts.setdefault(model, {})
    # The module too, since a user may put another one in its place.
    key = (layer, id(find_layer(model, layer)), tuple(inputs.shape[1:]))
    if key not in known or shape[known[key].batch] != len(inputs):
        known[key] = _found(model, layer, shape, inputs)
    return known[key]


def _found(model: nn.Module, layer: str, shape: torch.Size, inputs: Tensor) -> Layout:
    """Find a layout, with the weights that there are or, if they hide it, with small ones.

    Attention that is trained mixes places. The layout is the network's, whatever its weights.
    """

    def features(network: nn.Module) -> Callable[[Tensor], Tensor]:
        module = find_layer(network, layer)
        return lambda trials: features_of(network, module, layer, trials)

    try:
        return find(features(model), inputs, shape, layer)
    except InputError:
        return find(features(with_small_weights(model)), inputs, shape, layer)


def check_influence(
    model: nn.Module, layer: str, layout: Layout, gradient: Tensor | None, inputs: Tensor
) -> None:
    """Refuse a layer none of whose places has any influence on the logits.

    Gradients that are zero for one batch may have a passing cause, such as a head of zeros. So
    they are computed again with other parameters, and refused if they are zero there too.

    Args:
        model: the network.
        layer: name for messages.
        layout: the layer's layout.
        gradient: of the target logits by the layer's features; none if no path leads there.
        inputs: (B, C, H, W) of the forward pass.

    Raises:
        InputError: the layer has no influence.
    """
    if gradient is None:
        raise InputError(
            f"layer {layer!r} of {type(model).__name__} has no influence on the logits: no path "
            f"leads from its output to them; choose a layer on the way to the classifier"
        )
    # At least one place besides the first: where only a class token is read, all are zero.
    if layout.to_grid(gradient).any() or layout.to_grid(influence(model, layer, inputs[:2])).any():
        return
    raise InputError(
        f"layer {layer!r} of {type(model).__name__} has no influence on the logits: the gradient "
        f"is zero at all of its places, as after the last attention of a network that reads its "
        f"class token alone; choose an earlier layer"
    )


def influence(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """Return the gradient of all logits by a layer's features, with parameters moved a little.

    What is zero here is zero because of how the network is wired, and not because of its present
    parameters, such as those of a head that starts at zero.

    Args:
        model: the network, which is not changed.
        layer: "input", a guidance layer or the dotted name of a submodule.
        inputs: (B, C, H, W), encoded.
    """
    generator = torch.Generator().manual_seed(0)

    def moved(values: Tensor) -> Tensor:
        noise = torch.randn(values.shape, generator=generator).to(values)
        return values.detach() + 0.05 * noise

    parameters = {name: moved(values) for name, values in model.named_parameters()}
    seen: list[Tensor] = []

    def keep(features: Tensor) -> Tensor:
        seen.append(features.detach().requires_grad_())
        return seen[-1].clone()

    with torch.enable_grad():
        if layer == INPUT:
            logits = run_apart(model, keep(inputs), parameters)
        else:
            with hooked({layer: find_layer(model, layer)}, {layer: keep}):
                logits = run_apart(model, inputs, parameters)
        score = (logits * torch.randn(logits.shape, generator=generator).to(logits)).sum()
        (gradient,) = torch.autograd.grad(score, seen[-1:], materialize_grads=True)
    return gradient


def check_second_derivatives(
    model: nn.Module,
    logits: Tensor,
    features: Sequence[Tensor],
    maps: Sequence[Tensor],
    inputs: Tensor,
) -> None:
    """Refuse maps whose derivatives by the parameters PyTorch cannot compute.

    Args:
        model: the network.
        logits: of the forward pass, with their graph.
        features: those that the maps are of.
        maps: with their graph.
        inputs: (B, C, H, W) of the forward pass.

    Raises:
        InputError: names the module and the operation.
    """
    parameters = [values for values in model.parameters() if values.requires_grad]
    totals = [found.sum() for found in maps if found.requires_grad]
    if not (parameters and totals):
        return
    # PyTorch drops a part of the second derivative of these without a word.
    below = {found.grad_fn for found in features}
    for node in _nodes(logits.grad_fn, set(below)):
        if _is_once_differentiable(node):
            raise _no_second_derivative(model, node.name(), inputs)
    try:
        torch.autograd.grad(totals, parameters, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if (found := NO_DERIVATIVE.search(str(error))) is None:
            raise
        operation = (found["aten"] or found["op"]).removeprefix("_")
        operation = re.sub("_(for_cpu_)?backward$", "", operation)
        raise _no_second_derivative(model, operation, inputs) from None


def _is_once_differentiable(node: torch.autograd.graph.Node) -> bool:
    function = getattr(node, "_forward_cls", None)
    code = getattr(getattr(function, "backward", None), "__code__", None)
    return code is not None and code.co_filename == once_differentiable.__code__.co_filename


def _no_second_derivative(model: nn.Module, operation: str, inputs: Tensor) -> InputError:
    where = _module_with(model, operation, inputs[:2])
    return InputError(
        f"{type(model).__name__} cannot be guided here: PyTorch has no second derivative of "
        f"{operation.removesuffix('Backward')}{f' in module {where!r}' if where else ''}; choose "
        f"a layer above it, or put another operation in its place"
    )


def _module_with(model: nn.Module, operation: str, inputs: Tensor) -> str | None:
    """Return the first module in whose forward pass an operation is recorded."""
    names = {module: name for name, module in model.named_modules()}
    seen: set[object] = set()
    found: list[str] = []

    def look(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            new = list(_nodes(output.grad_fn, seen))
            if any(_is_of(node, operation) for node in new):
                found.append(names[module])

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with torch.enable_grad():
            run_apart(model, inputs.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return next(iter(found), None)


def _is_of(node: torch.autograd.graph.Node, operation: str) -> bool:
    return operation.replace("_", "").lower() in node.name().replace("_", "").lower()


def _nodes(
    root: torch.autograd.graph.Node | None, seen: set[object]
) -> Iterator[torch.autograd.graph.Node]:
    """Yield the nodes of a graph from its root down to those that were seen, which grows."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [below for below, _ in node.next_functions]
