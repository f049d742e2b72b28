"""Compute-optimal training and sampling schedules of diffusion models, by certified convex optimization.

>>> import codesign_opt as co
>>> co.EDM().sigma_max
80.0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import estimate as estimate
    from . import peers as peers
    from . import problems as problems
    from .auditing import Audit as Audit
    from .auditing import audit as audit
    from .certificate import Certificate as Certificate
    from .coefficients import Coefficients as Coefficients
    from .comparing import World as World
    from .comparing import compare as compare
    from .comparison import Comparison as Comparison
    from .coupling import Local as Local
    from .coupling import PerLevel as PerLevel
    from .coupling import PerStep as PerStep
    from .coupling import Transfer as Transfer
    from .curve_estimation import learning_curves as learning_curves
    from .curve_results import LearningCurves as LearningCurves
    from .densities import LogNormal as LogNormal
    from .densities import SigmaDensity as SigmaDensity
    from .densities import TrainingDensity as TrainingDensity
    from .errors import CodesignError as CodesignError
    from .errors import ConvexityError as ConvexityError
    from .errors import InfeasibleError as InfeasibleError
    from .errors import NotCertifiedError as NotCertifiedError
    from .estimated import EstimatedModel as EstimatedModel
    from .exports import DiffusersExport as DiffusersExport
    from .exports import export as export
    from .exports import read_schedule as read_schedule
    from .frontiers import Frontier as Frontier
    from .frontiers import frontier as frontier
    from .gaussian import GaussianModel as GaussianModel
    from .grids import edm_grid as edm_grid
    from .grids import log_snr_grid as log_snr_grid
    from .level_statistics import LevelStatistics as LevelStatistics
    from .levels import Levels as Levels
    from .modeling import Bound as Bound
    from .modeling import Cap as Cap
    from .modeling import CoherentScore as CoherentScore
    from .modeling import Compute as Compute
    from .modeling import Constraint as Constraint
    from .modeling import Design as Design
    from .modeling import Discretization as Discretization
    from .modeling import Floor as Floor
    from .modeling import GramDiscretization as GramDiscretization
    from .modeling import InformationError as InformationError
    from .modeling import Monotone as Monotone
    from .modeling import Problem as Problem
    from .modeling import ScoreError as ScoreError
    from .modeling import SeparableDiscretization as SeparableDiscretization
    from .modeling import Share as Share
    from .modeling import Smooth as Smooth
    from .modeling import StabilityCap as StabilityCap
    from .modeling import Steps as Steps
    from .modeling import Term as Term
    from .modeling import Truncation as Truncation
    from .modeling import TrustCap as TrustCap
    from .modeling import named as named
    from .outer import codesign as codesign
    from .plan import Plan as Plan
    from .prices import Prices as Prices
    from .process import EDM as EDM
    from .process import VE as VE
    from .process import VP as VP
    from .process import Cosine as Cosine
    from .process import FlowMatching as FlowMatching
    from .process import Process as Process
    from .samplers import Ancestral as Ancestral
    from .samplers import DPMpp2M as DPMpp2M
    from .samplers import Euler as Euler
    from .samplers import EulerMaruyama as EulerMaruyama
    from .samplers import Heun as Heun
    from .samplers import Sampler as Sampler
    from .solvers.waterfill import waterfill as waterfill
    from .spectrum import Spectrum as Spectrum
    from .stopping_law import StoppingLaw as StoppingLaw
    from .stopping_law import stopping_exponent as stopping_exponent
    from .training_log import TrainingRun as TrainingRun
    from .training_noise import AveragedSGD as AveragedSGD
    from .training_noise import ConstantStepSGD as ConstantStepSGD

__version__ = "0.1.0"

# Where each public name lives; loaded on first use, so that `import codesign_opt` stays quick.
_HOMES = {
    "auditing": ["Audit", "audit"],
    "certificate": ["Certificate"],
    "coefficients": ["Coefficients"],
    "comparing": ["World", "compare"],
    "comparison": ["Comparison"],
    "coupling": ["Local", "PerLevel", "PerStep", "Transfer"],
    "curve_estimation": ["learning_curves"],
    "curve_results": ["LearningCurves"],
    "densities": ["LogNormal", "SigmaDensity", "TrainingDensity"],
    "estimated": ["EstimatedModel"],
    "errors": ["CodesignError", "ConvexityError", "InfeasibleError", "NotCertifiedError"],
    "exports": ["DiffusersExport", "export", "read_schedule"],
    "frontiers": ["Frontier", "frontier"],
    "gaussian": ["GaussianModel"],
    "grids": ["edm_grid", "log_snr_grid"],
    "level_statistics": ["LevelStatistics"],
    "levels": ["Levels"],
    "modeling": [
        "Bound", "Cap", "CoherentScore", "Compute", "Constraint", "Design", "Discretization", "Floor",
        "GramDiscretization", "InformationError", "Monotone", "Problem", "ScoreError", "SeparableDiscretization",
        "Share", "Smooth", "StabilityCap", "Steps", "Term", "Truncation", "TrustCap", "named",
    ],
    "outer": ["codesign"],
    "plan": ["Plan"],
    "prices": ["Prices"],
    "process": ["EDM", "VE", "VP", "Cosine", "FlowMatching", "Process"],
    "samplers": ["Ancestral", "DPMpp2M", "Euler", "EulerMaruyama", "Heun", "Sampler"],
    "solvers.waterfill": ["waterfill"],
    "spectrum": ["Spectrum"],
    "stopping_law": ["StoppingLaw", "stopping_exponent"],
    "training_log": ["TrainingRun"],
    "training_noise": ["AveragedSGD", "ConstantStepSGD"],
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

_PACKAGES = ["estimate", "peers", "problems"]

__all__ = [*_PACKAGES, *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
