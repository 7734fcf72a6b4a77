"""Networks of torchvision, timm and bcos by name, such as "timm/vit_small_patch16_224"."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from mg_core.errors import InputError
from mg_core.models.sources import DEFINITION, networks, published_weights

if TYPE_CHECKING:
    from mg_core.models.base import Model
    from mg_core.models.weights import WeightFile

LAYERS = ("mid1", "mid2", "mid3", "final")
"""The study's names of guidance layers, from the first to the last."""
STANDARD = "standard_"
"""How the names of networks in the `bcos` package begin that are not B-cos networks."""


@dataclass(frozen=True)
class LibraryModel:
    """A network of a library, with the attributes of a declared model.

    Its guidance layers are found when it is built, see `mg_core.models.stages`; any submodule's
    dotted name is a layer, too.

    Attributes:
        library: "torchvision", "timm" or "bcos".
        network: its name there.
    """

    library: str
    network: str

    gflops = 4.0
    """As for a ResNet-50; measured times replace the estimate once there are any."""

    @property
    def name(self) -> str:
        """Name in a sweep file."""
        return f"{self.library}/{self.network}"

    @property
    def family(self) -> str:
        """The family, which decides which attributions mean something."""
        is_bcos = self.library == "bcos" and not self.network.startswith(STANDARD)
        return "bcos" if is_bcos else "vanilla"

    @property
    def guidance_layers(self) -> Mapping[str, str]:
        """The names of the guidance layers; their modules are known when the network is built."""
        return dict.fromkeys(LAYERS, "")

    @cached_property
    def pretrained(self) -> Mapping[str, WeightFile]:
        """Published weights by the library's names; "imagenet" is the library's default."""
        return published_weights(self.library, self.network)

    def __call__(self, num_classes: int, image_size: int | None = None) -> Model:
        """Build the network with a new head.

        Args:
            num_classes: number K of logits.
            image_size: side of the images, for networks that are built for one size.
        """
        build = resolve_name("mg_core.models.networks:build")
        model: Model = build(self, num_classes, image_size)
        return model


def family_of(name: str) -> str:
    """Return the family of a model, by its name alone."""
    library, _, network = name.partition("/")
    return LibraryModel(library, network).family if network else name.split("_")[0]


def is_of_library(name: str) -> bool:
    """Say whether a model's name is that of a library's network."""
    return "/" in name


def library_model(name: str) -> LibraryModel:
    """Return the network of a library by its name, without importing the library.

    Raises:
        InputError: the library or the network is unknown, or the library is not installed.
    """
    library, _, network = name.partition("/")
    if library not in DEFINITION:
        raise InputError(
            f"unknown model {name!r}: {library!r} is no library of networks; choose from "
            f"{', '.join(DEFINITION)}"
        )
    known = networks(library)
    if network in known:
        return LibraryModel(library, network)
    plain, _, tag = network.partition(".")
    if plain in known and tag:
        raise InputError(
            f"model {name!r}: {tag!r} names weights; write model: {library}/{plain} and "
            f"weights: {tag}"
        )
    close = [f"{library}/{other}" for other in near(network, known)]
    raise InputError(
        f"unknown model {name!r}: {library} has no network {network!r}"
        + (f"; did you mean {' or '.join(close)}?" if close else f" among its {len(known)}")
    )


def near(name: str, known: Collection[str], cutoff: float = 0.6) -> list[str]:
    """Return up to three known names that begin like one, or else are like it.

    Args:
        name: what somebody has written.
        known: names that there are.
        cutoff: how like, from 0 to 1, as `difflib.get_close_matches` has it.

    Example:
        >>> near("vit_tny", ["gcvit_tiny", "vit_tiny_patch16_224", "vit_tiny_patch16_384"])
        ['vit_tiny_patch16_224', 'vit_tiny_patch16_384']
    """
    # Names of networks end in sizes that are easily left out.
    begins: dict[str, list[str]] = {}
    for other in known:
        for start in {other[: len(name)], other[: len(name) + 1]}:
            begins.setdefault(start, []).append(other)
    if best := difflib.get_close_matches(name, begins, n=1, cutoff=0.85):
        return begins[best[0]][:3]
    return difflib.get_close_matches(name, known, n=3, cutoff=cutoff)


def near_in_libraries(name: str) -> list[str]:
    """Return networks of the libraries that are installed, called like a name without a library."""
    found: dict[str, Collection[str]] = {}
    for library in DEFINITION:
        with contextlib.suppress(InputError):
            found[library] = networks(library)
    exact = [f"{library}/{name}" for library, known in found.items() if name in known]
    close = [f"{lib}/{n}" for lib, known in found.items() for n in near(name, known, 0.85)]
    return exact or close[:3]
