"""Tar and zip archives, unpacked without writing outside of a folder."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mg_core.download import CHUNK, Progress
from mg_core.errors import InputError


class _Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def extract(
    archive: Path, folder: Path, only: Collection[str] = (), progress: Progress | None = None
) -> None:
    """Unpack an archive, or the members of the names in `only`; they replace files in the folder.

    Links and devices are left out. If the name of one member leads outside, nothing is unpacked.
    `progress` gets the bytes done and the bytes of all members.
    """
    try:
        with _members(archive) as members:
            chosen = [member for member in members if not only or member.name in only]
            _check_members(archive, folder, chosen)
            total, done = sum(member.size for member in chosen), 0
            for member in chosen:
                _unpack(member, folder / PurePosixPath(member.name))
                done += member.size
                if progress is not None:
                    progress(done, total)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(f"{archive} is no complete archive ({error}); remove it") from None
    # The archive is encrypted, or this Python was built without its compression.
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"{archive} cannot be unpacked ({error})") from None
    except OSError as error:
        raise InputError(f"cannot unpack {archive} to {folder}: {error}") from None


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield [
                _Member(info.filename, info.file_size, partial(packed.open, info))
                for info in packed.infolist()
                if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
            ]
    else:
        with tarfile.open(archive) as tar:
            yield [
                _Member(item.name, item.size, partial(tar.extractfile, item))
                for item in tar.getmembers()
                if item.isreg()
            ]


def _check_members(archive: Path, folder: Path, members: list[_Member]) -> None:
    inside = folder.resolve()
    for member in members:
        path = PurePosixPath(member.name)
        is_odd = path.is_absolute() or "\\" in member.name or ":" in member.name
        if is_odd or ".." in path.parts:
            raise InputError(f"{archive} would write outside of {folder}: {member.name!r}")
        if not (folder / path).parent.resolve().is_relative_to(inside):
            raise InputError(
                f"{archive} would write outside of {folder}, where a link leads: {member.name!r}"
            )
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"unpacking {archive} takes {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free"
        )


def _unpack(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = member.open()
    assert content is not None
    # A link that is there already must not lead outside.
    target.unlink(missing_ok=True)
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file, CHUNK)
