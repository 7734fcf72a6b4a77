"""Maps and guided gradients of a library's network against plain autograd in float64.

`python tests/integration/zoo.py torchvision/resnet18 …` prints a line for each place; without names
it goes through both libraries.
"""

from __future__ import annotations

import math
import sys
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mg_core.attributions import attribute
from mg_core.errors import InputError
from mg_core.models import build_model

QUICK = (
    "torchvision/squeezenet1_1",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/regnet_y_400mf",
    "torchvision/googlenet",
    "timm/vit_tiny_patch16_224",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/xcit_nano_12_p16_224",
    "timm/ghostnet_100",
    "timm/mobilevit_xxs",
    "timm/convnextv2_atto",
    "timm/pvt_v2_b0",
    "timm/edgenext_xx_small",
)
"""Small networks of all kinds, which the ordinary tests go through."""
FAMILIES = """
torchvision/alexnet torchvision/vgg11_bn torchvision/resnet18 torchvision/resnext50_32x4d
torchvision/wide_resnet50_2 torchvision/densenet121 torchvision/inception_v3
torchvision/mobilenet_v2 torchvision/efficientnet_b0 torchvision/efficientnet_v2_s
torchvision/regnet_x_400mf torchvision/convnext_tiny torchvision/mnasnet0_5 torchvision/vit_b_32
torchvision/swin_t torchvision/swin_v2_t torchvision/maxvit_t timm/beit_base_patch16_224
timm/eva02_tiny_patch14_224 timm/cait_xxs24_224 timm/mixer_s32_224 timm/mvitv2_tiny
timm/coatnet_nano_rw_224 timm/efficientformer_l1 timm/dm_nfnet_f0 timm/resnetv2_50
timm/repvgg_a0 timm/hrnet_w18_small timm/levit_128s timm/tresnet_m
timm/swin_tiny_patch4_window7_224 timm/densenet121 timm/efficientnet_b0
timm/mobilenetv3_small_050 timm/regnety_002 timm/vit_small_r26_s32_224
timm/maxvit_rmlp_pico_rw_256 timm/twins_pcpvt_small timm/coat_tiny timm/tnt_s_patch16_224
timm/volo_d1_224 timm/poolformer_s12 timm/hiera_tiny_224 timm/convmixer_768_32
timm/crossvit_tiny_240 timm/nest_tiny timm/pit_ti_224 timm/visformer_tiny timm/davit_tiny
timm/fastvit_t8 timm/focalnet_tiny_srf timm/gcvit_xxtiny timm/inception_v4 timm/dpn68 timm/dla34
timm/sequencer2d_s timm/resnet10t timm/swinv2_cr_tiny_224 timm/swinv2_tiny_window8_256
timm/vit_tiny_r_s16_p8_224 timm/vit_small_patch14_reg4_dinov2 timm/efficientvit_b0
timm/efficientvit_m0 timm/repvit_m0_9 timm/res2net50_26w_4s timm/resnest14d timm/selecsls42
timm/seresnet18 timm/skresnet18 timm/legacy_xception timm/rexnet_100 timm/mobilenetv4_conv_small
timm/tf_efficientnet_lite0 timm/hardcorenas_a timm/lcnet_050 timm/nasnetalarge timm/cs3darknet_s
timm/vovnet39a timm/inception_next_tiny timm/mambaout_femto timm/starnet_s1 timm/swiftformer_xs
timm/tiny_vit_5m_224 timm/efficientformerv2_s0 timm/botnet26t_256 timm/halonet26t
timm/lambda_resnet26t timm/eca_botnext26ts_256 timm/convit_tiny timm/ese_vovnet19b_dw
timm/resmlp_12_224 timm/gmixer_12_224 timm/gmlp_ti16_224 timm/vit_relpos_small_patch16_224
timm/rdnet_tiny timm/shvit_s1 timm/fasternet_t0 timm/hgnetv2_b0 timm/caformer_s18
timm/convformer_s18 timm/nextvit_small timm/iformer_t timm/bat_resnext26ts timm/haloregnetz_b
"""
"""One network of each kind in both libraries."""
SIZES = {"inception": 96, "patch14": 56, "patch32": 64, "s32": 64, "halo": 64, "crossvit": 240}


def image_size(name: str) -> int:
    return next((size for part, size in SIZES.items() if part in name), 64)


