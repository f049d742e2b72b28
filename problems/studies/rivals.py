"""Fitted solvers against everything that the literature fits, at equal evaluations and equal fitting budgets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from time import process_time
from typing import Any

import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array, choice
from codesign_opt.estimate.steps.grid_descent import usual_grids
from codesign_opt.estimate.steps.grid_error import GridErrors
from codesign_opt.testbed.metrics import energy_distance, sliced_wasserstein2

from .worlds import DenoiserWorld, mixture_world

__all__ = ["GRIDS", "MIXTURES", "NETWORKS", "RIVALS", "begun_with", "on_grid", "rival_rows", "said_of"]

NETWORKS: dict[str, Callable[[], torch.Tensor]] = {
    "photo_patches": co.testbed.photo_patches,
    "digits": co.testbed.digits,
    "grid8": lambda: co.testbed.grid8().sample(50_000),
    "fashion_mnist": lambda: torch.as_tensor(co.testbed.fashion_mnist("train")[0]),
}
MIXTURES = ("circle8", "grid8")
RIVALS: dict[str, co.estimate.Rival] = {
    "s4s": co.estimate.S4S(),
    "s4s_alt": co.estimate.S4S(rounds=4),
    "bespoke": co.estimate.Bespoke(),
    "ld3": co.estimate.LD3(),
    "oss": co.estimate.OptimalSteps(),
}
GRIDS: dict[str, co.peers.Schedule] = {
    "dmn": co.peers.OptimizedSteps(),
    "entropic": co.peers.EntropicTime(rescaled=False),
    "entropic_rescaled": co.peers.EntropicTime(),
    "gits": co.peers.GITS(),
    "ays": co.peers.AlignYourSteps(),
    "edm": co.peers.EDMRho(),
    "log_snr": co.peers.LogSNR(),
}
_RANGE, _FEW = (0.002, 80.0), 8


def rival_rows(
    *,
    networks: Sequence[str] = ("photo_patches", "digits", "grid8"),
    mixtures: Sequence[str] = MIXTURES,
    steps: Sequence[int] = (5, 8, 12),
    budgets: Sequence[int] = (5_000, 12_000),
    draws: int = 4096,
    methods: Sequence[str] = (*RIVALS, *GRIDS),
    cache: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of one cell after the other, a cell being a denoiser and a number of evaluations.

    Every method gets the same draws, fine solution, starts (the plan's grid and two usual ones) and calls of the
    denoiser as `codesign(..., solver="fit")`; grids run DPM-Solver++(2M). Errors are squared distances to a fine
    solution on draws that nobody has seen, "ratio" the mean over that of the plan for DPM-Solver++(2M); beside them
    distances of the samples to the data, those of the fine solution as the floor below which only the network errs.

    Args:
        networks: of `NETWORKS`, trained first where they are not.
        mixtures: of `MIXTURES`, with their exact denoisers.
        steps: evaluations per image.
        budgets: batches for a fit of at most 8 steps, and of more.
        draws: of the test.
        methods: which rivals and grids; the plan, the fitted solver and the fine solution are always there.
        cache: folder of weights and results: the same call goes on.
        progress: called with a line per result.

    Raises:
        ValueError: an unknown name.
    """
    chosen = [choice(name, "methods", (*RIVALS, *GRIDS)) for name in methods]
    makers: list[tuple[str, Callable[[int], DenoiserWorld]]] = [
        *((name, lambda budget, name=name: _network(name, budget, draws, cache)) for name in networks),
        *((f"{name}_exact", lambda budget, name=name: _mixture(name, budget, draws, cache)) for name in mixtures),
    ]
    for label, maker in makers:
        worlds = {budget: maker(budget) for budget in set(budgets)}
        for count in steps:
            budget = budgets[count > _FEW]
            cell = _Cell(label, worlds[budget], count, budget, progress)
            yield cell.rows(chosen)


