"""Features of layers in a forward pass, and gradients of the logits with respect to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mg_core.attributions.dynamic_weights import DynamicWeights, dynamic_weights
from mg_core.attributions.methods import ATTRIBUTIONS, INPUT, Attribution
from mg_core.attributions.second_order import Explaining, second_order
from mg_core.errors import InputError

Hook = Callable[[Tensor], Tensor]
"""Replaces the output of a module in a forward pass."""


class _ForwardPass:
    """A forward pass whose explanations can be differentiated again.

    Args:
        forward: runs the model and returns the logits.
        model: the model that `forward` runs.
        kinds: the gradients that will be taken, by whether W(x) is held.
        taps: features by layer that gradients are taken for; `forward` adds those of inner layers.

    Attributes:
        logits: (B, K), with their graph.
    """

    def __init__(
        self,
        forward: Callable[[], Tensor],
        model: nn.Module,
        kinds: Collection[bool],
        taps: Mapping[str, Tensor],
    ) -> None:
        # With frozen weights, as in evaluation, explanations are not differentiated again.
        is_trained = kinds and any(parameter.requires_grad for parameter in model.parameters())
        differentiable = (
            second_order(lambda: bool(taps)) if is_trained else nullcontext(Explaining())
        )
        holdable = dynamic_weights(model) if True in kinds else nullcontext(DynamicWeights())
        with differentiable as self._explaining, holdable as self._weights:
            self.logits = forward()

    def gradients(
        self, score: Tensor, features: Sequence[Tensor], hold: bool, create_graph: bool
    ) -> tuple[Tensor, ...]:
        """Return the gradients of a score by features; `hold` treats W(x) as constant."""
        with self._explaining(), self._weights.held(hold):
            return torch.autograd.grad(
                score,
                features,
                create_graph=create_graph,
                retain_graph=True,
                materialize_grads=True,
            )


class Explanation:
    """One forward pass, from which the logits and any number of maps are taken.

    Args:
        model: any module that maps inputs to logits.
        inputs: (B, C, H, W), encoded.
        methods: (attribution, layer) of each map.
        rows: (R,) indices of the images to explain; none explains all.

    Raises:
        InputError: unknown layer, or one that takes no part in the forward pass or gives no map.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        methods: Sequence[tuple[Attribution, str]],
        rows: Tensor | None,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._methods = methods
        self._rows = rows
        self._modules = {layer: _find(model, layer) for _, layer in methods if layer != INPUT}
        self._taps: dict[str, Tensor] = {}
        self._autocast = _current_autocast(inputs.device.type)
        with torch.enable_grad():
            if any(layer == INPUT for _, layer in methods):
                inputs = self._tap(INPUT, inputs)
            hooks = {layer: partial(self._tap, layer) for layer in self._modules}
            kinds = {method.holds_weights for method, _ in methods}
            with _hooked(self._modules, hooks):
                self._pass = _ForwardPass(lambda: model(inputs), model, kinds, self._taps)
        for layer in self._modules:
            if layer not in self._taps:
                raise InputError(f"layer {layer!r} takes no part in the model's forward pass")

    @property
    def logits(self) -> Tensor:
        """Class logits (B, K), with their graph."""
        return self._pass.logits

    @torch.enable_grad()
    def maps(self, target_classes: Tensor, create_graph: bool = False) -> list[Tensor]:
        """Return the raw maps of one class of each image.

        All maps take one backward pass, or two if some hold W(x) and others do not. The method may
        be called again for other classes. In training mode batch norm mixes the images of a batch;
        gradients are those of the sum of their logits.

        Args:
            target_classes: (R,) class index of each explained image.
            create_graph: keep the graph, so that a loss on the maps can be minimised.

        Returns:
            For each (attribution, layer) a tensor (R, h, w) at the layer's resolution, at least
            float32.

        Raises:
            InputError: the number of classes is not the number of explained images.
        """
        gradients = self._gradients(target_classes, create_graph)
        maps = []
        for method, layer in self._methods:
            features = self._taps[layer] if create_graph else self._taps[layer].detach()
            if method.probes is None:
                found = self._combine(
                    method, layer, features, gradients[layer, method.holds_weights]
                )
            else:
                found = self._probe(method, layer, features, target_classes, create_graph)
            maps.append(found)
        return maps

    def _gradients(
        self, target_classes: Tensor, create_graph: bool
    ) -> dict[tuple[str, bool], Tensor]:
        """Return gradients of the target logits, by layer and whether W(x) is held."""
        score = self._score(self.logits, target_classes)
        wanted = dict.fromkeys(
            (layer, method.holds_weights) for method, layer in self._methods if not method.probes
        )
        gradients: dict[tuple[str, bool], Tensor] = {}
        for hold in (False, True):
            layers = [layer for layer, held in wanted if held == hold]
            if not layers:
                continue
            taps = [self._taps[layer] for layer in layers]
            found = self._pass.gradients(score, taps, hold, create_graph)
            gradients |= {(layer, hold): g for layer, g in zip(layers, found, strict=True)}
        return gradients

    def _probe(
        self,
        method: Attribution,
        layer: str,
        features: Tensor,
        target_classes: Tensor,
        create_graph: bool,
    ) -> Tensor:
        """Return the mean map over forward passes in which a layer's features are replaced."""
        maps = []
        for point, operand in method.probes(features) if method.probes else ():
            if not point.requires_grad:
                point = point.detach().requires_grad_()
            probe = self._forward_from(layer, point, method.holds_weights)
            score = self._score(probe.logits, target_classes)
            (gradient,) = probe.gradients(score, [point], method.holds_weights, create_graph)
            operand = operand if create_graph else operand.detach()
            maps.append(self._combine(method, layer, operand, gradient))
        return torch.stack(maps).mean(0)

    def _forward_from(self, layer: str, features: Tensor, hold: bool) -> _ForwardPass:
        inputs = features.clone() if layer == INPUT else self._inputs
        hooks = {} if layer == INPUT else {layer: lambda _: features.clone()}
        # Copies of the buffers, so that running statistics are updated once for each batch.
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        with self._autocast(), _hooked(self._modules, hooks):
            return _ForwardPass(
                lambda: functional_call(self._model, buffers, (inputs,)),
                self._model,
                {hold},
                self._taps,
            )

    def _score(self, logits: Tensor, target_classes: Tensor) -> Tensor:
        logits = self._select(logits)
        if target_classes.shape != logits.shape[:1]:
            raise InputError(
                f"target_classes must hold one class for each of {len(logits)} explained images, "
                f"not have shape {tuple(target_classes.shape)}"
            )
        return logits.gather(1, target_classes.to(logits.device, torch.int64)[:, None]).sum()

    def _combine(
        self, method: Attribution, layer: str, features: Tensor, gradients: Tensor
    ) -> Tensor:
        features, gradients = (_grid(self._select(t), layer) for t in (features, gradients))
        return method.combine(features, gradients)

    def _select(self, values: Tensor) -> Tensor:
        rows = self._rows
        return values if rows is None else values.index_select(0, rows.to(values.device))

    def _tap(self, layer: str, features: Tensor) -> Tensor:
        """Keep a layer's features, with gradients, and return a copy for the layers above.

        An in-place ReLU, as torchvision has them, then overwrites the copy.
        """
        if not features.requires_grad:
            features = features.detach().requires_grad_()
        self._taps[layer] = features
        return features.clone()


