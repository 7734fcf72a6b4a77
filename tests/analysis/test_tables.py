"""Tables: what they hold and how they are written."""

import csv
import io
import re
import statistics
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pandas as pd
import pytest

from analysis.claims import judge
from analysis.example import recorded_study
from analysis.page.report import report_page
from analysis.plots import drawings, render
from analysis.results import read_results
from analysis.selection import best_within
from analysis.tabular import formats
from analysis.tabular import study as tables
from mg_core.columns import BY_METRIC


@pytest.fixture(scope="module")
def results(demo):
    return read_results(demo)


def test_front_listing_has_every_selected_checkpoint(results):
    frame = tables.front_listing(results).frame
    assert len(frame) == (~results.selected["is_reference"]).sum()
    assert frame["test_f1"].notna().all()


def test_front_sizes_add_up(results):
    frame = tables.front_sizes(results).frame
    assert len(frame) == 8
    assert frame["n_points"].sum() == len(tables.front_listing(results).frame)


def test_the_best_by_each_metric_is_the_best_on_validation(results):
    frame = tables.best_by_metric(results).frame
    assert len(frame) == 8 * 3
    rows = results.rows[(results.rows["epoch"] >= 1) & (results.rows["kind"] == "guided")]
    largest = rows.groupby(["guided_attribution", "guided_layer", "loss"])["val_epg"].max()
    best = frame[frame["best_by"] == "EPG"]
    found = best.set_index(["guided_attribution", "guided_layer", "loss"])["val_epg"]
    pd.testing.assert_series_equal(found.sort_index(), largest.sort_index())


def test_baselines_stand_once_per_judged_pair(results):
    frame = tables.baselines(results).frame
    assert frame[["attribution", "layer"]].duplicated().sum() == 0
    assert len(frame) == 4


def test_a_baseline_without_guided_trials_has_its_classification(sweep, make_grid, tmp_path):
    frame = tables.baselines(read_results(sweep(tmp_path, make_grid({"vanilla_tiny": ()})))).frame
    assert len(frame) == 1
    assert frame["test_f1"].notna().all()
    assert frame[["attribution", "layer", "test_epg"]].isna().all(axis=None)


def test_gains_are_ratios_to_the_baseline_at_a_bounded_loss_of_f1(results):
    table = tables.guidance_gains(results)
    frame = table.frame
    assert len(frame) == 8
    assert (frame["val_f1"] >= frame["val_f1_start"] - 0.05 - 1e-9).all()
    assert (frame["val_epg_ratio"] == frame["val_epg"] / frame["val_epg_start"]).all()
    assert (frame["test_epg_ratio"] == frame["test_epg"] / frame["test_epg_start"]).all()
    energy = frame.query("loss == 'energy' and guided_layer == 'final'")
    assert (energy["test_epg_ratio"] > 2).all()
    chosen = best_within(results.selected)
    assert sorted(frame["val_epg"]) == sorted(chosen["val_epg"])


def test_gains_say_how_many_fronts_lost_too_much(results):
    frame = results.rows.copy()
    lost = (frame["loss"] == "energy") & (frame["guided_layer"] == "final") & (frame["epoch"] > 0)
    assert "have none" not in tables.guidance_gains(results).title
    frame.loc[lost, "val_f1"] = 0.01
    table = tables.guidance_gains(replace(results, rows=frame))
    n_less = 8 - len(table.frame)
    assert n_less > 0
    assert f"Of 8 fronts {n_less} have none." in table.title


def test_table_1_is_what_each_seed_chose():
    study = recorded_study()
    values = study.tests.set_index(["trial_id", "epoch", "attribution", "layer"])
    columns = {"worst": "test_accuracy_worst_group", "overall": "test_accuracy"}
    found = {}
    rows = study.selected
    rows = rows[rows["val_accuracy"].notna()]
    for (loss, task, _), own in rows.groupby(["loss", "task", "seed"]):
        start = own[own["epoch"] == 0].iloc[0]
        best = None
        for _, row in own[own["epoch"] > 0].iterrows():
            near = row["val_accuracy"] >= start["val_accuracy"] - 0.01 - 1e-9
            if near and (best is None or row["val_epg"] > best["val_epg"]):
                best = row
        for name, row in (("baseline", start), (loss, best)):
            if row is not None:
                of_row = values.loc[tuple(row[values.index.names])]
                for what, column in columns.items():
                    of_cell = found.setdefault((name, f"{task}, {what}"), {})
                    of_cell[row["seed"]] = 100 * of_row[column]
    table = tables.table_1(study).frame.set_index("loss")
    assert list(table.index) == ["baseline", "energy", "l1"]
    for (name, column), of_seeds in found.items():
        numbers = list(of_seeds.values())
        written = [float(word) for word in re.findall(r"[\d.]+", table.loc[name, column])[:2]]
        expected = [statistics.mean(numbers), statistics.stdev(numbers)]
        assert written == pytest.approx(expected, abs=0.051)
        assert ("of 4 seeds" in table.loc[name, column]) == (len(numbers) < 4)


def test_table_1_pools_no_axis():
    study = recorded_study()
    right = tables.table_1(study).frame
    names = {t: f"{t}-mean" for t in study.trials}
    rows = study.rows.assign(
        reduction=study.rows["reduction"].mask(study.rows["kind"] == "guided", "mean"),
        trial_id=study.rows["trial_id"].map(names),
    )
    tests = study.tests.assign(trial_id=study.tests["trial_id"].map(names))
    both = replace(study, rows=pd.concat([study.rows, rows]), tests=pd.concat([study.tests, tests]))
    table = tables.table_1(both).frame
    assert list(table["reduction"]) == ["mean"] * 3 + ["sum"] * 3
    for reduction in ("mean", "sum"):
        own = table[table["reduction"] == reduction].drop(columns="reduction")
        pd.testing.assert_frame_equal(own.reset_index(drop=True), right)


