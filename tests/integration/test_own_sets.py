"""Sweeps on images of one's own, from files to tested rows."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from exports import WRITERS, photographs

import analysis
import sweeps
from mg_core.data import data_config, open_data
from mg_core.models import build_model
from mg_core.store import ResultStore

GRID = {
    "model": "vanilla_tiny",
    "attribution": "ixg",
    "layer": "input",
    "loss": {"energy": 0.01},
}
STAGE = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("own") / "photographs")


def run(sweep, write, tmp_path, **data):
    sweep["data"] = {"image_size": 24, **data}
    sweep["grid"], sweep["baseline"], sweep["guided"] = GRID, STAGE, STAGE
    store = tmp_path / "store"
    sweeps.run(write(sweep), store=store, runner="inline")
    assert analysis.test(store) == []
    return analysis.load(store).query("kind == 'guided' and epoch == 1").iloc[0]


@pytest.mark.parametrize("name", WRITERS)
def test_a_sweep_runs_to_its_end(name, photos, sweep, write, tmp_path):
    root = tmp_path / "set"
    WRITERS[name](root, photos)
    row = run(sweep, write, tmp_path, name=name, root=str(root))
    assert row["dataset"] == name
    assert row["n_annotated"] == 11  # One of twelve is a negative.
    assert 0 <= row["val_epg"] <= 1
    assert len(analysis.load(tmp_path / "store").query("epoch == 1")) == 2


def test_classes_of_a_list_and_labels_without_boxes(photos, sweep, write, tmp_path):
    root = tmp_path / "set"
    WRITERS["csv"](root, photos)
    table = root / "annotations.csv"
    first, second = (f"pictures/train {number}.jpg" for number in (0, 11))
    lines = [line for line in table.read_text().splitlines() if not line.startswith(first)]
    lines += [f"{first},cat,,,,,train", f"{second},dog,,,,,train"]
    table.write_text("\n".join(lines))
    options = {"classes": ["cat", "dog"], "other_classes": "ignore"}
    row = run(sweep, write, tmp_path, name="csv", root=str(root), options=options)
    split = open_data(data_config("csv", 24, options=options), root).split("train")
    assert split.labels.any(axis=1).sum() > split.located.any(axis=1).sum()
    assert row["n_annotated"] == split.located.any(axis=1).sum()


@pytest.mark.skipif("MG_TEST_DATA" not in os.environ, reason="MG_TEST_DATA names no photographs")
def test_photographs_with_a_limit(sweep, write, tmp_path):
    root = Path(os.environ["MG_TEST_DATA"]) / "voc2007_mini"
    options = {"limit": 16, "classes": ["person", "dog"], "other_classes": "ignore"}
    row = run(sweep, write, tmp_path, name="voc2007", root=str(root), options=options)
    assert 1 <= row["n_annotated"] <= 16


def test_one_label_in_each_image(photos, sweep, write, tmp_path, refused):
    root = tmp_path / "set"
    several = [photo for photo in photos if photo.objects]
    WRITERS["csv"](root, several)
    sweep["data"] = {"name": "csv", "root": str(root), "image_size": 24}
    sweep["grid"] = GRID
    sweep["baseline"] = {**STAGE, "epochs": 4, "classification_loss": "cross_entropy"}
    sweep["guided"] = STAGE
    said = refused("run", write(sweep), "--runner", "inline")
    assert "classification_loss: cross_entropy needs exactly one label in each image, and " in said
    assert not (tmp_path / "store").exists()
    one = [photo._replace(objects=photo.objects[:1]) for photo in several]
    (root / "annotations.csv").unlink()
    shutil.rmtree(root / "pictures")
    WRITERS["csv"](root, one)
    store = tmp_path / "store"
    done = sweeps.run(write(sweep), store=store, runner="inline")
    assert analysis.test(store) == []
    rows = analysis.load(store)
    baseline = rows[rows["kind"] == "baseline"].sort_values("epoch")
    (trial,) = done.grid.baselines
    kept = ResultStore(str(store)).progress(trial)[trial].checkpoints
    best = baseline.loc[baseline["val_accuracy"].idxmax()]  # The first of equal ones.
    assert list(kept) == [best["epoch"]]
    data = open_data(data_config("csv", 24), root)
    model = build_model("vanilla_tiny", 3)
    model.load_state_dict(ResultStore(str(store)).weights(kept[best["epoch"]]))
    split = data.split("val")
    with torch.no_grad():
        logits = model.eval()(model.encode(split.images(range(len(split)))))
    hits = logits.argmax(1).numpy() == split.labels.argmax(1)
    assert best["val_accuracy"] == pytest.approx(hits.mean())
    usual = ["attained", "baselines", "best", "fronts", "gains", "volumes"]
    assert sorted(analysis.tables(store)) == usual  # Table 1 is for data with groups.