def explain(
    model: nn.Module,
    inputs: Tensor,
    pairs: Sequence[tuple[str, str]],
    rows: Tensor | None = None,
) -> Explanation:
    """Run one forward pass, from which the logits and the maps of all pairs are taken.

    The inputs require gradients only for layer "input".

    Args:
        model: any module that maps inputs to logits.
        inputs: (B, C, H, W), encoded.
        pairs: (method, layer) of each map. A layer is "input", a guidance layer of the model, or
            the dotted name of a submodule, whose last call in the forward pass counts. Its output
            is (B, C, h, w), or (B, N, C) tokens of a square grid.
        rows: images to explain, (B,) bool or (R,) int64; none explains all of them.

    Raises:
        InputError: unknown method or layer, or a layer whose output is no map.
    """
    methods = [(ATTRIBUTIONS[method], layer) for method, layer in pairs]
    if rows is not None and rows.dtype == torch.bool:
        rows = rows.nonzero()[:, 0]
    return Explanation(model, inputs, methods, rows)


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target_classes: Tensor,
    method: str,
    layer: str = INPUT,
    create_graph: bool = False,
    resolution: Literal["layer", "input"] = "layer",
) -> Tensor:
    """Return the raw attribution map of one class for each image.

    Args:
        model: any module that maps inputs to logits (B, K).
        inputs: (B, C, H, W), encoded.
        target_classes: (B,) class index of each image.
        method: registered attribution.
        layer: "input", a guidance layer of the model, or the dotted name of any submodule.
        create_graph: keep the graph, so that a loss on the maps can be minimised.
        resolution: "layer" returns maps of the layer's size; "input" upsamples them to the size
            of the inputs, as losses and metrics need them.

    Returns:
        (B, h, w) float32, or float64 for a float64 model.

    Raises:
        InputError: unknown method or layer, a layer whose output is no map, or another number of
            classes than images.

    Example:
        >>> import torch, torchvision, mg_core
        >>> network = torchvision.models.resnet18().eval()
        >>> inputs, classes = torch.rand(2, 3, 64, 64), torch.tensor([3, 5])
        >>> mg_core.attribute(network, inputs, classes, "gradcam", "layer4").shape
        torch.Size([2, 2, 2])
        >>> maps = mg_core.attribute(
        ...     network, inputs, classes, "gradcam", "layer4", resolution="input"
        ... )
        >>> maps.shape
        torch.Size([2, 64, 64])
    """
    if resolution not in ("layer", "input"):
        raise InputError(f"unknown resolution {resolution!r}; choose from layer, input")
    (maps,) = explain(model, inputs, [(method, layer)]).maps(target_classes, create_graph)
    return upsample(maps, inputs.shape[-2:]) if resolution == "input" else maps


