"""Figures of EPG by class and by box size, and of any metric by its name."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.example import recorded_study
from analysis.frame import KEY
from analysis.plots import breakdowns, drawings, render
from analysis.plots.breakdowns import MOST_CLASSES, draw_by_class
from analysis.plots.panels import on_lines
from analysis.plots.tradeoff import OF_METRIC, tradeoff_data
from analysis.results import read_results
from analysis.selection import best_within, guided_there
from mg_core.columns import BOX_SIZE_EDGES


@pytest.fixture(scope="module")
def results(demo):
    return read_results(demo)


def names_of(results, *only):
    return [drawing.name for drawing in drawings(results, only)]


@pytest.mark.parametrize("name", ["epg_by_class", "epg_by_box_size"])
def test_every_place_has_a_panel_of_the_chosen_checkpoints(name, results):
    (drawing,) = drawings(results, [name])
    chosen = best_within(guided_there(results.selected).drop(columns=["front", "is_reference"]))
    values = results.tests.set_index(KEY)[f"test_{name}"]
    shown = {}
    data = drawing.data
    assert set(data["loss"]) == {"", "energy", "l1"}
    assert data["panel"].nunique() == len(drawing.draw(data).axes) == 2 * 2
    guided = data[data["loss"] != ""]
    for (trial, epoch), own in guided.groupby(["trial_id", "epoch"]):
        shown[trial, epoch] = own.sort_values("place")["epg"].to_numpy() / 100
    assert render(drawing, ["png"])["png"].startswith(b"\x89PNG")
    assert "checkpoint with the highest EPG" in drawing.caption
    assert re.search(r"at input, energy: from [\d.]+ \(.+\) to [\d.]+ \(.+\);", drawing.alt)
    rows = chosen[KEY].itertuples(index=False, name=None)
    expected = {key[:2]: np.array(values[key]) for key in rows}
    assert shown.keys() == expected.keys()
    for key, own in expected.items():
        np.testing.assert_allclose(shown[key], own[~np.isnan(own)])


def test_classes_have_their_names_and_bins_their_edges(results):
    first = next(iter(drawings(results, ["epg_by_class"])))
    names = dict(zip(first.data["place"], first.data["level"], strict=True))
    assert list(names.values()) == ["ellipse", "rectangle", "triangle", "star", "cross", "ring"]
    other = next(iter(drawings(results, ["epg_by_box_size"])))
    assert dict(zip(other.data["place"], other.data["level"], strict=True)) == {
        0: "0–2", 1: "2–5", 2: "5–10", 3: "10–25", 4: "25–50",
    }  # fmt: skip
    assert len(BOX_SIZE_EDGES) == 7, "the last bin has no box"


def test_where_the_data_set_is_out_of_reach_classes_have_numbers(results):
    trials = {
        key: config.model_copy(
            update={"data": config.data.model_copy(update={"name": "csv", "options": {}})}
        )
        for key, config in results.trials.items()
    }
    first = next(iter(drawings(replace(results, trials=trials), ["epg_by_class"])))
    assert set(first.data["level"]) == {f"class {number}" for number in range(6)}


def test_of_many_classes_those_that_changed_most_are_drawn(results):
    data = next(iter(drawings(results, ["epg_by_class"]))).data
    one = data[(data["place"] == 0) & (data["panel"] == data["panel"][0])]
    parts = [
        one.assign(place=k, level=f"c{k}", epg=50 - 0.1 * k * (one["loss"] == "energy"))
        for k in range(MOST_CLASSES + 5)
    ]
    many = pd.concat(parts, ignore_index=True)
    (axes,) = draw_by_class(many).axes
    labels = {text.get_text() for text in axes.get_yticklabels()}
    assert labels == {f"c{k}" for k in range(5, MOST_CLASSES + 5)}


def test_many_places_have_several_pages(results, monkeypatch):
    monkeypatch.setattr(breakdowns, "MOST_PANELS", 3)
    first, second = drawings(results, ["epg_by_box_size"])
    assert (first.name, second.name) == ("epg_by_box_size-1", "epg_by_box_size-2")
    assert (first.data["panel"].nunique(), second.data["panel"].nunique()) == (3, 1)
    assert len(second.draw(second.data).axes) == 1


def test_seeds_are_averaged(sweep, make_grid, tmp_path):
    store = sweep(tmp_path, make_grid({"bcos_tiny": ("bcos",)}, ("input",), seeds=(0, 1, 2)))
    (drawing,) = drawings(read_results(store), ["epg_by_box_size"])
    assert "means of 3 seeds" in drawing.caption
    means = drawing.data[drawing.data["loss"] == "energy"].groupby("place")["epg"].mean()
    (axes,) = drawing.draw(drawing.data).axes
    lines = {tuple(np.round(line.get_ydata(), 6)) for line in axes.lines}
    assert tuple(np.round(means, 6)) in lines


def test_a_figure_of_one_metric_is_drawn_where_it_is_named_or_an_objective(results):
    usual = names_of(results)
    assert not {name.partition("-")[0] for name in usual} & set(OF_METRIC)
    assert names_of(results, "deletion", "pointing_game") == ["deletion", "pointing_game"]
    assert names_of(results, "mask_epg") == [], "nothing was measured"
    assert "pointing_game" in names_of(replace(results, objectives=("f1", "pointing_game")))
    (figure,) = drawings(results, ["pointing_game"])
    assert figure.caption.startswith("pointing game against F1 on the test split")


def test_where_less_is_better_the_line_and_the_regions_say_so(results):
    (figure,) = drawings(results, ["deletion"])
    data = figure.data
    assert "energy down to" in figure.alt
    guided = data[~data["is_reference"]]
    panel = ["model", "attribution", "layer", "loss"]
    for _, group in guided.groupby(panel):
        points = group[["f1", "deletion"]].to_numpy()
        for point, is_on_line in zip(points, group["is_on_line"], strict=True):
            better = (points[:, 0] >= point[0]) & (points[:, 1] <= point[1])
            is_beaten = (better & (points != point).any(axis=1)).any()
            assert is_on_line == (not is_beaten)
    axes = figure.draw(data).axes[0]
    low, high = axes.get_ylim()
    assert low > high
    (green, grey) = axes.patches
    assert green.get_y() + green.get_height() == pytest.approx(high)
    assert grey.get_y() == pytest.approx(low)
    assert green.get_height() < 0


def test_lines_join_what_no_other_point_beats_in_the_direction_of_each_metric(results):
    data = tradeoff_data(results.tested, "epg")
    guided = data[~data["is_reference"]].assign(deletion=100 - data["epg"])
    groups = ["attribution", "layer", "loss"]
    same = on_lines(guided, groups, ["f1", "epg"]) == on_lines(guided, groups, ["f1", "deletion"])
    assert same.all()


def test_the_recorded_study_has_the_figures_that_it_has_values_for():
    """It was recorded before some metrics were known: those are missing, and nothing fails."""
    study = recorded_study()
    assert names_of(study, "insertion", "pointing_game", "macro_f1", "f1_swapped") == []
    assert names_of(study, "epg_by_box_size", "iou_at_0.5")
