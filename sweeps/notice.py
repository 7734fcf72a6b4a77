"""A message when a sweep ends or stops: to an address, or by a command of the user's."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import urllib.request
from typing import TYPE_CHECKING

from mg_core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.spec import SweepSpec

PATIENCE = 10.0
"""Seconds that an address or a command may take: a job that is being ended has few."""
ADDRESS = re.compile(r"https?://([^/?#@\s]+@)?(?P<host>[^/?#@\s]+)\S*")
VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")


def check_notify(spec: SweepSpec) -> None:
    """Refuse an address with a variable that is not set.

    Raises:
        InputError: names the variable.
    """
    if spec.notify is None or not _is_address(spec.notify):
        return  # A shell may set its variables itself.
    for match in VARIABLE.finditer(spec.notify):
        name = match[1] or match[2]
        if name not in os.environ:
            raise InputError(f"notify: the environment variable {name} is not set")


def notify(spec: SweepSpec, state: str, summary: str, console: Console) -> None:
    """Tell what became of a sweep; where that fails, the console says why and the sweep ends well.

    An address gets a POST request with the JSON object `{"text": …}`. A command gets the text on
    its standard input, and `MG_SWEEP`, `MG_STORE` and `MG_STATE` in its environment.

    Args:
        spec: the sweep.
        state: "complete", "incomplete" or "stopped".
        summary: how many trials are done, in a sentence.
        console: where a failure is said.
    """
    if spec.notify is None:
        return
    text = f"{spec.name}: {state}; {summary}; store {spec.store}"
    try:
        if _is_address(spec.notify):
            _post(os.path.expandvars(spec.notify), text)
        else:
            _run(spec, state, text)
    except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
        # An address may be a secret, as those of chats are: its host is enough.
        match = ADDRESS.match(os.path.expandvars(spec.notify))
        where = match["host"] if match else "the command"
        why = "no answer in time" if isinstance(error, TimeoutError) else _in_short(error)
        console.print(f"notify: {where} did not take the message: {why}", style="yellow")


def _is_address(target: str) -> bool:
    # The whole address may be in a variable.
    return ADDRESS.match(os.path.expandvars(target)) is not None or bool(VARIABLE.fullmatch(target))


def _post(address: str, text: str) -> None:
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(
        address, body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=PATIENCE):
        pass


def _run(spec: SweepSpec, state: str, text: str) -> None:
    own = {"MG_SWEEP": spec.name, "MG_STORE": spec.store, "MG_STATE": state}
    done = subprocess.run(
        str(spec.notify),
        shell=True,  # It is a command line of the user's own.
        input=text,
        text=True,
        env={**os.environ, **own},
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"it ended with {done.returncode}")


def _in_short(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it ran for more than {PATIENCE:g} s"
    return str(getattr(error, "reason", None) or error)
