"""Train the small networks of the testbed, or measure plans and training densities on them.

python -m codesign_opt.testbed fashion_mnist
python -m codesign_opt.testbed density --out docs/figures
python -m codesign_opt.testbed density --first-seed 10 --seeds 10 --fixed "lognormal -0.2 1.2"  # runs no rule has seen
python -m codesign_opt.testbed density ... --compare "lognormal -0.2 1.2" "lognormal -0.7 1.2" --rules log-normal
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from .networks import RECIPES, cache_folder, trained


def main(arguments: list[str] | None = None) -> int:
    """Train one network, or go on where an earlier call was stopped; or measure plans or training densities."""
    whats = [(name, recipe.title) for name, recipe in RECIPES.items()]
    whats.append(("plans", "sampler plans for the Fashion-MNIST network against the usual grids: table and figure"))
    whats.append(("limit", "how far those plans are from direct descent with 20 times the evaluations"))
    whats.append(("density", "a training density planned from one pilot run against 15 lognormal ones, photo patches"))
    parser = argparse.ArgumentParser(prog="python -m codesign_opt.testbed", description=main.__doc__)
    parser.add_argument(
        "name", choices=[name for name, _ in whats], help="; ".join(f"{name}: {what}" for name, what in whats)
    )
    parser.add_argument("--cache", help="folder of the weights (default: CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (default 1)")
    parser.add_argument("--samplers", default="euler,heun,dpmpp_2m", help="plans: which samplers, with commas")
    parser.add_argument("--steps", default="5,8,12,18,30", help="plans: numbers of steps, with commas")
    parser.add_argument("--out", default="out", help="plans, density: folder of the table and the figure")
    parser.add_argument("--seeds", type=int, default=5, help="density: runs of every density (default 5)")
    parser.add_argument("--side", type=int, default=8, help="density: pixels along a patch (default 8)")
    parser.add_argument("--first-seed", type=int, default=0, help="density: seed of the first run (default 0)")
    parser.add_argument("--pilot-seed", type=int, default=100, help="density: seed of the pilot (default 100)")
    parser.add_argument(
        "--fixed", help='density: the best of other seeds to compare with, such as "lognormal -0.2 1.2"'
    )
    parser.add_argument("--compare", nargs="+", metavar="NAME", help="density: which of the 15 (default all)")
    parser.add_argument("--rules", nargs="+", metavar="NAME", help="density: which rules (default all)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.name in ("plans", "limit"):
        counts = [int(count) for count in options.steps.split(",")]
        return _plans(options.name, options.cache, Path(options.out), options.samplers.split(","), counts)
    if options.name == "density":
        return _density(options)
    start = time.monotonic()

    def progress(done: int, total: int, loss: float) -> None:
        print(
            f"{done:>7,} of {total:,}  loss {loss:.4f}  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
        )

    result = trained(options.name, folder=options.cache, progress=progress)
    print(f"{options.name}: {result.iterations:,} iterations of {result.batch}, in {cache_folder(options.cache)}")
    return 0


def _plans(what: str, cache: str | None, out: Path, samplers: list[str], steps: list[int]) -> int:
    from .network_plans import network_limit, network_plans, write_rows, write_table

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    place = cache_folder(cache) / "plans"
    if what == "plans":
        write_table(network_plans(place, samplers=samplers, steps=steps, progress=tell), out)
    else:
        write_rows(network_limit(place, samplers=samplers, steps=steps, progress=tell), out / "network_limit.csv")
    print(f"the table is in {out}")
    return 0


def _density(options: argparse.Namespace) -> int:
    from .density_experiment import DensityExperiment
    from .density_pilot import RULES
    from .density_report import compare_densities, lognormals

    start = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    name = "density_experiment" if options.side == 8 else f"density_experiment_{options.side}x{options.side}"
    folder = cache_folder(options.cache) / "testbed" / name
    report = compare_densities(
        DensityExperiment(folder=folder, side=options.side, progress=tell),
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
    print("written:", ", ".join(str(path) for path in report.save(Path(options.out), name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
