"""Augmentation: transforms of torchvision that carry an image's mask along with its pixels.

What is transformed is the mask of the (dilated) boxes, pixel by pixel, not their corners: after a
rotation it covers what the boxes covered, and no more. Where a mask has no pixel left, the image
has no box at that step. Labels stay those of the image.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from mg_core.counter import digest
from mg_core.errors import InputError
from mg_core.recipe import Named, Transform
from mg_core.registry import named_object

Guard = Callable[[str], AbstractContextManager[Any]]
"""A context for a transform of a name."""

TRIES = 8
"""Times that a pipeline is tried on a picture before a trial uses it."""


class Augmentation:
    """The transforms of a trial's training images.

    Args:
        transforms: names of classes of `torchvision.transforms.v2`, in words with underscores, or
            dotted names of others, with their arguments. A size that is not given is the trained
            one.
        size: side of the trained images in pixels.
        seed: seed of the trial.

    Raises:
        InputError: a transform does not exist, does not take its arguments, does not carry masks
            along, or leaves images of another size.
    """

    def __init__(self, transforms: Sequence[Named], size: int, seed: int) -> None:
        self._steps = [(transform.name, _built(transform, size)) for transform in transforms]
        self._size, self._seed = size, seed
        self._try()

    def __call__(
        self,
        images: Tensor,
        masks: Tensor,
        annotated: NDArray[np.int64],
        epoch: int,
        ids: NDArray[np.int64],
        is_outside: bool = False,
    ) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        """Transform the images of a batch, and the masks of those that are annotated.

        What is drawn for an image depends on (seed, epoch, image) alone.

        Args:
            images: (B, 3, S, S) uint8.
            masks: (R, S, S) bool, of the annotated images.
            annotated: (R,) rows of the annotated images.
            epoch: number of the epoch.
            ids: (B,) numbers of the images in their split.
            is_outside: whether a mask is the rest of the image, outside the boxes.

        Returns:
            Images and masks of the same shapes, and (R,) whether anything is left of the boxes
            (and of what is outside them, if that is the mask). What comes from outside an image
            is in no mask.
        """
        place = {int(row): number for number, row in enumerate(annotated)}
        layers = torch.stack([masks, ~masks] if is_outside else [masks], 1)
        images = images.clone()
        unseen = torch.zeros_like(images[0, :1], dtype=torch.bool)
        for row, image_id in enumerate(ids):
            number = place.get(row)
            # Draws of a transform may depend on what it is given, so there is always a mask.
            mask = unseen if number is None else layers[number]
            images[row], mask = self._one(images[row], mask, "augment", epoch, int(image_id))
            if number is not None:
                layers[number] = mask
        return images, layers[:, 0], layers.any((2, 3)).all(1).numpy()

    def _one(
        self, image: Tensor, mask: Tensor, *key: int | str, guard: Guard = nullcontext
    ) -> tuple[Tensor, Tensor]:
        found: tuple[Any, Any] = (tv_tensors.Image(image), tv_tensors.Mask(mask))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Some warn that they leave masks as they are, which is right: they move no pixel.
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(digest(self._seed, *key) >> 1)
            for name, step in self._steps:
                with guard(name):
                    found = _checked(name, step(*found))
        made, carried = (tensor.as_subclass(Tensor) for tensor in found)
        if made.shape != image.shape:
            channels, height, width = made.shape
            raise InputError(
                f"images end with {channels} channels and {width} × {height} pixels, but are "
                f"trained with 3 and {self._size} × {self._size}"
            )
        if made.dtype != torch.uint8:
            made = made.mul(255).round().clamp(0, 255).to(torch.uint8)
        return made, carried.bool()

    def _try(self) -> None:
        size = self._size
        image = torch.arange(3 * size * size).reshape(3, size, size).remainder(256).byte()
        mask = torch.zeros(1, size, size, dtype=torch.bool)
        mask[:, : (size + 1) // 2] = True
        for number in range(TRIES):
            self._one(image, mask, "try", number, guard=_refusing)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Say that a transform does not take an image with a mask, whatever it raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} does not take images with masks: {_brief(error)}") from None


def _checked(name: str, found: Any) -> tuple[Any, Any]:
    """Refuse what a transform returns, if it is no image with its mask."""
    made, carried = found
    is_pair = isinstance(made, Tensor) and isinstance(carried, Tensor)
    if not is_pair or made.shape[-2:] != carried.shape[-2:]:
        raise InputError(f"{name} does not carry masks along with images")
    if made.dtype != torch.uint8 and not 0 <= float(made.min()) <= float(made.max()) <= 1:
        raise InputError(f"{name} leaves images that are neither bytes nor in [0, 1]")
    return made, carried


def _built(transform: Named, size: int) -> v2.Transform:
    """Return the transform of a name, with the trained size where it needs one.

    Raises:
        InputError: there is none, or it does not take its arguments.
    """
    name, arguments = transform.name, dict(transform.arguments)
    made = _transform_class(name)
    wanted = inspect.signature(made).parameters
    for key in ("size", "target_size"):
        if key in wanted and wanted[key].default is inspect.Parameter.empty:
            arguments.setdefault(key, [size, size])
    if "transforms" in wanted and isinstance(arguments.get("transforms"), list):
        arguments["transforms"] = [_built(_named(one), size) for one in arguments["transforms"]]
    try:
        if isinstance(arguments.get("interpolation"), str):  # YAML has no other word for it.
            arguments["interpolation"] = v2.InterpolationMode(arguments["interpolation"])
        return made(**arguments)
    except Exception as error:  # Classes check their arguments in many ways.
        allowed = ", ".join(wanted) or "none"
        raise InputError(f"{name}: {_brief(error)}; its arguments are {allowed}") from None


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= 200 else f"{text[:197]}..."


def _named(value: Any) -> Named:
    try:
        found: Named = TypeAdapter(Transform).validate_python(value)
    except ValidationError as error:
        raise InputError(str(error.errors()[0]["msg"])) from None
    return found


def _transform_class(name: str) -> Callable[..., v2.Transform]:
    found: Any = None
    if "." in name:
        found = named_object(name)
        known: Mapping[str, Any] = {}
    else:
        known = _classes()
        found = known.get(name.replace("_", ""))
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        close = difflib.get_close_matches(name.replace("_", ""), known, n=1)
        hint = f" (did you mean {known[close[0]].__name__}?)" if close else ""
        raise InputError(
            f"unknown transform {name!r}{hint}; choose a class of torchvision.transforms.v2"
        )
    return found


def _classes() -> dict[str, Any]:
    """Return the transforms of torchvision by their names in small letters without underscores."""
    classes = (found for found in vars(v2).values() if isinstance(found, type))
    return {found.__name__.lower(): found for found in classes if issubclass(found, v2.Transform)}
