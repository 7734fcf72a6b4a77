"""Checks that a file of a store is complete and belongs to its key."""

from __future__ import annotations

import errno
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from mg_core.columns import OBJECTIVES, PAIR
from mg_core.config import TrialConfig, parse
from mg_core.errors import DamagedError, InputError
from mg_core.store import layout
from mg_core.store.layout import AttemptKey
from mg_core.store.progress import FOOTER, Progress
from mg_core.store.tables import damaged

HEAD_OF_LOG = re.compile(r"\S+ trial (\w+), .*, attempt (\S+)$", re.MULTILINE)


def head_of_log(trial_id: str, label: str, attempt: AttemptKey) -> str:
    """Return the first line of a log."""
    return f"trial {trial_id}, {label}, attempt {attempt}"


def trial_config(text: bytes, key: str) -> TrialConfig:
    """Return the configuration of a trial, once it is the one that its key names."""
    try:
        config = TrialConfig.model_validate_json(text)
    except ValueError:
        try:  # Slower, but its message is one sentence.
            config = parse(TrialConfig, json.loads(text), key)
        except ValueError as error:
            return _of_newer_version(text, key, error)
    if config.trial_id != layout.trial_of(key):
        raise misplaced(key, f"trial {config.trial_id}")
    return config


def _of_newer_version(text: bytes, key: str, error: ValueError) -> TrialConfig:
    """Return a configuration whose further keys are at their defaults, which the id leaves out.

    Raises:
        InputError: a further key is not at its default, so this version cannot know the trial.
        DamagedError: this is no configuration even without its further keys.
    """
    try:
        values, further = json.loads(text), []
        try:
            TrialConfig.model_validate(values)
        except ValidationError as found:
            further = [e["loc"] for e in found.errors() if e["type"] == "extra_forbidden"]
        for *path, name in further:
            place = values
            for part in path:
                place = place[part]
            del place[name]
        config = TrialConfig.model_validate(values)
    except (ValueError, LookupError, TypeError):
        raise damaged(key, error) from None
    if config.trial_id != layout.trial_of(key):
        raise InputError(f"{error}; a newer version of this package wrote it") from None
    return config


def own_progress(metadata: bytes | Mapping[bytes, bytes], key: str) -> Progress:
    """Return the progress that a metrics file holds, once it is the trial's and attempt's own."""
    try:
        footer = metadata if isinstance(metadata, bytes) else metadata[FOOTER]
        progress = Progress.read(footer, key)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(key, error) from None
    if layout.attempt_key(layout.METRICS, progress.trial_id, progress.attempt) != key:
        raise misplaced(key, f"attempt {progress.attempt} of trial {progress.trial_id}")
    return progress


def attempt_fields(text: bytes, key: str) -> dict[str, Any]:
    """Return the record of an attempt; one that is damaged says no more than that it was begun."""
    trial_id, attempt = layout.owner_of(key)
    assert isinstance(attempt, AttemptKey)
    known = {"trial_id": trial_id, "attempt": attempt.number, "nonce": attempt.nonce}
    try:
        record = json.loads(text)
        is_whole = record.get("crc", crc := record_checksum(record)) == crc
        if is_whole and {"how", "run"} <= record.keys() and known.items() <= record.items():
            return dict(record)
    except (ValueError, AttributeError):
        pass
    return known | {"run": "", "how": "unreadable"}


def log_text(data: bytes, key: str) -> str:
    """Return the text of a log, once its first line does not name another trial or attempt."""
    text = data.decode(errors="replace")
    trial_id, attempt = layout.owner_of(key)
    named = HEAD_OF_LOG.match(text)  # The newest lines of a long log do not hold it.
    if named and named.groups() != (trial_id, str(attempt)):
        raise misplaced(key, f"the log of attempt {named[2]} of trial {named[1]}")
    return text


def with_checksum(text: str) -> str:
    """Return YAML with a comment below that holds its checksum."""
    return f"{text}# crc32 {zlib.crc32(text.encode()):08x}\n"


def has_checksum(text: str) -> bool:
    """Say whether YAML was written by `with_checksum`."""
    return "# crc32 " in text


def check_text(text: str, key: str) -> None:
    """Refuse YAML that is not what its checksum says; older versions wrote none."""
    body, mark, _ = text.rpartition("# crc32 ")
    if mark and with_checksum(body) != text:
        raise DamagedError(
            errno.EIO,
            f"{key} is damaged, or was changed by hand: then delete its last line, the checksum",
        )


def check_spec(spec: Any, source: str) -> dict[str, Any]:
    """Return a stored spec after checking the keys that are read.

    Raises:
        InputError: names the key.
    """
    if not isinstance(spec, dict):
        raise InputError(f"{source} is no mapping")
    for key, kind in {"data": dict, "resources": dict, "imports": list, "objectives": list}.items():
        if not isinstance(spec.get(key), kind | None):
            what = "a mapping" if kind is dict else "a list"
            raise InputError(f"{source}: {key} is {str(spec[key])[:60]!r}, not {what}")
    for name in spec.get("objectives") or ():
        if name not in OBJECTIVES:
            allowed = ", ".join(OBJECTIVES)
            raise InputError(f"{source}: unknown objective {str(name)[:60]!r}; allowed: {allowed}")
    return spec


def record_checksum(record: Mapping[str, Any]) -> int:
    """Return the checksum of all values but its own."""
    kept = {name: value for name, value in record.items() if name != "crc"}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def check_place(table: pa.Table, key: str) -> None:
    """Refuse rows of another trial, attempt or epoch than their key says."""
    trial_id, number = layout.owner_of(key)
    if isinstance(number, AttemptKey):
        # The footer as text: parsing it would cost a tenth of reading the rows.
        footer = (table.schema.metadata or {}).get(FOOTER, b"")
        for name, value in {"trial_id": trial_id, "attempt": number}.items():
            if f'"{name}": "{value}"'.encode() not in footer:
                raise misplaced(key, f"another {name.removesuffix('_id')}")
        return
    first = {name: table[name][0].as_py() for name in table.column_names if table.num_rows}
    for name, value in {"trial_id": trial_id, "epoch": number}.items():
        if first.get(name, value) != value:
            raise misplaced(key, f"{name.removesuffix('_id')} {first[name]}")
    if set(PAIR) <= first.keys():
        pairs = list(zip(*(table[name].to_pylist() for name in PAIR), strict=True))
        own = layout.pairs_key(key, pairs, first.get("task"))
        if own != key:
            raise misplaced(key, f"the rows of {own}")


def sealed(values: Mapping[str, Any]) -> bytes:
    """Return values as JSON with their checksum."""
    return json.dumps({**values, "crc": record_checksum(values)}, indent=1).encode()


def unsealed(text: bytes, key: str) -> dict[str, Any]:
    """Return what `sealed` wrote; older versions wrote no checksum.

    Raises:
        DamagedError: the checksum is wrong, or this is no such file.
    """
    try:
        values = json.loads(text)
        if values.get("crc", crc := record_checksum(values)) != crc:
            raise ValueError("its checksum is wrong")
        return dict(values)
    except (ValueError, AttributeError) as error:
        raise damaged(key, error) from None


def misplaced(key: str, what: str) -> DamagedError:
    """Return the error that a file of the store holds what belongs elsewhere."""
    return DamagedError(errno.EIO, f"{key} holds {what}; mg-sweep verify says what puts this right")
