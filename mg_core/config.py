"""Configurations of trials: immutable, validated, and hashed into the trial's id."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mg_core.columns import AXES, OBJECTIVES, configured
from mg_core.errors import InputError
from mg_core.recipe import (
    Annotation,
    EarlyStop,
    Named,
    Optimizer,
    Transform,
    named,
    number,
    with_one_dilation,
)

NUMERICS_VERSION = 1
"""Increased by every change of the code that changes results, so that trials are comparable."""

NONE = "none"
"""The annotation that says nothing, and what such a trial is guided by: no attribution or loss."""

Model = TypeVar("Model", bound=BaseModel)

Scalar = bool | int | float | str


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


def _spelt(pattern: str, what: str) -> Callable[[str], str]:
    """Return a validator of texts that says in words what is wanted."""
    fits = re.compile(pattern, re.ASCII).fullmatch

    def check(value: str) -> str:
        if not fits(value):
            raise ValueError(f"{what} is wanted, not {_short(value)}")
        return value

    return check


def objective(name: str) -> str:
    """Return `name` if it is the name of an objective.

    Raises:
        ValueError: it is not; the message lists all objectives.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; choose from {', '.join(OBJECTIVES)}")
    return name


Number = Annotated[float, BeforeValidator(number), BeforeValidator(_not_bool)]
Integer = Annotated[int, BeforeValidator(_not_bool), Field(strict=True)]
PositiveInt = Annotated[Integer, Field(gt=0, lt=2**31)]
PositiveNumber = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Smoothing = Annotated[Number, Field(ge=0, lt=1)]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Device = Annotated[
    str, AfterValidator(_spelt(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or such as cuda:1"))
]
Objective = Annotated[str, AfterValidator(objective)]
Name = Annotated[
    str, AfterValidator(_spelt(r"[A-Za-z0-9_.\-]+", "a name of letters, digits, '.', '_' and '-'"))
]
ModelName = Annotated[
    str,
    AfterValidator(
        _spelt(
            r"[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)?",
            "a registered model or a library and a network such as torchvision/resnet18",
        )
    ),
]
"""A registered name, or a library and the name of a network there."""


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def canonical(self) -> str:
        """The values that are not defaults as JSON, the same text for equal values."""
        return canonical_text(self.model_dump(mode="json", exclude_defaults=True))


class EvaluationPair(Frozen):
    """An attribution method and the layer whose maps are evaluated."""

    attribution: Name
    layer: Name

    def __str__(self) -> str:
        return f"{self.attribution}@{self.layer}"


def _options(value: dict[str, Scalar]) -> dict[str, Scalar]:
    return dict(sorted(value.items()))


class DataConfig(Frozen):
    """A data set as it is trained on; the place of its files is left out.

    Attributes:
        name: registered data set.
        image_size: side of the resized images, in pixels.
        horizontal_flip: whether training images are flipped with probability 1/2.
        options: options of this data set, such as the number of images of a synthetic one.
    """

    name: Name
    image_size: PositiveInt
    horizontal_flip: bool
    options: Annotated[dict[str, Scalar], AfterValidator(_options)]

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify the stored data; flips do not change them."""
        values = self.model_dump(exclude={"horizontal_flip"}, exclude_defaults=True)
        return digest(canonical_text(values))


class GuidanceConfig(Frozen):
    """How explanations are guided (Eq. 1).

    Attributes:
        attribution: registered method whose maps are guided.
        layer: layer of the guided maps: "input", a guidance layer of the model or, for a network
            of a library, the dotted name of a submodule.
        loss: registered localization loss.
        localization_weight: λ of Eq. 1.
        reduction: how losses of a batch's annotated images are combined; published λ need `sum`.
        annotated_fraction: share of the training images that keep their boxes (R7).
        box_dilation: share of its width and height by which a box grows on each side (R8).
        task: for data sets with tasks, which label is learnt and which side of the boxes counts.
        annotation: registered annotation that is drawn of each object: the ladder of supervision.
            A box that is dilated has its share in `box_dilation`.
    """

    attribution: Name
    layer: Name
    loss: Name
    localization_weight: Annotated[Number, Field(ge=0, allow_inf_nan=False)]
    reduction: Literal["sum", "mean"]
    annotated_fraction: Fraction
    box_dilation: Annotated[Number, Field(ge=0, allow_inf_nan=False)]
    task: Name | None
    annotation: Annotation = named("box")

    @model_validator(mode="before")
    @classmethod
    def _with_one_dilation(cls, values: Any) -> Any:
        return with_one_dilation(values)

    @property
    def is_none(self) -> bool:
        """Whether nothing is guided."""
        return self.annotation.name == NONE

    @property
    def drawn(self) -> Named:
        """The annotation with the dilation of its boxes."""
        if not self.box_dilation:
            return self.annotation
        arguments = self.annotation.arguments | {"dilate": self.box_dilation}
        return self.annotation.model_copy(update={"arguments": arguments})


class TrialConfig(Frozen):
    """All settings that change the results of a trial, and no others.

    The fields of the first version have no defaults, here and in the parts, so all of them are in
    the id. A field that is added later needs a default and is left out of the id at its default,
    so that old ids stay valid.

    Attributes:
        numerics: `NUMERICS_VERSION` of the code that trains.
        data: the data set as it is trained on.
        model: registered model, or a network of a library.
        weights: initial weights of the baseline, by name or path; none trains from scratch.
        seed: seed of initialisation, shuffling, class draws and annotation subsets.
        epochs: passes over the training split; 0 for a baseline that is trained already.
        learning_rate: learning rate before schedule and warm-up.
        batch_size: images per training step.
        precision: precision of the training step; "fp16" scales the loss, and "tf32" lets a GPU
            round operands.
        baseline: id of the baseline trial that a guided trial starts from; none for a baseline.
        guidance: how explanations are guided; none for a baseline.
        evaluate: (attribution, layer) pairs evaluated every epoch, sorted; empty for a baseline.
        optimizer: class of `torch.optim`, or the dotted name of another, with its arguments.
        weight_decay: decay of all parameters; none for the optimiser's own.
        schedule: course of the learning rate, one of `mg_core.training.schedule.SCHEDULES`.
        warmup_epochs: epochs, or a part of one, in which the learning rate rises from 0.
        clip_norm: largest norm of the gradient of a step; none for any.
        classification_loss: registered classification loss.
        label_smoothing: share of each label that is spread over the classes.
        augment: transforms of `torchvision.transforms.v2` for training images and their boxes.
        early_stop: when training stops before its last epoch; none for never.
        origin: file of the trained network that a baseline is; none for one that is trained here.
    """

    numerics: PositiveInt
    data: DataConfig
    model: ModelName
    weights: str | None
    seed: Annotated[Integer, Field(ge=0, lt=2**63)]
    epochs: Annotated[Integer, Field(ge=0, lt=2**31)]
    learning_rate: PositiveNumber
    batch_size: PositiveInt
    precision: Precision
    baseline: str | None
    guidance: GuidanceConfig | None
    evaluate: tuple[EvaluationPair, ...]
    optimizer: Optimizer = named("adam")
    weight_decay: NonNegative | None = None
    schedule: Named = named("constant")
    warmup_epochs: NonNegative = 0.0
    clip_norm: PositiveNumber | None = None
    classification_loss: Name = "bce"
    label_smoothing: Smoothing = 0.0
    augment: tuple[Transform, ...] = ()
    early_stop: EarlyStop | None = None
    origin: str | None = None

    @property
    def kind(self) -> Literal["baseline", "guided"]:
        """Whether the trial is a baseline or guided."""
        return "guided" if self.guidance else "baseline"

    @property
    def trial_id(self) -> str:
        """Sixteen hex digits of a hash of the configuration."""
        return digest(self.canonical)

    @property
    def first_epoch(self) -> int:
        """1 for a baseline, and 0 where a trained network is judged before any update.

        That is so for a guided trial, which starts from its baseline, and for a baseline with an
        `origin`.
        """
        return 0 if self.guidance or self.origin else 1

    @property
    def label(self) -> str:
        """A short description for people; other trials may have the same one."""
        return self._described(" λ={:g}")

    @property
    def front_label(self) -> str:
        """The label without λ, which all trials of a front share."""
        return self._described("")

    def _described(self, weight: str) -> str:
        g = self.guidance
        own = [axis for axis in AXES if axis.usual is not ... and (g or not axis.is_of_guidance)]
        values = [(axis, configured(self, axis)) for axis in own]
        unusual = [
            axis.brief.format(value) for axis, value in values if value not in (axis.usual, NONE)
        ]
        place = f"{self.model} baseline"
        if g is not None and g.is_none:
            place = f"{self.model} unguided"
        elif g is not None:
            place = f"{self.model} {g.attribution}@{g.layer} {g.loss}"
            place += weight.format(g.localization_weight)
        return " ".join([place, *unusual, f"s{self.seed}"])


class Runtime(Frozen):
    """Settings of a trial that do not change its results.

    Attributes:
        store: URI of the result store.
        data_root: folder of the data set; none for a synthetic one.
        cache: folder for decoded images on each node; none for the user's cache folder.
        device: `cpu`, a CUDA device, or `auto`, which uses a GPU if the trial has one.
        threads: CPU threads of the trial.
        objectives: metrics whose non-dominated epochs keep their weights.
        imports: modules that register the user's variants; they are imported first.
        deterministic: whether PyTorch uses deterministic kernels where it has them.
        run: nonce of the driver that started the trial.
        version: the driver's version of this package, which every node must have.
        keep_states: whether complete trials keep the state from which a longer one can go on.
        code: versions of the user's modules that the sweep was started with.
        lengths: numbers of epochs of other trials in the store, with which a trial may begin.
    """

    store: str
    data_root: str | None = None
    cache: str | None = None
    device: Device = "auto"
    threads: PositiveInt = 1
    objectives: tuple[Objective, ...] = ("f1", "epg", "iou")
    imports: tuple[str, ...] = ()
    deterministic: bool = True
    run: str = ""
    version: str = ""
    keep_states: bool = True
    code: dict[str, str] = Field(default_factory=dict)
    lengths: tuple[PositiveInt, ...] = ()


def parse(model: type[Model], value: Any, source: str, is_key: bool = False) -> Model:
    """Validate a value, and describe the first error in one sentence.

    Args:
        model: pydantic model of the value.
        value: parsed YAML or JSON.
        source: file name for the message.
        is_key: whether the source is a key instead, which the value's own keys continue.

    Raises:
        InputError: names the source, the key, the value and what is allowed.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = describe(model, error)
        is_of_own_key = is_key and not problem.startswith(("unknown key", "'", "the file"))
        raise InputError(f"{source}{'.' if is_of_own_key else ': '}{problem}") from None


def describe(model: type[BaseModel], error: ValidationError) -> str:
    """Describe the first error of a validation in one sentence."""
    # Unknown keys come first, since a misspelt key is often why another one is missing. Then come
    # messages of this package's validators, which are clearer than pydantic's.
    order = {"extra_forbidden": 0, "invalid_key": 0, "value_error": 1}
    first = min(error.errors(), key=lambda item: order.get(item["type"], 2))
    # pydantic puts types that it tried in brackets; they are no keys.
    key = ".".join(str(part) for part in first["loc"] if "[" not in str(part)) or "the file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(model, first["loc"][:-1]))
        return f"unknown key {key!r}; allowed here: {allowed}{more}"
    if first["type"] == "missing":
        return f"{key!r} is missing{more}"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}{more}"
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{key}: {message}, not {_short(first['input'])}{more}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner or model
    return [item.alias or name for name, item in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def canonical_text(value: dict[str, Any]) -> str:
    """Return a mapping as JSON, the same text for equal ones."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(canonical: str) -> str:
    """Return sixteen hex digits of a hash of a canonical text."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
