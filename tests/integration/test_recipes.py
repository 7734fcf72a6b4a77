"""A sweep over training settings, from its plan to its fronts, tables and report, on real Ray."""

import json

import pandas as pd
import pytest

import analysis


@pytest.fixture
def recipes(sweep):
    """Return a sweep over learning rates and over optimisers of the baseline."""
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    sweep["guided"] |= {
        "learning_rate": [1e-3, 1e-4],
        "schedule": "cosine",
        "warmup_epochs": 1,
        "augment": [{"random_resized_crop": {"scale": [0.5, 1]}}],
    }
    sweep["baseline"] |= {"optimizer": ["adam", {"sgd": {"momentum": 0.5}}]}
    return sweep


def test_learning_rates_are_configurations_with_fronts_of_their_own(
    recipes, write, mg_sweep, tmp_path, mg_analysis
):
    path = write(recipes)
    planned = mg_sweep("plan", path).stdout
    assert "10 trials: 2 baseline and 8 guided" in planned
    assert "learning_rate: 0.001 4, 0.0001 4" in planned
    assert "10 complete of 10 trials" in mg_sweep("run", path).stdout
    store = str(tmp_path / "store")
    fronts = analysis.fronts(store)
    own = ["learning_rate", "baseline"]
    assert fronts.groupby("front")[own].nunique().max().max() == 1
    assert fronts["front"].nunique() == 4
    assert set(fronts["augment"]) == {"random_resized_crop(scale=[0.5, 1])"}
    rows = analysis.load(store)
    baselines = rows[rows["kind"] == "baseline"]
    assert set(baselines["optimizer"]) == {"adam", "sgd(momentum=0.5)"}
    assert set(baselines["learning_rate"]) == {1e-3}
    shown = analysis.tables(store)["best"].frame
    assert set(own) <= set(shown)
    assert len(shown.drop_duplicates(own)) == 4
    starts = analysis.tables(store)["baselines"].frame
    assert set(starts["optimizer"]) == {"adam", "sgd(momentum=0.5)"}
    assert "learning_rate" not in starts  # which the baselines share
    mg_analysis("report", store, "--no-test")
    page = (tmp_path / "store" / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "learning rate 0.0001" in page
    status = json.loads(mg_sweep("status", store, "--json").stdout)
    labels = [front["configuration"] for front in status["fronts"]]
    assert len(set(labels)) == 4  # those from another baseline have its id
    for trial in baselines["trial_id"].unique():
        assert sum(label.endswith(f"from {trial[:8]}") for label in labels) == 2


def test_more_learning_rates_extend_a_store(recipes, write, mg_sweep, tmp_path):
    recipes["baseline"]["optimizer"] = "adam"
    recipes["grid"]["loss"] = {"energy": 0.01}
    path = write(recipes)
    mg_sweep("run", path, "--runner", "inline")
    before = analysis.load(str(tmp_path / "store"))
    recipes["grid"]["learning_rate"] = [1e-3, 1e-4, 1e-5]
    path = write(recipes)
    said = mg_sweep("run", path, "--runner", "inline", code=2).stderr
    assert "--extend takes the change: new trials: " in " ".join(said.split())
    mg_sweep("run", path, "--runner", "inline", "--extend")
    after = analysis.load(str(tmp_path / "store"))
    kept = after[after["trial_id"].isin(before["trial_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, kept)
    guided = after[after["kind"] == "guided"]
    assert sorted(guided["learning_rate"].unique()) == [1e-5, 1e-4, 1e-3]


OWN = '''
"""What a user might write: a loss, a schedule and an optimiser."""
import torch

from mg_core.losses import CLASSIFICATION_LOSSES
from mg_core.training.schedule import SCHEDULES


@CLASSIFICATION_LOSSES.register("focal")
def focal(logits, labels, label_smoothing):
    chance = torch.where(labels > 0.5, logits, -logits).sigmoid()
    return ((1 - chance) ** 2 * -chance.log()).mean()


@SCHEDULES.register("inverse")
def inverse(done, span, by=1.0):
    return 1 / (1 + by * done)


class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr, strength=1.0):
        super().__init__(params, {"lr": lr, "strength": strength})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * group["strength"] * p.grad.sign()
'''


def test_what_users_register_trains(sweep, write, mg_sweep, tmp_path):
    (tmp_path / "own_recipe.py").write_text(OWN)
    sweep["imports"] = ["own_recipe"]
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.01}}
    sweep["guided"] |= {
        "classification_loss": "focal",
        "schedule": {"inverse": {"by": 2}},
        "optimizer": {"own_recipe.Signs": {"strength": 0.5}},
    }
    path, environment = write(sweep), {"PYTHONPATH": str(tmp_path)}
    mg_sweep("run", path, "--runner", "inline", **environment)
    rows = analysis.load(str(tmp_path / "store"))
    guided = rows[(rows["kind"] == "guided") & (rows["epoch"] > 0)]
    assert set(guided["classification_loss"]) == {"focal"}
    assert set(guided["optimizer"]) == {"own_recipe.Signs(strength=0.5)"}
    assert (guided["train_bce"] < 0.5).all()
    said = mg_sweep("plan", path, "--set", "guided.optimizer={own_recipe.Signs: {power: 1}}",
                    code=2, **environment).stderr  # fmt: skip
    assert "own_recipe.Signs takes no 'power'; its arguments are lr, strength" in " ".join(
        said.split()
    )


def test_a_sweep_that_stops_early_is_complete(sweep, write, mg_sweep, tmp_path):
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.01}}
    stop = {"metric": "f1", "patience": 1, "min_change": 0.9}
    sweep["guided"] |= {"epochs": 6, "early_stop": stop}
    path, store = write(sweep), str(tmp_path / "store")
    assert "2 complete of 2 trials" in mg_sweep("run", path, "--runner", "inline").stdout
    found = json.loads(mg_sweep("status", store, "--json").stdout)
    assert found["counts"]["complete"] == 2
    assert found["epochs"] == {"done": 2 + 3, "total": 2 + 3}  # of a guided trial 0, 1 and 2
    stopped = {trial["is_stopped_early"]: trial for trial in found["trials"].values()}
    assert (stopped[True]["epoch"], stopped[True]["epochs"]) == (2, 6)
    said = mg_sweep("status", store).stdout
    assert "5 of 5 epochs, in 2 attempts; 1 stopped early" in said
    assert "(0 epochs to run)" in mg_sweep("plan", path).stdout
    before = analysis.load(store)
    mg_sweep("run", path, "--runner", "inline")
    pd.testing.assert_frame_equal(before, analysis.load(store))
    mg_sweep("verify", store)
