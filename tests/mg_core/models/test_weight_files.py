"""Files of weights as people have them: wrapped, renamed, odd or damaged."""

from __future__ import annotations

import argparse
import io
import random
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from mg_core.errors import InputError
from mg_core.models import build_model


def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return build_model("vanilla_tiny", 1000).state_dict()


def assert_backbone_is(model, state):
    for key, value in model.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, state[key]), key


def build(path):
    return build_model("vanilla_tiny", 5, weights=str(path))


@pytest.mark.parametrize("wrap", ["model", "model_state_dict", "net", "two"])
def test_checkpoints_with_other_things_beside_the_weights(wrap, tmp_path):
    state = tiny_state()
    content = {wrap: state, "epochs": 3, "F-Score": 0.7, "optimizer": {}}
    if wrap == "two":
        content = {"state_dict": state, "ema": {k: 0 * v for k, v in state.items()}}
    torch.save(content, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod.", "backbone.", "0."])
def test_keys_that_all_begin_alike(prefix, tmp_path):
    state = tiny_state()
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
def test_averages_are_taken_where_nothing_else_is_there(key, tmp_path):
    state = tiny_state()
    averages = {name: 0 * value for name, value in state.items()}
    torch.save({key: state, "epoch": 3}, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)
    torch.save({key: averages, "model": state}, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)
    torch.save({key: state, "optimizer_state": averages | {"a": 1}}, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)


def test_entries_beside_a_whole_network_under_a_prefix_are_not_its_own(tmp_path):
    state = tiny_state()
    network = build_model("vanilla_tiny", 1000)
    network.load_state_dict(state)
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    assert "n_averaged" in averaged
    inside = {f"model.{key}": value for key, value in state.items()}
    for content in (averaged, inside | {"criterion.weight": torch.ones(3)}):
        torch.save(content, tmp_path / "file.pth")
        assert_backbone_is(build(tmp_path / "file.pth"), state)


def test_settings_numbers_and_arrays_beside_the_weights_are_read(tmp_path):
    state = tiny_state()
    beside = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.7), "n": np.int32(3)}
    torch.save({"model": state, **beside}, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)
    torch.save({key: value.numpy() for key, value in state.items()}, tmp_path / "file.pth")
    assert_backbone_is(build(tmp_path / "file.pth"), state)


