"""P4 exactly: where to train parameters shared by all noise levels, with its own proof.

docs/theory.md section 7, P4. With e examples already spent and A_l the features of level l,

    min tr G^T M^-1 G,  M = M0 + sum_l (e_l + m_l) A_l^T A_l,  sum_l c_l m_l <= budget,  low <= m <= high.

Newton's method (information_newton.py) finds the examples; the bound that proves them is evaluated
here, in the user's units and from the user's arrays, and holds for whatever Newton's method returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import Array, matrix, number, vector
from ..errors import InfeasibleError
from .information_newton import CUT, capped_shares, knapsack, minimise, root_of, whitened

__all__ = ["InformationSolution", "SmoothedDensity", "smoothed_loss", "solve_information"]

_NAME = "solve_information"
_ROUNDING = 1e-12  # floors that cost this much more than the budget, relatively, cost the budget
_UNDETERMINED = 1e-8  # of the response's norm, that nothing informs
_PRUNE = (1e-3, 1e-5, 1e-7, 1e-9, 1e-11)  # shares below are tried without


@dataclass(frozen=True, eq=False)
class _Block:
    roots: Array
    response: Array
    prior_root: Array  # rows R with R^T R = M0; (0, P) without a prior


@dataclass(frozen=True, eq=False)
class _Program:
    """The validated program in the user's units."""

    blocks: list[_Block]
    prices: Array
    budget: float
    low: Array
    high: Array
    spent: Array

    def value(self, new: Array) -> float:
        """tr G^T M^-1 G summed over the blocks; inf where M does not determine the response."""
        return sum(self._spectral(block, new)[0] for block in self.blocks)

    def solutions(self, new: Array) -> list[Array]:
        """Y = M^-1 G of each block, on the range of M."""
        return [self._spectral(block, new)[1] for block in self.blocks]

    def _spectral(self, block: _Block, new: Array) -> tuple[float, Array]:
        total = self.spent + new
        used = np.flatnonzero(total > 0)
        size = block.response.shape[0]
        rows = (block.roots[used] * np.sqrt(total[used])[:, None, None]).reshape(-1, size)
        rows = np.vstack([rows, block.prior_root])
        lengths = np.sqrt((rows**2).sum(axis=0))
        unit = np.where(lengths > 0, lengths, 1.0)
        _, values, vectors = np.linalg.svd(np.linalg.qr(rows / unit, mode="r"), full_matrices=False)
        keep = values > CUT * values.max(initial=0.0)
        basis, values = vectors[keep].T, values[keep]
        wanted = block.response / unit[:, None]
        seen = basis.T @ wanted
        value = float(np.sum((seen / values[:, None]) ** 2))
        y = (basis / values**2) @ seen / unit[:, None]
        missing = float(np.sum((wanted - basis @ seen) ** 2))
        # what a direction below the cut would cost at least
        lost = missing > 1e-28 * np.sum(wanted**2) and missing > 1e-7 * value * (CUT * values.max(initial=0.0)) ** 2
        return (np.inf if lost else value), y

    def bound(self, solutions: Sequence[Array]) -> tuple[float, float]:
        """A number that no design beats, from any Y, and the price of the budget there.

        value >= <G,Y>^2 / (<Y, M0 Y> + max over feasible m of sum (e + m) |A Y|^2): Cauchy-Schwarz, with
        the maximum a fractional knapsack (docs/theory.md section 7, P4).
        """
        gains, overlap, prior = np.zeros(self.prices.size), 0.0, 0.0
        for block, y in zip(self.blocks, solutions, strict=True):
            seen = block.roots.reshape(-1, y.shape[0]) @ y
            gains += (seen**2).reshape(self.prices.size, -1).sum(axis=1)
            overlap += float(np.sum(block.response * y))
            prior += float(((block.prior_root @ y) ** 2).sum())
        if not np.isfinite(overlap) or overlap <= 0:
            return 0.0, 0.0
        prior += float(gains @ (self.spent + self.low))
        room = self.room
        most, price = 0.0, 0.0
        if room > 0:
            with np.errstate(invalid="ignore"):
                caps = self.prices * (self.high - self.low) / room
            most, price = knapsack(gains * room / self.prices, caps)
        best = (overlap / (prior + most)) * overlap
        return best, price / room * (overlap / (prior + most)) ** 2 if room > 0 else 0.0

    @property
    def room(self) -> float:
        """Budget above the floors."""
        return max(self.budget - float(self.prices @ self.low), 0.0)


