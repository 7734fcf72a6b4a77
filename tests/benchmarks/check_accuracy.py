"""What `mg-sweep check` expects and what a run takes: `python tests/benchmarks/check_accuracy.py`.

Each trial runs by itself, in a process of its own as a Ray worker is; with `--ray` a sweep of two
guided trials runs side by side, too. Ratios are of the run over the check. A busy machine slows
either side, so repeat what looks wrong.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

import sweeps
from mg_core.store import ResultStore
from sweeps.check import check
from sweeps.planning import admit, make_plan
from sweeps.spec import load_spec
from tests.conftest import SWEEP

MODELS = {"vanilla_tiny": 64, "bcos_tiny": 64, "vanilla_resnet18": 96}
"""Models with the side of their images."""
TRIAL = """
import json, sys, torch
from mg_core.config import Runtime, TrialConfig
from mg_core.training.execution import run_trial
from mg_core.training.measurement import peak_memory
config, runtime = map(json.dumps, json.load(sys.stdin))
trial = TrialConfig.model_validate_json(json.loads(config))
*_, end = run_trial(trial, Runtime.model_validate_json(json.loads(runtime)))
device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
print(json.dumps([end.state, end.seconds, peak_memory(device)]))
"""


def sweep_of(model: str, size: int) -> dict[str, object]:
    """Return a sweep of one baseline and one guided trial that take some minutes at most."""
    content = copy.deepcopy(SWEEP)
    content["data"] = {
        "name": "shapes",
        "image_size": size,
        "options": {"train": 200, "val": 100, "test": 8, "size": size},
    }
    content["baseline"] |= {"batch_size": 16}
    content["guided"] |= {"batch_size": 16}
    content["grid"] |= {"model": model, "attribution": "gradcam", "layer": "input"}
    content["grid"] |= {"loss": {"energy": 0.01}}
    return content


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=MODELS, help="only these; repeatable")
    parser.add_argument("--ray", action="store_true", help="a whole sweep on Ray, too")
    arguments = parser.parse_args()
    print(f"{'trial':48} {'seconds':>8} {'ratio':>6} {'MB':>6} {'ratio':>6}")
    for model in arguments.model or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            measure(model, Path(folder))
        if arguments.ray:
            with tempfile.TemporaryDirectory() as folder:
                measure_sweep(model, Path(folder))


def measure_sweep(model: str, folder: Path) -> None:
    """Check a sweep of two guided trials, run it on Ray, and print both sides."""
    content = sweep_of(model, MODELS[model])
    content["grid"] |= {"loss": {"energy": [0.01, 0.1]}}  # type: ignore[operator]
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content))
    spec = load_spec(file, (), str(folder / "store"))
    found = check(spec)
    begin = time.monotonic()
    assert sweeps.run(spec).is_complete
    seconds = time.monotonic() - begin
    said = f"{model}: sweep on Ray, {found.at_a_time} at a time, slowdown {found.slowdown:.2f}"
    print(f"{said:48} {seconds:8.1f} {seconds / found.sweep_seconds:6.2f}", flush=True)


def measure(model: str, folder: Path) -> None:
    """Check a sweep, run its trials one by one, and print both sides."""
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep_of(model, MODELS[model])))
    spec = load_spec(file, (), str(folder / "store"))
    found = check(spec)
    admit(make_plan(spec), ResultStore(spec.store))
    for place, measured in zip(found.places, found.measured.values(), strict=True):
        config = place.config
        expected = config.epochs * measured.epoch_seconds
        expected += measured.validation_seconds if config.guidance else 0.0
        request = json.dumps([config.model_dump_json(), spec.runtime().model_dump_json()])
        done = subprocess.run(
            [sys.executable, "-c", TRIAL], input=request, capture_output=True, text=True, check=True
        )
        state, seconds, memory = json.loads(done.stdout.splitlines()[-1])
        assert state == "complete", done.stderr
        print(
            f"{place.name:48} {seconds:8.1f} {seconds / expected:6.2f} {memory / 1e6:6.0f} "
            f"{memory / measured.memory_bytes:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
