"""Loss-adaptive schedules against time-uniform, EDM and log-SNR grids on circle8 and grid8, exact denoisers.

The toy experiment of "Entropy-based dimension-free convergence and loss-adaptive schedules" (2026, section 6.1 and
appendix G) with radius, widths and weights of our own, as the text that we have does not give its.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import codesign_opt as co
from codesign_opt.basics.checks import Array, choice, integer
from codesign_opt.estimate.draws.streams import seeded

from .network_plans import write_rows
from .sde_dpmpp_2m import sde_dpmpp_2m

__all__ = ["EVALUATIONS", "WORLDS", "las_experiment", "mixture_risk", "write_las"]

WORLDS = {"circle8": co.testbed.circle8, "grid8": co.testbed.grid8}
SAMPLERS = ("ddim", "sde_dpmpp_2m")
EVALUATIONS = (5, 7, 10)
_BETA, _RHO = 0.001, 0.003  # of few values the best on 2,000 draws that the tables do not use


def las_experiment(
    *,
    samples: int = 20_000,
    worlds: Sequence[str] | Mapping[str, co.testbed.Mixture] = tuple(WORLDS),
    samplers: Sequence[str] = SAMPLERS,
    evaluations: Sequence[int] = EVALUATIONS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """One row for every world, sampler, number of evaluations and schedule: negative log likelihood of the samples.

    All schedules cover the noise levels of the variance-preserving process with beta from 0.1 to 20, end with one
    step to 0, start from the same N(0, sigma_max^2 I) and see the same noise. "time_uniform" spends its last evaluation
    on the least level; "time_uniform_to_zero" goes there straight from the level above, as samplers do that end with
    0 instead of that level. "las" has no parameter: steps in
    gamma, no penalty. "las_saturating" has the axis with beta = 0.001, "las_smooth" the penalty with rho = 0.003, in
    all cells. Likelihood rewards samples that are too narrow: below `entropy`, its value for the true law, lower is
    no longer better.

    Args:
        samples: per cell.
        worlds: names, or mixtures by name, to try other radii and widths.
        samplers, evaluations: which cells; samplers are "ddim" (eta = 1) and "sde_dpmpp_2m".
        seed: of start, noise and the risk's draws.
        progress: called with a line per cell.

    Returns:
        Rows with world, sampler, evaluations, schedule, nll and standard_error, the difference to "las" on the same
        draws with its standard error, entropy of the world with its own, and sigmas.

    Raises:
        ValueError: an unknown world or sampler, fewer than 2 samples.

    >>> rows = las_experiment(samples=100, worlds=["circle8"], samplers=["ddim"], evaluations=[5])
    >>> [row["schedule"] for row in rows]
    ['las', 'las_saturating', 'las_smooth', 'time_uniform', 'time_uniform_to_zero', 'edm', 'log_snr']
    """
    count = integer(samples, "samples", minimum=2)
    for sampler in samplers:
        choice(sampler, "sampler", SAMPLERS)
    process, rows = co.VP(), []
    low, high = process.sigma_min, process.sigma_max
    for world in worlds:
        mixture = worlds[world] if isinstance(worlds, Mapping) else WORLDS[choice(world, "world", WORLDS)]()
        true = -mixture.log_density(mixture.sample(10 * count, seed + 1, dtype=torch.float64))
        evidence = co.peers.Evidence(sigma_min=low, sigma_max=high, risk=mixture_risk(mixture, low, high, seed=seed))
        start = high * torch.randn((count, 2), generator=seeded(seed, "las", "start"), dtype=torch.float64)
        grids = {steps: _grids(steps, evidence, process) for steps in evaluations}
        path = co.estimate.BrownianPath(seed, ("las", world), high, low)
        for sampler, steps in product(samplers, evaluations):
            cell = {"world": world, "sampler": sampler, "evaluations": steps}
            reference: Tensor | None = None
            for name, sigmas in grids[steps].items():
                nll = -mixture.log_density(_sampled(mixture, sampler, sigmas, start, path))
                reference = nll if reference is None else reference
                row = cell | {"schedule": name, "samples": count}
                row |= _mean("nll", nll) | _mean("difference_to_las", nll - reference) | _mean("entropy", true)
                rows.append(row | {"sigmas": " ".join(f"{sigma:.5g}" for sigma in sigmas)})
                if progress is not None:
                    progress(f"{world} {sampler} {steps} {name}: {row['nll']:.4f} +- {row['nll_se']:.4f}")
    return rows


def mixture_risk(
    mixture: co.testbed.Mixture, low: float, high: float, *, levels: int = 80, draws: int = 4000, seed: int = 0
) -> co.peers.RiskCurve:
    """Risk of a mixture's exact denoiser by Monte Carlo, the same draws on every level: a RiskCurve, floor included.

    >>> curve = mixture_risk(co.testbed.circle8(), 0.01, 100.0, levels=3, draws=100)
    >>> bool(np.all(np.diff(curve.risk) > 0))
    True
    """
    clean = mixture.sample(draws, seed, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=seeded(seed, "las", "risk"), dtype=torch.float64)
    sigma = np.geomspace(low, high, levels)
    found = [(mixture(clean + s * noise, torch.tensor(s)) - clean).square().sum(1) for s in sigma]
    risk = np.array([float(each.mean()) for each in found])
    return co.peers.RiskCurve(sigma, risk, np.array([float(each.std()) / draws**0.5 for each in found]), floor=risk)


def write_las(rows: list[dict[str, Any]], folder: str | Path) -> Path:
    """The rows as las_experiment.csv in a folder."""
    path = Path(folder) / "las_experiment.csv"
    write_rows(rows, path)
    return path


def _grids(steps: int, evidence: co.peers.Evidence, process: co.VP) -> dict[str, Array]:
    uniform = process.sigma(np.linspace(process.t_max, process.t_min, steps))
    to_zero = process.sigma(np.linspace(process.t_max, process.t_min, steps + 1))[:-1]
    return {
        "las": co.peers.LossAdaptive().sigmas(steps, evidence),
        "las_saturating": co.peers.LossAdaptive(axis=co.peers.SaturatingSNR(_BETA)).sigmas(steps, evidence),
        "las_smooth": co.peers.LossAdaptive(smoothness=_RHO, candidates=200).sigmas(steps, evidence),
        "time_uniform": np.append(uniform, 0.0),
        "time_uniform_to_zero": np.append(to_zero, 0.0),
        "edm": co.peers.EDMRho().sigmas(steps, evidence),
        "log_snr": co.peers.LogSNR().sigmas(steps, evidence),
    }


def _sampled(
    mixture: co.testbed.Mixture, sampler: str, sigmas: Array, start: Tensor, path: co.estimate.BrownianPath
) -> Tensor:
    if sampler == "ddim":
        return co.estimate.run(mixture, co.Ancestral(eta=1.0), sigmas, start, path)
    return sde_dpmpp_2m(mixture, sigmas, start, path)


def _mean(name: str, values: Tensor) -> dict[str, Any]:
    return {name: float(values.mean()), f"{name}_se": float(values.std()) / values.numel() ** 0.5}
