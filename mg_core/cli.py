"""What the command lines have in common: plain errors, exit codes, quick help."""

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
    """Return an application whose bugs show Python's own traceback."""
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
    """Says that a command was interrupted, of which Typer itself would leave nothing to see."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


def run(app: typer.Typer) -> None:
    """Run a command line and leave with its exit code.

    A user's mistake, wrong flags included, or a full disk is one line on stderr and code 2;
    Ctrl-C is 130.
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
        # The reader (`| head`) has left; without this the interpreter complains at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
