"""What figures 5 and 6 show, and that it is drawn."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.frame import load_tests, with_tests
from analysis.plots import FIGURES, drawings, render, style
from analysis.plots.tradeoff import draw_tradeoff, tradeoff_data
from analysis.results import read_results
from analysis.selection import select
from mg_core.config import EvaluationPair
from mg_core.errors import InputError
from mg_core.losses import LOSSES
from mg_core.pareto import non_dominated


def joined_rows(store):
    return with_tests(select(analysis.load(store)), load_tests(store))


def test_all_selected_points_are_shown_and_none_is_selected_again_on_test(demo):
    rows = joined_rows(demo)
    data = tradeoff_data(rows, "epg")
    guided = data[~data["is_reference"]]
    assert len(guided) == (~rows["is_reference"]).sum()
    key = ["trial_id", "epoch"]
    joined = guided.merge(rows, on=key, validate="one_to_one", suffixes=("", "_row"))
    np.testing.assert_allclose(joined["f1"], 100 * joined["test_f1"])
    np.testing.assert_allclose(joined["epg"], 100 * joined["test_epg"])
    assert not guided["is_on_line"].all()


def test_the_line_is_the_front_in_the_two_axes_of_each_panel_and_loss(demo):
    data = tradeoff_data(joined_rows(demo), "iou")
    guided = data[~data["is_reference"]]
    groups = list(guided.groupby(["attribution", "layer", "loss"]))
    assert len(groups) == 8
    for _, group in groups:
        expected = non_dominated(group[["f1", "iou"]].to_numpy())
        assert (group["is_on_line"] == expected).all()


def test_one_cross_per_panel_and_start(demo):
    crosses = tradeoff_data(joined_rows(demo), "epg").query("is_reference")
    assert len(crosses) == 4
    assert not crosses.duplicated(["attribution", "layer"]).any()
    assert crosses["loss"].isna().all()
    assert not crosses["is_on_line"].any()


def test_seeds_keep_fronts_of_their_own(sweep, make_grid, tmp_path):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",), seeds=(0, 1))
    store = sweep(tmp_path, configs)
    data = tradeoff_data(joined_rows(store), "epg")
    assert len(data[data["is_reference"]]) == 2
    (drawing,) = drawings(read_results(store), ["fig5"])
    assert "Each seed has its own front" in drawing.caption
    for _, group in data[~data["is_reference"]].groupby("seed"):
        assert (group["is_on_line"] == non_dominated(group[["f1", "epg"]].to_numpy())).all()


def test_pairs_that_were_not_guided_stay_out(sweep, make_grid, tmp_path):
    pairs = tuple(EvaluationPair(attribution="ixg", layer=layer) for layer in ("final", "input"))
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",), evaluate=pairs)
    rows = joined_rows(sweep(tmp_path, configs))
    assert set(rows["layer"]) == {"final", "input"}
    assert set(tradeoff_data(rows, "epg")["layer"]) == {"final"}


def test_rows_without_test_results_are_left_out(demo):
    rows = joined_rows(demo)
    rows.loc[rows["epoch"] > 1, "test_epg"] = np.nan
    data = tradeoff_data(rows, "epg")
    assert set(data["epoch"]) == {0, 1}
    assert np.isfinite(data[["f1", "epg"]]).all(axis=None)


def test_data_and_drawing_of_nothing(demo):
    rows = joined_rows(demo)
    assert tradeoff_data(rows.iloc[:0], "epg").empty
    for part in (rows[rows["is_reference"]], rows[~rows["is_reference"]].head(1)):
        data = tradeoff_data(part, "epg")
        assert draw_tradeoff(data, "epg").axes


PAPERS = ("energy", "l1", "ppce", "rrr")


def test_panels_are_models_by_layers_in_the_papers_order(sweep, make_grid, tmp_path):
    models = {
        "bcos_resnet50": ("bcos",),
        "vanilla_resnet50": ("ixg",),
        "xdnn_resnet50": ("intgrad",),
    }
    store = sweep(tmp_path, make_grid(models, ("final", "input"), PAPERS))
    data = tradeoff_data(joined_rows(store), "epg")
    figure = draw_tradeoff(data, "epg")
    figure.draw_without_rendering()
    titles = [axes.get_title() for axes in figure.axes]
    assert [re.split(r"[ \n]", title)[0] for title in titles[:3]] == [
        "Vanilla",
        "X-DNN",
        "B-cos",
    ]
    rows = [axes.texts[0].get_text() for axes in figure.axes if axes.texts]
    assert rows == ["Input", "Final"]
    labels = [text.get_text() for text in figure.legends[0].get_texts() if text.get_text().strip()]
    assert labels[:5] == ["Energy", "$L_1$", "PPCE", "RRR*", "Baseline"]


def test_points_and_legend_are_inside_their_boxes(demo):
    data = tradeoff_data(joined_rows(demo), "epg")
    figure = draw_tradeoff(data, "epg")
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        assert not legend.overlaps(axes.get_tightbbox())
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        for line in axes.lines:
            assert ((line.get_xdata() > left) & (line.get_xdata() < right)).all()
            assert ((line.get_ydata() > bottom) & (line.get_ydata() < top)).all()


def test_a_legend_of_many_losses_stays_inside_the_figure(sweep, make_grid, tmp_path):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, ("input",), PAPERS))
    rows, names = joined_rows(store), list(style.LOSSES)
    others = [
        rows.assign(loss=rows["loss"].map(dict(zip(PAPERS, names[start : start + 4], strict=True))))
        for start in range(0, len(names), 4)
    ]
    data = tradeoff_data(pd.concat(others, ignore_index=True), "epg")
    figure = draw_tradeoff(data, "epg")
    figure.draw_without_rendering()
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {mark.label for mark in style.LOSSES.values()} <= labels
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    assert not any(legend.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_every_loss_differs_in_marker_and_in_lightness():
    """Readable in black and white: no two losses share a marker or a grey value."""
    from matplotlib.colors import to_rgb

    marks = style.LOSSES.values()
    assert len({mark.marker for mark in marks}) == len(marks)
    grey = sorted(np.dot(to_rgb(mark.colour), [0.299, 0.587, 0.114]) for mark in marks)
    assert min(np.diff(grey)) > 0.05


def test_marks_are_of_registered_losses_and_known_to_the_page():
    from analysis.page.explorer import SYMBOLS

    assert list(style.LOSSES)[:4] == list(PAPERS)
    assert set(style.LOSSES) <= set(LOSSES)
    marks = [mark.marker for mark in style.marks([*style.LOSSES, "mine", "yours"]).values()]
    assert len({SYMBOLS[marker] for marker in marks}) == len(marks)


def test_losses_of_users_get_marks_of_their_own():
    marks = style.marks(["energy", "mine", "yours"])
    assert [mark.marker for mark in marks.values()] == ["o", "8", "H"]
    assert style.marks(["l1"])["l1"] == style.LOSSES["l1"]


@pytest.mark.parametrize("model", ["vanilla_resnet50", "my_model", "mine"])
def test_models_of_users_have_labels(model):
    expected = {"vanilla_resnet50": "Vanilla ResNet-50"}.get(model, model)
    assert style.model_label(model) == expected


def test_files_are_the_same_bytes_for_the_same_data(sweep, make_grid, tmp_path):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, ("final",)))
    (drawing,) = drawings(read_results(store), ["fig5"])
    first, second = render(drawing), render(drawing)
    assert first == second
    assert first["png"].startswith(b"\x89PNG")
    assert first["pdf"].startswith(b"%PDF")


def test_a_figure_for_each_setting(sweep, make_grid, tmp_path):
    one = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",))
    other = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",), box_dilation=0.25)
    found = list(drawings(read_results(sweep(tmp_path, one + other)), ["fig5"]))
    assert [d.name for d in found] == ["fig5-box_dilation=0.0", "fig5-box_dilation=0.25"]
    assert "boxes as they are" in found[0].caption
    assert "boxes dilated by 25 %" in found[1].caption
    assert all(d.data["trial_id"].nunique() == 3 + 1 - 1 for d in found)


def test_wide_sweeps_take_two_pages(sweep, make_grid, tmp_path):
    models = {
        f"{family}_resnet50": (own, "gradcam")
        for family, own in (("vanilla", "ixg"), ("xdnn", "intgrad"), ("bcos", "bcos"))
    }
    store = sweep(tmp_path, make_grid(models, ("final",), ("energy",)))
    names = [drawing.name for drawing in drawings(read_results(store))]
    assert names[:5] == ["fig4", "fig5", "fig5-gradcam", "fig6", "fig6-gradcam"]
    assert set(names[5:]) == {"epg_by_class", "epg_by_box_size"}


def test_nothing_is_drawn_before_tests(sweep, make_grid, tmp_path):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}), tested=False)
    assert [drawing.name for drawing in drawings(read_results(store))] == ["fig4"]


def test_captions_and_alternatives_are_text(demo):
    for drawing in drawings(read_results(demo)):
        if drawing.name.startswith("epg_by"):
            assert "nan" not in drawing.caption + drawing.alt
            continue
        assert drawing.caption.startswith("Fig. ")
        assert "The cross is the baseline" in drawing.caption
        assert drawing.name == "fig4" or "vanilla_tiny ixg at final" in drawing.alt
        assert "nan" not in drawing.caption + drawing.alt


def test_figures_of_users_have_any_name_and_come_last(demo, monkeypatch):
    (fig5,) = drawings(read_results(demo), ["fig5"])
    monkeypatch.setattr(FIGURES, "_variants", dict(FIGURES))
    FIGURES.register("hypervolume")(lambda results: iter([replace(fig5, name="hypervolume")]))
    FIGURES.register("a second one")(lambda results: iter([replace(fig5, name="a second one")]))
    names = [drawing.name for drawing in drawings(read_results(demo))]
    assert names[:3] == ["fig4", "fig5", "fig6"]
    assert names[-2:] == ["hypervolume", "a second one"]
    (own,) = drawings(read_results(demo), ["hypervolume"])
    assert own.name == "hypervolume"


def test_an_unknown_figure_is_a_sentence(demo):
    with pytest.raises(InputError, match=r"unknown figure .fig99.*choose from .*fig5, fig6"):
        list(drawings(read_results(demo), ["fig99"]))
    assert set(FIGURES) >= {"fig5", "fig6"}
