"""Gaussian worlds: what plans and designs predict against denoisers that were trained and sampled as they say.

docs/validation.md has the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import codesign_opt as co

__all__ = ["COUPLINGS", "SAMPLERS", "draw", "plans", "random_designs"]

SAMPLERS = {"heun": co.Heun(), "euler": co.Euler(), "ancestral": co.Ancestral(1.0), "dpmpp_2m": co.DPMpp2M()}
COUPLINGS: dict[str, co.Coupling] = {
    "experts, 0.1": co.PerStep(0.1), "blocks, 2.7": co.Local(2.7), "blocks, 0.5": co.Local(0.5),
}  # fmt: skip


def plans(replicas: int = 100) -> Iterator[dict[str, Any]]:
    """A row for every coupling and sampler of the declared problem power_law_64: planned, trained and sampled."""
    declared = co.problems.load("power_law_64")
    for coupling, how in COUPLINGS.items():
        for sampler, which in SAMPLERS.items():
            model = replace(declared.model, sampler=which, coupling=how)
            plan = co.codesign(model, declared.prices, 1e6)
            found = co.validate(plan, model, replicas=replicas)
            value, error = found.realised["total"]
            yield {
                "coupling": coupling, "sampler": sampler, "steps": plan.number_of_steps,
                "plan": plan.handed_out["total"], "predicted": found.predicted.total, "realised": value,
                "error": error, "ratio": value / found.predicted.total,
            }  # fmt: skip


def random_designs(count: int = 50, replicas: int = 16, seed: int = 0) -> list[dict[str, float]]:
    """Grids and trainings at random in one world: what is predicted, and what comes out."""
    rng, rows = np.random.default_rng(seed), []
    for k in range(count):
        sampler = SAMPLERS[("euler", "heun", "dpmpp_2m", "ancestral")[k % 4]]
        spectrum = co.Spectrum.power_law(64, exponent=1.0)
        model = co.GaussianModel(spectrum, sampler=sampler, coupling=co.Local(1.0), start="mean")
        low, steps = float(np.exp(rng.uniform(np.log(0.01), np.log(0.15)))), int(rng.integers(8, 40))
        grid = co.edm_grid(steps, low, 80.0, rho=float(rng.uniform(3.0, 15.0)))
        density = co.LogNormal(float(rng.uniform(-2.0, 1.0)), float(rng.uniform(1.2, 2.5)))
        examples = float(np.exp(rng.uniform(np.log(3e3), np.log(1e5))))
        found = co.Validation.of(model, grid, examples, density=density, replicas=replicas, seed=k)
        value, error = found.realised["total"]
        rows.append({"predicted": found.predicted.total, "local": found.predicted.program,
                     "realised": value, "error": error})  # fmt: skip
    return rows


def draw(designs: Sequence[dict[str, float]], path: Path) -> Path:
    """Realised against predicted of designs at random, by both laws."""
    import matplotlib.pyplot as plt

    figure, at = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    said, local, found, error = (
        np.array([row[name] for row in designs]) for name in ("predicted", "local", "realised", "error")
    )
    at.plot(local, found, "x", ms=5, color="0.6", label="the programs' local law")
    at.errorbar(said, found, yerr=2 * error, fmt="o", ms=4, lw=1, label="model.predict (± 2 s.e.)")
    ends = np.array([min(said.min(), local.min()), max(said.max(), local.max())])
    at.plot(ends, ends, color="0.5", lw=1, zorder=0)
    at.set(xscale="log", yscale="log", xlabel="predicted error", ylabel="realised error",
           title=f"{said.size} grids and trainings at random")  # fmt: skip
    at.legend(loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
