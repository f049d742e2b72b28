"""validate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import codesign_opt as co

from .common import command, folder_at, model_and_prices, save_text

__all__ = ["declare"]


def declare(commands: Any) -> None:
    """The command that trains and samples what a plan says."""
    parser = command(commands, "validate", _validate, "train and sample linear denoisers as planned, and compare")
    parser.add_argument(
        "plan", metavar="NAME|FILE", help="a declared problem, a .py file that defines build(), or a saved plan"
    )
    parser.add_argument("--replicas", type=int, default=64, metavar="R", help="trainings (64)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--learner", metavar="NAME", help="shared: one network instead of blocks")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the text")


def _validate(options: argparse.Namespace) -> int:
    if options.plan.endswith(".json"):
        plan = co.Plan.load(options.plan)
    else:
        declared = co.problems.load(options.plan)
        model_and_prices(declared, "validate")
        plan = declared.solve()
    folder = folder_at(options.out)
    found = co.validate(plan, replicas=options.replicas, seed=options.seed, learner=options.learner)
    print(found)
    if folder is not None:
        save_text(folder / "validation.txt", str(found))
    return 0
