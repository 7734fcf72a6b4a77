"""Test evaluation: of what validation selects, once, and of nothing else."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from analysis.frame import KEY
from analysis.results import read_results
from analysis.testing.bench import Bench, run_tests, runtime_of
from analysis.testing.plan import plan_tests
from mg_core import metrics
from mg_core.data import data_config, open_data
from mg_core.errors import InputError
from mg_core.models import build_model
from mg_core.training.evaluation import evaluate
from mg_core.training.interventions import intervene


def run_all(store, **options):
    results = read_results(store, **options)
    return list(run_tests(plan_tests(results).jobs, runtime_of(results), n_heatmaps=3))


def keys(frame):
    rows = frame[KEY].astype(object).where(frame[KEY].notna(), None)
    return set(rows.itertuples(index=False, name=None))


def files_below(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_the_selected_and_the_references_are_tested_and_nothing_else(untested):
    assert set(run_all(untested)) == {None}
    results = read_results(untested)
    tested = keys(results.tests)
    (baseline,) = [t for t, config in results.trials.items() if config.kind == "baseline"]
    assert tested == keys(results.selected) | {(baseline, 1, None, None)}
    assert {
        (t, 0, "ixg", layer)
        for t in results.trials
        if t != baseline
        for layer in ("final", "input")
    } < tested
    assert results.n_tested == results.n_selected < results.n_checkpoints == 12
    assert results.tested_sentence == f"tested {results.n_selected} of 12 checkpoints"


def test_rows_are_those_of_a_direct_evaluation(untested):
    run_all(untested)
    results = read_results(untested)
    row = results.tested.query("epoch > 0").iloc[0]
    config = results.trials[row["trial_id"]]
    data = open_data(config.data)
    model = build_model(config.model, len(data.classes))
    model.load_state_dict(
        untested.weights(results.progress[config.trial_id].checkpoints[row["epoch"]])
    )
    direct = evaluate(model, data.split("test"), config.evaluate, config.batch_size)
    (pair,) = [p for p in config.evaluate if p.layer == row["layer"]]
    scores = direct.scores[pair]
    assert row["test_f1"] == direct.classification["f1"]
    assert row["test_epg"] == pytest.approx(scores.values["epg"].mean(), rel=1e-12)
    column = metrics.IOU_THRESHOLDS.index(row["val_iou_threshold"])
    assert row["test_iou"] == pytest.approx(
        scores.values["iou_by_threshold"][:, column].mean(), rel=1e-12
    )
    assert row["test_iou_threshold"] == row["val_iou_threshold"]
    changed = intervene(model, data.split("test"), config.evaluate, config.batch_size)
    for name, value in (changed.swapped | changed.perturbed[pair]).items():
        assert row[f"test_{name}"] == pytest.approx(value, rel=1e-9), name
    by_class = [value for value in row["test_epg_by_class"] if not math.isnan(value)]
    assert len(row["test_epg_by_class"]) == 3
    assert min(by_class) <= row["test_epg"] <= max(by_class)


def test_each_checkpoint_is_loaded_once(untested):
    """Epoch 0 of all guided trials and the baseline itself are one checkpoint."""
    jobs = plan_tests(read_results(untested)).jobs
    assert len({job.weights for job in jobs}) == len(jobs)
    assert len(jobs[0].targets) == 1 + 4 * 2
    assert len(jobs[0].pairs) == 2
    assert all(len(job.targets) == len(job.pairs) for job in jobs[1:])


def test_epoch_zero_says_the_same_of_every_trial_of_a_baseline(untested):
    run_all(untested)
    tests = read_results(untested).tests
    start = tests[(tests["epoch"] == 0)]
    for _, same in start.groupby("layer"):
        assert len(same) == 4
        assert same[["test_f1", "test_epg", "test_iou"]].nunique().eq(1).all()
    baseline = tests[tests["layer"].isna()]
    assert baseline["test_f1"].item() == start["test_f1"].iloc[0]
    assert baseline["test_epg"].isna().all()


def test_what_is_tested_is_not_computed_again(untested):
    run_all(untested)
    before = files_below(untested.uri)
    results = read_results(untested)
    assert plan_tests(results).jobs == ()
    assert run_all(untested) == []
    assert files_below(untested.uri) == before


def test_an_interrupted_run_goes_on_where_it_was(untested):
    results = read_results(untested)
    plan = plan_tests(results)
    running = run_tests(plan.jobs, runtime_of(results))
    next(running), next(running)
    running.close()
    left = plan_tests(read_results(untested)).jobs
    assert [job.weights for job in left] == [job.weights for job in plan.jobs[2:]]
    run_all(untested)
    results = read_results(untested)
    assert results.n_tested == results.n_selected


def test_a_missing_and_a_damaged_checkpoint_are_sentences_and_the_rest_is_tested(untested):
    jobs = plan_tests(read_results(untested)).jobs
    missing, damaged = jobs[1].weights, jobs[2].weights
    (Path(untested.uri) / missing).unlink()
    (Path(untested.uri) / damaged).write_bytes(b"torn")
    problems = [problem for problem in run_all(untested) if problem]
    assert len(problems) == 2
    assert problems[0] == f"checkpoint {missing} of {untested.uri!r} is missing"
    assert problems[1].startswith(f"checkpoint {damaged} is damaged")
    results = read_results(untested)
    assert results.n_tested == results.n_selected - 2


def test_checkpoints_that_other_objectives_select_are_listed(untested):
    """Weights are kept for the sweep's objectives; others may select an epoch without any."""
    results = read_results(untested)
    trial, epoch = results.selected.query("epoch > 0").iloc[0][["trial_id", "epoch"]]
    del results.progress[trial].checkpoints[epoch]
    plan = plan_tests(results)
    assert plan.without_weights == ((trial, epoch),)
    assert f"kept no weights of 1 selected checkpoints ({trial} epoch {epoch})" in plan.unkept
    assert (trial, epoch) not in {(t.trial_id, t.epoch) for job in plan.jobs for t in job.targets}


