"""Maps against finite differences of plainly split networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mg_core.attributions import ATTRIBUTIONS, attribute, explain, upsample
from mg_core.errors import InputError
from mg_core.models import MODELS, build_model

CLASSES = torch.tensor([2, 0])
LAYERS = ("input", "mid1", "mid2", "mid3", "final")


def network(inplace: bool) -> nn.Sequential:
    """Return a small network whose in-place activations overwrite what is tapped before them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=inplace),
        nn.BatchNorm2d(4),
        nn.SiLU(inplace=inplace),
        nn.Conv2d(4, 3, 3, stride=2),
        nn.ReLU(inplace=inplace),
        nn.Flatten(),
        nn.Linear(12, 3),
    ).double()


class Tokens(nn.Module):
    """Give (B, N, C) tokens of a square grid, after `extra` class tokens."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra
        self.embed = nn.Identity()
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.embed(torch.cat([tokens[:, : self.extra], tokens], 1))
        return self.head(tokens.tanh().mean(1))


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(2, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def finite_difference_gradient(head, features, classes, step=1e-6):
    """Differentiate the sum of the images' logits with respect to every feature."""
    rows = torch.arange(len(features))
    gradient = torch.zeros_like(features)
    with torch.no_grad():
        for index in range(features.numel()):
            moved = features.flatten().repeat(2, 1)
            moved[0, index] += step
            moved[1, index] -= step
            up, down = (head(m.view_as(features).clone())[rows, classes].sum() for m in moved)
            gradient.view(-1)[index] = (up - down) / (2 * step)
    return gradient


def combine(method, features, gradient):
    if method == "gradcam":
        weights = gradient.flatten(2).mean(2)
        return torch.einsum("bc,bchw->bhw", weights, features).clamp(min=0)
    return torch.einsum("bchw,bchw->bhw", features, gradient)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", ["input", "0", "1", "2", "3", "4", "5"])
@pytest.mark.parametrize("method", ["ixg", "gradcam"])
def test_agrees_with_finite_differences_whatever_is_overwritten(method, layer, training, inputs):
    # Each part of the reference runs on its own copy, without anything in place.
    model, plain = network(inplace=True).train(training), network(inplace=False).train(training)
    depth = 0 if layer == "input" else int(layer) + 1
    with torch.no_grad():
        features = plain[:depth](inputs)
    gradient = finite_difference_gradient(plain[depth:], features, CLASSES)
    found = attribute(model, inputs, CLASSES, method, layer)
    torch.testing.assert_close(found, combine(method, features, gradient), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("extra", [0, 1])
def test_tokens_return_to_their_grid(extra, inputs):
    model = Tokens(extra).double()
    tokens = attribute(model, inputs, CLASSES, "ixg", "embed")
    at_input = attribute(model, inputs, CLASSES, "ixg")
    if extra:
        # The class token is a copy of the first pixel, whose gradient the input gets twice.
        at_input[:, 0, 0] /= 2
    torch.testing.assert_close(tokens, at_input)


def test_one_forward_and_one_backward_serve_every_pair(inputs):
    model = network(inplace=True).eval()
    forwards, backwards = [], []
    model[0].register_forward_hook(lambda *_: forwards.append(1))

    def count_backward(module, args, output):
        output.register_hook(lambda gradient: backwards.append(1))

    model[4].register_forward_hook(count_backward)
    pairs = [(m, layer) for m in ("ixg", "gradcam") for layer in ("input", "0", "3")]
    explanation = explain(model, inputs, pairs)
    for classes in (CLASSES, CLASSES.flip(0)):
        maps = explanation.maps(classes)
        for (method, layer), found in zip(pairs, maps, strict=True):
            assert not found.requires_grad
            expected = attribute(network(inplace=True).eval(), inputs, classes, method, layer)
            torch.testing.assert_close(found, expected)
    assert (len(forwards), len(backwards)) == (1, 2)
    assert torch.equal(explanation.logits, model(inputs))


@pytest.mark.parametrize("as_indices", [False, True])
def test_rows_choose_the_explained_images(as_indices, inputs):
    model = network(inplace=True).train()
    rows = torch.tensor([1]) if as_indices else torch.tensor([False, True])
    (found,) = explain(model, inputs, [("ixg", "0")], rows).maps(CLASSES[1:])
    plain = network(inplace=False).train()
    features = plain[:1](inputs).detach()

    def head(values):  # logits of the second image only, statistics of both
        return plain[1:](values)[1:].expand(2, -1) / 2

    gradient = finite_difference_gradient(head, features, CLASSES[[1, 1]])
    torch.testing.assert_close(found, combine("ixg", features, gradient)[1:], rtol=1e-6, atol=1e-8)


def test_input_requires_gradients_only_when_it_is_explained(inputs):
    seen = []
    model = network(inplace=False)
    model[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].requires_grad))
    explain(model, inputs, [("ixg", "3")])
    explain(model, inputs, [("ixg", "input")])
    assert seen == [False, True]
    assert not inputs.requires_grad


