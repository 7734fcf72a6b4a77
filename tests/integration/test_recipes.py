"""A sweep over training settings, from its plan to its fronts, tables and report, on real Ray."""

import os
import subprocess
import sys

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
    recipes, write, mg_sweep, tmp_path
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
    program = "import sys; sys.argv[0] = 'mg-analysis'; from analysis.cli import main; main()"
    command = [sys.executable, "-c", program, "report", store, "--no-test"]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    page = (tmp_path / "store" / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "learning rate 0.0001" in page


def test_more_learning_rates_extend_a_store(recipes, write, mg_sweep, tmp_path):
    recipes["baseline"]["optimizer"] = "adam"
    recipes["grid"]["loss"] = {"energy": 0.01}
    path = write(recipes)
    mg_sweep("run", path, "--runner", "inline")
    before = analysis.load(str(tmp_path / "store"))
    recipes["grid"]["learning_rate"] = [1e-3, 1e-4, 1e-5]
    path = write(recipes)
    said = mg_sweep("run", path, "--runner", "inline", code=2).stderr
    assert "--extend adds what is new" in " ".join(said.split())
    mg_sweep("run", path, "--runner", "inline", "--extend")
    after = analysis.load(str(tmp_path / "store"))
    kept = after[after["trial_id"].isin(before["trial_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, kept)
    guided = after[after["kind"] == "guided"]
    assert sorted(guided["learning_rate"].unique()) == [1e-5, 1e-4, 1e-3]
