"""Classification and localisation over a split, in as few backward passes as there can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mg_core import metrics
from mg_core.attributions import explain, upsample
from mg_core.config import EvaluationPair

if TYPE_CHECKING:
    from mg_core.data import Split

BOX_SIZE_EDGES = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Box-area fractions that bound the size classes of `epg_by_box_size`; upper ends are inside."""

Step = Callable[[int], None]


@dataclass(frozen=True)
class Scores:
    """What one evaluated (attribution, layer) got for every (image, ground-truth class) pair.

    Attributes:
        targets: (P,) the class.
        epg: (P,) 0 where there is no positive energy.
        iou: (P, T) at every threshold of `metrics.IOU_THRESHOLDS`.
        has_energy: (P,) whether the map had any positive value.
        area: (P,) share of the image that the boxes cover.
        on_object: (P,) share of the in-box energy on the object; NaN without a mask or energy.
    """

    targets: NDArray[np.int64]
    epg: NDArray[np.float64]
    iou: NDArray[np.float64]
    has_energy: NDArray[np.bool_]
    area: NDArray[np.float64]
    on_object: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on one split.

    Attributes:
        classification: as `metrics.classification` names them, and `metrics.group_accuracy` for
            a data set with groups.
        scores: by evaluated pair.
    """

    classification: dict[str, Any]
    scores: dict[EvaluationPair, Scores]


def evaluate(
    model: torch.nn.Module,
    split: Split,
    pairs: Sequence[EvaluationPair],
    batch_size: int,
    device: torch.device | str = "cpu",
    on_batch: Step | None = None,
) -> Evaluation:
    """Evaluate a model on a split with running batch-norm statistics, in single precision.

    Images are batched with others of the same number of labels, so that a batch takes one
    backward pass per label of its images, for all (attribution, layer) pairs together.

    Args:
        model: as `build_model` makes it; it is left in evaluation mode.
        split: images, labels and boxes.
        pairs: attributions and the layers they are judged at; may be empty.
        batch_size: largest number of images in a pass.
        device: where the model is.
        on_batch: called with the number of images of each finished batch.
    """
    model.eval()
    with _without_parameter_gradients(model):
        return _evaluate(model, split, pairs, batch_size, device, on_batch)


@contextmanager
def _without_parameter_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Let no graph be recorded below the lowest layer that is judged."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _evaluate(
    model: torch.nn.Module,
    split: Split,
    pairs: Sequence[EvaluationPair],
    batch_size: int,
    device: torch.device | str,
    on_batch: Step | None,
) -> Evaluation:
    logits = np.zeros(split.labels.shape, dtype=np.float32)
    found: list[list[dict[str, torch.Tensor]]] = []
    where: list[NDArray[np.int64]] = []
    for indices in batches_by_label_count(split.labels, batch_size):
        images = split.images(indices).to(device, non_blocking=True)
        inputs = model.encode(images)  # type: ignore[operator]
        targets = np.nonzero(split.labels[indices])[1].reshape(len(indices), -1)
        if not (pairs and targets.shape[1]):
            with torch.no_grad():
                logits[indices] = model(inputs).float().cpu().numpy()
        else:
            explanation = explain(model, inputs, [(p.attribution, p.layer) for p in pairs])
            for classes in targets.T:
                maps = explanation.maps(torch.from_numpy(classes).to(device))
                found.append(_score_slot(maps, split, indices, classes))
                where.append(np.stack([indices, classes], axis=1))
            logits[indices] = explanation.logits.detach().float().cpu().numpy()
        if on_batch:
            on_batch(len(indices))
    return Evaluation(_classification(logits, split), _collect(pairs, found, where))


def _classification(logits: NDArray[np.float32], split: Split) -> dict[str, Any]:
    scores, labels = torch.from_numpy(logits), torch.from_numpy(split.labels)
    found: dict[str, Any] = {**metrics.classification(scores, labels)}
    if split.groups is not None:
        found |= metrics.group_accuracy(scores, labels, torch.from_numpy(split.groups))
    return found


def batches_by_label_count(
    labels: NDArray[np.bool_], batch_size: int
) -> Iterator[NDArray[np.int64]]:
    """Yield index arrays in which all images have the same number of labels, fewest first."""
    counts = labels.sum(axis=1)
    for count in np.unique(counts):
        members = np.flatnonzero(counts == count)
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]


def _score_slot(
    maps: Sequence[torch.Tensor],
    split: Split,
    indices: NDArray[np.int64],
    classes: NDArray[np.int64],
) -> list[dict[str, torch.Tensor]]:
    """Score the maps of one class per image, for every evaluated pair."""
    device = maps[0].device
    masks = split.masks(indices, classes).to(device, non_blocking=True)
    objects = split.segmentation(indices, classes)
    objects = None if objects is None else objects.to(device, non_blocking=True)
    segmented = (
        None if objects is None else torch.as_tensor(split.segmented(indices), device=device)
    )
    size = (int(masks.shape[-2]), int(masks.shape[-1]))
    area = masks.mean((1, 2), dtype=torch.float32)
    scored = []
    for raw in maps:
        attributions = upsample(raw.detach(), size)
        if objects is None or segmented is None:
            on_object = torch.full_like(area, torch.nan)
        else:
            on_object = metrics.on_object(attributions, masks, objects)
            on_object = torch.where(segmented, on_object, torch.nan)
        scored.append(
            {
                "epg": metrics.epg(attributions, masks),
                "iou": metrics.iou(attributions, masks, metrics.IOU_THRESHOLDS),
                "has_energy": metrics.has_energy(attributions),
                "area": area,
                "on_object": on_object,
            }
        )
    return scored


def _collect(
    pairs: Sequence[EvaluationPair],
    found: list[list[dict[str, torch.Tensor]]],
    where: list[NDArray[np.int64]],
) -> dict[EvaluationPair, Scores]:
    """Put the slots' scores together in the order of (image, class), whatever the batches were."""
    keys = np.concatenate([np.zeros((0, 2), dtype=np.int64), *where])
    order = np.lexsort((keys[:, 1], keys[:, 0]))

    def gather(pair: int, name: str, empty: tuple[int, ...]) -> NDArray[np.float64]:
        parts = [slot[pair][name].cpu().numpy() for slot in found]
        return np.concatenate([np.zeros(empty), *parts])[order]

    return {
        pair: Scores(
            targets=keys[order, 1],
            epg=gather(number, "epg", (0,)),
            iou=gather(number, "iou", (0, len(metrics.IOU_THRESHOLDS))),
            has_energy=gather(number, "has_energy", (0,)).astype(bool),
            area=gather(number, "area", (0,)),
            on_object=gather(number, "on_object", (0,)),
        )
        for number, pair in enumerate(pairs)
    }


