"""solve, audit, frontier and compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import codesign_opt as co

from .common import (
    PROBLEM,
    command,
    draw,
    folder_at,
    load,
    model_and_prices,
    numbers,
    save_plan,
    save_text,
    tell,
    write_plan,
)

__all__ = ["declare"]


def declare(commands: Any) -> None:
    """The commands that plan, and that hold schedules against plans."""
    _solve_arguments(commands)
    _audit_arguments(commands)
    _frontier_arguments(commands)
    _compare_arguments(commands)


def _solve_arguments(commands: Any) -> None:
    parser = command(commands, "solve", _solve, "plan training and sampling for a declared problem")
    _problem_arguments(parser)
    parser.add_argument("--budget", type=float, help="compute, in the unit of the problem's prices")
    parser.add_argument("--images", type=float, metavar="N", help="images that will be drawn")
    parser.add_argument("--steps", type=int, metavar="K", help="most sampler steps")


def _audit_arguments(commands: Any) -> None:
    parser = command(commands, "audit", _audit, "hold today's grid and training run against the certified optimum")
    _problem_arguments(parser)
    parser.add_argument("--images", type=float, metavar="N", help="images that will be drawn")
    parser.add_argument(
        "--sigmas", default="edm", metavar="GRID|FILE",
        help="edm, log_snr, descending noise levels v1,v2,…, or a file of them: .json, .csv, .txt (edm)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="K", help="steps of an edm or log_snr grid (18)")
    parser.add_argument(
        "--density", default="lognormal:-1.2,1.2", metavar="lognormal:MEAN,STD|FILE",
        help="density of the training run in log sigma, or a trainer's settings (lognormal:-1.2,1.2)",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, default=2_000, help="iterations of the training run (2000)")
    parser.add_argument("--batch", type=int, default=256, help="examples per iteration (256)")


def _frontier_arguments(commands: Any) -> None:
    parser = command(commands, "frontier", _frontier, "plan along a sweep of budgets, or of numbers of images")
    _problem_arguments(parser)
    parser.add_argument("--budgets", type=numbers, required=True, metavar="A,B,…", help="budgets, ascending")
    parser.add_argument("--images", type=numbers, metavar="N[,M,…]", help="images; several are swept, at one budget")
    parser.add_argument("--steps", type=int, metavar="K", help="most sampler steps")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="plans at a time; -1: one per core (1)")


def _compare_arguments(commands: Any) -> None:
    parser = command(
        commands, "compare", _compare, "hold schedules of the literature against the plan, equal evaluations"
    )
    parser.add_argument("problem", metavar="NAME|FILE", help=PROBLEM)
    parser.add_argument("--peers", metavar="A,B,…", help="schedules (all that the problem has evidence for)")
    parser.add_argument(
        "--evaluations", type=numbers, default=[10, 20, 40], metavar="N,M,…", help="per image (10,20,40)"
    )
    parser.add_argument("--samplers", metavar="A,B,…", help="euler, heun, dpmpp_2m, unipc, … (the problem's own)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="schedules at a time; -1: one per core (1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table, its figure and finished cells")
    parser.add_argument("-v", "--verbose", action="store_true", help="progress on stderr, in files too")


def _problem_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", metavar="NAME|FILE", help=PROBLEM)
    parser.add_argument("--levels", type=int, metavar="L", help="noise levels of the solver (200)")
    parser.add_argument("--points", type=int, metavar="N", help="stopping points of the first sweep (24)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the plan, its tables and its figures")
    parser.add_argument("-v", "--verbose", action="store_true", help="progress on stderr, in files too")


def _solve(options: argparse.Namespace) -> int:
    declared = load(options, "budget", "images", "steps")
    folder = folder_at(options.out)
    plan = declared.solve(**_progress(options, declared))
    print(plan, flush=True)  # figures take as long again
    if folder is not None:
        write_plan(folder, plan)
    return 0


def _audit(options: argparse.Namespace) -> int:
    declared = load(options, "images")
    model, prices = model_and_prices(declared, "audit")
    folder = folder_at(options.out)
    run = co.TrainingRun(_density(options.density), options.iterations, options.batch)
    settings = {**declared.options, **_progress(options, declared)}
    settings.pop("steps", None)  # the grid in use has its own
    report = co.audit(model, prices, sigmas=_grid(options, model), run=run, **settings)
    print(report)
    if folder is not None:
        save_text(folder / "audit.txt", str(report))
        report.optimum.save(folder / "plan.json")
        draw(folder / "audit.png", lambda: report.plot().figure)
    return 0


def _frontier(options: argparse.Namespace) -> int:
    sweep = options.images if options.images is not None and len(options.images) > 1 else None
    if sweep is not None and len(options.budgets) > 1:
        raise ValueError("frontier: several budgets and several numbers of images; sweep one of them.")
    options.images = None if sweep is not None or options.images is None else options.images[0]
    declared = load(options, "images", "steps")
    model, prices = model_and_prices(declared, "frontier")
    folder = folder_at(options.out)
    found = co.frontier(
        model,
        prices,
        options.budgets if sweep is None else options.budgets[0],
        images=sweep,
        progress=options.verbose or None,
        n_jobs=options.jobs,
        **declared.options,
    )
    print(found)
    if folder is not None:
        save_text(folder / "frontier.txt", str(found))
        for value, plan in zip(found.values, found.plans, strict=True):
            if plan is not None:
                save_plan(plan, folder / f"plan_{found.axis}_{_digits(float(value))}.json")
        draw(folder / "frontier.png", lambda: found.plot().figure)
    return 0 if any(plan is not None for plan in found.plans) else 1


def _digits(value: float) -> str:
    """All digits of a value: plans of neighbouring budgets never share a name, and 1e6 and 1e17 look alike."""
    return f"{value:.0f}" if value == round(value) and value < 1e30 else repr(value)


def _compare(options: argparse.Namespace) -> int:
    declared = co.problems.load(options.problem)
    if declared.model is None:
        raise ValueError(f"compare needs a model, but {declared.name} is a finished problem; `solve` it.")
    folder = folder_at(options.out)
    found = co.compare(
        declared.model,
        None if options.peers is None else options.peers.split(","),
        options.evaluations,
        samplers=None if options.samplers is None else options.samplers.split(","),
        folder=None if folder is None else folder / "cells",
        progress=options.verbose or None,
        n_jobs=options.jobs,
    )
    print(found)
    if folder is not None:
        save_text(folder / "comparison.txt", str(found))
        save_text(folder / "comparison.md", found.markdown())
        found.to_csv(folder / "comparison.csv")
        draw(folder / "comparison.png", lambda: found.plot()[0].figure)
    return 0


def _progress(options: argparse.Namespace, declared: co.problems.DeclaredProblem) -> dict[str, Any]:
    """Arguments for a solve that shows its progress on stderr."""
    if not options.verbose:
        return {}
    tell(f"{declared.name}: {declared.title}. {declared.provenance}")
    if declared.problem is None:
        return {"progress": True}
    return {"on_attempt": lambda record: tell(", ".join(f"{k} {v}" for k, v in record.items()))}


def _grid(options: argparse.Namespace, model: Any) -> Any:
    """The sampler grid that --sigmas and --steps name."""
    families = {"edm": co.edm_grid, "log_snr": co.log_snr_grid}
    if options.sigmas in families:
        low, high = model.process.sigma_min, model.process.sigma_max
        steps = 18 if options.steps is None else options.steps
        return families[options.sigmas](steps, low, high, terminal=model.terminal)
    if Path(options.sigmas).suffix.lower() in (".json", ".csv", ".txt"):
        grid = co.read_schedule(options.sigmas)
        if options.steps is not None:
            raise ValueError(f"--steps goes with --sigmas edm or log_snr; {options.sigmas} has {grid.size - 1} steps.")
        return grid
    if options.steps is not None:
        raise ValueError("--steps goes with --sigmas edm or log_snr; a list of noise levels has its own number.")
    try:
        return numbers(options.sigmas)
    except argparse.ArgumentTypeError:
        raise ValueError(f"--sigmas is {options.sigmas!r}; give edm, log_snr, or noise levels v1,v2,…") from None


def _density(text: str) -> Any:
    if Path(text).suffix.lower() in (".toml", ".json", ".yaml", ".yml", ".sh"):
        return co.read_training(Path(text))
    kind, _, values = text.partition(":")
    try:
        mean, std = numbers(values)
    except (argparse.ArgumentTypeError, ValueError):
        kind = ""
    if kind != "lognormal":
        raise ValueError(f"--density is {text!r}; give lognormal:MEAN,STD, such as lognormal:-1.2,1.2, or a file.")
    return co.LogNormal(mean, std)
