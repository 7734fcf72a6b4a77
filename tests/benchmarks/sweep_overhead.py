"""What the sweep costs besides the trials: `python tests/benchmarks/sweep_overhead.py [NAME …]`.

Prints one table of what was measured beside its bound. Names: status, plan, epoch, trials, tail,
memory; all of them take some fifteen minutes on two cores.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt, front_values, kept_epochs
from mg_core.store.progress import FOOTER, Progress
from mg_core.store.tables import METRICS, config_columns, to_parquet
from sweeps.lock import StoreLock

os.environ.setdefault("OMP_NUM_THREADS", "1")

TRIVIAL = """
name: trivial
store: store
data: {name: shapes, image_size: 8, options: {train: 4, val: 2, test: 2, size: 24}}
baseline: {epochs: 1, batch_size: 4}
guided: {epochs: 1, batch_size: 4}
imports: [sleepy_loss]
grid: {model: vanilla_tiny, attribution: gradcam, layer: final, loss: {energy: 0.1}}
resources: {cpu: 1}
max_concurrent: 2
"""

LARGE = """
name: large
store: store
data: {name: shapes, image_size: 8}
baseline: {epochs: 50}
guided: {epochs: 50}
grid:
  model: vanilla_tiny
  attribution: [ixg, gradcam]
  layer: [input, mid1, mid2, mid3, final]
  loss:
    energy: [1, 2, 3, 4, 5]
    l1: [1, 2, 3, 4, 5]
    ppce: [1, 2, 3, 4, 5]
    rrr: [1, 2, 3, 4, 5]
"""

SLEEPY = """
import time
from mg_core.losses import LOSSES

@LOSSES.register("sleepy")
def sleepy(attributions, masks):
    time.sleep(10)
    return LOSSES["energy"](attributions, masks)