def on_grid(name: str, steps: int, evidence: co.peers.Evidence, chunk: int) -> co.FittedSampler:
    """DPM-Solver++(2M) on a grid of `GRIDS`, and the batches that its evidence took."""
    sigmas = GRIDS[name].sigmas(steps, evidence)
    needs = {"trajectories" if part == "trajectories" else "paths" for part in GRIDS[name].needs}
    calls = sum(evidence.provenance["evaluations"][part] for part in needs)
    return co.FittedSampler(co.DPMpp2M(), sigmas, calls / chunk)


def begun_with(probe: Any, grid: Array) -> tuple[co.estimate.Reference, co.estimate.Draws, list[Array]]:
    """The fine solution, held-out draws and starts that a plan's own fit takes, the plan's grid first."""
    draws = probe.reference.draws
    reference = probe.reference.with_draws(replace(draws, count=2 * draws.count, name="fit"))
    positive = grid[grid > 0]
    usual = usual_grids(grid.size - 1, float(positive[0]), stops=[float(positive[-1])])
    return reference, probe.held_out, [grid, *usual]


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


def _network(name: str, budget: int, draws: int, cache: str | Path | None) -> DenoiserWorld:
    data = NETWORKS[choice(name, "networks", NETWORKS)]()
    fresh = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(1))[:draws]].flatten(1)

    def laws(measure: Callable[..., Any]) -> Callable[[torch.Tensor], Any]:
        return lambda outputs: measure(outputs.flatten(1).numpy(), fresh.numpy())

    return DenoiserWorld(
        name, co.estimate.Denoiser.of(co.testbed.trained(name, folder=cache)), data, co.EDM(*_RANGE), draws,
        min(256, draws),
        metrics={"sliced_w2": laws(sliced_wasserstein2), "energy": laws(_energy)},
        plan_options={"fit_evaluations": budget}, folder=_place(cache, f"{name}-{budget}-{draws}"),
    )  # fmt: skip


