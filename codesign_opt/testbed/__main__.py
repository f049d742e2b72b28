"""Train the small networks of the testbed: `python -m codesign_opt.testbed fashion_mnist`."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from .networks import RECIPES, cache_folder, trained


def main(arguments: list[str] | None = None) -> int:
    """Train one network, or go on where an earlier call was stopped; or measure plans for one."""
    whats = [(name, recipe.title) for name, recipe in RECIPES.items()]
    whats.append(("plans", "sampler plans for the Fashion-MNIST network against the usual grids: table and figure"))
    parser = argparse.ArgumentParser(prog="python -m codesign_opt.testbed", description=main.__doc__)
    parser.add_argument("name", choices=[*RECIPES, "plans"], help="; ".join(f"{name}: {what}" for name, what in whats))
    parser.add_argument("--cache", help="folder of the weights (default: CODESIGN_OPT_CACHE or ~/.cache/codesign_opt)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (default 1)")
    parser.add_argument("--samplers", default="euler,heun,dpmpp_2m", help="plans: which samplers, with commas")
    parser.add_argument("--out", default="out", help="plans: folder of the table and the figure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.name == "plans":
        return _plans(options.cache, options.out, options.samplers.split(","))
    start = time.monotonic()

    def progress(done: int, total: int, loss: float) -> None:
        print(
            f"{done:>7,} of {total:,}  loss {loss:.4f}  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
        )

    result = trained(options.name, folder=options.cache, progress=progress)
    print(f"{options.name}: {result.iterations:,} iterations of {result.batch}, in {cache_folder(options.cache)}")
    return 0


def _plans(cache: str | None, out: str, samplers: list[str]) -> int:
    from .network_plans import network_plans, write_table

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    write_table(network_plans(cache_folder(cache) / "plans", samplers=samplers, progress=tell), out)
    print(f"network_plans.csv and network_plans.png are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
