"""A cvxpy problem in conic standard form, with the columns of its variables."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Indices
from ..basics.cones import Cones
from ..certificate.conic import ConicProgram

__all__ = ["StandardForm", "standard_form"]


@dataclass(frozen=True, eq=False)
class StandardForm:
    """min c'x, A x + s = b, s in K, behind a problem, and where its variables are in x.

    Attributes:
        program: c, A, b and the cones.
        by_id, by_name: columns of a variable; attributes such as nonneg give it another id and keep its name.
    """

    program: ConicProgram
    by_id: dict[int, Indices]
    by_name: dict[str, Indices]

    def columns(self, variables: Sequence[cp.Expression]) -> Indices:
        """Columns of several variables, one after the other; none for constants and for what the problem lacks."""
        none = np.zeros(0, dtype=np.intp)
        found = [self._of(v) for v in variables if isinstance(v, cp.Variable)]
        return np.concatenate([none, *(none if each is None else each for each in found)])

    def priced(self, variable: cp.Variable, price: float) -> StandardForm:
        """The same form with another cost of one variable."""
        cost = self.program.cost.copy()
        cost[self.columns([variable])] = price
        return replace(self, program=replace(self.program, cost=cost))

    def _of(self, variable: cp.Variable) -> Indices | None:
        return self.by_id.get(variable.id, self.by_name.get(variable.name()))


def standard_form(problem: cp.Problem) -> StandardForm:
    """cvxpy's own translation for CLARABEL, quadratic objectives as cones; the objective must have no constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exponents that are rational numbers to rounding
        data, _, _ = problem.get_problem_data(cp.CLARABEL, solver_opts={"use_quad_obj": False})
    dims, starts = data["dims"], data["param_prob"].var_id_to_col
    powers = [(float(a), 1 - float(a)) for a in dims.p3d] + [tuple(map(float, weights)) for weights in dims.pnd]
    cones = Cones(dims.zero, dims.nonneg, tuple(dims.soc), tuple(dims.psd), dims.exp, tuple(powers))
    cost, right = (np.asarray(data[name], dtype=np.float64) for name in "cb")
    program = ConicProgram(cost, sparse.csc_array(data["A"]), right, cones)
    by_id = {v.id: starts[v.id] + np.arange(v.size, dtype=np.intp) for v in data["param_prob"].variables}
    return StandardForm(program, by_id, {v.name(): by_id[v.id] for v in data["param_prob"].variables})
