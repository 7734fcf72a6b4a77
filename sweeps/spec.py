"""The sweep file, validated: what its keys are and what they may hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from mg_core.config import (
    Device,
    EvaluationPair,
    Fraction,
    Frozen,
    Integer,
    Name,
    Number,
    Objective,
    PositiveInt,
    PositiveNumber,
    Runtime,
    Scalar,
    parse,
)
from mg_core.redaction import refuse_secrets
from mg_core.store.result_store import SPEC, ResultStore, reading
from mg_core.store.attempt import own_version
from sweeps.yaml_file import override, read_sweep

T = TypeVar("T")


def _share(amount: float) -> float:
    if amount > 1 and amount != int(amount):
        raise ValueError(f"a share of one device or whole devices, not {amount:g}")
    return amount


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("at least one value is wanted")
    return _different(values)


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for number, value in enumerate(values):
        if value in values[:number]:
            shown = repr(value) if isinstance(value, (str, int, float)) else f"'{value}'"
            raise ValueError(f"the value {shown} stands twice in a list")
    return values


def absolute(path: str) -> str:
    """Return a path as it is from anywhere; a URI stays as it is.

    So does what begins with `~`, which each node resolves to its own.
    """
    path = os.path.expandvars(path)
    return path if "://" in path or path.startswith("~") else str(Path(path).absolute())


def pinned(weights: str) -> str:
    """Return a path of weights with the checksum of the file there, so that it means one thing.

    Names and addresses stay as they are, and so does what only the nodes can find.
    """
    refuse_secrets(weights, "the address")
    if "/" not in weights or "://" in weights or "#sha256=" in weights:
        return weights
    path = absolute(weights)
    file = Path(path).expanduser()
    if not file.is_file():
        return path
    with file.open("rb") as content:
        return f"{path}#sha256={_sha256(content)[:16]}"


def _sha256(content: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


Axis = Annotated[tuple[T, ...], BeforeValidator(_as_list), AfterValidator(_without_repeats)]
"""One value or a list of different ones; the grid is the product of its axes."""

Place = Annotated[str, Field(min_length=1), AfterValidator(absolute)]
Weights = Annotated[str, AfterValidator(pinned)]
Weight = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]


class DataSpec(Frozen):
    """The data set; `root` says where it lies and may differ between machines."""

    name: Name
    root: Place | None = None
    cache: Place | None = None
    image_size: PositiveInt = 224
    horizontal_flip: bool = False
    options: dict[str, Scalar] = Field(default_factory=dict)


class StageSpec(Frozen):
    """Training settings of one of the two stages."""

    epochs: PositiveInt
    learning_rate: PositiveNumber = 1e-4
    batch_size: PositiveInt = 64
    precision: Literal["fp32", "bf16"] = "fp32"


class BlockSpec(Frozen):
    """One product of axes.

    Attributes:
        loss: localization losses, each with its own values of λ.
        task: for data sets that have several.
    """

    model: Axis[Name]
    attribution: Axis[Name]
    layer: Axis[Name]
    loss: Annotated[dict[Name, Axis[Weight]], Field(min_length=1)]
    reduction: Axis[Literal["sum", "mean"]] = ("sum",)
    annotated_fraction: Axis[Fraction] = (1.0,)
    box_dilation: Axis[Weight] = (0.0,)
    task: Axis[Name] | None = None
    seed: Axis[Seed] | None = None


class ResourceSpec(Frozen):
    """What Ray reserves for one trial; fractions share a device."""

    cpu: PositiveNumber = 1
    gpu: Annotated[Number, Field(ge=0, allow_inf_nan=False), AfterValidator(_share)] = 0
    memory_gb: PositiveNumber | None = None


class SweepSpec(Frozen):
    """A sweep as its author wrote it.

    Attributes:
        name: of the sweep, for people.
        store: URI of the result store.
        data: the data set.
        baseline: settings of the first stage.
        guided: settings of the second stage.
        grid: one block or several; together they are the guided trials.
        seed: seeds of every block that names none of its own.
        weights: what baselines start from, for all models or by model; none trains from scratch.
        evaluate: (attribution, layer) pairs that every guided trial is judged at besides its own,
            where they fit its model.
        objectives: decide which epochs' weights are kept.
        resources: of one trial.
        max_concurrent: trials at a time, at most; none for as many as fit.
        max_retries: how often a trial whose process or node was lost is started again.
        device: `auto`, `cpu` or a CUDA device.
        deterministic: ask for deterministic kernels.
        imports: modules that register the user's own variants.
        fail_fast_on: stop once this many trials failed by the same bug or mistake; null goes on.
        tracking: where metrics are mirrored to besides the store.
    """

    name: Name
    store: Place
    data: DataSpec
    baseline: StageSpec
    guided: StageSpec
    grid: Annotated[tuple[BlockSpec, ...], BeforeValidator(_as_list), Field(min_length=1)]
    seed: Axis[Seed] = (0,)
    weights: Weights | dict[Name, Weights | None] | None = None
    evaluate: Annotated[tuple[EvaluationPair, ...], AfterValidator(_different)] = ()
    objectives: Axis[Objective] = ("f1", "epg", "iou")
    resources: ResourceSpec = ResourceSpec()
    max_concurrent: PositiveInt | None = None
    max_retries: Annotated[Integer, Field(ge=0)] = 3
    device: Device = "auto"
    deterministic: bool = True
    imports: tuple[str, ...] = ()
    fail_fast_on: PositiveInt | None = 10
    tracking: Literal["mlflow", "tensorboard"] | None = None

    @property
    def threads(self) -> int:
        """CPU threads of a trial: its CPU request, at least one."""
        return max(1, int(self.resources.cpu))

    def runtime(self, run: str = "") -> Runtime:
        """Return what trials need to know besides their configurations."""
        return Runtime(
            store=self.store,
            data_root=self.data.root,
            cache=self.data.cache,
            # A share of no GPU is not the first GPU, shared with whoever else has none.
            device="cpu" if self.device == "auto" and not self.resources.gpu else self.device,
            threads=self.threads,
            objectives=self.objectives,
            imports=self.imports,
            deterministic=self.deterministic,
            run=run,
            version=own_version(),
        )

    def to_yaml(self) -> str:
        """Write the resolved spec."""
        text: str = yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        )
        return text


NOT_SEMANTIC = frozenset(
    {
        "name",
        "store",
        "resources",
        "max_concurrent",
        "max_retries",
        "device",
        "deterministic",
        "imports",
        "fail_fast_on",
        "tracking",
    }
)
"""Keys that change neither which trials there are nor what is kept of them."""


def load_spec(source: Path | str, settings: list[str], store: str | None = None) -> SweepSpec:
    """Read and validate a sweep file.

    Args:
        source: path of the file; a result store, also one that is a URI, stands for its sweep.
        settings: `key=value` overrides.
        store: overrides the file's.

    Raises:
        InputError: names file, key, value and what is allowed.
    """
    content, place = _content(str(source))
    content = override(content, settings)
    place = place if store is None else store
    if place is not None:
        content["store"] = place
    spec: SweepSpec = parse(SweepSpec, content, str(source))
    return spec


def _content(source: str) -> tuple[dict[str, Any], str | None]:
    """Return a sweep, and the store that it was read from if it was."""
    if "://" in source:
        store = ResultStore(source)
        with reading(store):
            return store.spec(), source
    path = Path(source)
    if path.is_dir() and (path / SPEC).is_file():
        return read_sweep(path / SPEC), source
    return read_sweep(path), None


def differences(old: dict[str, Any], new: SweepSpec) -> list[str]:
    """List the keys in which a stored spec and a new one differ in meaning, with both values."""
    before, after = _flat(old), _flat(new.model_dump(mode="json"))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in keys
        if key.split(".")[0] not in NOT_SEMANTIC and key not in {"data.root", "data.cache"}
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in items:
        found |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return found
