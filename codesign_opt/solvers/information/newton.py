"""Interior-point Newton for shared parameters in whitened coordinates; no input checks, no proof.

docs/theory.md section 7.5, the program of master.py. With a price p of a share, slacks z >= 0 of u >= 0 and w >= 0 of
u <= cap, v = cap - u, the optimality conditions are

    p - g - z + w = 0,   sum u = 1,   z u = mu,   w v = mu   with mu -> 0,

followed by Mehrotra's predictor and corrector. First-order updates, u proportional to u sqrt(g), need thousands of
iterations for a gap of 1e-10; conic solvers carry L k r variables that are eliminated here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ...basics.checks import Array, Indices, Mask
from .knapsack import capped_shares
from .master import Block, Master, Point

__all__ = ["Iterate", "minimise"]

# square-root updates before Newton, with few levels and with many: with many the order of the shares also decides who
# starts in the bundle
_SWEEPS = (6, 30)
_OWN = 1200  # levels that start with a share of their own: a Hessian of 12 MB
_ITERATIONS = 120
_HALVINGS = 12
_BACK = 1 - 1e-8  # of the way to the boundary, at most: shares and slacks stay positive
_STALL = 12  # iterations without a better gap


@dataclass(frozen=True, eq=False)
class Iterate:
    """Shares (L,), their Y per block, and the iterations it took."""

    shares: Array
    solutions: list[Array]
    iterations: int


@dataclass(eq=False)
class _Direction:
    """Changes of the shares, the price of a share, and the slacks of both bounds."""

    shares: Array
    price: float
    z: Array
    w: Array


def minimise(blocks: Sequence[Block], caps: Array, tolerance: float) -> Iterate:
    """The best iterate by the gap over all levels; stops at the tolerance or where no digit is left to gain."""
    master = Master(blocks, caps)
    every = np.arange(caps.size)
    room = float(caps.sum())
    # start strictly inside the caps, which still have to sum to one: 1 / sqrt(room) of each lies between all of it and
    # the 1 / room that is the only point where there is no room to choose
    inside = caps * max(0.5, 1 / np.sqrt(room)) if np.isfinite(room) else 0.9 * caps + 0.1 * (caps >= 2)
    shares = capped_shares(np.ones(caps.size), inside)
    shares = _sweeps(master, shares, inside)
    order = np.argsort(-shares, kind="stable")
    chosen = np.sort(order[:_OWN]) if caps.size > _OWN else every
    return _Path(master, chosen, shares, tolerance).run()


def _sweeps(master: Master, shares: Array, caps: Array) -> Array:
    """u proportional to u sqrt(g), which never raises the error: a cheap, rough start."""
    none = master.bundled(np.arange(shares.size), np.zeros(shares.size))
    for _ in range(_SWEEPS[shares.size > _OWN]):
        at = master.point(none, shares)
        # a level that once has no share would never have one again
        weight = shares * np.sqrt(at.every / max(float(at.every.max()), 1e-300)) + 1e-9 / shares.size
        shares = capped_shares(weight, caps)
    return np.maximum(shares, 1e-12 / shares.size)


class _Path:
    """Predictor-corrector steps along the central path; the working set shrinks and grows on the way."""

    def __init__(self, master: Master, own: Indices, shares: Array, tolerance: float) -> None:
        self.master, self.tolerance = master, tolerance
        self.kept = np.zeros(shares.size, dtype=bool)  # taken out of the bundle near the end: stay out
        self._restrict(own, shares)
        self.v = self._rooms()
        self.at = master.point(self.bundle, self.shares)
        # above every gain, so that all slacks are positive; a tenth more keeps the best levels off the boundary too
        self.price = 1.1 * float(self.at.every.max())
        self.z = self.price - self.at.gains
        mu = float(self.z @ self.shares) / self.shares.size
        self.w = np.where(np.isfinite(self.caps), 0.1 * mu / self.v, 0.0)
        self.z = np.maximum(self.z + self.w, 0.1 * mu / self.shares)

    def _restrict(self, own: Indices, shares: Array) -> None:
        """Levels `own` on their own, the others in the bundle in proportion to their shares."""
        mix = shares.copy()
        mix[own] = 0.0
        mass = float(mix.sum())
        self.bundle = self.master.bundled(own, mix / mass if mass > 0 else mix)
        self.shares, self.caps = shares[own], self.master.caps[own]
        if self.bundle.present:
            # the bundle grows until its first level meets its cap
            room = float((self.master.caps[mix > 0] / mix[mix > 0]).min()) * mass
            self.shares, self.caps = np.append(self.shares, mass), np.append(self.caps, room)

    def _rooms(self) -> Array:
        """cap - u, carried along by the steps because the difference has no digits near a cap; 1 without a cap."""
        return np.where(np.isfinite(self.caps), np.maximum(self.caps - self.shares, 1e-16 * self.caps), 1.0)

    def everywhere(self) -> Array:
        """(L,) shares of all levels."""
        alone, mass = self.bundle.split(self.shares)
        total = mass * self.bundle.mix
        total[self.bundle.own] = alone
        return total

    def run(self) -> Iterate:
        """Steps until the gap over all levels is small or no longer shrinks."""
        best, least, stalled = self._iterate(0), np.inf, 0
        for iteration in range(_ITERATIONS):
            gap = self.master.gap(self.at)[0]
            # the gap need not fall at every step: what is returned is the best, and only halving it counts as progress
            if gap < least:
                stalled = 0 if gap < 0.5 * least else stalled + 1
                best, least = self._iterate(iteration), gap
            else:
                stalled += 1
            if gap <= self.tolerance or stalled > (_STALL if least < 1e-6 else 3 * _STALL):
                break
            try:
                self._step()
            except np.linalg.LinAlgError:
                break
            self._regroup()
        return best

    def _iterate(self, iteration: int) -> Iterate:
        return Iterate(self.everywhere(), self.at.solutions, iteration)

    # ------------------------------------------------------------------ one step

    def _step(self) -> None:
        """Predict where mu = 0 leads; then aim as low as that allows, corrected for its second-order error."""
        system = _Linearised(self)
        u, v, old_price, z, w = self.shares, self.v, self.price, self.z, self.w
        zero = np.zeros(u.size)
        predicted = system.direction(0.0, zero, zero)
        after = system.complementarity(predicted, *system.reach(predicted, 1.0))
        # Mehrotra's cube: a good prediction aims at almost nothing, a bad one back at the centre
        target = system.mu * min(max(after / system.mu, 0.0), 1.0) ** 3
        chosen = system.direction(target, predicted.shares * predicted.z, -predicted.shares * predicted.w)
        unit = max(old_price, 1e-300)
        # nearly all the way to the boundary once mu is small: the convergence is then faster than linear
        a, b = system.reach(chosen, min(max(0.9, 1 - system.mu / unit), _BACK))
        allowed = max(2 * self._excess(), 10 * system.pairs * system.mu / unit, 1e-3)
        for _ in range(_HALVINGS):
            self._move(u + a * chosen.shares)
            self.v = v - np.where(system.free, a * chosen.shares, 0.0)
            self.price, self.z, self.w = old_price + b * chosen.price, z + b * chosen.z, w + b * chosen.w
            if self._excess() <= allowed:
                return
            a, b = 0.5 * a, 0.5 * b
        if not np.isfinite(self.at.value):
            raise np.linalg.LinAlgError("no step keeps M regular")

    def _move(self, shares: Array) -> None:
        self.shares = shares
        try:
            self.at = self.master.point(self.bundle, shares)
        except np.linalg.LinAlgError:  # M lost a direction
            self.at = Point(shares, np.inf, gains=np.full(shares.size, np.inf))

    def _excess(self) -> float:
        """How much a level gains above its price, relatively: a step that raises it a lot left the path."""
        return float((self.at.gains / np.maximum(self.price + self.w, 1e-300)).max()) - 1

    # ------------------------------------------------------------------ the working set

    def _regroup(self) -> None:
        """Take levels that are worth their price out of the bundle; put useless ones in."""
        if self._excess() > 0.3:  # off the path the gains say nothing about who is useful
            return
        own, gap, price = self.bundle.own, self.master.gap(self.at)[0], self.price
        if not np.isfinite(self.master.caps).any():
            price = max(price, self.at.value - self.at.prior)  # what it comes to at the optimum, from above
        slack = price - self.at.every
        out = np.zeros(slack.size, dtype=bool)
        out[own] = True
        wanted = self._wanted(~out & (slack < 0))
        idle = self._idle(slack, gap, price)
        # few idle levels are not worth the new bundle: the Hessian's cost goes by their square
        if not wanted.any() and not (idle.sum() > 40 and idle.sum() > 0.2 * own.size):
            return
        out[own[idle]], out[wanted] = False, True
        self._rebundle(np.flatnonzero(out), wanted, price)

    def _wanted(self, candidates: Mask) -> Mask:
        """The candidates that gain most, a quarter of the working set at a time."""
        number = max(20, self.bundle.own.size // 4)
        order = np.argsort(-np.where(candidates, self.at.every, -1.0), kind="stable")[:number]
        chosen = np.zeros(candidates.size, dtype=bool)
        chosen[order] = True
        return chosen & candidates

    def _idle(self, slack: Array, gap: float, price: float) -> Mask:
        """Which own levels have little and gain clearly less than their price, by more than the gap leaves open.

        Not those taken out late, or levels would go to and fro; nor those that a cap holds back.
        """
        own, alone = self.bundle.own, self.bundle.split(self.shares)[0]
        z, w = self.z[: own.size], self.w[: own.size]
        idle = (alone < 0.02 / own.size) & (np.minimum(z, slack[own]) > min(max(10 * gap, 0.03), 0.3) * price)
        return np.asarray(idle & ~self.kept[own] & (w <= 1e-3 * self.price))

    def _rebundle(self, now: Indices, wanted: Mask, price: float) -> None:
        """A new working set `now`, with shares and slacks near those of the old one, and on the same central path."""
        own, shares = self.bundle.own, self.everywhere()
        mu = float(self.z @ self.shares) / self.shares.size
        # a newcomer starts with a share that the path would have given it, u = mu / z, but well inside its cap
        least = min(10 * mu / price, 0.1 / max(int(wanted.sum()), 1))
        start = np.minimum(np.maximum(shares, least), 0.5 * (self.master.caps + shares))
        shares = np.where(wanted, start, shares)
        self.kept |= wanted & (mu < 1e-3 * price / own.size)
        all_z, all_w, all_v = np.zeros((3, shares.size))
        all_z[own], all_w[own], all_v[own] = self.z[: own.size], self.w[: own.size], self.v[: own.size]
        all_z[wanted] = mu / shares[wanted]
        rest_z = float(self.z[-1]) if self.bundle.present else 0.3 * self.price
        self._restrict(now, shares / shares.sum() if wanted.any() else shares)
        last = [rest_z] if self.bundle.present else []
        self.z = np.append(all_z[now], last)
        before = np.append(all_v[now], [0.0] * len(last))
        rooms = self._rooms()
        # rooms carried along keep digits that cap - u has lost: they stay wherever rounding is all that differs
        self.v = np.where(np.abs(rooms - before) <= 1e-12 * rooms + 4e-16 * self.shares, before, rooms)
        w = np.append(all_w[now], [0.0] * len(last))
        self.w = np.where(np.isfinite(self.caps), np.maximum(w, 1e-3 * mu / self.v), 0.0)
        self.at = self.master.point(self.bundle, self.shares)


class _Linearised:
    """The optimality conditions linearised at a path's iterate; slacks and the price are eliminated.

    z and w are explicit in du, which leaves (H + z/u + w/v) du = right - dprice 1, and sum u = 1 gives dprice by one
    more solve with the same factor.
    """

    def __init__(self, path: _Path) -> None:
        self.u, self.v, self.z, self.w = path.shares, path.v, path.z, path.w
        self.free = np.isfinite(path.caps)  # levels with a cap, whose w is free to be positive
        self.pairs = self.u.size + int(self.free.sum())
        self.mu = float(self.z @ self.u + self.w @ self.v) / self.pairs
        self.residual = path.price - path.at.gains - self.z + self.w
        self.solve = _solver(path.master.hessian(path.bundle, path.at), self.z / self.u + self.w / self.v)
        self.lift = self.solve(np.ones(self.u.size))

    def direction(self, target: float, low: Array, high: Array) -> _Direction:
        """Towards z u = w v = target, less the products of changes (low and high) that linearising leaves out."""
        u, v, z, w = self.u, self.v, self.z, self.w
        to_z = (target - low) / u - z
        to_w = np.where(self.free, (target - high) / v - w, 0.0)
        du = self.solve(to_z - to_w - self.residual)
        dprice = float((du.sum() - (1 - u.sum())) / self.lift.sum())
        du = du - dprice * self.lift
        return _Direction(du, dprice, to_z - z / u * du, np.where(self.free, to_w + w / v * du, 0.0))

    def reach(self, to: _Direction, back: float) -> tuple[float, float]:
        """Step lengths for the shares and for the slacks, `back` of the way to where the first is 0."""
        primal = min(_reach(self.u, to.shares, back), _reach(self.v, np.where(self.free, -to.shares, 0.0), back))
        return primal, min(_reach(self.z, to.z, back), _reach(np.where(self.free, self.w, 1.0), to.w, back))

    def complementarity(self, to: _Direction, a: float, b: float) -> float:
        """mu after steps a of the shares and b of the slacks."""
        room = np.where(self.free, self.v - a * to.shares, 0.0)
        return float((self.u + a * to.shares) @ (self.z + b * to.z) + room @ (self.w + b * to.w)) / self.pairs


def _solver(system: Array, diagonal: Array) -> Callable[[Array], Array]:
    """Solve (system + diagonal) x = right, scaled to a diagonal of one; eats `system`.

    z / u spans 20 decades near the end, and the scaled matrix is the one whose condition counts.
    """
    system[np.diag_indices(diagonal.size)] += diagonal
    scale = 1 / np.sqrt(np.diag(system))
    system *= scale[:, None]
    system *= scale
    # levels with equal features have equal columns: a few roundings on the diagonal keep the factor real
    system[np.diag_indices(diagonal.size)] += 2e-15 * diagonal.size
    factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    return lambda right: scale * cho_solve(factor, scale * right, check_finite=False)


def _reach(x: Array, dx: Array, back: float) -> float:
    """Largest step in [0, 1] that leaves x + step dx >= (1 - back) x."""
    falls = dx < 0
    return min(1.0, back * float((x[falls] / -dx[falls]).min())) if falls.any() else 1.0