"""

Row = tuple[str, str, str]
"""What was measured, the figure, and its bound."""

# Its own peak: what the system says of a child includes the process that it was forked from.
MG_SWEEP = """
import atexit, re, sys
sys.argv[0] = "mg-sweep"
own = "/proc/self/status"
atexit.register(
    lambda: print(re.search(r"VmHWM:\\s+(\\d+)", open(own).read())[1], file=sys.stderr)
)
from sweeps.cli import main
main()
"""


def large_store(folder: Path, n_seeds: int, n_recorded: int, n_complete: int) -> None:
    """Write a sweep of 200 guided trials a seed and its store.

    Args:
        folder: for sweep.yaml and store.
        n_seeds: how many seeds.
        n_recorded: how many trials have committed epochs.
        n_complete: how many of them are complete; the others have half of their epochs.
    """
    from sweeps.planning import admit, make_plan
    from sweeps.spec import SweepSpec

    spec = SweepSpec.model_validate(
        {**yaml.safe_load(LARGE), "seed": list(range(n_seeds)), "store": str(folder / "store")}
    )
    (folder / "sweep.yaml").write_text(spec.to_yaml())
    plan = make_plan(spec)
    admit(plan, ResultStore(spec.store))
    for number, config in enumerate(list(plan.grid.trials.values())[:n_recorded]):
        is_complete = number < n_complete
        record_trial(folder / "store", config, spec, config.epochs if is_complete else 25)


def record_trial(store: Path, config: Any, spec: Any, epoch: int) -> None:
    """Write what a trial has in its store after some epochs; weights aside."""
    draw = np.random.default_rng(int(config.trial_id, 16))
    pairs = [(p.attribution, p.layer) for p in config.evaluate] or [(None, None)]
    rows = [
        config_columns(config)
        | {"epoch": e, "attribution": attribution, "layer": layer, "attempt": 1}
        | dict(zip(("val_f1", "val_epg", "val_iou"), draw.random(3), strict=True))
        | {"val_iou_by_threshold": draw.random(20), "seconds_train": 1.0, "seconds_val": 0.5}
        for e in range(config.first_epoch, epoch + 1)
        for attribution, layer in pairs
    ]
    table = pa.Table.from_pylist(rows, schema=METRICS)
    kept = kept_epochs(table, spec.objectives)
    trial, name = config.trial_id, "0001-abcdef01"
    keys = {e: f"checkpoints/{trial}/{name}/epoch-{e:04d}.safetensors" for e in kept}
    front = front_values(table, kept, spec.objectives)
    progress = Progress(trial, name, epoch, config.epochs, keys, None, front, 1.5 * epoch)
    data = to_parquet(table.replace_schema_metadata({FOOTER: progress.footer()}))
    how = "complete" if progress.is_complete else None
    record = {"trial_id": trial, "run": "benchmark", "host": "h", "pid": 1, "how": how}
    record |= {"attempt": 1, "nonce": "abcdef01"}
    for key, content in (
        (f"metrics/{trial}/{name}.parquet", data),
        (f"attempts/{trial}/{name}.json", json.dumps(record).encode()),
    ):
        path = store / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def command(*arguments: str | Path) -> tuple[float, float, str]:
    """Run `mg-sweep`; return seconds, peak resident memory in MB, and what it printed."""
    start = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", MG_SWEEP, *map(str, arguments)], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    assert found.returncode == 0, found.stderr
    return seconds, int(found.stderr.split()[-1]) / 1024, found.stdout


def status(folder: Path) -> list[Row]:
    """Ask for the status of 5,000 trials × 50 epochs while a driver commits to them."""
    large_store(folder, n_seeds=25, n_recorded=5025, n_complete=4000)
    store = ResultStore(str(folder / "store"))
    unfinished = [key for key, p in store.progress().items() if not p.is_complete]
    stop = threading.Event()

    def drive() -> None:
        while not stop.wait(0.05):
            key = store.metrics_keys(unfinished[0])[unfinished[0]]
            store.put(key, store.get(key))
            unfinished.append(unfinished.pop(0))

    with StoreLock(store, "benchmark"):
        thread = threading.Thread(target=drive)
        thread.start()
        seconds, memory, text = command("status", store.uri)
        as_json, _, found = command("status", store.uri, "--json")
        stop.set()
        thread.join()
    assert "4000 complete, 1025 running" in text
    assert len(json.loads(found)["trials"]) == 5025
    return [
        ("status, 5,000 trials × 50 epochs, at work", f"{seconds:.1f} s", "3 s"),
        ("the same as JSON", f"{as_json:.1f} s", "3 s"),
        ("its memory", f"{memory:.0f} MB", ""),
    ]


def plan(folder: Path) -> list[Row]:
    """Plan 10,000 trials, 5,000 of them complete, and work out what a run would do first."""
    large_store(folder, n_seeds=50, n_recorded=5000, n_complete=5000)
    seconds, memory, text = command("plan", folder / "sweep.yaml")
    assert "5000 complete, 0 running, 0 failed, 5050 waiting" in text
    until_first, driver = resume(folder)
    return [
        ("planning 10,000 trials, 5,000 complete", f"{seconds:.1f} s", "5 s"),
        ("its memory", f"{memory:.0f} MB", "500 MB"),
        ("running it, until the first trial starts, Ray included", f"{until_first:.1f} s", ""),
        ("memory of its driver", f"{driver:.0f} MB", "500 MB"),
    ]


def resume(folder: Path) -> tuple[float, float]:
    """Run a sweep until a trial has begun; return seconds, and peak memory of the driver in MB."""
    before = {path.name for path in (folder / "store" / "attempts").iterdir()}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", MG_SWEEP, "run", folder / "sweep.yaml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        while {path.name for path in (folder / "store" / "attempts").iterdir()} == before:
            assert driver.poll() is None
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        driver.send_signal(signal.SIGINT)
        _, printed = driver.communicate()
    return seconds, int(printed.split()[-1]) / 1024


def epoch(folder: Path) -> list[Row]:
    """Commit epochs with weights and state of 100 MB; writing and deleting those is left out."""
    from sweeps.grid import expand
    from sweeps.spec import SweepSpec

    content = yaml.safe_load(LARGE)
    content["guided"]["epochs"] = 12
    grid = expand(SweepSpec.model_validate(content))
    config = next(iter(grid.guided.values()))
    (pair,) = config.evaluate
    found = []
    for size in (0, 100_000_000):
        data, times = bytes(size), []
        store = ResultStore(str(folder / f"store-{size}"))
        put, delete = store.files.put, store.files.delete
        attempt = Attempt(store, config, ("f1", "epg", "iou"), "r")
        while not attempt.is_complete:
            n = attempt.next_epoch
            row = {"attribution": pair.attribution, "layer": pair.layer, "val_f1": n / 50}
            row |= {"val_epg": 0.5, "val_iou": 0.5}
            written: list[float] = []

            def timed(work: Any, key: str, *further: Any, written: Any = written) -> None:
                start = time.perf_counter()
                work(key, *further)
                if "checkpoints/" in str(key):
                    written.append(time.perf_counter() - start)

            store.put = partial(timed, put)  # type: ignore[method-assign]
            store.files.delete = partial(timed, delete)  # type: ignore[method-assign]
            start = time.perf_counter()
            attempt.commit(n, [row], lambda data=data: data, lambda data=data: data)
            times.append(time.perf_counter() - start - sum(written))
        found.append(statistics.median(times))
    empty, large = (f"{1000 * seconds:.1f} ms" for seconds in found)
    return [
        ("epoch besides its bytes, empty checkpoints", empty, "20 ms"),
        ("epoch besides its bytes, checkpoints of 100 MB", large, "20 ms"),
    ]


class Stopwatch:
    """A listener that notes when trials start and end."""

    def __init__(self) -> None:
        self.starts: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def started(self, trial_id: str) -> None:
        self.starts[trial_id] = time.perf_counter()

    def outcome(self, outcome: Any) -> None:
        if outcome.state != "running":
            assert outcome.state == "complete", outcome.error
            self.ends[outcome.trial_id] = time.perf_counter()
            self.seconds[outcome.trial_id] = outcome.seconds

    def lost(self, trial_id: str, reason: str) -> None:
        raise AssertionError(reason)

    @property
    def span(self) -> float:
        return max(self.ends.values()) - min(self.starts.values())


def run_on_ray(folder: Path, loss: str, n_trials: int, **further: Any) -> Stopwatch:
    """Run guided trials of a trivial sweep two at a time, their baseline complete."""
    from sweeps.drive import prepare_data
    from sweeps.planning import admit, make_plan
    from sweeps.runner import Queue, run_inline
    from sweeps.scheduler import on_ray
    from sweeps.spec import SweepSpec

    (folder / "sleepy_loss.py").write_text(SLEEPY)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    content = {**yaml.safe_load(TRIVIAL), "store": str(folder / "store"), **further}
    content["grid"]["loss"] = {loss: [number + 1.0 for number in range(n_trials)]}
    spec = SweepSpec.model_validate(content)
    found = make_plan(spec)
    admit(found, ResultStore(spec.store))
    prepare_data(found, found.grid.trials)
    baselines = Queue.of(found.grid.baselines, set())
    run_inline(baselines, spec.runtime("r"), Stopwatch())
    watch = Stopwatch()
    with on_ray(spec) as run_trials:
        queue = Queue.of(found.grid.guided, baselines.complete)
        run_trials(queue, spec.runtime("r"), watch)
    assert len(watch.ends) == n_trials
    return watch


def plain_tune(n_trials: int) -> float:
    """Run trivial trials of a plain Tune function trainable two at a time."""
    import ray
    from ray import tune

    def trivial(config: dict[str, Any]) -> None:
        import torch

        tune.report({"loss": float(torch.zeros(1))})

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trivial, {"cpu": 1}),
            param_space={"number": tune.grid_search(list(range(n_trials)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=2),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        start = time.perf_counter()
        tuner.fit()
        seconds = time.perf_counter() - start
    ray.shutdown()
    return seconds


def trials(folder: Path) -> list[Row]:
    """Run 100 trivial trials two at a time, ours with their store and plain Tune's without."""
    ours = run_on_ray(folder, "energy", 100).span / 100
    plain = plain_tune(100) / 100
    return [
        ("a trivial trial, two at a time, with its store", f"{ours:.2f} s", "0.4 s"),
        ("the same as a plain Tune function", f"{plain:.2f} s", ""),
        ("how much less", f"{plain / ours:.1f} ×", "6 ×"),
    ]


