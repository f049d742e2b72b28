"""The convex language: terms, constraints and the problem that they make."""

from .algebra import Bound, Constant, Sum, Term
from .coherent import CoherentScore
from .constraints import Cap, Constraint, Floor, Named, named
from .departures import KLDivergence, Turnover
from .design import Design, Point
from .discretization import Discretization, SeparableDiscretization
from .gram import GramDiscretization
from .information import InformationError
from .longest_steps import StabilityCap, TrustCap
from .penalties import SoftConstraint
from .samplings import Sampling, ScoreErrors
from .scenarios import CVaR, WorstCase
from .shapes import Monotone, Share
from .shared_parameters import SharedParameters
from .stages import Stage, Stages, StageSplit
from .step_size_error import StepSizeError
from .terms import Compute, ScoreError, Smooth, Steps, Truncation

__all__ = [
    "Bound",
    "CVaR",
    "Cap",
    "CoherentScore",
    "Compute",
    "Constant",
    "Constraint",
    "Design",
    "Discretization",
    "Floor",
    "GramDiscretization",
    "InformationError",
    "KLDivergence",
    "Monotone",
    "Named",
    "Point",
    "Sampling",
    "ScoreError",
    "ScoreErrors",
    "SeparableDiscretization",
    "Share",
    "SharedParameters",
    "Smooth",
    "SoftConstraint",
    "StabilityCap",
    "Stage",
    "StageSplit",
    "Stages",
    "StepSizeError",
    "Steps",
    "Sum",
    "Term",
    "Truncation",
    "TrustCap",
    "Turnover",
    "WorstCase",
    "named",
]
