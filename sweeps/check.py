"""What a sweep will do and take, before anything is spent: `mg-sweep check`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mg_core.attributions import ATTRIBUTIONS
from mg_core.columns import AXES, configured
from mg_core.config import NONE, Runtime, TrialConfig
from mg_core.data.annotations import check_annotatable
from mg_core.errors import InputError
from mg_core.losses import LOSSES
from mg_core.models.study import STUDY_MODELS
from mg_core.training.measured import known, shape
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
    from mg_core.training.measured import Measured

FEW_IMAGES = 4
"""Images on which a combination is rehearsed."""

Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Place:
    """Trials whose epochs take the same time, see `mg_core.training.measured.shape`."""

    configs: tuple[TrialConfig, ...]

    @property
    def config(self) -> TrialConfig:
        """One of the trials."""
        return self.configs[0]

    @property
    def losses(self) -> tuple[str, ...]:
        """Localization losses of all of them; empty for baselines."""
        guidances = (c.guidance for c in self.configs)
        return tuple(dict.fromkeys(g.loss for g in guidances if g and not g.is_none))

    @property
    def n_trials(self) -> int:
        """How many there are."""
        return len(self.configs)

    @property
    def n_epochs(self) -> int:
        """Epochs of all of them, epoch 0 not counted."""
        return sum(config.epochs for config in self.configs)

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
                and all(configured(c, axis) == value for c in self.configs)
            ):
                shared.append(axis.brief.format(value))
        place = f"{g.attribution}@{g.layer}" if g else "baseline"
        place = "unguided" if g and g.is_none else place
        return " ".join([self.config.model, place, *shared])

    def longest(self, measured: Measured) -> float:
        """Return the expected time of the longest of them."""
        seconds = max(config.epochs for config in self.configs) * measured.epoch_seconds
        return seconds + (measured.validation_seconds if self.config.guidance else 0.0)


@dataclass
class Check:
    """What was found out about a sweep.

    Attributes:
        spec: the sweep.
        places: its trials, by what they take.
        rehearsals: what one batch showed, by place.
        measured: what a trial takes, by place; places that failed are missing.
        data_bytes: size of the decoded data.
        machine: CPUs, GPUs and memory of this machine.
        has_idle_gpu: whether PyTorch sees a GPU here that the sweep does not ask for.
    """

    spec: SweepSpec
    places: list[Place]
    machine: Machine
    data_bytes: int = 0
    has_idle_gpu: bool = False
    rehearsals: dict[int, Rehearsal] = field(default_factory=dict)
    measured: dict[int, Measured] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """One sentence on each combination that cannot work."""
        return [
            f"{self.places[number].name}, {loss}: {problem}"
            for number, rehearsal in self.rehearsals.items()
            for loss, problem in rehearsal.problems.items()
        ]

    @property
    def trial_seconds(self) -> float:
        """Expected time of all trials, one after another."""
        total = 0.0
        for number, found in self.measured.items():
            place = self.places[number]
            total += place.n_epochs * found.epoch_seconds
            if place.config.kind == "guided":
                total += place.n_trials * found.validation_seconds
        return total

    @property
    def sweep_seconds(self) -> float:
        """Expected time of the sweep here, where guided trials wait for their baselines."""
        longest = dict.fromkeys(("baseline", "guided"), 0.0)
        for number, found in self.measured.items():
            place = self.places[number]
            kind = place.config.kind
            longest[kind] = max(longest[kind], place.longest(found))
        return max(self.trial_seconds / self.at_a_time, sum(longest.values()))

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
        """How many trials run at a time on this machine, with the sweep's resources."""
        return self.machine.room(self.spec.resources, self.spec.max_concurrent)

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
    groups: dict[str, list[TrialConfig]] = {}
    for config in grid.trials.values():
        groups.setdefault(shape(config).canonical, []).append(config)
    return [Place(tuple(members)) for members in groups.values()]


def check(spec: SweepSpec, exact: bool = False, say: Say | None = None) -> Check:
    """Rehearse every combination of a sweep on one batch, and measure what its trials take.

    The data are decoded first, as a run does. Nothing is written to the store.

    Args:
        spec: the sweep.
        exact: compare gradients with finite differences.
        say: called with what is done, how much of it, and how much there is.

    Raises:
        InputError: the sweep, its data or its weights are wrong.
    """
    import torch

    from mg_core.training.measurement import measure_apart

    say = say or (lambda what, done, total: None)
    grid, runtime = expand(spec), _runtime(spec)
    found = Check(spec, places_of(grid), _machine(runtime))
    is_on_cpu = spec.device == "auto" and runtime.device == "cpu"
    found.has_idle_gpu = is_on_cpu and torch.cuda.is_available()
    data = _decoded(spec, grid, runtime)
    found.data_bytes = (
        sum(len(data.split(name)) for name in ("train", "val")) * 3 * (spec.data.image_size**2)
    )
    rehearsals = _rehearsals(found.places, data, runtime, exact)
    for done, (number, rehearsal) in enumerate(rehearsals, start=1):
        found.rehearsals[number] = rehearsal
        say("rehearsing", done, sum(bool(place.losses) for place in found.places))
    for number, place in enumerate(found.places):
        is_working = number not in found.rehearsals or (
            len(found.rehearsals[number].problems) < len(place.losses)
        )
        if is_working:
            found.measured[number] = measure_apart(place.config, runtime)
        say("measuring", number + 1, len(found.places))
    return found