@dataclass(frozen=True, eq=False)
class InformationSolution:
    """Examples for shared parameters, and what is proved about them.

    Attributes:
        examples: (L,) new examples m, within the budget and the bounds.
        value: tr G^T M^-1 G at these examples.
        lower_bound: no feasible examples have a smaller value.
        relative_gap: (value - lower_bound) / value; the claim is this number and no more.
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
    support: NDArray[np.intp]
    budget_multiplier: float
    iterations: int
    bound_used: str
    program: Any = field(repr=False, default=None)


@dataclass(frozen=True, eq=False)
class SmoothedDensity:
    """A smooth density near a spiky optimum.

    Attributes:
        examples: (L,) smoothed new examples, of the same price, within the bounds.
        value: error with them.
        loss: value / lower bound of the optimum - 1; the true loss is no larger.
    """

    examples: Array
    value: float
    loss: float


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
    tolerance: float = 1e-10,
) -> InformationSolution:
    """Examples per level that minimise the error of shared parameters, with a proven gap.

    min tr G^T (M0 + sum_l (e_l + m_l) A_l^T A_l)^-1 G subject to sum_l c_l m_l <= budget and
    low <= m <= high (docs/theory.md section 7, P4; co-design paper, shared parameters). Independent
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
        tolerance: relative gap at which the search stops. A gap that rounding does not allow to reach
            is returned as it is.

    Returns:
        An InformationSolution. Read its relative_gap: it is proved, whatever the solver did.

    Raises:
        ValueError: a negative, missing or non-finite entry, shapes that do not fit, low > high, a prior
            that is not positive semidefinite, or a response that the levels and the prior can't determine.
        InfeasibleError: the floors cost more than the budget.

    >>> import numpy as np
    >>> found = solve_information(np.eye(2)[:, None, :], [[3.0], [1.0]], 1.0, 8.0)
    >>> found.examples.round(6).tolist(), round(found.value, 6), found.relative_gap < 1e-9
    ([6.0, 2.0], 2.0, True)
    """
    program = _validated(roots, response, prices, budget, prior, low, high, spent)
    tolerance = number(tolerance, f"{_NAME}.tolerance", positive=True)
    caps = _shares_caps(program)
    free = np.flatnonzero(caps > 0)
    if not free.size or caps.sum() <= 1 or not any(block.response.any() for block in program.blocks):
        return _nothing_to_choose(program, caps)
    return _searched(program, caps[free], free, tolerance)


def _searched(program: _Program, caps: Array, free: Array, tolerance: float) -> InformationSolution:
    inner, reference = [], capped_shares(np.ones(free.size), caps)
    worth = np.sqrt(program.room / program.prices[free])[:, None, None]
    fixed = program.spent + program.low
    for block in program.blocks:
        prior = _stacked(block, fixed)
        found, missing = whitened(block.roots[free] * worth, block.response, prior, reference)
        _check_determined(missing)
        inner.append(found)
    scale = np.sqrt(sum(float((block.response**2).sum()) for block in inner))
    inner = [replace(block, response=block.response / scale) for block in inner]
    # half the tolerance: the user's units and the pruned examples take the rest
    iterate = minimise(inner, caps, 0.5 * tolerance)
    shares = np.zeros(program.prices.size)
    shares[free] = iterate.shares
    return _concluded(program, shares, [scale * y for y in iterate.solutions], iterate.iterations, tolerance)


def _concluded(
    program: _Program, shares: Array, duals: list[Array], iterations: int, tolerance: float
) -> InformationSolution:
    """The sparsest examples that cost nothing, and the better of the two bounds."""
    examples, value = _pruned(program, shares, tolerance)
    bounds = [(*program.bound(program.solutions(examples)), "equivalence theorem")]
    if all(y.shape == block.response.shape for y, block in zip(duals, program.blocks, strict=True)):
        bounds.append((*program.bound(duals), "dual"))
    bounds.append((*program.bound(program.solutions(_examples(program, shares))), "dual"))
    lower, price, name = max(bounds, key=lambda item: item[0])
    gap = _relative_gap(value, lower)
    support = np.flatnonzero(examples > program.low)
    return InformationSolution(examples, value, min(lower, value), gap, support, price, iterations, name, program)


def _pruned(program: _Program, shares: Array, tolerance: float) -> tuple[Array, float]:
    best = _examples(program, shares)
    value = program.value(best)
    for threshold in _PRUNE:
        kept = np.where(shares >= threshold * shares.max(), shares, 0.0)
        if np.count_nonzero(kept) == np.count_nonzero(shares):
            continue
        with np.errstate(invalid="ignore"):
            caps = program.prices * (program.high - program.low) / program.room
        trial = _examples(program, _filled(kept, caps))
        error = program.value(trial)
        if error <= value * (1 + 0.1 * tolerance):
            return trial, error
    return best, value


def _filled(shares: Array, caps: Array) -> Array:
    """Shares scaled to sum to one within the caps; as they are where the caps of the support don't let them."""
    on = np.flatnonzero(shares)
    if caps[on].sum() < 1:
        return shares
    result = np.zeros_like(shares)
    result[on] = capped_shares(shares[on], caps[on])
    return result


