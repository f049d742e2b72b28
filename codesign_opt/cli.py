"""The command line; errors on one line. Each command stands in `commands`, by what it is for.

Exit codes: 0 done, 1 no certified plan (infeasible, or the proof failed), 2 bad input. Numbers and
tables go to stdout, progress and errors to stderr. Everything heavy is imported by the command that
needs it, so that list, show and --help start at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import codesign_opt as co

from .commands import checking, exporting, planning, reporting, showing, validating
from .commands.common import PROG, Parser, complain

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        arguments: words after the program's name; those of the process unless given.

    >>> main(["list", "--names"]) # doctest: +ELLIPSIS
    banded_64
    ...
    0
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokenPipeError:  # the reader of our output has gone: `codesign-opt list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return complain(_message(error), 2)
    except co.CodesignError as error:
        return complain(_message(error), 1)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROG,
        allow_abbrev=False,
        description="Compute-optimal training and sampling of diffusion models, by certified convex optimization.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {co.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for group in (planning, validating, showing, reporting, exporting, checking):
        group.declare(commands)
    return parser
