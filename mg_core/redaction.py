"""Keeps secrets out of stored addresses, messages and logs."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from mg_core.errors import InputError

SECRET = re.compile(r"secret|token|password|passwd|credential|api_?key|access_key", re.IGNORECASE)
SHORTEST_SECRET = 6
"""Length of the shortest value that is replaced; shorter ones occur in ordinary words."""
SECRET_QUERY = re.compile(rf"{SECRET.pattern}|signature|^(sig|auth|pwd|jwt|key)$|_key$", re.I)
"""Names of parameters in URIs whose values are secret."""


def redacted(text: str) -> str:
    """Replace the values of environment variables whose names match `SECRET` by `***`."""
    values = {
        value
        for name, value in os.environ.items()
        if SECRET.search(name) and len(value) >= SHORTEST_SECRET
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def refuse_secrets(uri: str, what: str) -> None:
    """Refuse a URI with credentials, since URIs are written to the store and shown.

    Args:
        uri: a URI; any other text is accepted.
        what: what the URI is the address of, for the message.

    Raises:
        InputError: says where credentials belong, without repeating them.
    """
    if "://" not in uri:
        return
    parts = urlsplit(uri)
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    # URIs of Azure have a container in place of a user.
    has_user = parts.username is not None and parts.scheme not in ("abfs", "abfss")
    if has_user or parts.password is not None or any(SECRET_QUERY.search(name) for name in names):
        place = f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InputError(
            f"{what} {place!r} holds credentials, which would end up in files and logs; give them "
            "through the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile), "
            "or name a local copy"
        )
