"""P4 exactly: where to train parameters shared by all noise levels, with its own proof.

docs/theory.md section 7, P4. With e examples already spent and A_l the features of level l,

    min tr G^T M^-1 G,  M = M0 + sum_l (e_l + m_l) A_l^T A_l,  sum_l c_l m_l <= budget,  low <= m <= high.

Newton's method (newton.py) finds the examples; the bound that proves them is evaluated
here, in the user's units and from the user's arrays, and holds for whatever Newton's method returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...basics.checks import Array, matrix, number, vector
from ...basics.errors import InfeasibleError
from .newton import CUT, Block, capped_shares, knapsack, minimise, root_of, whitening

__all__ = ["InformationSolution", "SmoothedDensity", "smoothed_loss", "solve_information"]

_NAME = "solve_information"
_ROUNDING = 1e-12  # floors that cost this much more than the budget, relatively, cost the budget
_UNDETERMINED = 1e-12  # of the response's norm, in directions with less than 1e-22 of the largest information
_EPS = float(np.finfo(float).eps)
_LOST = 1e-10  # of the response's norm in inner coordinates, outside the range of M
_PRUNE = (1e-3, 1e-5, 1e-7, 1e-9, 1e-11)  # shares below are tried without


@dataclass(frozen=True, eq=False)
class _Block:
    """One block in the user's units, and the coordinates in which all directions weigh the same."""

    roots: Array
    response: Array
    prior_root: Array  # rows R with R^T R = M0; (0, P) without a prior
    back: Array  # (P, R), user / inner coordinates
    inner: Array  # (L, k, R) roots in inner coordinates

    def solve(self, total: Array) -> tuple[float, float, Array]:
        """tr G^T M^-1 G, its rounding, and Y = M^-1 G; inf where M does not determine the response.

        The value is 2 <G,Y> - <Y,M Y> + <R, M^-1 R> with the residual R = G - M Y, exact for every Y, so
        that an error of Y counts squared.
        """
        used = np.flatnonzero(total > 0)
        weight = np.sqrt(total[used])[:, None, None]
        rows = np.vstack([(self.inner[used] * weight).reshape(-1, self.back.shape[1]), self.prior_root @ self.back])
        _, values, vectors = np.linalg.svd(np.linalg.qr(rows, mode="r"), full_matrices=False)
        keep = values > CUT * values.max(initial=0.0)
        inverse = vectors[keep].T / values[keep]
        wanted = self.back.T @ self.response
        missing = float(np.sum((wanted - vectors[keep].T @ (vectors[keep] @ wanted)) ** 2))
        if not keep.any() or missing > _LOST**2 * np.sum(wanted**2):
            return np.inf, 0.0, np.zeros_like(self.response)
        outer = np.vstack([(self.roots[used] * weight).reshape(-1, self.response.shape[0]), self.prior_root])
        whiten = self.back @ inverse
        y = whiten @ (whiten.T @ self.response)
        y = y + whiten @ (whiten.T @ (self.response - outer.T @ (outer @ y)))
        seen = outer @ y
        rest = whiten.T @ (self.response - outer.T @ seen)
        value = 2 * _overlap(self.response, y) - float((seen**2).sum()) + float((rest**2).sum())
        return value, 2 * float((np.abs(seen) * _rounding(outer, y)).sum()), y


def _rounding(a: Array, y: Array) -> Array:
    """Error to expect in each entry of A Y, large where its terms cancel."""
    return _EPS * max(4.0, np.sqrt(a.shape[1])) * (np.abs(a) @ np.abs(y))


def _most(a: Array, y: Array) -> Array:
    """|A Y| and its rounding: what the bound must count."""
    return np.abs(a @ y) + _rounding(a, y)


def _overlap(a: Array, b: Array) -> float:
    """<A, B>, summed in extended precision: large terms cancel when parameters nearly repeat each other."""
    return float(np.sum(a.astype(np.longdouble) * b.astype(np.longdouble)))


