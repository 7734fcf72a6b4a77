"""Testing on a real Ray: the same rows as in one process, and sentences for what is wrong."""

import os
import signal
import sys

import pytest
import yaml

from analysis import pipeline
from analysis.results import read_results
from analysis.testing.bench import run_tests, runtime_of
from analysis.testing.plan import plan_tests
from analysis.testing.spread import run_tests_on_ray
from mg_core.errors import InputError
from mg_core.store import ResultStore


@pytest.fixture(scope="module")
def in_one_process(trained, tmp_path_factory):
    import shutil

    copy = tmp_path_factory.mktemp("inline") / "store"
    shutil.copytree(trained.uri, copy)
    results = read_results(str(copy))
    list(run_tests(plan_tests(results).jobs, runtime_of(results), 2))
    return read_results(str(copy))


def test_rows_are_those_of_one_process(untested, in_one_process):
    results = read_results(untested)
    jobs = plan_tests(results).jobs
    gone = jobs[-1].weights
    untested.files.delete([gone])
    found = list(run_tests_on_ray(jobs, runtime_of(results), {"cpu": 1}, n_heatmaps=2))
    (problem,) = [sentence for sentence in found if sentence]
    assert problem.startswith(f"checkpoint {gone} of ")
    after = read_results(ResultStore(untested.uri))
    key = ["trial_id", "epoch", "attribution", "layer"]
    here = after.tests.sort_values(key, ignore_index=True)
    there = in_one_process.tests.merge(here[key], on=key).sort_values(key, ignore_index=True)
    assert len(here) == len(in_one_process.tests) - len(jobs[-1].targets)
    assert here.drop(columns=["test_iou_by_threshold", *_lists(here)]).equals(
        there.drop(columns=["test_iou_by_threshold", *_lists(there)])
    )
    assert after.heatmap_keys < in_one_process.heatmap_keys
    with pytest.raises(InputError, match=r"asks for 2 GPU per checkpoint.*has 0"):
        list(run_tests_on_ray(jobs, runtime_of(results), {"cpu": 1, "gpu": 2}))


def _lists(frame):
    return [name for name in frame if name.endswith(("by_class", "by_box_size"))]


def test_no_cluster_is_a_sentence(untested):
    results = read_results(untested)
    with pytest.raises(InputError, match="no Ray cluster at"):
        list(run_tests_on_ray(plan_tests(results).jobs, runtime_of(results), {}, "127.0.0.1:1"))


FATAL = """
import os, pathlib, signal
from mg_core.store import ResultStore

weights = ResultStore.weights

def deadly(self, key, digest=None):
    if key == os.environ["MG_TEST_FATAL"]:
        with open(os.environ["MG_TEST_PIDS"], "a") as file:
            print(os.getpid(), file=file)
        os.kill(os.getpid(), signal.SIGKILL)
    return weights(self, key, digest)

ResultStore.weights = deadly
"""
"""A module of the user's own whose process ends on one checkpoint, as if it were killed."""


@pytest.fixture
def fatal(untested, tmp_path, monkeypatch):
    """Return the key of a checkpoint on which every process that loads it is killed."""
    (tmp_path / "fatal_checkpoint.py").write_text(FATAL)
    key = plan_tests(read_results(untested)).jobs[1].weights
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MG_TEST_FATAL", key)
    monkeypatch.setenv("MG_TEST_PIDS", str(tmp_path / "pids"))
    untested.put_spec(yaml.safe_dump(untested.spec() | {"imports": ["fatal_checkpoint"]}))
    return key


def test_a_killed_worker_is_a_sentence_and_the_others_go_on(
    untested, fatal, tmp_path, monkeypatch, capsys
):
    from analysis.cli import app
    from mg_core.cli import run

    monkeypatch.setattr("analysis.testing.spread.RETRIES", 1)
    left = len(plan_tests(read_results(untested)).jobs)
    found = pipeline.report(untested, testing=pipeline.Testing(runner="ray", heatmaps=2))
    sentence = f"checkpoint {fatal}: the process that tests it was lost, 2 times"
    assert found.problems == (sentence,)
    assert len(set((tmp_path / "pids").read_text().split())) == 2
    assert sentence in found.path.read_text(encoding="utf-8")
    after = plan_tests(read_results(ResultStore(untested.uri))).jobs
    assert left > 2
    assert [job.weights for job in after] == [fatal]
    arguments = ["mg-analysis", "test", untested.uri, "--runner", "ray"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        run(app)
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"not tested: {sentence}"


def test_a_worker_without_memory_is_a_sentence(untested, monkeypatch):
    monkeypatch.setattr("analysis.testing.spread.RETRIES", 1)
    # Ray's monitor ends workers as soon as the machine uses this share of its memory.
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.0001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    results = read_results(untested)
    jobs = plan_tests(results).jobs[:1]
    (problem,) = run_tests_on_ray(jobs, runtime_of(results), {"cpu": 1}, n_heatmaps=2)
    assert problem == f"checkpoint {jobs[0].weights}: its machine ran out of memory, 2 times"


def test_a_temporary_folder_that_ray_cannot_use_is_a_sentence(untested, tmp_path, monkeypatch):
    results = read_results(untested)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="RAY_TMPDIR: no temporary file can be written in"):
        list(run_tests_on_ray(plan_tests(results).jobs, runtime_of(results), {}))
    found = pipeline.report(untested, testing=pipeline.Testing(runner="ray"))
    (problem,) = found.problems
    assert problem.startswith("RAY_TMPDIR: no temporary file can be written in")
    assert "RAY_TMPDIR: no temporary file can be written in" in found.path.read_text("utf-8")


def test_a_lost_cluster_is_a_sentence_for_each_checkpoint(untested, monkeypatch):
    import ray

    monkeypatch.setattr("analysis.testing.spread.PATIENCE", 1.0)
    results = read_results(untested)
    jobs = plan_tests(results).jobs
    found = run_tests_on_ray(jobs, runtime_of(results), {"cpu": 1}, n_heatmaps=2)
    assert next(found) is None
    raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGKILL)
    sentences = list(found)
    assert len(sentences) == len(jobs) - 1
    assert sentences[-1].endswith(": the Ray cluster was lost")
