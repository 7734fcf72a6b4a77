"""Training settings of the two stages: each key has one value, or several as an axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapSerializer,
    WrapValidator,
    model_serializer,
)
from pydantic_core import InitErrorDetails

from mg_core.config import (
    Frozen,
    Name,
    NonNegative,
    PositiveInt,
    PositiveNumber,
    Precision,
    Smoothing,
)
from mg_core.recipe import EarlyStop, Named, Optimizer, Transform

T = TypeVar("T")


def without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse an axis without a value, or with one value twice."""
    if not values:
        raise ValueError("at least one value is wanted")
    return different(values)


def different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list with one value twice."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            shown = repr(value) if isinstance(value, (str, int, float)) else f"'{value}'"
            raise ValueError(f"the value {shown} stands twice in a list")
        seen.add(value)
    return values


def _one_or_several(
    is_several: Callable[[Any], bool],
) -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    """Return a validator that takes a value for a list of one, and names it without a number."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if is_several(value):
            return handler(value)
        try:
            return handler([value])
        except ValidationError as error:
            details = [
                InitErrorDetails(
                    type=item["type"],
                    loc=item["loc"][1:],
                    input=item["input"],
                    ctx=item.get("ctx", {}),
                )
                for item in error.errors()
            ]
            raise ValidationError.from_exception_data(error.title, details) from None

    return validate


def _one_as_itself(values: Any, handler: SerializerFunctionWrapHandler) -> Any:
    written = handler(values)
    return written[0] if written is not None and len(written) == 1 else written


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_list_of_lists(value: Any) -> bool:
    return _is_list(value) and any(map(_is_list, value))


Setting = Annotated[
    tuple[T, ...],
    AfterValidator(without_repeats),
    WrapValidator(_one_or_several(_is_list)),
    WrapSerializer(_one_as_itself),
]
"""One value, or a list of different values as an axis; a single one is written as itself."""

Pipelines = Annotated[
    tuple[tuple[Transform, ...], ...],
    AfterValidator(without_repeats),
    WrapValidator(_one_or_several(_is_list_of_lists)),
    WrapSerializer(_one_as_itself),
]
"""One list of transforms, or a list of such lists as an axis."""


class StageAxes(Frozen):
    """What a block of the grid may set in place of `guided`: each key a value or an axis.

    A key that is null is not set; `[null]` and, for `augment`, `[]` take back what `guided` has.

    Attributes:
        epochs: passes over the training split.
        learning_rate: learning rate before schedule and warm-up.
        batch_size: images per step.
        precision: `fp32`, `tf32`, `bf16`, or `fp16` with a scaled loss. GPUs have `tf32` (operands
            of convolutions and products rounded to 10 bits) and `bf16` since Ampere. CPUs compute
            `tf32` as `fp32`, and `fp16` slowly where they lack instructions for it. Whatever it
            is, validation and test are in single precision.
        optimizer: `adam`, `adamw`, `sgd` or another class of `torch.optim`, or the dotted name of
            a class, with arguments as in `{sgd: {momentum: 0.9, nesterov: true}}`.
        weight_decay: decay of all parameters; by default the optimiser's own, which is 0.01 for
            AdamW and 0 for Adam and SGD.
        schedule: `constant`, `{cosine: {final: 0.0}}`, `{linear: {final: 0.0}}`, which change the
            rate with every step, or `{step: {every: 10, factor: 0.1}}` and `{step: {at: [30,
            40]}}`, which change it after whole epochs; or a registered one.
        warmup_epochs: epochs, or a part of one, in which the rate first rises from 0, with every
            step.
        clip_norm: largest norm of a step's gradient.
        classification_loss: `bce`, `cross_entropy` for data whose images have one label each, or
            a registered one. F1 decides at logit 0 for each class whatever the loss; `map` does
            not depend on that, nor `accuracy`, which is measured where each image has one label.
            A baseline with `cross_entropy` is known by the epoch of its best accuracy, not F1.
        label_smoothing: share of each label that is spread over the classes.
        augment: classes of `torchvision.transforms.v2`, in words with underscores, with arguments
            as in `[{random_resized_crop: {scale: [0.5, 1]}}, {color_jitter: {hue: 0.1}}]`. Boxes
            follow the pixels, and an image whose object is cropped away is not guided at that
            step. They come after `data.horizontal_flip`. `color_jitter` alone means brightness,
            contrast and saturation 0.4 and hue 0.1. The trial's process transforms one image after
            another, in 1 to 6 ms for most transforms of 224 × 224 pixels.
        early_stop: `{metric: f1, patience: 5}`: training stops after so many epochs without a
            better validation value; `min_change` is the least change that counts.
    """

    epochs: Setting[PositiveInt] | None = None
    learning_rate: Setting[PositiveNumber] | None = None
    batch_size: Setting[PositiveInt] | None = None
    precision: Setting[Precision] | None = None
    optimizer: Setting[Optimizer] | None = None
    weight_decay: Setting[NonNegative | None] | None = None
    schedule: Setting[Named] | None = None
    warmup_epochs: Setting[NonNegative] | None = None
    clip_norm: Setting[PositiveNumber | None] | None = None
    classification_loss: Setting[Name] | None = None
    label_smoothing: Setting[Smoothing] | None = None
    augment: Pipelines | None = None
    early_stop: Setting[EarlyStop | None] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v is not None or k not in LATER}


class StageSpec(StageAxes):
    """Training settings of one of the two stages; a key with a list multiplies its trials."""

    epochs: Setting[PositiveInt]
    learning_rate: Setting[PositiveNumber] = (1e-4,)
    batch_size: Setting[PositiveInt] = (64,)
    precision: Setting[Precision] = ("fp32",)


KEYS = tuple(StageAxes.model_fields)
LATER = {*KEYS, "annotation"}
"""Keys that are written only where they are set: older versions read such files too."""


def settings(stage: StageSpec, block: StageAxes | None = None) -> dict[str, tuple[Any, ...]]:
    """Return the values of each key: those of a block of the grid, else those of the stage."""
    found = {key: getattr(block, key, None) or getattr(stage, key) for key in KEYS}
    return {key: values for key, values in found.items() if values}


def combinations(axes: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the values of `TrialConfig` for each combination of the axes."""
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))
