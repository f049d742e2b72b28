"""The program as a smooth convex one: four quantities a level, the objective, and bounds of single levels.

T examples, p = min(n, kappa) steps that the score error sees, n steps, u >= n^(-q) (docs/theory.md section 7.4):
max(1, kappa/n) is kappa / p under p <= n and p <= kappa.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...basics.checks import Array, Mask
from .program import FormProgram

__all__ = ["EXAMPLES", "INVERSE", "RESOLVED", "STEPS", "LevelBounds", "SmoothObjective"]

EXAMPLES, RESOLVED, STEPS, INVERSE = _T, _P, _N, _U = range(4)
_NOTHING = 1e-60  # for quantities that serve nothing: a share of them in nothing is nothing


@dataclass(frozen=True, eq=False)
class SmoothObjective:
    """Objective of z = (T, p, n, u), (4, L), with two derivatives, times `scale`."""

    program: FormProgram
    frozen: Mask
    scale: float = 1.0

    def _served(self, examples: Array) -> Array:
        """(L,) examples that serve each level, with those that the untrained denoiser is worth."""
        served = examples if self.program.pooling is None else self.program.pooling @ examples
        return served if self.program.prior is None else served + self.program.prior

    def _near(self, z: Array) -> float:
        """The same for the last evaluation."""
        assert self.window is not None
        return float(self.window @ z[_T]) + self.program.final_prior

    def _score(self, z: Array) -> tuple[Array, Array, Array, Array]:
        """(A/T + F) and the factor of p with two derivatives, on levels that steps resolve; A/T alone elsewhere."""
        joint, resolved = self.program.joint, self.program.resolved
        per_example = np.where(joint.errors > 0, joint.errors / self._served(z[_T]), 0.0)
        x = joint.kappa / z[_P]
        if joint.form == "p4":
            base = 1 + x**4
            factor = base**0.25
            first = -(x**4) * base**-0.75 / z[_P]
            second = x**4 * base**-1.75 * (5 + 2 * x**4) / z[_P] ** 2
        else:
            factor, first, second = x, -x / z[_P], 2 * x / z[_P] ** 2
        return (
            per_example,
            np.where(resolved, factor, 1.0),
            np.where(resolved, first, 0.0),
            np.where(resolved, second, 0.0),
        )

    def value(self, z: Array) -> float:
        """The objective, scaled."""
        per_example, factor, *_ = self._score(z)
        total = float(((per_example + self.program.joint.floors) * factor).sum())
        for quantity, form, power in self._forms:
            v = self._power(z, quantity, power)
            total += float(v @ form @ v)
        if self.program.signed_rows is not None:
            total += float(np.sum((self._rows @ z[_U]) ** 2))
        if self.window is not None:
            total += self.program.joint.final_error / self._near(z)
        return self.scale * total

    def window_rate(self, z: Array) -> float:
        """Second derivative of the last evaluation's error by the examples in its window."""
        if self.window is None:
            return 0.0
        return 2 * self.scale * self.program.joint.final_error / self._near(z) ** 3

    def _power(self, z: Array, quantity: int, power: float) -> Array:
        needs = self.program.needs_examples if quantity == _T else self.program.needs_steps
        return np.where(needs, z[quantity] ** -power, 0.0)

    def gradient(self, z: Array) -> Array:
        """(4, L)."""
        program, joint = self.program, self.program.joint
        gradient = np.zeros_like(z)
        per_example, factor, first, _ = self._score(z)
        pull = per_example * factor / self._served(z[_T])
        gradient[_T] = -(pull if program.pooling is None else pull @ program.pooling)
        gradient[_P] = (per_example + joint.floors) * first
        for quantity, form, power in self._forms:
            v = self._power(z, quantity, power)
            gradient[quantity] -= 2 * power * v / z[quantity] * (form @ v)
        if program.signed_rows is not None:
            gradient[_U] = 2 * (self._rows @ z[_U]) @ self._rows
        if self.window is not None:
            gradient[_T] -= joint.final_error / self._near(z) ** 2 * self.window
        return self.scale * gradient

    def blocks(self, z: Array) -> Array:
        """(L, 4, 4) of the Hessian of the score error, T standing for what serves a level."""
        blocks = np.zeros((self.program.size, 4, 4))
        per_example, factor, first, second = self._score(z)
        served = self._served(z[_T])
        blocks[:, _T, _T] = 2 * self.scale * per_example * factor / served**2
        blocks[:, _P, _P] = self.scale * (per_example + self.program.joint.floors) * second
        blocks[:, _T, _P] = blocks[:, _P, _T] = -self.scale * per_example * first / served
        return blocks

    def dense(self, z: Array) -> dict[int, Array]:
        """(L, L) of the Hessian by quantity: the forms."""
        dense: dict[int, Array] = {}
        for quantity, form, power in self._forms:
            v = self._power(z, quantity, power)
            slope = np.sqrt(2 * self.scale) * power * v / z[quantity]
            dense[quantity] = form * slope
            dense[quantity] *= slope[:, None]
            bend = 2 * self.scale * power * (power + 1) * v / z[quantity] ** 2 * (form @ v)
            dense[quantity].flat[:: z.shape[1] + 1] += bend
        if self.program.signed_rows is not None:
            dense[_U] = 2 * self.scale * self._rows.T @ self._rows
        return dense

    @cached_property
    def _forms(self) -> list[tuple[int, Array, float]]:
        """(quantity, form, power) of the forms of inverse powers."""
        stated = ((_T, self.program.examples_form, 0.5), (_N, self.program.steps_form, float(self.program.joint.order)))
        return [(quantity, form, power) for quantity, form, power in stated if form is not None]

    @cached_property
    def _rows(self) -> Array:
        """(B, L) signed rows of the u that move."""
        assert self.program.signed_rows is not None
        return np.asarray(self.program.signed_rows * ~self.frozen[_U])

    @cached_property
    def window(self) -> Array | None:
        """(L,) of the last evaluation's error A / (window . T); None without one."""
        return self.program.joint.final_window if self.program.joint.final_error > 0 else None


