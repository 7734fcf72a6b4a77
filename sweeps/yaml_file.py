"""The content of sweep files: strict YAML, Ray cluster files, and overrides of single keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mg_core.errors import InputError

MERGE = "tag:yaml.org,2002:merge"
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where Ray keeps the cluster file of `ray up` on the head."""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with an error for a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (dict, list)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text.

    Raises:
        InputError: the text is not valid YAML; the message names the line.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise InputError(f"{source}: not valid YAML: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{where}: not valid YAML: {problem}") from None


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a sweep file, or the sweep under `metadata: {sweep: …}` of a Ray cluster file.

    Raises:
        InputError: the file is missing, is not valid YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"sweep file {str(path)!r} cannot be read: {reason}") from None
    content = parse_yaml(text, str(path))
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
