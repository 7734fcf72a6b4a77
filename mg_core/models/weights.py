"""Pretrained weights by name, address or path: found, verified and loaded with strict keys."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from filelock import FileLock

from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMEOUT = 60  # seconds without an answer from the publisher
CHUNK = 1 << 20
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^/]*$")
CHECKSUM = re.compile(r"sha256=([0-9a-fA-F]{8,64})")


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        url: where its publisher offers it.
        sha256: leading hex digits of its digest; none where the publisher gives no digest.
    """

    url: str
    sha256: str | None

    @classmethod
    def named(cls, url: str) -> WeightFile:
        """Take the checksum from the file's name, as `torch.hub` does: `resnet18-f37072fd.pth`.

        Raises:
            InputError: the name holds none.
        """
        if not (found := HASH_IN_NAME.search(urllib.parse.urlsplit(url).path)):
            raise InputError(
                f"weights {url!r}: no checksum; end the address in '#sha256=' and hex digits"
            )
        return cls(url, found[1])


def find_weights(weights: str, pretrained: Mapping[str, WeightFile]) -> Path:
    """Return a verified local file; downloads end up in the checkpoint folder of `torch.hub`.

    Args:
        weights: a name in `pretrained`, an http(s) address or a path; the latter two may end in
            `#sha256=` and at least eight hex digits. An address must, unless its file name holds
            the digits as those of `torch.hub` do.
        pretrained: published weights of the model by name.

    Raises:
        InputError: no such name or file, nothing to download there, or the wrong checksum.
    """
    if weights in pretrained:
        return _download(pretrained[weights])
    address, checksum = _split_checksum(weights)
    if urllib.parse.urlsplit(address).scheme in ("http", "https"):
        file = WeightFile(address, checksum) if checksum else WeightFile.named(address)
        return _download(file)
    path = Path(address).expanduser()
    if not path.is_file():
        names = ", ".join(pretrained) or "no names for this model"
        raise InputError(
            f"weights {weights!r}: neither a file, an http(s) address nor a name ({names})"
        )
    if checksum:
        _verify(path, checksum, weights)
    return path


def load_backbone(model: nn.Module, path: Path, head: str, name: str) -> None:
    """Fill everything but the classification head from a file, with strict keys.

    The file is a state dict, bare or under "state_dict", with or without the "module." that data
    parallel training puts before every key, as `torch.save` or safetensors write it.

    Args:
        model: gets the weights.
        path: a local file.
        head: dotted name of the head; its entries in the file are left out.
        name: of the model, for people.

    Raises:
        InputError: the file is no state dict, or its keys or shapes are not the model's.
    """
    state = read_state(path)
    backbone = {key: value for key, value in state.items() if not _is_in(key, head)}
    try:
        missing, unexpected = model.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"weights {path}: do not fit model {name!r}: {reason}") from None
    missing = [key for key in missing if not _is_in(key, head)]
    for problem, keys in (("lacks", missing), ("has unknown", unexpected)):
        if keys:
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise InputError(
                f"weights {path}: do not fit model {name!r}: the file {problem} {shown}"
            )


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by key, unwrapped, without running any code in it.

    Raises:
        InputError: the file cannot be read, or is no state dict.
    """
    import torch  # Here and below, so that a plan knows names of weights without it.

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"weights {path}: cannot be read: {reason}") from None
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # derives from Exception alone
            raise
        raise InputError(f"weights {path}: cannot be read: {error}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not (
        isinstance(content, Mapping)
        and content
        and all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise InputError(f"weights {path}: not a state dict of tensors")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _is_in(key: str, module: str) -> bool:
    return key.startswith(f"{module}.")


def _split_checksum(weights: str) -> tuple[str, str | None]:
    address, separator, fragment = weights.rpartition("#sha256=")
    if not separator:
        return weights, None
    if not (found := CHECKSUM.fullmatch(f"sha256={fragment}")):
        raise InputError(f"weights {weights!r}: '#sha256=' wants 8 to 64 hex digits")
    return address, found[1].lower()


def _download(file: WeightFile) -> Path:
    """Fetch a file once per machine; other trials on the node wait for it."""
    import torch

    folder, locks = (Path(torch.hub.get_dir()) / name for name in ("checkpoints", "locks"))
    path = folder / Path(urllib.parse.unquote(urllib.parse.urlsplit(file.url).path)).name
    try:
        for needed in (folder, locks):
            needed.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"weights {file.url}: no place for them: {error}") from None
    with FileLock(locks / f"{path.name}.lock"):
        if not path.is_file():
            # One fixed name under the lock: whatever a killed download left is overwritten.
            partial = path.with_name(f"{path.name}.partial")
            try:
                _fetch(file.url, partial)
                _verify(partial, file.sha256, file.url)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        else:
            _verify(path, file.sha256, str(path))
    return path


def _fetch(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "model-guidance-sweeps"})
    try:
        with (
            urllib.request.urlopen(request, timeout=TIMEOUT) as response,
            open(target, "wb") as out,
        ):
            expected = response.headers.get("Content-Length")
            while chunk := response.read(CHUNK):
                out.write(chunk)
            if expected is not None and out.tell() != int(expected):
                raise InputError(
                    f"weights {url}: the download broke off after {out.tell()} of {expected} bytes"
                )
    except (urllib.error.URLError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"weights {url}: the download failed: {error}") from None


def _verify(path: Path, sha256: str | None, source: str) -> None:
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if not digest.hexdigest().startswith(sha256.lower()):
        raise InputError(
            f"weights {source}: wrong checksum, sha256 {digest.hexdigest()[: len(sha256)]} "
            f"instead of {sha256}"
        )
