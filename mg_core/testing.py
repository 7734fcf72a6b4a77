"""What variants must keep: the tests that this package's own losses, attributions and models pass.

Each function raises an `AssertionError` with one sentence, as pytest wants it. For a package of
your own:

```
import mg_core.testing

def test_my_variants():
    assert mg_core.testing.check_module("my_package") == []
```
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mg_core.attributions import ATTRIBUTIONS, INPUT, attribute, explain
from mg_core.config import NONE
from mg_core.data.annotations import ANNOTATIONS, Located
from mg_core.errors import InputError
from mg_core.guidance.rehearsal import gradient_error, in_words, noise_batch, rehearse
from mg_core.guidance.step import Batch, evidence_of
from mg_core.losses import CLASSIFICATION_LOSSES, LOSSES, Evidence, Informed, loss_of
from mg_core.models import MODELS, build_model, encode
from mg_core.registry import Registry, import_variants

__all__ = ["check_annotation", "check_attribution", "check_loss", "check_model", "check_module"]

CLASSES = 3
SIZE, SMALL = 32, 16
"""Side of the images, in pixels; for attributions, which may run the network many times, a small
one is enough."""
TRANSFORMED = 64
"""Side of the images for transformers: four patches of 16 pixels a side."""
TOLERANCE = 1e-3


def check_loss(name: str) -> None:
    """Check a registered localization loss.

    It gives one finite value a map, whatever the map and the mask are; its gradient is finite and
    that of finite differences; and the loss of a map depends on no other map. An informed loss is
    checked on a small network, with its own maps.

    Raises:
        AssertionError: it does not.

    Example:
        >>> from mg_core.testing import check_loss
        >>> check_loss("energy")
    """
    if isinstance(LOSSES[name], Informed):
        _check_informed_loss(name)
    else:
        _check_plain_loss(name)


def _check_plain_loss(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 5, 7, generator=generator, dtype=torch.float64)
    masks = torch.rand(4, 5, 7, generator=generator) > 0.6
    masks[2], masks[3] = False, True
    value = _value(name, maps, masks)
    _claim(value.shape == (4,), f"loss {name!r} gives {tuple(value.shape)}, not one value a map")
    for kind, other in _odd_maps(maps):
        leaf = other.clone().requires_grad_()
        found = _value(name, leaf, masks)
        _claim(bool(found.isfinite().all()), f"loss {name!r} of {kind} is not finite")
        if found.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), leaf)
            is_finite = bool(gradient.isfinite().all())
            _claim(is_finite, f"the gradient of loss {name!r} of {kind} is not finite")
    for row in range(len(maps)):
        alone = _value(name, maps[row : row + 1], masks[row : row + 1])
        _claim(
            torch.allclose(alone, value[row : row + 1]),
            f"loss {name!r} of a map depends on the other maps of its batch",
        )
    _check_slope(lambda values: _value(name, values, masks).sum(), maps, f"loss {name!r}")


def _check_informed_loss(name: str) -> None:
    torch.manual_seed(0)
    network = build_model("vanilla_tiny", CLASSES)
    batch = noise_batch(network, SMALL, CLASSES)
    pairs = [("ixg", INPUT), ("gradcam", next(iter(network.guidance_layers)))]
    for (attribution, layer), kind in product(pairs, CLASSIFICATION_LOSSES):
        what = f"loss {name!r} with {attribution}@{layer} and {kind}"
        network.eval()
        evidence = _evidence(network, batch, attribution, layer, kind)
        value = loss_of(name, evidence).detach()
        for masks in (torch.zeros_like(evidence.masks), torch.ones_like(evidence.masks)):
            odd = loss_of(name, replace(evidence, masks=masks))
            _claim(bool(odd.isfinite().all()), f"{what} is not finite for some masks")
        one = replace(
            batch,
            target_classes=evidence.target_classes[1:],
            masks=evidence.masks[1:],
            annotated=torch.tensor([1]),
        )
        alone = loss_of(name, _evidence(network, one, attribution, layer, kind))
        is_alone = torch.allclose(alone, value[1:], rtol=TOLERANCE)
        _claim(is_alone, f"{what}: the loss of an image depends on the other images")
        found = rehearse(network, batch, attribution, layer, [name], classification=kind)
        _claim(not found.problems, f"{what}: {found.problems.get(name)}")
        error = gradient_error(network, batch, attribution, layer, name, kind)
        is_exact = error < TOLERANCE
        _claim(is_exact, f"{what}: finite differences give another gradient ({error:.1e})")


def _evidence(
    network: nn.Module, batch: Batch, attribution: str, layer: str, classification: str
) -> Evidence:
    explanation = explain(network, batch.inputs, [(attribution, layer)], batch.annotated)
    return evidence_of(explanation, layer, batch, classification)


def check_attribution(name: str, model: str | None = None) -> None:
    """Check a registered attribution method on a registered model, at its input and a layer.

    Maps have the size of the layer and are finite; the map of an image depends on no other image;
    and a guidance loss on the maps has the gradient of finite differences.

    Args:
        name: registered method.
        model: registered model that the method fits; by default "vanilla_tiny", or a small
            transformer of timm for a method that reads attention.

    Raises:
        AssertionError: it does not.

    Example:
        >>> from mg_core.testing import check_attribution
        >>> check_attribution("gradcam")
    """
    reads_attention = ATTRIBUTIONS[name].reads_attention
    model = model or ("timm/test_vit" if reads_attention else "vanilla_tiny")
    size = TRANSFORMED if reads_attention else SMALL
    torch.manual_seed(0)
    network = build_model(model, CLASSES, image_size=size)
    batch = noise_batch(network, size, CLASSES)
    classes = torch.arange(len(batch.inputs)) % CLASSES
    for layer in (INPUT, *list(network.guidance_layers)[:1]):
        network.eval()
        what = f"attribution {name!r} at {layer!r} of {model}"
        both = attribute(network, batch.inputs, classes, name, layer)
        _claim(both.ndim == 3, f"{what} gives {tuple(both.shape)}, not (B, h, w)")
        _claim(bool(both.isfinite().all()), f"{what} is not finite")
        if layer == INPUT and not reads_attention:
            same = both.shape[1:] == batch.inputs.shape[2:]
            _claim(same, f"{what} gives maps of {tuple(both.shape[1:])}, not of the input's size")
        alone = attribute(network, batch.inputs[:1], classes[:1], name, layer)
        largest = float(both.abs().max())
        is_alone = torch.allclose(alone, both[:1], atol=1e-4 * largest)
        _claim(is_alone, f"{what}: the map of an image depends on the other images")
        found = rehearse(network, batch, name, layer, ["energy"])
        _claim(not found.problems, f"{what}: {found.problems.get('energy')}")
        error = gradient_error(network, batch, name, layer, "energy")
        is_exact = error < TOLERANCE
        _claim(
            is_exact, f"{what}: finite differences give another gradient of its maps ({error:.1e})"
        )


def check_model(name: str, image_size: int = SIZE) -> None:
    """Check a registered model.

    It is the same for the same seed; its logits are (B, K); its state loads back; every guidance
    layer gives a map, by which guidance can train it.

    Args:
        name: registered model.
        image_size: side of the images in pixels.

    Raises:
        AssertionError: it does not.

    Example:
        >>> from mg_core.testing import check_model
        >>> check_model("bcos_tiny")
    """
    twins = []
    for _ in range(2):
        torch.manual_seed(0)
        twins.append(build_model(name, CLASSES))
    network, twin = twins
    states = [model.state_dict() for model in twins]
    is_same = states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][key]) for key, value in states[0].items()
    )
    _claim(is_same, f"model {name!r} differs between two builds with the same seed")
    twin.load_state_dict(copy.deepcopy(states[0]))
    classes = torch.arange(2)
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.no_grad():
        logits = network(encode(network, images))
    shape = tuple(logits.shape)
    _claim(shape == (2, CLASSES), f"model {name!r} gives {shape}, not (images, classes)")
    head = nn.Module.get_submodule(network, network.head)
    has_head = any(len(p) == CLASSES for p in head.parameters())
    _claim(has_head, f"head {network.head!r} of model {name!r} has no weights for the classes")
    batch = noise_batch(network, image_size, CLASSES)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for layer in (INPUT, *network.guidance_layers):
        maps = attribute(network, batch.inputs, classes, "ixg", layer, create_graph=True)
        what = f"model {name!r} at layer {layer!r}"
        _claim(bool(maps.any()), f"{what} has maps that are zero: no path leads to the logits")
        found = torch.autograd.grad(maps.square().sum(), weights, allow_unused=True)
        gradients = [gradient for gradient in found if gradient is not None]
        is_finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
        _claim(is_finite, f"{what} has maps whose gradient is not finite")
        is_trained = any(bool(gradient.any()) for gradient in gradients)
        _claim(is_trained, f"{what} has maps that no weight changes")


def check_annotation(name: str, **arguments: Any) -> None:
    """Check a registered annotation.

    It draws (S, S) bool; what it draws depends on what it is given alone, and on the draws of the
    place; and it says something of an object that has a box and a mask. An argument `count` that
    is needed and not given is 1.

    Raises:
        AssertionError: it does not.

    Example:
        >>> from mg_core.testing import check_annotation
        >>> check_annotation("points", count=5)
    """
    what = f"annotation {name!r}"
    parameters = inspect.signature(ANNOTATIONS[name]).parameters
    if "count" in parameters and parameters["count"].default is inspect.Parameter.empty:
        arguments = {"count": 1, **arguments}
    whole = np.zeros((SIZE, SIZE), dtype=np.bool_)
    whole[6:15, 4:9] = True
    boxes = np.array([[4, 6, 9, 15], [5, 20, 30, 31]])
    drawn = []
    for number in range(2):
        np.random.seed(number)
        torch.manual_seed(number)
        random.seed(number)
        place = Located(boxes[:: 1 - 2 * number], SIZE, (0, "image", 1), whole.copy)
        drawn.append(ANNOTATIONS[name](place, **arguments))
    one, other = drawn
    is_mask = isinstance(one, np.ndarray) and one.shape == whole.shape and one.dtype == np.bool_
    _claim(is_mask, f"{what} does not return (S, S) bool")
    _claim(
        np.array_equal(one, other),
        f"{what} depends on more than the place: its draws come from place.draws, by box",
    )
    _claim(name == NONE or bool(one.any()), f"{what} draws nothing of an object that has a mask")


def check_module(module: str) -> list[str]:
    """Check every loss, attribution, annotation and model that a module registers.

    Args:
        module: name of a module, as under `imports` of a sweep file.

    Returns:
        One sentence for each variant that does not keep its contract.

    Raises:
        InputError: the module cannot be imported, or registers nothing.
    """
    before = {kind: set(registry) for kind, registry in _REGISTRIES.items()}
    import_variants([module], "--contracts")
    added = [
        (kind, name)
        for kind, registry in _REGISTRIES.items()
        for name in registry
        if name not in before[kind] or registry.home(name).split(".")[0] == module.split(".")[0]
    ]
    if not added:
        raise InputError(f"module {module!r} registers no loss, attribution, annotation or model")
    problems = []
    for kind, name in added:
        try:
            _CHECKS[kind](name)
        except AssertionError as error:
            problems.append(str(error))
        except Exception as error:
            problems.append(f"{kind} {name!r}: {in_words(error)}")
    return problems


_REGISTRIES: dict[str, Registry[object]] = {
    "loss": LOSSES,  # type: ignore[dict-item]
    "attribution": ATTRIBUTIONS,  # type: ignore[dict-item]
    "annotation": ANNOTATIONS,  # type: ignore[dict-item]
    "model": MODELS,  # type: ignore[dict-item]
}
_CHECKS: dict[str, Callable[[str], None]] = {
    "loss": check_loss,
    "attribution": check_attribution,
    "annotation": check_annotation,
    "model": check_model,
}


def _odd_maps(maps: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "ordinary maps", maps
    yield "maps in single precision", maps.float()
    yield "maps that are zero", torch.zeros_like(maps)
    yield "maps without a positive value", -maps.abs()
    yield "tiny maps", maps.float() * 1e-36
    yield "huge maps", maps.float() * 1e30


def _value(name: str, maps: Tensor, masks: Tensor) -> Tensor:
    loss = LOSSES[name]
    assert not isinstance(loss, Informed)
    return loss(maps, masks)


def _check_slope(function: Callable[[Tensor], Tensor], point: Tensor, what: str) -> None:
    """Compare a gradient with finite differences along some random directions."""
    leaf = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        direction = torch.randn(point.shape, generator=generator, dtype=point.dtype)
        slope = float((gradient * direction).sum())
        ends = [float(function(point + sign * 1e-6 * direction)) for sign in (1, -1)]
        (difference,) = ((one - other) / 2e-6 for one, other in pairwise(ends))
        error = abs(slope - difference) / max(abs(slope), abs(difference), 1e-9)
        _claim(
            error < TOLERANCE,
            f"{what} has another gradient than finite differences ({slope:g}, {difference:g})",
        )


def _claim(is_true: bool, sentence: str) -> None:
    if not is_true:
        raise AssertionError(sentence)