def _energy(samples: Array, others: Array) -> Any:
    return energy_distance(samples, others, block=min(1000, min(len(samples), len(others)) // 2))


def _mixture(name: str, budget: int, draws: int, cache: str | Path | None) -> DenoiserWorld:
    options = {"draws": 1024, "chunk": 1024, "evaluations": 5_000, "fit_evaluations": budget}
    place = _place(cache, f"{name}_exact-{budget}-{draws}")
    return mixture_world(choice(name, "mixtures", MIXTURES), draws=draws, plan_options=options, folder=place)


def _place(cache: str | Path | None, name: str) -> Path:
    return co.testbed.cache_folder(cache) / "rivals" / name


@dataclass(frozen=True, eq=False)
class _Entrant:
    """A sampler on its grid, batches and processor seconds that finding it took."""

    found: co.FittedSampler
    seconds: float
    iterations: int = 0

    def packed(self) -> dict[str, Any]:
        sampler = json.dumps(self.found.sampler.to_dict())
        kept = {"sampler": sampler, "sigmas": self.found.sigmas, "fitting": self.found.fitting}
        return {**kept, "seconds": self.seconds, "iterations": self.iterations}

    @classmethod
    def unpacked(cls, kept: Mapping[str, Any]) -> _Entrant:
        sampler = co.Sampler.from_dict(json.loads(str(kept["sampler"])))
        found = co.FittedSampler(sampler, kept["sigmas"], float(kept["fitting"]))
        return cls(found, float(kept["seconds"]), int(kept["iterations"]))


@dataclass(frozen=True, eq=False)
class _Cell:
    """One denoiser and one number of evaluations."""

    label: str
    world: DenoiserWorld
    steps: int
    budget: int
    progress: Callable[[str], None]

    def rows(self, methods: Sequence[str]) -> list[dict[str, Any]]:
        """The fine solution, the plan, the fitted solver, then the others."""
        plan = self._entrant("plan", self._plan)
        base = GridErrors(self._measured(plan)["errors"])
        rows = [self._row("plan", plan, base), self._row("fitted", self._entrant("fitted", self._fitted), base)]
        for name in methods:
            rows.append(self._row(name, self._entrant(name, lambda name=name: self._rival(name, plan)), base))  # type: ignore[misc]
        return [{**dict.fromkeys(rows[0], 0.0), **self._named("fine"), **self._floor()}, *rows]

    def _named(self, method: str) -> dict[str, Any]:
        return {"world": self.label, "steps": self.steps, "method": method, "budget": self.budget}

    def _entrant(self, name: str, find: Callable[[], tuple[co.FittedSampler, int]]) -> _Entrant:
        def timed() -> dict[str, Any]:
            begun = process_time()
            found, iterations = find()
            return _Entrant(found, process_time() - begun, iterations).packed()

        return _Entrant.unpacked(self._ledger().item(f"{name}-{self.steps}", timed))

    def _ledger(self) -> co.estimate.Ledger:
        assert self.world.folder is not None
        return co.estimate.Ledger(self.world.folder / "cells", {"budget": self.budget, "draws": self.world.draws})

    def _plan(self) -> tuple[co.FittedSampler, int]:
        plan = co.codesign(self.world.model(co.DPMpp2M()), steps=self.steps)
        return co.FittedSampler(co.DPMpp2M(), plan.sigmas), 0  # type: ignore[arg-type]

    def _fitted(self) -> tuple[co.FittedSampler, int]:
        plan = co.codesign(self.world.model(co.DPMpp2M()), steps=self.steps, solver="fit", history=3)
        assert plan.solver is not None
        return co.FittedSampler(plan.solver, plan.sigmas, plan.fits["solver"]["evaluations"]), 0  # type: ignore[arg-type]

    def _rival(self, name: str, plan: _Entrant) -> tuple[co.FittedSampler, int]:
        if name in GRIDS:
            return on_grid(name, self.steps, self.world.evidence(co.DPMpp2M()), self._chunk), 0
        reference, held_out, starts = begun_with(self.world.model(co.DPMpp2M()).probe, plan.found.sigmas)
        found = RIVALS[name].fit(reference, held_out, starts, budget=self.budget)
        return co.FittedSampler(found.sampler, found.sigmas, found.fitting), found.iterations

    @property
    def _chunk(self) -> int:
        return int(self.world.plan_options.get("chunk", 64))

    def _measured(self, entrant: _Entrant) -> dict[str, Any]:
        sampler, sigmas = entrant.found.sampler, entrant.found.sigmas
        name = f"errors/{sampler.tag}-{blake2b(sigmas.tobytes(), digest_size=8).hexdigest()}"
        return self._ledger().item(name, lambda: self.world.measured(sampler, sigmas, 0))

    def _row(self, name: str, entrant: _Entrant, base: GridErrors) -> dict[str, Any]:
        measured = self._measured(entrant)
        errors = GridErrors(measured["errors"])
        ratio = errors.ratio(base)
        row = self._named(name) | {
            "error": float(errors.mean.value), "error_se": float(errors.mean.standard_error),
            "ratio": float(ratio.value), "ratio_se": float(ratio.standard_error),
            "ratio_of_geometric_means": float(errors.geometric_mean.value / base.geometric_mean.value),
            "fitting": entrant.found.fitting, "iterations": entrant.iterations, "seconds": round(entrant.seconds, 1),
        }  # fmt: skip
        for metric in self.world.metrics:
            row[metric], row[f"{metric}_se"] = (float(value) for value in measured[metric])
        self.progress(
            f"{self.label} {self.steps} {name}: {row['ratio']:.3g} +- {row['ratio_se']:.2g} of the plan's error"
        )
        return row

    def _floor(self) -> dict[str, Any]:
        """The same measures of the fine solution's samples."""
        outputs, row = torch.cat(self.world.test(0).ends(co.Euler())), {}
        for name, metric in self.world.metrics.items():
            value = metric(outputs)
            row[name], row[f"{name}_se"] = float(value.value), float(value.standard_error)
        return row
