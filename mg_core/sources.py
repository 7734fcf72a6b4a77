"""Versions of the user's own code: a digest of each module's source and of what it stands on.

What a module stands on is what it imports from its own package or folder, and what that imports.
Packages that are installed beside it, and this one, are not part of it: their versions are
recorded with every attempt.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
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
    return _with_imported(module, Path(file))


def _with_imported(module: str, file: Path) -> dict[str, Path]:
    path = file.resolve()
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
    return _digest(members(module))


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        text = _content(path)
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def file_digests(module: str) -> dict[str, str]:
    """Return eight hex digits of each file that a module stands on, by the name of its module.

    The module need not be imported; there are none for one that is not found here.
    """
    found = members(module) or _unimported(module)
    return {
        name: hashlib.sha256(_content(path)).hexdigest()[:8] for name, path in sorted(found.items())
    }


def version_here(module: str) -> str | None:
    """Return the version of a module's files without importing it; none if they are not found."""
    found = members(module) or _unimported(module)
    return _digest(found) if found else None


def _unimported(module: str) -> dict[str, Path]:
    """Return what `members` does of a module that is not imported, and stays so."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return {}
    if spec is None or not spec.origin:
        return {}
    root = Path(spec.origin).parent
    file = _file(root.parent, module) if inner else Path(spec.origin)
    return _with_imported(module, file) if file and file.suffix == ".py" else {}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes().replace(b"\r\n", b"\n")
    except OSError:
        return b""  # It was removed since it was imported.


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
