"""What commands share: parsers whose errors are one line, problems by name, files that are written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import codesign_opt as co

from .later import put_off

__all__ = [
    "PROBLEM",
    "PROG",
    "Parser",
    "command",
    "complain",
    "draw",
    "folder_at",
    "load",
    "model_and_prices",
    "numbers",
    "save_plan",
    "save_text",
    "tell",
    "write_plan",
]

PROG = "codesign-opt"
PROBLEM = (
    "a name from `codesign-opt list`, a .py file that defines build(), or data of yours: data.npy, data.csv, or a "
    "folder of images"
)


def complain(message: str, code: int) -> int:
    print(f"{PROG}: error: {message}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(complain(f"{message} ({self.prog} --help shows what is accepted)", 2))


def command(commands: Any, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def numbers(text: str) -> list[float]:
    """Numbers between commas; argparse turns the error into one line."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers a,b,c") from None


def load(options: argparse.Namespace, *limits: str) -> co.problems.DeclaredProblem:
    """The problem with what the command line says instead of its own limits and levels."""
    stated = {name: getattr(options, name) for name in (*limits, "levels", "points")}
    path = Path(options.problem)
    if path.suffix != ".py":
        put_off("cvxpy")
    declared = co.problems.load(options.problem, **{k: v for k, v in stated.items() if v is not None})
    if path.suffix != ".py" and path.exists() and options.problem not in co.problems.names():
        tell(f"{declared.title}: {declared.provenance}")  # of one's own data: how they were read
    return declared


def model_and_prices(declared: co.problems.DeclaredProblem, command: str) -> tuple[Any, co.Prices]:
    if declared.model is None:
        raise ValueError(f"{command} needs a model, but {declared.name} is a finished problem; `solve` it.")
    if declared.prices is None:
        raise ValueError(f"{command} needs prices, but {declared.name} has none; return them from build().")
    return declared.model, declared.prices


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def folder_at(path: Path | None) -> Path | None:
    """Make the folder before the work, so that a wrong path costs nothing."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_plan(folder: Path, plan: co.Plan, *, copy: bool = True) -> None:
    """plan.json, the table of levels, and the page of figures."""
    if copy:
        save_plan(plan, folder / "plan.json")
    save_text(folder / "plan.txt", f"{plan}\n\n{plan.table(len(plan.levels))}")
    draw(folder / "page.png", plan.plot)


def save_plan(plan: co.Plan, path: Path) -> None:
    if path.exists():
        tell(f"{PROG}: {path} is replaced")
    plan.save(path)


def save_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def draw(path: Path, figure_of: Callable[[], Any]) -> None:
    """Save a figure; without matplotlib the numbers are written and the reader told."""
    if "matplotlib" not in sys.modules:
        os.environ.setdefault("MPLBACKEND", "Agg")  # files alone: no display is needed
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        tell(f'{PROG}: {path.name} is left out ({error}); pip install "codesign_opt[plots]"')
        return
    figure = figure_of()
    figure.savefig(path, dpi=150)
    plt.close(figure)
