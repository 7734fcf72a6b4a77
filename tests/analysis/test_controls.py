"""Controls of what guidance did, on hand-built tables whose verdicts are known."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import claims
from analysis.claims import FAILS, HOLDS, UNKNOWN, judge, to_json, to_text
from analysis.claims.measures import Measures
from analysis.frame import KEY
from analysis.results import read_results
from analysis.selection import best_within, guided_there, judged_elsewhere
from analysis.testing.plan import plan_tests
from mg_core.config import EvaluationPair

PAIRS = tuple(
    EvaluationPair(attribution=attribution, layer=layer)
    for attribution, layer in (("gradcam", "final"), ("intgrad_steps", "input"), ("ixg", "input"))
)


@pytest.fixture(scope="module")
def results(sweep, make_grid, tmp_path_factory):
    """One model guided by two losses at IxG in three seeds, judged by two others as well."""
    configs = make_grid(
        {"vanilla_tiny": ("ixg",)}, ("input",), ("energy", "l1"), (0, 1, 2), evaluate=PAIRS
    )
    return read_results(sweep(tmp_path_factory.mktemp("controls"), configs))


@pytest.fixture(scope="module")
def measures(results):
    return Measures.of(results)


def with_values(measures, **values):
    """The same measures with values of guided checkpoints and, by `start_…`, of baselines."""
    rows = measures.rows.copy()
    for name, value in values.items():
        is_start = name.startswith("start_")
        rows.loc[rows["is_reference"] == is_start, name.removeprefix("start_")] = value
    return replace(measures, rows=rows)


def test_the_checkpoint_is_chosen_where_it_was_guided(results):
    found = judged_elsewhere(results.rows, results.selected)
    chosen = best_within(guided_there(results.selected).drop(columns=["front", "is_reference"]))
    assert set(found["attribution"]) == {"gradcam", "intgrad_steps"}
    assert len(found) == 2 * len(chosen) == 2 * 2 * 3
    assert set(zip(found["trial_id"], found["epoch"], strict=True)) == set(
        zip(chosen["trial_id"], chosen["epoch"], strict=True)
    )
    with pytest.raises(ValueError, match="validation alone"):
        judged_elsewhere(results.rows.assign(test_f1=0.0), results.selected)


def test_what_is_judged_elsewhere_is_tested_too(results):
    """Also where the checkpoint is on no front of the attribution that judges it."""
    untested = replace(results, tests=results.tests.iloc[:0])
    targets = [target.key for job in plan_tests(untested).jobs for target in job.targets]
    assert len(targets) == len(set(targets))
    own = results.elsewhere[KEY].itertuples(index=False, name=None)
    on_fronts = set(results.selected[KEY].itertuples(index=False, name=None))
    assert set(own) - on_fronts
    assert on_fronts | set(results.elsewhere[KEY].itertuples(index=False, name=None)) < set(targets)


def test_an_attribution_that_was_not_guided_must_gain(measures):
    finding = claims.c2(measures)
    assert finding.verdict == HOLDS
    assert [c.statistic.split()[2] for c in finding.conditions] == ["gradcam", "intgrad_steps"]
    assert set(finding.detail["attribution"]) == {"gradcam", "intgrad_steps"}
    # The guided attribution's own gain does not count.
    is_one = measures.elsewhere["attribution"] == "intgrad_steps"
    lower = measures.elsewhere["epg"].where(~is_one, 1.0)
    assert claims.c2(replace(measures, elsewhere=measures.elsewhere.assign(epg=lower))).verdict == (
        FAILS
    )


def test_the_gain_elsewhere_is_that_of_the_same_checkpoint(measures, results):
    """Against the numbers of the store, one seed and attribution at a time."""
    gains = []
    rows = results.rows.merge(results.tests, on=KEY)
    for seed in (0, 1, 2):
        here = rows[(rows["seed"] == seed) & (rows["layer"] == "input")]
        here = here[here["attribution"] == "ixg"]
        start = here[here["epoch"] == 0].iloc[0]
        near = here[(here["epoch"] > 0) & (here["val_f1"] >= start["val_f1"] - 0.05 - 1e-9)]
        best = near.loc[near["val_epg"].idxmax()]
        own = rows[(rows["trial_id"] == best["trial_id"]) & (rows["attribution"] == "gradcam")]
        by_epoch = own.set_index("epoch")["test_epg"]
        gains.append(100 * (by_epoch[best["epoch"]] - by_epoch[0]))
    (gradcam, _) = claims.c2(measures).conditions
    assert gradcam.estimate.value == pytest.approx(np.mean(gains))
    assert gradcam.estimate.n_units == 3


def test_where_no_checkpoint_is_near_in_f1_nothing_is_gained_elsewhere(measures):
    rows = measures.rows
    low = rows["val_f1"].where(rows["is_reference"] | (rows["seed"] != 0), 0.0)
    found = claims.c2(replace(measures, rows=rows.assign(val_f1=low)))
    assert all(condition.estimate.n_units == 3 for condition in found.conditions)
    before = claims.c2(measures)
    for fewer, all_three in zip(found.conditions, before.conditions, strict=True):
        assert fewer.estimate.value < all_three.estimate.value


def test_f1_must_fall_less_on_other_backgrounds_and_be_higher_there(measures):
    assert claims.c3(measures).verdict == UNKNOWN, "nothing was swapped"
    noise = np.random.default_rng(0).normal(0, 0.1, len(measures.rows))
    before = {"start_f1_unswapped": 72.0, "start_f1_swapped": 40.0}

    def verdict(unswapped, swapped):
        values = {"f1_unswapped": unswapped, "f1_swapped": swapped}
        rows = with_values(measures, **before, **values).rows
        return claims.c3(replace(measures, rows=rows.assign(f1_swapped=rows["f1_swapped"] + noise)))

    assert verdict(71.0, 60.0).verdict == HOLDS
    assert verdict(72.0, 30.0).verdict == FAILS
    # It falls less, but from so low that it is lower in the end.
    worse = verdict(42.0, 35.0)
    assert [condition.verdict for condition in worse.conditions] == [HOLDS, FAILS]
    assert worse.verdict == FAILS
    fall = verdict(71.0, 60.0).conditions[0].estimate
    assert fall.value == pytest.approx(32 - 11, abs=0.3)


def test_selection_by_f1_loses_epg_and_volume(measures):
    """Against the points of each front, one at a time."""
    finding = claims.c5(measures)
    rows = guided_there(measures.rows)
    lost, volumes = [], []
    for _, front in rows.groupby(["loss", "seed"]):
        start = front[front["is_reference"]].iloc[0]
        guided = front[~front["is_reference"]]
        by_f1 = guided.loc[guided["val_f1"].idxmax()]
        near = guided[guided["val_f1"] >= start["val_f1"] - 0.05 - 1e-9]
        lost.append(near.loc[near["val_epg"].idxmax(), "epg"] - by_f1["epg"])
        x0, y0 = front["f1"].min(), front["epg"].min()
        steps = sorted(zip(guided["f1"], guided["epg"], strict=True), reverse=True)
        area = top = 0.0
        for x, y in steps:
            area += (x - x0) * max(0.0, y - y0 - top)
            top = max(top, y - y0)
        volumes.append(100 - 100 * (by_f1["f1"] - x0) * (by_f1["epg"] - y0) / area)
    epg, volume = (condition.estimate for condition in finding.conditions)
    assert epg.value == pytest.approx(np.mean(lost))
    assert volume.value == pytest.approx(np.mean(volumes))
    assert (epg.n_units, volume.n_units) == (6, 6)


def test_nothing_is_lost_where_the_highest_f1_has_the_highest_epg(measures):
    rows = measures.rows
    alike = rows.assign(val_epg=rows["val_f1"], epg=rows["f1"])
    found = claims.c5(replace(measures, rows=alike))
    assert found.verdict == FAILS
    assert found.conditions[0].estimate.value == pytest.approx(0)
    much = rows.assign(epg=rows["epg"].where(rows["is_reference"], 3 * rows["epg"]))
    assert claims.c5(replace(measures, rows=much)).conditions[0].verdict == HOLDS


def test_controls_say_what_they_need_and_nothing_of_the_paper(sweep, make_grid, tmp_path):
    found = judge(read_results(sweep(tmp_path, make_grid({}, ()))))
    controls = [finding for finding in found if finding.name.startswith("C")]
    assert [finding.name for finding in controls] == ["C1", "C2", "C3", "C4", "C5"]
    assert {finding.verdict for finding in controls} == {UNKNOWN}
    assert all(finding.needs and not finding.published for finding in controls)
    text = to_text(controls)
    assert "paper" not in text
    assert text.count("needs ") == 5
    assert [f["finding"] for f in json.loads(to_json(controls))] == [f.name for f in controls]


def test_stores_from_before_are_judged_without_what_they_lack(measures):
    """Their test rows know neither swapped backgrounds nor checkpoints judged elsewhere."""
    old = replace(measures, elsewhere=measures.elsewhere.iloc[:0])
    assert claims.c2(old).verdict == UNKNOWN
    assert claims.c3(old).verdict == UNKNOWN
    assert claims.c5(old).conditions == claims.c5(measures).conditions
    assert isinstance(claims.c3(old).detail, pd.DataFrame)
