"""The keys of a sweep file and their allowed values."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mg_core.config import (
    Device,
    EvaluationPair,
    Fraction,
    Frozen,
    Integer,
    ModelName,
    Name,
    Number,
    Objective,
    PositiveInt,
    PositiveNumber,
    Runtime,
    parse,
)
from mg_core.recipe import Annotation
from mg_core.store import ResultStore, reading
from mg_core.store.attempt import own_version
from mg_core.store.layout import SPEC
from sweeps.pinning import absolute, pinned, pinned_origin
from sweeps.stages import Setting, StageAxes, StageSpec, different, without_repeats
from sweeps.yaml_file import override, read_sweep

T = TypeVar("T")


def _share(amount: float) -> float:
    if amount > 1 and amount != int(amount):
        raise ValueError(f"a share of one device or whole devices, not {amount:g}")
    return amount


def _automatic(value: Any) -> Any:
    return {"auto": True} if value == "auto" else value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


Axis = Annotated[tuple[T, ...], BeforeValidator(_as_list), AfterValidator(without_repeats)]
"""One value or a list of different values; the grid is the product of all axes."""

Place = Annotated[str, Field(min_length=1), AfterValidator(absolute)]
Weights = Annotated[str, AfterValidator(pinned)]
Origin = Annotated[str, Field(min_length=1), AfterValidator(pinned_origin)]
Weight = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
SeedKey = Annotated[int, Field(ge=0, lt=2**63)]  # Keys become texts where a sweep is written.


class DataSpec(Frozen):
    """The data set; its folder `root` may differ between machines."""

    name: Name
    root: Place | None = None
    cache: Place | None = None
    image_size: PositiveInt = 224
    horizontal_flip: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


class BaselineSpec(StageSpec):
    """Training settings of the first stage, or trained networks in its place.

    Attributes:
        epochs: passes over the training split; not needed where `from` names a network.
        origin: the key `from`: a trained network with its head, for all models, by model, or by
            model and seed. It is a state dict's file, a checkpoint of the published code, a result
            store, whose best baseline of the same data, model and seed is taken, or
            `STORE#trial=ID`, whose best kept epoch is taken. It is judged once and not trained.
    """

    epochs: Setting[PositiveInt] | None = None  # type: ignore[assignment]
    origin: Origin | dict[ModelName, Origin | dict[SeedKey, Origin]] | None = Field(
        None, alias="from"
    )

    @model_validator(mode="after")
    def _has_epochs(self) -> BaselineSpec:
        if self.epochs is None and self.origin is None:
            raise ValueError("'epochs' is missing, or 'from' a trained network")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without the key where it has no value: older versions read such files too.
        found: dict[str, Any] = values(self)
        origin = found.pop("origin", None)
        found = {key: value for key, value in found.items() if value is not None}
        return found if origin is None else found | {"from": origin}


class GridAxes(Frozen):
    """The axes of a block of the grid; most are fields of `GuidanceConfig` too.

    Attributes:
        model: registered models, and networks of torchvision, timm and bcos by names such as
            `torchvision/convnext_tiny` or `timm/vit_small_patch16_224`.
        layer: `input`, `mid1` … `final`, or for networks of a library any submodule's dotted name.
        loss: localization losses, each with its own values of λ.
        annotation: what is annotated of an object, the ladder of supervision: `box`, the default,
            `mask`, `{points: 5}` on each object, `random_box` (right size, wrong place: the
            control), a registered one, or boxes that are off by a share of their size:
            `{box: {dilate: 0.25}}`, which is the same as `box_dilation: 0.25`, `{box: {shrink:
            0.2}}` on each side, `{box: {shift: 0.2}}`. `none` trains on without guidance: one trial
            for each model, seed and training setting, judged wherever the grid guides the model.
        task: labels to learn, for data sets with several tasks.
        seed: seeds of this block; those of the sweep by default.
    """

    model: Axis[ModelName]
    attribution: Axis[Name]
    layer: Axis[Name]
    loss: Annotated[dict[Name, Axis[Weight]], Field(min_length=1)]
    reduction: Axis[Literal["sum", "mean"]] = ("sum",)
    annotated_fraction: Axis[Fraction] = (1.0,)
    box_dilation: Axis[Weight] = (0.0,)
    annotation: Axis[Annotation] | None = None
    task: Axis[Name] | None = None
    seed: Axis[Seed] | None = None


class BlockSpec(StageAxes, GridAxes):
    """A block of the grid: the product of its axes.

    It may have keys of a stage too, such as `learning_rate`, in place of those under `guided`.
    """


class ResourceSpec(Frozen):
    """Resources that Ray reserves for one trial; trials with fractions share a device.

    Attributes:
        auto: measure what a trial takes, and reserve that; `resources: auto` sets it.
    """

    auto: bool = False
    cpu: PositiveNumber = 1
    gpu: Annotated[Number, Field(ge=0, allow_inf_nan=False), AfterValidator(_share)] = 0
    memory_gb: PositiveNumber | None = None


class SweepSpec(Frozen):
    """A sweep file.

    Attributes:
        name: title of the sweep.
        store: URI of the result store.
        data: the data set, its folder, image size and options.
        baseline: training settings of the first stage, or `from` where trained networks are; a
            list multiplies the baselines, and all guided trials start from each.
        guided: training settings of the second stage; a list multiplies the guided trials.
        grid: blocks that together make up the guided trials.
        seed: seeds of the blocks that do not name their own.
        weights: initial weights of the baselines, for all models or by model; none for random. A
            path, an address, or a name: `imagenet` is the default of the model's library, whose
            own names such as `IMAGENET1K_V2` or `augreg_in1k` choose among several.
        layers: modules in place of the guidance layers that were found in networks of libraries, by
            model and name: `{torchvision/convnext_tiny: {final: features.5}}`. A trial's
            configuration then has the module's dotted name. Other names may be given, too, so that
            one value of the axis `layer` means a module of each model.
        evaluate: (attribution, layer) pairs at which guided trials are evaluated besides their
            own, where they fit the model.
        objectives: metrics whose non-dominated epochs keep their weights.
        resources: resources that Ray reserves for one trial.
        max_concurrent: largest number of trials at a time; none for as many as fit.
        max_retries: how often a trial whose process or node was lost starts again.
        device: `auto`, `cpu` or a CUDA device.
        deterministic: ask PyTorch for deterministic kernels.
        imports: modules that register the user's own variants.
        keep_states: keep the state of a complete trial, three times its weights, so that it can be
            given more epochs later; else these train from the start.
        fail_fast_on: number of trials that may fail by the same bug or mistake before the sweep
            stops; none for no limit.
        tracking: where metrics are copied to besides the store.
        notify: what is told when a run ends or stops: an address, which gets `{"text": …}`, or a
            command, which gets the text on its standard input. Variables of the environment in it
            stay as they are written until then, so that no secret is stored.
    """

    name: Name
    store: Place
    data: DataSpec
    baseline: BaselineSpec
    guided: StageSpec
    grid: Annotated[tuple[BlockSpec, ...], BeforeValidator(_as_list), Field(min_length=1)]
    seed: Axis[Seed] = (0,)
    weights: Weights | dict[ModelName, Weights | None] | None = None
    layers: dict[ModelName, dict[Name, Name]] = Field(default_factory=dict)
    evaluate: Annotated[tuple[EvaluationPair, ...], AfterValidator(different)] = ()
    objectives: Axis[Objective] = ("f1", "epg", "iou")
    resources: Annotated[ResourceSpec, BeforeValidator(_automatic)] = ResourceSpec()
    max_concurrent: PositiveInt | None = None
    max_retries: Annotated[Integer, Field(ge=0)] = 3
    device: Device = "auto"
    deterministic: bool = True
    imports: tuple[str, ...] = ()
    keep_states: bool = True
    fail_fast_on: PositiveInt | None = 10
    tracking: Literal["mlflow", "tensorboard"] | None = None
    notify: Annotated[str, Field(min_length=1)] | None = None

    @property
    def threads(self) -> int:
        """CPU threads of a trial: as many as the CPUs it reserves, at least one."""
        return max(1, int(self.resources.cpu))

    def runtime(self, run: str = "") -> Runtime:
        """Return the settings of trials that do not change their results."""
        return Runtime(
            store=self.store,
            data_root=self.data.root,
            cache=self.data.cache,
            # A trial that reserves no GPU must not use one that another trial has reserved.
            device="cpu" if self.device == "auto" and not self.resources.gpu else self.device,
            threads=self.threads,
            objectives=self.objectives,
            imports=self.imports,
            deterministic=self.deterministic,
            run=run,
            version=own_version(),
            keep_states=self.keep_states,
        )

    def to_yaml(self) -> str:
        """Return the sweep as YAML, with all defaults and absolute paths."""
        values = self.model_dump(mode="json")
        # Older versions read a sweep without these keys, too.
        for key, value in (("layers", self.layers), ("notify", self.notify)):
            if not value:
                del values[key]
        text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        return text


WITHOUT_EFFECT = {
    *("name", "store", "data.root", "data.cache", "resources", "max_concurrent", "max_retries"),
    *("device", "deterministic", "imports", "keep_states", "fail_fast_on", "tracking"),
    "notify",
}
"""Keys that change neither the trials nor what the store keeps of them."""


def load_spec(
    source: Path | str | Mapping[str, Any], settings: Sequence[str], store: str | None = None
) -> SweepSpec:
    """Read and validate a sweep.

    Args:
        source: path of a sweep file, its content, or the folder or URI of a result store.
        settings: overrides such as `guided.epochs=2`.
        store: result store to use instead of the one that the sweep names.

    Raises:
        InputError: the sweep is wrong; the message names file, key, value and what is allowed.
    """
    if isinstance(source, Mapping):
        content, place, name = copy.deepcopy(dict(source)), None, "the sweep"
    else:
        (content, place), name = _content(str(source)), str(source)
    content = override(content, settings)
    place = place if store is None else store
    if place is not None:
        content["store"] = place
    spec: SweepSpec = parse(SweepSpec, content, name)
    return spec


def _content(source: str) -> tuple[dict[str, Any], str | None]:
    """Return the content of a sweep file or of a store, and the URI if it is a store."""
    if "://" not in source and not os.path.isfile(f"{source}/{SPEC}"):
        return read_sweep(Path(source)), None
    store = ResultStore(source)
    with reading(store):
        return store.spec(), source


def differences(old: dict[str, Any], new: SweepSpec) -> list[str]:
    """List the keys whose change matters between a stored spec and a new one, with both values.

    A key that the stored spec lacks, because its version did not know it, has its default.

    Raises:
        InputError: the stored spec has keys or values that this version does not know.
    """
    stored: SweepSpec = parse(SweepSpec, old, "the stored sweep")
    before, after = _flat(stored.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [
        f"{key}: {_shown(before, key)} → {_shown(after, key)}"
        for key in keys
        if not WITHOUT_EFFECT & {key, key.split(".")[0]}
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = str(values.get(key, "absent"))
    return text if len(text) <= 200 else f"{text[:197]}..."


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in items:
        found |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return found
