"""What each decision is worth: arms of equal compute in a Gaussian world, trained and sampled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution

import codesign_opt as co
from codesign_opt.basics.checks import Array

__all__ = ["Arms", "ablation", "said_of_splits", "splits", "worlds"]

PRICES, BUDGET = co.Prices(3.0, 1.0, 1000), 3e5
_EDM = co.LogNormal(-1.2, 1.2)
_MOST = 800  # steps of a heuristic, and of a plan whose steps cost nothing


def worlds() -> dict[str, co.GaussianModel]:
    """Worlds by name: spectra, samplers and processes of which none is like another."""
    law: dict[str, Any] = {"coupling": co.Local(1.0), "start": "mean"}
    bands = co.Spectrum.from_bands([4.0, 0.5, 0.02], [4, 24, 100])
    return {
        "power 1.3, heun": co.GaussianModel(co.Spectrum.power_law(64, exponent=1.3), sampler=co.Heun(), **law),
        "power 0.7, euler": co.GaussianModel(co.Spectrum.power_law(64, exponent=0.7), sampler=co.Euler(), **law),
        "power 2, 2M": co.GaussianModel(
            co.Spectrum.power_law(256, exponent=2.0), sampler=co.DPMpp2M(), process=co.EDM(sigma_min=5e-4), **law
        ),
        "spiked, flow, heun": co.GaussianModel(
            co.Spectrum.spiked(64, [9.0, 4.0, 1.0], 0.05), sampler=co.Heun(), process=co.FlowMatching(), **law
        ),
        "three bands, VP, 2M": co.GaussianModel(bands, sampler=co.DPMpp2M(), process=co.VP(), **law),
        "three bands, ancestral": co.GaussianModel(bands, sampler=co.Ancestral(1.0), **law),
    }


@dataclass(frozen=True)
class Design:
    """A grid and a training: examples on levels, or a number of examples of a density."""

    sigmas: Array
    examples: Any
    levels: co.Levels | None = None
    density: co.SigmaDensity | None = None

    @classmethod
    def of(cls, plan: co.Plan) -> Design:
        """A plan's."""
        assert plan.sigmas is not None
        return cls(plan.sigmas, plan.examples, plan.levels)


