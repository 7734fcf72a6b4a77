"""What all layouts share: image lists, checked paths and the fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from mg_core.data.images import file_print
from mg_core.data.parallel import in_parallel
from mg_core.data.reader import Report, refuse
from mg_core.download import file_digest
from mg_core.errors import InputError

FORMER_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_FURTHER = (".webp", ".bmp", ".tif", ".tiff", ".gif")
SUFFIXES = (*FORMER_SUFFIXES, *_FURTHER, *(suffix.upper() for suffix in _FURTHER))
CHUNK = 256
"""Files that one thread reads in turn."""
_COLUMN = re.compile(r"\s+(-1|0|1)$")
_SUFFIX = re.compile("|".join(re.escape(suffix) + "$" for suffix in SUFFIXES), re.IGNORECASE)


def read_lines(path: Path, what: str) -> list[tuple[str, str]]:
    """Return the lines that hold any words, without space at their ends, and where they stand."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as {what} ({error})") from None
    return [
        (line.strip(), f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def read_list(
    path: Path, is_known: Callable[[str], bool], report: Report = refuse
) -> dict[str, str]:
    """Return the ids of an image list, with file and line number.

    A line is an id or the name of an image file, with or without its folder; columns of -1, 0 and
    1, as in VOC's lists of one class, may follow. The first reading that is known counts. A line
    without one is returned as it is.
    """
    found: dict[str, str] = {}
    for line, source in read_lines(path, "an image list"):
        name = next(filter(is_known, _readings(line)), _COLUMN.sub("", line))
        if name in found:
            report(InputError(f"{source} repeats image {name} of {found[name]}"))
        else:
            found[name] = source
    return found


def _readings(line: str) -> Iterator[str]:
    """Yield the ids that a line of an image list may stand for."""
    texts = [line]
    while _COLUMN.search(texts[-1]):
        texts.append(_COLUMN.sub("", texts[-1]))
    for text in texts:
        unix = text.replace("\\", "/").removeprefix("./")
        below = unix.rpartition("JPEGImages/")[2]
        for name in dict.fromkeys(
            (text, unix, below, _SUFFIX.sub("", unix), _SUFFIX.sub("", below))
        ):
            yield from spellings(name)


def spellings(name: str) -> Iterable[str]:
    """Return a name and its other Unicode forms: file systems differ in how they store accents."""
    if name.isascii():
        return (name,)
    return dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))


def existing_file(folder: Path, name: str, source: str) -> Path:
    """Return the file that an annotation at `source` names, which must lie below the folder."""
    # No encoding of file names has control characters or halves of surrogate pairs.
    is_name = bool(name) and not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)
    found = None
    try:
        if is_name:
            paths = (folder / spelling for spelling in spellings(name))
            found = next((path for path in paths if path.is_file()), None)
    except OSError:  # The name is too long, or its folder cannot be entered.
        is_name = False
    if not is_name or not is_below(name):
        raise InputError(f"{source} names {name[:200]!r}, which is no file below {folder}")
    if found is None:
        raise InputError(f"{folder / name}, named by {source}, is missing")
    return found


def joined(folder: str, name: str) -> str:
    """Return the path that a file in a folder names, with slashes and `..` resolved."""
    return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))


def is_below(path: str) -> bool:
    """Tell whether a path stays below the folder that it counts from."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, those in linked folders too, without hidden ones.

    Hidden files and folders, whose names begin in a dot, are those of other programs, such as
    macOS's copies `._a.jpg` and an editor's `.ipynb_checkpoints`.
    """
    # A link that leads back up would never end.
    above: dict[str, frozenset[str]] = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        here = above.get(os.path.dirname(place), frozenset()) | {real}
        above[place] = here
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and os.path.realpath(os.path.join(place, name)) not in here
        ]
        yield from (Path(place, name) for name in names if name[0] != ".")


def option_file(root: Path, name: str, pattern: str) -> Path:
    """Return the file below a data folder that the option `file` names.

    Raises:
        InputError: it is missing, with what else fits the pattern, or does not lie below.
    """
    if not is_below(name):
        raise InputError(f"option file names {name!r}, which is no file below {root}")
    if not os.path.isfile(root / name):
        others = sorted(path.name for path in root.glob(pattern))[:5]
        verb = "is" if len(others) == 1 else "are"
        there = f"; there {verb} {', '.join(others)}" if others else ""
        raise InputError(f"{root / name} is missing: name it by the option file{there}")
    return root / name


def existing_image(folder: Path, name: str, source: str) -> Path:
    """Return the image that an annotation at `source` names without its suffix."""
    for suffix in SUFFIXES:
        with contextlib.suppress(InputError):
            return existing_file(folder, f"{name}{suffix}", source)
    # None is there: the message names the usual one.
    return existing_file(folder, f"{name}.jpg", source)


def fingerprint(root: Path, annotations: Iterable[Path], images: Iterable[Path]) -> str:
    """Hash the bytes of annotations and parts of the images, with their paths below `root`.

    Modification times are left out, so that copies of a data set have the same fingerprint.
    """
    paths = sorted(set(images))
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    prints = chain.from_iterable(in_parallel(_prints, chunks))
    return _hash(root, annotations, zip(paths, prints, strict=True))


def _prints(paths: Sequence[Path]) -> list[str]:
    return [f"{file_print(path):016x}" for path in paths]


def former_fingerprint(root: Path, annotations: Iterable[Path], images: Iterable[Path]) -> str:
    """Hash as earlier versions did, which knew images by their sizes in bytes."""
    try:
        sizes = [(path, str(path.stat().st_size)) for path in sorted(set(images))]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return _hash(root, annotations, sizes)


def _hash(root: Path, annotations: Iterable[Path], images: Iterable[tuple[Path, str]]) -> str:
    total = hashlib.sha256()
    try:
        contents = [(path, file_digest(path, "sha256")) for path in sorted(set(annotations))]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    for path, content in (*contents, *images):
        total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return total.hexdigest()[:32]
