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

from ..ingredients.parameterization import TARGETS, target_coefficients, target_gain
from ..models.evidence import DenoiserGaps, Evidence, RiskCurve, ScoreCost, Trajectories
from .densities.families import Cauchy, LaplaceDensity, LogitNormal, LogLogistic, LogUniform, Mode, VDiffusion
from .densities.information import infonoise, information_onset
from .densities.names import training_densities, training_density
from .densities.of_time import OnLevels, TimeStairs, loss_second_moment, speed_density, uniform_time
from .densities.of_timesteps import beta_table, flow_timesteps, timestep_probabilities, timesteps
from .densities.split import SplitLogNormal
from .paths.arc_length import equal_increments
from .paths.interval_cost import coordinate_search, monotone, shortest_path, shortest_path_of_lines
from .paths.smooth_path import beam_path, path_cost, smooth_path
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
from .schedules.align_your_steps import AlignYourSteps, EulerCost, KLUBCost, klub, subdivided
from .schedules.ays_tables import (
    AYS_TABLES,
    AYS_TIMESTEPS,
    AYSXL,
    AYSDeepFloyd,
    AYSStableDiffusion,
    AYSVideo,
    ays_table,
)
from .schedules.base import Schedule, names, schedule
from .schedules.elementary import (
    euler_kl,
    euler_trajectory,
    euler_variance_ratio,
    leading_kl,
    path_energy,
    stochastic_path_kl,
    stochastic_variance_ratio,
    tangent_coefficient,
)
from .schedules.entropic import EntropicTime
from .schedules.gits import GITS, step_errors
from .schedules.loss_adaptive import LossAdaptive, LossAdaptiveLimit, SaturatingSNR
from .schedules.online import OnlineSchedule
from .schedules.optimized_steps import OptimizedSteps, output_weights
from .schedules.process_time import (
    BetaTimesteps,
    CosineTime,
    CosineTimeToZero,
    FlowUniform,
    FlowUniformToZero,
    TimestepUniform,
    TimestepUniformToZero,
    TimeUniform,
    TimeUniformToZero,
)
from .schedules.score_optimal import ScoreOptimal, corrector_cost, equal_cost_levels, gaussian_length, predictor_cost
from .schedules.selection import FAMILIES, Ranked, Ranking, SpectrumSelect, select
from .schedules.tangent import EulerLagrange, PowerUniform, SDEPath, SDETerminal, Tangent
from .schedules.usual import BetaSigma, EDMRho, KLOptimal, Laplace, LinearSigma, LogSNR, Polyexponential
from .weights.base import Weighting, add_weighting
from .weights.conversion import Reweighted, reweighted, weight_as_density
from .weights.learned_uncertainty import LearnedUncertainty
from .weights.names import weighting, weightings
from .weights.recoverability import (
    allocation,
    allocation_density,
    bayes_floor,
    gaussian_mmse,
    recoverability,
    time_allocation,
)

__all__ = [
    "AYSXL",
    "AYS_TABLES",
    "AYS_TIMESTEPS",
    "FAMILIES",
    "GITS",
    "TARGETS",
    "AYSDeepFloyd",
    "AYSStableDiffusion",
    "AYSVideo",
    "AlignYourSteps",
    "BetaSigma",
    "BetaTimesteps",
    "Cauchy",
    "CosineTime",
    "CosineTimeToZero",
    "DenoiserGaps",
    "EDMRho",
    "EntropicTime",
    "EulerCost",
    "EulerLagrange",
    "Evidence",
    "FlowUniform",
    "FlowUniformToZero",
    "KLOptimal",
    "KLUBCost",
    "Laplace",
    "LaplaceDensity",
    "LearnedUncertainty",
    "LinearSigma",
    "LogLogistic",
    "LogSNR",
    "LogUniform",
    "LogitNormal",
    "LossAdaptive",
    "LossAdaptiveLimit",
    "Mode",
    "OnLevels",
    "OnlineSchedule",
    "OptimizedSteps",
    "Polyexponential",
    "PowerUniform",
    "Ranked",
    "Ranking",
    "Reweighted",
    "RiskCurve",
    "SDEPath",
    "SDETerminal",
    "SaturatingSNR",
    "Schedule",
    "ScoreCost",
    "ScoreOptimal",
    "SpectrumSelect",
    "SplitLogNormal",
    "Tangent",
    "TimeStairs",
    "TimeUniform",
    "TimeUniformToZero",
    "TimestepUniform",
    "TimestepUniformToZero",
    "Trajectories",
    "VDiffusion",
    "Weighting",
    "add_weighting",
    "allocation",
    "allocation_density",
    "ays_table",
    "bayes_floor",
    "beam_path",
    "beta_table",
    "coordinate_search",
    "corrector_cost",
    "discretization_error",
    "entropy_bound",
    "equal_cost_levels",
    "equal_increments",
    "euler_kl",
    "euler_trajectory",
    "euler_variance_ratio",
    "extended_risk",
    "flow_timesteps",
    "frozen_denoiser_error",
    "gaussian_length",
    "gaussian_mmse",
    "infonoise",
    "information_onset",
    "klub",
    "leading_kl",
    "loss_second_moment",
    "mmse_slope",
    "monotone",
    "mutual_information",
    "names",
    "output_weights",
    "path_cost",
    "path_energy",
    "predictor_cost",
    "recoverability",
    "reweighted",
    "risk_from_log",
    "risk_from_losses",
    "schedule",
    "select",
    "shortest_path",
    "shortest_path_of_lines",
    "smooth_path",
    "speed_density",
    "step_errors",
    "stochastic_path_kl",
    "stochastic_variance_ratio",
    "subdivided",
    "tangent_coefficient",
    "target_coefficients",
    "target_gain",
    "time_allocation",
    "timestep_probabilities",
    "timesteps",
    "training_densities",
    "training_density",
    "uniform_time",
    "weight_as_density",
    "weighting",
    "weightings",
]
