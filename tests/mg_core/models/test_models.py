"""Every registered model keeps the contract of `Model`."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from mg_core.attributions import explain
from mg_core.errors import InputError
from mg_core.models import MODELS, Model, architecture, build_model
from mg_core.models.bcos import BcosModel

LAYERS = ("mid1", "mid2", "mid3", "final")


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    torch.manual_seed(0)
    return build_model(name, 3).eval()


def test_layers_are_maps_that_never_grow_with_depth(model):
    inputs = model.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert tuple(model.guidance_layers) == LAYERS
    explanation = explain(model, inputs, [("gradcam", layer) for layer in LAYERS])
    assert explanation.logits.shape == (1, 3)
    sizes = [tuple(m.shape[1:]) for m in explanation.maps(torch.zeros(1, dtype=torch.long))]
    assert sizes == sorted(sizes, reverse=True)
    assert all(height == width > 1 for height, width in sizes)


def test_bytes_and_unit_floats_encode_alike(model):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    encoded = model.encode(images)
    assert encoded.dtype == torch.float32
    assert encoded.shape[0] == 2
    assert encoded.shape[2:] == (8, 8)
    torch.testing.assert_close(
        model.encode(images.double() / 255), encoded.double(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8).long()]
)
def test_other_images_are_refused(model, images):
    with pytest.raises(InputError, match="images must"):
        model.encode(images)


def test_head_is_named(model):
    head = model.get_submodule(model.head)
    assert sum(p.numel() for p in head.parameters()) > 0
    assert any(len(p) == 3 for p in head.parameters())


def test_what_is_known_without_building_is_what_the_model_says(name, model):
    variant = MODELS[name]
    for attribute in ("guidance_layers", "head", "pretrained", "gflops"):
        assert getattr(model, attribute) == getattr(variant, attribute)
    has_norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    built = "bcos" if isinstance(model, BcosModel) else "vanilla" if has_norms else "xdnn"
    assert variant.family == model.family == built


def test_same_seed_gives_the_same_model(name, model):
    torch.manual_seed(0)
    twin = build_model(name, 3)
    for (name, found), expected in zip(
        twin.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize(
    ("name", "original"), [("vanilla_resnet18", resnet18), ("vanilla_resnet50", resnet50)]
)
def test_vanilla_resnets_are_torchvisions(name, original):
    theirs = original(num_classes=5).eval()
    ours = build_model(name, 5).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


def test_a_declared_model_says_what_to_subclass():
    with pytest.raises(
        TypeError, match=r"not a class; subclass mg_core\.models\.Model or a network"
    ):

        class Mine(MODELS["vanilla_tiny"]):
            pass


def test_imagenet_statistics():
    images = torch.tensor([0.485 + 0.229, 0.456 - 0.224, 0.406]).view(1, 3, 1, 1)
    encoded = build_model("vanilla_tiny", 2).encode(images)
    torch.testing.assert_close(encoded.flatten(), torch.tensor([1.0, -1.0, 0.0]), atol=1e-6, rtol=0)


def test_unknown_models_and_class_counts_are_refused():
    with pytest.raises(
        InputError, match=r"unknown model 'vanilla_resnet5'.*choose from.*vanilla_tiny"
    ):
        build_model("vanilla_resnet5", 3)
    with pytest.raises(InputError, match="at least one class, not 0"):
        build_model("vanilla_tiny", 0)


def test_a_model_of_your_own_works_by_name(monkeypatch):
    monkeypatch.setattr(MODELS, "_variants", dict(MODELS))

    @MODELS.register("my_net")
    class MyNet(Model):
        guidance_layers: ClassVar = {"mid1": "body"}

        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, num_classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.body(x).relu().mean((2, 3)))

    @MODELS.register("my_declared_net")
    @architecture("vanilla", {"mid1": "body"}, gflops=2.5)
    def my_declared_net(num_classes: int) -> Model:
        return MyNet(num_classes)

    for name, gflops in (("my_net", 1.0), ("my_declared_net", 2.5)):
        own = build_model(name, 5)
        assert MODELS[name].gflops == own.gflops == gflops
        inputs = own.encode(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
        (maps,) = explain(own, inputs, [("ixg", "mid1")]).maps(torch.tensor([4, 0]))
        assert maps.shape == (2, 6, 6)
