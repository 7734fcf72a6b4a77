"""Heat maps: what is stored is what the model says, and what is drawn is what is stored."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.heatmaps import HeatMap
from analysis.page.explorer import explorer_data
from analysis.plots import drawings, render
from analysis.plots.cells import epg_of
from analysis.results import read_results
from analysis.testing.bench import Bench, run_tests, runtime_of
from analysis.testing.plan import plan_tests
from mg_core.attributions import attribute, upsample
from mg_core.attributions.overlay import overlay
from mg_core.config import DataConfig, EvaluationPair
from mg_core.data import open_data
from mg_core.data.drawn.birds import BirdsOptions, write_birds
from mg_core.metrics import epg
from mg_core.models import build_model
from mg_core.store import ResultStore
from mg_core.training.heatmaps import heat_maps, shown_images

PAIR = EvaluationPair(attribution="ixg", layer="final")


def loaded(results, trial_id, epoch):
    return results.heatmaps.load(results.heatmaps.key(trial_id, epoch, PAIR))


@pytest.fixture
def tested(untested):
    list(run_tests(plan_tests(read_results(untested)).jobs, runtime_of(read_results(untested)), 3))
    return read_results(untested)


@pytest.fixture(scope="module")
def split():
    options = {"train": 8, "val": 8, "test": 60, "size": 32, "classes": 4}
    config = DataConfig(name="shapes", image_size=32, horizontal_flip=False, options=options)
    return open_data(config).split("test")


def test_what_is_stored_is_what_the_model_says(tested):
    row = tested.selected.query("epoch > 0 and layer == 'final'").iloc[0]
    maps = loaded(tested, row["trial_id"], int(row["epoch"]))
    assert len(maps) == 3
    config = tested.trials[row["trial_id"]]
    data = open_data(config.data)
    split = data.split("test")
    model = build_model(config.model, len(data.classes)).eval()
    key = tested.progress[config.trial_id].checkpoints[row["epoch"]]
    model.load_state_dict(tested.store.weights(key))
    for found in maps:
        index, class_id = split.ids.index(found.image), split.classes.index(found.class_name)
        inputs = model.encode(split.images([index]))
        direct = upsample(attribute(model, inputs, torch.tensor([class_id]), "ixg", "final"), 32)[0]
        assert np.abs(found.map - (direct / direct.abs().max()).numpy()).max() < 1e-3
        assert found.probability == pytest.approx(model(inputs)[0, class_id].sigmoid().item(), 1e-4)
        mask = split.masks([index], [class_id])
        assert epg_of(found) == pytest.approx(epg(direct[None], mask).item(), abs=2e-3)
        picture = split.images([index])[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found.picture.astype(int) - picture).mean() < 8  # JPEG


def test_epoch_zero_shows_the_baselines_maps(tested):
    guided = [t for t, config in tested.trials.items() if config.baseline]
    before = [loaded(tested, trial, 0) for trial in guided]
    assert all(len(maps) == 3 for maps in before)
    assert all((maps[0].map == before[0][0].map).all() for maps in before)
    (epoch,) = {e for t, e, _ in tested.heatmap_keys if t == tested.trials[guided[0]].baseline}
    assert epoch == 1


def test_images_are_the_same_for_every_count_and_classes_differ(split):
    many = shown_images(split, 12)
    assert shown_images(split, 5) == many[:5]
    assert len({class_id for _, class_id in many[:4]}) == 4
    assert len({index for index, _ in many}) == 12
    assert all(len(split.boxes(index, class_id)) for index, class_id in many)
    assert len(shown_images(split, 1000)) <= len(split)


def test_groups_are_all_shown(tmp_path):
    write_birds(tmp_path / "data", BirdsOptions(train=10, val=10, test=40, size=24))
    config = DataConfig(name="waterbirds100", image_size=24, horizontal_flip=False, options={})
    split = open_data(config, str(tmp_path / "data"), str(tmp_path / "cache")).split("test")
    assert {int(split.groups[index]) for index, _ in shown_images(split, 4)} == {0, 1, 2, 3}
    model = build_model("vanilla_tiny", 2)
    ((row, *_),) = heat_maps(model, split, shown_images(split, 4), [PAIR]).values()
    assert 0 <= row["probability"] <= 1
    assert row["prediction"] in split.classes


def test_no_images_no_maps(split):
    model = build_model("vanilla_tiny", 4)
    assert heat_maps(model, split, [], [PAIR]) == {PAIR: []}


def test_maps_that_are_not_finite_are_said_and_not_stored(untested):
    results = read_results(untested)
    bench = Bench(runtime_of(results), 3)
    jobs = plan_tests(results).jobs
    # The gradient of a root at zero is infinite, and the logits stay finite.
    model = bench._model(jobs[0].config, 3)
    model.conv1.register_forward_pre_hook(lambda conv, x: ((x[0].abs() - x[0]).sqrt(),))
    said = [bench.test(job) for job in jobs]
    (at_input,) = {str(pair) for job in jobs for pair in job.shown if pair.layer == "input"}
    ending = f"gives maps that are not finite: {at_input}"
    assert [bool(s and s.endswith(ending)) for s in said] == ["input" in str(j.shown) for j in jobs]
    assert {name for *_, name in untested.heatmap_keys()} == {"ixg@final"}
    assert len(untested.test_rows()) > 0


def test_the_drawing_is_strong_where_the_map_is():
    values = np.zeros((8, 8), np.float32)
    values[2:4, 2:4] = 1.0
    values[6, 6] = -1.0
    picture = np.full((8, 8, 3), 128, np.uint8)
    found = HeatMap("i", "c", 0.5, "c", np.array([[2.0, 2, 4, 4]]), values, picture)
    drawn = overlay(picture, values).astype(int)
    redness = drawn[..., 0] - drawn[..., 1]
    assert (redness[2:4, 2:4] > 100).all()
    redness[2:4, 2:4] = 0
    assert (redness == 0).all()
    empty = overlay(picture, 0 * values)
    assert (empty == empty[0, 0]).all()
    assert epg_of(found) == 1.0
    assert epg_of(found, is_outside=True) == 0.0
    assert epg_of(replace(found, map=0 * values), is_outside=True) == 0.0


def test_figures_of_maps_are_drawn_and_their_data_named(tested):
    (figure,) = drawings(tested, ["fig2"])
    data = figure.data
    labels = ["image", "IxG @ Final\nbefore", "IxG @ Final\nguided"]
    assert list(dict.fromkeys(data["column_label"])) == labels
    assert data.groupby("row").size().eq(3).all()
    assert data["row"].nunique() == 3
    png = render(figure, ["png"])["png"]
    assert png == render(figure, ["png"])["png"]
    assert len(png) > 10_000
    assert "before and after guidance" in figure.caption


def test_a_figure_is_drawn_from_its_data_alone(tested):
    (figure,) = drawings(tested, ["fig2"])
    png = render(figure, ["png"])
    shutil.rmtree(Path(tested.store.uri) / "heatmaps")
    assert render(figure, ["png"]) == png
    columns = figure.csv().splitlines()[0].split(",")
    assert set(figure.data) - set(columns) == {"heat_map", "pixels", "boxes"}


def test_a_report_reads_every_file_of_heat_maps_once(tested, monkeypatch):
    read = Counter()
    monkeypatch.setattr(
        ResultStore,
        "heatmaps",
        lambda store, *key, own=ResultStore.heatmaps: read.update([key]) or own(store, *key),
    )
    for drawing in [*drawings(tested), *drawings(tested, ["fig2"])]:
        render(drawing, ["png"])
    seen = set(read)
    data = explorer_data(tested)
    assert len(data["strips"]) > len(seen) > 0
    assert set(read.values()) == {1}
    assert set(read) <= tested.heatmap_keys


def test_two_processes_that_test_at_once_lose_no_rows(untested):
    results = read_results(untested)
    jobs = plan_tests(results).jobs
    one = run_tests(jobs, runtime_of(results), 1)
    other = run_tests(list(reversed(jobs)), runtime_of(results), 1)
    for _ in jobs:
        next(one), next(other)
    results = read_results(untested)
    assert results.n_tested == results.n_selected
    assert not results.tests.duplicated(["trial_id", "epoch", "attribution", "layer"]).any()
    assert plan_tests(results).jobs == ()


def test_maps_that_are_missing_are_made_without_testing_again(tested):
    trial, epoch, name = sorted(tested.heatmap_keys)[0]
    tested.store.files.delete([f"heatmaps/{trial}/{epoch:04d}-{name}.parquet"])
    (job,) = plan_tests(read_results(tested.store)).jobs
    assert job.targets == ()
    assert [str(pair) for pair in job.shown] == [name]
    assert plan_tests(read_results(tested.store), with_heatmaps=False).jobs == ()
