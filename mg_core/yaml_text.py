"""Strict YAML of limited size: the one reader of sweep files, mapping files and stored sweeps."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mg_core.errors import InputError

MERGE = "tag:yaml.org,2002:merge"
NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|\d.*:.*)")
"""Numbers that YAML 1.1 reads otherwise than people do: 010 is 8, 1:30 is 90."""
DEEPEST = 50
"""Lists and mappings inside each other; a sweep has five."""
MOST_VALUES = 2_000_000
"""Values of a text, those of an alias counted wherever it stands."""
WRONG_VALUES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises for a value that is none of its type, such as `!!float x`."""

UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, with an error for a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            is_merge = key_node.tag == MERGE
            key = "<<" if is_merge else self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float)):
                raise _problem("a key must be a word or a number", key_node)
            if key in seen:
                raise _problem(f"key {key!r} stands twice", key_node)
            seen.add(key)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in NUMBERS and OTHER_BASE.fullmatch(node.value):
            raise _problem(f"{node.value} would be read in base 8 or 60; put it in quotes", node)
        try:
            return super().construct_object(node, deep)
        except WRONG_VALUES:
            kind = node.tag.rpartition(":")[2]
            raise _problem(f"{_shortened(str(node.value))} is no {kind}", node) from None


# A date is text: no key of ours takes one, and YAML's dates may be none, such as 25 o'clock.
_StrictLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _StrictLoader.yaml_implicit_resolvers.items()
}


def _problem(text: str, node: yaml.Node | yaml.Event) -> yaml.YAMLError:
    mark: Any = node.start_mark  # None only for an event that has no place
    return yaml.constructor.ConstructorError(None, None, text, mark)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text; dates are read as text.

    Raises:
        InputError: the text is not valid YAML, is nested too deeply, or is too large once aliases
            are replaced by what they stand for; the message names the line.
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{where}: not valid YAML: {problem}") from None


@dataclass
class _Open:
    """A list or mapping that has begun, with what it has so far."""

    anchor: str | None = None
    values: int = 1
    depth: int = 0

    def add(self, values: int, depth: int) -> None:
        self.values += values
        self.depth = max(self.depth, depth)


def _check_size(text: str) -> None:
    """Refuse text that is too deep or too large, event by event and before anything is built."""
    # Values and depth of each anchor, none while it is open.
    known: dict[str | None, tuple[int, int] | None] = {}
    nodes = [_Open()]
    for event in yaml.parse(text, Loader=_StrictLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            known[event.anchor] = None
            nodes.append(_Open(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = nodes.pop()
            found = known[ended.anchor] = ended.values, ended.depth + 1
            nodes[-1].add(*found)
        elif isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
            if isinstance(event, yaml.ScalarEvent):
                known[event.anchor] = 1, 0
            size = known.get(event.anchor, (1, 0))
            if size is None:
                raise _problem(f"{event.anchor!r} contains itself", event)
            nodes[-1].add(*size)
        if len(nodes) + nodes[-1].depth > DEEPEST + 1:
            raise _problem(f"nested more than {DEEPEST} deep", event)
        if nodes[-1].values > MOST_VALUES:
            raise _problem(f"more than {MOST_VALUES:,} values, those of aliases included", event)


def decoded(data: bytes, source: str) -> str:
    """Return the text of a YAML file, without a byte order mark.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_wide = data.startswith(UTF_16_OR_32)
        kind = "UTF-16 or UTF-32" if is_wide else "not UTF-8"
        raise InputError(f"{source} is {kind} text; save it as UTF-8") from None


def read_yaml(path: Path, what: str) -> Any:
    """Parse a YAML file.

    Args:
        path: YAML file to read.
        what: what it should be, such as "sweep file", for the message.

    Raises:
        InputError: the file cannot be read, or is not valid YAML.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{what} {str(path)!r} cannot be read: {reason}") from None
    return parse_yaml(decoded(data, str(path)), str(path))
