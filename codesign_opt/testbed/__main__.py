"""Train the small networks of the testbed: `python -m codesign_opt.testbed fashion_mnist`."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from .networks import RECIPES, cache_folder, trained


def main(arguments: list[str] | None = None) -> int:
    """Train one network, or go on where an earlier call was stopped; says where the files are."""
    parser = argparse.ArgumentParser(prog="python -m codesign_opt.testbed", description=main.__doc__)
    parser.add_argument("name", choices=list(RECIPES), help="; ".join(f"{k}: {r.title}" for k, r in RECIPES.items()))
    parser.add_argument("--cache", help="folder of the weights (default: CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (default 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    start = time.monotonic()

    def progress(done: int, total: int, loss: float) -> None:
        print(
            f"{done:>7,} of {total:,}  loss {loss:.4f}  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
        )

    result = trained(options.name, folder=options.cache, progress=progress)
    print(f"{options.name}: {result.iterations:,} iterations of {result.batch}, in {cache_folder(options.cache)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
