"""Shared by all command lines: errors as one line, exit codes, interruption."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mg_core.errors import InputError, StorageError

INTERRUPTED = 130


def new_app(description: str) -> typer.Typer:
    """Return an application; bugs in it show Python's plain traceback."""
    return typer.Typer(
        help=description,
        cls=_Commands,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


class _Commands(TyperGroup):
    """Prints that a command was interrupted; Typer alone exits without a message."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


def run(app: typer.Typer) -> None:
    """Run a command line and exit.

    Wrong input and an unusable store print one line on stderr and exit with code 2; Ctrl-C exits
    with code 130.
    """
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StorageError as error:
        print(f"error: {error.strerror}; the same command goes on from here", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output (`| head`) has ended; Python would print an error at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
