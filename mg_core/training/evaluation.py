"""Evaluation of a model on a split, with one backward pass for each label of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mg_core.attributions import explain, upsample
from mg_core.attributions.network import classify
from mg_core.columns import BOX_SIZE_EDGES, BY_METRIC
from mg_core.config import EvaluationPair
from mg_core.data.layouts.waterbirds import Waterbirds
from mg_core.guidance.precision import kernels
from mg_core.metrics import localization
from mg_core.metrics.classification import classification
from mg_core.metrics.groups import accuracy, accuracy_by_group, group_accuracy
from mg_core.models import encode

if TYPE_CHECKING:
    from mg_core.data import Split

IOU_THRESHOLDS = localization.IOU_THRESHOLDS

Step = Callable[[int], None]


@dataclass(frozen=True)
class Scores:
    """Scores of one (attribution, layer) for each of P (image, ground-truth class) pairs.

    Attributes:
        targets: (P,) class of each pair.
        values: by metric, (P,) or (P, T) numbers; NaN where a metric needs a segmentation mask
            and the image has none.
    """

    targets: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on one split.

    Attributes:
        classification: classification metrics by name; with the accuracy where each image has one
            label, and for a data set with groups with that of each group.
        scores: scores of each evaluated (attribution, layer).
    """

    classification: dict[str, Any]
    scores: dict[EvaluationPair, Scores]

    @property
    def localization(self) -> dict[str, dict[str, Any]]:
        """Averaged metrics of each (attribution, layer), by name such as `gradcam@final`."""
        return {str(pair): averages(scores) for pair, scores in self.scores.items()}


@kernels("fp32")
def evaluate(
    model: torch.nn.Module,
    split: Split,
    pairs: Sequence[EvaluationPair | tuple[str, str]] = (),
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    on_batch: Step | None = None,
) -> Evaluation:
    """Evaluate a model on a split with running batch-norm statistics, in single precision.

    All images of a batch have the same number of classes with boxes. A batch takes one backward
    pass for each of them, which serves all (attribution, layer) pairs. A class that an image shows
    without a box counts for the classification alone.

    Args:
        model: a model of the registry, or any network whose logits are the classes of the split;
            it is left in evaluation mode.
        split: images, labels and boxes.
        pairs: (attribution, layer) pairs to evaluate, may be empty; a layer is `input`, a guidance
            layer or the dotted name of a submodule.
        batch_size: largest number of images in a batch.
        device: device of the model.
        on_batch: called with the number of images of each finished batch.

    Raises:
        InputError: unknown attribution or layer, or a layer whose output is no map.

    Example:
        >>> import mg_core, torchvision
        >>> data = mg_core.open_data("shapes", image_size=32, train=8, val=6, test=4, size=32)
        >>> network = torchvision.models.resnet18(num_classes=len(data.classes))
        >>> found = mg_core.evaluate(network, data.split("val"), [("gradcam", "layer4")])
        >>> 0 <= found.classification["f1"] <= 1
        True
        >>> sorted(found.localization["gradcam@layer4"])[:3]
        ['box_area', 'epg', 'iou']
    """
    model.eval()
    named = [
        pair
        if isinstance(pair, EvaluationPair)
        else EvaluationPair(attribution=pair[0], layer=pair[1])
        for pair in pairs
    ]
    logits = np.zeros(split.labels.shape, dtype=np.float32)
    scored: list[list[dict[str, torch.Tensor]]] = []
    keys: list[NDArray[np.int64]] = []
    with without_parameter_gradients(model):
        for indices in batches_by_label_count(split.located, batch_size):
            inputs = encode(model, split.images(indices).to(device, non_blocking=True))
            targets = np.nonzero(split.located[indices])[1].reshape(len(indices), -1)
            if not (named and targets.shape[1]):
                with torch.no_grad():
                    found = classify(model, inputs)
            else:
                explanation = explain(model, inputs, [(p.attribution, p.layer) for p in named])
                for classes in targets.T:
                    maps = explanation.maps(torch.from_numpy(classes).to(device))
                    scored.append(_score_maps(maps, split, indices, classes))
                    keys.append(np.stack([indices, classes], axis=1))
                found = explanation.logits.detach()
            logits[indices] = found.float().cpu().numpy()
            if on_batch:
                on_batch(len(indices))
    return Evaluation(_classification(logits, split), _collect(named, scored, keys))


@contextmanager
def without_parameter_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Keep autograd from recording a graph below the lowest evaluated layer."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _classification(logits: NDArray[np.float32], split: Split) -> dict[str, Any]:
    scores, labels = torch.from_numpy(logits), torch.from_numpy(split.labels)
    found: dict[str, Any] = {**classification(scores, labels)}
    if split.groups is not None:
        found |= _of_groups(scores, labels, split)
    elif bool((labels.sum(1) == 1).all()):
        found["accuracy"] = accuracy(scores, labels)
    return found


def _of_groups(scores: torch.Tensor, labels: torch.Tensor, split: Split) -> dict[str, Any]:
    """Return the accuracies of a data set's groups; Waterbirds has columns of its own."""
    groups, names = torch.from_numpy(split.groups), split.group_names
    if names == Waterbirds.groups:
        return {"groups": list(names), **group_accuracy(scores, labels, groups)}
    return {"groups": list(names), **accuracy_by_group(scores, labels, groups, len(names))}


