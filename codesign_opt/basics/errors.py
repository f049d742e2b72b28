"""Errors of the package: each says what, where, by how much, and what to try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "CodesignError",
    "ConvexityError",
    "EmptySelectionError",
    "InfeasibleError",
    "NotCertifiedError",
    "UnboundedError",
]


class CodesignError(Exception):
    """Base class of the errors that a well-formed input can still raise."""


class ConvexityError(CodesignError, ValueError):
    """A term or constraint is not convex in (density, steps); the message names the leaf."""


class EmptySelectionError(CodesignError, ValueError):
    """A constraint selects no level at this stopping point; a sweep over stopping points goes on without it."""


class InfeasibleError(CodesignError):
    """No plan meets all constraints.

    Attributes:
        conflicts: one record per constraint in conflict, with the keys ``name``, ``limit``, ``amount`` (how far this
            constraint alone must give, in the units of what its author wrote; None where no relaxation of it alone
            suffices), ``relaxed`` (the limit after that), ``amounts`` (of each of its rows), and ``together`` (amounts
            that suffice where all records' constraints give at once).
    """

    def __init__(self, message: str, conflicts: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.conflicts = tuple(conflicts)


class NotCertifiedError(CodesignError):
    """A solver returned a point that the independent certificate could not prove optimal.

    Attributes:
        attempts: what was tried, in order: solver, status, certified relative gap.
        plan: the best uncertified plan, or None.
    """

    def __init__(self, message: str, attempts: Sequence[dict[str, Any]] = (), plan: Any = None) -> None:
        super().__init__(message)
        self.attempts = tuple(attempts)
        self.plan = plan


class UnboundedError(CodesignError, ValueError):
    """Nothing limits a quantity that only ever helps; the message names it, and the noise levels."""
