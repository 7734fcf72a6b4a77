"""The guided step against its parts, and every registered variant against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mg_core.attributions import ATTRIBUTIONS, attribute, upsample
from mg_core.errors import InputError
from mg_core.guidance import Batch, Guidance, guided_loss, guided_step
from mg_core.guidance.pairs import check_pair
from mg_core.losses import LOSSES, localization_loss
from mg_core.models import MODELS, build_model

LAYERS = ("input", "mid1", "mid2", "mid3", "final")
TINY = [name for name in MODELS if name.endswith("_tiny")]


def fits(model: str, attribution: str) -> bool:
    families = ATTRIBUTIONS[attribution].families
    return families is None or MODELS[model].family in families


# Methods with forward passes of their own, and those of attention, have their tests beside the
# other attributions.
PAIRS = [
    (model, method)
    for model in TINY
    for method, how in ATTRIBUTIONS.items()
    if fits(model, method) and not (how.probes or how.reads_attention)
]


def make_batch(model, dtype=torch.float32, size=32, annotated=(0, 2), seed=3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, size, size, generator=generator)
    masks = torch.zeros(len(annotated), size, size, dtype=torch.bool)
    masks[:, 4:20, 6:22] = True
    return Batch(
        inputs=model.encode(images.to(dtype)),
        labels=torch.rand(3, 4, generator=generator) > 0.5,
        target_classes=torch.tensor([1, 3])[: len(annotated)],
        masks=masks,
        annotated=torch.tensor(annotated, dtype=torch.int64),
    )


def settings(attribution="gradcam", layer="final", loss="energy", weight=0.5, **others):
    return Guidance(attribution, layer, loss, weight, **others)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("vanilla_tiny", 4).train()


# Every loss where maps are sharp and where they are coarse; every method at every layer.
STUDIED = ("ixg", "intgrad", "bcos", "gradcam")
CASES = [
    *((name, method, layer, loss, True) for name, method in PAIRS for layer in LAYERS
      for loss in (("energy", "l1", "ppce", "rrr") if method in STUDIED else ("l1",))),
    *(("vanilla_tiny", *place, loss, True) for loss in LOSSES
      for place in (("ixg", "input"), ("gradcam", "mid2"))),
    *((name, method, layer, "energy", False) for name, method in PAIRS for layer in LAYERS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "attribution", "layer", "loss", "training"), list(dict.fromkeys(CASES))
)
def test_gradient_agrees_with_finite_differences(name, attribution, layer, loss, training):
    torch.manual_seed(0)
    model = build_model(name, 4).double().train(training)
    batch = make_batch(model, torch.float64, size=24)
    parameters = list(model.parameters())
    for parameter in parameters:
        if not parameter.any():  # what starts at zero would hide terms
            torch.nn.init.normal_(parameter, std=0.1)
    guidance = settings(attribution, layer, loss, weight=1.0)

    def value() -> torch.Tensor:
        return guided_loss(model, batch, guidance)[0]

    gradients = torch.autograd.grad(value(), parameters)
    # Both loss terms depend on the weights below the layer and above it: move all at once.
    direction = [torch.randn_like(p) * p.detach().square().mean().sqrt() for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    # A large step meets kinks, a small one rounding: one of several must agree.
    tolerance = 2e-5 * abs(float(slope)) + 1e-8
    for step in (1e-7, 1e-6, 1e-8, 1e-9):
        sides = []
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p.data += sign * step * d
            sides.append(value().detach())
            for p, d in zip(parameters, direction, strict=True):
                p.data -= sign * step * d
        error = abs(float(slope - (sides[0] - sides[1]) / (2 * step)))
        if error <= tolerance:
            break
    assert error <= tolerance


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_is_equation_1(model, reduction):
    batch = make_batch(model)
    guidance = settings("ixg", "mid2", "l1", weight=0.3, reduction=reduction)
    parts = copy.deepcopy(model)
    # All images pass through batch norm together, so all are explained and two are taken.
    logits = copy.deepcopy(model)(batch.inputs)
    picked = torch.zeros(3, dtype=torch.long)
    picked[batch.annotated] = batch.target_classes

    class Silenced(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.guidance_layers = inner, {"mid2": "inner.layer2"}

        def forward(self, x):
            return self.inner(x) * torch.tensor([1.0, 0.0, 1.0])[:, None]

    maps = attribute(Silenced(parts), batch.inputs, picked, "ixg", "mid2")[batch.annotated]
    each = localization_loss("l1", upsample(maps, (32, 32)), batch.masks)
    localization = each.sum() if reduction == "sum" else each.mean()
    bce = F.binary_cross_entropy_with_logits(logits, batch.labels.float())
    losses = guided_step(model, torch.optim.SGD(model.parameters(), lr=0.0), batch, guidance)
    torch.testing.assert_close(losses.bce, bce.detach())
    torch.testing.assert_close(losses.localization, localization.detach())
    torch.testing.assert_close(losses.loss, (bce + 0.3 * localization).detach())
    assert not any(t.requires_grad for t in (losses.loss, losses.bce, losses.localization))


def test_step_moves_weights_by_the_gradient_of_the_loss(model):
    batch, guidance = make_batch(model), settings()
    twin = copy.deepcopy(model)
    loss, _ = guided_loss(twin, batch, guidance)
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    guided_step(model, torch.optim.SGD(model.parameters(), lr=0.1), batch, guidance)
    for moved, start, gradient in zip(
        model.parameters(), twin.parameters(), gradients, strict=True
    ):
        torch.testing.assert_close(moved, start - 0.1 * gradient)


@pytest.mark.parametrize(
    ("name", "attribution", "layer"),
    [
        ("vanilla_tiny", "gradcam", "final"),
        ("vanilla_tiny", "ixg", "input"),
        ("bcos_tiny", "gradcam", "final"),
        ("bcos_tiny", "bcos", "input"),
    ],
)
def test_accumulated_gradients_are_those_of_the_mean_loss(name, attribution, layer):
    torch.manual_seed(0)
    model = build_model(name, 4).double().train()
    guidance = settings(attribution, layer)
    batches = [
        make_batch(model, torch.float64),
        make_batch(model, torch.float64, annotated=(1,), seed=4),
    ]
    # Each batch is normalised by its own statistics, whichever way its gradient is taken.
    losses = [guided_loss(model, batch, guidance)[0] for batch in batches]
    expected = torch.autograd.grad(sum(losses) / 2, list(model.parameters()))
    for batch in batches:
        loss, terms = guided_loss(model, batch, guidance)
        assert terms.localization > 0
        (loss / 2).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


def test_batch_norm_sees_each_batch_once(model):
    twin = copy.deepcopy(model)
    batch = make_batch(model)
    guided_step(model, torch.optim.SGD(model.parameters(), lr=0.0), batch, settings())
    twin(batch.inputs)
    for (name, found), expected in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("guided", [True, False])
def test_without_annotations_or_guidance_the_step_is_ordinary(model, guided):
    batch = make_batch(model, annotated=() if guided else (0, 2))
    twin = copy.deepcopy(model)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    F.binary_cross_entropy_with_logits(twin(batch.inputs), batch.labels.float()).backward()
    optimizer.step()
    losses = guided_step(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        batch,
        settings("ixg", "input") if guided else None,
    )
    assert float(losses.localization) == 0
    assert torch.equal(losses.loss, losses.bce)
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("name", "attribution"), PAIRS)
def test_bf16_step_stays_close_to_fp32(name, attribution, layer):
    torch.manual_seed(0)
    model = build_model(name, 4).train()
    batch, guidance = make_batch(model, size=64), settings(attribution, layer)
    gradients = []
    for precision in ("fp32", "bf16"):
        twin = copy.deepcopy(model)
        loss, losses = guided_loss(twin, batch, guidance, precision)
        assert loss.dtype == losses.localization.dtype == torch.float32
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in twin.parameters()]))
    assert all(g.isfinite().all() for g in gradients)
    assert float(F.cosine_similarity(*gradients, dim=0)) > 0.8


@pytest.mark.parametrize("layer", ["input", "mid2"])
@pytest.mark.parametrize(("name", "attribution"), PAIRS)
def test_channels_last_gives_the_same_gradients(name, attribution, layer):
    torch.manual_seed(0)
    model = build_model(name, 4).double().train()
    batch, guidance = make_batch(model, torch.float64), settings(attribution, layer)
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        twin = copy.deepcopy(model).to(memory_format=memory_format)
        loss, _ = guided_loss(twin, batch, guidance)
        gradients.append(torch.autograd.grad(loss, list(twin.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_energy_free_maps_leave_the_classification_gradient(model, loss):
    # A head without influence of the features: every map is zero.
    torch.nn.init.zeros_(model.fc.weight)
    batch = make_batch(model)
    total, _ = guided_loss(model, batch, settings("gradcam", "final", loss))
    found = torch.autograd.grad(total, list(model.parameters()))
    plain, _ = guided_loss(model, batch, None)
    expected = torch.autograd.grad(plain, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


# GradCAM and GradCAM++ below the last stage can only weigh channels against each other.
@pytest.mark.parametrize(
    ("name", "attribution", "layer"),
    [(*pair, at) for pair in PAIRS for at in LAYERS if "gradcam" not in pair[1] or at == "final"],
)
def test_guidance_raises_the_energy_in_the_box(name, attribution, layer):
    torch.manual_seed(0)
    model = build_model(name, 4).train()
    batch, guidance = make_batch(model), settings(attribution, layer, weight=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    values = [float(guided_step(model, optimizer, batch, guidance).localization) for _ in range(12)]
    assert min(values[-3:]) < 0.8 * values[0]


@pytest.mark.parametrize(("name", "attribution"), PAIRS)
def test_step_from_saved_state_equals_an_uninterrupted_one(name, attribution, tmp_path):
    def start():
        torch.manual_seed(0)
        model = build_model(name, 4).train()
        return model, torch.optim.Adam(model.parameters(), lr=1e-3)

    guidance = settings(attribution, "mid2")
    through, optimizer = start()
    batch = make_batch(through)
    guided_step(through, optimizer, batch, guidance)
    torch.save([through.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    guided_step(through, optimizer, batch, guidance)
    resumed, optimizer = start()
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    for part, state in zip((resumed, optimizer), states, strict=True):
        part.load_state_dict(state)
    guided_step(resumed, optimizer, batch, guidance)
    for (key, found), expected in zip(
        resumed.state_dict().items(), through.state_dict().values(), strict=True
    ):
        assert torch.equal(found, expected), key


def test_annotated_batch_needs_masks(model):
    batch = Batch(
        *(getattr(make_batch(model), n) for n in ("inputs", "labels")), annotated=torch.tensor([0])
    )
    with pytest.raises(InputError, match="target_classes and masks"):
        guided_loss(model, batch, settings())


def test_pairs_are_checked_without_building_a_model():
    check_pair("vanilla_resnet50", "ixg", "mid3")
    with pytest.raises(InputError, match=r"'vanilla_tiny' has no layer 'mid4'.*input, mid1.*final"):
        check_pair("vanilla_tiny", "gradcam", "mid4")
    with pytest.raises(InputError, match="unknown model 'vanila_tiny'"):
        check_pair("vanila_tiny", "gradcam", "final")
    with pytest.raises(InputError, match="unknown attribution"):
        check_pair("vanilla_tiny", "lrp", "final")


def test_fp16_needs_a_scaled_loss_and_then_is_close_to_fp32():
    torch.manual_seed(0)
    model = build_model("vanilla_tiny", 4).train()
    batch, guidance = make_batch(model), settings("ixg", "input")
    with pytest.raises(InputError, match=r"fp16 needs a scaled loss: scale guided_loss by torch"):
        guided_step(model, torch.optim.SGD(model.parameters(), lr=0.1), batch, guidance, "fp16")
    gradients = []
    for precision in ("fp32", "fp16"):
        twin = copy.deepcopy(model)
        loss, losses = guided_loss(twin, batch, guidance, precision)
        assert loss.dtype == losses.localization.dtype == torch.float32
        scale = 2.0**10 if precision == "fp16" else 1.0
        (scale * loss).backward()
        gradients.append(torch.cat([p.grad.flatten() / scale for p in twin.parameters()]))
    assert float(F.cosine_similarity(*gradients, dim=0)) > 0.95


def test_another_classification_loss_takes_the_place_of_bce(model):
    batch, guidance = make_batch(model), settings("gradcam", "final")
    total, terms = guided_loss(model, batch, guidance, "fp32", "cross_entropy", 0.1)
    logits = model(batch.inputs).detach()
    smooth = 0.9 * batch.labels.float() + 0.1 / logits.shape[1]
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms.bce, expected)
    torch.testing.assert_close(total.detach(), expected + 0.5 * terms.localization)
