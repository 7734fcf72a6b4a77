"""Figures of what else is varied: their data, and that they are drawn."""

from dataclasses import replace

import pytest

from analysis.pareto import is_on_front
from analysis.plots import drawings, render
from analysis.plots.variations import selection_data
from analysis.results import merge, read_results
from mg_core.config import EvaluationPair
from mg_core.errors import InputError

BCOS = {"bcos_tiny": ("bcos",)}


def figures(store, *names):
    return {drawing.name: drawing for drawing in drawings(read_results(store), names)}


def configs_of(make_grid, **levels):
    ((name, values),) = levels.items()
    parts = [make_grid(BCOS, ("input",), seeds=(0, 1), **{name: value}) for value in values]
    return list({config.trial_id: config for part in parts for config in part}.values())


def test_figure_4_shows_one_front_over_all_weights(demo):
    results = read_results(demo)
    data = selection_data(results)
    assert {"all", "front", "test"} == set(data["stage"])
    every = data[(data["stage"] == "all") & ~data["is_reference"]]
    assert len(every) == 3 * 4
    rows = results.rows.merge(every[["trial_id", "epoch", "attribution", "layer"]])
    expected = rows[is_on_front(rows)]
    front = data[(data["stage"] == "front") & ~data["is_reference"]]
    assert set(zip(front["trial_id"], front["epoch"], strict=True)) == set(
        zip(expected["trial_id"], expected["epoch"], strict=True)
    )
    (figure,) = figures(demo, "fig4").values()
    assert len(figure.draw(figure.data).axes) == 3


def test_figure_7_has_the_backbones_that_figure_5_leaves_out(sweep, make_grid, tmp_path):
    models = {
        "vanilla_resnet50": ("ixg",),
        "bcos_resnet50": ("bcos",),
        "bcos_densenet121": ("bcos",),
        "bcos_vit_s": ("bcos",),
    }
    found = figures(sweep(tmp_path, make_grid(models, ("input",))), "fig5", "fig7")
    assert set(found["fig5"].data["model"]) == {"vanilla_resnet50", "bcos_resnet50"}
    assert set(found["fig7"].data["model"]) == {"bcos_densenet121", "bcos_vit_s"}
    titles = [axes.get_title() for axes in found["fig7"].draw(found["fig7"].data).axes]
    assert titles == ["B-cos DenseNet-121\nB-cos", "B-cos ViT-S\nB-cos"]


def test_figure_8_says_how_much_faster_each_layer_is(sweep, make_grid, tmp_path):
    layers = ("input", "mid2", "final")
    pairs = tuple(EvaluationPair(attribution="bcos", layer=layer) for layer in layers)
    store = sweep(tmp_path, make_grid(BCOS, layers, ("energy",), evaluate=pairs))
    (figure,) = figures(store, "fig8").values()
    assert set(figure.data["layer"]) == {"input"}
    assert set(figure.data["guided_layer"]) == set(layers)
    titles = [axes.get_title() for axes in figure.draw(figure.data).axes]
    assert titles == ["Final\n1.0×", "Mid2\n1.0×", "Input\n1.0×"]


@pytest.mark.parametrize(
    ("name", "setting", "levels", "n_panels"),
    [
        ("fig10", "box_dilation", (0.0, 0.1, 0.5), 2 * 2),
        ("fig12", "annotated_fraction", (0.01, 0.1, 1.0), 3),
    ],
)
def test_one_setting_varied(name, setting, levels, n_panels, sweep, make_grid, tmp_path):
    store = sweep(tmp_path, configs_of(make_grid, **{setting: levels}))
    ((key, figure),) = figures(store, name).items()
    assert key.startswith(name)
    guided = figure.data[~figure.data["is_reference"]]
    assert set(guided[setting]) == set(levels)
    assert figure.data[figure.data["is_reference"]].groupby(setting).size().eq(2).all(), "seeds"
    assert len(figure.draw(figure.data).axes) == n_panels
    assert render(figure, ["pdf"])["pdf"].startswith(b"%PDF")
    assert "nan" not in figure.caption + figure.alt


def test_a_sweep_without_variation_has_no_such_figures(demo):
    assert not figures(demo, "fig7", "fig8", "fig10", "fig11", "fig12", "fig13")


def test_stores_are_put_together_by_trial(sweep, make_grid, tmp_path):
    few = sweep(tmp_path / "few", make_grid(BCOS, ("input",), annotated_fraction=0.1))
    whole = sweep(tmp_path / "whole", make_grid(BCOS, ("input",)))
    parts = [read_results(store) for store in (few, whole)]
    both = merge(parts)
    (figure,) = drawings(both, ["fig12"])
    assert set(figure.data["annotated_fraction"]) == {0.1, 1.0}
    assert len(both.trials) == sum(len(part.trials) for part in parts) - 1, "one baseline"
    assert both.caveats == []
    again = merge([parts[0], parts[0]])
    assert len(again.rows) == len(parts[0].rows)
    assert len(again.tests) == len(parts[0].tests)


def test_stores_of_different_data_are_not_put_together_in_silence(sweep, make_grid, tmp_path):
    few = sweep(tmp_path / "few", make_grid(BCOS, ("input",), annotated_fraction=0.1))
    whole = sweep(tmp_path / "whole", make_grid(BCOS, ("input",)))
    (baseline,) = few.trials().keys() & whole.trials().keys()
    for store, fingerprint in ((few, "a" * 32), (whole, "b" * 32)):
        store.record_fingerprint(store.trials([baseline])[baseline].data.key, fingerprint, "here")
    both = merge([read_results(few), read_results(whole)])
    assert both.caveats[0].startswith("the stores hold different fingerprints of 'shapes'")
    other = read_results(whole)
    changed = other.rows["val_bce"].where(other.rows["trial_id"] != baseline, 0.5)
    with pytest.raises(InputError, match=f"few and whole trained trial {baseline} on different"):
        merge([read_results(few), replace(other, rows=other.rows.assign(val_bce=changed))])
