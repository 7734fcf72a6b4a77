"""What a plan and a run know of a sweep from earlier measurements on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mg_core.config import DataConfig, Runtime
from mg_core.errors import InputError
from mg_core.training.measured import Known, known
from sweeps.check import Check, Say, machine_of, runtime_of
from sweeps.grid import Grid
from sweeps.spec import SweepSpec


def recalled(spec: SweepSpec, grid: Grid, left: Mapping[str, int]) -> Check | None:
    """Return what was found out of a sweep; none if some trials were neither measured nor refused.

    No batch is rehearsed, and PyTorch is not imported.

    Args:
        spec: the sweep.
        grid: its trials.
        left: epochs that each trial still needs, by id.

    Raises:
        InputError: the data have changed since.
    """
    runtime = runtime_of(spec)
    if known(next(iter(grid.trials.values())), runtime) is None:
        return None  # At once: it takes seconds to sort a hundred thousand trials.
    found = Check(spec, grid, machine_of(runtime), left=left)
    notes = [known(place.config, runtime) for place in found.places]
    for number, note in enumerate(notes):
        if note is None:
            return None
        found.problems_of[number] = note.problems
        if note.measured is not None:
            found.measured[number] = note.measured
        elif not found.is_hopeless(number):
            return None
    if found.measured and found.on_a_device > 1:
        note = notes[found.longest]
        found.slowdown = note.together.get(found.on_a_device, 1.0) if note else 1.0
    configs = (place.config.data for place in found.places)
    if not are_current(filter(None, notes), configs, runtime):
        raise InputError("the data have changed since mg-sweep check; it measures again")
    return found


def are_current(notes: Iterable[Known], configs: Iterable[DataConfig], runtime: Runtime) -> bool:
    """Say whether the data are those that something was found out with; false if they are gone."""
    from mg_core.data.dataset import open_reader

    now: dict[str, str] = {}
    for note, config in zip(notes, configs, strict=True):
        if runtime.data_root is None:
            continue  # What is generated follows from its options.
        if config.key not in now:
            try:
                reader = open_reader(config, runtime.data_root, runtime.cache)
                now[config.key] = reader.fingerprint()
            except InputError:
                return False
        if note.data != now[config.key]:
            return False
    return True


def measured_for_resources(spec: SweepSpec, grid: Grid, say: Say | None = None) -> Check:
    """Return what the trials of a sweep take, measured now where it is not known yet.

    Raises:
        InputError: a trial cannot be measured.
    """
    from mg_core.training.measurement import measure_apart

    runtime = runtime_of(spec)
    found = Check(spec, grid, machine_of(runtime))
    for number, place in enumerate(found.places):
        note = known(place.config, runtime)
        if note and note.measured and are_current([note], [place.config.data], runtime):
            found.measured[number] = note.measured
        else:
            found.measured[number] = measure_apart(place.config, runtime)
        if say is not None:
            say("measuring", number + 1, len(found.places))
    return found