def test_other_data_than_the_sweeps_are_refused(untested):
    folder = next((Path(untested.uri) / "data").iterdir())
    for recorded in folder.iterdir():
        recorded.rename(folder / "0000")
    with pytest.raises(InputError, match="differ from those this sweep was started with"):
        run_all(untested)


def test_a_test_split_without_labels_is_refused(untested, tmp_path):
    results = read_results(untested)
    job = plan_tests(results).jobs[0]
    names = open_data(job.config.data).classes
    for split, colour in (("train", "red"), ("val", "blue"), ("test", "green")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{split}.png")
    rows = [f"{s}.png,{name},1,1,9,9,{s}" for name in names for s in ("train", "val")]
    (tmp_path / "annotations.csv").write_text(
        "path,class,xmin,ymin,xmax,ymax,split\n" + "\n".join([*rows, "test.png,,,,,,test"])
    )
    own = data_config("csv", 32, options={"classes": ",".join(names)})
    job = replace(job, config=job.config.model_copy(update={"data": own}))
    with pytest.raises(InputError, match="no image of the test split has a label, so no model"):
        list(run_tests([job], runtime_of(results, str(tmp_path))))


def test_too_little_memory_is_a_sentence_and_the_rest_is_tested(untested, monkeypatch):
    jobs = plan_tests(read_results(untested)).jobs
    real, errors = Bench._write_rows, [MemoryError(), allocated]

    def short(bench, job, *of):
        if errors:
            error = errors.pop()
            raise error if isinstance(error, MemoryError) else error()
        return real(bench, job, *of)

    monkeypatch.setattr(Bench, "_write_rows", short)
    problems = [problem for problem in run_all(untested) if problem]
    assert problems == [
        f"checkpoint {job.weights}: this machine has too little memory free to test it"
        for job in jobs[:2]
    ]


def allocated():
    """Return what PyTorch raises where a CPU has too little memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


def test_results_of_other_numerics_are_not_mixed(untested):
    results = read_results(untested)
    (job, *_) = plan_tests(results).jobs
    old = replace(job, config=job.config.model_copy(update={"numerics": 99}))
    with pytest.raises(InputError, match="numerics version 99"):
        list(run_tests([old], runtime_of(results)))


def test_runtime_is_the_sweeps_unless_told_otherwise(demo):
    results = read_results(demo)
    results.spec.update({"data": {"root": "/a", "cache": "/c"}, "resources": {"cpu": 2.5}})
    runtime = runtime_of(results)
    assert (runtime.data_root, runtime.cache, runtime.threads) == ("/a", "/c", 2)
    assert runtime_of(results, "/b", "cpu").data_root == "/b"
    results.spec["resources"] = {"cpu": 0.5}
    assert runtime_of(results).threads == 1