class _Solved(NamedTuple):
    examples: Array
    value: float
    rounding: float
    solutions: list[Array]


@dataclass(frozen=True, eq=False)
class _Program:
    """The validated program in the user's units."""

    blocks: list[_Block]
    prices: Array
    budget: float
    low: Array
    high: Array
    spent: Array

    def solve(self, new: Array) -> _Solved:
        """Value, its rounding, and Y of each block at these new examples."""
        values, errors, ys = zip(*(block.solve(self.spent + new) for block in self.blocks), strict=True)
        return _Solved(new, float(sum(values)), float(sum(errors)), list(ys))

    def bound(self, solutions: Sequence[Array]) -> tuple[float, float]:
        """A number that no design beats, from any Y, and the price of the budget there.

        value >= <G,Y>^2 / (<Y, M0 Y> + max over feasible m of sum (e + m) |A Y|^2): Cauchy-Schwarz, with
        the maximum a fractional knapsack (docs/theory.md section 7, P4).
        """
        gains, along, prior = np.zeros(self.prices.size), 0.0, 0.0
        for block, y in zip(self.blocks, solutions, strict=True):
            flat = block.roots.reshape(-1, y.shape[0])
            gains += (_most(flat, y) ** 2).reshape(self.prices.size, -1).sum(axis=1)
            along += _overlap(block.response, y)
            prior += float((_most(block.prior_root, y) ** 2).sum())
        if not np.isfinite(along) or along <= 0:
            return 0.0, 0.0
        prior += float(gains @ (self.spent + self.low))
        room = self.room
        most, price = 0.0, 0.0
        if room > 0:
            most, price = knapsack(gains * room / self.prices, self.caps)
        scale = along / (prior + most)
        return scale * along, price / room * scale**2 if room > 0 else 0.0

    @property
    def room(self) -> float:
        """Budget above the floors."""
        return max(self.budget - float(self.prices @ self.low), 0.0)

    @property
    def caps(self) -> Array:
        """(L,) largest share of the room that each level can take."""
        if self.room <= 0:
            return np.zeros_like(self.low)
        caps = self.prices * (self.high - self.low) / self.room
        return np.full_like(caps, np.inf) if np.all(caps >= 1) else caps

    def examples(self, shares: Array) -> Array:
        """Shares of the room to new examples within bounds and budget, to the last digit."""
        new = np.clip(self.low + shares * self.room / self.prices, self.low, self.high)
        over = float(self.prices @ new) / self.budget
        return self.low + (new - self.low) * (1 - 4e-16) / over if over > 1 else new


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
            that is not positive semidefinite, or a response that the levels and the prior can't determine:
            directions with less than 1e-22 of the largest information (each parameter in its own unit)
            count as undetermined, and a part of the response below 1e-12 of its norm there as rounding.
        InfeasibleError: the floors cost more than the budget.

    >>> import numpy as np
    >>> found = solve_information(np.eye(2)[:, None, :], [[3.0], [1.0]], 1.0, 8.0)
    >>> found.examples.round(6).tolist(), round(found.value, 6), found.relative_gap < 1e-9
    ([6.0, 2.0], 2.0, True)
    """
    program = _validated(roots, response, prices, budget, prior, low, high, spent)
    tolerance = number(tolerance, f"{_NAME}.tolerance", positive=True)
    if program.caps.sum() <= 1 or not any(block.response.any() for block in program.blocks):
        return _nothing_to_choose(program)
    return _searched(program, tolerance)


def _searched(program: _Program, tolerance: float) -> InformationSolution:
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
    iterate = minimise(inner, program.caps[free], 0.5 * tolerance)
    shares = np.zeros(program.prices.size)
    shares[free] = iterate.shares
    duals = [block.back @ y for block, y in zip(program.blocks, iterate.solutions, strict=True)]
    return _concluded(program, shares, duals, iterate.iterations, tolerance)


def _concluded(
    program: _Program, shares: Array, duals: list[Array], iterations: int, tolerance: float
) -> InformationSolution:
    """The sparsest examples that cost nothing, and the best of the bounds."""
    every = program.solve(program.examples(shares))
    chosen = _pruned(program, shares, tolerance, every)
    bounds = [(*program.bound(y), "dual") for y in (duals, every.solutions)]
    bounds.append((*program.bound(chosen.solutions), "equivalence theorem"))
    return _solution(program, chosen, max(bounds, key=lambda item: item[0]), iterations)


def _solution(
    program: _Program, solved: _Solved, bound: tuple[float, float, str], iterations: int
) -> InformationSolution:
    value, (lower, price, name) = solved.value, bound
    gap = np.inf
    if np.isfinite(value):  # a bound above the value is rounding, and counts like one below
        gap = (abs(value - lower) + solved.rounding) / value if value > 0 else 0.0
    support = np.flatnonzero(solved.examples > program.low)
    return InformationSolution(
        solved.examples, value, min(lower, value), gap, support, price, iterations, name, program
    )


def _pruned(program: _Program, shares: Array, tolerance: float, best: _Solved) -> _Solved:
    """The same without the smallest shares, as long as the value does not notice."""
    for threshold in _PRUNE:
        kept = np.where(shares >= threshold * shares.max(), shares, 0.0)
        if np.count_nonzero(kept) == np.count_nonzero(shares):
            continue
        trial = program.solve(program.examples(_filled(kept, program.caps)))
        if trial.value <= best.value * (1 + 0.1 * tolerance):
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


def _nothing_to_choose(program: _Program) -> InformationSolution:
    """No room, caps that all bind, or no response: the optimum is known."""
    if not any(block.response.any() for block in program.blocks):
        return _solution(program, _Solved(program.low, 0.0, 0.0, []), (0.0, 0.0, "exact"), 0)
    solved = program.solve(program.examples(program.caps) if program.room > 0 else program.low)
    return _solution(program, solved, (*program.bound(solved.solutions), "exact"), 0)


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
        caps = program.prices * (program.high - program.low) / total
        on = np.flatnonzero(caps > 0)
        shares = np.zeros(size)
        shares[on] = capped_shares(spread[on] / total, caps[on])
        examples = np.minimum(program.low + shares * total / program.prices, program.high)
    value = program.solve(examples).value
    loss = value / solution.lower_bound - 1 if solution.lower_bound > 0 else (0.0 if value == 0 else np.inf)
    return SmoothedDensity(examples, value, float(loss))


def _with_coordinates(program: _Program) -> _Program:
    """The program with each block's inner coordinates: information one at a plain design within the bounds."""
    new, caps = program.low, program.caps
    free = np.flatnonzero(caps > 0)
    if free.size:
        shares = np.zeros_like(new)
        shares[free] = caps[free] if caps.sum() <= 1 else capped_shares(np.ones(free.size), caps[free])
        new = program.low + shares * program.room / program.prices
    blocks = []
    for block in program.blocks:
        back, missing = whitening(block.roots, block.prior_root, program.spent + new, block.response)
        if missing > _UNDETERMINED:
            raise ValueError(
                f"{_NAME}.response lies outside what the levels that may have examples and the prior determine "
                f"(by {missing:.2g} of its norm); add a prior, features or room in the bounds."
            )
        inner = (block.roots.reshape(-1, back.shape[0]) @ back).reshape(*block.roots.shape[:2], -1)
        blocks.append(replace(block, back=back, inner=inner))
    return replace(program, blocks=blocks)


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
    return _with_coordinates(_Program(blocks, c, total, floor, cap, already))


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
    if g.shape[1] > size:  # the error depends on G G^T alone
        g = np.asarray(np.linalg.qr(g.T, mode="r")).T
    none = (np.zeros((size, 0)), np.zeros((0, 0, 0)))  # coordinates follow once the bounds are known
    if prior is None:
        return _Block(a, g, np.zeros((0, size)), *none)
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
    return _Block(a, g, root_of(scaled) * unit, *none)
