"""The convex language: terms, constraints and the problem that they make."""

from .algebra import Bound, Sum, Term
from .coherent import CoherentScore
from .constraints import Cap, Constraint, Floor, Monotone, Named, Share, StabilityCap, TrustCap, named
from .design import Design, Point
from .discretization import Discretization, SeparableDiscretization
from .gram import GramDiscretization
from .information import InformationError
from .shared_parameters import SharedParameters
from .step_size_error import StepSizeError
from .terms import Compute, ScoreError, Smooth, Steps, Truncation

__all__ = [
    "Bound",
    "Cap",
    "CoherentScore",
    "Compute",
    "Constraint",
    "Design",
    "Discretization",
    "Floor",
    "GramDiscretization",
    "InformationError",
    "Monotone",
    "Named",
    "Point",
    "ScoreError",
    "SeparableDiscretization",
    "Share",
    "SharedParameters",
    "Smooth",
    "StabilityCap",
    "StepSizeError",
    "Steps",
    "Sum",
    "Term",
    "Truncation",
    "TrustCap",
    "named",
]
