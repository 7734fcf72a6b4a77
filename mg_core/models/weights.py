"""Pretrained weights by name, address or path: found, verified and loaded with strict keys."""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from urllib.request import url2pathname

import numpy as np

from mg_core.download import ADDRESS, fetch, verify
from mg_core.errors import InputError, NodeError
from mg_core.models.unreadable import unreadable

if TYPE_CHECKING:
    from torch import Tensor, nn

LOGGER = logging.getLogger(__name__)

KEY = "weights"
"""Key of a sweep file that names files of weights, with which messages begin."""
WRAPPERS = (
    *("state_dict", "model_state_dict", "model"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
"""Keys under which checkpoints hold their state dict, the most telling first: what was trained,
then the running averages of it."""
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        url: http, https or file address, or a path.
        sha256: leading hex digits of its digest; none if the publisher gives no digest.
    """

    url: str
    sha256: str | None

    @classmethod
    def named(cls, url: str) -> WeightFile:
        """Take the checksum from the file's name, as `torch.hub` does: `resnet18-f37072fd.pth`.

        Raises:
            InputError: the name holds no checksum.
        """
        file = cls(url, None)
        if not (found := HASH_IN_NAME.search(file.name)):
            raise InputError(
                f"weights {url!r}: no checksum; end the address in '#sha256=' and hex digits"
            )
        return replace(file, sha256=found[1])

    @property
    def name(self) -> str:
        """Name of the file in the checkpoint folder of `torch.hub`."""
        return PurePosixPath(unquote(re.split("[?#]", self.url)[0])).name


def find_weights(weights: str, pretrained: Mapping[str, WeightFile], key: str = KEY) -> Path:
    """Return a verified local file; downloads end up in the checkpoint folder of `torch.hub`.

    There they lie under their name if it holds their checksum, else in a folder of their own.

    `weights` is a name in `pretrained`, an http(s) address or a path. An address or path may end
    in `#sha256=` and 8 to 64 leading hex digits of the digest; an address needs them unless its
    file name holds them, as in `resnet18-f37072fd.pth`. Messages begin with `key`.

    Raises:
        InputError: there is no such name or file, the download fails, or the checksum is wrong.
    """
    file = pretrained.get(weights) or _parse(weights)
    checksum = file.sha256 and f"sha256={file.sha256}"
    if ADDRESS.match(file.url):
        path = _cached(file)
        try:
            fetch(file.url, path, checksum)
        except NodeError:
            raise
        except InputError as error:
            raise InputError(
                f"{key} {weights!r}: {error}; where there is no network, give the path of a file"
            ) from None
        return path
    is_uri = file.url.startswith("file://")
    path = Path(url2pathname(file.url[len("file://") :]) if is_uri else file.url)
    try:
        path = path.expanduser()
        is_there = path.is_file()
    except (OSError, RuntimeError):  # The name is too long, or of a user who does not exist.
        is_there = False
    if not is_there:
        names = ", ".join(pretrained) or "no names for this model"
        allowed = "a path, an http(s) address or "
        allowed += f"a name ({names})" if key == KEY else "a result store"
        raise InputError(f"{key} {weights!r}: there is no file {path}; give {allowed}")
    verify(path, checksum, f"{key} {path}")
    return path


def _cached(file: WeightFile) -> Path:
    """Return where a download lies: under its name alone only if the name holds its checksum."""
    import torch  # Here and below, so that planning a sweep does without it.

    if not file.name.isprintable():
        raise InputError(f"weights {file.url!r}: the address ends in no file name")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found, digits = HASH_IN_NAME.search(file.name), file.sha256 or ""
    if found and digits and (found[1].startswith(digits) or digits.startswith(found[1])):
        return folder / file.name
    # Publishers share names such as model.safetensors, and replace files.
    key = hashlib.sha256(f"{file.url}#{file.sha256}".encode()).hexdigest()[:16]
    return folder / key / file.name


def _parse(weights: str) -> WeightFile:
    address, separator, digits = weights.rpartition("#sha256=")
    if not separator:
        return WeightFile.named(weights) if ADDRESS.match(weights) else WeightFile(weights, None)
    if not re.fullmatch("[0-9a-fA-F]{8,64}", digits):
        raise InputError(f"weights {weights!r}: '#sha256=' wants 8 to 64 hex digits")
    return WeightFile(address, digits.lower())


def load_backbone(model: nn.Module, path: Path, head: str, name: str) -> None:
    """Fill everything but the classification head from a file, with strict keys.

    `torch.save` or safetensors wrote a state dict to the file, bare or beside other things in a
    mapping. All keys may begin with the same words, such as the "module." of data parallel
    training. The entries of `head`, a dotted name, are left out.

    Raises:
        InputError: the file is no state dict, its keys, shapes or types do not fit the model, or
            its values are not finite.
    """
    fill(model, read_state(path), path, (head,), name)


def fill(
    model: nn.Module, state: Mapping[str, Tensor], path: Path, heads: Sequence[str], name: str
) -> None:
    """Fill everything but the heads from a state dict that a file holds, as `load_backbone` does.

    Raises:
        InputError: keys, shapes or types do not fit the model, or the values are not finite.
    """
    inside = tuple(f"{head}." for head in heads)
    source = f"{KEY} {path}"
    state = _without_prefix(dict(state), model.state_dict(), source)
    backbone = {key: value for key, value in state.items() if not key.startswith(inside)}
    _fill(model, backbone, source, name, without=inside)


def load_network(model: nn.Module, path: Path, num_classes: int, name: str, key: str = KEY) -> None:
    """Fill a whole network, its classification head included, from a file as `load_backbone` reads.

    Messages begin with `key`.

    Raises:
        InputError: as for `load_backbone`; or the head is missing, or has other classes.
    """
    wanted, source = model.state_dict(), f"{key} {path}"
    state = _without_prefix(read_state(path, key), wanted, source)
    for entry, value in wanted.items():
        found, shape = tuple(state[entry].shape) if entry in state else (), tuple(value.shape)
        # A layer that differs in this number alone is the classification head.
        if found and found[1:] == shape[1:] and found[:1] != shape[:1] == (num_classes,):
            raise InputError(
                f"{source}: do not fit the data: {entry} has shape {found}, for {found[0]} "
                f"classes, where {shape} is wanted, for {num_classes}"
            )
    _fill(model, state, source, name)


def _fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    name: str,
    without: tuple[str, ...] = (),
) -> None:
    """Copy a state dict into a model, whose keys it must have; those under `without` may lack."""
    wanted = model.state_dict()
    for key, value in state.items():
        if key in wanted:
            _check_values(value, wanted[key], f"{source}: {key}")
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = _other_shapes(state, wanted) or str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{source}: do not fit model {name!r}: {reason}") from None
    missing = [key for key in missing if not key.startswith(without)]
    problems = {"lacks": missing, "has unknown": unexpected}
    said = [f"{problem} {_shown(keys)}" for problem, keys in problems.items() if keys]
    if said:
        raise InputError(f"{source}: do not fit model {name!r}: the file {' and '.join(said)}")


def _other_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Say which entries of a file have other shapes than those of a model."""
    found = [
        f"{key} has shape {tuple(state[key].shape)}, where {tuple(value.shape)} is wanted"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else ""


def _without_prefix(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Remove a common prefix of the keys, if more of them are the model's then.

    Where every key of the model is there under one prefix, the entries outside it are not the
    network's: a running average counts its steps, and a loss may have weights of its own.
    """
    fitting: Counter[str] = Counter({"": sum(key in wanted for key in state)})
    for key in state:
        parts = key.split(".")
        for start in range(1, len(parts)):
            if ".".join(parts[start:]) in wanted:
                fitting[".".join(parts[:start]) + "."] += 1
    (prefix, count), *others = fitting.most_common()
    rivals = [other for other, number in others if number == count]
    if count and rivals:
        raise InputError(
            f"{source}: the same keys begin with {prefix!r} and with {rivals[0]!r}; save the "
            f"state dict of one model"
        )
    found = {key.removeprefix(prefix): value for key, value in state.items()}
    if len(found) < len(state):
        raise InputError(f"{source}: holds the same keys with and without {prefix!r}")
    inside = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    return inside if inside.keys() >= wanted.keys() else found


def _check_values(value: Tensor, wanted: Tensor, source: str) -> None:
    """Refuse values that copying would change."""
    if not wanted.is_floating_point():
        return
    if not value.is_floating_point():
        raise InputError(f"{source} holds {value.dtype}, not floating-point numbers")
    if not value.to(wanted.dtype).isfinite().all():
        raise InputError(f"{source} holds values that are not finite as {wanted.dtype}")


def read_state(path: Path, key: str = KEY) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, unwrapped, without running any code in it.

    Which of several networks in it was taken is logged. Messages begin with `key`.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors" or _has_safetensors_header(path):
            content = load_file(path)
        else:
            with torch.serialization.safe_globals(_plain_types()):
                content = torch.load(path, map_location="cpu", weights_only=True)
        state, choice = _unwrapped(content)
        odd = [name for name, value in state.items() if not _is_plain(name, value)]
    except InputError as error:
        raise InputError(f"{key} {path}: {error}") from None
    # Both libraries raise exceptions of many types for broken files.
    except Exception as error:
        raise InputError(f"{key} {path}: {unreadable(path, error)}") from None
    if odd:
        raise InputError(
            f"{key} {path}: the entry {odd[0]!r} is no name with a dense tensor of real numbers"
        )
    if choice:
        LOGGER.warning("%s %s: %s", key, path, choice)
    return state


def _plain_types() -> list[Any]:
    """Return what checkpoints hold beside tensors and is data alone: settings, numbers, arrays."""
    # The modules of NumPy 1 and 2 have other names, and files name them.
    multiarray: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    functions = [
        (function, f"{package}.multiarray.{function.__name__}")
        for function in (multiarray, scalar)
        for package in ("numpy.core", "numpy._core")
    ]
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefdSU"]
    return [argparse.Namespace, np.ndarray, np.dtype, *kinds, *functions]


def _has_safetensors_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unwrapped(content: Any) -> tuple[dict[Any, Tensor], str]:
    """Return the state dict that a file is or holds, and what to say of a choice among several."""
    if _is_state(content):
        return _as_tensors(content), ""
    parts = dict(content) if isinstance(content, Mapping) else {}
    inner = {key: _as_tensors(value) for key, value in parts.items() if _is_state(value)}
    for key in (*WRAPPERS, *(inner if len(inner) == 1 else ())):
        if key in inner:
            others = [repr(other) for other in WRAPPERS if other in inner and other != key]
            choice = (
                f"the network under {key!r} was taken, and not that under {' or '.join(others)}"
            )
            return inner[key], choice if others else ""
    keys = _shown([str(key)[:60] for key in parts])
    raise InputError(f"not a state dict of tensors{f'; its keys are {keys}' if parts else ''}")


def _is_state(value: Any) -> bool:
    import torch

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(tensor, torch.Tensor | np.ndarray) for tensor in value.values())
    )


def _as_tensors(state: Mapping[Any, Any]) -> dict[Any, Tensor]:
    import torch

    return {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}


def _is_plain(key: Any, value: Tensor) -> bool:
    import torch

    return (
        isinstance(key, str)
        and not value.is_nested
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_complex())
    )


def _shown(keys: Sequence[str]) -> str:
    printable = [key if key.isprintable() else ascii(key) for key in keys[:3]]
    return ", ".join(printable) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