def batches_by_label_count(
    labels: NDArray[np.bool_], batch_size: int
) -> Iterator[NDArray[np.int64]]:
    """Yield index arrays in which all images have the same number of labels, fewest first."""
    counts = labels.sum(axis=1)
    for count in np.unique(counts):
        members = np.flatnonzero(counts == count)
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]


def _score_maps(
    maps: Sequence[torch.Tensor],
    split: Split,
    indices: NDArray[np.int64],
    classes: NDArray[np.int64],
) -> list[dict[str, torch.Tensor]]:
    """Score the maps of one class of each image, one entry for each evaluated pair."""
    device = maps[0].device
    masks = split.masks(indices, classes).to(device, non_blocking=True)
    # An object inside its box is not where the evidence is, if that lies outside.
    objects = None if split.is_outside else split.segmentation(indices, classes)
    segmented = None
    if objects is not None:
        objects = objects.to(device, non_blocking=True)
        segmented = torch.as_tensor(split.segmented(indices), device=device)
    size = masks.shape[-2:]
    return [_score(upsample(raw.detach(), size), masks, objects, segmented) for raw in maps]


def _score(
    attributions: torch.Tensor,
    masks: torch.Tensor,
    objects: torch.Tensor | None,
    segmented: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Return the score of each map in every metric, by name; integer metrics count true scores."""
    area = masks.mean((1, 2), dtype=torch.float32)
    on_object = mask_epg = torch.full_like(area, torch.nan)
    if objects is not None and segmented is not None:
        share = localization.on_object(attributions, masks, objects)
        on_object = torch.where(segmented, share, torch.nan)
        # A class without a pixel in the mask, such as one that others hide, is nowhere to look.
        own = localization.epg(attributions, objects)
        mask_epg = torch.where(objects.any(2).any(1), own, torch.nan)
    return {
        "epg": localization.epg(attributions, masks),
        "iou_by_threshold": localization.iou(attributions, masks, IOU_THRESHOLDS),
        "pointing_game": localization.pointing_game(attributions, masks),
        "n_without_energy": ~localization.has_energy(attributions),
        "n_zero_map": ~localization.is_anywhere(attributions),
        "n_empty_mask": area == 0,
        "box_area": area,
        "on_object": on_object,
        "n_on_object": ~on_object.isnan(),
        "mask_epg": mask_epg,
        "n_mask_epg": ~mask_epg.isnan(),
    }


def _collect(
    pairs: Sequence[EvaluationPair],
    scored: list[list[dict[str, torch.Tensor]]],
    keys: list[NDArray[np.int64]],
) -> dict[EvaluationPair, Scores]:
    """Join the scores of all batches, sorted by image and class, which are the (B, 2) `keys`."""
    images, classes = np.concatenate([np.zeros((0, 2), dtype=np.int64), *keys]).T
    order = np.lexsort((classes, images))
    # The scores of no map: the names of all metrics, for a split without any label.
    none = torch.zeros((0, 1, 1))
    empty = _score(none, none.bool(), None, None)

    def joined(pair: int, name: str) -> NDArray[np.float64]:
        parts = [empty[name].double(), *(scores[pair][name] for scores in scored)]
        return np.concatenate([part.cpu().numpy() for part in parts])[order]

    return {
        pair: Scores(classes[order], {name: joined(number, name) for name in empty})
        for number, pair in enumerate(pairs)
    }


def averages(scores: Scores, iou_threshold: float | None = None) -> dict[str, Any]:
    """Return the metrics of one (attribution, layer), by their names in `mg_core.columns.METRICS`.

    Args:
        scores: scores of the (attribution, layer).
        iou_threshold: a value of `IOU_THRESHOLDS`, chosen on validation; by default the lowest of
            those with the highest mean IoU in `scores` (Sec. 3.3).
    """
    found = {name: _average(name, values) for name, values in scores.values.items()}
    by_threshold = found["iou_by_threshold"]
    thresholds = list(IOU_THRESHOLDS)
    n_pairs = len(scores.targets)
    if iou_threshold is None:
        chosen = int(np.argmax(by_threshold)) if n_pairs else thresholds.index(0.5)
    else:
        chosen = thresholds.index(iou_threshold)
    return found | {
        "iou": by_threshold[chosen],
        "iou_threshold": thresholds[chosen],
        "iou_at_0.5": by_threshold[thresholds.index(0.5)],
        "n_pairs": n_pairs,
    }


def _average(name: str, values: NDArray[np.float64]) -> Any:
    metric = BY_METRIC[name]
    if metric.type == "int64":
        return int(values.sum())
    if metric.needs:
        known = values[~np.isnan(values)]
        return _mean(known) if len(known) else None
    return _mean(values)


def breakdown(scores: Scores, n_classes: int) -> dict[str, list[float]]:
    """Return the mean EPG of each class and of each bin of box sizes, NaN without any pair.

    EPG rises with the size of the boxes, so means over different boxes are not comparable.
    """
    epg, area = scores.values["epg"], scores.values["box_area"]
    sizes = np.digitize(area, BOX_SIZE_EDGES[1:-1], right=True)
    return {
        "epg_by_class": [_mean(epg[scores.targets == k]) for k in range(n_classes)],
        "epg_by_box_size": [_mean(epg[sizes == bin_]) for bin_ in range(len(BOX_SIZE_EDGES) - 1)],
    }


def _mean(values: NDArray[np.float64]) -> Any:
    """Return the mean over the first axis, NaN without entries."""
    return (values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)).tolist()
