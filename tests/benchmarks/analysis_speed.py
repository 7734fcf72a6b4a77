"""How fast analysis is: `python tests/benchmarks/analysis_speed.py`, one table of medians.

Nothing is compared with another run; ratios are of two ways in one process, bounds in seconds are
for two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from paretoset import paretoset

sys.path.insert(0, str(Path(__file__).parents[2]))

import analysis
from analysis.pareto import CONFIGURATION, is_on_front, non_dominated
from analysis.results import read_results
from mg_core.store import ResultStore, integrity, tables
from tests.analysis.conftest import grid, made_up_rows, made_up_tests, write_sweep

OBJECTIVES = ("f1", "epg", "iou")
FRONT_COLUMNS = ["trial_id", "kind", *CONFIGURATION, "baseline", "seed", "epoch", "attribution"]
FRONT_COLUMNS += ["layer", *(f"val_{name}" for name in OBJECTIVES)]


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def loaded_frame(n_rows: int, n_configurations: int, epochs: int = 50) -> pd.DataFrame:
    """Make up a frame as `analysis.load` gives it."""
    rng = np.random.default_rng(0)
    n_trials = n_rows // epochs
    trials = pd.DataFrame({name: pd.array(["x"] * n_trials, "string") for name in CONFIGURATION})
    trials["loss"] = pd.array([f"l{t * n_configurations // n_trials}" for t in range(n_trials)])
    trials["trial_id"] = pd.array([f"{t:016x}" for t in range(n_trials)], "string")
    trials["kind"] = pd.array(["guided"] * n_trials, "string")
    trials["baseline"] = pd.array(["b"] * n_trials, "string")
    trials["seed"] = 0
    frame = trials.loc[trials.index.repeat(epochs)].reset_index(drop=True)
    frame["epoch"] = np.tile(np.arange(1, epochs + 1), n_trials)
    frame["attribution"] = pd.array(["ixg"] * n_rows, "string")
    frame["layer"] = pd.array(["input"] * n_rows, "string")
    return frame.assign(**{f"val_{name}": rng.random(n_rows) for name in OBJECTIVES})


def sphere(n: int) -> np.ndarray:
    """Points none of which dominates another."""
    points = np.abs(np.random.default_rng(0).normal(size=(n, 3)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=5000, help="of the store that is loaded")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")

    def row(what: str, found: float, bound: str) -> None:
        print(f"{what:74} {found:8.3f}  {bound}", flush=True)

    frame = loaded_frame(1_000_000, 600)
    row(
        "fronts of 1,000,000 rows in 600 configurations, s",
        seconds(lambda: is_on_front(frame, OBJECTIVES), rounds),
        "<= 1",
    )
    points = sphere(100_000)
    row(
        "front of 100,000 points, all non-dominated, s",
        seconds(lambda: non_dominated(points), rounds),
        "<= 1",
    )
    few = sphere(3000)
    theirs = seconds(lambda: paretoset(few, sense=["max"] * 3, distinct=False, use_numba=False), 1)
    row(
        "3,000 such points: paretoset over ours",
        theirs / seconds(lambda: non_dominated(few), rounds),
        "",
    )
    help_text = [sys.executable, "-c", "from analysis.cli import main; main()", "--help"]
    row(
        "mg-analysis --help, s",
        seconds(lambda: subprocess.run(help_text, capture_output=True, check=True), 5),
        "<= 0.5",
    )
    with tempfile.TemporaryDirectory() as folder:
        measure_store(Path(folder), arguments.trials, rounds, row)


def checked_share(store: ResultStore, rounds: int) -> float:
    """Return by how much a load takes longer because files are checked; both ways take turns."""
    times: dict[bool, list[float]] = {True: [], False: []}
    own = tables.check_seal, integrity.check_place
    for turn in range(2 * rounds + 2):
        is_checked = turn % 2 == 0
        if not is_checked:
            tables.check_seal, integrity.check_place = (lambda *_: None), (lambda *_: None)
        taken = seconds(lambda: analysis.load(store, FRONT_COLUMNS), 1)
        tables.check_seal, integrity.check_place = own
        times[is_checked].append(taken)
    checked, unchecked = (statistics.median(times[is_checked][1:]) for is_checked in (True, False))
    return checked / unchecked - 1


def measure_store(
    folder: Path, n_trials: int, rounds: int, row: Callable[[str, float, str], None]
) -> None:
    """Measure loading, and the report of 600 trials × 50 epochs."""
    models = {"vanilla_resnet50": ("ixg", "gradcam"), "bcos_resnet50": ("bcos", "gradcam")}
    layers = ("input", "mid1", "mid2", "mid3", "final")
    losses = ("energy", "l1", "ppce", "rrr")
    per_seed = 4 * 5 * 4 * 3
    many = grid(models, layers, losses, tuple(range(n_trials // per_seed + 1)), epochs=50)
    print(f"writing a store of {len(many)} trials", flush=True)
    store = write_sweep(folder / "large", many, tested=False)
    row(
        f"load the front's columns of {len(many)} trials × 50 epochs, s",
        seconds(lambda: analysis.load(store, FRONT_COLUMNS), rounds),
        "<= 5",
    )
    share = checked_share(store, rounds)
    row("checking its checksums and places: share of that time", share, "<= 0.03")
    row("load all columns, s", seconds(lambda: analysis.load(store), rounds), "<= 10")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row("peak memory of this process so far, GB", peak, "<= 1 for the load")
    models["xdnn_resnet50"] = ("intgrad",)
    small = grid(models, layers, losses, (0, 1), epochs=50)
    tested = write_sweep(folder / "small", small, tested=False)
    selected = {(row.trial_id, row.epoch) for row in read_results(tested).selected.itertuples()}
    for config in small:
        for test in made_up_tests(made_up_rows(config)):
            if (config.trial_id, test["epoch"]) in selected:
                tested.put_test(config.trial_id, test["epoch"], [test])
    print(f"report of {len(small)} trials", flush=True)
    command = [sys.executable, "-c", "from analysis.cli import main; main()", "report", tested.uri]
    command += ["--no-test"]  # there are no checkpoints behind these rows
    row(
        "its report, s",
        seconds(lambda: subprocess.run(command, capture_output=True, check=True), 1),
        "<= 20",
    )
    page = Path(tested.uri) / "analysis" / "report.html"
    row("its size, MB", page.stat().st_size / 1e6, "<= 15")


if __name__ == "__main__":
    main()
