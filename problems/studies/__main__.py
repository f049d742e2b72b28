"""The experiments behind the tables of README and docs: every one writes a table and figures.

python -m problems.studies plans --out docs/figures
python -m problems.studies density --first-seed 10 --seeds 10 --fixed "lognormal -0.2 1.2"  # runs no rule has seen
python -m problems.studies peers --worlds gaussian,mixtures --out docs/figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import commands as runs


def main(arguments: list[str] | None = None) -> int:
    """Run one experiment; it goes on where an earlier call was stopped."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m problems.studies", description=main.__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    _plans_arguments(commands)
    _density_arguments(commands)
    _pilot_arguments(commands)
    _solver_arguments(commands)
    _peers_arguments(commands)
    _rivals_arguments(commands)
    _gaussian_arguments(commands)
    las = _command(commands, runs.las, "loss-adaptive schedules against the usual grids on two mixtures")
    las.add_argument("--samples", type=int, default=20_000, help="per cell (20,000)")
    _command(
        commands, runs.representation,
        "what can be learned at each noise level: mixture and Fashion-MNIST network",
    )  # fmt: skip
    return parser


def _command(commands: Any, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    """A command named as what it runs."""
    parser: argparse.ArgumentParser = commands.add_parser(run.__name__, help=text, description=text)
    parser.add_argument("--cache", help="folder of weights and results (CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (1)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of tables and figures (out)")
    parser.set_defaults(run=run)
    return parser


def _plans_arguments(commands: Any) -> None:
    plans = _command(commands, runs.plans, "plans for the Fashion-MNIST network against the usual grids")
    limit = _command(commands, runs.limit, "how far those plans are from direct descent with 20 times the budget")
    limit.add_argument("--tries", type=int, default=2, help="starts that are descended (2)")
    for parser in (plans, limit):
        parser.add_argument("--samplers", type=_words, default=["euler", "heun", "dpmpp_2m"], help="with commas")
        parser.add_argument("--steps", type=_whole, default=[5, 8, 12, 18, 30], help="with commas (5,8,12,18,30)")


def _solver_arguments(commands: Any) -> None:
    parser = _command(commands, runs.solvers, "multistep solvers fitted to small networks, against their plans")
    parser.add_argument("--data", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    parser.add_argument("--steps", type=_whole, default=[5, 8, 12], help="with commas (5,8,12)")
    parser.add_argument("--history", type=int, default=3, help="outputs that a step takes (3)")

    other = _command(commands, runs.elsewhere, "such solvers at earlier weights, from half the draws, of all outputs")
    other.add_argument("--data", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    other.add_argument("--steps", type=_whole, default=[5, 8], help="with commas (5,8)")
    images = _command(commands, runs.fashion, "solvers for the Fashion-MNIST network, with measures of samples")
    images.add_argument("--steps", type=_whole, default=[5, 8, 12, 18], help="with commas (5,8,12,18)")
    images.add_argument("--draws", type=int, default=4096, help="unseen starts (4096)")
    images.add_argument("--rivals", type=_words, default=[], help="of the study of rivals, with commas")


def _density_arguments(commands: Any) -> None:
    parser = _command(commands, runs.density, "a training density planned from one pilot against 15 lognormals")
    parser.add_argument("--seeds", type=int, default=5, help="runs of every density (5)")
    parser.add_argument("--side", type=int, default=8, help="pixels along a patch (8)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (0)")
    parser.add_argument("--pilot-seed", type=int, default=100, help="seed of the pilot (100)")
    parser.add_argument("--fixed", help='the best of other seeds to compare with, such as "lognormal -0.2 1.2"')
    parser.add_argument("--compare", nargs="+", metavar="NAME", help="which of the 15 (all)")
    parser.add_argument("--rules", nargs="+", metavar="NAME", help="which rules (all)")


def _pilot_arguments(commands: Any) -> None:
    parser = _command(
        commands, runs.pilots, "densities planned from pilots by the safe route, trained, sampled and compared"
    )
    parser.add_argument("--data", type=_words, default=["photo_patches", "digits", "clothes"], help="with commas")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every density (3)")
    parser.add_argument("--pilots", type=int, default=5, help="pilots on each data set (5)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (0)")
    parser.add_argument("--first-pilot", type=int, default=100, help="seed of the first pilot (100)")
    replan = _command(
        commands, runs.replan, "training planned again along the run against fixed densities and a pilot's plan"
    )
    replan.add_argument("--data", type=_words, default=["digits", "photo_patches", "clothes"], help="with commas")
    replan.add_argument("--seeds", type=int, default=5, help="runs of every density (5)")
    replan.add_argument("--first-seed", type=int, default=20, help="seed of the first run (20)")
    caution = _command(commands, runs.replan_caution, "how much a re-plan's move must win, in short and in long runs")
    caution.add_argument("--data", type=_words, default=["digits", "photo_patches", "clothes"], help="with commas")
    caution.add_argument("--examples", type=_whole, default=[128_000, 918_000], help="of a run, with commas")
    caution.add_argument("--seeds", type=int, default=4, help="of every run (4)")
    equal = _command(commands, runs.equal_compute, "networks at equal total compute: a joint plan from its own pilot")
    equal.add_argument("--seeds", type=int, default=4, help="of every arm (4)")
    ranks = _command(commands, runs.arm_ranks, "what pilots predict of those arms, against what they left")
    for one in (equal, ranks):
        one.add_argument("--data", type=_words, default=["digits", "photo_patches", "clothes"], help="with commas")
        one.add_argument("--budgets", type=_whole, default=[1_000_000, 2_000_000, 4_000_000], help="evaluations in all")
    ranks.add_argument("--seeds", type=int, default=4, help="pilots whose predictions are averaged (4)")
    calibrate = _command(commands, runs.calibrate, "training laws of the standard networks that come with the library")
    measured = _command(
        commands, runs.measured, "distances predicted with those laws against networks trained as planned"
    )
    for one in (calibrate, measured):
        one.add_argument("--networks", type=_words, help="which, with commas (all)")
    measured.add_argument("--budgets", type=_whole, default=[1_000_000], help="evaluations, with commas (1000000)")


def _peers_arguments(commands: Any) -> None:
    parser = _command(commands, runs.peers, "the plan against the schedules of the literature at equal evaluations")
    parser.add_argument("--samplers", type=_words, default=["euler", "heun", "dpmpp_2m"], help="with commas")
    parser.add_argument(
        "--worlds", type=_words, default=["gaussian", "mixtures", "fashion_mnist"], help="where, with commas"
    )
    parser.add_argument("--evaluations", type=_whole, default=[5, 8, 10, 15, 20], help="per image, with commas")
    parser.add_argument("--draws", type=int, help="test draws of the measured worlds (20,000 and 256)")
    parser.add_argument("--peers", type=_words, help="which schedules, with commas (all)")


def _rivals_arguments(commands: Any) -> None:
    parser = _command(
        commands, runs.rivals, "fitted solvers against what the literature fits, at equal fitting budgets"
    )
    parser.add_argument("--networks", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    parser.add_argument(
        "--mixtures", type=_words, default=["circle8", "grid8"], help="with exact denoisers, with commas"
    )
    parser.add_argument("--steps", type=_whole, default=[5, 8, 12], help="evaluations, with commas (5,8,12)")
    parser.add_argument("--budgets", type=_whole, default=[5_000, 12_000], help="batches, to 8 steps and beyond")
    parser.add_argument("--draws", type=int, default=4096, help="of the test (4,096)")
    parser.add_argument("--methods", type=_words, help="which rivals, with commas (all)")
    samples = _command(commands, runs.samples, "how samples of fitted solvers measure beside a fine solution's")
    samples.add_argument("--networks", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    samples.add_argument("--steps", type=_whole, default=[5, 8, 10, 12, 18], help="evaluations (5,8,10,12,18)")
    samples.add_argument("--draws", type=int, default=4096, help="of the test (4,096)")


def _gaussian_arguments(commands: Any) -> None:
    worlds = _command(commands, runs.gaussian_worlds, "plans against linear denoisers trained and sampled as planned")
    worlds.add_argument("--replicas", type=int, default=100, help="trainings of each plan (100)")
    _command(commands, runs.validation_cases, "where a plan's law is off: few steps, matrices, metrics")
    ablation = _command(commands, runs.ablation, "what each decision is worth at equal compute")
    ablation.add_argument("--replicas", type=int, default=800, help="trainings of each arm (800)")
    split = _command(commands, runs.splits, "splits of a budget about the planned one, trained and sampled")
    split.add_argument("--replicas", type=int, default=400, help="trainings of each split (400)")
    grown = _command(commands, runs.budgets, "error, split and stop of plans as the budget grows, by sampler")
    grown.add_argument("--replicas", type=int, default=100, help="trainings of each plan (100)")
    _command(commands, runs.stopping_law, "exponents of the best stopping point in the learning rate")


def _words(text: str) -> list[str]:
    return text.split(",") if text else []


def _whole(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
