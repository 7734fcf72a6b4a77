"""A path of weights means the file that was there."""

import os

import pytest
import torch

from mg_core.errors import InputError
from sweeps.grid import expand
from sweeps.spec import differences, load_spec


def baseline_weights(spec):
    return {config.weights for config in expand(spec).baselines.values()}


def test_a_file_enters_the_sweep_with_its_checksum(sweep, write, tmp_path):
    file = tmp_path / "backbone.pth"
    file.write_bytes(b"one")
    sweep["weights"] = str(file)
    first = load_spec(write(sweep), [])
    (weights,) = baseline_weights(first)
    assert weights == f"{file}#sha256=7692c3ad3540bb80"

    stored = first.model_dump(mode="json")
    assert differences(stored, load_spec(write(first.to_yaml()), [])) == []
    file.write_bytes(b"two")
    (said,) = differences(stored, load_spec(write(sweep), []))
    assert said.startswith(f"weights: {weights} → {file}#sha256=3fc4ccfe")


def test_weights_by_model_are_pinned_too(sweep, write, tmp_path):
    (tmp_path / "backbone.pth").write_bytes(b"one")
    sweep["weights"] = {"vanilla_tiny": str(tmp_path / "backbone.pth")}
    (weights,) = baseline_weights(load_spec(write(sweep), []))
    assert weights.endswith("#sha256=7692c3ad3540bb80")


def test_a_bare_name_is_a_file_that_lies_in_the_current_folder(sweep, write, tmp_path, monkeypatch):
    (tmp_path / "backbone.pth").write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    sweep["weights"] = "backbone.pth"
    (weights,) = baseline_weights(load_spec(write(sweep), []))
    assert weights == f"{tmp_path / 'backbone.pth'}#sha256=7692c3ad3540bb80"
    (tmp_path / "backbone.pth").unlink()
    with pytest.raises(InputError, match=r"no weights called 'backbone\.pth'; .* no file of this"):
        expand(load_spec(write(sweep), []))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("/dev/zero", "/dev/zero is no file but a device or a pipe; name a file of weights"),
        ("./pipe.pth", "/pipe.pth is no file but a device or a pipe; name a file of weights"),
        ("pipe.pth", "/pipe.pth is no file but a device or a pipe; name a file of weights"),
        ("./folder", "/folder is a folder; name a file of weights"),
    ],
)
def test_what_is_no_file_is_said_at_once(sweep, write, refused, tmp_path, weights, sentence):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder").mkdir()
    sweep["weights"] = weights
    assert sentence in refused("run", write(sweep))
    sweep["weights"] = {"vanilla_tiny": weights}
    assert sentence in refused("plan", write(sweep))


def test_a_file_that_does_not_fit_is_said_before_the_first_trial(sweep, write, refused, tmp_path):
    torch.save({"net": {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "backbone.pth")
    sweep["weights"] = "backbone.pth"
    said = refused("run", write(sweep), "--runner", "inline")
    assert "do not fit model 'vanilla_tiny': the file lacks conv1.weight, bn1.weight" in said
    assert "has unknown a" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "weights", ["https://example.org/w-0123456789.pth", "~/only/on/the/nodes.pth", "x/y#sha256=00"]
)
def test_what_is_no_file_here_stays_as_it_is(sweep, write, weights):
    sweep["weights"] = weights
    assert baseline_weights(load_spec(write(sweep), [])) == {weights}


def test_a_bare_name_must_be_one_of_the_models(sweep, write):
    sweep["weights"] = "imagenet"
    with pytest.raises(InputError, match="model 'vanilla_tiny' has no weights called 'imagenet'"):
        expand(load_spec(write(sweep), []))


@pytest.mark.parametrize(
    "address",
    [
        "https://bob:hunter2@example.org/w-0123456789.pth",
        "https://example.org/w-0123456789.pth?X-Amz-Signature=hunter2",
        "https://example.org/w-0123456789.pth?sig=hunter2",
        "https://example.org/w-0123456789.pth?api_key=hunter2",
    ],
)
def test_credentials_in_an_address_of_weights_are_refused_and_not_repeated(sweep, write, address):
    for weights in (address, {"vanilla_tiny": address}):
        sweep["weights"] = weights
        with pytest.raises(InputError, match="holds credentials") as caught:
            load_spec(write(sweep), [])
        assert "hunter2" not in str(caught.value)