def test_works_without_gradients_around_and_with_frozen_weights(inputs):
    expected = attribute(network(inplace=True).eval(), inputs, CLASSES, "ixg", "1")
    model = network(inplace=True).eval().requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(attribute(model, inputs, CLASSES, "ixg", "1"), expected)
        assert torch.equal(
            attribute(model, inputs, CLASSES, "ixg"),
            attribute(network(inplace=True).eval(), inputs, CLASSES, "ixg"),
        )


def test_hooks_do_not_stay_behind(inputs):
    model = network(inplace=True)
    attribute(model, inputs, CLASSES, "ixg", "1")
    with pytest.raises(RuntimeError):
        attribute(model, inputs[:, :1], CLASSES, "ixg", "1")
    assert not any(module._forward_hooks for module in model.modules())


def test_graph_is_made_only_when_asked_for(inputs):
    model = network(inplace=True)
    assert not attribute(model, inputs, CLASSES, "ixg", "1").requires_grad
    maps = attribute(model, inputs, CLASSES, "ixg", "1", create_graph=True)
    maps.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model[4].parameters())


@pytest.mark.parametrize("model", [name for name in MODELS if name.endswith("_tiny")])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_dtype_and_resolution_at_every_layer(model, precision):
    torch.manual_seed(0)
    net = build_model(model, 3)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    net = net.double() if precision == "fp64" else net
    encoded = net.encode(images).to(torch.float64 if precision == "fp64" else torch.float32)
    methods = [
        name for name, how in ATTRIBUTIONS.items() if not (how.probes or how.reads_attention)
    ]
    pairs = [(method, layer) for method in methods for layer in LAYERS]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        maps = explain(net, encoded, pairs).maps(CLASSES)
    for (_, layer), found in zip(pairs, maps, strict=True):
        assert found.dtype == (torch.float64 if precision == "fp64" else torch.float32)
        assert found.isfinite().all()
        assert found.shape[1] == found.shape[2]
        if layer == "input":
            assert found.shape == (2, 32, 32)


@pytest.mark.parametrize("size", [7, (9, 5)])
def test_upsampling_is_bilinear_between_pixel_centres(size):
    maps = torch.randn(2, 3, 4, dtype=torch.float64)
    height, width = (size, size) if isinstance(size, int) else size
    found = upsample(maps, size)

    def line(length, target):  # rows: target pixels, columns: weights of the source pixels
        weights = torch.zeros(target, length, dtype=torch.float64)
        for i in range(target):
            position = min(max((i + 0.5) * length / target - 0.5, 0), length - 1)
            low = min(int(position), length - 2)
            weights[i, low], weights[i, low + 1] = 1 - (position - low), position - low
        return weights

    expected = torch.einsum("ih,bhw,jw->bij", line(3, height), maps, line(4, width))
    torch.testing.assert_close(found, expected)
    assert upsample(maps, (3, 4)) is maps


def test_errors_name_what_is_allowed(inputs):
    model = network(inplace=True)
    with pytest.raises(InputError, match=r"unknown attribution 'igx'.*'ixg'.*gradcam"):
        attribute(model, inputs, CLASSES, "igx")
    with pytest.raises(InputError, match=r"unknown layer 'mid9' of Sequential.*input"):
        attribute(model, inputs, CLASSES, "ixg", "mid9")
    with pytest.raises(InputError, match=r"layer '6' gives no map.*\(2, 12\)"):
        attribute(model, inputs, CLASSES, "ixg", "6")
    with pytest.raises(InputError, match=r"each of 2 explained images.*\(3,\)"):
        attribute(model, inputs, torch.zeros(3, dtype=torch.long), "ixg")
    mixed = nn.Sequential(
        nn.Flatten(2), nn.Linear(36, 36), nn.Flatten(1), nn.Linear(72, 3)
    ).double()
    with pytest.raises(InputError, match=r"layer '1' gives no map.*where its places are"):
        attribute(mixed, inputs, CLASSES, "ixg", "1")
