"""Attention of a transformer, recorded in a forward pass, and what its gradients say of tokens.

Fused attention never holds the attention weights, and whoever writes it out holds them in a way of
their own. So the functions that compute them are watched: the fused ones are computed by operations
that have the weights, with the same values up to rounding.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mg_core.attributions.checks import layout_of
from mg_core.attributions.layout import Layout
from mg_core.attributions.network import in_mode, run_apart
from mg_core.errors import InputError

SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class Attentions(TorchFunctionMode):
    """Records the attention weights (B, heads, N, N) of all that runs inside, in their order.

    Attributes:
        weights: those recorded so far, before any dropout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._attend_in_module(*args, **kwargs)
        found = func(*args, **kwargs)
        if func in SOFTMAX and found.ndim == 4 and _axis(func, args, kwargs) in (-1, 3):
            self.weights.append(found)
        return found

    def _attend(
        self,
        query: Tensor,  # Parameters are named as those of F.scaled_dot_product_attention.
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (t.repeat_interleave(groups, -3) for t in (key, value))
        query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
        scores = query @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(-1)
        self.weights.append(weights)
        return F.dropout(weights, dropout_p) @ value

    def _attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Run the attention of `nn.MultiheadAttention` where it computes its weights."""
        given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
        given.apply_defaults()
        asked = dict(given.arguments)
        given.arguments |= {"need_weights": True, "average_attn_weights": False}
        found, weights = F.multi_head_attention_forward(*given.args, **given.kwargs)
        assert weights is not None
        # What is returned is a view; the outputs are computed from what it views.
        base: Tensor | None = weights._base
        self.weights.append(weights if base is None else base)
        if not asked["need_weights"]:
            return found, None
        return found, weights.mean(1) if asked["average_attn_weights"] else weights


def _axis(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("dim")


def by_image(weights: Tensor, n_images: int, model: nn.Module) -> Tensor:
    """Return attention weights as (B, heads, N, N).

    Raises:
        InputError: they are not between all places of an image.
    """
    *_, queries, keys = weights.shape
    is_whole = weights.ndim == 3 or len(weights) == n_images
    if queries != keys or not is_whole or len(weights) % n_images:
        raise InputError(
            f"{type(model).__name__} has attention of shape {tuple(weights.shape)} for {n_images} "
            f"images, as windows and pooled places have, and not (images, heads, N, N): its "
            f"relevance cannot be followed; choose another attribution"
        )
    return weights.reshape(n_images, -1, queries, keys)


def check_attentions(n_tokens: Sequence[int], n_all: int, layer: str, model: nn.Module) -> None:
    """Refuse a layer whose relevance is not that of the same tokens all the way up.

    Args:
        n_tokens: number N of tokens of each attention above the layer.
        n_all: number of attentions in the network.
        layer: name for messages.
        model: the network.

    Raises:
        InputError: there is no attention, or their tokens differ.
    """
    name = type(model).__name__
    if not n_all:
        raise InputError(
            f"{name} computes no attention that could be explained: choose a transformer, or "
            f"another attribution"
        )
    if not n_tokens:
        raise InputError(
            f"layer {layer!r} of {name} has no attention above it on the way to the logits; choose "
            f"an earlier layer"
        )
    if len(set(n_tokens)) > 1:
        raise InputError(
            f"layer {layer!r} of {name} has attention of {' and '.join(map(str, set(n_tokens)))} "
            f"tokens above it, so that relevance cannot be followed; choose a later layer"
        )


def token_layout(model: nn.Module, inputs: Tensor, n_tokens: int) -> Layout:
    """Return where the N tokens of a transformer have their places, and where class tokens are.

    It is the layout of the last features (B, N, C) before the first attention, found once.

    Args:
        model: the network.
        inputs: (B, C, H, W), encoded.
        n_tokens: N.

    Raises:
        InputError: there are no such features.
    """
    known = _layouts.setdefault(model, {})
    key = (n_tokens, tuple(inputs.shape[1:]))
    if key not in known:
        few = inputs[:2].detach()
        name, shape = _before_attention(model, few, n_tokens)
        known[key] = layout_of(model, name, shape, few)
    return known[key]


_layouts: WeakKeyDictionary[nn.Module, dict[Hashable, Layout]] = WeakKeyDictionary()


def _before_attention(model: nn.Module, inputs: Tensor, n_tokens: int) -> tuple[str, torch.Size]:
    """Return the name of the last module with tokens before the first attention, and its shape."""
    seen: list[tuple[str, torch.Size]] = []
    watch = Attentions()

    def look(name: str, output: object) -> None:
        is_early = not watch.weights and isinstance(output, Tensor) and output.ndim == 3
        if is_early and isinstance(output, Tensor) and n_tokens in output.shape:
            seen.append((name, output.shape))

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda module, args, output: look(name, output)

    handles = [part.register_forward_hook(hook(name)) for name, part in model.named_modules()]
    try:
        with torch.no_grad(), in_mode(model, training=False), watch:
            run_apart(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise InputError(
            f"{type(model).__name__} has no module with {n_tokens} tokens before its first "
            f"attention, so that their places are not known; choose another attribution"
        )
    return seen[-1]


def to_grid(relevance: Tensor, layout: Layout) -> Tensor:
    """Return the relevance of tokens (B, N) as maps (B, h, w), without class tokens."""
    places = math.prod(layout.grid)
    first = layout.first if len(layout.places) == 1 else 0
    return relevance[:, first : first + places].reshape(-1, *layout.grid)
