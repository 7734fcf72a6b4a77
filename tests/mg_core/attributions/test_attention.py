"""Relevance of attention against full products of matrices, on transformers of both libraries."""

from __future__ import annotations

import pytest
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mg_core.attributions import attribute
from mg_core.errors import InputError
from mg_core.guidance import check_guidance
from mg_core.guidance.pairs import check_pair
from mg_core.guidance.rehearsal import gradient_error
from mg_core.guidance.step import Batch
from mg_core.models import build_model

CLASSES = torch.tensor([2, 0])


def of_timm(**options) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 3, "num_heads": 2}
    return VisionTransformer(**sizes, num_classes=3, **options).double().eval()


def of_torchvision() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(16, 4, 3, 2, 8, 16, num_classes=3).double().eval()
    nn.init.normal_(model.heads.head.weight)  # It starts at zero.
    return model


NETWORKS = {
    "class token": (lambda: of_timm(), 1, 1),
    "mean of places": (lambda: of_timm(global_pool="avg", class_token=False), 0, 16),
    "class token and registers": (lambda: of_timm(reg_tokens=2), 3, 1),
    "registers and mean of places": (
        lambda: of_timm(reg_tokens=2, global_pool="avg", class_token=False), 2, 16,
    ),
    "torchvision": (of_torchvision, 1, 1),
}  # fmt: skip


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(
        2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def unfused(model):
    """Return what a network's attention holds: logits, and weights with their graph."""
    held = []

    def keep(module, args, output):
        output.retain_grad()
        held.append(output)

    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(keep)
    return held


def written_out(model, inputs):
    """Run torchvision's transformer by its parts, block by block and head by head."""
    tokens = model.conv_proj(inputs).flatten(2).transpose(1, 2)
    tokens = torch.cat([model.class_token.expand(len(inputs), -1, -1), tokens], 1)
    tokens, held = tokens + model.encoder.pos_embedding, []
    for block in model.encoder.layers:
        part, normed = block.self_attention, block.ln_1(tokens)
        projected = normed @ part.in_proj_weight.T + part.in_proj_bias
        heads = []
        weights = []
        for head in range(2):
            q, k, v = (projected[..., 8 * i + 4 * head : 8 * i + 4 * head + 4] for i in range(3))
            weights.append((q @ k.transpose(1, 2) / 2).softmax(-1))
            weights[-1].retain_grad()
            heads.append(weights[-1] @ v)
        held.append(weights)
        tokens = tokens + part.out_proj(torch.cat(heads, -1))
        tokens = tokens + block.mlp(block.ln_2(tokens))
    return model.heads(model.encoder.ln(tokens)[:, 0]), held


def reference(name, model, inputs, above=0):
    _, first, n_read = NETWORKS[name]
    if name == "torchvision":
        logits, blocks = written_out(model, inputs)
    else:
        held = unfused(model)
        logits = model(inputs)
        blocks = [[weights] for weights in held]
    logits.gather(1, CLASSES[:, None]).sum().backward()
    products = [
        torch.cat([(w.grad * w).view(2, -1, *w.shape[-2:]) for w in heads], 1) for heads in blocks
    ]
    n_tokens = 16 + first
    maps = []
    for image in range(2):
        relevance = torch.eye(n_tokens, dtype=torch.float64)
        for product in products[above:]:
            relevance = relevance + product[image].clamp(min=0).mean(0) @ relevance
        relevance = relevance - torch.eye(n_tokens, dtype=torch.float64)
        rows = relevance[:1] if n_read == 1 else relevance[first:]
        maps.append(rows.mean(0)[first:].view(4, 4))
    return torch.stack(maps).detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_the_row_that_the_classifier_reads(name, inputs):
    model = NETWORKS[name][0]()
    found = attribute(model, inputs, CLASSES, "attention")
    expected = reference(name, NETWORKS[name][0](), inputs)
    assert expected.any()
    torch.testing.assert_close(found, expected)
    frozen = NETWORKS[name][0]().requires_grad_(False)
    torch.testing.assert_close(attribute(frozen, inputs, CLASSES, "attention"), expected)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("class token", "blocks.0"), ("torchvision", "encoder.layers.encoder_layer_0")],
)
def test_blocks_below_a_layer_play_no_part(name, layer, inputs):
    found = attribute(NETWORKS[name][0](), inputs, CLASSES, "attention", layer)
    expected = reference(name, NETWORKS[name][0](), inputs, above=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["class token", "mean of places", "torchvision"])
@pytest.mark.parametrize("loss", ["energy", "rrr_original"])
def test_gradient_agrees_with_finite_differences(name, loss, inputs):
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    batch = Batch(inputs, torch.ones(2, 3), CLASSES, masks, torch.arange(2))
    assert gradient_error(NETWORKS[name][0](), batch, "attention", "input", loss) < 1e-5


def test_dropout_and_attention_in_half_precision(inputs):
    model = of_timm(attn_drop_rate=0.5).float().train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = attribute(model, inputs.float(), CLASSES, "attention", create_graph=True)
    assert maps.dtype == torch.float32
    maps.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.blocks[0].attn.qkv.weight.grad.any()


def test_networks_without_attention_are_refused_in_a_sentence(inputs):
    model = build_model("vanilla_tiny", 3)
    with pytest.raises(InputError, match=r"attention@input: .* computes no attention .* choose"):
        check_guidance(model, [("attention", "input")], [], 16)
    with pytest.raises(InputError, match=r"'attention' does not fit model 'bcos_tiny'; .*gradcam"):
        check_pair("bcos_tiny", "attention", "input")
    for name in ("bcos_vit_s", "timm/vit_tiny_patch16_224", "torchvision/vit_b_16"):
        check_pair(name, "attention", "input")
    last = of_timm()
    with pytest.raises(InputError, match=r"'blocks\.2' .*no attention above it.*earlier layer"):
        attribute(last, inputs, CLASSES, "attention", "blocks.2")


def test_attention_in_windows_is_refused_in_a_sentence():
    model = torchvision.models.SwinTransformer([2, 2], 8, [1, 1], [1, 1], [4, 4], num_classes=3)
    with pytest.raises(InputError, match=r"as windows and pooled places have.*another attribution"):
        attribute(model.eval(), torch.rand(2, 3, 32, 32), CLASSES, "attention")
