"""The command line: solve, audit, frontier, compare, show, export and list; errors of the package on one line.

Exit codes: 0 done, 1 no certified plan (infeasible, or the proof failed), 2 bad input. Numbers and
tables go to stdout, progress and errors to stderr. Everything heavy is imported by the command that
needs it, so that list, show and --help start at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import codesign_opt as co

__all__ = ["main"]

PROG = "codesign-opt"


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
        return _complain("interrupted", 130)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _complain(_message(error), 2)
    except co.CodesignError as error:
        return _complain(_message(error), 1)


def _complain(message: str, code: int) -> int:
    print(f"{PROG}: error: {message}", file=sys.stderr)
    return code


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


# the arguments


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(_complain(f"{message} ({self.prog} --help shows what is accepted)", 2))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG,
        allow_abbrev=False,
        description="Compute-optimal training and sampling of diffusion models, by certified convex optimization.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {co.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for declare in (_solve_arguments, _audit_arguments, _frontier_arguments, _show_arguments, _list_arguments):
        declare(commands)
    _compare_arguments(commands)
    _export_arguments(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def _problem_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "problem", metavar="NAME|FILE", help="a name from `codesign-opt list`, or a .py file that defines build()"
    )
    parser.add_argument("--levels", type=int, metavar="L", help="noise levels of the solver (200)")
    parser.add_argument("--points", type=int, metavar="N", help="stopping points of the first sweep (24)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the plan, its tables and its figures")
    parser.add_argument("-v", "--verbose", action="store_true", help="progress on stderr")


def _solve_arguments(commands: Any) -> None:
    parser = _command(commands, "solve", _solve, "plan training and sampling for a declared problem")
    _problem_arguments(parser)
    parser.add_argument("--budget", type=float, help="compute, in the unit of the problem's prices")
    parser.add_argument("--images", type=float, metavar="N", help="images that will be drawn")
    parser.add_argument("--steps", type=int, metavar="K", help="most sampler steps")


def _audit_arguments(commands: Any) -> None:
    parser = _command(commands, "audit", _audit, "hold today's grid and training run against the certified optimum")
    _problem_arguments(parser)
    parser.add_argument("--images", type=float, metavar="N", help="images that will be drawn")
    parser.add_argument(
        "--sigmas", default="edm", metavar="GRID|FILE",
        help="edm, log_snr, descending noise levels v1,v2,…, or a file of them: .json, .csv, .txt (edm)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="K", help="steps of an edm or log_snr grid (18)")
    parser.add_argument(
        "--density", default="lognormal:-1.2,1.2", metavar="lognormal:MEAN,STD",
        help="density of the training run in log sigma (lognormal:-1.2,1.2)",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, default=2_000, help="iterations of the training run (2000)")
    parser.add_argument("--batch", type=int, default=256, help="examples per iteration (256)")


def _frontier_arguments(commands: Any) -> None:
    parser = _command(commands, "frontier", _frontier, "plan along a sweep of budgets, or of numbers of images")
    _problem_arguments(parser)
    parser.add_argument("--budgets", type=_numbers, required=True, metavar="A,B,…", help="budgets, ascending")
    parser.add_argument("--images", type=_numbers, metavar="N[,M,…]", help="images; several are swept, at one budget")
    parser.add_argument("--steps", type=int, metavar="K", help="most sampler steps")


def _compare_arguments(commands: Any) -> None:
    parser = _command(
        commands, "compare", _compare, "hold schedules of the literature against the plan, equal evaluations"
    )
    parser.add_argument(
        "problem", metavar="NAME|FILE", help="a name from `codesign-opt list`, or a .py file that defines build()"
    )
    parser.add_argument("--peers", metavar="A,B,…", help="schedules (all that the problem has evidence for)")
    parser.add_argument(
        "--evaluations", type=_numbers, default=[10, 20, 40], metavar="N,M,…", help="per image (10,20,40)"
    )
    parser.add_argument("--samplers", metavar="A,B,…", help="euler, heun, dpmpp_2m, unipc, … (the problem's own)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table, its figure and finished cells")
    parser.add_argument("-v", "--verbose", action="store_true", help="progress on stderr")


def _show_arguments(commands: Any) -> None:
    parser = _command(commands, "show", _show, "print a saved plan")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="a file written by solve --out or by Plan.save")
    parser.add_argument(
        "--levels", type=int, nargs="?", const=12, metavar="ROWS", help="print the noise levels too (12 rows)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the figures and tables")


def _list_arguments(commands: Any) -> None:
    parser = _command(commands, "list", _list, "list the declared problems")
    parser.add_argument("--names", action="store_true", help="names alone")


def _export_arguments(commands: Any) -> None:
    parser = _command(commands, "export", _export, "give a plan's noise levels, or its solver, to another program")
    parser.add_argument(
        "plan", type=Path, metavar="PLAN.json", help="a saved plan, or a file of noise levels or of a fitted solver"
    )
    parser.add_argument(
        "--to",
        required=True,
        type=_target,
        metavar="TARGET",
        help="diffusers, k-diffusion, comfyui, json, csv or python; a fitted solver goes to all of them but csv",
    )
    parser.add_argument(
        "--scheduler", metavar="FILE|CLASS", help="for diffusers: a scheduler_config.json, or the name of a class"
    )
    parser.add_argument("--flow", action="store_true", help="flow times t = sigma / (1 + sigma) instead of sigmas")
    parser.add_argument("--mu", type=float, help="dynamic shift of a flow-matching scheduler")
    parser.add_argument("--pipeline", help="class of the diffusers pipeline: says what to write for it")
    parser.add_argument("--clip", action="store_true", help="move levels outside the network's range to its ends")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (stdout)")


def _numbers(text: str) -> list[float]:
    """Numbers between commas; argparse turns the error into one line."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers a,b,c") from None


