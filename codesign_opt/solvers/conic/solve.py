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


@dataclass(frozen=True, eq=False)
class ConicSolution:
    """What the solver returned, in the program's own units; nothing of it is proof.

    Attributes:
        status: the solver's word.
        primal: (N,) x.
        dual: (R,) z.
        scaled_dual: (R,) z of the scaled program.
        balance: the factors it was solved with.
    """

    status: str
    primal: Array
    dual: Array
    scaled_dual: Array
    balance: Balance


def solve_conic(
    cost: Array,
    matrix: sparse.csc_array,
    right: Array,
    cones: Cones,
    *,
    held: Mask | None = None,
    tolerance: float = 1e-11,
    time_limit: float = np.inf,
    verbose: bool = False,
) -> ConicSolution:
    """min cost . x subject to matrix x + s = right, s in the cones; columns in `held` are of order one already."""
    near = np.zeros(len(cost), dtype=bool) if held is None else held
    balance = balanced(cost, matrix, right, cones, near)
    scaled = sparse.csc_matrix(balance.rows @ matrix @ sparse.diags_array(balance.columns))
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.time_limit, settings.max_threads = verbose, time_limit, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    nothing = sparse.csc_matrix((len(cost), len(cost)))
    solver = clarabel.DefaultSolver(
        nothing, balance.cost_factor * balance.columns * cost, scaled, balance.rows @ right, _cones(cones), settings
    )
    solution = solver.solve()
    primal, dual = np.array(solution.x), np.array(solution.z)
    return ConicSolution(str(solution.status), balance.primal(primal), balance.dual(dual), dual, balance)


def _cones(cones: Cones) -> list[Any]:
    found: list[Any] = []
    if cones.zero:
        found.append(clarabel.ZeroConeT(cones.zero))
    if cones.nonnegative:
        found.append(clarabel.NonnegativeConeT(cones.nonnegative))
    found += [clarabel.SecondOrderConeT(size) for size in cones.second_order]
    found += [clarabel.PSDTriangleConeT(order) for order in cones.semidefinite]
    found += [clarabel.ExponentialConeT() for _ in range(cones.exponential)]
    return found + [clarabel.PowerConeT(a) for a in cones.power]
