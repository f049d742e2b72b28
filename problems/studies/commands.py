"""What each command of `python -m problems.studies` runs: the experiment, its files, and what it prints.

The experiments are imported when they are run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import codesign_opt as co
from codesign_opt.basics.progress import Teller, teller


def _teller() -> Teller:
    """Progress on stderr: a bar in a terminal, lines in a file."""
    return teller(True)


def plans(options: argparse.Namespace) -> int:
    from .network_plans import network_plans, write_table

    place = co.testbed.cache_folder(options.cache) / "plans"
    rows = network_plans(place, samplers=options.samplers, steps=options.steps, progress=_teller())
    write_table(rows, options.out)
    print(f"the table is in {options.out}")
    return 0


def limit(options: argparse.Namespace) -> int:
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


def density(options: argparse.Namespace) -> int:
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


def solvers(options: argparse.Namespace) -> int:
    from .fitted_solvers import fitted_solvers

    found = fitted_solvers(
        data=options.data, steps=options.steps, history=options.history, cache=options.cache, progress=_teller()
    )
    _row_by_row(found, options.out / "fitted_solvers.csv")
    return 0


def elsewhere(options: argparse.Namespace) -> int:
    from .fitted_elsewhere import fitted_elsewhere

    found = fitted_elsewhere(data=options.data, steps=options.steps, cache=options.cache, progress=_teller())
    _row_by_row(found, options.out / "fitted_elsewhere.csv")
    return 0


def fashion(options: argparse.Namespace) -> int:
    from .rivals import fashion_rows
    from .solver_study import draw

    found = fashion_rows(
        steps=options.steps, draws=options.draws, rivals=options.rivals, cache=options.cache, progress=_teller()
    )
    rows = _written(found, options.out / "fashion_solvers.csv")
    draw(rows, options.out / "fashion_solvers.png")
    return 0


def pilots(options: argparse.Namespace) -> int:
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


def replan(options: argparse.Namespace) -> int:
    from .pilot_experiment import PilotExperiment
    from .replan_experiment import ReplanExperiment, overhead, unet_step
    from .replan_report import compare_replans, said_of_replans

    folder, tell = co.testbed.cache_folder(options.cache) / "testbed" / "pilots", _teller()
    experiments = [ReplanExperiment(PilotExperiment(name, folder=folder, progress=tell)) for name in options.data]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print(said_of_replans(compare_replans(experiments, seeds, options.out), unet_step(), overhead()))
    print(f"written: {options.out / 'replanning.csv'}, {options.out / 'replanning.png'}")
    return 0


def replan_caution(options: argparse.Namespace) -> int:
    from .equal_compute import EqualCompute
    from .replan_caution import caution_rows

    folder, tell = co.testbed.cache_folder(options.cache) / "equal_compute", _teller()
    cells = [EqualCompute(name, 1e6, folder=folder, progress=tell) for name in options.data]
    rows = caution_rows(cells, options.examples, range(options.seeds))
    _row_by_row(rows, options.out / "replan_caution.csv")
    return 0


def equal_compute(options: argparse.Namespace) -> int:
    from .equal_compute_report import compare_at_equal_compute, said_of_arms

    print(said_of_arms(compare_at_equal_compute(_cells(options), range(options.seeds), options.out)))
    return 0


def arm_ranks(options: argparse.Namespace) -> int:
    from .arm_ranks import rank_rows

    table = options.out / "equal_compute.csv"
    _row_by_row(rank_rows(_cells(options), range(options.seeds), table), options.out / "arm_ranks.csv")
    return 0


def _cells(options: argparse.Namespace) -> list[Any]:
    from .equal_compute import EqualCompute

    folder, tell = co.testbed.cache_folder(options.cache) / "equal_compute", _teller()
    return [EqualCompute(name, float(budget), folder=folder, progress=tell)
            for name in options.data for budget in options.budgets]  # fmt: skip


def calibrate(options: argparse.Namespace) -> int:
    from .calibration import NETWORKS, calibrate

    place = Path(co.__file__).parent / "training" / "calibrations"
    for name in options.networks or NETWORKS:
        print(calibrate(name, place, progress=_teller()).source)
    print(f"written: {place}")
    return 0


def measured(options: argparse.Namespace) -> int:
    from .calibration import NETWORKS, predicted_and_realised, write_rows

    rows = []
    for name in options.networks or NETWORKS:
        for budget in options.budgets:
            rows.append(predicted_and_realised(name, budget))
            print(rows[-1], flush=True)
    print("written:", write_rows(rows, options.out / "measured_training.csv"))
    return 0


def peers(options: argparse.Namespace) -> int:
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


def rivals(options: argparse.Namespace) -> int:
    from .rivals import rival_rows, said_of
    from .solver_study import GRIDS, PLAIN, RIVALS

    found = rival_rows(
        networks=options.networks, mixtures=options.mixtures, steps=options.steps, budgets=options.budgets,
        draws=options.draws, methods=options.methods or (*RIVALS, *GRIDS, *PLAIN), cache=options.cache,
        progress=_teller(),
    )  # fmt: skip
    print(said_of(_written(found, options.out / "rivals.csv")))
    return 0


def samples(options: argparse.Namespace) -> int:
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


def gaussian_worlds(options: argparse.Namespace) -> int:
    from .gaussian_worlds import draw, plans, random_designs
    from .network_plans import write_rows

    _row_by_row(plans(options.replicas), options.out / "gaussian_plans.csv")
    designs = random_designs()
    print(write_rows(designs, options.out / "random_designs.csv"), draw(designs, options.out / "random_designs.png"))
    return 0


def validation_cases(options: argparse.Namespace) -> int:
    from .validation_cases import cases, matrices, metrics, narrow

    made = {"cases": cases(), "narrow": narrow(), "matrices": matrices(), "metrics": metrics()}
    for name, found in made.items():
        _row_by_row(found, options.out / f"validation_{name}.csv")
    return 0


def ablation(options: argparse.Namespace) -> int:
    from .ablation import ablation

    _row_by_row(ablation(options.replicas), options.out / "ablation.csv")
    return 0


def splits(options: argparse.Namespace) -> int:
    from .ablation import said_of_splits, splits
    from .network_plans import write_rows

    rows = _row_by_row(splits(options.replicas), options.out / "splits.csv")
    print(write_rows(said_of_splits(rows), options.out / "splits_best.csv"))
    return 0


def budgets(options: argparse.Namespace) -> int:
    from .budgets import budgets, draw_budgets, exponents

    rows = _row_by_row(budgets(options.replicas), options.out / "budgets.csv")
    _row_by_row(exponents(), options.out / "budget_exponents.csv")
    print("written:", draw_budgets(rows, options.out / "budgets.png"))
    return 0


def stopping_law(options: argparse.Namespace) -> int:
    from .network_plans import write_rows
    from .stopping_law import fixed_laws, stopping_laws

    print(write_rows(fixed_laws(), options.out / "stopping_law_fixed.csv"))
    print(write_rows(list(stopping_laws()), options.out / "stopping_law.csv"))
    return 0


def las(options: argparse.Namespace) -> int:
    from .las_experiment import las_experiment, write_las

    print("written:", write_las(las_experiment(samples=options.samples, progress=_teller()), options.out))
    return 0


def representation(options: argparse.Namespace) -> int:
    from .representation import representation_study

    report = representation_study(_teller(), options.cache)
    print("written:", ", ".join(str(path) for path in report.save(options.out)))
    return 0
