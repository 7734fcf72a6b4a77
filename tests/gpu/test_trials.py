"""Whole trials on a GPU: the same bits each time, side by side, memory, and what ends them."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from finished import check, table

import analysis
import sweeps
from mg_core.config import EvaluationPair
from mg_core.data import open_data
from mg_core.models import build_model
from mg_core.store import ResultStore
from mg_core.training.evaluation import evaluate
from mg_core.training.interventions import intervene

pytestmark = pytest.mark.gpu
FAMILIES = [
    {"model": "vanilla_tiny", "attribution": ["ixg", "gradcam"]},
    {"model": "xdnn_tiny", "attribution": ["intgrad", "smoothgrad_ixg"]},
    {"model": "bcos_tiny", "attribution": ["bcos", "layercam"]},
    {"model": "vanilla_resnet18", "attribution": ["ixg"]},
]


@pytest.fixture
def sweep(sweep):
    """Return a sweep whose trials share a GPU by two."""
    return sweep | {"resources": {"cpu": 1, "gpu": 0.5}, "device": "cuda"}


@pytest.fixture
def families(sweep):
    """Return a sweep of every family of networks, at the input and at the last layer."""
    place = {"layer": ["input", "final"], "loss": {"energy": 0.01}}
    sweep["grid"] = [family | place for family in FAMILIES]
    return sweep


def run(file, folder, *settings, runner="inline"):
    sweeps.run(file, store=folder, settings=settings, runner=runner)
    return ResultStore(str(folder))


def weights(store):
    return {
        (trial, epoch): bytes(store.get(key))
        for trial, found in store.progress().items()
        for epoch, key in found.checkpoints.items()
    }


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_sweep_gives_the_same_bits_again(families, write, tmp_path, precision):
    families["baseline"]["precision"] = families["guided"]["precision"] = precision
    file = write(families)
    first, second = (run(file, tmp_path / name) for name in ("first", "second"))
    assert table(first).equals(table(second))
    assert weights(first) == weights(second) != {}
    check(first)


def test_two_trials_on_one_gpu_are_what_they_are_alone(families, write, tmp_path):
    pytest.importorskip("ray")
    file = write(families)
    alone = run(file, tmp_path / "alone")
    beside = run(file, tmp_path / "beside", runner="ray")
    assert table(alone).equals(table(beside))
    assert weights(alone) == weights(beside)


def test_memory_is_freed_between_trials(sweep, write, tmp_path):
    sweep["grid"] |= {"model": "vanilla_resnet18", "layer": "input", "attribution": "ixg"}
    run(write(sweep), tmp_path / "first")
    gc.collect()
    held = torch.cuda.memory_allocated()
    run(write(sweep), tmp_path / "second")
    gc.collect()
    assert torch.cuda.memory_allocated() <= held


LIMITED = """
import json, sys, torch, sweeps
file, store, share = json.loads(sys.argv[1])
torch.cuda.set_per_process_memory_fraction(share)
plan = sweeps.run(file, store=store, runner="inline", retry_failed=True)
"""


def test_a_trial_without_memory_is_called_so_and_goes_on(sweep, write, tmp_path):
    sweep["grid"] |= {"attribution": "ixg", "layer": "input", "loss": {"energy": 0.01}}
    sweep["data"] |= {"image_size": 96}
    sweep["data"]["options"] |= {"size": 96}
    file, store = write(sweep), tmp_path / "store"

    def run_with(share):
        request = json.dumps([str(file), str(store), share])
        return subprocess.run(
            [sys.executable, "-c", LIMITED, request], capture_output=True, text=True, check=False
        )

    total = torch.cuda.get_device_properties(0).total_memory
    ended = run_with(8e6 / total)
    kinds = {record.get("kind") for record in ResultStore(str(store)).attempts().values()}
    assert kinds == {"gpu-memory"}, ended.stdout + ended.stderr
    ended = run_with(1.0)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert table(ResultStore(str(store))).equals(table(run(file, tmp_path / "whole")))


def test_metrics_are_those_of_the_cpu():
    data = open_data("shapes", image_size=48, train=8, val=8, test=40, size=48)
    split = data.split("test")
    pairs = [EvaluationPair(attribution=method, layer=layer)
             for method, layer in (("ixg", "input"), ("gradcam", "final"))]  # fmt: skip
    torch.manual_seed(0)
    model = build_model("vanilla_resnet18", len(data.classes))
    by_device = []
    for device in ("cpu", "cuda"):
        model.to(device)
        by_device.append(
            (evaluate(model, split, pairs, device=device),
             intervene(model, split, pairs, device=device))
        )  # fmt: skip
    (cpu, cpu_changed), (gpu, gpu_changed) = by_device
    assert gpu.classification == pytest.approx(cpu.classification, abs=1e-5)
    for pair, scores in cpu.scores.items():
        for name, values in scores.values.items():
            found = gpu.scores[pair].values[name]
            np.testing.assert_allclose(found, values, atol=0.02, err_msg=f"{pair} {name}")
            assert np.mean(np.abs(found - values) > 1e-4) < 0.1, f"{pair} {name}"
    assert gpu_changed.swapped == pytest.approx(cpu_changed.swapped, abs=1e-5)
    for pair, values in cpu_changed.perturbed.items():
        assert gpu_changed.perturbed[pair] == pytest.approx(values, abs=1e-3)


def test_checkpoints_are_tested_on_a_gpu(desk_on_gpu):
    assert analysis.test(desk_on_gpu) == []
    assert ResultStore(str(desk_on_gpu)).test_rows().num_rows > 0


@pytest.fixture
def desk_on_gpu(sweep, write, tmp_path):
    run(write(sweep), tmp_path / "store")
    return tmp_path / "store"
