"""Pretrained weights by name, address or path: found, verified and loaded with strict keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import TYPE_CHECKING
from urllib.parse import unquote
from urllib.request import url2pathname

from mg_core.download import ADDRESS, fetch, verify
from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

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


def find_weights(weights: str, pretrained: Mapping[str, WeightFile]) -> Path:
    """Return a verified local file; downloads end up in the checkpoint folder of `torch.hub`.

    `weights` is a name in `pretrained`, an http(s) address or a path. An address or path may end
    in `#sha256=` and 8 to 64 leading hex digits of the digest; an address needs them unless its
    file name holds them, as in `resnet18-f37072fd.pth`.

    Raises:
        InputError: there is no such name or file, the download fails, or the checksum is wrong.
    """
    file = pretrained.get(weights) or _parse(weights)
    checksum = file.sha256 and f"sha256={file.sha256}"
    if ADDRESS.match(file.url):
        import torch  # Here and below, so that planning a sweep does without it.

        path = Path(torch.hub.get_dir()) / "checkpoints" / file.name
        fetch(file.url, path, checksum)
        return path
    is_uri = file.url.startswith("file://")
    path = Path(url2pathname(file.url[len("file://") :]) if is_uri else file.url).expanduser()
    if not path.is_file():
        names = ", ".join(pretrained) or "no names for this model"
        raise InputError(
            f"weights {weights!r}: there is no file {path}; give a path, an http(s) address or a "
            f"name ({names})"
        )
    verify(path, checksum, f"weights {path}")
    return path


def _parse(weights: str) -> WeightFile:
    address, separator, digits = weights.rpartition("#sha256=")
    if not separator:
        return WeightFile.named(weights) if ADDRESS.match(weights) else WeightFile(weights, None)
    if not re.fullmatch("[0-9a-fA-F]{8,64}", digits):
        raise InputError(f"weights {weights!r}: '#sha256=' wants 8 to 64 hex digits")
    return WeightFile(address, digits.lower())


def load_backbone(model: nn.Module, path: Path, head: str, name: str) -> None:
    """Fill everything but the classification head from a file, with strict keys.

    `torch.save` or safetensors wrote a state dict to the file, bare or under "state_dict", with or
    without the "module." that data parallel training puts before every key. The entries of `head`,
    a dotted name, are left out.

    Raises:
        InputError: the file is no state dict, or its keys or shapes do not fit the model.
    """
    state = read_state(path)
    inside = f"{head}."
    backbone = {key: value for key, value in state.items() if not key.startswith(inside)}
    try:
        missing, unexpected = model.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"weights {path}: do not fit model {name!r}: {reason}") from None
    missing = [key for key in missing if not key.startswith(inside)]
    for problem, keys in (("lacks", missing), ("has unknown", unexpected)):
        if keys:
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise InputError(
                f"weights {path}: do not fit model {name!r}: the file {problem} {shown}"
            )


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by key, unwrapped, without running any code in it."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"weights {path}: cannot be read: {reason}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not (
        isinstance(content, Mapping)
        and content
        and all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise InputError(f"weights {path}: not a state dict of tensors")
    return {str(key).removeprefix("module."): value for key, value in content.items()}