def plain_grid(values: torch.Tensor) -> torch.Tensor:
    """Return (B, C, h, w), by what shapes mean in these libraries."""
    if values.ndim == 4:
        return values.permute(0, 3, 1, 2) if values.shape[1] == values.shape[2] else values
    side = math.isqrt(values.shape[1])
    return values[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))


def plain_maps(model, inputs, classes, method, layer):
    """Compute maps by plain autograd, with attention and the hard sigmoid written out."""
    taps = []

    def tap(module, args, output):
        found = next(t for t in ([output] if isinstance(output, torch.Tensor) else output)
                     if t.ndim in (3, 4))  # fmt: skip
        taps.append(found if found.requires_grad else found.detach().requires_grad_())
        if isinstance(output, tuple):
            return tuple(taps[-1].clone() if part is found else part for part in output)
        return taps[-1].clone()

    def hard_sigmoid(x, inplace=False):
        return (x + 3).clamp(0, 6) / 6

    leaf = inputs.clone().requires_grad_()
    handle = None
    if layer != "input":
        module = model.get_submodule(getattr(model, "guidance_layers", {}).get(layer, layer))
        handle = module.register_forward_hook(tap)
    with sdpa_kernel(SDPBackend.MATH), mock.patch.object(F, "hardsigmoid", hard_sigmoid):
        logits = model(leaf.clone())
    logits = getattr(logits, "logits", logits)
    if handle is not None:
        handle.remove()
    features = leaf if layer == "input" else taps[-1]
    score = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, features, create_graph=True)
    features, gradient = plain_grid(features), plain_grid(gradient)
    if method == "ixg":
        return (features * gradient).sum(1)
    return (features * gradient.mean((2, 3), keepdim=True)).sum(1).relu()


def prepared(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network in float64, in training mode but for what is random, and inputs."""
    torch.manual_seed(0)
    size = image_size(name)
    model = build_model(name, 5, image_size=size).double().train()
    for module in model.modules():
        if any(word in type(module).__name__.lower() for word in ("drop", "stochastic")):
            module.training = False
    for parameter in model.parameters():  # A head of zeros would hide every mistake.
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    images = torch.rand(3, 3, size, size, dtype=torch.float64)
    return model, model.encode(images)


def verdict(model: nn.Module, inputs: torch.Tensor, layer: str, method: str) -> str:
    """Return "exact", "refused: …" or "WRONG: …" for one place of a network."""
    classes = torch.tensor([1, 0, 4])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found, wanted = [], []
    for compute, results in ((ours, found), (plain_maps, wanted)):
        model.load_state_dict(state)
        model.zero_grad()
        try:
            torch.manual_seed(1)
            maps = compute(model, inputs, classes, method, layer)
            scale = maps.detach().abs().max().clamp_min(1e-300)
            generator = torch.Generator().manual_seed(2)
            weights = torch.rand(maps.shape, generator=generator, dtype=torch.float64)
            (weights * (maps / scale) ** 2).sum().backward()
        except InputError as error:
            return f"refused: {error}"
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results += [maps.detach(), torch.cat([g.flatten() for g in gradients])]
    if found[0].shape != wanted[0].shape:
        return f"WRONG: shape {tuple(found[0].shape)}, not {tuple(wanted[0].shape)}"
    errors = [
        float((a - b).norm() / b.norm().clamp_min(1e-300))
        for a, b in zip(found, wanted, strict=True)
    ]
    return "exact" if max(errors) < 1e-6 else f"WRONG: relative errors {errors}"


def ours(model, inputs, classes, method, layer):
    return attribute(model, inputs, classes, method, layer, create_graph=True)


PLACES = [("input", "ixg"), ("mid2", "gradcam"), ("final", "ixg")]


def main() -> None:
    for name in sys.argv[1:] or [*QUICK, *FAMILIES.split()]:
        try:
            model, inputs = prepared(name)
        except InputError as error:
            print(f"{name} refused: {error}", flush=True)
            continue
        layers = dict(model.guidance_layers)
        for layer, method in PLACES:
            try:
                found = verdict(model, inputs, layer, method)
            except Exception as error:  # Any error is a finding.
                found = f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            print(f"{name} {method}@{layer} ({layers.get(layer, '')}): {found}", flush=True)


if __name__ == "__main__":
    main()
