"""The progress of a trial, kept in the footer of its metrics file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mg_core.errors import InputError

FORMAT_VERSION = 1
FOOTER = b"progress"
TAIL_BYTES = 1 << 16
"""Bytes read from the end of a metrics file; only the footers of very long trials have more."""

# Parquet's footer is in Thrift's compact protocol: a key and its value are binary fields 1 and 2 of
# a structure. Each is a header byte, its length as a variable-length integer, and its bytes.
_KEY_AND_HEADER = b"\x18" + bytes([len(FOOTER)]) + FOOTER + b"\x18"


@dataclass(frozen=True)
class Progress:
    """The progress of a trial, as the footer of its metrics file holds it.

    Attributes:
        trial_id: id of the trial.
        attempt: name of the attempt that wrote the file.
        epoch: last committed epoch.
        epochs: last epoch of the trial when it is complete.
        checkpoints: key of the weights of each kept epoch.
        state: key of the newest state to resume from; a complete trial may have kept none.
        front: objectives of the kept epochs, one entry for each evaluated pair.
        seconds: training and validation time of all attempts.
        is_stopped: whether training stopped early, so that the trial is complete before `epochs`.
        zero_maps: share of the maps that were zero everywhere in the last epoch, by (attribution,
            layer) as in "gradcam@final"; pairs without any are left out.
        digests: SHA-256 of each object in `references`; older versions recorded none.
        code: versions of the user's own modules by the first epoch that they computed, see
            `mg_core.store.code`; trials without such modules, and older versions, have none.
        format: version of the store's format.
    """

    trial_id: str
    attempt: str
    epoch: int
    epochs: int
    checkpoints: dict[int, str] = field(default_factory=dict)
    state: str | None = None
    front: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    is_stopped: bool = False
    zero_maps: dict[str, float] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    code: dict[int, dict[str, str]] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    @property
    def is_complete(self) -> bool:
        """Whether every epoch is committed, or training stopped early."""
        return self.is_stopped or self.epoch >= self.epochs

    @property
    def references(self) -> set[str]:
        """Keys of the weights and the state that are in use."""
        return {*self.checkpoints.values(), *([self.state] if self.state else [])}

    def footer(self) -> bytes:
        """Serialise for the footer of a metrics file, with a checksum."""
        values = json.loads(json.dumps(asdict(self)))
        if not self.code:
            del values["code"]
        return json.dumps(values | {"crc": _crc(values)}, sort_keys=True).encode()

    @classmethod
    def read(cls, footer: bytes, source: str) -> Progress:
        """Parse a footer.

        Args:
            footer: bytes that `footer()` made.
            source: key of the metrics file, for the error message.

        Raises:
            InputError: a newer version of this package wrote the file.
            ValueError: the footer is damaged.
        """
        values = json.loads(footer)
        if not isinstance(values, dict) or _crc(values) != values.pop("crc", _crc(values)):
            raise ValueError("the checksum of its progress is wrong")
        if values.get("format", 0) > FORMAT_VERSION:
            raise InputError(
                f"{source}: written in store format {values['format']}, this version reads up to "
                f"{FORMAT_VERSION}; update the package"
            )
        for name in ("checkpoints", "code"):
            values[name] = {int(k): v for k, v in values.get(name, {}).items()}
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def zero_maps_in_words(shares: Mapping[str, float]) -> str:
    """Return a sentence about maps that are zero everywhere; an empty one if there are none."""
    parts = [f"{100 * share:.3g} % of the maps of {pair}" for pair, share in shares.items()]
    return f"{', '.join(parts)} are zero everywhere" if parts else ""


def _crc(values: dict[str, Any]) -> int:
    kept = {name: value for name, value in values.items() if name != "crc"}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def footer_in(tail: bytes) -> bytes | None:
    """Find the progress in the last bytes of a metrics file; none if that needs a Parquet reader.

    A Parquet reader also parses the metadata of sixty columns and takes twenty times as long. The
    status of a large sweep reads thousands of files.
    """
    length = int.from_bytes(tail[-8:-4], "little")
    start = len(tail) - 8 - length
    if tail[-4:] != b"PAR1" or start < 0 or tail.count(_KEY_AND_HEADER, start) != 1:
        return None
    position = tail.index(_KEY_AND_HEADER, start) + len(_KEY_AND_HEADER)
    size, shift = 0, 0
    while position < len(tail):
        byte = tail[position]
        size |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return tail[position : position + size]
    return None
