"""What a trial is: frozen, validated, hashed into its id."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from mg_core.errors import InputError

NUMERICS_VERSION = 1
"""Raised when a change of the code changes results, so that old and new trials never mix."""

Objective = Literal["f1", "map", "epg", "iou"]
"""Metrics that a front may be taken over; all of them are better when larger."""

Scalar = bool | int | float | str
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value: Any) -> Any:
    # YAML 1.1 reads 5e-4 (no dot) as a string; whoever writes it means the number.
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value.strip()) else value


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


Number = Annotated[float, BeforeValidator(_number), BeforeValidator(_not_bool)]
Integer = Annotated[int, BeforeValidator(_not_bool), Field(strict=True)]
PositiveInt = Annotated[Integer, Field(gt=0, lt=2**31)]
PositiveNumber = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Device = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
Name = Annotated[str, StringConstraints(min_length=1, pattern=r"^[A-Za-z0-9_.\-]+$")]


class Frozen(BaseModel):
    """A value that cannot change and knows no keys beyond its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class EvaluationPair(Frozen):
    """An attribution method and the layer it is judged at."""

    attribution: Name
    layer: Name

    def __str__(self) -> str:
        return f"{self.attribution}@{self.layer}"


def _options(value: dict[str, Scalar]) -> dict[str, Scalar]:
    return dict(sorted(value.items()))


class DataConfig(Frozen):
    """A data set as trained on; where its files lie is no part of it.

    Attributes:
        name: registered data set.
        image_size: images are resized to this many pixels on each side.
        horizontal_flip: flip training images with probability 1/2.
        options: settings of the data set's own, such as the counts of a synthetic one.
    """

    name: Name
    image_size: PositiveInt
    horizontal_flip: bool
    options: Annotated[dict[str, Scalar], AfterValidator(_options)]

    @property
    def key(self) -> str:
        """Sixteen hex digits that stand for the stored data, flips aside."""
        return _hash(self.model_dump(exclude={"horizontal_flip"}))


class GuidanceConfig(Frozen):
    """How explanations are guided (Eq. 1).

    Attributes:
        attribution: method whose maps are guided.
        layer: where they are taken.
        loss: localization loss.
        localization_weight: λ of Eq. 1.
        reduction: how losses of a batch's annotated images are combined; published λ need `sum`.
        annotated_fraction: share of the training images that keep their boxes (R7).
        box_dilation: share of its width and height that a box grows by on each side (R8).
        task: which label is learnt and which side of the boxes counts, for data sets with several.
    """

    attribution: Name
    layer: Name
    loss: Name
    localization_weight: Annotated[Number, Field(ge=0, allow_inf_nan=False)]
    reduction: Literal["sum", "mean"]
    annotated_fraction: Fraction
    box_dilation: Annotated[Number, Field(ge=0, allow_inf_nan=False)]
    task: Name | None


class TrialConfig(Frozen):
    """Everything that decides the result of one trial, and nothing else.

    No field of the first version has a default here, so all of them are in the id. A field added
    later must have a default and stays out of the id at that default: old ids remain valid.

    Attributes:
        numerics: `NUMERICS_VERSION` of the code that trains.
        data: the data set as trained on.
        model: registered model.
        weights: initial weights of the baseline, by name or path; none trains from scratch.
        seed: of initialisation, shuffling, class draws and annotation subsets.
        epochs: passes over the training split.
        learning_rate: of Adam, constant.
        batch_size: images a step.
        precision: of the training step.
        baseline: id of the baseline trial that a guided trial starts from; none for a baseline.
        guidance: none for a baseline.
        evaluate: (attribution, layer) pairs judged every epoch, sorted; empty for a baseline.
    """

    numerics: PositiveInt
    data: DataConfig
    model: Name
    weights: str | None
    seed: Annotated[Integer, Field(ge=0, lt=2**63)]
    epochs: PositiveInt
    learning_rate: PositiveNumber
    batch_size: PositiveInt
    precision: Literal["fp32", "bf16"]
    baseline: str | None
    guidance: GuidanceConfig | None
    evaluate: tuple[EvaluationPair, ...]

    @property
    def kind(self) -> Literal["baseline", "guided"]:
        """Whether the trial is guided."""
        return "guided" if self.guidance else "baseline"

    @property
    def trial_id(self) -> str:
        """Sixteen hex digits of the canonical configuration."""
        required = {name for name, field in type(self).model_fields.items() if field.is_required()}
        later = self.model_dump(mode="json", exclude=required, exclude_defaults=True)
        return _hash({**self.model_dump(mode="json", include=required), **later})

    @property
    def first_epoch(self) -> int:
        """Return 0 for a guided trial, which evaluates its baseline first, else 1."""
        return 0 if self.guidance else 1

    @property
    def label(self) -> str:
        """A short description for people; no identity."""
        if self.guidance is None:
            return f"{self.model} baseline s{self.seed}"
        g = self.guidance
        extra = [f"f{g.annotated_fraction:g}"] if g.annotated_fraction < 1 else []
        extra += [f"d{g.box_dilation:g}"] if g.box_dilation else []
        extra += [g.task] if g.task else []
        parts = [f"{self.model} {g.attribution}@{g.layer} {g.loss} λ={g.localization_weight:g}"]
        return " ".join([*parts, *extra, f"s{self.seed}"])


class Runtime(Frozen):
    """What a trial needs to know that does not change its results.

    Attributes:
        store: URI of the result store.
        data_root: folder of the data set; none lets a synthetic one choose its place.
        cache: folder for decoded arrays on each node; none for the user's cache folder.
        device: `auto` takes a GPU where the runner gave one.
        threads: CPU threads of a trial, from its CPU request.
        objectives: decide which epochs' weights are kept.
        imports: modules to import first, which register the user's own variants.
        deterministic: ask PyTorch for deterministic kernels, as far as it has them.
        run: nonce of the driver that started the trial.
        version: of this package where the driver runs; a node must have the same.
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


def parse(model: type[BaseModel], value: Any, source: str) -> Any:
    """Validate `value` as `model`, turning the first thing wrong into one sentence.

    Args:
        model: pydantic model.
        value: parsed YAML or JSON.
        source: file name for the sentence.

    Raises:
        InputError: names the source, the key, the value and what is allowed.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{source}: {describe(model, error)}") from None


def describe(model: type[BaseModel], error: ValidationError) -> str:
    """Say in one sentence what the first error of a validation is about."""
    # A misspelt key is most often why another one is missing, so it comes first; of the kinds that
    # a value may be, the one that it nearly is has a sentence of ours.
    order = {"extra_forbidden": 0, "value_error": 1}
    first = min(error.errors(), key=lambda item: order.get(item["type"], 2))
    # What pydantic calls such a kind stands in brackets.
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
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _hash(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