def upsample(maps: Tensor, size: int | Sequence[int]) -> Tensor:
    """Upsample maps (B, h, w) bilinearly to (B, H, W), with align_corners=False.

    Args:
        maps: raw maps; positive parts are taken and normalised after upsampling.
        size: H and W, or one number for both.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if maps.shape[1:] == (height, width):
        return maps
    return F.interpolate(
        maps[:, None], (height, width), mode="bilinear", align_corners=False
    ).squeeze(1)


def _find(model: nn.Module, layer: str) -> nn.Module:
    layers = getattr(model, "guidance_layers", {})
    try:
        return model.get_submodule(layers.get(layer, layer))
    except AttributeError:
        raise InputError(
            f"unknown layer {layer!r} of {type(model).__name__}; choose from "
            f"{', '.join([INPUT, *layers])} or the dotted name of a submodule"
        ) from None


@contextmanager
def _hooked(modules: Mapping[str, nn.Module], hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Replace the outputs of layers by those of their hooks in forward passes inside."""

    def forward_hook(layer: str) -> Callable[[nn.Module, object, object], Tensor]:
        def replace(module: nn.Module, args: object, output: object) -> Tensor:
            if not (isinstance(output, Tensor) and output.ndim in (3, 4)):
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise InputError(
                    f"layer {layer!r} gives no map: its output is {shape}, not (B, C, h, w) "
                    "features or (B, N, C) tokens"
                )
            return hooks[layer](output)

        return replace

    handles = [modules[layer].register_forward_hook(forward_hook(layer)) for layer in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _current_autocast(device: str) -> Callable[[], torch.autocast]:
    """Return a function whose context restores the present autocast state."""
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return lambda: torch.autocast(device, dtype, enabled)


def _grid(values: Tensor, layer: str) -> Tensor:
    """Return features or gradients as (B, C, h, w), at least float32."""
    if values.ndim == 3:
        # Tokens fill a square grid; an additional first one is the class token.
        side = math.isqrt(values.shape[1])
        if side * side != values.shape[1]:
            side = math.isqrt(values.shape[1] - 1)
            if side * side != values.shape[1] - 1:
                raise InputError(
                    f"layer {layer!r} gives no map: {values.shape[1]} tokens fill no square grid"
                )
        values = values[:, -side * side :].transpose(1, 2)
        values = values.reshape(*values.shape[:2], side, side)
    return values if values.dtype == torch.float64 else values.float()
