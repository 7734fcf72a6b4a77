"""The content of sweep files, Ray cluster files among them, and overrides of single keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mg_core.errors import InputError
from mg_core.yaml_text import parse_yaml, read_yaml

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where Ray keeps the cluster file of `ray up` on the head."""


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a sweep file, or the sweep under `metadata: {sweep: …}` of a Ray cluster file.

    Raises:
        InputError: the file is missing, is not valid YAML, or is not a mapping.
    """
    content = read_yaml(path, "sweep file")
    if isinstance(content, dict) and "cluster_name" in content:
        metadata = content.get("metadata")
        content = metadata.get("sweep") if isinstance(metadata, dict) else None
        if content is None:
            raise InputError(f"{path}: a Ray cluster file holds its sweep under metadata.sweep")
    if not isinstance(content, dict):
        raise InputError(f"{path}: a sweep is a mapping of keys to values")
    return content


def override(sweep: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Set keys of a sweep in place and return it.

    Args:
        sweep: content of a sweep file.
        settings: texts `key=value` with a dotted key, in which numbers count the items of lists,
            and a value in YAML.

    Raises:
        InputError: a setting has no `=`, or its key does not exist.
    """
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (equals and key.strip()):
            raise InputError(f"--set {setting!r}: give key=value, such as guided.epochs=2")
        _assign(sweep, key.strip().split("."), parse_yaml(value, f"--set {key}"), setting)
    return sweep


def _assign(place: Any, path: list[str], value: Any, setting: str) -> None:
    for depth, part in enumerate(path):
        is_last = depth == len(path) - 1
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            index: Any = int(part)
        elif isinstance(place, dict):
            index = part
        else:
            raise InputError(f"--set {setting!r}: there is no {'.'.join(path[: depth + 1])!r}")
        if is_last:
            place[index] = value
        else:
            if isinstance(place, dict) and place.get(index) is None:
                place[index] = {}
            place = place[index]