@dataclass(frozen=True, eq=False)
class LevelBounds:
    """What single levels must obey: p <= n, p <= kappa, n^-q <= u, bounds of T and n, and what these leave of u."""

    program: FormProgram
    low_examples: Array
    high_examples: Array
    low_steps: Array
    high_steps: Array

    @classmethod
    def of(cls, program: FormProgram) -> LevelBounds:
        joint, size = program.joint, program.size
        spent = _or(joint.spent, 0.0, size)
        return cls(
            program,
            np.maximum(spent, _or(joint.examples_low, 0.0, size)),
            _or(joint.examples_high, np.inf, size),
            _or(joint.steps_low, 0.0, size),
            _or(joint.steps_high, np.inf, size),
        )

    @property
    def q(self) -> float:
        """Order of the steps' error."""
        return float(self.program.joint.order)

    @cached_property
    def frozen(self) -> Mask:
        """(4, L) what does not move: what serves nothing, and bounds that coincide."""
        program = self.program
        frozen = np.ones((4, program.size), dtype=bool)
        frozen[_T] = ~program.needs_examples | (self.high_examples <= self.low_examples)
        frozen[_P] = ~program.resolved
        frozen[_N] = ~program.needs_steps | (self.high_steps <= self.low_steps)
        if program.signed_rows is not None:
            frozen[_U] = ~np.any(program.signed_rows != 0, axis=0)
        return frozen

    def inside(self, examples: Array, steps: Array) -> Array:
        """(4, L) z near a design, quantities that do not move at their values."""
        frozen, z = self.frozen, np.ones((4, self.program.size))
        for quantity, values, low in ((_T, examples, self.low_examples), (_N, steps, self.low_steps)):
            least = 1e-12 * float(values.max(initial=0.0))
            z[quantity] = np.where(frozen[quantity], np.maximum(low, _NOTHING), np.maximum(values, least))
        z[_P] = np.where(frozen[_P], 1.0, 0.9 * np.minimum(z[_N], self.kappa))
        z[_U] = np.where(frozen[_U], 1.0, 1.05 * z[_N] ** -self.q)
        return z

    def exactly(self, z: Array, examples: Array, steps: Array) -> Array:
        """`z` at a design, with u = n^-q."""
        z = z.copy()
        z[_T], z[_N] = np.maximum(examples, _NOTHING), np.maximum(steps, _NOTHING)
        if self.program.signed_rows is not None:
            z[_U] = np.where(self.frozen[_U], 0.0, z[_N] ** -self.q)
        return z

    @cached_property
    def kappa(self) -> Array:
        """(L,) steps beyond which the score error gains nothing."""
        return self.program.joint.kappa if self.program.joint.form == "max" else np.full(self.program.size, np.inf)

    @cached_property
    def mask(self) -> Mask:
        """(8, L) constraints of single levels that there are: p <= n, p <= kappa, n^-q <= u, bounds of T, n and u."""
        moves = ~self.frozen
        return np.stack([
            moves[_P],
            moves[_P] & np.isfinite(self.kappa),
            moves[_U],
            moves[_T] & ((self.low_examples > 0) | ~self._blows_up),
            moves[_T] & np.isfinite(self.high_examples),
            moves[_N] & (self.low_steps > 0),
            moves[_N] & np.isfinite(self.high_steps),
            moves[_U] & (self.low_steps > 0),
        ])  # fmt: skip

    @cached_property
    def _blows_up(self) -> Mask:
        """(L,) levels whose error is infinite without examples of their own, so that no bound keeps them positive."""
        prior = self.program.prior
        own = (self.program.joint.errors > 0) & (self.program.pooling is None)
        own = own if prior is None else own & (prior <= 0)
        form = self.program.examples_form
        return own if form is None else own | (np.diagonal(form) > 0)

    def values(self, z: Array) -> Array:
        """(8, L) values, <= 0 where obeyed."""
        values = np.stack([
            z[_P] - z[_N],
            z[_P] - self.kappa,
            z[_N] ** -self.q - z[_U],
            self.low_examples - z[_T],
            z[_T] - self.high_examples,
            self.low_steps - z[_N],
            z[_N] - self.high_steps,
            z[_U] - self.low_steps**-self.q,
        ])  # fmt: skip
        return np.where(self.mask, values, -1.0)

    def sizes(self, z: Array) -> Array:
        """(8, L) what a constraint's residual is relative to."""
        return np.stack([z[_N], z[_P], z[_U], z[_T], z[_T], z[_N], z[_N], z[_U]])

    def slopes(self, z: Array) -> Array:
        """(8, 4, L) derivatives of the constraints."""
        slopes = np.zeros((8, 4, z.shape[1]))
        slopes[0, _P], slopes[0, _N] = 1.0, -1.0
        slopes[1, _P] = 1.0
        slopes[2, _N], slopes[2, _U] = -self.q * z[_N] ** (-self.q - 1), -1.0
        slopes[3, _T], slopes[4, _T] = -1.0, 1.0
        slopes[5, _N], slopes[6, _N] = -1.0, 1.0
        slopes[7, _U] = 1.0
        return slopes * (self.mask[:, None] & ~self.frozen)

    def bends(self, z: Array, multiplier: Array) -> Array:
        """(L,) second derivative of n^-q <= u by n, at its multiplier."""
        return np.where(self.mask[2], multiplier[2] * self.q * (self.q + 1) * z[_N] ** (-self.q - 2), 0.0)


def _or(values: Array | None, otherwise: float, size: int) -> Array:
    return np.full(size, otherwise) if values is None else values
