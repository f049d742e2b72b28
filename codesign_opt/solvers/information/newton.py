"""Interior-point Newton for shared parameters in whitened coordinates; no input checks, no proof.

    min over shares u of sum over blocks tr G^T (P0 + sum_l u_l B_l^T B_l)^-1 G,   sum u = 1, 0 <= u <= cap

(docs/theory.md section 7, P4). The gradient is -g_l = -|B_l Y|^2 and the Hessian 2 <C_l, C_j> with
C_l = M^(-1/2) B_l^T B_l Y. Levels that are neither used nor nearly worth using move together, in one bundle
with fixed proportions, so that the Hessian is as small as the support and M never loses a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, qr, solve_triangular

from ...basics.checks import Array

__all__ = ["CUT", "Block", "Iterate", "capped_shares", "knapsack", "minimise", "root_of", "whitening"]

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
CUT = 1e-11  # directions of M^(1/2) below this fraction of the largest are undetermined
_SWEEPS = (6, 30)  # square-root updates before Newton, with few levels and with many
_OWN = 1200  # levels that start with a share of their own
_ITERATIONS = 120
_HALVINGS = 12
_BACK = 1 - 1e-8  # of the way to the boundary, at most
_STALL = 12  # iterations without a better gap


@dataclass(frozen=True, eq=False)
class Block:
    """One block of parameters in whitened coordinates: roots (L, k, R), response (R, r), prior (R, R)."""

    roots: Array
    response: Array
    prior: Array


@dataclass(frozen=True, eq=False)
class Iterate:
    """Shares (L,), their Y per block, and the iterations it took."""

    shares: Array
    solutions: list[Array]
    iterations: int


def root_of(symmetric: Array) -> Array:
    """(n, n) with rows R^T R = the positive semidefinite argument."""
    values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).T


def whitening(roots: Array, fixed: Array, reference: Array, response: Array) -> tuple[Array, float]:
    """(P, R) with columns W, W^T M W = 1 at the reference, and the part of the response outside M's range.

    Args:
        roots: (L, k, P) A_l; M = fixed^T fixed + sum_l reference_l A_l^T A_l.
        fixed: (any, P).
        reference: (L,) examples.
        response: (P, r).
    """
    size = roots.shape[2]
    rows = (roots * np.sqrt(reference)[:, None, None]).reshape(-1, size)
    rows = np.vstack([rows, fixed])
    lengths = np.sqrt(np.einsum("ij,ij->j", rows, rows))
    unit: Array = np.where(lengths > 0, lengths, 1.0)  # units of the parameters, which change no answer
    rows /= unit
    triangle: Array = qr(rows, mode="r", overwrite_a=True, check_finite=False)[0][: min(rows.shape)]
    _, values, vectors = np.linalg.svd(triangle, full_matrices=False)
    keep = values > CUT * values.max()
    basis, values = vectors[keep].T, np.asarray(values[keep])
    wanted = response / unit[:, None]
    outside = float(np.linalg.norm(wanted - basis @ (basis.T @ wanted)))
    missing = outside / max(float(np.linalg.norm(wanted)), 1e-300)
    return basis / values / unit[:, None], missing


def knapsack(gains: Array, caps: Array) -> tuple[float, float]:
    """max sum u g over 0 <= u <= cap, sum u <= 1, and the price of the last share (0 if caps leave room)."""
    if not np.isfinite(caps).any():
        best = float(gains.max())
        return best, best
    order = np.argsort(-gains)
    taken = np.minimum(np.cumsum(caps[order]), 1.0)
    part = np.diff(taken, prepend=0.0)
    last = int(np.searchsorted(taken, 1.0))
    return float(part @ gains[order]), float(gains[order[last]]) if last < gains.size else 0.0


def capped_shares(weight: Array, caps: Array) -> Array:
    """min(cap, t weight) with t such that the shares sum to one (weights > 0, caps sum to at least one)."""
    shares = weight / weight.sum()
    if np.all(shares <= caps):
        return shares
    ratio = np.where(np.isfinite(caps), caps / weight, np.inf)
    order = np.argsort(ratio)
    filled = np.concatenate([[0.0], np.cumsum(np.where(np.isfinite(caps), caps, 0.0)[order])])[:-1]
    rest = np.cumsum(weight[order][::-1])[::-1]
    t = (1 - filled) / rest  # if the first i levels in this order are at their caps
    i = int(np.argmax(t <= ratio[order])) if np.any(t <= ratio[order]) else t.size - 1
    return np.minimum(caps, np.maximum(t[i], 0.0) * weight)


@dataclass(eq=False)
class _Point:
    """Shares of the levels on their own and of the bundle (last, if any), with everything that follows from them."""

    shares: Array
    value: float = 0.0
    prior: float = 0.0
    gains: Array = field(default_factory=lambda: np.empty(0))  # own levels, then the bundle
    every: Array = field(default_factory=lambda: np.empty(0))  # all levels
    solutions: list[Array] = field(default_factory=list)
    factors: list[Array] = field(default_factory=list)


@dataclass(eq=False)
class _Bundle:
    """Which levels have a share of their own; the others' proportions (sum 1) and information per block."""

    own: Indices
    mix: Array
    information: list[Array]

    @property
    def present(self) -> bool:
        return bool(self.information)

    def split(self, shares: Array) -> tuple[Array, float]:
        """Shares of the levels on their own, and the bundle's."""
        return (shares[:-1], float(shares[-1])) if self.present else (shares, 0.0)