def test_table_1_says_where_seeds_have_nothing_to_choose():
    study = recorded_study()
    failed = (study.rows["task"] == "reversed") & (study.rows["loss"] == "l1")
    failed &= (study.rows["seed"] == 0) & (study.rows["epoch"] > 0)
    rows = study.rows.assign(val_accuracy=study.rows["val_accuracy"].mask(failed, 0.0))
    table = tables.table_1(replace(study, rows=rows)).frame.set_index("loss")
    assert table.loc["l1", "reversed, worst"].endswith(" (3 of 4 seeds)")
    assert "seeds" not in table.loc["baseline", "reversed, worst"]
    half = study.tests[
        ~study.tests["trial_id"].isin(study.rows.loc[study.rows["seed"] > 1, "trial_id"])
    ]
    table = tables.table_1(replace(study, tests=half)).frame.set_index("loss")
    for cell in table.filter(like=", ").to_numpy().ravel():
        assert cell.endswith(" (2 of 4 seeds)")
    untested = tables.table_1(replace(study, tests=study.tests.iloc[:0])).frame.set_index("loss")
    assert untested["reversed, worst"].isna().all(), "validation has no such group"
    assert untested["reversed, overall"].str.contains("±").all()


def test_gains_judge_where_guidance_acted(sweep, make_grid, tmp_path):
    from mg_core.config import EvaluationPair

    pairs = tuple(EvaluationPair(attribution="ixg", layer=layer) for layer in ("final", "input"))
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",), evaluate=pairs)
    found = read_results(sweep(tmp_path, configs))
    assert len(tables.guidance_gains(found).frame) == 1
    assert set(tables.front_listing(found).frame["layer"]) == {"final", "input"}


def test_settings_that_differ_are_columns(sweep, make_grid, tmp_path):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, seeds=(0, 1))
    configs += make_grid({"vanilla_tiny": ("ixg",)}, seeds=(0, 1), annotated_fraction=0.1)
    frame = tables.front_sizes(read_results(sweep(tmp_path, configs))).frame
    assert {"annotated_fraction", "seed"} <= set(frame)
    assert not {"box_dilation", "dataset", "attribution"} & set(frame)


@pytest.mark.parametrize("objectives", [("map",), ("f1",), ("precision", "iou_at_0.5")])
def test_any_objective_is_a_column_of_every_table(objectives, demo):
    results = read_results(demo, objectives)
    found = tables.tables(results)
    frames = {table.name: table.frame for table in found}
    wanted = {f"test_{name}" for name in objectives}
    assert all(wanted <= set(frames[name]) for name in ("fronts", "best", "baselines"))
    others = [BY_METRIC[name].header for name in objectives if name != "f1"]
    assert set(frames["volumes"]["objectives"]) == {f"F1, {label}" for label in others}
    assert frames["attained"].columns.tolist()[-3:] == ["objective", "f1", "value"]
    figures = [(drawing, render(drawing, ["png"])["png"]) for drawing in drawings(results)]
    page = report_page(results, figures, found, judge(results))
    labels = [BY_METRIC[name].header for name in objectives]
    assert f"non-dominated in {', '.join(labels)}," in page
    assert f"non-dominated in {' and '.join(labels)};" in page


def test_csv_holds_raw_values(results):
    table = tables.front_listing(results)
    rows = list(csv.DictReader(io.StringIO(formats.to_csv(table))))
    assert [float(row["test_epg"]) for row in rows] == table.frame["test_epg"].tolist()


def test_markdown_has_a_line_per_row(results):
    table = tables.guidance_gains(results)
    lines = formats.to_markdown(table).splitlines()
    assert lines[0] == table.title
    assert len(lines) == 2 + 2 + len(table.frame)
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert "validation EPG before" in lines[2]


def test_html_is_well_formed_and_every_row_is_as_wide(results):
    for table in tables.tables(results):
        root = ElementTree.fromstring(formats.to_html(table))
        assert root.findtext("caption") == table.title
        widths = [sum(int(cell.get("colspan", 1)) for cell in row) for row in root.iter("tr")]
        assert set(widths) == {len(table.frame.columns)}
        assert len(root.findall("tbody/tr")) == len(table.frame)


def test_text_is_escaped():
    frame = pd.DataFrame({"model": ["<b>&|"], "val_f1": [0.5]})
    table = formats.Table("x", "a < b", frame)
    assert "&lt;b&gt;&amp;|" in formats.to_html(table)
    assert r"\<b\>\&\|" in formats.to_markdown(table)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("val_f1", 0.71234, "71.2"),
        ("test_epg_start", 0.25, "25.0"),
        ("test_epg_ratio", 2.126, "2.13"),
        ("val_epg", float("nan"), "–"),
        ("task", None, "–"),
        ("localization_weight", 5e-4, "0.0005"),
        ("localization_weight", 5e-6, "5e-06"),
        ("epoch", 3, "3"),
        ("val_iou_at_0.5", 0.5, "50.0"),
        ("val_bce", 0.5, "0.5"),
        ("start_accuracy", 50.0, "50"),
        ("n_points", pd.NA, "–"),
    ],
)
def test_values_as_people_read_them(name, value, text):
    assert formats.cell(name, value) == text


def test_text_tables_are_aligned(results):
    lines = formats.to_text(tables.front_sizes(results)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.match(r"model +guided +at +loss +points", lines[0])


def test_a_notebook_shows_tables_and_figures(results):
    table = tables.front_listing(results)
    assert table._repr_html_() == formats.to_html(table)
    assert next(drawings(results, ["fig5"]))._repr_png_().startswith(b"\x89PNG")
