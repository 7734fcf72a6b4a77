"""The batches of an epoch: their images, drawn classes and masks, as functions of the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mg_core.config import TrialConfig
from mg_core.counter import permutation, uniforms
from mg_core.data.annotations import annotatable, annotation_masks
from mg_core.data.boxes import annotated_indices
from mg_core.guidance import Batch
from mg_core.models import encode

if TYPE_CHECKING:
    from mg_core.data import Split
    from mg_core.data.augmentation import Augmentation


def training_batches(
    model: torch.nn.Module, split: Split, config: TrialConfig, epoch: int, device: torch.device
) -> Iterator[Batch]:
    """Yield the batches of one epoch.

    Order, drawn classes, flips and augmentation depend only on (seed, epoch, sample). Images
    without boxes, outside the annotated subset, or whose object augmentation cropped away, are
    not guided. Annotations are drawn before they are augmented, as they are of the data set.
    """
    n_images, seed, g = len(split), config.seed, config.guidance
    known = annotated_classes(split, config)
    annotated = np.asarray(known.any(axis=1))
    targets = drawn_classes(known, uniforms(n_images, seed, "class", epoch))
    flips = uniforms(n_images, seed, "flip", epoch) < (0.5 if config.data.horizontal_flip else 0)
    augmentation = augmentation_of(config)
    for indices in slices(permutation(n_images, seed, "shuffle", epoch), config.batch_size):
        images = flipped(split.images(indices), flips[indices])
        rows = np.flatnonzero(annotated[indices])
        shown = indices[rows]
        masks = annotation_masks(split, shown, targets[shown], g.drawn if g else "none", seed)
        masks = flipped(masks, flips[shown])
        if augmentation is not None:
            images, masks, is_visible = augmentation(
                images, masks, rows, epoch, indices, split.is_outside
            )
            rows, shown, masks = rows[is_visible], shown[is_visible], masks[is_visible]
        inputs = encode(model, _to(images, device))
        labels = _to(torch.from_numpy(split.labels[indices]), device)
        if g is None:
            yield Batch(inputs, labels)
            continue
        yield Batch(
            inputs,
            labels,
            target_classes=_to(torch.from_numpy(targets[shown]), device),
            masks=_to(masks, device),
            annotated=_to(torch.from_numpy(rows), device),
        )


def annotated_classes(split: Split, config: TrialConfig) -> NDArray[np.bool_]:
    """Return which classes of which training images are annotated, (N, K); none for a baseline.

    The images are those of the annotated subset. Images that the annotation cannot be drawn of,
    such as those without a segmentation mask, are chosen last and have none.
    """
    g = config.guidance
    if g is None:
        return np.zeros_like(split.located)
    known = annotatable(split, g.annotation)
    chosen = np.zeros((len(split), 1), dtype=np.bool_)
    chosen[annotated_indices(known, g.annotated_fraction, config.seed)] = True
    found: NDArray[np.bool_] = known & chosen
    return found


def augmentation_of(config: TrialConfig) -> Augmentation | None:
    """Return the augmentation of a trial's images; none for a trial without one.

    Raises:
        InputError: a transform does not exist or cannot be used.
    """
    if not config.augment:
        return None
    from mg_core.data.augmentation import Augmentation  # Here: it needs torchvision's transforms.

    return Augmentation(config.augment, config.data.image_size, config.seed)


def batch_ids(split: Split, config: TrialConfig, epoch: int, number: int) -> list[str]:
    """Return the ids of the images in batch `number` of an epoch."""
    order = permutation(len(split), config.seed, "shuffle", epoch)
    return [str(split.ids[index]) for index in slices(order, config.batch_size)[number]]


def flipped(images: torch.Tensor, is_flipped: NDArray[np.bool_]) -> torch.Tensor:
    """Mirror images or masks (B, …, W) horizontally where (B,) `is_flipped` is true."""
    if not is_flipped.any():
        return images
    rows = torch.from_numpy(np.flatnonzero(is_flipped))
    return images.index_copy(0, rows, images[rows].flip(-1))


def drawn_classes(labels: NDArray[np.bool_], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw one ground-truth class for each image uniformly (Sec. 3.5).

    Args:
        labels: (N, K) bool.
        draws: (N,) uniform numbers in [0, 1).

    Returns:
        (N,) class indices; 0 for an image without labels.
    """
    counts = labels.sum(axis=1)
    rank = np.floor(draws * counts).astype(np.int64)
    # The drawn class is the first whose running label count exceeds the rank.
    picked: NDArray[np.int64] = (labels.cumsum(axis=1) > rank[:, None]).argmax(axis=1)
    return picked


def slices(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Split an order into batches; a single last image is added to the batch before it.

    Batch norm in training mode cannot normalise a single value per channel.
    """
    cuts = list(range(batch_size, len(order), batch_size))
    if cuts and len(order) - cuts[-1] == 1 and batch_size > 1:
        cuts.pop()
    return np.split(order, cuts)


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
