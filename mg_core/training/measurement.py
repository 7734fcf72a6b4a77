"""What a trial takes, measured on its first batches: time, memory and bytes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mg_core.config import Runtime, TrialConfig
from mg_core.data import open_data
from mg_core.errors import InputError
from mg_core.training import checkpoint
from mg_core.training.batches import slices, training_batches
from mg_core.training.evaluation import batches_by_label_count, evaluate
from mg_core.training.measured import Measured, keep
from mg_core.training.recipe import Recipe
from mg_core.training.trial import (
    memory_format,
    prepare_process,
    train_step,
)

if TYPE_CHECKING:
    from mg_core.data import Split

MOST_STEPS = 12
ENOUGH_SECONDS = 6.0
"""Steps are measured until both a few are done and so much time has passed."""
FEWEST = 3
UNITS = 1024 if sys.platform != "darwin" else 1
"""Bytes in the unit of `ru_maxrss`."""


class _EnoughError(Exception):
    """Ends a validation after some batches."""


def measure_apart(config: TrialConfig, runtime: Runtime) -> Measured:
    """Measure a trial in a process of its own, whose memory is that of the trial alone.

    What was measured is kept in the cache, see `mg_core.training.measured`.

    Args:
        config: configuration of the trial.
        runtime: device, threads and folders.

    Raises:
        InputError: the process failed; the message is the last line that it printed.
    """
    found, data = _in_process("main", config, runtime)
    measured = Measured.model_validate(found)
    keep(config, runtime, data, measured)
    return measured


def measure_together(config: TrialConfig, runtime: Runtime, count: int) -> float:
    """Return the time of a training step in seconds while several trials train, each in a process.

    Raises:
        InputError: a process failed, as for lack of memory.
    """
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(_in_process, "main_together", config, runtime) for _ in range(count)]
        return statistics.median(float(each.result()) for each in running)


def _in_process(function: str, config: TrialConfig, runtime: Runtime) -> Any:
    """Call a function of this module in a process of its own, and return what it prints."""
    request = json.dumps([config.model_dump_json(), runtime.model_dump_json(), sys.path])
    program = (
        "import json, sys; config, runtime, sys.path = json.load(sys.stdin); "
        f"from mg_core.training.measurement import {function}; {function}(config, runtime)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(runtime.threads)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=request,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise InputError(f"{config.label}: cannot be measured: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(config: str, runtime: str) -> None:
    """Measure a trial and print what was measured as JSON, with the fingerprint of its data."""
    forget_peak()
    settings = Runtime.model_validate_json(runtime)
    found, data = measure(TrialConfig.model_validate_json(config), settings)
    print(json.dumps([found.model_dump(), data]))


def main_together(config: str, runtime: str) -> None:
    """Measure a trial's training for some seconds, beside others, and print the time of a step."""
    trial = TrialConfig.model_validate_json(config)
    train, _, model, recipe, device, _ = _prepared(trial, Runtime.model_validate_json(runtime))
    # However short the steps are: the others have to start.
    print(json.dumps(_train(model, recipe, train, trial, device, most=None)))


def measure(config: TrialConfig, runtime: Runtime) -> tuple[Measured, str]:
    """Train and validate a few batches as the trial would, from untrained weights.

    Returns:
        What was measured, and the fingerprint of the data.

    Raises:
        InputError: the data, the model or the device are wrong.
    """
    train, val, model, recipe, device, fingerprint = _prepared(config, runtime)
    step_seconds = _train(model, recipe, train, config, device, MOST_STEPS)
    image_seconds = _validate(model, val, config, device)
    weights, state, commit_seconds = _commit(model, recipe)
    measured = Measured(
        device=device_name(device),
        step_seconds=step_seconds,
        image_seconds=image_seconds,
        commit_seconds=commit_seconds,
        n_steps=len(slices(torch.arange(len(train)).numpy(), config.batch_size)),
        n_images=len(val),
        memory_bytes=peak_memory(device),
        weights_bytes=weights,
        state_bytes=state,
    )
    return measured, fingerprint


def _prepared(
    config: TrialConfig, runtime: Runtime
) -> tuple[Split, Split, torch.nn.Module, Recipe, torch.device, str]:
    """Return what a trial trains with: its splits, network, recipe and device."""
    device = prepare_process(runtime)
    data = open_data(config.data, runtime.data_root, runtime.cache)
    task = config.guidance.task if config.guidance else None
    train, val = data.split("train", task), data.split("val", task)
    model = checkpoint.initial_model(config, len(data.classes)).to(device)
    model.to(memory_format=memory_format(device, config.precision))
    return train, val, model, Recipe(config, model.parameters(), device), device, data.fingerprint


def device_name(device: torch.device) -> str:
    """Return what the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes that this process has held, on its GPU if it has one."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # What PyTorch does not count, such as the context of the driver, is held all the time.
        uncounted = total - free - torch.cuda.memory_reserved(device)
        return int(torch.cuda.max_memory_reserved(device) + max(0, uncounted))
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNITS


def forget_peak() -> None:
    """Begin to count this process's memory: it starts with the largest of its parent's."""
    with contextlib.suppress(OSError):  # Systems without it, such as macOS, do not hand it down.
        Path("/proc/self/clear_refs").write_text("5")


def _train(
    model: torch.nn.Module,
    recipe: Recipe,
    split: Split,
    config: TrialConfig,
    device: torch.device,
    most: int | None,
) -> float:
    """Return the median time of a step, of `most` steps or those of a few seconds."""
    model.train()
    times: list[float] = []
    length = 1 / len(slices(torch.arange(len(split)).numpy(), config.batch_size))
    batches = itertools.chain.from_iterable(
        training_batches(model, split, config, epoch, device) for epoch in itertools.count(1)
    )
    start = begin = time.perf_counter()
    for number, batch in enumerate(batches):
        done = min(number * length, config.epochs - length)
        train_step(model, recipe, batch, config, done, length)
        _finish(device)
        now = time.perf_counter()
        times.append(now - start)
        start = now
        is_enough = number >= FEWEST and now - begin > ENOUGH_SECONDS
        if is_enough or number == most:
            break
    return statistics.median(times[1:] or times)  # The first one makes the optimiser's state.


def _validate(
    model: torch.nn.Module, split: Split, config: TrialConfig, device: torch.device
) -> float:
    """Return the mean time of an image; each label of it takes a backward pass for its maps.

    As in training, the first batch is left out where there are others: kernels are prepared and
    memory is found for it, once in a process.
    """
    begin = time.perf_counter()
    passes = [
        len(indices) + bool(config.evaluate) * int(split.labels[indices].sum())
        for indices in batches_by_label_count(split.labels, config.batch_size)
    ]
    ends: list[float] = []

    def count(images: int) -> None:
        _finish(device)
        ends.append(time.perf_counter())
        if len(ends) > FEWEST and ends[-1] - begin > ENOUGH_SECONDS:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        evaluate(model, split, config.evaluate, config.batch_size, device, count)
    if len(ends) == 1:
        return (ends[0] - begin) / len(split)
    rate = (ends[-1] - ends[0]) / sum(passes[1 : len(ends)])
    return rate * sum(passes) / len(split)


def _commit(model: torch.nn.Module, recipe: Recipe) -> tuple[int, int, float]:
    start = time.perf_counter()
    weights = checkpoint.weights_bytes(model)
    state = checkpoint.state_bytes(model, recipe)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("weights", weights), ("state", state)):
            with (Path(folder) / name).open("wb") as file:
                file.write(content)
                os.fsync(file.fileno())
    return len(weights), len(state), time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