def _examples(program: _Program, shares: Array) -> Array:
    """Shares of the room to examples within bounds and budget, to the last digit."""
    new = np.clip(program.low + shares * program.room / program.prices, program.low, program.high)
    over = float(program.prices @ new) / program.budget
    return program.low + (new - program.low) * (1 - 4e-16) / over if over > 1 else new


def _nothing_to_choose(program: _Program, caps: Array) -> InformationSolution:
    """No room, caps that all bind, or no response: the optimum is known."""
    trivial = not any(block.response.any() for block in program.blocks)
    new = program.low + (0.0 if trivial or program.room == 0 else caps * program.room / program.prices)
    value = program.value(new)
    if not np.isfinite(value):
        _check_determined(1.0)
    lower, price = (0.0, 0.0) if trivial else program.bound(program.solutions(new))
    support = np.flatnonzero(new > program.low)
    gap = _relative_gap(value, lower)
    return InformationSolution(new, value, min(lower, value), gap, support, price, 0, "exact", program)


def _relative_gap(value: float, lower: float) -> float:
    """A bound above the value is rounding, of that size: it counts like one below."""
    if not np.isfinite(value):
        return np.inf
    return abs(value - lower) / value if value > 0 else 0.0


def smoothed_loss(solution: InformationSolution, width: Any, *, sigma: Any) -> SmoothedDensity:
    """Certified loss of a smooth density: the optimal spikes spread by a Gaussian kernel in log sigma.

    The price of each spike is spread over the levels in proportion to the kernel times the level's width
    in log sigma, then fitted into the bounds at the same total price (docs/theory.md section 7, P4).

    Args:
        solution: of `solve_information`.
        width: standard deviation of the kernel in log sigma, >= 0.
        sigma: (L,) ascending noise levels.

    Raises:
        ValueError: a width that is negative or not finite, noise levels that do not fit.

    >>> import numpy as np
    >>> found = solve_information(np.ones((3, 1, 1)), [[1.0]], [2.0, 1.0, 2.0], 8.0)
    >>> round(smoothed_loss(found, 0.0, sigma=[0.1, 0.2, 0.4]).loss, 6)
    0.0
    >>> 0 < smoothed_loss(found, 0.5, sigma=[0.1, 0.2, 0.4]).loss < 0.5
    True
    """
    width = number(width, "smoothed_loss.width", nonnegative=True)
    size = solution.examples.size
    place = np.log(vector(sigma, "smoothed_loss.sigma", length=size, positive=True, ascending=True))
    program: _Program = solution.program
    spikes = program.prices * (solution.examples - program.low)
    total = float(spikes.sum())
    examples = solution.examples
    if width > 0 and size > 1 and total > 0:
        bins = np.gradient(place)
        distance = (place[:, None] - place[solution.support]) / width
        kernel = np.exp(-0.5 * np.maximum(distance**2 - (distance**2).min(axis=0), 0.0)) * bins[:, None]
        spread = kernel / kernel.sum(axis=0) @ spikes[solution.support] + 1e-300
        with np.errstate(invalid="ignore"):
            caps = program.prices * (program.high - program.low) / total
        on = np.flatnonzero(caps > 0)
        shares = np.zeros(size)
        shares[on] = capped_shares(spread[on] / total, caps[on])
        examples = np.minimum(program.low + shares * total / program.prices, program.high)
    value = program.value(examples)
    loss = value / solution.lower_bound - 1 if solution.lower_bound > 0 else (0.0 if value == 0 else np.inf)
    return SmoothedDensity(examples, value, float(loss))


