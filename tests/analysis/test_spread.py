"""Testing on a real Ray: the same rows as in one process, and sentences for what is wrong."""

import pytest

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
    assert problem.endswith(f"lacks the checkpoint {gone}")
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
    with pytest.raises(InputError, match="no Ray cluster at --address"):
        list(run_tests_on_ray(plan_tests(results).jobs, runtime_of(results), {}, "127.0.0.1:1"))
