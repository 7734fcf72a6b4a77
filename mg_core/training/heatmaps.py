"""Heat maps of a few images, computed with the model and stored, so that reports need no model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mg_core.attributions import explain, upsample
from mg_core.config import EvaluationPair
from mg_core.counter import permutation
from mg_core.guidance.precision import kernels
from mg_core.models import encode

if TYPE_CHECKING:
    from mg_core.data import Split

JPEG_QUALITY = 88
SEED = 0
"""Seed of the draw of images, which is the same for all trials of a data set."""


def shown_images(split: Split, count: int) -> list[tuple[int, int]]:
    """Draw images with boxes, and one class of each.

    As many different classes as possible are drawn, or groups if the data set has groups. The draw
    depends only on the split; with a smaller count, fewer of the same images are drawn.

    Returns:
        At most `count` pairs (image, class), both as indices of the split.
    """
    order = permutation(len(split), SEED, "heat maps", 0)
    candidates = [
        (int(index), int(class_id))
        for index in order
        for class_id in np.flatnonzero(split.labels[index])
        if len(split.boxes(int(index), int(class_id)))
    ]
    # In each round every class or group occurs at most once.
    rounds: dict[int, int] = {}
    images: set[int] = set()
    ranked = []
    for place, (index, class_id) in enumerate(candidates):
        if index in images:
            continue
        kind = class_id if split.groups is None else int(split.groups[index])
        ranked.append((rounds.get(kind, 0), place))
        rounds[kind] = rounds.get(kind, 0) + 1
        images.add(index)
    return [candidates[place] for _, place in sorted(ranked)[:count]]


@kernels("fp32")
def heat_maps(
    model: torch.nn.Module,
    split: Split,
    shown: Sequence[tuple[int, int]],
    pairs: Sequence[EvaluationPair],
    device: torch.device | str = "cpu",
) -> dict[EvaluationPair, list[dict[str, Any]]]:
    """Explain one class of each image; one forward pass serves all (attribution, layer) pairs.

    Args:
        model: a model of the registry; it is left in evaluation mode.
        split: the split that holds the images.
        shown: (image, class) of each heat map, as `shown_images` draws them.
        pairs: (attribution, layer) pairs to explain with.
        device: device of the model.

    Returns:
        By pair, rows of `mg_core.store.tables.HEATMAPS` without trial, epoch and task. A pair with
        a map that is not finite is left out: there is nothing to show.
    """
    if not shown or not pairs:
        return {pair: [] for pair in pairs}
    model.eval()
    indices, classes = (np.array(column) for column in zip(*shown, strict=True))
    images = split.images(indices)
    inputs = encode(model, images.to(device))
    explanation = explain(model, inputs, [(p.attribution, p.layer) for p in pairs])
    maps = explanation.maps(torch.from_numpy(classes).to(device))
    logits = explanation.logits.detach().float().cpu()
    # Images of data sets with groups have one label, all others any number of labels.
    chances = logits.sigmoid() if split.groups is None else logits.softmax(1)
    common = [
        {
            "image": str(split.ids[index]),
            "class_name": split.classes[class_id],
            "probability": float(chances[row, class_id]),
            "prediction": split.classes[int(logits[row].argmax())],
            "size": int(images.shape[-1]),
            "boxes": split.boxes(index, class_id).ravel().astype(float).tolist(),
            "picture": _jpeg(images[row]),
        }
        for row, (index, class_id) in enumerate(shown)
    ]
    found = {}
    for pair, raw in zip(pairs, maps, strict=True):
        values = upsample(raw.detach(), int(images.shape[-1])).float().cpu().numpy()
        if not np.isfinite(values).all():
            continue
        found[pair] = [
            row
            | {"attribution": pair.attribution, "layer": pair.layer}
            | {"map": _half_precision(one)}
            for row, one in zip(common, values, strict=True)
        ]
    return found


def _half_precision(values: NDArray[np.float32]) -> bytes:
    peak = np.abs(values).max()
    scaled = values / peak if peak > 0 else np.zeros_like(values)
    return scaled.astype("<f2").tobytes()


def _jpeg(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
