"""Where a plan's law is off and by how much: few steps, few examples, full matrices, metrics of one's own.

docs/validation.md has the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import codesign_opt as co

__all__ = ["CASES", "METRICS", "PER_WEIGHT", "cases", "matrices", "metrics", "narrow"]

_LAM = np.arange(1, 65) ** -0.7
SPECTRUM = co.Spectrum.from_eigenvalues(16 * _LAM / _LAM.sum())  # k^-0.7 of trace 16
CASES = {  # by name: sampler, budget
    "few-step Heun, budget 1e4": (co.Heun(), 1e4),
    "ancestral, budget 2e3": (co.Ancestral(1.0), 2e3),
}
PER_WEIGHT = (1.2, 2.0, 4.0, 10.0, 40.0)
METRICS: dict[str, co.Metric] = {
    "W2": co.Wasserstein(),
    "KL forward": co.KL("forward"),
    "KL reverse": co.KL("reverse"),
    "features 1 / (0.1 + lambda)": co.Features(lambda eigenvalues: 1 / (0.1 + eigenvalues)),
}


def _row(found: co.Validation, **known: Any) -> dict[str, Any]:
    value, error = found.realised["total"]
    predicted = found.predicted
    return {
        **known, "predicted": predicted.total, "realised": value, "error": error, "ratio": value / predicted.total,
        "bias": predicted.parts["bias"],
    }  # fmt: skip


def cases(replicas: int = 60) -> Iterator[dict[str, Any]]:
    """Plans with few steps or few examples, and the same grid and examples with an expert for each step."""
    prices = co.Prices(3.0, 1.0, 100)
    for name, (sampler, budget) in CASES.items():
        blocks = co.GaussianModel(SPECTRUM, sampler=sampler)
        plan = co.codesign(blocks, prices, budget)
        for learner, coupling in {"blocks, 2.7": blocks.coupling, "experts, 2.7": co.PerStep(2.7)}.items():
            found = co.validate(plan, replace(blocks, coupling=coupling), replicas=replicas)
            said = plan.handed_out["total"] if coupling is blocks.coupling else ""
            fewest, where = found.predicted.fewest
            yield _row(found, case=name, learner=learner, steps=plan.number_of_steps, plan=said) | {
                "fewest examples": fewest, "at sigma": where,
            }  # fmt: skip


def matrices(replicas: int = 40) -> Iterator[dict[str, Any]]:
    """Full matrices of 16 dimensions without a prior, by examples for each weight of an output."""
    model = co.GaussianModel(
        co.Spectrum.power_law(16, exponent=1.0), co.EDM(0.05, 20.0), start="mean", coupling=co.PerStep(1.0),
        training=co.AveragedSGD(matrix="full", prior=None),
    )  # fmt: skip
    grid, levels = co.edm_grid(12, 0.05, 20.0), co.Levels.log_uniform(0.05, 55.0, 200)
    for ratio in PER_WEIGHT:
        examples = 16 * ratio * levels.log_width  # of one unit of log sigma, which is a correlation length
        found = co.Validation.of(model, grid, examples, levels=levels, replicas=replicas)
        row = _row(found, **{"examples a weight": ratio, "programs' law": found.predicted.program})
        yield row | {"over the programs' law": row["realised"] / found.predicted.program}


def narrow(replicas: int = 60) -> Iterator[dict[str, Any]]:
    """Log-normal densities that leave a grid's lowest level to a few examples, by what an untrained denoiser is."""
    for untrained in ("x0", "edm"):
        model = co.GaussianModel(
            co.Spectrum.power_law(64, exponent=1.0), sampler=co.Heun(), coupling=co.Local(1.0), start="mean",
            training=co.AveragedSGD(parameterization=untrained),
        )  # fmt: skip
        for std in (0.7, 0.8, 0.9, 1.0, 1.2, 1.6):
            found = co.Validation.of(
                model, co.edm_grid(16, 0.03, 80.0), 2e4, density=co.LogNormal(0.5, std), replicas=replicas
            )
            fewest, where = found.predicted.fewest
            yield _row(found, untrained=untrained, P_std=std) | {"fewest examples": fewest, "at sigma": where}


def metrics(replicas: int = 200) -> Iterator[dict[str, Any]]:
    """Plans for several metrics, trained and sampled, with errors in the metric that each was made for."""
    worlds = {
        "power law, d = 8": co.Spectrum.power_law(8, exponent=1.2),
        "three bands, d = 28": co.Spectrum.from_bands([1.0, 0.3, 0.05], [3, 5, 20]),
    }
    for world, spectrum in worlds.items():
        for name, metric in METRICS.items():
            for learner, coupling in {"experts, 0.3": co.PerStep(0.3), "blocks, 1": co.Local(1.0)}.items():
                model = co.GaussianModel(
                    spectrum, co.EDM(0.01, 20.0), coupling=coupling, start="mean", metric=metric
                )  # fmt: skip
                plan = co.codesign(model, co.Prices(3.0, 1.0, 100), 1e5, levels=60, points=5)
                found = co.validate(plan, model, replicas=replicas)
                known = {"world": world, "metric": name, "learner": learner, "steps": plan.number_of_steps}
                yield _row(found, **known, plan=plan.handed_out["total"])
