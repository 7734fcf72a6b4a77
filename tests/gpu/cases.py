"""Guided steps of all variants, built alike on any device and in any type."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from mg_core.attributions import ATTRIBUTIONS, attribute
from mg_core.errors import InputError
from mg_core.guidance import Batch, Guidance, guided_loss, kernels
from mg_core.guidance.pairs import check_pair
from mg_core.losses import LOSSES
from mg_core.models import MODELS, build_model, encode

CLASSES, SIZE, BATCH = 4, 64, 4
LAYERS = ("input", "mid1", "mid2", "mid3", "final")
LIBRARIES = (
    "torchvision/mobilenet_v3_small",
    "torchvision/swin_t",
    "torchvision/vit_b_32",
    "timm/vit_tiny_patch16_224",
    "timm/convnextv2_atto",
)
ALL_LOSSES = (("vanilla_tiny", "ixg", "input"), ("bcos_tiny", "bcos", "input"),
              ("vanilla_tiny", "gradcam", "mid2"))  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A place that is guided, and the loss that guides it."""

    model: str
    attribution: str
    layer: str
    loss: str = "energy"

    def __str__(self) -> str:
        return f"{self.model}-{self.attribution}-{self.layer}-{self.loss}"


def cases(models: tuple[str, ...]) -> list[Case]:
    """Return every attribution at every layer of some models, each guided by Energy."""
    return [
        Case(model, attribution, layer)
        for model in models
        for attribution in ATTRIBUTIONS
        for layer in LAYERS
        if fits(model, attribution, layer)
    ]


def fits(model: str, attribution: str, layer: str) -> bool:
    try:
        check_pair(model, attribution, layer)
    except InputError:
        return False
    return True


STUDIED = [
    case
    for case in cases(tuple(MODELS))
    if not ATTRIBUTIONS[case.attribution].probes or case.model.endswith("_tiny")
]
"""Every attribution at every layer of every registered model. Those that run a network many times
are the same for all networks, so the small ones do."""
OTHERS = [
    case
    for case in cases(LIBRARIES)
    if not ATTRIBUTIONS[case.attribution].probes
    and (not ATTRIBUTIONS[case.attribution].reads_attention or "vit_" in case.model)
]
WITH_LOSSES = [Case(*place, loss) for place in ALL_LOSSES for loss in LOSSES]
TINY = [case for case in STUDIED if case.model.endswith("_tiny")]


def built(case: Case, device: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a model with the same weights each time; what is random in training is not there."""
    torch.manual_seed(0)
    model = build_model(case.model, CLASSES, image_size=SIZE)
    is_of_library = "/" in case.model  # These have dropout.
    return model.to(device, dtype).train(not is_of_library)


def batch_for(model: nn.Module, device: str, dtype: torch.dtype = torch.float32) -> Batch:
    """Return images of noise of which three are annotated."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    masks[0, 8:40, 12:60], masks[1, 20:30, 20:50], masks[2, :32] = True, True, True
    batch = Batch(
        inputs=encode(model, images.to(device, dtype)),
        labels=torch.eye(CLASSES, dtype=torch.bool)[torch.tensor([0, 1, 3, 2])],
        target_classes=torch.tensor([0, 3, 2]),
        masks=masks,
        annotated=torch.tensor([0, 2, 3]),
    )
    moved = {each.name: getattr(batch, each.name).to(device) for each in fields(batch)}
    return replace(batch, **moved)


@dataclass(frozen=True)
class Found:
    """What a guided step computes, on the CPU in double precision."""

    loss: Tensor
    gradient: Tensor
    maps: Tensor


def step(
    case: Case, device: str, dtype: torch.dtype = torch.float32, precision: str = "fp32",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Found:  # fmt: skip
    """Take the loss of a guided batch, its gradient by all weights, and the maps themselves."""
    model = built(case, device, dtype).to(memory_format=memory_format)
    batch = batch_for(model, device, dtype)
    guidance = Guidance(case.attribution, case.layer, case.loss, 1.0)
    with kernels(precision):
        loss, _ = guided_loss(model, batch, guidance, precision)
        loss.backward()
        gradients = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
        model.eval()
        rows = batch.annotated
        maps = attribute(
            model, batch.inputs[rows], batch.target_classes, case.attribution, case.layer
        )
    values = (loss, torch.cat(gradients), maps)
    return Found(*(value.detach().double().cpu() for value in values))


def difference(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-300))