def _target(text: str) -> str:
    """A name that `export` knows, the user's own included; argparse turns the error into one line."""
    known = co.exports.targets()
    if text not in known:
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(known)})")
    return text


# the commands


def _solve(options: argparse.Namespace) -> int:
    declared = _load(options, "budget", "images", "steps")
    folder = _folder(options.out)
    plan = declared.solve(**_progress(options, declared))
    print(plan)
    if folder is not None:
        _write(folder, plan)
    return 0


def _audit(options: argparse.Namespace) -> int:
    declared = _load(options, "images")
    model, prices = _model_and_prices(declared, "audit")
    folder = _folder(options.out)
    run = co.TrainingRun(_density(options.density), options.iterations, options.batch)
    settings = {**declared.options, **_progress(options, declared)}
    settings.pop("steps", None)  # the grid in use has its own
    report = co.audit(model, prices, sigmas=_grid(options, model), run=run, **settings)
    print(report)
    if folder is not None:
        _save_text(folder / "audit.txt", str(report))
        report.optimum.save(folder / "plan.json")
        _draw(folder / "audit.png", lambda: report.plot().figure)
    return 0


def _frontier(options: argparse.Namespace) -> int:
    sweep = options.images if options.images is not None and len(options.images) > 1 else None
    if sweep is not None and len(options.budgets) > 1:
        raise ValueError("frontier: several budgets and several numbers of images; sweep one of them.")
    options.images = None if sweep is not None or options.images is None else options.images[0]
    declared = _load(options, "images", "steps")
    model, prices = _model_and_prices(declared, "frontier")
    folder = _folder(options.out)
    found = co.frontier(
        model,
        prices,
        options.budgets if sweep is None else options.budgets[0],
        images=sweep,
        progress=_tell if options.verbose else None,
        **declared.options,
    )
    print(found)
    if folder is not None:
        _save_text(folder / "frontier.txt", str(found))
        for value, plan in zip(found.values, found.plans, strict=True):
            if plan is not None:
                # all digits of the value: plans of neighbouring budgets never share a name
                _save_plan(plan, folder / f"plan_{found.axis}_{repr(float(value)).removesuffix('.0')}.json")
        _draw(folder / "frontier.png", lambda: found.plot().figure)
    return 0 if any(plan is not None for plan in found.plans) else 1


def _compare(options: argparse.Namespace) -> int:
    declared = co.problems.load(options.problem)
    if declared.model is None:
        raise ValueError(f"compare needs a model, but {declared.name} is a finished problem; `solve` it.")
    folder = _folder(options.out)
    found = co.compare(
        declared.model,
        None if options.peers is None else options.peers.split(","),
        options.evaluations,
        samplers=None if options.samplers is None else options.samplers.split(","),
        folder=None if folder is None else folder / "cells",
        progress=_tell if options.verbose else None,
    )
    print(found)
    if folder is not None:
        _save_text(folder / "comparison.txt", str(found))
        _save_text(folder / "comparison.md", found.markdown())
        found.to_csv(folder / "comparison.csv")
        _draw(folder / "comparison.png", lambda: found.plot()[0].figure)
    return 0


def _show(options: argparse.Namespace) -> int:
    plan = co.Plan.load(options.plan)
    folder = _folder(options.out)
    print(plan)
    if options.levels is not None:
        print(f"\n{plan.table(options.levels)}")
    if folder is not None:
        _write(folder, plan, copy=False)
    return 0


