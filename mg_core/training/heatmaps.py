"""Heat maps of a few images, made where the model is at hand and drawn where it is not."""

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

if TYPE_CHECKING:
    from mg_core.data import Split

JPEG_QUALITY = 88
SEED = 0
"""Of the draw of images: all trials of a data set show the same ones."""


def shown_images(split: Split, count: int) -> list[tuple[int, int]]:
    """Draw images with boxes, and one class of each, with as many different classes as can be.

    The draw depends on the split and the count alone, and a smaller count is a part of a larger.
    For a data set with groups, as many different groups as can be.

    Returns:
        At most `count` (image, class), by position in the split.
    """
    order = permutation(len(split), SEED, "heat maps", 0)
    candidates = [
        (int(index), int(class_id))
        for index in order
        for class_id in np.flatnonzero(split.labels[index])
        if len(split.boxes(int(index), int(class_id)))
    ]
    # Round by round, each kind of image once.
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


def heat_maps(
    model: torch.nn.Module,
    split: Split,
    shown: Sequence[tuple[int, int]],
    pairs: Sequence[EvaluationPair],
    device: torch.device | str = "cpu",
) -> dict[EvaluationPair, list[dict[str, Any]]]:
    """Explain one class of each image, in one pass for all pairs.

    Args:
        model: as `build_model` makes it; it is left in evaluation mode.
        split: of the images.
        shown: (image, class) each, as `shown_images` draws them.
        pairs: attributions and layers.
        device: where the model is.

    Returns:
        By pair, rows of `schema.HEATMAPS` without trial and epoch.
    """
    if not shown or not pairs:
        return {pair: [] for pair in pairs}
    model.eval()
    indices, classes = (np.array(column) for column in zip(*shown, strict=True))
    images = split.images(indices)
    inputs = model.encode(images.to(device))  # type: ignore[operator]
    explanation = explain(model, inputs, [(p.attribution, p.layer) for p in pairs])
    maps = explanation.maps(torch.from_numpy(classes).to(device))
    logits = explanation.logits.detach().float().cpu()
    # Data sets with groups have one label an image, all others any number of them.
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