def _shares_caps(program: _Program) -> Array:
    """(L,) largest share of the room above the floors that each level can take."""
    span = np.maximum(program.high - program.low, 0.0)
    if program.room <= 0:
        return np.zeros_like(span)
    caps = program.prices * span / program.room
    return np.where(caps >= 1, np.inf, caps) if np.all(caps >= 1) else caps


def _stacked(block: _Block, fixed: Array) -> Array:
    """Rows of the root of M0 and of the examples that are there in any case."""
    used = np.flatnonzero(fixed > 0)
    size = block.response.shape[0]
    rows = (block.roots[used] * np.sqrt(fixed[used])[:, None, None]).reshape(-1, size)
    rows = np.vstack([rows, block.prior_root])
    if rows.shape[0] > size:
        rows = np.asarray(np.linalg.qr(rows, mode="r"))
    return rows


def _check_determined(missing: float) -> None:
    if missing > _UNDETERMINED:
        raise ValueError(
            f"{_NAME}.response lies outside what the levels that may have examples and the prior determine "
            f"(by {missing:.2g} of its norm); add a prior, features or room in the bounds."
        )


def _validated(
    roots: Any, response: Any, prices: Any, budget: Any, prior: Any, low: Any, high: Any, spent: Any
) -> _Program:
    blocks = _blocks(roots, response, prior)
    count = blocks[0].roots.shape[0]
    c = _per_level(prices, "prices", count, positive=True)
    total = number(budget, f"{_NAME}.budget", positive=True)
    floor = _per_level(0.0 if low is None else low, "low", count, nonnegative=True)
    cap = np.full(count, np.inf)
    if high is not None:
        cap = _per_level(high, "high", count, nonnegative=True, infinite=True)
    already = _per_level(0.0 if spent is None else spent, "spent", count, nonnegative=True)
    crossed = np.flatnonzero(floor > cap)
    if crossed.size:
        i = int(crossed[0])
        raise ValueError(f"{_NAME}.low is {floor[i]:g} at index {i}, above {_NAME}.high, {cap[i]:g}.")
    floors = float(c @ floor)
    if floors > total * (1 + _ROUNDING):
        raise InfeasibleError(
            f"Infeasible: the floors cost {floors:.6g} of a budget of {total:.6g}; lower them by "
            f"{100 * (1 - total / floors):.3g} % or raise the budget by {floors - total:.6g}."
        )
    return _Program(blocks, c, total, floor, cap, already)


def _per_level(value: Any, name: str, count: int, **rules: Any) -> Array:
    if np.ndim(value) == 0 and not isinstance(value, (bool, np.bool_, str, type(None))):
        value = np.full(count, value)
    return vector(value, f"{_NAME}.{name}", length=count, **rules)


def _blocks(roots: Any, response: Any, prior: Any) -> list[_Block]:
    if not (isinstance(roots, (list, tuple)) and roots and np.ndim(roots[0]) == 3):
        return [_block(roots, response, prior, "", None)]
    count = len(roots)
    priors = [None] * count if prior is None else prior
    for name, given in (("response", response), ("prior", priors)):
        if not isinstance(given, (list, tuple)) or len(given) != count:
            raise ValueError(f"{_NAME}.{name} must be a list of {count}, one per block of roots.")
    levels = np.shape(roots[0])[0]
    return [_block(a, g, p, f"[{i}]", levels) for i, (a, g, p) in enumerate(zip(roots, response, priors, strict=True))]


def _block(roots: Any, response: Any, prior: Any, place: str, levels: int | None) -> _Block:
    a = matrix(roots, f"{_NAME}.roots{place}", shape=(levels, None, None))
    size = a.shape[2]
    g = matrix(response, f"{_NAME}.response{place}", shape=(size, None))
    if prior is None:
        return _Block(a, g, np.zeros((0, size)))
    name = f"{_NAME}.prior{place}"
    m = matrix(prior, name, shape=(size, size))
    unit = np.sqrt(np.maximum(np.diag(m), 0.0))
    unit = np.where(unit > 0, unit, 1.0)
    scaled = m / unit / unit[:, None]
    least = float(np.linalg.eigvalsh((scaled + scaled.T) / 2).min())
    if not np.allclose(scaled, scaled.T) or least < -1e-9:
        raise ValueError(
            f"{name} must be symmetric positive semidefinite; its smallest eigenvalue, with the diagonal scaled to "
            f"1, is {least:.3g}."
        )
    return _Block(a, g, root_of(scaled) * unit)
