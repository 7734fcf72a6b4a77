"""Layers that a sweep names: others than those that were found, and those that are not there."""

import pytest
from rich.console import Console

from mg_core.errors import InputError
from sweeps.check import check
from sweeps.check_view import check_view
from sweeps.grid import expand
from sweeps.layers import check_layers
from sweeps.spec import differences, load_spec

RESNET, VIT = "timm/resnet10t", "timm/vit_tiny_patch16_224"


@pytest.fixture
def of_libraries(sweep, write):
    """Return a function that reads a sweep of two networks of libraries with some keys."""
    sweep["data"] |= {"image_size": 32}
    sweep["evaluate"] = [{"attribution": "gradcam", "layer": "final"}]
    sweep["grid"] |= {"model": [RESNET, VIT], "attribution": "ixg", "layer": ["input", "final"]}
    sweep["grid"]["loss"] = {"energy": 0.1}

    def read(layers=None, **grid):
        sweep["grid"] |= grid
        return load_spec(write({**sweep, "layers": layers} if layers else sweep), ())

    return read


def places(spec):
    return {
        (c.model, c.guidance.layer, *(str(pair) for pair in c.evaluate))
        for c in expand(spec).guided.values()
    }


def test_a_name_may_mean_another_module_of_a_model(of_libraries):
    plain = of_libraries()
    chosen = of_libraries({VIT: {"final": "blocks.5"}})
    assert (RESNET, "final", "gradcam@final", "ixg@final") in places(chosen)
    assert (VIT, "blocks.5", "gradcam@blocks.5", "ixg@blocks.5") in places(chosen)
    before, after = expand(plain).trials, expand(chosen).trials
    same = {t for t, c in after.items() if c.model == RESNET or c.kind == "baseline"}
    assert same == before.keys() & after.keys()
    # It is the trial that names the module itself.
    evaluate = "evaluate=[{attribution: gradcam, layer: blocks.5}]"
    named = load_spec(
        plain.model_dump(mode="json", by_alias=True), [evaluate, "grid.0.layer=[blocks.5]"]
    )
    own = {t for t, c in expand(named).guided.items() if c.model == VIT}
    assert own < after.keys()
    assert "layers" not in plain.to_yaml()
    assert differences(plain.model_dump(mode="json", by_alias=True), chosen) == [
        f"layers.{VIT}.final: absent → blocks.5"
    ]


def test_a_name_of_ones_own_for_a_layer_of_each_model(of_libraries):
    layers = {VIT: {"deep": "blocks.8"}, RESNET: {"deep": "layer3"}}
    spec = of_libraries(layers, layer="deep")
    assert {place[:2] for place in places(spec)} == {(VIT, "blocks.8"), (RESNET, "layer3")}
    check_layers(expand(spec))


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"timm/resnet18": {"final": "layer3"}}, "layers: the grid has no model 'timm/resnet18'"),
        ({"vanilla_tiny": {"final": "layer3"}}, "model 'vanilla_tiny' names its guidance layers"),
    ],
)
def test_wrong_models(of_libraries, layers, said):
    with pytest.raises(InputError, match=said):
        expand(of_libraries(layers, model=[RESNET, "vanilla_tiny"]))


@pytest.mark.parametrize(
    ("layer", "is_there"), [("mid1", True), ("layer2.0", True), ("mid9", False)]
)
def test_validate_looks_for_the_layers_of_libraries_networks(of_libraries, write, mg_sweep, layer,
                                                            is_there):  # fmt: skip
    text = of_libraries(model=RESNET, layer=layer).to_yaml()
    found = mg_sweep("validate", write(text), code=0 if is_there else 2)
    if is_there:
        assert "valid; 1 baseline and 1 guided trial\n" in found.stdout
    else:
        assert f"grid: model '{RESNET}': unknown layer 'mid9' of ResNet; choose" in found.stderr


def test_check_shows_the_modules_behind_the_names(of_libraries):
    found = check(of_libraries(model=RESNET, layer="final"), is_shared=True)
    names = ("mid1", "mid2", "mid3", "final")
    assert found.layers == {RESNET: {n: f"layer{i}" for i, n in enumerate(names, start=1)}}
    assert found.problems == []
    console = Console(width=200, record=True)
    console.print(check_view(found))
    assert f"layers of {RESNET}: mid1 layer1, mid2 layer2, mid3 layer3, " in console.export_text()
