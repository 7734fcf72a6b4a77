"""Losses on gradients of scores of their own, in place of an attribution of the target class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.losses.evidence import Evidence, informed
from mg_core.losses.localization import LOSSES

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("rrr_original")
@informed
def rrr_original(evidence: Evidence) -> Tensor:
    """Penalise gradients outside the mask, as first published (Ross et al., 2017, Eq. 1).

    Σ over places of (1 − M) Σ over channels of (∂/∂x Σ_k log p_k)², where p is the softmax of the
    logits. Where each class has a sigmoid, log p_k is log σ(z_k) + log(1 − σ(z_k)): the sum over
    the two outcomes of that class. At an inner layer its features take the place of the inputs x,
    and squares are upsampled. The gradient is the ordinary one, also on B-cos models. So the guided
    attribution plays no part but to name the layer. Nothing is normalised: the loss grows with the
    square of the gradients.
    """
    import torch.nn.functional as F

    logits = evidence.logits
    if evidence.is_single_label:
        score = F.log_softmax(logits, 1).sum(1)
    else:
        score = (F.logsigmoid(logits) + F.logsigmoid(-logits)).sum(1)
    squares = evidence.upsample(evidence.gradients_of(score).square().sum(1))
    return squares.masked_fill(evidence.masks, 0.0).sum((1, 2))
