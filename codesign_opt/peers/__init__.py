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

from .density_names import training_densities, training_density
from .evidence import DenoiserGaps, Evidence, RiskCurve, ScoreCost, Trajectories
from .learned_uncertainty import LearnedUncertainty
from .recoverability import (
    allocation,
    allocation_density,
    bayes_floor,
    gaussian_mmse,
    recoverability,
    time_allocation,
)
from .schedule import Schedule, names, schedule
from .targets import TARGETS, target_coefficients, target_gain
from .time_densities import OnLevels, TimeStairs, loss_second_moment, speed_density, uniform_time
from .training_densities import Cauchy, Laplace, LogitNormal, LogLogistic, LogUniform, Mode, VDiffusion
from .usual import EDMRho, LogSNR
from .weighting import Weighting
from .weights import weighting, weightings

__all__ = [
    "TARGETS",
    "Cauchy",
    "DenoiserGaps",
    "EDMRho",
    "Evidence",
    "Laplace",
    "LearnedUncertainty",
    "LogLogistic",
    "LogSNR",
    "LogUniform",
    "LogitNormal",
    "Mode",
    "OnLevels",
    "RiskCurve",
    "Schedule",
    "ScoreCost",
    "TimeStairs",
    "Trajectories",
    "VDiffusion",
    "Weighting",
    "allocation",
    "allocation_density",
    "bayes_floor",
    "gaussian_mmse",
    "loss_second_moment",
    "names",
    "recoverability",
    "schedule",
    "speed_density",
    "target_coefficients",
    "target_gain",
    "time_allocation",
    "training_densities",
    "training_density",
    "uniform_time",
    "weighting",
    "weightings",
]
