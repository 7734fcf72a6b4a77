"""What `mg-sweep check` finds before anything is spent, and what a run refuses by itself."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import sweeps
from mg_core.data import open_data
from mg_core.guidance.rehearsal import noise_batch, rehearse
from mg_core.models import build_model
from mg_core.testing import check_module
from mg_core.training.measured import Measured
from mg_core.training.measurement import measure_apart, measure_together
from sweeps.check import Check, check, places_of
from sweeps.check_view import check_view, recalled_lines
from sweeps.grid import expand
from sweeps.machine import Machine
from sweeps.spec import ResourceSpec, load_spec

OWN = '''
import torch
from torch import nn
from mg_core.losses import LOSSES
from mg_core.models import MODELS, Model

@LOSSES.register("no_gradient")
def no_gradient(attributions, masks):
    return (attributions.detach() * ~masks).mean((1, 2))

@LOSSES.register("root")
def root(attributions, masks):
    return attributions.sum((1, 2)).sqrt()

@MODELS.register("aside")
class Aside(Model):
    """Its layer `mid1` takes part in the forward pass, and no path leads from it to the logits."""

    guidance_layers = {"mid1": "aside", "final": "body"}

    def __init__(self, num_classes):
        super().__init__()
        self.body, self.aside = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, inputs):
        self.aside(inputs)
        return self.fc(nn.functional.gelu(self.body(inputs)).mean((2, 3)))
'''

FOUND = Measured(
    device="cpu",
    step_seconds=1.0,
    image_seconds=0.0,
    commit_seconds=2.0,
    n_steps=3,
    n_images=12,
    memory_bytes=10**9,
    weights_bytes=100,
    state_bytes=300,
)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own_variants.py").write_text(OWN)
    return {"PYTHONPATH": str(tmp_path)}


def test_a_check_of_the_grid_says_what_it_takes(sweep, write, mg_sweep, tmp_path):
    file = write(sweep)
    assert "as measured" not in mg_sweep("plan", file).stdout
    said = mg_sweep("check", file, "--exact").stdout
    rows = [line for line in said.splitlines() if "of 1 work" in line]
    assert len(rows) == 4  # gradcam and ixg at input and final
    errors = [float(found) for found in re.findall(r"\d+e-\d+", said)]
    assert len(errors) == 4
    assert max(errors) < 1e-3
    assert "decoded data: 0.1 MB in the cache" in said
    assert re.search(r"fits? side by side on this machine: resources: \{cpu: 1, memory_gb:", said)
    assert not (tmp_path / "store").exists()
    assert "as measured on cpu: what is left takes about" in mg_sweep("plan", file).stdout


def test_combinations_that_cannot_work_are_named_and_a_run_refuses_them(
    sweep, write, mg_sweep, own, tmp_path
):
    sweep["imports"] = ["own_variants"]
    sweep["grid"] = {
        "model": ["aside", "vanilla_tiny"],
        "attribution": "gradcam",
        "layer": ["mid1", "final"],
        "loss": {"energy": 0.1, "no_gradient": 0.1},
    }
    said = " ".join(mg_sweep("check", write(sweep), code=1, **own).stdout.split())
    problem = "energy: layer 'mid1' of Aside has no influence on the logits"
    assert f"cannot work: aside gradcam@mid1 lr0.001 b8, {problem}" in said
    assert "gradcam@final lr0.001 b8, no_gradient: the loss does not depend on the maps" in said
    assert "aside gradcam@final lr0.001 b8, energy" not in said
    said = " ".join(mg_sweep("run", write(sweep), code=2, **own).stderr.split())
    assert f"error: grid: aside gradcam@mid1, {problem}" in said
    assert not (tmp_path / "store" / "attempts").exists()
    sweep["grid"] |= {"model": "aside", "layer": "final", "loss": {"energy": 0.1}}
    assert "2 complete" in mg_sweep("run", write(sweep), "--runner", "inline", **own).stdout


def test_contracts_of_ones_own_variants(sweep, write, mg_sweep, own):
    said = mg_sweep("check", "--contracts", "own_variants", code=1, **own).stdout
    assert "loss 'no_gradient'" in said
    assert "loss 'root' of ordinary maps is not finite" in said
    assert "model 'aside': layer 'mid1' of Aside has no influence on the logits" in said
    with pytest.raises(Exception, match="module 'json' registers no loss"):
        check_module("json")
    said = mg_sweep("check", "--contracts", "my_loses", code=2).stderr
    assert said.startswith("error: --contracts: module 'my_loses' cannot be imported")


def test_an_interrupted_check_does_not_promise_to_go_on(sweep, write, command, tmp_path):
    sweep["data"]["options"] |= {"train": 2000}
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [*command, "check", str(write(sweep))],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MG_CACHE": str(cache)},
    ) as started:
        while not cache.exists():  # It begins with the images.
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        said = started.communicate()[1]
    assert started.returncode == 130
    assert "interrupted; nothing was trained, and the next check begins anew" in said


def test_what_is_measured_is_what_a_run_takes(sweep, write, tmp_path):
    # Large enough that a trial is more than its beginning and its end.
    sweep["data"] |= {
        "image_size": 48,
        "options": {"train": 200, "val": 100, "test": 8, "size": 48},
    }
    sweep["guided"]["epochs"] = 3
    sweep["grid"] |= {"attribution": "ixg", "layer": "input", "loss": {"energy": 0.01}}
    spec = load_spec(write(sweep), (), str(tmp_path / "store"))
    found = check(spec)
    # Not `ru_maxrss`, which on Linux begins at what the process held that started this one.
    program = (
        "import sys, sweeps, torch; sweeps.run(sys.argv[1], store=sys.argv[2], runner='inline');"
        "from mg_core.training.measurement import peak_memory;"
        "print(peak_memory(torch.device('cpu')))"
    )
    arguments = [sys.executable, "-c", program, str(write(sweep)), str(tmp_path / "store")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert found.memory_bytes == pytest.approx(int(done.stdout.splitlines()[-1]), rel=0.15)
    seconds = sum(p.seconds for p in sweeps.plan(spec).ledger.progress.values())
    # A busy machine may slow either; tests/benchmarks/check_accuracy.py compares them closely.
    assert 0.3 < found.trial_seconds / seconds < 3


def test_automatic_resources_are_measured_ones(sweep, write, mg_sweep, tmp_path):
    sweep["resources"] = "auto"
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.01}}
    said = " ".join(mg_sweep("run", write(sweep)).stdout.split())
    stored = load_spec(str(tmp_path / "store"), ())
    assert stored.resources.cpu == 1
    line = f"resources: auto takes {{cpu: 1, memory_gb: {stored.resources.memory_gb:g}}}: the "
    assert f"{line}largest trial holds " in said
    assert 0.2 < stored.resources.memory_gb < 4
    said = mg_sweep("run", write(sweep), "--address", "127.0.0.1:1", code=2).stderr
    assert "resources: auto measures this machine" in said


def test_resources_of_machines():
    gpus = Machine(cpus=16, memory=128 * 10**9, gpus=(80 * 10**9, 80 * 10**9))
    assert gpus.fitting(9 * 10**9, threads=1) == 8  # 16 CPUs for two GPUs
    assert gpus.resources(9 * 10**9, threads=1) == ResourceSpec(cpu=1, gpu=0.125)
    assert gpus.fitting(30 * 10**9, threads=2) == 2
    assert gpus.resources(30 * 10**9, threads=2) == ResourceSpec(cpu=2, gpu=0.5)
    assert gpus.fitting(100 * 10**9, threads=1) == 1
    assert gpus.room(ResourceSpec(cpu=2, gpu=0.5)) == 4
    small = Machine(cpus=4, memory=8 * 10**9)
    assert small.fitting(3 * 10**9, threads=1) == 2
    assert small.room(small.resources(3 * 10**9, threads=1)) == 2


def test_places_hold_all_trials_and_epochs(sweep, write):
    grid = expand(load_spec(write(sweep), ()))
    places = places_of(grid)
    assert sum(place.n_trials for place in places) == len(grid.trials)
    assert sum(place.n_epochs for place in places) == sum(c.epochs for c in grid.trials.values())
    assert [len(place.losses) for place in places] == [0, 1, 1, 1, 1]


def test_guided_trials_wait_for_their_baselines(sweep, write):
    spec = load_spec(write(sweep), ())
    grid = expand(spec)
    found = Check(spec, grid, Machine(cpus=8, memory=64 * 10**9))
    for number, _ in enumerate(found.places):
        found.measured[number] = FOUND
    # Two epochs of five seconds each, and of a guided trial also epoch 0.
    assert found.trial_seconds == 10 + 8 * 12
    assert found.sweep_seconds == 10 + 12
    found.machine = Machine(cpus=3, memory=64 * 10**9)
    assert found.sweep_seconds == 10 + 3 * 12  # Eight trials are two full rounds and a third.
    assert found.store_bytes == (9 * 400, 9 * 300 + 100 + 16 * 100)


def test_a_plan_counts_what_is_left(sweep, write):
    grid = expand(load_spec(write(sweep), ()))
    found = Check(load_spec(write(sweep), ()), grid, Machine(cpus=8, memory=64 * 10**9), left={})
    found.measured = {number: FOUND for number in range(len(found.places))}
    assert found.trial_seconds == found.sweep_seconds == 0
    assert "nothing is left, and all trials take" in recalled_lines(found)[0]
    one, two, *_ = grid.guided
    left = {one: 1, two: 3}  # Epochs; of the second trial epoch 0 too.
    found = Check(found.spec, grid, found.machine, left=left)
    found.measured = {number: FOUND for number in range(len(found.places))}
    assert found.seconds == {one: 5, two: 12}
    assert found.sweep_seconds == 12


def test_trials_that_share_a_device_take_longer(sweep, write):
    spec = load_spec(write(sweep), ())
    found = Check(spec, expand(spec), Machine(cpus=4, memory=64 * 10**9))
    found.measured = {number: FOUND for number in range(len(found.places))}
    assert (found.at_a_time, found.on_a_device) == (4, 4)
    assert found.sweep_seconds == 10 + 2 * 12
    found.slowdown = 1.5  # The only baseline has the machine for itself.
    assert found.sweep_seconds == 10 + 2 * 12 * 1.5
    assert "4 trials side by side on this machine take 1.50 times as long" in _shown(found)
    found.machine = Machine(cpus=4, memory=64 * 10**9, gpus=(8 * 10**9, 8 * 10**9))
    assert found.on_a_device == 2
    found.machine = Machine(cpus=4, memory=2 * 10**9)
    assert found.on_a_device == 1


def test_trials_are_measured_side_by_side(sweep, write):
    spec = load_spec(write(sweep), ())
    (config,) = expand(spec).baselines.values()
    alone = measure_apart(config, spec.runtime()).step_seconds
    # Another process may take the cores of either.
    assert 0.05 < measure_together(config, spec.runtime(), 2) / alone < 50


def _shown(found):
    console = Console(width=200, record=True)
    console.print(check_view(found))
    return console.export_text()


def test_a_plan_forgets_what_other_data_or_other_code_showed(sweep, write, mg_sweep, own, tmp_path):
    root = tmp_path / "data"
    shapes = open_data("shapes", root, image_size=24, train=24, val=12, test=8, size=24)
    sweep["data"] = {"name": "voc2007", "root": str(root / "VOCdevkit"), "image_size": 24}
    sweep["data"]["options"] = {"classes": list(shapes.classes)}
    sweep["imports"] = ["own_variants"]
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    sweep["grid"]["loss"] = {"no_gradient": 0.1, "energy": 0.1}
    file = write(sweep)
    mg_sweep("check", file, code=1, **own)
    said = mg_sweep("plan", file, **own).stdout
    assert "mg-sweep check found that this cannot work: vanilla_tiny gradcam@final" in said
    assert "no_gradient: the loss does not depend on the maps\n" in said
    assert "what is left takes about" in said
    image = next(root.rglob("JPEGImages/*"))
    before = image.read_bytes()
    image.write_bytes(before + b" ")
    said = mg_sweep("plan", file, **own).stdout
    assert "the data have changed since mg-sweep check; it measures again" in said
    assert "takes about" not in said
    image.write_bytes(before)
    assert "cannot work" in mg_sweep("plan", file, **own).stdout
    (tmp_path / "own_variants.py").write_text(OWN.replace(".detach()", ""))
    said = mg_sweep("plan", file, **own).stdout
    assert "cannot work" not in said
    assert "takes about" not in said


def test_a_box_without_energy_is_no_hopeless_loss():
    torch.manual_seed(0)
    network = build_model("vanilla_tiny", 3)
    batch = noise_batch(network, 32, 3)
    nowhere = replace(batch, masks=torch.zeros_like(batch.masks))
    assert not rehearse(network, nowhere, "gradcam", "input", ["energy", "l1"]).problems


def test_memory_is_counted_without_that_of_the_parent():
    program = (
        "from mg_core.training.measurement import forget_peak, peak_memory; import torch;"
        "forget_peak(); print(peak_memory(torch.device('cpu')))"
    )
    parent = (
        "import subprocess, sys; kept = bytearray(3 * 10**9);"
        f"subprocess.run([sys.executable, '-c', {program!r}], check=True)"
    )
    found = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True)
    assert 10**8 < int(found.stdout) < 2 * 10**9, found.stderr


def test_a_rehearsal_changes_nothing_of_the_network():
    torch.manual_seed(0)
    network = build_model("vanilla_tiny", 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = noise_batch(network, 32, 3)
    found = rehearse(network, batch, "ixg", "input", ["energy", "l1"], exact=True)
    assert found.map_size == (32, 32)
    assert not found.problems
    assert set(found.errors) == {"energy", "l1"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
