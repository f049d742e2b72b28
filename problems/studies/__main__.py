"""The experiments behind the tables of README and docs: every one writes a table and figures.

python -m problems.studies plans --out docs/figures
python -m problems.studies density --first-seed 10 --seeds 10 --fixed "lognormal -0.2 1.2"  # runs no rule has seen
python -m problems.studies peers --worlds gaussian,mixtures --out docs/figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

import codesign_opt as co
from codesign_opt.basics.progress import Teller, teller


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
    las = _command(commands, "las", _las, "loss-adaptive schedules against the usual grids on two mixtures")
    las.add_argument("--samples", type=int, default=20_000, help="per cell (20,000)")
    _command(
        commands, "representation", _representation,
        "what can be learned at each noise level: mixture and Fashion-MNIST network",
    )  # fmt: skip
    return parser


def _command(commands: Any, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--cache", help="folder of weights and results (CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (1)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of tables and figures (out)")
    parser.set_defaults(run=run)
    return parser


def _plans_arguments(commands: Any) -> None:
    plans = _command(commands, "plans", _plans, "plans for the Fashion-MNIST network against the usual grids")
    limit = _command(commands, "limit", _limit, "how far those plans are from direct descent with 20 times the budget")
    limit.add_argument("--tries", type=int, default=2, help="starts that are descended (2)")
    for parser in (plans, limit):
        parser.add_argument("--samplers", type=_words, default=["euler", "heun", "dpmpp_2m"], help="with commas")
        parser.add_argument("--steps", type=_whole, default=[5, 8, 12, 18, 30], help="with commas (5,8,12,18,30)")


def _solver_arguments(commands: Any) -> None:
    parser = _command(commands, "solvers", _solvers, "multistep solvers fitted to small networks, against their plans")
    parser.add_argument("--data", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    parser.add_argument("--steps", type=_whole, default=[5, 8, 12], help="with commas (5,8,12)")
    parser.add_argument("--history", type=int, default=3, help="outputs that a step takes (3)")

    other = _command(
        commands, "elsewhere", _elsewhere, "such solvers at earlier weights, from half the draws, of all outputs"
    )
    other.add_argument("--data", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    other.add_argument("--steps", type=_whole, default=[5, 8], help="with commas (5,8)")
    images = _command(commands, "fashion", _fashion, "solvers for the Fashion-MNIST network, with measures of samples")
    images.add_argument("--steps", type=_whole, default=[5, 8, 12, 18], help="with commas (5,8,12,18)")
    images.add_argument("--draws", type=int, default=4096, help="unseen starts (4096)")
    images.add_argument("--rivals", type=_words, default=[], help="of the study of rivals, with commas")


def _density_arguments(commands: Any) -> None:
    parser = _command(commands, "density", _density, "a training density planned from one pilot against 15 lognormals")
    parser.add_argument("--seeds", type=int, default=5, help="runs of every density (5)")
    parser.add_argument("--side", type=int, default=8, help="pixels along a patch (8)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (0)")
    parser.add_argument("--pilot-seed", type=int, default=100, help="seed of the pilot (100)")
    parser.add_argument("--fixed", help='the best of other seeds to compare with, such as "lognormal -0.2 1.2"')
    parser.add_argument("--compare", nargs="+", metavar="NAME", help="which of the 15 (all)")
    parser.add_argument("--rules", nargs="+", metavar="NAME", help="which rules (all)")


def _pilot_arguments(commands: Any) -> None:
    parser = _command(
        commands, "pilots", _pilots, "densities planned from pilots by the safe route, trained, sampled and compared"
    )
    parser.add_argument("--data", type=_words, default=["photo_patches", "digits", "clothes"], help="with commas")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every density (3)")
    parser.add_argument("--pilots", type=int, default=5, help="pilots on each data set (5)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (0)")
    parser.add_argument("--first-pilot", type=int, default=100, help="seed of the first pilot (100)")
    replan = _command(
        commands, "replan", _replan, "training planned again along the run against fixed densities and a pilot's plan"
    )
    replan.add_argument("--data", type=_words, default=["digits", "photo_patches", "clothes"], help="with commas")
    replan.add_argument("--seeds", type=int, default=5, help="runs of every density (5)")
    replan.add_argument("--first-seed", type=int, default=20, help="seed of the first run (20)")
    equal = _command(
        commands, "equal_compute", _equal_compute, "networks at equal total compute: a joint plan from its own pilot"
    )
    equal.add_argument("--data", type=_words, default=["digits", "photo_patches", "clothes"], help="with commas")
    equal.add_argument("--budgets", type=_whole, default=[1_000_000, 2_000_000, 4_000_000], help="evaluations in all")
    equal.add_argument("--seeds", type=int, default=4, help="of every arm (4)")
    calibrate = _command(
        commands, "calibrate", _calibrate, "training laws of the standard networks that come with the library"
    )
    measured = _command(
        commands, "measured", _measured, "distances predicted with those laws against networks trained as planned"
    )
    for one in (calibrate, measured):
        one.add_argument("--networks", type=_words, help="which, with commas (all)")
    measured.add_argument("--budgets", type=_whole, default=[1_000_000], help="evaluations, with commas (1000000)")


def _peers_arguments(commands: Any) -> None:
    parser = _command(
        commands, "peers", _peers, "the plan against the schedules of the literature at equal evaluations"
    )
    parser.add_argument("--samplers", type=_words, default=["euler", "heun", "dpmpp_2m"], help="with commas")
    parser.add_argument(
        "--worlds", type=_words, default=["gaussian", "mixtures", "fashion_mnist"], help="where, with commas"
    )
    parser.add_argument("--evaluations", type=_whole, default=[5, 8, 10, 15, 20], help="per image, with commas")
    parser.add_argument("--draws", type=int, help="test draws of the measured worlds (20,000 and 256)")
    parser.add_argument("--peers", type=_words, help="which schedules, with commas (all)")


def _rivals_arguments(commands: Any) -> None:
    parser = _command(
        commands, "rivals", _rivals, "fitted solvers against what the literature fits, at equal fitting budgets"
    )
    parser.add_argument("--networks", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    parser.add_argument(
        "--mixtures", type=_words, default=["circle8", "grid8"], help="with exact denoisers, with commas"
    )
    parser.add_argument("--steps", type=_whole, default=[5, 8, 12], help="evaluations, with commas (5,8,12)")
    parser.add_argument("--budgets", type=_whole, default=[5_000, 12_000], help="batches, to 8 steps and beyond")
    parser.add_argument("--draws", type=int, default=4096, help="of the test (4,096)")
    parser.add_argument("--methods", type=_words, help="which rivals, with commas (all)")
    samples = _command(commands, "samples", _samples, "how samples of fitted solvers measure beside a fine solution's")
    samples.add_argument("--networks", type=_words, default=["photo_patches", "digits", "grid8"], help="with commas")
    samples.add_argument("--steps", type=_whole, default=[5, 8, 10, 12, 18], help="evaluations (5,8,10,12,18)")
    samples.add_argument("--draws", type=int, default=4096, help="of the test (4,096)")


def _gaussian_arguments(commands: Any) -> None:
    worlds = _command(
        commands, "gaussian_worlds", _gaussian_worlds, "plans against linear denoisers trained and sampled as planned"
    )
    worlds.add_argument("--replicas", type=int, default=100, help="trainings of each plan (100)")
    _command(commands, "validation_cases", _validation_cases, "where a plan's law is off: few steps, matrices, metrics")
    ablation = _command(commands, "ablation", _ablation, "what each decision is worth at equal compute")
    ablation.add_argument("--replicas", type=int, default=200, help="trainings of each arm (200)")
    split = _command(commands, "splits", _splits, "splits of a budget about the planned one, trained and sampled")
    split.add_argument("--replicas", type=int, default=400, help="trainings of each split (400)")
    _command(commands, "stopping_law", _stopping_law, "exponents of the best stopping point in the learning rate")


def _words(text: str) -> list[str]:
    return text.split(",") if text else []


def _whole(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _teller() -> Teller:
    """Progress on stderr: a bar in a terminal, lines in a file."""
    return teller(True)


def _plans(options: argparse.Namespace) -> int:
    from .network_plans import network_plans, write_table

    place = co.testbed.cache_folder(options.cache) / "plans"
    rows = network_plans(place, samplers=options.samplers, steps=options.steps, progress=_teller())
    write_table(rows, options.out)
    print(f"the table is in {options.out}")
    return 0


def _limit(options: argparse.Namespace) -> int:
    from .network_plans import Descent, network_limit, read_rows, write_rows

    place, path = co.testbed.cache_folder(options.cache) / "plans", options.out / "network_limit.csv"
    rows = read_rows(path)
    for row in network_limit(
        place, samplers=options.samplers, steps=options.steps, descent=Descent(tries=options.tries),
        table=options.out / "network_plans.csv", progress=_teller(),
    ):  # fmt: skip
        rows[row["sampler"], str(row["steps"])] = row  # a row is kept as soon as it is there
        write_rows(list(rows.values()), path)
    print(f"the table is in {options.out}")
    return 0


def _density(options: argparse.Namespace) -> int:
    from .density_experiment import DensityExperiment
    from .density_pilot import RULES
    from .density_report import compare_densities, lognormals

    name = "density_experiment" if options.side == 8 else f"density_experiment_{options.side}x{options.side}"
    folder = co.testbed.cache_folder(options.cache) / "testbed" / name
    report = compare_densities(
        DensityExperiment(folder=folder, side=options.side, progress=_teller()),
        seeds=options.seeds,
        first_seed=options.first_seed,
        pilot_seed=options.pilot_seed,
        densities=lognormals(options.compare),
        fixed=options.fixed,
        rules=options.rules or RULES,
    )
    print(report)
    if options.first_seed:
        name += f"_seeds{report.seeds[0]}-{report.seeds[-1]}"
    if options.pilot_seed != 100:
        name += f"_pilot{options.pilot_seed}"
    print("written:", ", ".join(str(path) for path in report.save(options.out, name)))
    return 0


def _solvers(options: argparse.Namespace) -> int:
    from .fitted_solvers import fitted_solvers

    found = fitted_solvers(
        data=options.data, steps=options.steps, history=options.history, cache=options.cache, progress=_teller()
    )
    _row_by_row(found, options.out / "fitted_solvers.csv")
    return 0


def _elsewhere(options: argparse.Namespace) -> int:
    from .fitted_elsewhere import fitted_elsewhere

    found = fitted_elsewhere(data=options.data, steps=options.steps, cache=options.cache, progress=_teller())
    _row_by_row(found, options.out / "fitted_elsewhere.csv")
    return 0


def _fashion(options: argparse.Namespace) -> int:
    from .rivals import fashion_rows
    from .solver_study import draw

    found = fashion_rows(
        steps=options.steps, draws=options.draws, rivals=options.rivals, cache=options.cache, progress=_teller()
    )
    rows = _written(found, options.out / "fashion_solvers.csv")
    draw(rows, options.out / "fashion_solvers.png")
    return 0


def _pilots(options: argparse.Namespace) -> int:
    from .pilot_experiment import PilotExperiment
    from .pilot_report import compare_pilots

    folder = co.testbed.cache_folder(options.cache) / "testbed" / "pilots"
    experiments = [PilotExperiment(name, folder=folder, progress=_teller()) for name in options.data]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    pilots = range(options.first_pilot, options.first_pilot + options.pilots)
    report = compare_pilots(experiments, seeds=seeds, pilots=pilots)
    print(report)
    name = "pilot_densities" if not options.first_seed else f"pilot_densities_seeds{seeds[0]}-{seeds[-1]}"
    print("written:", report.save(options.out, name))
    return 0


def _replan(options: argparse.Namespace) -> int:
    from .pilot_experiment import PilotExperiment
    from .replan_experiment import ReplanExperiment, overhead, unet_step
    from .replan_report import compare_replans, said_of_replans

    folder, tell = co.testbed.cache_folder(options.cache) / "testbed" / "pilots", _teller()
    experiments = [ReplanExperiment(PilotExperiment(name, folder=folder, progress=tell)) for name in options.data]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print(said_of_replans(compare_replans(experiments, seeds, options.out), unet_step(), overhead()))
    print(f"written: {options.out / 'replanning.csv'}, {options.out / 'replanning.png'}")
    return 0


def _equal_compute(options: argparse.Namespace) -> int:
    from .equal_compute import EqualCompute
    from .equal_compute_report import compare_at_equal_compute, said_of_arms

    folder, tell = co.testbed.cache_folder(options.cache) / "equal_compute", _teller()
    cells = [EqualCompute(name, float(budget), folder=folder, progress=tell)
             for name in options.data for budget in options.budgets]  # fmt: skip
    print(said_of_arms(compare_at_equal_compute(cells, range(options.seeds), options.out)))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from .calibration import NETWORKS, calibrate

    place = Path(co.__file__).parent / "training" / "calibrations"
    for name in options.networks or NETWORKS:
        print(calibrate(name, place, progress=_teller()).source)
    print(f"written: {place}")
    return 0


def _measured(options: argparse.Namespace) -> int:
    from .calibration import NETWORKS, predicted_and_realised, write_rows

    rows = []
    for name in options.networks or NETWORKS:
        for budget in options.budgets:
            rows.append(predicted_and_realised(name, budget))
            print(rows[-1], flush=True)
    print("written:", write_rows(rows, options.out / "measured_training.csv"))
    return 0


def _peers(options: argparse.Namespace) -> int:
    from .peer_comparison import compare_peers, write_comparison

    found = compare_peers(
        co.testbed.cache_folder(options.cache),
        worlds=options.worlds,
        samplers=options.samplers,
        evaluations=options.evaluations,
        peers=options.peers,
        draws=options.draws,
        progress=_teller(),
    )
    for one in found.values():
        print(f"{one}\n")
    print("written:", ", ".join(str(path) for path in write_comparison(found, options.out)))
    return 0


def _rivals(options: argparse.Namespace) -> int:
    from .rivals import rival_rows, said_of
    from .solver_study import GRIDS, PLAIN, RIVALS

    found = rival_rows(
        networks=options.networks, mixtures=options.mixtures, steps=options.steps, budgets=options.budgets,
        draws=options.draws, methods=options.methods or (*RIVALS, *GRIDS, *PLAIN), cache=options.cache,
        progress=_teller(),
    )  # fmt: skip
    print(said_of(_written(found, options.out / "rivals.csv")))
    return 0


def _samples(options: argparse.Namespace) -> int:
    from .rivals import rival_rows, said_of_samples

    found = rival_rows(
        networks=options.networks, mixtures=(), steps=options.steps, draws=options.draws, methods=("edm",),
        cache=options.cache, progress=_teller(),
    )  # fmt: skip
    print(said_of_samples(_written(found, options.out / "fitted_measures.csv")))
    return 0


def _row_by_row(found: Iterable[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """All rows, printed, and written after every one: what is finished, so far."""
    from .network_plans import write_rows

    rows: list[dict[str, Any]] = []
    for row in found:
        rows.append(row)
        print(write_rows(rows, path), row, flush=True)
    return rows


def _written(cells: Iterable[list[dict[str, Any]]], path: Path) -> list[dict[str, Any]]:
    """All rows, written after every cell: what is finished, so far."""
    from .network_plans import write_rows

    rows: list[dict[str, Any]] = []
    for found in cells:
        rows += found
        columns = dict.fromkeys(name for row in rows for name in row)
        write_rows([{**dict.fromkeys(columns, ""), **row} for row in rows], path)
    return rows


def _gaussian_worlds(options: argparse.Namespace) -> int:
    from .gaussian_worlds import draw, plans, random_designs
    from .network_plans import write_rows

    _row_by_row(plans(options.replicas), options.out / "gaussian_plans.csv")
    designs = random_designs()
    print(write_rows(designs, options.out / "random_designs.csv"), draw(designs, options.out / "random_designs.png"))
    return 0


def _validation_cases(options: argparse.Namespace) -> int:
    from .validation_cases import cases, matrices, metrics, narrow

    made = {"cases": cases(), "narrow": narrow(), "matrices": matrices(), "metrics": metrics()}
    for name, found in made.items():
        _row_by_row(found, options.out / f"validation_{name}.csv")
    return 0


def _ablation(options: argparse.Namespace) -> int:
    from .ablation import ablation

    _row_by_row(ablation(options.replicas), options.out / "ablation.csv")
    return 0


def _splits(options: argparse.Namespace) -> int:
    from .ablation import said_of_splits, splits
    from .network_plans import write_rows

    rows = _row_by_row(splits(options.replicas), options.out / "splits.csv")
    print(write_rows(said_of_splits(rows), options.out / "splits_best.csv"))
    return 0


def _stopping_law(options: argparse.Namespace) -> int:
    from .network_plans import write_rows
    from .stopping_law import fixed_laws, stopping_laws

    print(write_rows(fixed_laws(), options.out / "stopping_law_fixed.csv"))
    print(write_rows(list(stopping_laws()), options.out / "stopping_law.csv"))
    return 0


def _las(options: argparse.Namespace) -> int:
    from .las_experiment import las_experiment, write_las

    print("written:", write_las(las_experiment(samples=options.samples, progress=_teller()), options.out))
    return 0


def _representation(options: argparse.Namespace) -> int:
    from .representation import representation_study

    report = representation_study(_teller(), options.cache)
    print("written:", ", ".join(str(path) for path in report.save(options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
