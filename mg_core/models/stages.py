"""Guidance layers of any network, found in one forward pass.

Of a network that shrinks its maps step by step, `mid1` … `final` are the last maps of its four
lowest resolutions. Of one that does not, such as a plain vision transformer, they are the blocks
that end the quarters of its depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mg_core.attributions.checks import influence
from mg_core.attributions.network import first_map, in_mode, run_apart
from mg_core.models.library import LAYERS

PLAIN = 0.85
"""Share of a network's work at one resolution from which on it counts as plain."""


@dataclass
class Call:
    """One call of a module in a forward pass.

    Attributes:
        name: dotted name of the module, empty for the network itself.
        kind: class of the module.
        parameters: number of parameters in it.
        cells: number of places of its output, 0 if it is no map.
        channels: number of channels of (B, C, h, w) features.
        drops: how often its output halves each side of its input; none if one is no map.
        level: how often its output halves each side of the image; none if it is no map.
        inner: calls inside, in their order.
    """

    name: str
    kind: type
    parameters: int
    cells: int = 0
    channels: int = 0
    drops: float | None = None
    level: int | None = None
    inner: list[Call] = field(default_factory=list)

    @property
    def is_block(self) -> bool:
        """Whether it consists of layers with parameters; a norm with its activation does not."""
        return any(inner.parameters for inner in self.inner)

    @property
    def blocks(self) -> list[Call]:
        """The blocks inside with maps of its resolution."""
        return [inner for inner in self.inner if inner.is_block and inner.level == self.level]

    @property
    def work(self) -> int:
        """About how many multiplications it takes."""
        return self.parameters * self.cells


def find_layers(model: nn.Module, inputs: Tensor) -> dict[str, str]:
    """Return guidance layers of a network: "mid1" … "final" -> dotted name of the submodule.

    The last one is a layer whose places have an influence on the logits, which the last block of a
    transformer that reads its class token alone has not. Small networks have fewer layers.

    Args:
        model: the network, which is not changed.
        inputs: (1, C, H, W) with H = W, of a size that the network takes.

    Example:
        >>> import torch, torchvision
        >>> from mg_core.models.stages import find_layers
        >>> find_layers(torchvision.models.resnet18(), torch.rand(1, 3, 64, 64))
        {'mid1': 'layer1', 'mid2': 'layer2', 'mid3': 'layer3', 'final': 'layer4'}
    """
    root, n_classes = _record(model, inputs)
    path = _without_head(list(_path(root)), n_classes)
    stages, blocks = _last_of_levels(path), _stack(root, path)
    if not blocks and len(stages) < len(LAYERS):
        blocks = [block for call in path for block in (call.blocks or [call])]
    if len(blocks) >= len(LAYERS):
        chosen = [blocks[math.ceil(len(blocks) * q / len(LAYERS)) - 1] for q in (1, 2, 3, 4)]
        below = blocks
    elif stages:
        chosen = stages[-len(LAYERS) :]
        same = [call for call in path if call.level == chosen[-1].level]
        until = same[: same.index(chosen[-1]) + 1]
        below = [part for call in until for part in (*call.blocks, call)]
    else:
        return {}
    names = [call.name for call in chosen]
    names[-1] = next(
        (call.name for call in reversed(below) if _has_influence(model, call.name, inputs)),
        names[-1],
    )
    return dict(zip(LAYERS[len(LAYERS) - len(names) :], names, strict=True))


def _record(model: nn.Module, inputs: Tensor) -> tuple[Call, int]:
    """Return the call of the network on inputs, with all calls inside, and the number of logits."""
    names = {module: name for name, module in model.named_modules()}
    root = Call("", type(model), 0)
    open_calls = [root]

    def begin(module: nn.Module, args: tuple[object, ...]) -> None:
        size = sum(values.numel() for values in module.parameters())
        call = Call(names[module], type(module), size)
        open_calls[-1].inner.append(call)
        open_calls.append(call)

    def end(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        call = open_calls.pop()
        found = first_map(output)
        before, after = _cells(first_map(args)), _cells(found)
        if found is not None and after:
            call.cells, call.channels = after, found.shape[1]
            call.level = round(math.log(inputs[0, 0].numel() / after, 4))
            call.drops = math.log(before / after, 4) if before else None

    handles = []
    for module in names:
        handles.append(module.register_forward_pre_hook(begin))
        handles.append(module.register_forward_hook(end))
    try:
        with torch.no_grad(), in_mode(model, training=False):
            n_classes = run_apart(model, inputs).shape[1]
    finally:
        for handle in handles:
            handle.remove()
    return root.inner[0], n_classes


def _cells(values: Tensor | None) -> int:
    """Return the number of places of one image's features, 0 if they are no map.

    A first look at the shape is enough to choose layers: their layout is found before use.
    """
    if values is None or len(values) != 1:
        return 0
    if values.ndim == 3:
        return values.shape[1]
    _, a, b, c = values.shape
    return b * c if b == c else a * b if a == b else 0


def _path(call: Call) -> Iterator[Call]:
    """Yield the parts of a network, none of which halves its maps more than once."""
    for inner in call.inner:
        if inner.inner and (inner.drops is None or inner.drops > 1.5):
            yield from _path(inner)
        elif inner.level is not None:
            yield inner


def _without_head(path: list[Call], n_classes: int) -> list[Call]:
    """Leave out what pools the last maps, and classifiers that run before it."""
    pools = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout)
    while path and (
        path[-1].cells <= 1 or path[-1].channels == n_classes or issubclass(path[-1].kind, pools)
    ):
        path = path[:-1]
    return path


def _last_of_levels(path: Sequence[Call]) -> list[Call]:
    """Return the last part at each resolution, from high to low; blocks go before single layers."""
    found: dict[int, Call] = {}
    for call in path:
        level = call.level or 0
        lowest = max(found, default=0)
        if level >= lowest and (call.is_block or not (level in found and found[level].is_block)):
            found[level] = call
    return [found[level] for level in sorted(found)]


def _stack(root: Call, path: Sequence[Call]) -> list[Call]:
    """Return the equal blocks that make up a plain network; nothing for another network."""
    total = sum(call.work for call in path)
    by_level: dict[int, int] = {}
    for call in path:
        by_level[call.level or 0] = by_level.get(call.level or 0, 0) + call.work
    level = max(by_level, key=lambda found: by_level[found], default=0)
    if not total or by_level[level] < PLAIN * total:
        return []
    stacks: list[list[Call]] = []
    waiting = [root]
    while waiting:
        call = waiting.pop()
        waiting += call.inner
        same: dict[type, list[Call]] = {}
        for inner in call.inner:
            if inner.level == level and inner.is_block:
                same.setdefault(inner.kind, []).append(inner)
        stacks += [blocks for blocks in same.values() if len(blocks) >= len(LAYERS)]
    return max(stacks, key=lambda blocks: sum(c.parameters for c in blocks), default=[])


def _has_influence(model: nn.Module, layer: str, inputs: Tensor) -> bool:
    """Say whether more than a few places of a layer have an influence on the logits."""
    with in_mode(model, training=False):
        gradient = influence(model, layer, inputs)
    if gradient.ndim == 4:
        return bool(gradient.any())
    # Class and register tokens are few.
    return bool((gradient[0] != 0).any(-1).float().mean() > 0.25)
