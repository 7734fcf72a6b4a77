"""Networks as others write them: layouts, attention, compiled parts, layers without influence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mg_core.attributions import attribute
from mg_core.attributions.checks import layout_of
from mg_core.attributions.layout import find
from mg_core.attributions.network import features_of, find_layer
from mg_core.errors import InputError
from mg_core.guidance import Batch, Guidance, guided_step
from mg_core.models import build_model

CLASSES = torch.tensor([2, 0, 1])
SIZE = 16


@pytest.fixture
def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64, generator=generator)


class Arranged(nn.Module):
    """Patches in one arrangement of axes, read by a nonlinear sum over all places."""

    def __init__(self, arrange, restore, extra=0, at_end=False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.more = nn.Parameter(torch.randn(extra, 6))
        self.arrange, self.restore, self.at_end = arrange, restore, at_end
        self.mid = nn.Identity()
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        features = self.arrange(self.patches(x))
        if len(self.more):
            more = self.more.expand(len(x), -1, -1)
            order = (features, more) if self.at_end else (more, features)
            features = torch.cat(order, 1)
        return self.head(self.restore(self.mid(features)).tanh().mean(1))


def tokens(x):
    return x.flatten(2).transpose(1, 2)


ARRANGEMENTS = {
    "channels first": (lambda x: x, tokens, 0, False),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), lambda f: f.flatten(1, 2), 0, False),
    "tokens": (tokens, lambda f: f, 0, False),
    "class token": (tokens, lambda f: f, 1, False),
    "class and distillation token": (tokens, lambda f: f, 2, False),
    "four registers": (tokens, lambda f: f, 5, False),
    "as many as a larger grid": (tokens, lambda f: f, 9, False),
    "class token at the end": (tokens, lambda f: f, 1, True),
    "tokens last": (lambda x: x.flatten(2), lambda f: f.transpose(1, 2), 0, False),
    "tokens first": (lambda x: tokens(x).transpose(0, 1), lambda f: f.transpose(0, 1), 0, False),
}


@pytest.mark.parametrize("method", ["ixg", "gradcam", "smoothgrad_ixg"])
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_layout_is_found(name, method, inputs):
    arrange, restore, extra, at_end = ARRANGEMENTS[name]
    model = Arranged(arrange, restore, extra, at_end).double()
    if method == "smoothgrad_ixg":
        found = attribute(model, inputs, CLASSES, method, "mid")
        assert found.shape == (3, 4, 4)
        return
    features = model.patches(inputs).detach().requires_grad_()
    extended = tokens(features)
    if extra:
        extended = torch.cat([model.more.expand(3, -1, -1), extended], 1)
    score = model.head(extended.tanh().mean(1)).gather(1, CLASSES[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, features)
    if method == "ixg":
        expected = (features * gradient).sum(1)
    else:
        expected = (features * gradient.mean((2, 3), keepdim=True)).sum(1).relu()
    found = attribute(model, inputs, CLASSES, method, "mid")
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("n_images", [1, 4, 6, 16])
def test_layout_is_found_whatever_the_number_of_images(n_images):
    inputs = torch.randn(n_images, 3, SIZE, SIZE, dtype=torch.float64)
    classes = torch.zeros(n_images, dtype=torch.long)
    expected = attribute(Arranged(*ARRANGEMENTS["tokens"]).double(), inputs, classes, "ixg", "mid")
    for name in ("channels last", "tokens first", "tokens last"):
        model = Arranged(*ARRANGEMENTS[name]).double()
        found = attribute(model, inputs, classes, "ixg", "mid")
        torch.testing.assert_close(found, expected, msg=name)


def test_finding_a_layout_leaves_the_network_as_it_is(inputs):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(2), nn.Flatten(1),
        nn.Linear(64, 3),
    ).double()  # fmt: skip
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    with torch.no_grad():
        model(inputs)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.rand(3)
    model.load_state_dict(before)
    torch.manual_seed(3)
    attribute(model, inputs, CLASSES, "ixg", "3")
    torch.testing.assert_close(model.state_dict(), once)
    assert torch.equal(torch.rand(3), drawn)
    assert [module.training for module in model] == [True, True, False, True, True, True]


def test_tokens_in_another_order_than_rows_are_refused(inputs):
    """As in networks that gather the tokens of each window, whose number is a square too."""

    def gathered(x):
        return x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).flatten(1, 4)

    model = Arranged(gathered, lambda f: f).double()
    model.patches = nn.Conv2d(3, 6, 2, 2).double()
    with pytest.raises(InputError, match=r"'mid' gives no map.*where its places are"):
        attribute(model, inputs, CLASSES, "ixg", "mid")


def test_windows_are_refused(inputs):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mid, self.head = nn.Conv2d(3, 6, 2, 2), nn.Identity(), nn.Linear(6, 4)

        def forward(self, x):
            f = self.conv(x).unfold(2, 4, 4).unfold(3, 4, 4)
            f = f.permute(0, 2, 3, 4, 5, 1).reshape(-1, 16, 6)
            return self.head(self.mid(f).tanh().reshape(len(x), -1, 6).mean(1))

    with pytest.raises(InputError, match=r"'mid' gives no map.*12 rows for 3 images, as windows"):
        attribute(Windows().double(), inputs, CLASSES, "ixg", "mid")


class Attention(nn.Module):
    """One block of attention with a class token; `fused` and `mha` choose how it is computed."""

    def __init__(self, kind: str, reads_class_token: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.block, self.head = nn.Identity(), nn.Linear(8, 4)
        self.kind, self.reads_class_token = kind, reads_class_token

    def attend(self, x):
        if self.kind == "mha":
            return self.attention(x, x, x, need_weights=False)[0]
        a = self.attention
        q, k, v = (
            F.linear(x, a.in_proj_weight, a.in_proj_bias)
            .unflatten(2, (3, 2, 4))
            .permute(2, 0, 3, 1, 4)
        )
        if self.kind == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
        return a.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), tokens(self.patches(x))], 1)
        x = self.block(x + self.attend(x))
        return self.head(x[:, 0] if self.reads_class_token else x.tanh().mean(1))


@pytest.mark.parametrize("layer", ["input", "patches"])
@pytest.mark.parametrize("kind", ["fused", "mha"])
def test_attention_is_guided_exactly(kind, layer, inputs):
    def gradients(kind):
        model = Attention(kind).double()
        maps = attribute(model, inputs, CLASSES, "ixg", layer, create_graph=True)
        maps.square().sum().backward()
        return maps.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    torch.testing.assert_close(gradients(kind), gradients("written out"))


def test_layer_from_which_the_class_token_alone_is_read_is_refused(inputs):
    model = Attention("fused", reads_class_token=True).double()
    assert attribute(model, inputs, CLASSES, "ixg", "patches").any()
    with pytest.raises(InputError, match=r"'block' of Attention has no influence.*class token"):
        attribute(model, inputs, CLASSES, "ixg", "block")


def test_layer_without_a_path_to_the_logits_is_refused(inputs):
    class Idle(Attention):
        def forward(self, x):
            self.idle(self.patches(x))
            return super().forward(x)

    model = Idle("fused").double()
    model.idle = nn.Conv2d(8, 8, 1).double()
    with pytest.raises(InputError, match=r"'idle' of Idle has no influence.*no path"):
        attribute(model, inputs, CLASSES, "ixg", "idle")


def test_head_of_zeros_is_no_reason_to_refuse_a_layer(inputs):
    model = Attention("fused").double()
    nn.init.zeros_(model.head.weight)
    assert not attribute(model, inputs, CLASSES, "ixg", "block").any()


@pytest.mark.parametrize("layer", ["input", "0"])
@pytest.mark.parametrize("inplace", [False, True])
def test_hard_sigmoid_and_hard_swish(layer, inplace, inputs):
    def network(written_out):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.Hardsigmoid(inplace), nn.Conv2d(4, 4, 3, 2),
            nn.Hardswish(inplace), nn.Flatten(), nn.Linear(36, 4),
        ).double()  # fmt: skip
        if written_out:
            model[1].forward = lambda x: (x + 3).clamp(0, 6) / 6
            model[3].forward = lambda x: x * (x + 3).clamp(0, 6) / 6
        maps = attribute(model, inputs * 3, CLASSES, "ixg", layer, create_graph=True)
        maps.square().sum().backward()
        return maps.detach(), [p.grad for p in model.parameters()]

    torch.testing.assert_close(network(False), network(True))


class NoSecond(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


class Sine(nn.Module):
    def forward(self, x):
        return NoSecond.apply(x)


class Deformed(nn.Conv2d):
    def forward(self, x):
        from torchvision.ops import deform_conv2d

        return deform_conv2d(x, x.new_zeros(len(x), 18, *x.shape[2:]), self.weight, padding=1)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (Sine(), "NoSecond in module '1'"),
        (Deformed(4, 4, 3), r"deform_conv2d in module '1'"),
    ],
)
def test_what_has_no_second_derivative_is_refused_before_the_first_step(module, named, inputs):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), module, nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)
    ).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = Batch(
        inputs, torch.eye(4)[:3].double(), CLASSES, torch.ones(3, SIZE, SIZE).bool(),
        torch.arange(3),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters())
    for layer in ("input", "0"):
        with pytest.raises(InputError, match=f"no second derivative of.*{named}"):
            guided_step(model, optimizer, batch, Guidance("ixg", layer, "energy", 0.1))
        assert attribute(model, inputs, CLASSES, "ixg", layer).any()
    torch.testing.assert_close(model.state_dict(), before)
    guided_step(model, optimizer, batch, Guidance("ixg", "2", "energy", 0.1))


def compiled_whole(model):
    return torch.compile(model, backend="eager")


def compiled_part(model):
    model[1] = torch.compile(model[1], backend="eager")
    return model


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("compile_", [compiled_whole, compiled_part, compiled_in_place])
@pytest.mark.parametrize("layer", ["input", "0", "1"])
def test_compiled_networks_have_the_same_maps(compile_, layer, inputs):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Sequential(nn.Tanh(), nn.Conv2d(4, 4, 3)), nn.Tanh(),
            nn.Flatten(), nn.Linear(576, 4),
        ).double()  # fmt: skip

    def gradients(model):
        maps = attribute(model, inputs, CLASSES, "ixg", layer, create_graph=True)
        maps.square().sum().backward()
        return maps.detach(), [p.grad for p in model.parameters()]

    model = compile_(network())
    model(inputs)
    torch.testing.assert_close(gradients(model), gradients(network()))


def test_auxiliary_logits_are_left_out(inputs):
    class Auxiliary(nn.Sequential):
        def forward(self, x):
            return {"logits": super().forward(x), "aux": x}

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 4, 4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)]
    found = attribute(Auxiliary(*layers).double(), inputs, CLASSES, "ixg", "0")
    expected = attribute(nn.Sequential(*layers).double(), inputs, CLASSES, "ixg", "0")
    torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match=r"Sequential returns \(3, 4, 4, 4\), not logits"):
        attribute(nn.Sequential(*layers[:2]), inputs, CLASSES, "ixg")


def test_what_a_network_keeps_in_evaluation_mode_does_not_grow_old(inputs):
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.kept = nn.Parameter(torch.zeros(16, 1)), None

        def train(self, mode=True):
            self.kept = None if mode else self.kept
            return super().train(mode)

        def forward(self, x):
            if self.training:
                return x + self.bias
            self.kept = self.bias.tanh() if self.kept is None else self.kept
            return x + self.kept

    model = Arranged(*ARRANGEMENTS["tokens"])
    model.mid = Keeping()
    model = model.double().train()
    attribute(model, inputs, CLASSES, "ixg", "mid")
    with torch.no_grad():
        model.mid.bias.fill_(1.0)
    model.eval()
    found = model.mid(torch.zeros(16, 6, dtype=torch.float64))
    torch.testing.assert_close(found, torch.ones(16, 6, dtype=torch.float64).tanh())


def test_trained_attention_hides_no_layout():
    torch.manual_seed(0)
    network = build_model("timm/vit_tiny_patch16_224", 3, image_size=64)
    with torch.no_grad():  # Sharp attention to a few places mixes all others up, as training does.
        for name, weight in network.named_parameters():
            if "attn" in name and weight.ndim == 2:
                weight.mul_(12)
    inputs = torch.rand(2, 3, 64, 64)
    module = find_layer(network, "final")
    shape = features_of(network, module, "final", inputs).shape
    with pytest.raises(InputError, match="where its places are cannot be told"):
        find(lambda trials: features_of(network, module, "final", trials), inputs, shape, "final")
    found = layout_of(network, "final", shape, inputs)
    assert (found.grid, found.first, found.channels) == ((4, 4), 1, 2)