def localization(scores: Scores, iou_threshold: float | None = None) -> dict[str, Any]:
    """Average one pair's scores into the columns of `schema.LOCALIZATION_FIELDS`.

    Args:
        scores: of one evaluated pair.
        iou_threshold: a value of `metrics.IOU_THRESHOLDS`, chosen on validation; where none is
            given, the one with the highest mean IoU here, of equals the lowest (Sec. 3.3).
    """
    thresholds = list(metrics.IOU_THRESHOLDS)
    n_pairs = len(scores.targets)
    by_threshold = scores.iou.mean(axis=0) if n_pairs else np.full(len(thresholds), np.nan)
    if iou_threshold is None:
        chosen = int(by_threshold.argmax()) if n_pairs else thresholds.index(0.5)
    else:
        chosen = thresholds.index(iou_threshold)
    seen = scores.on_object[~np.isnan(scores.on_object)]
    return {
        "epg": _mean(scores.epg),
        "iou": float(by_threshold[chosen]),
        "iou_threshold": thresholds[chosen],
        "iou_at_0.5": float(by_threshold[thresholds.index(0.5)]),
        "iou_by_threshold": by_threshold.tolist(),
        "n_pairs": n_pairs,
        "n_without_energy": int((~scores.has_energy).sum()),
        "n_empty_mask": int((scores.area == 0).sum()),
        "box_area": _mean(scores.area),
        "on_object": _mean(seen) if len(seen) else None,
        "n_on_object": len(seen),
    }


def breakdown(scores: Scores, n_classes: int) -> dict[str, list[float]]:
    """Average EPG by class and by box size, NaN where there is no pair.

    EPG rises with the size of the boxes, so averages of sets with other boxes do not compare.
    """
    sizes = np.digitize(scores.area, BOX_SIZE_EDGES[1:-1], right=True)
    return {
        "epg_by_class": [_mean(scores.epg[scores.targets == k]) for k in range(n_classes)],
        "epg_by_box_size": [
            _mean(scores.epg[sizes == bin_]) for bin_ in range(len(BOX_SIZE_EDGES) - 1)
        ],
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
