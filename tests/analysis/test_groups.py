"""Table 1 and its figure for a data set whose groups are its own."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pandas as pd
import pytest

from analysis.claims import UNKNOWN, table_1
from analysis.claims.measures import Measures
from analysis.plots import drawings, render
from analysis.results import read_results
from analysis.selection import best_within
from analysis.tabular.formats import to_markdown
from analysis.tabular.groups import group_tables, has_waterbirds
from analysis.tabular.study import tables
from mg_core.data.layouts.waterbirds import Waterbirds

NAMES = ("cat, sofa", "dog, bench", "loss")


def grouped(results, names=NAMES):
    """Results with accuracies of groups: on test, each is its own, of trial, epoch and place."""
    rows, tests = results.rows.copy(), results.tests.copy()
    for frame, split in ((rows, "val"), (tests, "test")):
        size = len(frame)
        own = 0.3 + 0.4 * frame[f"{split}_f1"].astype(float)
        lists = [[value, value - 0.2, float("nan")] for value in own]
        frame[f"{split}_groups"] = pd.Series([list(names)] * size, index=frame.index)
        frame[f"{split}_accuracy_by_group"] = pd.Series(lists, index=frame.index)
        frame[f"{split}_accuracy"] = own - 0.05
        frame[f"{split}_accuracy_min_group"] = own - 0.2
        frame[f"{split}_accuracy_mean_group"] = own - 0.1
    return replace(results, rows=rows, tests=tests)


@pytest.fixture(scope="module")
def results(sweep, make_grid, tmp_path_factory):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("input",), ("energy", "rrr"), (0, 1, 2))
    return grouped(read_results(sweep(tmp_path_factory.mktemp("groups"), configs)))


def test_every_group_and_the_worst_have_a_column(results):
    (table,) = group_tables(results)
    frame = table.frame.set_index("loss")
    assert list(frame.index) == ["baseline", "energy", "rrr"]
    columns = ["cat, sofa", "dog, bench", "group loss", "worst group", "mean of groups", "overall"]
    assert list(frame)[-6:] == columns, "a group's name is no other column's"
    assert "Shapes: accuracy of every group, of the worst and overall on test" in table.title
    chosen = best_within(results.selected, "epg", "accuracy", 0.01)
    tests = results.tests.set_index(["trial_id", "epoch", "attribution", "layer"])
    for loss, own in chosen.groupby("loss"):
        keys = own[list(tests.index.names)].itertuples(index=False, name=None)
        values = [100 * tests.loc[key, "test_accuracy_by_group"][1] for key in keys]
        expected = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
        assert frame.loc[loss, "dog, bench"].startswith(expected)
        assert frame.loc[loss, "worst group"] == frame.loc[loss, "dog, bench"]
    assert frame["group loss"].isna().all(), "no image is of this group"
    assert "| dog, bench |" in to_markdown(table)


def test_the_figure_shows_every_group_by_name(results):
    (drawing,) = drawings(results, ["groups"])
    assert set(drawing.data["group"]) == {"cat, sofa", "dog, bench"}, "none for no image"
    assert set(drawing.data["loss"]) == {"baseline", "energy", "rrr"}
    assert "cat, sofa, dog, bench" in drawing.alt
    assert "on test" in drawing.caption
    baseline = drawing.data[drawing.data["loss"] == "baseline"]
    assert len(baseline) == 2 * 3, "each seed's baseline once a group"
    assert render(drawing, ["png"])["png"].startswith(b"\x89PNG")


def test_waterbirds_have_table_1_and_no_other(results):
    assert not has_waterbirds(results)
    birds = grouped(results, Waterbirds.groups)
    assert has_waterbirds(birds)
    assert not group_tables(birds)


def test_table_1_of_the_paper_is_not_judged_by_other_groups(results):
    assert table_1(Measures.of(results)).verdict == UNKNOWN


def test_data_sets_with_other_groups_have_tables_of_their_own(results):
    others = grouped(results, ("a", "b", "c"))
    both = replace(
        results,
        rows=pd.concat([results.rows, others.rows.assign(trial_id=results.rows["trial_id"] + "-")]),
        tests=pd.concat(
            [results.tests, others.tests.assign(trial_id=results.tests["trial_id"] + "-")]
        ),
    )
    first, second = group_tables(both)
    assert (first.name, second.name) == ("groups", "groups_2")
    assert {"a", "b", "c"} <= {*first.frame, *second.frame}


def test_the_table_stands_first_as_table_1_does(results):
    assert [table.name for table in tables(results)][:2] == ["groups", "gains"]
