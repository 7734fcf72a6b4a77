"""Tables of whole fronts."""

import pytest

from analysis.claims.measures import Measures, volume_shares
from analysis.results import read_results
from analysis.tabular.volumes import attained, volumes


@pytest.fixture(scope="module")
def results(sweep, make_grid, tmp_path_factory):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy", "l1"), (0, 1, 2))
    return read_results(sweep(tmp_path_factory.mktemp("volumes"), configs))


def test_shares_are_those_that_findings_are_judged_by(results):
    table = volumes(results).frame
    judged = volume_shares(Measures.of(results).guided_there, "epg")
    own = table[table["objectives"] == "F1, EPG"].set_index("loss")["hypervolume_share_mean"]
    for loss in ("energy", "l1"):
        assert own[loss] == pytest.approx(judged[loss].mean())
    assert (table["additive_epsilon_mean"] >= 0).all()
    assert table["hypervolume_sd"].notna().all()


def test_half_of_the_seeds_attain_every_goal(results):
    goals = attained(results).frame
    rows = Measures.of(results).guided_there
    rows = rows[~rows["is_reference"] & (rows["loss"] == "energy")]
    own = goals[(goals["loss"] == "energy") & (goals["objective"] == "EPG")]
    assert len(own)
    for _, goal in own.iterrows():
        reached = rows[(rows["f1"] >= goal["f1"] - 1e-9) & (rows["epg"] >= goal["value"] - 1e-9)]
        assert reached["seed"].nunique() >= 2


def test_nothing_gives_empty_tables(sweep, make_grid, tmp_path):
    for name, models in {"empty": {}, "baseline": {"vanilla_tiny": ()}}.items():
        results = read_results(sweep(tmp_path / name, make_grid(models)))
        assert volumes(results).frame.empty
        assert attained(results).frame.empty
