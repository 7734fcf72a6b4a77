"""What a sweep will do and take, before anything is spent: `mg-sweep check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from mg_core.columns import AXES, configured
from mg_core.config import NONE, Runtime, TrialConfig
from mg_core.data.annotations import check_annotatable
from mg_core.errors import InputError
from mg_core.models.library import is_of_library
from mg_core.sources import on_disk
from mg_core.training.checks import check_all_labels
from mg_core.training.measured import keep, shape
from sweeps.cost import epochs_left, finish_time
from sweeps.grid import Grid, expand
from sweeps.guidances import annotations_of
from sweeps.machine import Machine
from sweeps.spec import ResourceSpec, SweepSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mg_core.data import Data
    from mg_core.guidance import Batch
    from mg_core.guidance.rehearsal import Rehearsal
    from mg_core.models import Model
    from mg_core.training.measured import Measured

FEW_IMAGES = 4
"""Images on which a combination is rehearsed."""

Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Place:
    """Trials whose epochs take the same time, see `mg_core.training.measured.shape`."""

    trials: Mapping[str, TrialConfig]

    @property
    def config(self) -> TrialConfig:
        """One of the trials."""
        return next(iter(self.trials.values()))

    @property
    def losses(self) -> tuple[str, ...]:
        """Localization losses of all of them; empty for baselines."""
        guidances = (c.guidance for c in self.trials.values())
        return tuple(dict.fromkeys(g.loss for g in guidances if g and not g.is_none))

    @property
    def n_trials(self) -> int:
        """How many there are."""
        return len(self.trials)

    @property
    def n_epochs(self) -> int:
        """Epochs of all of them, epoch 0 not counted."""
        return sum(config.epochs for config in self.trials.values())

    @property
    def name(self) -> str:
        """The model, what is guided where, and the unusual settings that all of them share."""
        g = self.config.guidance
        shared = []
        for axis in AXES:
            value = configured(self.config, axis)
            is_own = axis.usual is not ... and (g or not axis.is_of_guidance)
            if (
                is_own
                and value not in (axis.usual, NONE)
                and all(configured(c, axis) == value for c in self.trials.values())
            ):
                shared.append(axis.brief.format(value))
        place = f"{g.attribution}@{g.layer}" if g else "baseline"
        place = "unguided" if g and g.is_none else place
        return " ".join([self.config.model, place, *shared])


@dataclass
class Check:
    """What was found out about a sweep.

    Attributes:
        spec: the sweep.
        grid: its trials.
        machine: CPUs, GPUs and memory of this machine.
        host: node of a cluster that it was found out on; empty for this machine.
        nodes: what the nodes of that cluster have that are large enough for a trial.
        left: epochs to run of each trial that counts, by id; by default all epochs of all.
        data_bytes: size of the decoded data.
        has_idle_gpu: whether PyTorch sees a GPU here that the sweep does not ask for.
        problems_of: by place and loss that was rehearsed, why it cannot guide; empty if it can.
        layers: guidance layers that were found in networks of libraries: module by name, by model.
        rehearsals: what one batch showed, by place.
        measured: what a trial takes, by place; places that failed are missing.
        slowdown: how many times as long a trial takes beside as many others as run at a time.
        crowding: why so many do not run at a time; empty if they do.
    """

    spec: SweepSpec
    grid: Grid
    machine: Machine
    host: str = ""
    nodes: tuple[Machine, ...] = ()
    left: Mapping[str, int] | None = None
    data_bytes: int = 0
    has_idle_gpu: bool = False
    problems_of: dict[int, Mapping[str, str]] = field(default_factory=dict)
    layers: dict[str, dict[str, str]] = field(default_factory=dict)
    rehearsals: dict[int, Rehearsal] = field(default_factory=dict)
    measured: dict[int, Measured] = field(default_factory=dict)
    slowdown: float = 1.0
    crowding: str = ""

    @cached_property
    def places(self) -> list[Place]:
        """The trials, by what they take."""
        return places_of(self.grid)

    def working(self, number: int) -> TrialConfig:
        """Return a trial of a place whose loss can guide, as far as that is known."""
        problems = self.problems_of.get(number, {})
        configs = self.places[number].trials.values()
        can = (c for c in configs if c.guidance is None or not problems.get(c.guidance.loss))
        return next(can, self.places[number].config)

    def is_hopeless(self, number: int) -> bool:
        """Say whether no loss of a place can guide."""
        problems = self.problems_of.get(number, {})
        losses = self.places[number].losses
        return bool(losses) and all(problems.get(loss) for loss in losses)

    @property
    def problems(self) -> list[str]:
        """One sentence on each combination that cannot work."""
        return [
            f"{place.name}, {loss}: {problem}"
            for number, place in enumerate(self.places)
            for loss in place.losses
            if (problem := self.problems_of.get(number, {}).get(loss))
        ]

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Expected time of each trial that counts, by id."""
        found: dict[str, float] = {}
        for number, measured in self.measured.items():
            for trial_id, config in self.places[number].trials.items():
                left = (
                    self.left.get(trial_id, 0)
                    if self.left is not None
                    else epochs_left(config, None)
                )
                n_trained = min(left, config.epochs)
                if left:  # Epoch 0 of those that have one is validated alone.
                    found[trial_id] = n_trained * measured.epoch_seconds
                    found[trial_id] += (left - n_trained) * measured.validation_seconds
        return found

    @property
    def trial_seconds(self) -> float:
        """Expected time of the trials, one after another."""
        return sum(self.seconds.values())

    @property
    def sweep_seconds(self) -> float:
        """Expected time of the sweep here, where guided trials wait for their baselines."""
        kinds = Counter(self.grid.trials[trial].kind for trial in self.seconds)
        seconds = {
            trial: time * (self.slowdown if kinds[self.grid.trials[trial].kind] > 1 else 1.0)
            for trial, time in self.seconds.items()
        }
        return finish_time(self.grid.trials, seconds, self.at_a_time)

    @property
    def longest(self) -> int:
        """The place whose trials take the most time together."""
        of_trial = self.seconds

        def total(number: int) -> float:
            return sum(of_trial.get(trial, 0.0) for trial in self.places[number].trials)

        return max(self.measured, key=total)

    @property
    def on_a_device(self) -> int:
        """How many trials train on one device at a time."""
        n_devices = max(1, len(self.machine.gpus))
        kinds = Counter(config.kind for config in self.grid.trials.values())
        room = min(self.at_a_time, max(kinds.values()), self.fitting * n_devices)
        return -(-room // n_devices)

    @property
    def memory_bytes(self) -> int:
        """Memory of the largest trial."""
        return max((found.memory_bytes for found in self.measured.values()), default=0)

    @property
    def store_bytes(self) -> tuple[int, int]:
        """Least and most bytes of weights: one epoch kept of each trial, or every one.

        Where states are kept, both count that of each trial.
        """
        least = most = 0
        for number, found in self.measured.items():
            place = self.places[number]
            n_states = place.n_trials if self.spec.keep_states and place.config.epochs else 0
            least += place.n_trials * found.weights_bytes + n_states * found.state_bytes
            most += n_states * found.state_bytes
            is_baseline = place.config.kind == "baseline"
            most += (place.n_trials if is_baseline else place.n_epochs) * found.weights_bytes
        return least, most

    @property
    def at_a_time(self) -> int:
        """How many trials run at a time, with the sweep's resources."""
        machines = self.nodes or (self.machine,)
        # What `resources: auto` would reserve is known once the trials are measured.
        wanted = self.resources if self.spec.resources.auto else self.spec.resources
        room = sum(machine.room(wanted) for machine in machines)
        return min(room, self.spec.max_concurrent or room)

    @property
    def fitting(self) -> int:
        """How many trials fit side by side on one device of this machine."""
        return self.machine.fitting(self.memory_bytes, self.spec.threads)

    @property
    def resources(self) -> ResourceSpec:
        """What a trial should reserve, so that as many as fit run side by side."""
        return self.machine.resources(self.memory_bytes, self.spec.threads)


def places_of(grid: Grid) -> list[Place]:
    """Put the trials of a grid together that take the same time, baselines first."""
    groups: dict[str, dict[str, TrialConfig]] = {}
    for trial_id, config in grid.trials.items():
        groups.setdefault(shape(config).canonical, {})[trial_id] = config
    return [Place(members) for members in groups.values()]


def check(
    spec: SweepSpec, exact: bool = False, say: Say | None = None, is_shared: bool = False
) -> Check:
    """Rehearse every combination of a sweep on one batch, and measure what its trials take.

    The data are decoded first, as a run does. Nothing is written to the store.

    Args:
        spec: the sweep.
        exact: compare gradients with finite differences.
        say: called with what is done, how much of it, and how much there is.
        is_shared: whether others work on this machine, so that one trial at a time is measured.

    Raises:
        InputError: the sweep, its data or its weights are wrong.
    """
    import torch

    from mg_core.training.measurement import measure_apart

    say = say or (lambda what, done, total: None)
    grid, runtime = expand(spec), runtime_of(spec)
    found = Check(spec, grid, machine_of(runtime))
    is_on_cpu = spec.device == "auto" and runtime.device == "cpu"
    found.has_idle_gpu = is_on_cpu and torch.cuda.is_available()
    data = _decoded(spec, grid, runtime)
    found.data_bytes = (
        sum(len(data.split(name)) for name in ("train", "val")) * 3 * (spec.data.image_size**2)
    )
    rehearsals = _rehearsals(found, data, runtime, exact)
    for done, (number, rehearsal) in enumerate(rehearsals, start=1):
        place = found.places[number]
        found.rehearsals[number] = rehearsal
        found.problems_of[number] = {
            loss: rehearsal.problems.get(loss, "") for loss in place.losses
        }
        keep(place.config, runtime, data.fingerprint, problems=found.problems_of[number])
        say("rehearsing", done, sum(bool(place.losses) for place in found.places))
    for number in range(len(found.places)):
        if not found.is_hopeless(number):
            found.measured[number] = measure_apart(found.working(number), runtime)
        say("measuring", number + 1, len(found.places))
    if found.measured and not is_shared:
        try:
            found.slowdown = _slowdown(found, runtime, data.fingerprint)
        except InputError as error:
            found.crowding = str(error)
    return found


def _slowdown(found: Check, runtime: Runtime, fingerprint: str) -> float:
    """Train as many trials as will run on a device at a time, and compare a step with one alone.

    They share memory, its bandwidth and, on a GPU, the time of the device.
    """
    from mg_core.training.measurement import measure_together

    count, place = found.on_a_device, found.longest
    if count < 2:
        return 1.0
    config = found.working(place)
    alone = found.measured[place].step_seconds
    slowdown = max(1.0, measure_together(config, runtime, count) / alone)
    keep(config, runtime, fingerprint, together={count: slowdown})
    return slowdown


def runtime_of(spec: SweepSpec) -> Runtime:
    """Return where trials are measured: where `resources: auto` is asked for, on a GPU if any.

    The modules under `imports` must be imported.
    """
    runtime = spec.runtime().model_copy(update={"code": on_disk(spec.imports)})
    return runtime.model_copy(update={"device": spec.device}) if spec.resources.auto else runtime


def machine_of(runtime: Runtime) -> Machine:
    """Return this machine, with its GPUs where trials use them."""
    return Machine.this(has_gpus=runtime.device != "cpu")


def _decoded(spec: SweepSpec, grid: Grid, runtime: Runtime) -> Data:
    from mg_core.data import open_data
    from mg_core.progress import progress_bars

    config = next(iter(grid.trials.values()))
    with progress_bars("decoding") as progress:
        data = open_data(config.data, runtime.data_root, runtime.cache, progress)
        data.prepare()
    check_annotatable(data.split("train"), annotations_of(grid.trials.values()))
    check_all_labels(data, grid.trials.values())
    return data


def _rehearsals(
    found: Check, data: Data, runtime: Runtime, exact: bool
) -> Iterator[tuple[int, Rehearsal]]:
    """Yield what one batch of real images shows of each guided place; note guidance layers."""
    from mg_core.guidance.rehearsal import rehearse
    from mg_core.training import checkpoint
    from mg_core.training.trial import prepare_process

    device = prepare_process(runtime)
    guided = {number: place for number, place in enumerate(found.places) if place.losses}
    for model in dict.fromkeys(place.config.model for place in guided.values()):
        network = None
        for number, place in guided.items():
            config, g = place.config, place.config.guidance
            if config.model != model or g is None:
                continue
            if network is None:  # One at a time: they may be large.
                network = checkpoint.initial_model(config, len(data.classes)).to(device)
                if is_of_library(model):
                    found.layers[model] = dict(cast("Model", network).guidance_layers)
            batch = _few(config, data, network, device)
            settings = (g.attribution, g.layer, place.losses, config.precision, exact)
            yield number, rehearse(network, batch, *settings, config.classification_loss)


def _few(config: TrialConfig, data: Data, network: nn.Module, device: torch.device) -> Batch:
    """Return a few annotated training images of a trial."""
    from mg_core.training.batches import training_batches

    assert config.guidance is not None
    guidance = config.guidance.model_copy(update={"annotated_fraction": 1.0})
    few = config.model_copy(update={"guidance": guidance, "batch_size": FEW_IMAGES})
    split = data.split("train", guidance.task)
    for batch in training_batches(network, split, few, 1, device):
        if batch.annotated is not None and len(batch.annotated):
            return batch
    raise InputError("data: no training image has a label and a box to guide by")
