"""report: one HTML page of a saved plan or of a comparison's table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import codesign_opt as co

from .common import command, tell

__all__ = ["declare"]


def declare(commands: Any) -> None:
    """The commands that write pages."""
    parser = command(commands, "report", _report, "write one HTML page of a saved plan or of a comparison")
    parser.add_argument(
        "result", type=Path, metavar="PLAN.json|COMPARISON.csv", help="a file of solve --out, or of compare --out"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="page to write (beside the file, with .html)")


def _report(options: argparse.Namespace) -> int:
    result: Any = None
    if options.result.suffix == ".csv":
        with options.result.open(newline="", encoding="utf-8") as file:
            result = co.Comparison.read(file, title=options.result.stem)
    else:
        result = co.Plan.load(options.result)
    path = co.report(result, options.result.with_suffix(".html") if options.out is None else options.out)
    tell(f"{path} is written")
    return 0
