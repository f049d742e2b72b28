"""Train the small networks of the testbed, or compare training densities on them.

python -m codesign_opt.testbed fashion_mnist
python -m codesign_opt.testbed density --out docs/figures
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from .networks import RECIPES, cache_folder, trained


def main(arguments: list[str] | None = None) -> int:
    """Train one network, or compare densities; either goes on where an earlier call was stopped."""
    parser = argparse.ArgumentParser(prog="python -m codesign_opt.testbed", description=main.__doc__)
    titles = {name: recipe.title for name, recipe in RECIPES.items()}
    titles["density"] = "a training density planned from one pilot run against 15 lognormal ones, 8 x 8 photo patches"
    parser.add_argument("name", choices=list(titles), help="; ".join(f"{k}: {v}" for k, v in titles.items()))
    parser.add_argument("--cache", help="folder of the weights (default: CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (default 1)")
    parser.add_argument("--out", default=".", help="density: folder of the table and the figure (default: here)")
    parser.add_argument("--seeds", type=int, default=3, help="density: runs of every density (default 3)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
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


def _density(options: argparse.Namespace) -> int:
    from .density_experiment import DensityExperiment
    from .density_report import compare_densities

    start = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    place = cache_folder(options.cache) / "testbed" / "density"
    report = compare_densities(DensityExperiment(folder=place, progress=progress), seeds=options.seeds)
    print(report)
    print("written:", ", ".join(str(path) for path in report.save(Path(options.out))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