@dataclass(frozen=True)
class Arms:
    """The arms of one world, each within the same budget."""

    model: co.GaussianModel
    prices: co.Prices = PRICES
    budget: float = BUDGET

    def sampling(self, steps: int) -> float:
        """Price of sampling all images with so many steps, the last to zero."""
        calls = self.model.sampler.evaluations_per_step * (steps - 1) + 1
        return float(self.prices.images) * calls

    def predicted(self, design: Design) -> float:
        """Predicted total."""
        return self.model.predict(design.sigmas, design.examples, levels=design.levels, density=design.density).total

    def joint(self) -> Design:
        """The plan."""
        return Design.of(co.codesign(self.model, self.prices, self.budget, levels=100, points=10))

    def sampled_for_nothing(self) -> Design:
        """The plan of the whole budget for training, its steps unpriced: what better steps could still win."""
        return Design.of(co.codesign(self.model, co.Prices(3.0, 1.0, 0), self.budget, steps=_MOST, levels=100))

    def split(self, steps: int) -> Design:
        """The best plan of exactly so many steps, the rest of the budget for training."""

        def exactly(design: Any) -> Any:
            import cvxpy as cp

            return cp.sum(design.steps) + design.final_steps == steps

        free = co.Prices(3.0, 1.0, 0)
        left = self.budget - self.sampling(steps)
        return Design.of(
            co.codesign(
                self.model, free, left, steps=steps, constraints=[co.named("steps", exactly)], levels=100, points=10
            )
        )

    def usual_steps(self) -> int:
        """Steps of half the budget."""
        calls = 0.5 * self.budget / float(self.prices.images)
        return max(3, int((calls - 1) // self.model.sampler.evaluations_per_step) + 1)

    def usual_grid(self) -> Array:
        """EDM's grid of so many steps over the whole range."""
        return co.edm_grid(self.usual_steps(), self.model.process.sigma_min, self.model.process.sigma_max)

    def drawn(self, sigmas: Array, density: co.SigmaDensity) -> Design:
        """What is left after sampling spent on examples of a density."""
        money = self.budget - self.sampling(sigmas.size - 1)
        return Design(sigmas, money / 3.0, density=density)

    def usual(self) -> Design:
        """EDM's grid and density, half of the budget each."""
        return self.drawn(self.usual_grid(), _EDM)

    def training_only(self, sigmas: Array | None = None) -> Design:
        """The best density for the usual grid, or for one that is given."""
        grid = self.usual_grid() if sigmas is None else sigmas
        return Design.of(co.codesign(self.model, self.prices, self.budget, sigmas=grid, levels=100))

    def sampling_only(self) -> Design:
        """The best grid of the usual number of steps for a perfect denoiser, EDM's density."""
        plan = co.codesign(self.model, steps=self.usual_steps(), levels=100, points=8)
        assert plan.sigmas is not None
        return self.drawn(plan.sigmas, _EDM)

    def stopping_only(self) -> Design:
        """EDM's grid and density with the best stopping point."""
        steps, top = self.usual_steps(), self.model.process.sigma_max
        tried = [self.drawn(co.edm_grid(steps, float(low), top), _EDM) for low in np.geomspace(0.002, 0.5, 40)]
        return min(tried, key=self.predicted)

    def alternation(self) -> Design:
        """The paper's: the best density for the grid, then the best grid of as many steps alone, from the usual one."""
        alone = self.sampling_only().sigmas
        return self.training_only(alone)

    def heuristic(self) -> Design:
        """P_mean, P_std, rho, the stopping point and the number of steps: the best of all, as predicted of each."""
        process = self.model.process
        affordable = 0.9 * self.budget / float(self.prices.images) / self.model.sampler.evaluations_per_step

        def design(x: Array) -> Design:
            low, rho, spread, steps = np.exp(x[1:])
            grid = co.edm_grid(max(3, round(steps)), float(low), process.sigma_max, rho=float(rho))
            return self.drawn(grid, co.LogNormal(float(x[0]), float(spread)))

        ends = [(process.sigma_min, 1.0), (1.0, 100.0), (0.2, 5.0), (3.0, min(affordable, _MOST))]
        found = differential_evolution(
            lambda x: np.log(self.predicted(design(x))), [(-5.0, 3.0), *np.log(ends)], seed=0, maxiter=80, tol=1e-4,
        )  # fmt: skip
        return design(found.x)

    def realised(self, design: Design, replicas: int) -> co.Validation:
        """Trained and sampled."""
        return co.Validation.of(
            self.model, design.sigmas, design.examples, levels=design.levels, density=design.density,
            replicas=replicas,
        )  # fmt: skip


_FACTORS = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0)


def splits(replicas: int = 400) -> Iterator[dict[str, Any]]:
    """A row per world and number of steps about the plan's: what the best plan of that split leaves, and left."""
    for name, model in worlds().items():
        arms, plan = Arms(model), Arms(model).joint()
        best = plan.sigmas.size - 1
        for count in sorted({max(3, round(factor * best)) for factor in _FACTORS}):
            sampling = arms.sampling(count)
            if sampling > 0.95 * arms.budget:
                continue
            design = plan if count == best else arms.split(count)
            found = arms.realised(design, replicas)
            value, error = found.realised["total"]
            yield {
                "world": name, "steps": count, "of_the_plan": count / best, "sampling": sampling / arms.budget,
                "predicted": found.predicted.total, "realised": value, "error": error,
            }  # fmt: skip


def said_of_splits(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """World by world the best split as predicted and as realised, and what planning by the one for the other loses."""
    told = []
    for name in dict.fromkeys(row["world"] for row in rows):
        own = [row for row in rows if row["world"] == name]
        shares = np.log([float(row["sampling"]) for row in own])
        said, found = (np.log([float(row[column]) for row in own]) for column in ("predicted", "realised"))
        at, best = _least(shares, said)[0], _least(shares, found)
        plan = next(row for row in own if float(row["of_the_plan"]) == 1)
        told.append({
            "world": name, "planned": float(plan["sampling"]), "predicted best": float(np.exp(at)),
            "realised best": float(np.exp(best[0])), "factor": float(np.exp(abs(at - best[0]))),
            "loss": float(np.exp(best[1](at) - best[1](best[0])) - 1),
        })  # fmt: skip
    return told


def _least(x: Array, y: Array) -> tuple[float, Callable[[float], float]]:
    """Where a parabola through the points about the least is least, inside of them, and the parabola."""
    middle = int(np.clip(np.argmin(y), 2, y.size - 3))
    near = slice(middle - 2, middle + 3)
    curve = np.polynomial.Polynomial.fit(x[near], y[near], 2)
    inside = np.linspace(x[near][0], x[near][-1], 401)
    return float(inside[np.argmin(curve(inside))]), lambda at: float(curve(at))


def ablation(replicas: int = 800) -> Iterator[dict[str, Any]]:
    """A row per world and arm: what it is predicted to leave, and what it leaves."""
    for name, model in worlds().items():
        arms = Arms(model)
        every: dict[str, Callable[[], Design]] = {
            "joint plan": arms.joint, "best tuned heuristic": arms.heuristic, "alternation": arms.alternation,
            "sampling only": arms.sampling_only, "training only": arms.training_only,
            "stopping only": arms.stopping_only, "EDM, half and half": arms.usual,
            "joint plan, sampled for nothing": arms.sampled_for_nothing,
        }  # fmt: skip
        least = None
        for arm, made in every.items():
            began = time.process_time()
            design = made()
            found = arms.realised(design, replicas)
            value, error = found.realised["total"]
            least = value if least is None else least
            yield {
                "world": name, "arm": arm, "steps": design.sigmas.size - 1, "predicted": found.predicted.total,
                "realised": value, "error": error, "over_joint": value / least,
                "seconds": time.process_time() - began,
            }  # fmt: skip
