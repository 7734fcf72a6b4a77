"""Values of a training recipe: variants that are named with their arguments, and early stopping."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)

from mg_core.columns import STOPPABLE
from mg_core.errors import InputError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a word begins inside a name such as `RandomResizedCrop`."""
SHORT = {
    name: f"random_{name}"
    for name in (
        *("horizontal_flip", "vertical_flip", "rotation", "affine", "perspective", "erasing"),
        *("autocontrast", "equalize", "solarize", "posterize", "adjust_sharpness"),
    )
}
"""Names of transforms without `random_`, of which torchvision has no other."""

JITTER = {"brightness": 0.4, "contrast": 0.4, "hue": 0.1, "saturation": 0.4}
"""What `color_jitter` alone stands for: torchvision's own defaults change nothing."""


def number(value: Any) -> Any:
    """Return a text such as 5e-4, which YAML 1.1 reads as no number, as one; others as they are."""
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value.strip()) else value


class Named(BaseModel):
    """A variant with its arguments, written `name` or `{name: {argument: value}}`.

    Equal variants have one form, whichever way they were written: arguments are sorted, and whole
    numbers have no decimal point.

    Attributes:
        name: of the variant.
        arguments: plain values by name; those not given have the variant's own defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, Named):
            return value.model_copy().__dict__
        name, arguments = value, None
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, arguments),) = value.items()
        if not isinstance(name, str) or not isinstance(arguments, Mapping | None):
            raise ValueError(f"a name or {{name: {{argument: value}}}} is wanted, not {value!r}")
        return {"name": name, "arguments": _plain(dict(arguments or {}))}

    @model_serializer
    def _written(self) -> Any:
        return {self.name: self.arguments} if self.arguments else self.name

    def __hash__(self) -> int:
        return hash((self.name, *self.arguments))

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.arguments.items())
        return f"{self.name}({shown})" if shown else self.name


def _plain(value: Any) -> Any:
    """Return a value of an argument in the one form that equal values have.

    Raises:
        ValueError: it is not made of numbers, texts, lists and mappings.
    """
    value = number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        raise ValueError(f"an argument is a finite number, not {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"an argument is a number, a text, a list or a mapping, not {value!r}")


def named(text: str) -> Named:
    """Return a variant without arguments."""
    return Named.model_validate(text)


def _optimizer(value: Named) -> Named:
    """Give a class of `torch.optim` its one name: `adam` for `Adam` and `torch.optim.Adam`."""
    name = value.name.removeprefix("torch.optim.")
    return value if "." in name else value.model_copy(update={"name": name.lower()})


def _transform(value: Named) -> Named:
    """Give a class of `torchvision.transforms.v2` its one name: words with underscores."""
    name = value.name.removeprefix("torchvision.transforms.v2.")
    if "." in name:
        return value
    words = CAPITAL.sub("_", name).lower()
    is_alone = words == "color_jitter" and not value.arguments
    arguments = dict(JITTER) if is_alone else value.arguments
    return value.model_copy(update={"name": SHORT.get(words, words), "arguments": arguments})


def _annotation(value: Any) -> Any:
    """Take a number alone for the argument `count`, as in `{points: 5}`."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, given),) = value.items()
        if isinstance(number(given), int | float) and not isinstance(given, bool):
            return {name: {"count": given}}
    return value


def annotation_of(value: Any) -> Named:
    """Return an annotation as it is written in a sweep file.

    Raises:
        InputError: it is neither a name nor a name with arguments.
    """
    try:
        return Named.model_validate(_annotation(value))
    except ValidationError as error:
        raise InputError(f"annotation: {error.errors()[0]['ctx']['error']}") from None


def with_one_dilation(values: Any) -> Any:
    """Return the values of a guidance in which `box_dilation` alone says how far boxes grow.

    Of the two ways to write that, `box_dilation` is the older one, which ids are made of.

    Raises:
        ValueError: both are given, or what is annotated is no box.
    """
    if not isinstance(values, Mapping) or "annotation" not in values:
        return values
    annotation, dilation = annotation_of(values["annotation"]), values.get("box_dilation")
    arguments = dict(annotation.arguments)
    share = arguments.pop("dilate", 0) if annotation.name == "box" else 0
    if dilation and (share or annotation.name != "box"):
        raise ValueError(f"box_dilation dilates boxes, and the annotation is {annotation}")
    rest = annotation.model_copy(update={"arguments": arguments}) if share else annotation
    return {**values, "annotation": rest, "box_dilation": share or dilation}


def _measured(name: str) -> str:
    if name not in STOPPABLE:
        raise ValueError(f"training cannot stop on {name!r}; choose from {', '.join(STOPPABLE)}")
    return name


Optimizer = Annotated[Named, AfterValidator(_optimizer)]
Transform = Annotated[Named, AfterValidator(_transform)]
Annotation = Annotated[Named, BeforeValidator(_annotation)]


class EarlyStop(BaseModel):
    """Training stops once a validation metric has not improved for some epochs.

    Attributes:
        metric: of the catalogue, without the split; that of the trial's own attribution and layer
            where it has one for each.
        patience: epochs without improvement after which training stops.
        min_change: least change that counts as an improvement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Annotated[str, AfterValidator(_measured)]
    patience: Annotated[int, Field(strict=True, gt=0)]
    min_change: Annotated[float, BeforeValidator(number), Field(ge=0, allow_inf_nan=False)] = 0.0

    def __str__(self) -> str:
        change = f", min_change {self.min_change:g}" if self.min_change else ""
        return f"{self.metric}, patience {self.patience}{change}"
