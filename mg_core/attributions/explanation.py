"""Features of layers in a forward pass, and gradients of the logits with respect to them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mg_core.attributions.attention import (
    Attentions,
    by_image,
    check_attentions,
    to_grid,
    token_layout,
)
from mg_core.attributions.checks import (
    check_influence,
    check_second_derivatives,
    layout_of,
    once,
)
from mg_core.attributions.forward_pass import ForwardPass
from mg_core.attributions.layout import Layout
from mg_core.attributions.methods import ATTRIBUTIONS, INPUT, Attribution
from mg_core.attributions.network import classify, find_layer, hooked, logits_of, plain
from mg_core.errors import InputError


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
        # An explained network runs as it is written, others run compiled where they are.
        self._model = model = plain(model) if methods else model
        self._inputs = inputs
        self._methods = methods
        self._rows = rows
        self._modules = {layer: find_layer(model, layer) for _, layer in methods if layer != INPUT}
        self._taps: dict[str, Tensor] = {}
        self._attentions = Attentions()
        self._n_below: dict[str, int] = {}
        self._autocast = _current_autocast(inputs.device.type)
        watched = any(method.reads_attention for method, _ in methods)

        def forward() -> Tensor:
            with self._attentions if watched else nullcontext():
                return classify(model, inputs)

        with torch.enable_grad():
            if any(layer == INPUT for _, layer in methods):
                inputs = self._tap(INPUT, inputs)
            hooks = {layer: partial(self._tap, layer) for layer in self._modules}
            kinds = {method.holds_weights for method, _ in methods}
            with hooked(self._modules, hooks):
                self._pass = ForwardPass(forward, model, kinds, self._taps)
        for layer in self._modules:
            if layer not in self._taps:
                raise InputError(f"layer {layer!r} takes no part in the model's forward pass")
        self._layouts: dict[str, Layout] = {
            layer: layout_of(model, layer, features.shape, self._inputs)
            for layer, features in self._taps.items()
        }

    @property
    def logits(self) -> Tensor:
        """Class logits (B, K), with their graph."""
        return self._pass.logits

    @torch.enable_grad()
    def maps(self, target_classes: Tensor, create_graph: bool = False) -> list[Tensor]:
        """Return the raw maps of one class of each image.

        All maps take one backward pass, or two if some hold W(x) and others do not; a method of
        attention takes one of its own. `maps` may be called again for other classes. In training
        mode batch norm mixes the images of a batch; gradients are those of the sum of their logits.

        Args:
            target_classes: (R,) class index of each explained image.
            create_graph: keep the graph, so that a loss on the maps can be minimised.

        Returns:
            For each (attribution, layer) a tensor (R, h, w) at the layer's resolution, at least
            float32.

        Raises:
            InputError: the number of classes is not the number of explained images; or, found at
                the first call, the layer has no influence on the logits, or PyTorch lacks a second
                derivative of an operation.
        """
        gradients = self._gradients(target_classes, create_graph)
        maps = []
        for method, layer in self._methods:
            features = self._taps[layer] if create_graph else self._taps[layer].detach()
            if method.reads_attention:
                found = self._relevance(method, layer, target_classes, create_graph)
            elif method.probes:
                found = self._probe(method, layer, features, target_classes, create_graph)
            else:
                found = self._combine(
                    method, layer, features, gradients[layer, method.holds_weights]
                )
            maps.append(found)
        if create_graph:
            self._check_second_derivatives(("maps", *self._methods), maps)
        return maps

    @torch.enable_grad()
    def gradients(self, score: Tensor, layer: str) -> Tensor:
        """Return the gradients of a score with respect to a layer's features, with their graph.

        Args:
            score: (), computed from `logits`; any other than a logit has no map.
            layer: one of those of the explanation's pairs.

        Returns:
            (R, C, h, w), at least float32.

        Raises:
            InputError: as `maps`.
        """
        (found,) = self._pass.gradients(score, [self._taps[layer]], False, create_graph=True)
        gradient = self._of_influence(layer, False, self._taps[layer], found)
        self._check_second_derivatives(("gradients", layer), [gradient])
        return self._on_grid(layer, gradient)

    def _check_second_derivatives(self, key: Hashable, found: Sequence[Tensor]) -> None:
        """Check once that what was computed can be differentiated by the parameters."""
        taps = list(self._taps.values())
        once(
            self._model,
            ("second derivatives", self._model.training, key),
            lambda: check_second_derivatives(self._model, self.logits, taps, found, self._inputs),
        )

    def _gradients(
        self, target_classes: Tensor, create_graph: bool
    ) -> dict[tuple[str, bool], Tensor]:
        """Return gradients of the target logits, by layer and whether W(x) is held."""
        score = self._score(self.logits, target_classes)
        wanted = dict.fromkeys(
            (layer, method.holds_weights)
            for method, layer in self._methods
            if not (method.probes or method.reads_attention)
        )
        gradients: dict[tuple[str, bool], Tensor] = {}
        for hold in (False, True):
            layers = [layer for layer, held in wanted if held == hold]
            if not layers:
                continue
            taps = [self._taps[layer] for layer in layers]
            found = self._pass.gradients(score, taps, hold, create_graph)
            for layer, tap, gradient in zip(layers, taps, found, strict=True):
                gradients[layer, hold] = self._of_influence(layer, hold, tap, gradient)
        return gradients

    def _of_influence(
        self, layer: str, hold: bool, features: Tensor, gradient: Tensor | None
    ) -> Tensor:
        """Return a gradient by features, once it is known that they can have one."""
        layout = self._layouts[layer]
        once(
            self._model,
            ("influence", layer, hold),
            lambda: check_influence(self._model, layer, layout, gradient, self._inputs),
        )
        return torch.zeros_like(features) if gradient is None else gradient

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
        batch = self._layouts[layer].batch
        features = features.movedim(batch, 0)
        for point, operand in method.probes(features) if method.probes else ():
            point, operand = point.movedim(0, batch), operand.movedim(0, batch)
            if not point.requires_grad:
                point = point.detach().requires_grad_()
            probe = self._forward_from(layer, point, method.holds_weights)
            score = self._score(probe.logits, target_classes)
            (gradient,) = probe.gradients(score, [point], method.holds_weights, create_graph)
            gradient = self._of_influence(layer, method.holds_weights, point, gradient)
            operand = operand if create_graph else operand.detach()
            maps.append(self._combine(method, layer, operand, gradient))
        return torch.stack(maps).mean(0)

    def _relevance(
        self, method: Attribution, layer: str, target_classes: Tensor, create_graph: bool
    ) -> Tensor:
        """Return the map of a method of attention, from one backward pass of its own."""
        recorded = self._attentions.weights
        above = [w for w in recorded[self._n_below[layer] :] if w.requires_grad]
        score = self._score(self.logits, target_classes)
        found: Sequence[Tensor | None] = ()
        if above:
            found = self._pass.gradients(score, above, method.holds_weights, create_graph)
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        for weight, gradient in zip(above, found, strict=True):
            if gradient is not None:
                for values, kept in ((weight, weights), (gradient, gradients)):
                    whole = by_image(values, len(self._inputs), self._model)
                    kept.append(_at_least_single(self._select(whole, 0)))
        n_tokens = [weight.shape[-1] for weight in weights]
        check_attentions(n_tokens, len(recorded), layer, self._model)
        layout = token_layout(self._model, self._inputs, n_tokens[-1])
        weights = weights if create_graph else [weight.detach() for weight in weights]
        return to_grid(method.combine(weights, gradients), layout)

    def _forward_from(self, layer: str, features: Tensor, hold: bool) -> ForwardPass:
        inputs = features.clone() if layer == INPUT else self._inputs
        hooks = {} if layer == INPUT else {layer: lambda _: features.clone()}
        # Copies of the buffers, so that running statistics are updated once for each batch.
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        with self._autocast(), hooked(self._modules, hooks):
            return ForwardPass(
                lambda: logits_of(functional_call(self._model, buffers, (inputs,)), self._model),
                self._model,
                {hold},
                self._taps,
            )

    def _score(self, logits: Tensor, target_classes: Tensor) -> Tensor:
        logits = self._select(logits, 0)
        if target_classes.shape != logits.shape[:1]:
            raise InputError(
                f"target_classes must hold one class for each of {len(logits)} explained images, "
                f"not have shape {tuple(target_classes.shape)}"
            )
        return logits.gather(1, target_classes.to(logits.device, torch.int64)[:, None]).sum()

    def _combine(
        self, method: Attribution, layer: str, features: Tensor, gradients: Tensor
    ) -> Tensor:
        return method.combine(self._on_grid(layer, features), self._on_grid(layer, gradients))

    def _on_grid(self, layer: str, values: Tensor) -> Tensor:
        """Return features or gradients of the explained images as (R, C, h, w)."""
        layout = self._layouts[layer]
        return _at_least_single(layout.to_grid(self._select(values, layout.batch)))

    def _select(self, values: Tensor, axis: int) -> Tensor:
        rows = self._rows
        return values if rows is None else values.index_select(axis, rows.to(values.device))

    def _tap(self, layer: str, features: Tensor) -> Tensor:
        """Keep a layer's features, with gradients, and return a copy for the layers above.

        An in-place ReLU, as torchvision has them, then overwrites the copy.
        """
        if not features.requires_grad:
            features = features.detach().requires_grad_()
        self._taps[layer] = features
        self._n_below[layer] = len(self._attentions.weights)
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
            has a grid of places, such as (B, C, h, w), (B, h, w, C) or (B, N, C) tokens with or
            without class and register tokens; which axis is which is found.
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


def _current_autocast(device: str) -> Callable[[], torch.autocast]:
    """Return a function whose context restores the present autocast state."""
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return lambda: torch.autocast(device, dtype, enabled)


def _at_least_single(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
