"""What a model does when images are changed: deletion and insertion, and swapped backgrounds.

These are measured on the test split alone, of the checkpoints that validation selects. In forward
passes of an image, a checkpoint takes 2 for each of at most `MOST_IMAGES` images whose background
is swapped and, for each judged (attribution, layer), 2 · `STEPS` for each class of `DRAWN` images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mg_core.attributions import explain, upsample
from mg_core.attributions.network import classify
from mg_core.config import EvaluationPair
from mg_core.counter import permutation
from mg_core.data.backgrounds import swapped_backgrounds
from mg_core.guidance.precision import kernels
from mg_core.metrics.classification import classification
from mg_core.metrics.perturbation import deletion_insertion
from mg_core.models import encode
from mg_core.models.base import unit_range
from mg_core.training.evaluation import batches_by_label_count, without_parameter_gradients

if TYPE_CHECKING:
    from mg_core.data import Split

DRAWN = 32
"""Images with boxes of which the classes are deleted and inserted; of fewer, all."""
SEED = 0
"""Seed of their draw, which is the same for all trials of a data set."""


@dataclass(frozen=True)
class Interventions:
    """Metrics of changed images, by their names in `mg_core.columns.METRICS`.

    Attributes:
        swapped: those of swapped backgrounds, which no map takes part in.
        perturbed: those of deletion and insertion for each (attribution, layer).
    """

    swapped: dict[str, Any]
    perturbed: dict[EvaluationPair, dict[str, Any]]


@kernels("fp32")
def intervene(
    model: torch.nn.Module,
    split: Split,
    pairs: Sequence[EvaluationPair] = (),
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Interventions:
    """Measure a model on changed images of a split; arguments as for `evaluate`."""
    model.eval()
    with without_parameter_gradients(model):
        swapped = swap_backgrounds(model, split, batch_size, device)
        perturbed = perturb(model, split, pairs, batch_size, device) if pairs else {}
    return Interventions(swapped, perturbed)


@torch.no_grad()
def swap_backgrounds(
    model: torch.nn.Module, split: Split, batch_size: int, device: torch.device | str
) -> dict[str, Any]:
    """Return F1 with and without the own background; none where no image has one to swap."""
    kept: list[NDArray[np.int64]] = []
    logits: dict[str, list[torch.Tensor]] = {"f1_unswapped": [], "f1_swapped": []}
    for indices, own, changed in swapped_backgrounds(split, batch_size):
        kept.append(indices)
        for name, images in zip(logits, (own, changed), strict=True):
            logits[name].append(classify(model, encode(model, images.to(device))).float().cpu())
    if not kept:
        return {**dict.fromkeys(logits), "n_swapped": 0}
    chosen = np.concatenate(kept)
    labels = torch.from_numpy(split.labels[chosen])
    scores = {name: classification(torch.cat(own), labels)["f1"] for name, own in logits.items()}
    return {**scores, "n_swapped": len(chosen)}


def perturb(
    model: torch.nn.Module,
    split: Split,
    pairs: Sequence[EvaluationPair],
    batch_size: int,
    device: torch.device | str,
) -> dict[EvaluationPair, dict[str, Any]]:
    """Return mean deletion and insertion areas over the classes with boxes of `DRAWN` images.

    The score is the sigmoid of the explained class's logit. Maps that put no pixel first are left
    out, see `deletion_insertion`; `n_perturbed` counts the others.
    """
    order = permutation(len(split), SEED, "deletion and insertion")
    drawn = np.sort(order[split.located[order].any(1)][:DRAWN])
    areas: dict[EvaluationPair, list[torch.Tensor]] = {pair: [] for pair in pairs}
    for places in batches_by_label_count(split.located[drawn], batch_size):
        indices = drawn[places]
        images = unit_range(split.images(indices).to(device))
        targets = np.nonzero(split.located[indices])[1].reshape(len(indices), -1)
        methods = [(pair.attribution, pair.layer) for pair in pairs]
        explanation = explain(model, encode(model, images), methods)
        for classes in torch.from_numpy(targets.T).to(device):
            for pair, raw in zip(pairs, explanation.maps(classes), strict=True):
                maps = upsample(raw.detach(), images.shape[-2:])
                areas[pair].append(_areas(model, images, maps, classes).cpu())
    return {pair: _mean_areas(found) for pair, found in areas.items()}


def _areas(
    model: torch.nn.Module, images: torch.Tensor, maps: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    def probability(changed: torch.Tensor) -> torch.Tensor:
        logits = classify(model, encode(model, changed)).float()
        return logits.sigmoid().gather(1, classes[:, None])[:, 0]

    return torch.stack(deletion_insertion(probability, images, maps), 1)


def _mean_areas(found: list[torch.Tensor]) -> dict[str, Any]:
    areas = torch.cat([torch.zeros((0, 2), dtype=torch.float64), *found])
    known = areas[~areas.isnan().any(1)]
    deletion, insertion = known.mean(0).tolist() if len(known) else (None, None)
    return {"deletion": deletion, "insertion": insertion, "n_perturbed": len(known)}
