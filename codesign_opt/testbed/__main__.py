"""Train the small networks of the testbed, resumably: `python -m codesign_opt.testbed fashion_mnist`."""

from __future__ import annotations

import argparse
import sys

import torch

from .networks.recipes import RECIPES, cache_folder, trained


def main(arguments: list[str] | None = None) -> int:
    """Train one network; a later call goes on where an earlier one was stopped."""
    parser = argparse.ArgumentParser(prog="python -m codesign_opt.testbed", description=main.__doc__)
    parser.add_argument("name", choices=list(RECIPES), help="; ".join(f"{n}: {r.title}" for n, r in RECIPES.items()))
    parser.add_argument("--cache", help="folder of weights (CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result = trained(options.name, folder=options.cache, progress=True)
    print(f"{options.name}: {result.iterations:,} iterations of {result.batch}, in {cache_folder(options.cache)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
