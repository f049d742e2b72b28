"""Schedules and training densities of the literature under one interface, to be planned, audited and compared.

A schedule is a frozen value with one method: `sigmas(steps, evidence)`, from a number of steps and what is known
of the data, the denoiser and the sampler to descending noise levels. `Evidence` holds what is known; it comes in
closed form from a GaussianModel, or measured from any denoiser by `codesign_opt.estimate.evidence`.

>>> import codesign_opt as co
>>> from codesign_opt import peers
>>> evidence = peers.Evidence.of(co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)))
>>> peers.schedule("edm").sigmas(3, evidence).round(4).tolist()
[80.0, 2.5152, 0.002, 0.0]
"""

from __future__ import annotations

from .elementary import (
    euler_kl,
    euler_trajectory,
    euler_variance_ratio,
    leading_kl,
    path_energy,
    stochastic_path_kl,
    stochastic_variance_ratio,
    tangent_coefficient,
)
from .evidence import DenoiserGaps, Evidence, RiskCurve, ScoreCost, Trajectories
from .online import OnlineSchedule
from .process_time import BetaTimesteps, CosineTime, FlowUniform, TimestepUniform, TimeUniform
from .schedule import Schedule, names, schedule
from .score_optimal import ScoreOptimal, corrector_cost, equal_cost_levels, gaussian_length, predictor_cost
from .selection import FAMILIES, Ranked, Ranking, SpectrumSelect, select
from .tangent import EulerLagrange, PowerUniform, SDEPath, SDETerminal, Tangent
from .usual import BetaSigma, EDMRho, KLOptimal, Laplace, LinearSigma, LogSNR, Polyexponential

__all__ = [
    "FAMILIES",
    "BetaSigma",
    "BetaTimesteps",
    "CosineTime",
    "DenoiserGaps",
    "EDMRho",
    "EulerLagrange",
    "Evidence",
    "FlowUniform",
    "KLOptimal",
    "Laplace",
    "LinearSigma",
    "LogSNR",
    "OnlineSchedule",
    "Polyexponential",
    "PowerUniform",
    "Ranked",
    "Ranking",
    "RiskCurve",
    "SDEPath",
    "SDETerminal",
    "Schedule",
    "ScoreCost",
    "ScoreOptimal",
    "SpectrumSelect",
    "Tangent",
    "TimeUniform",
    "TimestepUniform",
    "Trajectories",
    "corrector_cost",
    "equal_cost_levels",
    "euler_kl",
    "euler_trajectory",
    "euler_variance_ratio",
    "gaussian_length",
    "leading_kl",
    "names",
    "path_energy",
    "predictor_cost",
    "schedule",
    "select",
    "stochastic_path_kl",
    "stochastic_variance_ratio",
    "tangent_coefficient",
]
