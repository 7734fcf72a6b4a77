"""Weights from files made on the spot and served from a loopback address."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch
from bcos.models import pretrained
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, ResNet50_Weights, resnet18

from mg_core.download import ATTEMPTS
from mg_core.errors import InputError
from mg_core.models import MODELS, WeightFile, build_model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def publish(server, name: str, content: bytes) -> str:
    server.files[name] = content
    return server.url(name)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def tiny_state(num_classes: int = 1000) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return build_model("vanilla_tiny", num_classes).state_dict()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_backbone_is(model, state):
    for key, value in model.state_dict().items():
        if key.startswith("fc."):
            assert value.shape != state[key].shape
        else:
            assert torch.equal(value, state[key]), key


def test_torchvision_file_by_name(server, cache, monkeypatch):
    theirs = resnet18().state_dict()
    content = saved(theirs)
    url = publish(server, f"models/resnet18-{digest(content)[:8]}.pth", content)
    monkeypatch.setitem(MODELS["vanilla_resnet18"].pretrained, "imagenet", WeightFile.named(url))
    for _ in range(2):
        assert_backbone_is(build_model("vanilla_resnet18", 20, weights="imagenet"), theirs)
    assert len(server.asked) == 1
    assert (cache / url.rsplit("/", 1)[1]).read_bytes() == content


def test_published_addresses_are_torchvisions():
    for name, weights in (
        ("vanilla_resnet18", ResNet18_Weights.IMAGENET1K_V1),
        ("vanilla_resnet50", ResNet50_Weights.IMAGENET1K_V1),
    ):
        file = MODELS[name].pretrained["IMAGENET1K_V1"]
        assert file == MODELS[name].pretrained["imagenet"]
        assert file.url == weights.url
        assert file.sha256 == weights.url[-12:-4]


@pytest.mark.parametrize("wrap", ["bare", "module", "state_dict", "safetensors"])
def test_local_file_in_every_wrapping(wrap, tmp_path):
    state = tiny_state()
    path = tmp_path / ("file.safetensors" if wrap == "safetensors" else "file.pth")
    if wrap == "safetensors":
        save_file(state, path)
    elif wrap == "bare":
        torch.save(state, path)
    else:
        inner = {f"module.{key}": value for key, value in state.items()}
        torch.save({"state_dict": inner, "epoch": 3} if wrap == "state_dict" else inner, path)
    assert_backbone_is(build_model("vanilla_tiny", 5, weights=str(path)), state)


def published_xdnn() -> object:
    """A file as Hesse et al. publish it: no norms, biases or scales, one convolution to resize."""
    state = {"conv1.weight": torch.randn(64, 3, 7, 7), "fc.weight": torch.randn(1000, 2048)}
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        width = 32 * 2**stage
        for i in range(blocks):
            key = f"layer{stage}.{i}"
            state[f"{key}.conv1.weight"] = torch.randn(width, channels, 1, 1)
            state[f"{key}.conv2.weight"] = torch.randn(width, width, 3, 3)
            state[f"{key}.conv3.weight"] = torch.randn(4 * width, width, 1, 1)
            if i == 0:
                state[f"{key}.downsample.weight"] = torch.randn(4 * width, channels, 1, 1)
            channels = 4 * width
    state = {f"module.{key}": value for key, value in state.items()}
    return {
        "epoch": 90,
        "arch": "xfixup_resnet50",
        "state_dict": state,
        "best_acc1": torch.tensor(1.0),
    }


def released_bcos(name: str) -> dict[str, torch.Tensor]:
    return getattr(pretrained, name)(pretrained=False).state_dict()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("xdnn_resnet50", published_xdnn),
        ("bcos_resnet50", lambda: released_bcos("resnet50")),
        ("bcos_densenet121", lambda: released_bcos("densenet121")),
        ("bcos_vit_s", lambda: released_bcos("simple_vit_s_patch16_224")),
        ("bcos_vitc_s", lambda: released_bcos("vitc_s_patch1_14")),
    ],
)
def test_published_formats_by_name(name, content, server, cache, monkeypatch):
    content = content()
    state = {k.removeprefix("module."): v for k, v in content.get("state_dict", content).items()}
    published = MODELS[name].pretrained["imagenet"]
    file = saved(content)
    path = f"{name}-{digest(file)[:10]}.pth" if published.sha256 else f"{name}.pth.tar"
    url = publish(server, path, file)
    served = WeightFile.named(url) if published.sha256 else WeightFile(url, None)
    monkeypatch.setitem(MODELS[name].pretrained, "imagenet", served)
    model = build_model(name, 20, weights="imagenet")
    for key, value in model.state_dict().items():
        if key.startswith(f"{MODELS[name].head}."):
            assert key not in state or value.shape != state[key].shape
        else:
            assert torch.equal(value, state.pop(key)), key
    assert all(key.startswith(f"{MODELS[name].head}.") for key in state)


def test_published_addresses_are_those_of_the_bcos_package():
    for name, theirs in (
        ("bcos_resnet50", pretrained.URLS["bcos_final"]["resnet_50"]),
        ("bcos_resnet18", pretrained.URLS["bcos_final"]["resnet_18"]),
        ("bcos_densenet121", pretrained.URLS["bcos_final"]["densenet_121"]),
        ("bcos_vit_s", pretrained.URLS["vit_final"]["bcos_simple_vit_s_patch16_224"]),
        ("bcos_vitc_s", pretrained.URLS["vit_final"]["bcos_vitc_s_patch1_14"]),
    ):
        assert MODELS[name].pretrained["imagenet"].url == theirs


def test_head_is_the_same_with_and_without_weights(tmp_path):
    torch.save(tiny_state(), tmp_path / "file.pth")
    heads = []
    for weights in (None, str(tmp_path / "file.pth")):
        torch.manual_seed(0)
        heads.append(build_model("vanilla_tiny", 5, weights).fc.weight)
    assert torch.equal(*heads)


def test_checksum_of_a_local_file(tmp_path):
    path = tmp_path / "file.pth"
    torch.save(tiny_state(), path)
    build_model("vanilla_tiny", 5, weights=f"{path}#sha256={digest(path.read_bytes())}")
    with pytest.raises(InputError, match="wrong checksum"):
        build_model("vanilla_tiny", 5, weights=f"{path}#sha256={'0' * 64}")
    with pytest.raises(InputError, match="8 to 64 hex digits"):
        build_model("vanilla_tiny", 5, weights=f"{path}#sha256=xyz")


def test_wrong_checksum_is_refused_and_leaves_nothing(server, cache):
    content = saved(tiny_state())
    url = publish(server, "tiny-0123456789.pth", content)
    with pytest.raises(InputError, match=r"wrong checksum.*instead of 0123456789"):
        build_model("vanilla_tiny", 5, weights=url)
    assert not list(cache.iterdir())
    with pytest.raises(InputError, match="wrong checksum"):
        build_model("vanilla_tiny", 5, weights=f"{url}#sha256={'ab' * 32}")
    build_model("vanilla_tiny", 5, weights=f"{url}#sha256={digest(content)}")


def test_broken_download_leaves_no_weights_and_continues(server, cache):
    content = saved(tiny_state())
    path = f"tiny-{digest(content)[:10]}.pth"
    url = publish(server, path, content)
    server.cuts = [1000] * ATTEMPTS
    with pytest.raises(InputError, match=f"{path} failed 5 times"):
        build_model("vanilla_tiny", 5, weights=url)
    assert not list(cache.glob("*.pth"))
    server.cuts = []
    build_model("vanilla_tiny", 5, weights=url)
    assert [p.name for p in cache.iterdir()] == [path]
    assert server.asked[-1] == f"bytes={1000 * ATTEMPTS}-"


def test_address_without_checksum_is_refused():
    with pytest.raises(InputError, match=r"no checksum.*#sha256="):
        build_model("vanilla_tiny", 5, weights="http://127.0.0.1:9/file.pth")


def test_an_address_of_a_file_is_read_in_place(cache, tmp_path, monkeypatch):
    content = saved(tiny_state())
    path = tmp_path / f"a b-{digest(content)[:10]}.pth"
    path.write_bytes(content)
    file = WeightFile.named(path.as_uri())
    monkeypatch.setitem(MODELS["vanilla_tiny"].pretrained, "mine", file)
    assert_backbone_is(build_model("vanilla_tiny", 5, weights="mine"), tiny_state())
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{path}: wrong checksum"):
        build_model("vanilla_tiny", 5, weights="mine")
    path.unlink()
    with pytest.raises(InputError, match=f"'mine': there is no file {path}"):
        build_model("vanilla_tiny", 5, weights="mine")


def test_unknown_name_lists_the_choices():
    with pytest.raises(InputError, match=r"'imagnet'.*imagenet, IMAGENET1K_V1"):
        build_model("vanilla_resnet18", 5, weights="imagnet")
    with pytest.raises(InputError, match="no names for this model"):
        build_model("vanilla_tiny", 5, weights="imagenet")


def test_keys_and_shapes_must_fit(tmp_path):
    path, state = tmp_path / "file.pth", tiny_state()

    def error() -> str:
        torch.save(state, path)
        with pytest.raises(InputError) as caught:
            build_model("vanilla_tiny", 5, weights=str(path))
        return str(caught.value)

    weight = state.pop("conv1.weight")
    assert "the file lacks conv1.weight" in error()
    state |= {"conv1.weight": weight, "conv9.weight": weight}
    assert "the file has unknown conv9.weight" in error()
    del state["conv9.weight"]
    state["conv1.weight"] = weight[:, :1]
    assert "conv1.weight has shape (16, 1, 3, 3), where (16, 3, 3, 3) is wanted" in error()


def test_files_of_one_name_from_two_addresses(server, cache):
    for folder in ("one", "two"):
        content = saved({**tiny_state(), "fc.bias": torch.ones(len(folder) + ord(folder[0]))})
        url = publish(server, f"{folder}/model.pth", content)
        assert_backbone_is(build_model("vanilla_tiny", 5, f"{url}#sha256={digest(content)}"),
                           tiny_state())  # fmt: skip
    assert len(server.asked) == 2
    content = saved(tiny_state(num_classes=9))
    server.files["two/model.pth"] = content  # The publisher replaced it.
    build_model("vanilla_tiny", 5, f"{url}#sha256={digest(content)}")
    assert len(list(cache.glob("*/model.pth"))) == 3
    assert len(server.asked) == 3


@pytest.mark.parametrize("weights", ["~nobody-of-that-name/x.pth", "x" * 5000, "a\0b.pth"])
def test_paths_that_cannot_be(weights):
    with pytest.raises(InputError, match="there is no file"):
        build_model("vanilla_tiny", 5, weights)


@pytest.mark.parametrize("end", ["%00-01234567.pth", "%0A.pth#sha256=01234567"])
def test_addresses_that_end_in_no_name(server, cache, end):
    with pytest.raises(InputError, match="ends in no file name"):
        build_model("vanilla_tiny", 5, server.url(end))


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in the file was run')",))


@pytest.mark.parametrize(
    ("content", "said", "said_by_ending"),
    [
        (b"", "the file is empty", "the file is empty"),
        (b"not a checkpoint", "it is a text file", "it is a text file"),
        (saved(Payload()), "it holds exec, which may run code", "is a file of PyTorch"),
        (saved([1]), "not a state dict", "is a file of PyTorch; let its name end in .pth"),
        (saved({"a": 1}), "not a state dict", "is a file of PyTorch; let its name end in .pth"),
        (saved({}), "not a state dict", "is a file of PyTorch; let its name end in .pth"),
    ],
)
def test_files_that_are_no_state_dict_are_refused(content, said, said_by_ending, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        build_model("vanilla_tiny", 5, weights=str(path))
    assert "\n" not in str(caught.value)
    broken = tmp_path / "file.safetensors"
    broken.write_bytes(content)
    with pytest.raises(InputError, match=said_by_ending):
        build_model("vanilla_tiny", 5, weights=str(broken))