class _Master:
    """The program restricted to the levels on their own and the bundle."""

    def __init__(self, blocks: Sequence[Block], caps: Array) -> None:
        self.blocks, self.caps = blocks, caps
        self.flat = [block.roots.reshape(-1, block.roots.shape[2]) for block in blocks]

    def point(self, bundle: _Bundle, shares: Array) -> _Point:
        at = _Point(shares)
        at.every, bundled = np.zeros(self.caps.size), 0.0
        for i, block in enumerate(self.blocks):
            factor = self._factor(i, bundle, shares)
            half = solve_triangular(factor, block.response, lower=True, check_finite=False)
            y = solve_triangular(factor, half, lower=True, trans=1, check_finite=False)
            at.value += float((half**2).sum())
            at.prior += float(np.sum(y * (block.prior @ y)))
            at.every += ((self.flat[i] @ y) ** 2).reshape(self.caps.size, -1).sum(axis=1)
            if bundle.present:
                bundled += float(np.sum(y * (bundle.information[i] @ y)))
            at.solutions.append(y)
            at.factors.append(factor)
        at.gains = np.append(at.every[bundle.own], [bundled] if bundle.present else [])
        return at

    def _factor(self, i: int, bundle: _Bundle, shares: Array) -> Array:
        """Lower triangular L with L L^T = M; from M itself, or from its root where M loses too many digits."""
        block = self.blocks[i]
        inner = block.roots[bundle.own]
        alone, mass = bundle.split(shares)
        rows = (inner * np.sqrt(alone)[:, None, None]).reshape(-1, inner.shape[2])
        rest = block.prior + mass * bundle.information[i] if bundle.present else block.prior
        try:
            factor = np.asarray(np.linalg.cholesky(rows.T @ rows + rest), dtype=np.float64)
            diagonal = np.diag(factor)
            if diagonal.min() > 1e-5 * diagonal.max():
                return factor
        except np.linalg.LinAlgError:
            pass
        together = np.vstack([rows, root_of(rest)])
        triangle = qr(together, mode="r", overwrite_a=True, check_finite=False)[0][: together.shape[1]]
        if np.abs(np.diag(triangle)).min() < 1e-14 * np.abs(triangle).max():
            raise np.linalg.LinAlgError("M lost a direction")
        return triangle.T

    def hessian(self, bundle: _Bundle, at: _Point) -> Array:
        """(n, n) second derivatives by the own shares and the bundle's."""
        n = at.shares.size
        total = np.zeros((n, n))
        for i, block in enumerate(self.blocks):
            y, factor = at.solutions[i], at.factors[i]
            inner = block.roots[bundle.own]
            count, k, size = inner.shape
            seen = (inner.reshape(-1, size) @ y).reshape(count, k, -1)
            half = solve_triangular(factor, inner.reshape(-1, size).T, lower=True, check_finite=False)
            half = half.T.reshape(count, k, size)
            last = np.zeros((0, size))
            if bundle.present:
                last = solve_triangular(factor, bundle.information[i] @ y, lower=True, check_finite=False).T
            total += 2 * (_direct if seen.shape[2] <= k * k else _by_outputs)(half, seen, last)
        return total

    def bundled(self, own: Indices, mix: Array) -> _Bundle:
        information: list[Array] = []
        chosen = np.flatnonzero(mix)
        for block in self.blocks if chosen.size else ():
            size = block.roots.shape[2]
            rows = (block.roots[chosen] * np.sqrt(mix[chosen])[:, None, None]).reshape(-1, size)
            information.append(rows.T @ rows)
        return _Bundle(own, mix, information)

    def gap(self, at: _Point) -> tuple[float, float]:
        """Relative gap of the equivalence theorem over all levels, and the price of a share there."""
        most, price = knapsack(at.every, self.caps)
        return 1 - at.value / (at.prior + most), price


def _direct(half: Array, seen: Array, last: Array) -> Array:
    """<C_l, C_j> from the C_l themselves: cheaper with few columns of the response."""
    columns: Array = np.matmul(seen.transpose(0, 2, 1), half).reshape(half.shape[0], -1)
    if last.size:
        columns = np.vstack([columns, last.reshape(1, -1)])
    return columns @ columns.T


