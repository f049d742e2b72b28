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

from .align_your_steps import AlignYourSteps, EulerCost, KLUBCost, klub, subdivided
from .ays_tables import (
    AYS_TABLES,
    AYS_TIMESTEPS,
    AYSXL,
    AYSDeepFloyd,
    AYSStableDiffusion,
    AYSVideo,
    ays_table,
)
from .evidence import DenoiserGaps, Evidence, RiskCurve, ScoreCost, Trajectories
from .gits import GITS, step_errors
from .interval_cost import arc_length, coordinate_search, monotone, shortest_path, shortest_path_of_lines
from .loss_adaptive import LossAdaptive, LossAdaptiveLimit, SaturatingSNR
from .risks import (
    discretization_error,
    entropy_bound,
    extended_risk,
    frozen_denoiser_error,
    mmse_slope,
    mutual_information,
    risk_from_log,
    risk_from_losses,
)
from .schedule import Schedule, names, schedule
from .smooth_path import beam_path, path_cost, smooth_path
from .usual import EDMRho, LogSNR

__all__ = [
    "AYSXL",
    "AYS_TABLES",
    "AYS_TIMESTEPS",
    "GITS",
    "AYSDeepFloyd",
    "AYSStableDiffusion",
    "AYSVideo",
    "AlignYourSteps",
    "DenoiserGaps",
    "EDMRho",
    "EulerCost",
    "Evidence",
    "KLUBCost",
    "LogSNR",
    "LossAdaptive",
    "LossAdaptiveLimit",
    "RiskCurve",
    "SaturatingSNR",
    "Schedule",
    "ScoreCost",
    "Trajectories",
    "arc_length",
    "ays_table",
    "beam_path",
    "coordinate_search",
    "discretization_error",
    "entropy_bound",
    "extended_risk",
    "frozen_denoiser_error",
    "klub",
    "mmse_slope",
    "monotone",
    "mutual_information",
    "names",
    "path_cost",
    "risk_from_log",
    "risk_from_losses",
    "schedule",
    "shortest_path",
    "shortest_path_of_lines",
    "smooth_path",
    "step_errors",
    "subdivided",
]
