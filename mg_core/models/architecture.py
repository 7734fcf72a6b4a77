"""The registry of models, and how a model is declared without importing PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from mg_core.errors import InputError
from mg_core.models.library import LAYERS, LibraryModel, library_model, near_in_libraries
from mg_core.models.sources import DEFINITION
from mg_core.registry import Registry, did_you_mean

if TYPE_CHECKING:
    from mg_core.models.base import Model
    from mg_core.models.weights import WeightFile

STAGES = {name: f"layer{stage}" for stage, name in enumerate(LAYERS, start=1)}
"""The guidance layers of a ResNet."""


@dataclass(frozen=True)
class Architecture:
    """A declared model: planning a sweep reads its attributes, and only building imports PyTorch.

    Attributes:
        builder: function or class that takes the number of classes and returns the model, or its
            place as "module:name", which is imported when a model is built.
        family: decides which attributions mean something for the model: "vanilla", "xdnn" or
            "bcos".
        guidance_layers: name in the study ("mid1" … "final") -> dotted name of the submodule.
        gflops: operations of a forward pass at 224 × 224 pixels, in 10⁹; estimates of a sweep's
            time compare models by it.
        pretrained: name -> published weights.
        head: dotted name of the classification layer, which pretrained weights never fill.
        has_attention: whether it is a transformer; none if only building it will tell.
    """

    builder: str | Callable[[int], Model]
    family: str
    guidance_layers: Mapping[str, str]
    gflops: float = 1.0
    pretrained: Mapping[str, WeightFile] = field(default_factory=dict)
    head: str = "fc"
    has_attention: bool | None = None

    def __call__(self, num_classes: int) -> Model:
        """Build the model and give it the declared attributes."""
        build = resolve_name(self.builder) if isinstance(self.builder, str) else self.builder
        model: Model = build(num_classes)
        for name, value in vars(self).items():
            if name != "builder":
                setattr(model, name, value)
        return model

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """Refuse to be a base class: only the built model has a class."""
        raise TypeError(
            "a declared model is not a class; subclass mg_core.models.Model or a network such as "
            "mg_core.models.resnet.TinyResNet"
        )


class Models(Registry["Architecture | type[Model] | LibraryModel"]):
    """The registered models, and those of libraries under names such as "timm/resnet10t"."""

    def __getitem__(self, name: str) -> Architecture | type[Model] | LibraryModel:
        return library_model(name) if self._is_of_library(name) else super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        if not self._is_of_library(name):
            return super().__contains__(name)
        try:
            library_model(str(name))
        except InputError:
            return False
        return True

    def _is_of_library(self, name: object) -> bool:
        return isinstance(name, str) and "/" in name and name not in self._variants

    def _unknown(self, name: str) -> str:
        libraries = ", ".join(f"{library}/…" for library in DEFINITION)
        close = near_in_libraries(str(name))
        hint = f" (did you mean {' or '.join(close)}?)" if close else did_you_mean(name, self)
        choices = f"{', '.join(self)}, or a network of a library: {libraries}"
        return f"unknown model {name!r}{hint}; choose from {choices}"


MODELS = Models("model")
"""All models by name; `build_model` builds one, with or without pretrained weights."""


def architecture(
    family: str, guidance_layers: Mapping[str, str], **others: Any
) -> Callable[[Callable[[int], Model]], Architecture]:
    """Return a decorator that declares what a function builds; `others` as in `Architecture`."""
    return lambda builder: Architecture(builder, family, guidance_layers, **others)
