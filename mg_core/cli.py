"""Shared by all command lines: errors as one line, exit codes, interruption."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mg_core.errors import InputError, StorageError
from mg_core.redaction import redacted
from mg_core.terminal import OutputError, printing

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

    Wrong input, an unusable store and output that cannot be written print one line on stderr and
    exit with code 2; Ctrl-C exits with code 130.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:  # Else the next file that is opened would get its number.
            os.open(os.devnull, os.O_RDWR)
    try:
        with printing():
            code = _exit_code(app)
    except OutputError as error:
        # The reader of a pipe (`| head`) has seen enough.
        code = 1 if error.errno == errno.EPIPE else 2
        if code == 2:
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
    sys.exit(code)


def _exit_code(app: typer.Typer) -> int | str | None:
    try:
        app()
    except SystemExit as end:
        return end.code
    except InputError as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    except StorageError as error:
        problem = redacted(str(error.strerror))
        print(f"error: {problem}; the same command goes on from here", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
