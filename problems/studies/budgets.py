"""Error, split and stopping point of plans as the budget grows, by sampler, trained and sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import codesign_opt as co

from .ablation import Arms

__all__ = ["BUDGETS", "SAMPLERS", "budgets", "draw_budgets", "exponents"]

BUDGETS = (1e5, 3e5, 1e6, 3e6, 1e7)
SAMPLERS: dict[str, co.Sampler] = {
    "euler": co.Euler(), "heun": co.Heun(), "dpmpp_2m": co.DPMpp2M(), "unipc": co.UniPC(solver_order=3),
}  # fmt: skip
_STOP = 0.005


def _model(sampler: co.Sampler) -> co.GaussianModel:
    spectrum = co.Spectrum.power_law(64, exponent=1.3)
    return co.GaussianModel(spectrum, sampler=sampler, coupling=co.Local(1.0), start="mean")


def budgets(replicas: int = 100) -> Iterator[dict[str, Any]]:
    """A row per sampler, arm and budget: what the plan states, and what its trainings leave."""
    for name, sampler in SAMPLERS.items():
        for budget in BUDGETS:
            arms = Arms(_model(sampler), budget=budget)
            made = {"joint plan": arms.joint}
            if name == "heun":
                made |= {"best tuned heuristic": arms.heuristic, "EDM, best stop": arms.stopping_only}
            for arm, design in made.items():
                one = design()
                found = arms.realised(one, replicas)
                value, error = found.realised["total"]
                steps = one.sigmas.size - 1
                yield {
                    "sampler": name, "arm": arm, "budget": f"{budget:g}", "steps": steps,
                    "sampling": arms.sampling(steps) / budget, "stop": float(one.sigmas[-2]),
                    "predicted": found.predicted.total, "realised": value, "error": error,
                }  # fmt: skip


def exponents() -> Iterator[dict[str, Any]]:
    """How certified programs that stop at one level grow: steps in examples, against the derived 2 / (2 q + 1).

    A / m + B / n^(2 q) under one budget: n^(2 q + 1) goes as m^2.
    """
    for name, sampler in SAMPLERS.items():
        table = _model(sampler).coefficients(_STOP, 100)
        error = co.ScoreError(table) + co.Discretization(table)
        plans = [co.Problem(error, [co.Compute(Arms.prices) <= budget]).solve() for budget in (1e7, 1e9)]
        examples, steps, errors = (
            np.log([value(plan) for plan in plans])
            for value in (lambda p: p.examples.sum(), lambda p: p.steps.sum(), lambda p: p.error)
        )
        spent = np.log(1e7), np.log(1e9)
        yield {
            "sampler": name, "order": sampler.order, "steps in examples": _slope(steps, examples),
            "derived": 2 / (2 * sampler.order + 1), "error in budget": _slope(errors, spent),
        }  # fmt: skip


def _slope(y: Any, x: Any) -> float:
    return float((y[1] - y[0]) / (x[1] - x[0]))


def draw_budgets(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Error and share of sampling against the budget."""
    import matplotlib.pyplot as plt

    from codesign_opt.results.style import LEGEND, new_axes

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    new_axes(left, "What is left")
    new_axes(right, "The share of sampling")
    for (name, arm), marker in zip(
        dict.fromkeys((row["sampler"], row["arm"]) for row in rows), "os^vDPX", strict=False
    ):
        own = [row for row in rows if (row["sampler"], row["arm"]) == (name, arm)]
        spent, found, error, said, share = (
            np.array([float(row[key]) for row in own])
            for key in ("budget", "realised", "error", "predicted", "sampling")
        )
        (line,) = left.plot(spent, said, lw=1.2)
        left.errorbar(
            spent, found, yerr=2 * error, fmt=marker, ms=5, lw=1, color=line.get_color(), label=f"{name}, {arm}"
        )
        right.plot(spent, share, marker=marker, ms=5, lw=1.2, color=line.get_color(), label=f"{name}, {arm}")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log", xlabel="budget, evaluations of the denoiser")
    left.set_ylabel("error: predicted (lines), realised ± 2 s.e.")
    right.set_ylabel("of the budget")
    left.legend(**LEGEND)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
