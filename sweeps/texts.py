"""Ids of many configurations that differ in few values: the rest of their text is made once."""

from __future__ import annotations

import json

from mg_core.config import Frozen, canonical_text

MARK = "\0 a value that differs \0"


def pieces(config: Frozen, *names: str) -> list[str]:
    """Return the canonical text of a configuration, cut at the values of some of its fields.

    The pieces with the JSON of each value between them, in the order of the fields' names, are the
    canonical text again.

    Args:
        config: a configuration.
        names: fields without a default, whose values are never left out of the text.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    text = canonical_text(values | dict.fromkeys(names, MARK))
    return text.split(json.dumps(MARK))
