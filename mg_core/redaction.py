"""Secrets: kept out of addresses that are stored, and out of texts that are shown."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from mg_core.errors import InputError

SECRET = re.compile(r"secret|token|password|passwd|credential|api_?key|access_key", re.IGNORECASE)
SHORTEST_SECRET = 6
"""Shorter values would blacken ordinary words."""


def redacted(text: str) -> str:
    """Black out the values of environment variables whose names say that they are secret."""
    values = {
        value
        for name, value in os.environ.items()
        if SECRET.search(name) and len(value) >= SHORTEST_SECRET
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


SECRET_QUERY = re.compile(rf"{SECRET.pattern}|signature|^(sig|auth|pwd|jwt|key)$|_key$", re.I)


def refuse_secrets(uri: str, what: str) -> None:
    """Refuse credentials in a URI, which is written to the store and shown.

    Args:
        uri: an address, or anything that is none.
        what: it is the address of, for the sentence.

    Raises:
        InputError: says where they belong; it does not repeat them.
    """
    if "://" not in uri:
        return
    parts = urlsplit(uri)
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    # Azure's addresses have a container where others have a user.
    has_user = parts.username is not None and parts.scheme not in ("abfs", "abfss")
    if has_user or parts.password is not None or any(SECRET_QUERY.search(name) for name in names):
        place = f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InputError(
            f"{what} {place!r} holds credentials, which would end up in files and logs; give them "
            "through the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile), "
            "or name a local copy"
        )