def _by_outputs(half: Array, seen: Array, last: Array) -> Array:
    """<C_l, C_j> = sum over outputs of (B_l M^-1 B_j^T) o (B_l Y Y^T B_j^T): cheaper with few outputs."""
    count, k, _ = half.shape
    extra = 1 if last.size else 0
    total = np.zeros((count + extra, count + extra))
    inner = total[:count, :count]
    parts = [(np.ascontiguousarray(half[:, a]), np.ascontiguousarray(seen[:, a])) for a in range(k)]
    for a in range(k):
        inner += (parts[a][0] @ parts[a][0].T) * (parts[a][1] @ parts[a][1].T)
        for b in range(a):
            mixed = (parts[a][0] @ parts[b][0].T) * (parts[a][1] @ parts[b][1].T)
            inner += mixed + mixed.T
    if extra:
        total[-1, :count] = total[:count, -1] = np.einsum("lkr,lkr->l", seen, half @ last.T)
        total[-1, -1] = np.sum(last**2)
    return total


def minimise(blocks: Sequence[Block], caps: Array, tolerance: float) -> Iterate:
    """The best iterate by the gap over all levels; stops at the tolerance or where no digit is left to gain."""
    master = _Master(blocks, caps)
    every = np.arange(caps.size)
    room = float(caps.sum())
    # start strictly inside the caps
    inside = caps * max(0.5, 1 / np.sqrt(room)) if np.isfinite(room) else 0.9 * caps + 0.1 * (caps >= 2)
    shares = capped_shares(np.ones(caps.size), inside)
    shares = _sweeps(master, shares, inside)
    order = np.argsort(-shares, kind="stable")
    chosen = np.sort(order[:_OWN]) if caps.size > _OWN else every
    return _Path(master, chosen, shares, tolerance).run()


def _sweeps(master: _Master, shares: Array, caps: Array) -> Array:
    """u proportional to u sqrt(g), which never raises the error: a cheap, rough start."""
    none = master.bundled(np.arange(shares.size), np.zeros(shares.size))
    for _ in range(_SWEEPS[shares.size > _OWN]):
        at = master.point(none, shares)
        weight = shares * np.sqrt(at.every / max(float(at.every.max()), 1e-300)) + 1e-9 / shares.size
        shares = capped_shares(weight, caps)
    return np.maximum(shares, 1e-12 / shares.size)