def tail(folder: Path) -> list[Row]:
    """Run 40 trials of 10 s on two cores."""
    watch = run_on_ray(folder, "sleepy", 40)
    ratio = watch.span / (sum(watch.seconds.values()) / 2)
    return [("40 trials of 10 s, span over half the sum", f"{ratio:.3f}", "1.08")]


def memory(folder: Path) -> list[Row]:
    """Run a thousand trials through one actor and watch its resident memory."""
    from sweeps.grid import expand
    from sweeps.planning import Plan, admit
    from sweeps.spec import SweepSpec
    from sweeps.trainable import TrialTrainable

    content = {**yaml.safe_load(TRIVIAL), "store": str(folder / "store"), "imports": []}
    content["grid"]["loss"] = {"energy": [number + 1.0 for number in range(1000)]}
    spec = SweepSpec.model_validate(content)
    runtime = spec.runtime("r").model_dump_json()
    grid = expand(spec)
    admit(Plan(spec, grid), ResultStore(spec.store))
    actor, sizes = None, []
    for config in grid.trials.values():
        asked = {"trial": config.model_dump_json(), "runtime": runtime}
        if actor is None:
            actor = TrialTrainable(asked)
        else:
            actor.reset_config(asked)
        while not actor.step()["done"]:
            pass
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    grown = statistics.median(sizes[-50:]) - statistics.median(sizes[50:100])
    return [
        ("resident memory of an actor after 100 trials", f"{sizes[99]:.0f} MB", ""),
        ("how much more after 1,000", f"{grown:.1f} MB", "flat"),
    ]


BENCHMARKS = {f.__name__: f for f in (status, plan, epoch, trials, tail, memory)}


def main() -> None:
    """Run the benchmarks that are named, or all, and print one table."""
    rows: list[Row] = []
    for name in sys.argv[1:] or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="mg-benchmark-") as folder:
            rows += BENCHMARKS[name](Path(folder))
            print(f"{name} done", file=sys.stderr)
    width = max(len(what) for what, _, _ in rows)
    for what, found, bound in [("what", "measured", "bound"), *rows]:
        print(f"{what:{width}}  {found:>10}  {bound:>8}")


if __name__ == "__main__":
    main()
