"""The worlds in which fitted solvers are held against the literature: small networks, mixtures, Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array, choice
from codesign_opt.testbed.metrics import energy_distance, frechet_distance, sliced_wasserstein2
from codesign_opt.testbed.networks.classifier import feature_distance, trained_classifier

from .solver_study import BUDGETS, GRIDS, METHODS, PLAIN, RIVALS, STOCK, SolverStudy
from .worlds import DenoiserWorld, mixture_world

__all__ = ["MIXTURES", "NETWORKS", "fashion_rows", "rival_rows", "said_of", "said_of_samples"]

NETWORKS: dict[str, Callable[[], torch.Tensor]] = {
    "photo_patches": co.testbed.photo_patches,
    "digits": co.testbed.digits,
    "grid8": lambda: co.testbed.grid8().sample(50_000),
}
MIXTURES = ("circle8", "grid8")
_RANGE = (0.002, 80.0)


def rival_rows(
    *,
    networks: Sequence[str] = tuple(NETWORKS),
    mixtures: Sequence[str] = MIXTURES,
    steps: Sequence[int] = (5, 8, 12),
    budgets: Sequence[int] = BUDGETS,
    draws: int = 4096,
    methods: Sequence[str] = (*RIVALS, *GRIDS, *PLAIN),
    cache: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of one cell after the other, a cell being a denoiser and a number of evaluations; see `SolverStudy`.

    Args:
        networks: of `NETWORKS`, trained first where they are not.
        mixtures: of `MIXTURES`, with their exact denoisers.
        steps: evaluations per image.
        budgets: batches for a fit of at most 8 steps, and of more.
        draws: of the test.
        methods: which rivals, grids and stock samplers; the plan, the fitted solver and the fine solution are always
            there.
        cache: folder of weights and results: the same call goes on.
        progress: called with a line per result.

    Raises:
        ValueError: an unknown name.
    """
    chosen = [choice(name, "methods", METHODS) for name in methods]
    makers: list[tuple[str, Callable[[int], DenoiserWorld]]] = [
        *((name, partial(_network, name, draws=draws, cache=cache)) for name in networks),
        *((f"{name}_exact", partial(_mixture, name, draws=draws, cache=cache)) for name in mixtures),
    ]
    for label, maker in makers:
        study = SolverStudy(label, maker, budgets, progress=progress)
        for count in steps:
            yield study.rows(count, chosen)


def fashion_rows(
    *,
    steps: Sequence[int] = (5, 8, 12, 18),
    draws: int = 4096,
    rivals: Sequence[str] = (),
    cache: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Iterator[list[dict[str, Any]]]:
    """The same on the Fashion-MNIST network: the rows of one number of evaluations after the other.

    The plan, the fitted solver and DPM-Solver++(2M) on EDM's levels run from all draws, with measures of their samples;
    the other stock samplers and the rivals from the first 1,024.

    Args:
        steps, cache, progress: as for `rival_rows`.
        draws: unseen starts; measures of samples are biased by their number.
        rivals: rivals and grids, beside the stock samplers.

    Raises:
        ValueError: an unknown name.
    """
    chosen = [choice(name, "rivals", METHODS) for name in rivals]
    study = SolverStudy(
        "fashion_mnist",
        lambda budget: fashion_world(budget, draws, cache, progress),
        few_draws=min(1024, draws),
        whole=("edm",),
        progress=progress,
    )
    for count in steps:
        yield study.rows(count, list(dict.fromkeys([*STOCK, *chosen])))


def fashion_world(budget: int, draws: int, cache: str | Path | None, progress: Callable[[str], None]) -> DenoiserWorld:
    """The Fashion-MNIST network; its samples against the test images, in features of a classifier and in pixels."""
    folder = co.testbed.cache_folder(cache)
    images, held_out = (torch.as_tensor(co.testbed.fashion_mnist(part)[0]) for part in ("train", "test"))
    classifier = trained_classifier(folder=folder, progress=progress)
    return DenoiserWorld(
        "Fashion-MNIST network", co.estimate.Denoiser.of(co.testbed.trained("fashion_mnist", folder=folder)), images,
        co.EDM(*_RANGE), draws, 64, 32,
        metrics={
            "frechet": feature_distance(classifier, held_out),
            "sliced_w2": partial(sliced_wasserstein2, others=held_out),
            "energy": partial(energy_distance, others=held_out[:draws]),
        },
        plan_options={"fit_evaluations": budget, "chunk": 64}, evidence_options={"draws": 128},
        folder=folder / "fashion_solvers", progress=progress, test_draws=("unseen", 7),
    )  # fmt: skip


def said_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """In how many cells the fitted solver is no worse than the best rival, and the cells where it is."""
    cells: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if row["method"] not in ("fine", "plan"):
            cells.setdefault((row["world"], int(row["steps"])), {})[str(row["method"])] = float(row["error"])
    lines, won = [], 0
    for (world, count), errors in cells.items():
        others = {name: error for name, error in errors.items() if name != "fitted"}
        if not others:
            continue
        best = min(others, key=lambda name: others[name])
        won += errors["fitted"] <= others[best]
        if errors["fitted"] > others[best]:
            lines.append(
                f"{world} {count}: {best} has {others[best] / errors['fitted']:.3g} of the fitted solver's error"
            )
    return "\n".join([f"the fitted solver is no worse than the best rival in {won} of {len(cells)} cells", *lines])


def said_of_samples(rows: Sequence[Mapping[str, Any]]) -> str:
    """In how many cells the fitted solver's samples measure as the fine solution's do, and what measures better.

    The Fréchet distance is that of normal laws with the pixels' moments. Within one standard error, both measures. A
    method is better than the fine solution where one of its measures lies two standard errors below: the network errs
    there, and the method's errors offset that; the variance of the samples, over the data's, says in which direction.
    """
    cells: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["world"], int(row["steps"])), {})[str(row["method"])] = row
    lines, within = [], 0
    for (world, count), found in cells.items():
        fine, away = found["fine"], {name: _beyond(found[name], found["fine"]) for name in found if name != "fine"}
        within += max(away["fitted"].values()) <= 1
        if max(away["fitted"].values()) > 1:
            lines.append(f"{world} {count}: fitted, {_told(away['fitted'])}")
        for name, each in away.items():
            if min(each.values()) < -2:
                lines.append(
                    f"{world} {count}: {name} measures better than the fine solution, {_told(each)}; its samples have "
                    f"{float(found[name]['variance']):.3f} of the data's variance, the fine solution's "
                    f"{float(fine['variance']):.3f}"
                )
    return "\n".join([f"the fitted solver's measures are within a standard error in {within} of {len(cells)}", *lines])


