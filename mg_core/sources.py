"""Versions of the user's own code: a digest of each module's source and of what it stands on.

What a module stands on is what it imports from its own package or folder, and what that imports.
Packages that are installed beside it, and this one, are not part of it: their versions are
recorded with every attempt.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

OURS = frozenset({"mg_core", "sweeps", "analysis"})
INSTALLED = frozenset({"site-packages", "dist-packages"})

_LOADED: dict[str, str] = {}


def members(module: str) -> dict[str, Path]:
    """Return the files of an imported module and of what it stands on, by the module's name.

    There are none for a module without source, such as a compiled one.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py"):
        return {}
    path = Path(file).resolve()
    names = module.split(".")
    home = path.parent if path.name == "__init__.py" else path
    root = home.parents[len(names) - 1]
    is_installed = bool(INSTALLED & set(root.parts))
    found, queue = {module: path}, [module]
    while queue:
        for name in _imported(found[queue[0]], queue[0]):
            top = name.split(".")[0]
            is_foreign = top in OURS or (is_installed and top != names[0])
            source = None if name in found or is_foreign else _file(root, name)
            if source is not None:
                found[name] = source
                queue.append(name)
        queue.pop(0)
    return found


def version(module: str) -> str:
    """Return sixteen hex digits of a digest of an imported module's files as they are now."""
    digest = hashlib.sha256()
    for name, path in sorted(members(module).items()):
        try:
            text = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError:
            text = b""  # It was removed since it was imported.
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def note_loaded(module: str) -> None:
    """Remember the version of a module that this process has just imported for the first time."""
    if module not in _LOADED:
        _LOADED[module] = version(module)


def loaded(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of modules as this process imported them."""
    return {module: _LOADED[module] for module in modules if members(module)}


def on_disk(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of imported modules as their files are now."""
    return {module: version(module) for module in modules if members(module)}


def _imported(path: Path, module: str) -> Iterator[str]:
    """Yield the dotted names that a source imports, each after the packages that hold it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    yield from _with_parents(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                yield from _with_parents(f"{base}.{alias.name}" if base else alias.name)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _file(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split("."))
    choices = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((choice for choice in choices if choice.is_file()), None)
