"""Registries of variants by name: models, attributions, losses and data sets."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from mg_core.errors import InputError
from mg_core.sources import note_loaded

Variant = TypeVar("Variant")


def import_variants(modules: Sequence[str], source: str = "imports") -> None:
    """Import the modules that register the user's variants; messages begin with `source`.

    Raises:
        InputError: a module cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, TypeError) as error:
            raise InputError(
                f"{source}: module {module!r} cannot be imported ({error}); "
                "install it on every node or put it on PYTHONPATH"
            ) from None
        except Exception as error:  # A module of the user's may raise anything.
            raise InputError(
                f"{source}: module {module!r} fails when it is imported: {_located(error)}"
            ) from error
        note_loaded(module)


def _located(error: Exception) -> str:
    """Return what an error says, with its type and the line that raised it."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:  # Its message has file and line.
        return text
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})"


def named_object(name: str) -> Any:
    """Return what a dotted name stands for; None if its module has no such thing.

    Raises:
        InputError: the module cannot be imported.
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(f"{name} cannot be imported: {error}") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is closest to one; empty if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Registry(Mapping[str, Variant], Generic[Variant]):
    """The variants of one kind, in the order of their registration.

    Args:
        kind: singular noun for the variants in error messages, such as "loss".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._variants: dict[str, Variant] = {}
        self._homes: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<{self.kind}: {', '.join(self._variants)}>"

    def register(self, name: str) -> Callable[[Variant], Variant]:
        """Return a decorator that registers a variant under `name`.

        Raises:
            ValueError: another variant has this name.
        """
        home = _caller()

        def add(variant: Variant) -> Variant:
            if name in self._variants:
                raise ValueError(f"there is already a {self.kind} called {name!r}")
            self._variants[name] = variant
            self._homes[name] = home
            return variant

        return add

    def home(self, name: str) -> str:
        """Return the name of the module that registered a variant; empty for an unknown one."""
        return self._homes.get(name, "")

    def __getitem__(self, name: str) -> Variant:
        try:
            return self._variants[name]
        except (KeyError, TypeError):
            raise InputError(self._unknown(name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._variants

    def __iter__(self) -> Iterator[str]:
        return iter(self._variants)

    def __len__(self) -> int:
        return len(self._variants)

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(str(name), self._variants)
        return f"unknown {self.kind} {name!r}{hint}; choose from {', '.join(self._variants)}"


def _caller() -> str:
    """Return the module that asks a registry to register something."""
    frame = sys._getframe(2)
    return str(frame.f_globals.get("__name__", ""))
