"""show and list."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import codesign_opt as co

from .common import command, folder_at, write_plan

__all__ = ["declare"]


def declare(commands: Any) -> None:
    """The commands that print what there is."""
    _show_arguments(commands)
    _list_arguments(commands)


def _show_arguments(commands: Any) -> None:
    parser = command(commands, "show", _show, "print a saved plan")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="a file written by solve --out or by Plan.save")
    parser.add_argument(
        "--levels", type=int, nargs="?", const=12, metavar="ROWS", help="print the noise levels too (12 rows)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the figures and tables")


def _list_arguments(commands: Any) -> None:
    parser = command(commands, "list", _list, "list the declared problems")
    parser.add_argument("--names", action="store_true", help="names alone")


def _show(options: argparse.Namespace) -> int:
    plan = co.Plan.load(options.plan)
    folder = folder_at(options.out)
    print(plan)
    if options.levels is not None:
        print(f"\n{plan.table(options.levels)}")
    if folder is not None:
        write_plan(folder, plan, copy=False)
    return 0


def _list(options: argparse.Namespace) -> int:
    names = co.problems.names()
    width = max(map(len, names))
    for name in names:
        print(name if options.names else f"{name:<{width}}  {co.problems.title(name)}")
    return 0
