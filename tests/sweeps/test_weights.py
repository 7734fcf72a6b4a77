"""A path of weights means the file that was there."""

import pytest

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
