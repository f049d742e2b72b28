"""P4 exactly: where to train parameters shared by all noise levels, with its own proof.

docs/theory.md section 7.5. With e examples already spent and A_l the features of level l,

    min tr G^T M^-1 G,  M = M0 + sum_l (e_l + m_l) A_l^T A_l,  sum_l c_l m_l <= budget,  low <= m <= high.

Newton's method (newton.py) finds the examples; the bound that proves them is evaluated in the user's units and from
the user's arrays (program.py), and holds for whatever Newton's method returned.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...basics.checks import Array, Indices
from .knapsack import capped_shares
from .master import Block
from .newton import minimise
from .program import InformationProgram, Solved, validated

__all__ = ["InformationSolution", "solve_information"]

_TOLERANCE = 1e-10  # relative gap at which the search stops
_PRUNE = (1e-3, 1e-5, 1e-7, 1e-9, 1e-11)  # shares below are tried without


@dataclass(frozen=True, eq=False)
class InformationSolution:
    """Examples for shared parameters, and what is proved about them.

    Attributes:
        examples: (L,) new examples m, within the budget and the bounds.
        value: tr G^T M^-1 G at these examples.
        lower_bound: no feasible examples have a smaller value.
        relative_gap: (value - lower_bound) / value, and the rounding to expect of both; the claim is
            this number and no more.
        support: indices of the levels with more examples than their floor.
        budget_multiplier: - d value / d budget; 0 where every cap binds.
        iterations: Newton steps.
        bound_used: "equivalence theorem" (the bound from the examples themselves), "dual" (from the
            multipliers of the last Newton step) or "exact" (nothing to choose).
    """

    examples: Array
    value: float
    lower_bound: float
    relative_gap: float
    support: Indices
    budget_multiplier: float
    iterations: int
    bound_used: str
    program: InformationProgram = field(repr=False)


def solve_information(
    roots: Any,
    response: Any,
    prices: Any,
    budget: Any,
    *,
    prior: Any = None,
    low: Any = None,
    high: Any = None,
    spent: Any = None,
) -> InformationSolution:
    """Examples per level that minimise the error of shared parameters, with a proven gap.

    min tr G^T (M0 + sum_l (e_l + m_l) A_l^T A_l)^-1 G subject to sum_l c_l m_l <= budget and
    low <= m <= high (docs/theory.md section 7.5; co-design paper, shared parameters). Independent
    blocks of parameters that share the examples (block-diagonal information) are given as lists of
    roots and responses: the work grows with the blocks' number, not with their joint size cubed.

    Args:
        roots: (L, k, P) A_l, features over the root of the residual variance; or a list of B such arrays
            with the same L.
        response: (P, r) G; or a list of B.
        prices: (L,) or a number, c_l > 0.
        budget: price of all new examples, > 0.
        prior: (P, P) positive semidefinite M0, or None; a list of B with blocks.
        low, high: (L,) or numbers, bounds of the new examples; 0 and infinity unless given.
        spent: (L,) or a number, examples e already there.

    Returns:
        An InformationSolution. Read its relative_gap: it is proved, whatever the solver did. The search stops at
        1e-10; a gap that rounding does not allow to reach is returned as it is.

    Raises:
        ValueError: a negative, missing or non-finite entry, shapes that do not fit, low > high, a prior
            that is not positive semidefinite, or a response that the levels and the prior can't determine:
            directions with less than 1e-22 of the largest information (each parameter in its own unit)
            count as undetermined, and a part of the response below 1e-12 of its norm there as rounding.
        InfeasibleError: the floors cost more than the budget.

    >>> import numpy as np
    >>> found = solve_information(np.eye(2)[:, None, :], [[3.0], [1.0]], 1.0, 8.0)
    >>> found.examples.round(6).tolist(), round(found.value, 6), found.relative_gap < 1e-9
    ([6.0, 2.0], 2.0, True)
    """
    program = validated(roots, response, prices, budget, prior, low, high, spent)
    if program.caps.sum() <= 1 or not any(block.response.any() for block in program.blocks):
        return _nothing_to_choose(program)
    return _searched(program)


def _searched(program: InformationProgram) -> InformationSolution:
    """Newton's method in shares of the room above the floors, whose examples join the prior, and a response of norm 1.

    Budget, prices and units are then out of sight: thresholds of Newton's method are fractions of one.
    """
    free = np.flatnonzero(program.caps > 0)
    worth = np.sqrt(program.room / program.prices[free])[:, None, None]
    fixed = np.sqrt(program.spent + program.low)[:, None, None]
    inner = []
    for block in program.blocks:
        rows = np.vstack([(block.inner * fixed).reshape(-1, block.back.shape[1]), block.prior_root @ block.back])
        inner.append(Block(block.inner[free] * worth, block.back.T @ block.response, rows.T @ rows))
    scale = np.sqrt(sum(float((block.response**2).sum()) for block in inner))
    inner = [replace(block, response=block.response / scale) for block in inner]
    # half the tolerance: the user's units and the pruned examples take the rest
    iterate = minimise(inner, program.caps[free], 0.5 * _TOLERANCE)
    shares = np.zeros(program.prices.size)
    shares[free] = iterate.shares
    duals = [block.back @ y for block, y in zip(program.blocks, iterate.solutions, strict=True)]
    return _concluded(program, shares, duals, iterate.iterations)


def _concluded(program: InformationProgram, shares: Array, duals: list[Array], iterations: int) -> InformationSolution:
    """The sparsest examples that cost nothing, and the best of the bounds."""
    # three tries for one bound: Newton's last multipliers are nearer to optimal than Y of the examples where rounding
    # moved those, and the pruned examples' where shares of almost nothing carry noise
    every = program.solve(program.examples(shares))
    chosen = _pruned(program, shares, every)
    bounds = [(*program.bound(y), "dual") for y in (duals, every.solutions)]
    bounds.append((*program.bound(chosen.solutions), "equivalence theorem"))
    return _solution(program, chosen, max(bounds, key=lambda item: item[0]), iterations)


def _solution(
    program: InformationProgram, solved: Solved, bound: tuple[float, float, str], iterations: int
) -> InformationSolution:
    value, (lower, price, name) = solved.value, bound
    gap = np.inf
    if np.isfinite(value):  # a bound above the value is rounding, and counts like one below
        gap = (abs(value - lower) + solved.rounding) / value if value > 0 else 0.0
    support = np.flatnonzero(solved.examples > program.low)
    return InformationSolution(
        solved.examples, value, min(lower, value), gap, support, price, iterations, name, program
    )


def _pruned(program: InformationProgram, shares: Array, best: Solved) -> Solved:
    """The same without the smallest shares, as long as the value does not notice.

    An interior point gives every level a share, however small; the optimum is on few levels. The coarsest pruning is
    tried first.
    """
    for threshold in _PRUNE:
        kept = np.where(shares >= threshold * shares.max(), shares, 0.0)
        if np.count_nonzero(kept) == np.count_nonzero(shares):
            continue
        trial = program.solve(program.examples(_filled(kept, program.caps)))
        if trial.value <= best.value * (1 + 0.1 * _TOLERANCE):
            return trial
    return best


def _filled(shares: Array, caps: Array) -> Array:
    """Shares scaled to sum to one within the caps; as they are where the caps of the support don't let them."""
    on = np.flatnonzero(shares)
    if caps[on].sum() < 1:
        return shares
    result = np.zeros_like(shares)
    result[on] = capped_shares(shares[on], caps[on])
    return result


def _nothing_to_choose(program: InformationProgram) -> InformationSolution:
    """No room, caps that all bind, or no response: the optimum is known."""
    if not any(block.response.any() for block in program.blocks):
        return _solution(program, Solved(program.low, 0.0, 0.0, []), (0.0, 0.0, "exact"), 0)
    solved = program.solve(program.examples(program.caps) if program.room > 0 else program.low)
    return _solution(program, solved, (*program.bound(solved.solutions), "exact"), 0)