def _export(options: argparse.Namespace) -> int:
    schedule, fitted = _planned(options.plan)
    scheduler = None if options.scheduler is None else _scheduler(options.scheduler)
    # k-diffusion's numbers are those of a SIGMAS list; only its tensor needs torch
    target = "comfyui" if options.to == "k-diffusion" and not fitted else options.to
    of_target = {"flow": options.flow, "mu": options.mu, "clip": options.clip, "pipeline": options.pipeline}
    value = co.export(schedule, target, scheduler, path=options.out, **of_target)
    if target == "diffusers" or options.out is None:
        print(", ".join(map(repr, value)) if isinstance(value, list) else str(value).rstrip())
    return 0


def _planned(path: Path) -> tuple[Any, bool]:
    """A plan, a fitted solver or noise levels, as the file has them, and whether steps are those of a fitted solver."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if '"codesign_opt.plan"' in text:
        plan = co.Plan.load(path)
        return plan, plan.solver is not None
    if path.suffix == ".py" or '"solver"' in text or '"LinearMultistepScheduler"' in text:
        return co.read_solver(path), True
    return co.read_schedule(path), False


def _scheduler(name: str) -> Any:
    """The scheduler of a scheduler_config.json or of a class's name."""
    import json

    import diffusers

    config: dict[str, Any] = {}
    kind = name
    if name.endswith(".json"):
        try:
            config = json.loads(Path(name).read_text(encoding="utf-8"))
            kind = str(config["_class_name"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{name} is not a scheduler's configuration ({type(error).__name__}: {error}).") from None
    found: Any = getattr(diffusers, kind, None)
    if not (kind.endswith("Scheduler") and hasattr(found, "from_config")):
        raise ValueError(f"--scheduler: diffusers {diffusers.__version__} has no scheduler {kind!r}.")
    return found.from_config(config)


def _list(options: argparse.Namespace) -> int:
    names = co.problems.names()
    width = max(map(len, names))
    for name in names:
        print(name if options.names else f"{name:<{width}}  {co.problems.title(name)}")
    return 0


# what the commands share


def _load(options: argparse.Namespace, *limits: str) -> co.problems.DeclaredProblem:
    """The problem with what the command line says instead of its own limits and levels."""
    stated = {name: getattr(options, name) for name in (*limits, "levels", "points")}
    return co.problems.load(options.problem, **{k: v for k, v in stated.items() if v is not None})


def _model_and_prices(declared: co.problems.DeclaredProblem, command: str) -> tuple[Any, co.Prices]:
    if declared.model is None:
        raise ValueError(f"{command} needs a model, but {declared.name} is a finished problem; `solve` it.")
    if declared.prices is None:
        raise ValueError(f"{command} needs prices, but {declared.name} has none; return them from build().")
    return declared.model, declared.prices


def _progress(options: argparse.Namespace, declared: co.problems.DeclaredProblem) -> dict[str, Any]:
    """Arguments for a solve that shows its progress on stderr."""
    if not options.verbose:
        return {}
    _tell(f"{declared.name}: {declared.title}. {declared.provenance}")
    if declared.problem is None:
        return {"progress": _tell}
    return {"on_attempt": lambda record: _tell(", ".join(f"{k} {v}" for k, v in record.items()))}


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
        return _numbers(options.sigmas)
    except argparse.ArgumentTypeError:
        raise ValueError(f"--sigmas is {options.sigmas!r}; give edm, log_snr, or noise levels v1,v2,…") from None


def _density(text: str) -> Any:
    kind, _, values = text.partition(":")
    try:
        mean, std = _numbers(values)
    except (argparse.ArgumentTypeError, ValueError):
        kind = ""
    if kind != "lognormal":
        raise ValueError(f"--density is {text!r}; give lognormal:MEAN,STD, such as lognormal:-1.2,1.2.")
    return co.LogNormal(mean, std)


def _folder(path: Path | None) -> Path | None:
    """Make the folder before the work, so that a wrong path costs nothing."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    return path


def _write(folder: Path, plan: co.Plan, *, copy: bool = True) -> None:
    """plan.json, the table of levels, and the page of figures."""
    if copy:
        _save_plan(plan, folder / "plan.json")
    _save_text(folder / "plan.txt", f"{plan}\n\n{plan.table(len(plan.levels))}")
    _draw(folder / "page.png", plan.plot)


def _save_plan(plan: co.Plan, path: Path) -> None:
    if path.exists():
        _tell(f"{PROG}: {path} is replaced")
    plan.save(path)


def _save_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _draw(path: Path, figure_of: Callable[[], Any]) -> None:
    """Save a figure; without matplotlib the numbers are written and the reader told."""
    if "matplotlib" not in sys.modules:
        os.environ.setdefault("MPLBACKEND", "Agg")  # files alone: no display is needed
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        _tell(f'{PROG}: {path.name} is left out ({error}); pip install "codesign_opt[plots]"')
        return
    figure = figure_of()
    figure.savefig(path, dpi=150)
    plt.close(figure)
