"""The registry of models, and how one is declared without importing what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mg_core.registry import Registry

if TYPE_CHECKING:
    from mg_core.models.base import Model
    from mg_core.models.weights import WeightFile


@dataclass(frozen=True)
class Architecture:
    """A model that is imported when it is built: planning a sweep asks for the rest alone.

    Attributes:
        build: number of classes -> model with initial values.
        family: as of `Model`, and so are the others.
        guidance_layers: name in the study -> dotted name of the submodule.
        head: dotted name of the classification layer.
        pretrained: name -> published weights.
    """

    build: Callable[[int], Model]
    family: str
    guidance_layers: Mapping[str, str]
    head: str
    pretrained: Mapping[str, WeightFile] = field(default_factory=dict)

    def __call__(self, num_classes: int) -> Model:
        """Build the model, which then knows its layers and head by name."""
        model = self.build(num_classes)
        for name in ("family", "guidance_layers", "head"):
            setattr(model, name, getattr(self, name))
        return model

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """Refuse to be a base class: what is built knows its class, and this does not.

        Raises:
            TypeError: says what to subclass.
        """
        raise TypeError(
            f"{self.build.__name__} is declared, not a class; subclass what it builds, such as "
            "mg_core.models.resnet.TinyResNet or mg_core.models.Model"
        )


MODELS: Registry[Architecture | type[Model]] = Registry("model")
"""The variants; `build_model` makes one with or without pretrained weights."""


def architecture(
    family: str,
    guidance_layers: Mapping[str, str],
    head: str = "fc",
    pretrained: Mapping[str, WeightFile] | None = None,
) -> Callable[[Callable[[int], Model]], Architecture]:
    """Return a decorator that makes an `Architecture` of the function that builds it."""

    def declare(build: Callable[[int], Model]) -> Architecture:
        return Architecture(build, family, guidance_layers, head, pretrained or {})

    return declare
