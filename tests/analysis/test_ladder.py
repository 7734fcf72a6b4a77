"""What annotations cost and buy: hours, C1 and C4 on gains that are known, and their figure."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.claims import FAILS, HOLDS, UNKNOWN, judge, to_text
from analysis.claims.boxes import r7, r8
from analysis.claims.ladder import at_equal_time, c1, c4, gains_by_hours
from analysis.claims.measures import Measures
from analysis.efforts import EFFORTS, seconds_of, with_seconds
from analysis.plots import drawings, render
from analysis.results import read_results
from mg_core.columns import CONFIGURATION
from mg_core.errors import InputError
from mg_core.recipe import annotation_of

LADDER = ("mask", "box", {"points": 5}, "random_box")
FRACTIONS = (0.1, 1.0)
N_IMAGES = 1000


@pytest.fixture(scope="module")
def results(sweep, make_grid, tmp_path_factory):
    """A ladder of made-up results, one object an image, three seeds."""
    configs = {}
    for annotation in LADDER:
        for fraction in FRACTIONS:
            for config in make_grid(
                {"bcos_tiny": ("bcos",)},
                ("input",),
                ("energy",),
                (0, 1, 2),
                annotation=annotation,
                annotated_fraction=fraction,
            ):
                configs[config.trial_id] = config
    found = read_results(sweep(tmp_path_factory.mktemp("ladder"), list(configs.values())))
    objects = (found.rows["annotated_fraction"] * N_IMAGES).round().astype("Int64")
    rows = found.rows.assign(n_annotated_objects=objects.mask(found.rows["epoch"] == 0))
    return replace(found, rows=rows)


def with_gains(results, gains):
    """Measures in which each annotation gains EPG and IoU as a function of its hours says."""
    measures = Measures.of(results)
    rows = measures.rows.copy()
    hours = rows["trial_id"].map(measures.hours).astype(float)
    names = rows["annotation"].str.partition("(")[0]
    # The seeds differ a little, so that there are intervals.
    gain = [
        gains[name](time) + 0.1 * seed
        for name, time, seed in zip(names, hours, rows["seed"], strict=True)
    ]
    for metric in ("epg", "iou"):
        rows[metric] = np.where(rows["is_reference"], 20.0, 20.0 + np.array(gain))
    return replace(measures, rows=rows)


def test_hours_are_objects_times_published_seconds(results):
    found = analysis.annotation_hours(results).set_index(["annotation", "annotated_fraction"])
    assert (found.loc[("mask", 1.0), "hours"] == 1000 * 79 / 3600).all()
    assert (found.loc[("box", 0.1), "hours"] == 100 * 35 / 3600).all()
    clicks = found.loc[("points(count=5)", 0.1), "hours"].to_numpy()
    assert clicks == pytest.approx(100 * (2.4 + 4 * 0.9) / 3600)
    own = analysis.annotation_hours(results, {"box": 7}).set_index("annotation")
    assert own.loc["box", "seconds"].unique().tolist() == [7]
    assert own.loc["mask", "seconds"].unique().tolist() == [79]
    for seconds, wrong in (({"boxes": 7}, "no annotation is called 'boxes'"), ({"box": -1}, "-1")):
        with pytest.raises(InputError, match=wrong):
            with_seconds(results, seconds)
    assert math.isnan(seconds_of(annotation_of("scribble"), {}))
    assert seconds_of(annotation_of("scribble"), {"scribble": 15}) == 15
    assert all(effort.source for effort in EFFORTS.values())


def test_what_older_versions_did_not_count_has_no_hours(results):
    older = replace(results, rows=results.rows.assign(n_annotated_objects=pd.NA))
    assert analysis.annotation_hours(older)["hours"].isna().all()
    assert c4(Measures.of(older)).verdict == UNKNOWN
    assert not list(drawings(older, ["hours"]))


def test_boxes_matter_where_random_ones_guide_less(results):
    flat = {
        name: lambda _, gain=gain: gain for name, gain in zip(EFFORTS, (20.0,) * 5, strict=True)
    }
    lead = flat | {"random_box": lambda _: 10.0}
    found = c1(with_gains(results, lead))
    assert found.verdict == HOLDS
    epg, iou = found.conditions
    assert (epg.threshold, iou.threshold) == (5, 0)
    assert epg.estimate.value == pytest.approx(10)
    assert epg.estimate.n_configurations == len(FRACTIONS)
    assert c1(with_gains(results, flat)).verdict == FAILS
    small = c1(with_gains(results, flat | {"random_box": lambda _: 16.0}))
    assert [c.verdict for c in small.conditions] == [FAILS, HOLDS]
    rows = results.rows[results.rows["annotation"] != "random_box"]
    assert c1(Measures.of(replace(results, rows=rows))).verdict == UNKNOWN


def test_an_hour_of_boxes_is_compared_with_an_hour_of_masks(results):
    # Gains that are linear in the logarithm of hours, so that interpolation is exact.
    gains = {
        "mask": lambda h: 10 + math.log(h),
        "box": lambda h: 13 + math.log(h),
        "points": lambda h: 18 + math.log(h),
        "random_box": lambda _: 0.0,
    }
    found = c4(with_gains(results, gains))
    assert found.verdict == HOLDS
    boxes, clicks = found.conditions
    assert boxes.estimate.value == pytest.approx(3)
    assert clicks.estimate.value == pytest.approx(5)
    assert boxes.estimate.n_units == 3
    turned = c4(with_gains(results, gains | {"points": lambda h: 12 + math.log(h)}))
    assert [c.verdict for c in turned.conditions] == [HOLDS, FAILS]
    assert turned.verdict == FAILS


def test_the_range_in_common_is_compared_and_no_other():
    base = {"task": None, "layer": "input", "attribution": "ixg", "seed": 0, "baseline": "b"}
    points = [
        *(("mask", hours, gain) for hours, gain in ((1, 0.0), (100, 2.0))),
        *(("box", hours, gain) for hours, gain in ((10, 5.0), (1000, 5.0))),
        *(("points(count=1)", hours, 9.0) for hours in (0.1, 0.9)),
    ]
    rows = pd.DataFrame(
        [
            dict.fromkeys(CONFIGURATION, "x")
            | base
            | {"annotation": name, "hours": hours, "gain": gain}
            for name, hours, gain in points
        ]
    )
    table = at_equal_time(rows, "box", "mask")
    # From 10 to 100 hours the masks rise from 1 to 2.
    assert table[["box", "mask"]].to_numpy().tolist() == [[5.0, pytest.approx(1.5)]]
    assert at_equal_time(rows, "points", "box").empty


def test_random_boxes_and_others_are_no_part_of_what_few_boxes_keep(results):
    both = [define(Measures.of(results)) for define in (r7, r8)]
    only = results.rows[results.rows["annotation"] == "box"]
    alone = [define(Measures.of(replace(results, rows=only))) for define in (r7, r8)]
    for one, other in zip(both, alone, strict=True):
        assert [str(c) for c in one.conditions] == [str(c) for c in other.conditions]


def test_one_line_a_kind_of_supervision_is_drawn(results):
    (drawing,) = drawings(results, ["hours"])
    data = drawing.data
    assert set(data["series"]) == {"masks", "boxes", "5 points", "random boxes"}
    assert len(data) == 2 * 4 * 2 * 3  # metrics, annotations, fractions, seeds
    gains = gains_by_hours(Measures.of(results), "epg")
    shown = data[data["metric"] == "epg"]
    assert sorted(shown["gain"]) == pytest.approx(sorted(gains["gain"]))
    tested = results.tested
    row = shown.iloc[0]
    own = tested[tested["trial_id"] == row["trial_id"]]
    before = 100 * own.loc[own["epoch"] == 0, "test_epg"].iloc[0]
    after = 100 * own.loc[own["epoch"] == row["epoch"], "test_epg"].iloc[0]
    assert row["gain"] == pytest.approx(after - before)
    figure = drawing.draw(data)
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
    assert render(drawing, ["png"])["png"].startswith(b"\x89PNG")
    assert "5 points" in drawing.alt


def test_findings_beyond_the_paper_are_said_beside_it(results):
    text = to_text(judge(results))
    assert "\nC1      " in text
    assert "\nC4      " in text