def _beyond(row: Mapping[str, Any], fine: Mapping[str, Any]) -> dict[str, float]:
    """Distance to the data beyond that of the fine solution, in its standard errors."""
    return {name: (float(row[name]) - float(fine[name])) / float(fine[f"{name}_se"]) for name in ("frechet", "energy")}


def _told(away: Mapping[str, float]) -> str:
    return ", ".join(f"{name} by {value:+.1f} standard errors" for name, value in away.items())


def _network(name: str, budget: int, *, draws: int, cache: str | Path | None) -> DenoiserWorld:
    data = NETWORKS[choice(name, "networks", NETWORKS)]()
    fresh = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(1))[:draws]].flatten(1)

    def laws(measure: Callable[..., Any]) -> Callable[[torch.Tensor], Any]:
        return lambda outputs: measure(outputs.flatten(1).numpy(), fresh.numpy())

    return DenoiserWorld(
        name, co.estimate.Denoiser.of(co.testbed.trained(name, folder=cache)), data, co.EDM(*_RANGE), draws,
        min(256, draws),
        metrics={
            "frechet": laws(frechet_distance), "sliced_w2": laws(sliced_wasserstein2), "energy": laws(_energy),
            "variance": laws(_variance),
        },
        plan_options={"fit_evaluations": budget}, folder=_place(cache, f"{name}-{budget}-{draws}"),
    )  # fmt: skip


def _energy(samples: Array, others: Array) -> Any:
    return energy_distance(samples, others, block=min(1000, min(len(samples), len(others)) // 2))


def _variance(samples: Array, others: Array) -> co.estimate.Estimate:
    """Total variance of samples over that of others."""
    away = ((samples - samples.mean(axis=0)) ** 2).sum(axis=1) / others.var(axis=0, dtype=np.float64).sum()
    return co.estimate.Estimate(away.mean(), away.std() / np.sqrt(len(away)), len(away))


def _mixture(name: str, budget: int, *, draws: int, cache: str | Path | None) -> DenoiserWorld:
    options = {"draws": 1024, "chunk": 1024, "evaluations": 5_000, "fit_evaluations": budget}
    place = _place(cache, f"{name}_exact-{budget}-{draws}")
    return mixture_world(choice(name, "mixtures", MIXTURES), draws=draws, plan_options=options, folder=place)


def _place(cache: str | Path | None, name: str) -> Path:
    return co.testbed.cache_folder(cache) / "rivals" / name
