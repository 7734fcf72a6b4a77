"""Networks of libraries by name: names, layers, weights, exactness."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision
from zoo import FAMILIES, PLACES, QUICK, prepared, verdict

from mg_core.attributions import attribute
from mg_core.errors import InputError
from mg_core.guidance import check_guidance
from mg_core.models import MODELS, build_model
from mg_core.models.library import family_of
from mg_core.models.sources import networks, published_weights

timm = pytest.importorskip("timm")


def test_names_are_those_of_the_libraries():
    known = torchvision.models.list_models(module=torchvision.models)
    assert set(networks("torchvision")) == set(known)
    assert set(networks("timm")) == set(timm.list_models())
    from bcos.models import pretrained

    assert set(networks("bcos")) == set(pretrained.list_available())


def test_weights_are_those_of_the_libraries():
    for name in ("resnet50", "vit_b_16", "swin_t", "convnext_tiny", "inception_v3", "alexnet"):
        weights = torchvision.models.get_model_weights(name)
        found = {key: file.url for key, file in published_weights("torchvision", name).items()}
        assert found == {member.name: member.url for member in weights} | {
            "imagenet": weights.DEFAULT.url
        }
    for name in ("vit_small_patch16_224", "resnet50", "convnext_tiny", "mobilenetv3_small_050"):
        tags = set(published_weights("timm", name)) - {"imagenet"}
        assert {f"{name}.{tag}" for tag in tags} == set(timm.list_pretrained(f"{name}.*"))
        default = timm.get_pretrained_cfg(name)
        assert default.hf_hub_id in published_weights("timm", name)["imagenet"].url


def test_a_name_is_known_without_pytorch():
    code = (
        "import sys; from mg_core.models import MODELS; m = MODELS['timm/resnet10t'];"
        "assert m.pretrained and 'final' in m.guidance_layers and m.family == 'vanilla';"
        "assert MODELS['bcos/resnet18'].family == 'bcos';"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnet10", r"timm has no network 'resnet10'; did you mean timm/resnet1"),
        ("torchvision/convnext_tinny", r"did you mean torchvision/convnext_tiny"),
        ("tim/resnet10t", r"'tim' is no library of networks; choose from torchvision, timm, bcos"),
        ("timm/resnet10t.c3_in1k", r"'c3_in1k' names weights; write model: timm/resnet10t and"),
        ("vanila_tiny", r"did you mean 'vanilla_tiny'.*network of a library: torchvision/…"),
        ("resnet18", r"\(did you mean torchvision/resnet18 or timm/resnet18 or bcos/resnet18\?\)"),
        ("vit_tny", r"\(did you mean timm/vit_tiny_"),
        ("timm/vit_tny", r"did you mean timm/vit_tiny_"),
    ],
)
def test_wrong_names(name, said):
    assert name not in MODELS
    with pytest.raises(InputError, match=said):
        build_model(name, 3)


LAYERS = {
    "torchvision/resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "torchvision/squeezenet1_1": ["features.1", "features.4", "features.7", "features.12"],
    "torchvision/mobilenet_v3_small": ["features.1", "features.3", "features.8", "features.12"],
    "timm/convnextv2_atto": ["stages.0", "stages.1", "stages.2", "stages.3"],
    "timm/vit_tiny_patch16_224": ["blocks.2", "blocks.5", "blocks.8", "blocks.10"],
    "timm/xcit_nano_12_p16_224": ["blocks.2", "blocks.5", "blocks.8", "blocks.11"],
    "bcos/resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "bcos/simple_vit_ti_patch16_224": [
        f"0.transformer.encoder_{number}" for number in (2, 5, 8, 11)
    ],
}


@pytest.mark.parametrize("name", LAYERS)
def test_guidance_layers(name):
    model = build_model(name, 3)
    assert dict(model.guidance_layers) == dict(
        zip(("mid1", "mid2", "mid3", "final"), LAYERS[name], strict=True)
    )


def test_bcos_networks_have_six_channels_dynamic_weights_and_the_published_bias():
    model, study = build_model("bcos/resnet18", 3).eval(), build_model("bcos_resnet18", 3).eval()
    study.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    inputs = model.encode(images)
    torch.testing.assert_close(inputs, study.encode(images))
    torch.testing.assert_close(model(inputs), study(inputs))
    classes = torch.tensor([0, 2])
    for layer in ("input", "mid2"):
        found = attribute(model, inputs, classes, "bcos", layer)
        torch.testing.assert_close(found, attribute(study, inputs, classes, "bcos", layer))


def test_normalisation_is_the_librarys_own():
    black = torch.zeros(1, 3, 32, 32)
    assert torch.all(build_model("timm/vit_tiny_patch16_224", 3).encode(black) == -1)
    model = build_model("torchvision/resnet18", 3)
    torch.testing.assert_close(model.encode(black)[0, 0, 0, 0], torch.tensor(-0.485 / 0.229))


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/squeezenet1_1",
        "torchvision/googlenet",
        "timm/deit_tiny_distilled_patch16_224",
    ],
)
def test_weights_of_the_library_fill_all_but_the_head(name, tmp_path):
    library, _, network = name.partition("/")
    torch.manual_seed(5)
    if library == "timm":
        whole = timm.create_model(network, num_classes=7)
    else:  # Published files hold the auxiliary classifiers as well.
        options = {"init_weights": False} if network == "googlenet" else {}
        whole = torchvision.models.get_model(network, weights=None, num_classes=7, **options)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(0)
    plain = build_model(name, 3).state_dict()
    torch.manual_seed(0)
    filled = build_model(name, 3, weights=str(tmp_path / "weights.pth")).state_dict()
    wanted = whole.state_dict()
    heads = [key for key in filled if filled[key].shape != wanted[key].shape]
    assert heads
    for key, values in filled.items():
        torch.testing.assert_close(values, plain[key] if key in heads else wanted[key])
    broken = {key: value for key, value in wanted.items() if key not in list(wanted)[:1]}
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(InputError, match=rf"do not fit model '{name}': the file lacks"):
        build_model(name, 3, weights=str(tmp_path / "broken.pth"))


def test_position_embeddings_follow_the_size_of_the_images(tmp_path):
    whole = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    model = build_model(
        "timm/vit_tiny_patch16_224", 3, weights=str(tmp_path / "weights.pth"), image_size=64
    )
    assert model.pos_embed.shape == (1, 17, 192)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def test_size_that_a_network_does_not_take():
    with pytest.raises(InputError, match=r"'timm/efficientformer_l1' cannot run on images of 64"):
        build_model("timm/efficientformer_l1", 3, image_size=64)


def test_preflight_names_what_cannot_be_guided_and_changes_nothing():
    model = build_model("timm/vit_tiny_patch16_224", 3, image_size=64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_guidance(model, [("ixg", "final")], [("gradcam", "blocks.3")], 64)
    for pair, said in {
        ("ixg", "blocks.11"): "ixg@blocks.11: layer 'blocks.11' of VisionTransformer has no influ",
        ("ixg", "blocks.12"): "unknown layer 'blocks.12'",
        ("ixg", "head"): r"layer 'head' gives no map: its output is \(2, 3\)",
    }.items():
        with pytest.raises(InputError, match=said):
            check_guidance(model, [], [pair], 64)
    torch.testing.assert_close(model.state_dict(), before)
    assert model.training


@pytest.mark.parametrize("name", QUICK)
def test_small_networks_are_exact(name):
    model, inputs = prepared(name)
    for layer, method in PLACES:
        assert verdict(model, inputs, layer, method) == "exact", (layer, method)


def test_the_names_of_the_slow_test_are_known():
    assert [name for name in (*QUICK, *FAMILIES.split()) if name not in MODELS] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES.split())
def test_no_network_is_wrong(name):
    try:
        model, inputs = prepared(name)
    except InputError as error:
        pytest.skip(str(error))
    for layer, method in PLACES:
        found = verdict(model, inputs, layer, method)
        assert found == "exact" or found.startswith("refused"), (layer, method)


@pytest.mark.parametrize("name", ["vanilla_tiny", "bcos_vit_s", "bcos/resnet18", "timm/resnet10t"])
def test_family_follows_from_the_name(name):
    assert family_of(name) == MODELS[name].family
