"""Starts or joins a Ray cluster for `sweeps` and `analysis`, which hand over the module `ray`."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from mg_core.errors import InputError
from mg_core.paths import with_home
from mg_core.redaction import redacted

REACH_SECONDS = 10.0
SOCKET_BYTES = 103
"""Length of the longest path of a socket, on Linux 107 bytes and on macOS 103."""
SESSION = "/session_2026-12-31_23-59-59_999999_1234567/sockets/plasma_store_64"
"""Ray's sockets below its temporary folder."""
PROBE_BYTES = 2**20
DEFAULT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def connect(ray: Any, address: str | None, num_gpus: int | None = None) -> None:
    """Join the Ray cluster at an address, or start one on this machine.

    Args:
        ray: the imported module, which this package does not import itself.
        address: address of the cluster; none or `local` starts one.
        num_gpus: logical GPUs of a cluster that is started; none for those that Ray finds.

    Raises:
        InputError: there is no cluster at the address, it refuses the connection, or no temporary
            folder on this machine can be used.
    """
    # Else Ray would hide all GPUs from trials that reserve none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "job_config": _job_config(ray),
    }
    if address in (None, "local"):
        folder = temporary_folder()
        _provide_token()
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                num_gpus=num_gpus,
                _temp_dir=folder,
                **common,
            )
        except OSError as error:
            ray.shutdown()
            raise InputError(f"Ray cannot start, with its files in {folder}: {error}") from None
        return
    named = f"{address!r}" + (" (RAY_ADDRESS)" if os.environ.get("RAY_ADDRESS") == address else "")
    if address.startswith("ray://"):
        raise InputError(
            f"address {named} is one of Ray's client; run this on a node of the cluster with "
            "--address auto, or give the head's HOST:PORT (6379)"
        )
    try:
        _check_reachable(ray, address)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {named}: {error}") from None
    try:
        ray.init(address=address, **common)
    # Ray has no error classes of its own for other versions of Ray or Python, or a wrong token.
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        ray.shutdown()
        reason = redacted(" ".join(str(error).split())) + _token()
        raise InputError(f"cannot join the Ray cluster at {named}: {reason}") from None


def _provide_token() -> None:
    """Set a token for a Ray that starts here, if Ray cannot keep one in the home folder."""
    try:
        is_kept = _unusable(with_home("~/.ray")) is None
    except InputError:
        is_kept = False
    if not (is_kept or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _token() -> str:
    """Return a hint about the token: with a wrong one, a cluster just does not answer."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return " (is ~/.ray/auth_token the cluster's?)"
    return " (if it asks for a token: RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token)"


def _check_reachable(ray: Any, address: str) -> None:
    """Connect to the port once; Ray would try for minutes, print many lines and end the process."""
    if address == "auto":  # The cluster that was started here last may be gone.
        address = ray._private.services.canonicalize_bootstrap_address(address) or ""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()


class _OwnPath(list[str]):
    """Folders that Ray adds to the import path of workers: only those that the driver has too."""

    def extend(self, folders: Any) -> None:
        super().extend(folder for folder in folders if folder in sys.path)


def _job_config(ray: Any) -> Any:
    """Return settings that keep workers from importing what lies in the current folder.

    Ray adds the current folder to their import path, in front of all others.
    """
    config = ray.job_config.JobConfig()
    config._py_driver_sys_path = _OwnPath()
    return config


def temporary_folder() -> str:
    """Return a folder for the files of a Ray that starts on this machine.

    It lies where `RAY_TMPDIR` or `TMPDIR` says, or below /tmp if that is too long for sockets.

    Raises:
        InputError: a folder that these variables name cannot be written, or no folder can.
    """
    named = {name: os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)}
    for name, folder in named.items():
        if reason := _unusable(Path(folder)):
            raise InputError(
                f"{name}: no temporary file can be written in {folder!r}: {reason}; "
                "name another folder, or unset the variable"
            )
    # Ray's own folder, or one of this user's own where another user owns that.
    choices = [f"{base}/ray" for base in (*named.values(), *DEFAULT_FOLDERS)]
    choices += [f"{base}/ray-{os.getuid()}" for base in DEFAULT_FOLDERS]
    for choice in map(os.path.abspath, choices):
        is_short = len(os.fsencode(choice + SESSION)) <= SOCKET_BYTES
        if is_short and not _unusable(Path(choice)):
            return choice
    raise InputError(
        f"no temporary file can be written in {', '.join(DEFAULT_FOLDERS)}; name a folder with a "
        f"path of at most {SOCKET_BYTES - len(SESSION) - len('/ray')} bytes in RAY_TMPDIR"
    )


def _unusable(folder: Path) -> str | None:
    """Return why files cannot be written in a folder, or none if they can."""
    probe = folder / f"mg-probe-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return None