def _runtime(spec: SweepSpec) -> Runtime:
    """Return where trials are measured: where `resources: auto` is asked for, on a GPU if any."""
    runtime = spec.runtime()
    return runtime.model_copy(update={"device": spec.device}) if spec.resources.auto else runtime


def _machine(runtime: Runtime) -> Machine:
    return Machine.this(has_gpus=runtime.device != "cpu")


def recalled(spec: SweepSpec, grid: Grid) -> Check | None:
    """Return what is known of a sweep on this machine; none if some trials were not measured.

    No batch is rehearsed, and PyTorch is not imported.
    """
    runtime = _runtime(spec)
    found = Check(spec, places_of(grid), _machine(runtime))
    for number, place in enumerate(found.places):
        measured = known(place.config, runtime)
        if measured is None:
            return None
        found.measured[number] = measured
    return found


def with_measured_resources(spec: SweepSpec, grid: Grid, say: Say | None = None) -> SweepSpec:
    """Return a sweep whose trials reserve what was measured, if it asks for `resources: auto`.

    Raises:
        InputError: a trial cannot be measured.
    """
    if not spec.resources.auto:
        return spec
    from mg_core.training.measurement import measure_apart

    runtime = _runtime(spec)
    found = Check(spec, places_of(grid), _machine(runtime))
    for number, place in enumerate(found.places):
        measured = known(place.config, runtime) or measure_apart(place.config, runtime)
        found.measured[number] = measured
        if say is not None:
            say("measuring", number + 1, len(found.places))
    return spec.model_copy(update={"resources": found.resources})


def refuse_hopeless(trials: Iterable[TrialConfig]) -> None:
    """Refuse trials with variants from outside that cannot be guided.

    The variants of this package are tested. All others are rehearsed on noise, which takes neither
    data nor pretrained weights.

    Raises:
        InputError: names the first combination that cannot work, and why.
    """
    combinations: dict[tuple[str, int], dict[tuple[str, str], set[str]]] = {}
    evaluated: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for config in trials:
        g = config.guidance
        if g and not g.is_none and not is_tested(config.model, g.attribution, g.loss):
            network = (config.model, config.data.image_size)
            pairs = combinations.setdefault(network, {})
            pairs.setdefault((g.attribution, g.layer), set()).add(g.loss)
            own = evaluated.setdefault(network, set())
            own |= {(pair.attribution, pair.layer) for pair in config.evaluate}
    problems = []
    for (model, size), pairs in combinations.items():
        others = sorted(evaluated[model, size] - pairs.keys())
        problems += _problems_of(model, size, pairs, others)
    if problems:
        more = f" (and {len(problems) - 1} more; mg-sweep check lists all)"
        raise InputError(
            f"grid: {problems[0]}{more if len(problems) > 1 else ''}; leave it out of the grid"
        )


def _problems_of(
    model: str,
    size: int,
    pairs: Mapping[tuple[str, str], Iterable[str]],
    evaluated: Sequence[tuple[str, str]],
) -> list[str]:
    """Try a model on noise: each guided pair with its losses, and the pairs that are evaluated."""
    from mg_core.guidance import check_guidance
    from mg_core.guidance.rehearsal import noise_batch, rehearse
    from mg_core.models import build_model

    network = build_model(model, num_classes=4, image_size=size)
    batch = noise_batch(network, size, num_classes=4)
    problems = []
    for pair, losses in pairs.items():
        found = rehearse(network, batch, *pair, sorted(losses)).problems
        problems += [f"{model} {'@'.join(pair)}, {loss}: {p}" for loss, p in found.items()]
    try:
        check_guidance(network, [], evaluated, size)
    except InputError as error:
        problems.append(f"{model}, evaluated at {error}")
    return problems


def is_tested(model: str, attribution: str, loss: str) -> bool:
    """Say whether model, attribution and loss are this package's own."""
    homes = (ATTRIBUTIONS.home(attribution), LOSSES.home(loss))
    return model in STUDY_MODELS and all(home.startswith("mg_core.") for home in homes)


def _decoded(spec: SweepSpec, grid: Grid, runtime: Runtime) -> Data:
    from mg_core.data import open_data
    from mg_core.progress import progress_bars

    config = next(iter(grid.trials.values()))
    with progress_bars("decoding") as progress:
        data = open_data(config.data, runtime.data_root, runtime.cache, progress)
        data.prepare()
    check_annotatable(data.split("train"), annotations_of(grid.trials.values()))
    return data


def _rehearsals(
    places: Sequence[Place], data: Data, runtime: Runtime, exact: bool
) -> Iterator[tuple[int, Rehearsal]]:
    """Yield what one batch of real images shows of each guided place."""
    from mg_core.guidance.rehearsal import rehearse
    from mg_core.training import checkpoint
    from mg_core.training.trial import prepare_process

    device = prepare_process(runtime)
    guided = {number: place for number, place in enumerate(places) if place.losses}
    for model in dict.fromkeys(place.config.model for place in guided.values()):
        network = None
        for number, place in guided.items():
            config, g = place.config, place.config.guidance
            if config.model != model or g is None:
                continue
            if network is None:  # One at a time: they may be large.
                network = checkpoint.initial_model(config, len(data.classes)).to(device)
            batch = _few(config, data, network, device)
            settings = (g.attribution, g.layer, place.losses, config.precision, exact)
            found = rehearse(network, batch, *settings, config.classification_loss)
            yield number, found


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
