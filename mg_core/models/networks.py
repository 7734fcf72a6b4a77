"""Networks of libraries, built with a new head and filled with the libraries' weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mg_core.attributions.network import in_mode
from mg_core.errors import InputError
from mg_core.models.base import IMAGENET_MEAN, IMAGENET_STD, Model, unit_range
from mg_core.models.stages import find_layers
from mg_core.models.weights import fill, read_state

if TYPE_CHECKING:
    from mg_core.models.library import LibraryModel

USUAL_SIZE = 224
"""Side of the images with which layers are looked for."""
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Keys of classifiers beside the main one, which published files hold and our networks lack."""
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


@dataclass(frozen=True)
class Normalised:
    """Turns images (B, 3, H, W) into inputs, by the mean and deviation that a network wants."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __call__(self, images: Tensor) -> Tensor:
        """Encode uint8 images, or floating-point ones in [0, 1]."""
        images = unit_range(images)
        mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std


def six_channels(images: Tensor) -> Tensor:
    """Turn images (B, 3, H, W) into [r, g, b, 1 − r, 1 − g, 1 − b], not normalised."""
    images = unit_range(images)
    return torch.cat([images, 1 - images], 1)


def build(variant: LibraryModel, num_classes: int, image_size: int | None) -> Model:
    """Build a network with a new head, its encoding and its guidance layers.

    Raises:
        InputError: the library cannot build the network for images of this size.
    """
    model = _built(variant, num_classes, image_size)
    own = cast("Any", model)
    own.family = variant.family
    own.encode = _encoding(variant, model)
    own.guidance_layers = _layers(variant, image_size)
    return cast("Model", model)


@lru_cache(maxsize=32)
def _layers(variant: LibraryModel, image_size: int | None) -> Mapping[str, str]:
    """Find guidance layers once: they follow from the architecture alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # No layer has so odd a number of channels, so that the classifier stands out.
        model = _built(variant, 17, image_size)
        usual = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, USUAL_SIZE))
        sizes = [usual[1], *([image_size] if image_size else [])]
        # Networks that take any size have the same layers at all sizes; others take theirs alone.
        for number, size in enumerate(sizes, start=1):
            inputs = _encoding(variant, model)(torch.rand(1, 3, size, size))
            try:
                found = find_layers(model, inputs)
                break
            except _ERRORS as error:
                if number == len(sizes):
                    raise _cannot(variant, size, "run on", error) from None
        if image_size and image_size != size:
            inputs = _encoding(variant, model)(torch.rand(1, 3, image_size, image_size))
            try:
                with torch.no_grad(), in_mode(model, training=False):
                    model(inputs)
            except _ERRORS as error:
                raise _cannot(variant, image_size, "run on", error) from None
        return found


# Libraries raise errors of many types for sizes that they do not support.
_ERRORS = (AssertionError, RuntimeError, TypeError, ValueError, ImportError, IndexError)


def _cannot(variant: LibraryModel, size: int | None, what: str, error: BaseException) -> InputError:
    images = f"{what} images of {size} pixels" if size else "be built"
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"model {variant.name!r} cannot {images}: {reason[:300]}")


def _built(variant: LibraryModel, num_classes: int, image_size: int | None) -> nn.Module:
    try:
        return BUILDERS[variant.library](variant.network, num_classes, image_size)
    except _ERRORS as error:
        raise _cannot(variant, image_size, "be built for", error) from None


def _torchvision(network: str, num_classes: int, image_size: int | None) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {}
    if network in AUXILIARY:
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    if image_size and network.startswith("vit_"):
        options["image_size"] = image_size
    if image_size and network.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    model: nn.Module = torchvision.models.get_model(
        network, weights=None, num_classes=num_classes, **options
    )
    return model


def _timm(network: str, num_classes: int, image_size: int | None) -> nn.Module:
    import timm

    create: Any = timm.create_model
    options: dict[str, Any] = {"pretrained": False, "num_classes": num_classes}
    model: nn.Module
    if image_size:
        try:
            model = create(network, img_size=image_size, **options)
            return model
        except TypeError as error:  # The network takes any size and has no such option.
            if "img_size" not in str(error):
                raise
    model = create(network, **options)
    return model


def _bcos(network: str, num_classes: int, image_size: int | None) -> nn.Module:
    from bcos.models import pretrained

    from mg_core.models.bcos import LOGIT_BIAS

    model: nn.Module = getattr(pretrained, network)(pretrained=False, num_classes=num_classes)
    for module in model.modules():
        if getattr(module, "logit_bias", None) is not None:
            cast("Any", module).logit_bias = LOGIT_BIAS
    return model


BUILDERS: Mapping[str, Callable[[str, int, int | None], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "bcos": _bcos,
}


def _encoding(variant: LibraryModel, model: nn.Module) -> Callable[[Tensor], Tensor]:
    if variant.family == "bcos":
        return six_channels
    settings = getattr(model, "pretrained_cfg", None) or {}
    return Normalised(
        tuple(settings.get("mean", IMAGENET_MEAN)), tuple(settings.get("std", IMAGENET_STD))
    )


def load_weights(
    model: nn.Module, variant: LibraryModel, path: Path, num_classes: int, image_size: int | None
) -> None:
    """Fill everything but the head from a file of the library's own format, with strict keys.

    Raises:
        InputError: the file cannot be read, or does not fit the network.
    """
    with torch.random.fork_rng(devices=[]):
        other = _built(variant, num_classes + 1, image_size).state_dict()
    own = model.state_dict()
    # What depends on the number of classes is the head, or one of two.
    heads = {key.rpartition(".")[0] for key in own if own[key].shape != other[key].shape}
    state = CONVERTERS[variant.library](model, variant.network, read_state(path))
    fill(model, state, path, tuple(heads), variant.name)


def _converted_torchvision(
    model: nn.Module, network: str, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    if network in AUXILIARY:
        return {k: v for k, v in state.items() if not k.startswith(AUXILIARY[network])}
    if network.startswith("densenet"):
        return {OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}
    if network.startswith("vit_"):
        from torchvision.models.vision_transformer import interpolate_embeddings

        own = cast("Any", model)
        return dict(interpolate_embeddings(own.image_size, own.patch_size, state))
    return state


def _converted_timm(model: nn.Module, network: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    module = sys.modules[type(model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", getattr(module, "_filter_fn", None))
    return dict(convert(state, model)) if convert else state


CONVERTERS: Mapping[str, Callable[[nn.Module, str, dict[str, Tensor]], dict[str, Tensor]]] = {
    "torchvision": _converted_torchvision,
    "timm": _converted_timm,
    "bcos": lambda model, network, state: state,
}
