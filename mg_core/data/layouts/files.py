"""What all layouts share: image lists, lists of class names, checked paths and the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mg_core.data.reader import Report, refuse
from mg_core.download import file_digest
from mg_core.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def split_names(text: str) -> tuple[str, ...]:
    """Split a list of class names at its commas."""
    names = tuple(name.strip() for name in text.split(","))
    repeated = [name for name in names if names.count(name) > 1]
    if "" in names or repeated:
        what = f"{repeated[0]!r} is there twice" if repeated and repeated[0] else "a name is empty"
        raise InputError(f"option classes: {what} in {text!r}")
    return names


def read_words(path: Path, what: str) -> list[tuple[list[str], str]]:
    """Return the words of each line that has any, and its file and line number for messages."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as {what} ({error})") from None
    return [
        (line.split(), f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.split()
    ]


def read_list(path: Path, report: Report = refuse) -> dict[str, str]:
    """Return the ids of an image list, the first words of its lines, with file and line number."""
    found: dict[str, str] = {}
    for words, source in read_words(path, "an image list"):
        if words[0] in found:
            report(InputError(f"{source} repeats image {words[0]} of {found[words[0]]}"))
        else:
            found[words[0]] = source
    return found


def existing_file(folder: Path, name: str, source: str) -> Path:
    """Return the file that an annotation at `source` names, which must lie below the folder."""
    path = folder / name
    # No encoding of file names has control characters or halves of surrogate pairs.
    is_name = bool(name) and not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)
    try:
        is_there = is_name and path.is_file()
    except OSError:  # The name is too long, or its folder cannot be entered.
        is_name = False
    if not is_name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{source} names {name[:200]!r}, which is no file below {folder}")
    if not is_there:
        raise InputError(f"{path}, named by {source}, is missing")
    return path


def fingerprint(root: Path, annotations: Iterable[Path], images: Iterable[Path]) -> str:
    """Hash the bytes of annotations and the sizes of images, with their paths below `root`.

    Modification times are left out, so that copies of a data set have the same fingerprint.
    """
    total = hashlib.sha256()
    try:
        contents = [(path, file_digest(path, "sha256")) for path in sorted(set(annotations))]
        sizes = [(path, str(path.stat().st_size)) for path in sorted(set(images))]
        for path, content in contents + sizes:
            total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return total.hexdigest()[:32]