def test_files_of_numpy_1_name_its_older_modules(tmp_path):
    state = tiny_state()
    torch.save({"model": state, "best": np.float64(0.7)}, tmp_path / "file.pth")
    content = (tmp_path / "file.pth").read_bytes()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(tmp_path / "old.pth", "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(name, data)
    assert_backbone_is(build(tmp_path / "old.pth"), state)


@pytest.mark.parametrize("name", ["file.pth", "file.bin"])
def test_safetensors_by_another_name(name, tmp_path):
    save_file(tiny_state(), tmp_path / name)
    assert_backbone_is(build(tmp_path / name), tiny_state())


def test_which_of_several_networks_was_taken_is_logged(tmp_path, caplog):
    state = tiny_state()
    torch.save({"ema": state, "model": state}, tmp_path / "file.pth")
    build(tmp_path / "file.pth")
    assert caplog.messages == [
        f"weights {tmp_path / 'file.pth'}: the network under 'model' was taken, and not that under "
        "'ema'"
    ]
    torch.save({"ema": state, "epoch": 3}, tmp_path / "file.pth")
    build(tmp_path / "file.pth")
    assert len(caplog.messages) == 1


def _saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _old(state):
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


BROKEN = {
    "empty": (lambda s: b"", "the file is empty"),
    "text": (lambda s: b"see the other folder\n", "it is a text file and no checkpoint"),
    "other text": (lambda s: ("ä" * 400).encode(), "it is a text file and no checkpoint"),
    "web page": (lambda s: b"<!DOCTYPE html><html>", "it is a web page and no checkpoint"),
    "pointer": (
        lambda s: b"version https://git-lfs.github.com/spec/v1\n",
        "it is a pointer of Git LFS",
    ),
    "cut off": (lambda s: _saved(s)[:5000], "it is cut off or damaged; its 5,000 bytes cannot"),
    "old, cut off": (lambda s: _old(s)[:5000], "it is cut off or damaged; its 5,000 bytes cannot"),
    "safetensors, cut off": (lambda s: save(s)[:5000], "it is cut off or damaged; its 5,000 by"),
    "noise": (lambda s: random.Random(0).randbytes(4000), "it is no file of PyTorch or safetens"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_file_is_said(kind, tmp_path):
    content, sentence = BROKEN[kind]
    (tmp_path / "file.pth").write_bytes(content(tiny_state()))
    with pytest.raises(InputError) as caught:
        build(tmp_path / "file.pth")
    assert str(caught.value).startswith(f"weights {tmp_path / 'file.pth'}: {sentence}")


def test_other_shapes_are_named(tmp_path):
    wide = {k: torch.cat([v, v]) if v.ndim > 2 else v for k, v in tiny_state().items()}
    torch.save(wide, tmp_path / "file.pth")
    with pytest.raises(InputError) as caught:
        build(tmp_path / "file.pth")
    assert re.search(
        r": do not fit model 'vanilla_tiny': conv1.weight has shape \(\d+, 3, \d, \d\), where "
        r"\(\d+, 3, \d, \d\) is wanted \(and \d+ more like it\)$",
        str(caught.value),
    )


def _beside(**parts):
    return lambda state: {**state, **parts}


def _as_entry(change):
    return lambda state: {**state, "conv1.weight": change(state["conv1.weight"])}


def _under(*prefixes):
    return lambda state: {p + key: value for p in prefixes for key, value in state.items()}


ENTRY = "the entry {} is no name with a dense tensor of real numbers"
CONV = ENTRY.format("'conv1.weight'")
ODD = {
    "integers as keys": (lambda s: dict(enumerate(s.values())), ENTRY.format("0")),
    "none as a key": (lambda s: {None: s["conv1.weight"]}, ENTRY.format("None")),
    "sparse": (_as_entry(lambda v: v.to_sparse()), CONV),
    "nested": (_as_entry(lambda v: torch.nested.nested_tensor([v[0], v[1, :1]])), CONV),
    "complex": (_as_entry(lambda v: v.to(torch.complex64)), CONV),
    "meta": (_as_entry(lambda v: v.to("meta")), CONV),
    "quantised": (_as_entry(lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8)), CONV),
    "integers": (_as_entry(lambda v: v.to(torch.int8)), "conv1.weight holds torch.int8, not float"),
    "infinite": (_as_entry(lambda v: v / 0), "conv1.weight holds values that are not finite"),
    "too large": (_as_entry(lambda v: v.double() * 1e300), "not finite as torch.float32"),
    "two models": (_under("teacher.", "student."), "begin with 'teacher.' and with 'student.'"),
    "both": (_under("", "module."), "begin with '' and with 'module.'"),
    "a list": (lambda s: list(s.items()), "not a state dict of tensors"),
    "wrapped twice": (lambda s: {"state_dict": {"model": s}}, "its keys are state_dict"),
    "odd name": (_beside(**{"a\nb": torch.ones(1)}), "the file has unknown 'a\\nb'"),
    "other objects": (
        _beside(args=random.Random(0)),
        "it holds random.Random, which may run code; save its state dict alone",
    ),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_odd_entries_are_refused(kind, tmp_path):
    change, sentence = ODD[kind]
    torch.save(change(tiny_state()), tmp_path / "file.pth")
    with pytest.raises(InputError) as caught:
        build(tmp_path / "file.pth")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"weights {tmp_path / 'file.pth'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [torch.Tensor.half, torch.Tensor.double, lambda v: v.contiguous().clone()]
)
def test_other_precisions_and_shared_storage_are_loaded(change, tmp_path):
    state = tiny_state()
    conv = change(state["conv1.weight"])
    shared = torch.cat([conv.flatten(), torch.ones(3, dtype=conv.dtype)])[: conv.numel()]
    torch.save({**state, "conv1.weight": shared.view(conv.shape)}, tmp_path / "file.pth")
    assert torch.equal(build(tmp_path / "file.pth").conv1.weight, conv.float())


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_load_or_are_a_sentence(kind, seed, tmp_path):
    path = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pth")
    if kind == "safetensors":
        save_file(tiny_state(), path)
    else:
        torch.save(tiny_state(), path, _use_new_zipfile_serialization=kind == "zip")
    whole, rng = path.read_bytes(), random.Random(seed)
    n_refused = 0
    for _ in range(1000 if seed else 60):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            # What describes the tensors lies at the start and at the end.
            near = rng.randrange(min(len(content), 6000))
            place = rng.choice((near, len(content) - 1 - near))
            edit = rng.choice(("flip", "insert", "delete", "cut"))
            if edit == "flip":
                content[place] ^= 1 << rng.randrange(8)
            elif edit == "insert":
                content[place:place] = rng.randbytes(rng.randint(1, 9))
            elif edit == "delete":
                del content[place : place + rng.randint(1, 9)]
            elif len(content) > 20_000:
                del content[rng.randrange(10_000, len(content)) :]
        path.write_bytes(content)
        try:
            model = build(path)
        except InputError as error:
            n_refused += 1
            assert str(error).startswith(f"weights {path}: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(value.isfinite().all() for value in model.state_dict().values())
    assert n_refused
