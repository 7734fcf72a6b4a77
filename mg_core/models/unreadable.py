"""Why a file of weights cannot be read, in words."""

from __future__ import annotations

import re
from pathlib import Path

TEXTS = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file, which `git lfs pull` gets",
    b"<": "a web page and no checkpoint, as a failed download leaves it",
}
"""Beginnings of text files that people have in place of weights."""
CHECKPOINTS = (b"PK\x03\x04", b"\x80")
"""How files of PyTorch begin: zip archives since 1.6, pickles before."""


def unreadable(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that neither PyTorch nor safetensors can read.

    Args:
        path: the file.
        error: what they raised.
    """
    text = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return f"it holds {found[1]}, which may run code; save its state dict alone"
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as problem:
        return f"cannot be read: {problem.strerror or problem}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # PyTorch goes on with guesses at the cause.
    reason = (lines or [type(error).__name__])[0][:300].partition(". ")[0]
    if not head:
        return "the file is empty"
    if _is_text(head):
        kinds = (kind for start, kind in TEXTS.items() if head.lstrip().startswith(start))
        return f"it is {next(kinds, 'a text file and no checkpoint')}"
    if path.suffix == ".safetensors" and head.startswith(CHECKPOINTS):
        return "it is called .safetensors and is a file of PyTorch; let its name end in .pth"
    if head.startswith(CHECKPOINTS) or head[8:9] == b"{":
        size = path.stat().st_size
        return f"it is cut off or damaged; its {size:,} bytes cannot be read: {reason}"
    return f"it is no file of PyTorch or safetensors: {reason}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        text = head[: error.start].decode() if error.start > len(head) - 4 else "\0"
    return all(character.isprintable() or character.isspace() for character in text)
