"""The conic solver behind a declared program: which, with what settings, and how long."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import cvxpy as cp

from ..basics.checks import number

__all__ = ["Solver"]

_TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
_LEAST = 1e-3  # seconds: a solver that is told of less refuses the number


@dataclass(frozen=True, eq=False)
class Solver:
    """One of cvxpy's conic solvers, for all attempts of one solve.

    Attributes:
        name: as cvxpy calls it.
        verbose: show its log.
        options: passed to it.
        seconds: for all attempts together; None for any.
        begun: when the first began, by perf_counter.
    """

    name: str
    verbose: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    begun: float = 0.0

    @classmethod
    def until(cls, name: str, verbose: bool, options: Mapping[str, Any], time_limit: float | None) -> Solver:
        """A solver whose time begins now."""
        seconds = None if time_limit is None else number(time_limit, "time_limit", positive=True)
        return cls(name, verbose, options, seconds, perf_counter())

    @property
    def plain(self) -> bool:
        """Whether the user asked for nothing in particular."""
        return self.name == "CLARABEL" and not self.options

    @property
    def left(self) -> float:
        """Seconds until the time is over; infinity for any."""
        if self.seconds is None:
            return float("inf")
        return max(self.seconds - (perf_counter() - self.begun), _LEAST)

    @property
    def out_of_time(self) -> bool:
        """Whether the time for all attempts is over."""
        return self.seconds is not None and perf_counter() - self.begun > self.seconds

    def told(self) -> str:
        """What an error says first where the time is over; else nothing."""
        return f"The time limit of {self.seconds:g} s is over. " if self.out_of_time else ""

    def run(self, declared: cp.Problem | None) -> str:
        """The status, whatever it is worth: the certificate is the judge."""
        assert declared is not None
        settings: dict[str, Any] = dict(_TIGHT) if self.name == "CLARABEL" else {}
        if self.seconds is not None and self.name == "CLARABEL":
            settings["time_limit"] = self.left
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cvxpy warns of inaccuracy
            try:
                declared.solve(solver=self.name, verbose=self.verbose, **{**settings, **self.options})
            except cp.SolverError as error:
                return f"solver error: {error}"
            except ValueError as error:  # numbers whose scaled ones no float holds: cvxpy's own check of its data
                if "NaN or Inf" not in str(error):
                    raise
                return f"solver error: {error}"
        return str(declared.status)
