"""Makes text fit to be stored and shown: without secrets, and without control characters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import accumulate
from urllib.parse import parse_qsl, unquote, urlsplit

from mg_core.errors import InputError

SECRET = re.compile(r"secret|token|password|passwd|credential|api_?key|access_key", re.IGNORECASE)
SHORTEST_SECRET = 6
"""Length of the shortest value that is replaced; shorter ones occur in ordinary words."""
SECRET_QUERY = re.compile(rf"{SECRET.pattern}|signature|^(sig|auth|pwd|jwt|key)$|_key$", re.I)
"""Names of parameters in URIs whose values are secret."""
HIDDEN = "***"

_USER = (
    # Up to the last @ of the host, and a password that holds /, ? or #; a port is no password.
    r"(?P<user>[^\s/?#\"'<>]*|[^\s/?#\"'<>@:]*:(?!\d{1,5}[/?#])[^\s\"'<>]*?)@"
)
_IN_ADDRESS = re.compile(rf"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]*://){_USER}")
_WITHOUT_SCHEME = re.compile(r"(?<![\w:/])//[^\s/?#\"'<>@:]+:[^\s\"'<>@]+@")
_LOGIN = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//(?P<user>[^\s/?#@:]*)(?::(?!\d{1,5}[/?#])(?P<password>.*))?@"
    r"|[^\s/?#\"'<>@:]*:(?P<word>[^\s/?#\"'<>]*)@",
    re.DOTALL,
)
"""The beginning of a whole value that is an address, whose password may hold any sign."""
_PARAMETER = re.compile(r"(?<=[?&;])(?P<name>[\w.\-%]+)=(?P<value>[^\s&;#\"'<>]+)")
_SETTING = re.compile(
    r"(?P<name>\b\w*(?:password|passwd|pwd|secret|api_?key|access_key)\w*)"
    r"(?P<equals>\s?=\s?)(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\";,&)]+)",
    re.IGNORECASE,
)
"""A keyword and its value, as in the connection strings of databases."""
_HEADER = re.compile(r"(Authorization\W{1,4}\w+\s+)[^\s'\"]+", re.IGNORECASE)
CONTAINERS = ("abfs://", "abfss://", "wasb://", "wasbs://")
"""Schemes of Azure, whose addresses have a container in place of a user."""

_SIGNS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_INVISIBLE = (
    *range(0x80, 0xA0),  # C1 controls, among them another start of escape sequences
    *(0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070)),
    *(0xFEFF, *range(0xFFF9, 0xFFFC)),
)
_HARMLESS = {**_SIGNS, 0x7F: "\u2421", **dict.fromkeys(_INVISIBLE, "\ufffd")}
"""Visible signs for characters that control a terminal or reorder text."""


def harmless(text: str) -> str:
    """Replace control characters by visible signs, except for line breaks and tabs.

    A terminal would obey them: escape sequences move the cursor, and bidirectional overrides make
    a text read differently from what it says.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_HARMLESS)


def redacted(text: str) -> str:
    """Replace secrets by `***`, and control characters as `harmless` does.

    Secrets are the values of environment variables whose names match `SECRET`, and the users,
    passwords and secret parameters in addresses, connection strings and headers, wherever they
    come from.
    """
    for value in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _IN_ADDRESS.sub(_without_user, text)
    text = _WITHOUT_SCHEME.sub(f"//{HIDDEN}@", text)
    text = _PARAMETER.sub(_without_value, text)
    text = _SETTING.sub(rf"\g<name>\g<equals>{HIDDEN}", text)
    return harmless(_HEADER.sub(rf"\g<1>{HIDDEN}", text))


def _secrets() -> Iterator[str]:
    """Yield the secret values of the environment, the passwords of its addresses included."""
    for name, value in os.environ.items():
        found = [value] if SECRET.search(name) else []
        if not value.startswith(CONTAINERS):
            found += _of_address(value)
        yield from {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def _of_address(value: str) -> Iterator[str]:
    """Yield what may be the secret of an address: it ends at any @ if there are several."""
    found = _LOGIN.match(value)
    password = found and (found["password"] or found["word"])
    if password:
        for end in accumulate(re.findall("[^@]*@", f"{password}@")):
            yield from (end[:-1], unquote(end[:-1]))
    elif found and found["user"]:
        yield found["user"]


def _without_user(found: re.Match[str]) -> str:
    return found[0] if found["scheme"] in CONTAINERS else f"{found['scheme']}{HIDDEN}@"


def _without_value(found: re.Match[str]) -> str:
    return f"{found['name']}={HIDDEN}" if SECRET_QUERY.search(found["name"]) else found[0]


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
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InputError(f"{what} {redacted(uri)!r} is no address: {error}") from None
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    has_user = parts.username is not None and not uri.startswith(CONTAINERS)
    if has_user or parts.password is not None or any(SECRET_QUERY.search(name) for name in names):
        place = f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InputError(
            f"{what} {place!r} holds credentials, which would end up in files and logs; give them "
            "through the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile), "
            "or name a local copy"
        )
