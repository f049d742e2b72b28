"""A conic program in standard form, balanced and solved by CLARABEL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
from scipy import sparse

from ...basics.checks import Array, Mask
from ...basics.cones import Cones
from .balance import Balance, balanced

__all__ = ["ConicSolution", "solve_conic"]

_TOLERANCE = 1e-11  # of gap and residuals, relative: more than the solver reaches on hard programs
_SHARP = 1e-11  # added to the diagonal of its linear systems; by default 1e-8, which limits what it reaches
_REFINED = 1e-15  # residuals of these systems, which so little on the diagonal asks for


@dataclass(frozen=True, eq=False)
class ConicSolution:
    """What the solver returned; nothing of it is proof.

    Attributes:
        status: the solver's word.
        primal: (N,) x, in the program's own units.
        dual: (R,) z, likewise.
        scaled_dual: (R,) z of the scaled program.
        scaled: c, A and b of the scaled program.
        balance: the factors it was scaled by.
    """

    status: str
    primal: Array
    dual: Array
    scaled_dual: Array
    scaled: tuple[Array, sparse.csc_array, Array]
    balance: Balance

    @property
    def has_point(self) -> bool:
        """Whether there is a point at all: what comes with a claim of infeasibility is a ray."""
        return "Infeasible" not in self.status and bool(
            np.all(np.isfinite(self.primal)) and np.all(np.isfinite(self.scaled_dual))
        )

    @property
    def converged(self) -> bool:
        """Whether the solver found its residuals small: then the columns are of the sizes that belong to the design."""
        return self.status in ("Solved", "AlmostSolved")


def solve_conic(
    cost: Array,
    matrix: sparse.csc_array,
    right: Array,
    cones: Cones,
    *,
    near: Array | None = None,
    known: float = 1.0,
    chosen: Mask | None = None,
    sizing: Array | None = None,
    sharp: bool = False,
    leading: bool = False,
    time_limit: float = np.inf,
    verbose: bool = False,
) -> ConicSolution:
    """min cost . x subject to matrix x + s = right, s in the cones.

    Args:
        near: (N,) sizes that the columns are thought to have; 0 where nothing is known.
        known: how sure that is, as a weight against one entry of the matrix.
        chosen: (N,) columns that are not auxiliary, where it is known which.
        sizing: (R,) the right-hand side by which the program is scaled, where some of `right` are small by chance.
        sharp: linear systems to rounding: slower, nearer to the optimum where many sizes meet, and not always stable.
        leading: balanced by the largest entries of rows and columns alone; see `balanced`.
        time_limit: seconds of one solve.
        verbose: show the solver's log.
    """
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.time_limit, settings.max_threads = verbose, time_limit, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = _TOLERANCE
    if sharp:
        settings.static_regularization_constant, settings.iterative_refinement_max_iter = _SHARP, 40
        settings.iterative_refinement_reltol = settings.iterative_refinement_abstol = _REFINED
    near = np.zeros(len(cost)) if near is None else near
    balance = balanced(
        cost, matrix, right if sizing is None else sizing, cones, near, known=known, chosen=chosen, leading=leading
    )
    scaled = sparse.csc_matrix(balance.rows(matrix) @ sparse.diags_array(balance.columns))
    costs, rights = balance.cost_factor * balance.columns * cost, np.asarray(balance.rows(right))
    nothing = sparse.csc_matrix((len(cost), len(cost)))
    solution = clarabel.DefaultSolver(nothing, costs, scaled, rights, _cones(cones), settings).solve()
    primal, dual = np.array(solution.x), np.array(solution.z)
    program = (costs, sparse.csc_array(scaled), rights)
    return ConicSolution(str(solution.status), balance.primal(primal), balance.dual(dual), dual, program, balance)


def _cones(cones: Cones) -> list[Any]:
    found: list[Any] = []
    if cones.zero:
        found.append(clarabel.ZeroConeT(cones.zero))
    if cones.nonnegative:
        found.append(clarabel.NonnegativeConeT(cones.nonnegative))
    found += [clarabel.SecondOrderConeT(size) for size in cones.second_order]
    found += [clarabel.PSDTriangleConeT(order) for order in cones.semidefinite]
    found += [clarabel.ExponentialConeT() for _ in range(cones.exponential)]
    return found + [
        clarabel.PowerConeT(a[0]) if len(a) == 2 else clarabel.GenPowerConeT(list(a), 1) for a in cones.power
    ]