class _Path:
    """Predictor-corrector steps along the central path; the working set shrinks and grows on the way."""

    def __init__(self, master: _Master, own: Indices, shares: Array, tolerance: float) -> None:
        self.master, self.tolerance = master, tolerance
        self.kept = np.zeros(shares.size, dtype=bool)  # taken out of the bundle once: stay out
        self._restrict(own, shares)
        self.v = self._rooms()
        self.at = master.point(self.bundle, self.shares)
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
        best, least, stalled = self._iterate(0), np.inf, 0
        for iteration in range(_ITERATIONS):
            gap = self.master.gap(self.at)[0]
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

    def _step(self) -> None:
        u, z, w, old_price = self.shares, self.z, self.w, self.price
        v, free = self.v, np.isfinite(self.caps)
        pairs = u.size + int(free.sum())
        mu = float(z @ u + w @ v) / pairs
        residual = self.price - self.at.gains - z + w
        solve = self._solver(z / u + w / v)
        lift = solve(np.ones(u.size))

        def direction(target: float, low: Array, high: Array) -> tuple[Array, float, Array, Array]:
            to_z = (target - low) / u - z
            to_w = np.where(free, (target - high) / v - w, 0.0)
            du = solve(to_z - to_w - residual)
            dprice = float((du.sum() - (1 - u.sum())) / lift.sum())
            du = du - dprice * lift
            return du, dprice, to_z - z / u * du, np.where(free, to_w + w / v * du, 0.0)

        def reach(du: Array, dz: Array, dw: Array, back: float) -> tuple[float, float]:
            primal = min(_reach(u, du, back), _reach(v, np.where(free, -du, 0.0), back))
            return primal, min(_reach(z, dz, back), _reach(np.where(free, w, 1.0), dw, back))

        zero = np.zeros(u.size)
        du, _, dz, dw = direction(0.0, zero, zero)
        a, b = reach(du, dz, dw, 1.0)
        after = float((u + a * du) @ (z + b * dz) + np.where(free, v - a * du, 0.0) @ (w + b * dw)) / pairs
        target = mu * min(max(after / mu, 0.0), 1.0) ** 3
        du, dprice, dz, dw = direction(target, du * dz, -du * dw)
        a, b = reach(du, dz, dw, min(max(0.9, 1 - mu / max(self.price, 1e-300)), _BACK))
        allowed = max(2 * self._excess(), 10 * pairs * mu / max(self.price, 1e-300), 1e-3)
        for _ in range(_HALVINGS):
            self._move(u + a * du)
            self.v = v - np.where(free, a * du, 0.0)
            self.price, self.z, self.w = old_price + b * dprice, z + b * dz, w + b * dw
            if self._excess() <= allowed:
                return
            a, b = 0.5 * a, 0.5 * b
        if not np.isfinite(self.at.value):
            raise np.linalg.LinAlgError("no step keeps M regular")

    def _solver(self, diagonal: Array) -> Callable[[Array], Array]:
        """Solve (Hessian + diagonal) x = right, scaled to a diagonal of one."""
        system = self.master.hessian(self.bundle, self.at)
        system[np.diag_indices(diagonal.size)] += diagonal
        scale = 1 / np.sqrt(np.diag(system))
        system *= scale[:, None]
        system *= scale
        system[np.diag_indices(diagonal.size)] += 2e-15 * diagonal.size  # equal levels
        factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        return lambda right: scale * cho_solve(factor, scale * right, check_finite=False)

    def _move(self, shares: Array) -> None:
        self.shares = shares
        try:
            self.at = self.master.point(self.bundle, shares)
        except np.linalg.LinAlgError:  # M lost a direction
            self.at = _Point(shares, np.inf, gains=np.full(shares.size, np.inf))

    def _excess(self) -> float:
        """How much a level gains above its price, relatively: a step that raises it a lot left the path."""
        return float((self.at.gains / np.maximum(self.price + self.w, 1e-300)).max()) - 1

    def _regroup(self) -> None:
        """Take levels that are worth their price out of the bundle; put useless ones in."""
        own, alone = self.bundle.own, self.bundle.split(self.shares)[0]
        z, w = self.z[: own.size], self.w[: own.size]
        if self._excess() > 0.3:
            return
        gap, price = self.master.gap(self.at)[0], self.price
        if not np.isfinite(self.master.caps).any():
            price = max(price, self.at.value - self.at.prior)  # what it comes to at the optimum, from above
        slack = price - self.at.every
        shares = self.everywhere()
        out = np.zeros(shares.size, dtype=bool)
        out[own] = True
        wanted = self._wanted(~out & (slack < 0))
        idle = (alone < 0.02 / own.size) & (np.minimum(z, slack[own]) > min(max(10 * gap, 0.03), 0.3) * price)
        idle &= ~self.kept[own] & (w <= 1e-3 * self.price)
        if not wanted.any() and not (idle.sum() > 40 and idle.sum() > 0.2 * own.size):
            return
        mu = float(self.z @ self.shares) / self.shares.size
        least = min(10 * mu / price, 0.1 / max(int(wanted.sum()), 1))
        start = np.minimum(np.maximum(shares, least), 0.5 * (self.master.caps + shares))
        shares = np.where(wanted, start, shares)
        self.kept |= wanted & (mu < 1e-3 * price / own.size)
        all_z, all_w, all_v = np.zeros((3, shares.size))
        all_z[own], all_w[own], all_v[own] = z, w, self.v[: own.size]
        all_z[wanted] = mu / shares[wanted]
        rest_z = float(self.z[-1]) if self.bundle.present else 0.3 * self.price
        out[own[idle]], out[wanted] = False, True
        now = np.flatnonzero(out)
        self._restrict(now, shares / shares.sum() if wanted.any() else shares)
        last = [rest_z] if self.bundle.present else []
        self.z = np.append(all_z[now], last)
        before = np.append(all_v[now], [0.0] * len(last))
        rooms = self._rooms()
        self.v = np.where(np.abs(rooms - before) <= 1e-12 * rooms + 4e-16 * self.shares, before, rooms)
        self._refresh_caps(np.append(all_w[now], [0.0] * len(last)), mu)
        self.at = self.master.point(self.bundle, self.shares)

    def _wanted(self, candidates: Mask) -> Mask:
        """The candidates that gain most, a quarter of the working set at a time."""
        number = max(20, self.bundle.own.size // 4)
        order = np.argsort(-np.where(candidates, self.at.every, -1.0), kind="stable")[:number]
        chosen = np.zeros(candidates.size, dtype=bool)
        chosen[order] = True
        return chosen & candidates

    def _refresh_caps(self, w: Array, mu: float) -> None:
        finite = np.isfinite(self.caps)
        self.w = np.where(finite, np.maximum(w, 1e-3 * mu / self.v), 0.0)


def _reach(x: Array, dx: Array, back: float = 1.0) -> float:
    """Largest step in [0, 1] that leaves x + step dx >= (1 - back) x."""
    falls = dx < 0
    return min(1.0, back * float((x[falls] / -dx[falls]).min())) if falls.any() else 1.0
