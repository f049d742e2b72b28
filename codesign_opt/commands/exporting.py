"""export and export-training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import codesign_opt as co

from .common import command

__all__ = ["declare"]


def declare(commands: Any) -> None:
    """The commands that give a plan to other programs."""
    _export_arguments(commands)
    _export_training_arguments(commands)


def _export_arguments(commands: Any) -> None:
    parser = command(commands, "export", _export, "give a plan's noise levels, or its solver, to another program")
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


def _export_training_arguments(commands: Any) -> None:
    parser = command(commands, "export-training", _export_training, "give a plan's training density to a trainer")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="a saved plan, or settings of another trainer")
    parser.add_argument(
        "--to", required=True, metavar="TARGET", help="edm2, sd-scripts, diffusers, …; an error lists all"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of the target: shift=3.0")
    parser.add_argument("--floor", type=float, metavar="SHARE", help="of examples even in log sigma from 0.002 to 80")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write the settings to as well")


def _target(text: str) -> str:
    """A name that `export` knows, the user's own included; argparse turns the error into one line."""
    known = co.exports.targets()
    if text not in known:
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(known)})")
    return text


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


def _export_training(options: argparse.Namespace) -> int:
    saved = options.plan.read_text(encoding="utf-8", errors="replace")
    density: Any = co.Plan.load(options.plan) if '"codesign_opt.plan"' in saved else co.read_training(options.plan)
    if options.floor is not None:
        density = getattr(density, "training_density", density).with_floor(options.floor, 0.002, 80.0)
    pairs = (word.partition("=")[::2] for word in options.set)
    given = {name: json.loads(value) if value[:1] in "0123456789tf" else value for name, value in pairs}
    print(co.export_training(density, options.to, path=options.out, **given))
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
