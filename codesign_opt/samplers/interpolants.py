"""Weights of multistep methods: integrals of the polynomial through the last outputs, in closed form.

Everything here takes numbers of any kind that know arithmetic: arrays, complex ones too, and torch tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial
from typing import Any

from numpy.polynomial import Polynomial

__all__ = ["adams_moments", "falling_moments", "interpolation_error", "lagrange_weights", "rates", "rising_moments"]

_TERMS = 16


def rising_moments(length: Any, decay: Any, count: int) -> list[Any]:
    """Integrals over [0, 1] of exp(-h (1 - s)) s^m for m = 0, 1, ..., count - 1: what a step in log sigma makes of s^m.

    By I_m = (1 - m I_{m-1}) / h where h >= 1. Below, where that cancels, the last from its series and the others
    backwards.

    Args:
        length: h > 0, the length of the step in log sigma.
        decay: exp(-h), the ratio of the noise levels.

    >>> import numpy as np
    >>> [round(float(m), 6) for m in rising_moments(np.array(2.0), np.exp(-2.0), 2)]
    [0.432332, 0.283834]
    """

    def forward() -> list[Any]:
        found = [(1 - decay) / length]
        for m in range(1, count):
            found.append((1 - m * found[-1]) / length)
        return found

    def backward() -> list[Any]:
        last = 1 - length / (count + _TERMS)
        for m in range(count + _TERMS - 1, count, -1):
            last = 1 - length / m * last
        found = [last / count]
        for m in range(count - 1, 0, -1):
            found.append((1 - length * found[-1]) / m)
        return found[::-1]

    return _chosen(length.real < 1, backward, forward)


def falling_moments(length: Any, decay: Any, count: int) -> list[Any]:
    """Integrals over [0, 1] of exp(-h s) s^m for m = 0, 1, ..., count - 1: the weight of s^m in a step of sigma.

    By J_m = (m J_{m-1} - exp(-h)) / h where h >= 1; arguments as in `rising_moments`.

    >>> import numpy as np
    >>> [round(float(m), 6) for m in falling_moments(np.array(2.0), np.exp(-2.0), 2)]
    [0.432332, 0.148499]
    """

    def forward() -> list[Any]:
        found = [(1 - decay) / length]
        for m in range(1, count):
            found.append((m * found[-1] - decay) / length)
        return found

    def backward() -> list[Any]:
        last = 1 + length / (count + _TERMS)
        for m in range(count + _TERMS - 1, count, -1):
            last = 1 + length / m * last
        found = [decay * last / count]
        for m in range(count - 1, 0, -1):
            found.append((length * found[-1] + decay) / m)
        return found[::-1]

    return _chosen(length.real < 1, backward, forward)


def adams_moments(count: int) -> list[float]:
    """Integrals over [0, 1] of s^m, those of Adams and Bashforth: 1 / (m + 1)."""
    return [1 / (m + 1) for m in range(count)]


def _chosen(near: Any, short: Callable[[], list[Any]], long: Callable[[], list[Any]]) -> list[Any]:
    """Moments of short steps by one way and of long ones by another, only what is needed worked out."""
    if near.all():
        return short()
    if not near.any():
        return long()
    return [near * one + ~near * other for one, other in zip(short(), long(), strict=True)]


def lagrange_weights(places: Sequence[Any], moments: Sequence[Any]) -> list[Any]:
    """Weight of each value in the integral of the polynomial through them.

    Args:
        places: where the values are, distinct.
        moments: as many integrals of 1, s, s^2, ... over the step.

    >>> [round(12 * w) for w in lagrange_weights([0.0, -1.0, -2.0], adams_moments(3))]  # Adams and Bashforth's
    [23, -16, 5]
    """
    weights = []
    for j, own in enumerate(places):
        basis: list[Any] = [1.0]  # coefficients of prod (s - other), the highest power last
        scale: Any = 1.0
        for i, other in enumerate(places):
            if i != j:
                lower = [-other * coefficient for coefficient in basis]
                basis = [*(a + b for a, b in zip([*lower[1:], 0.0], basis, strict=True))]
                basis = [lower[0], *basis]
                scale = scale * (own - other)
        total = basis[0] * moments[0]
        for coefficient, moment in zip(basis[1:], moments[1:], strict=True):
            total = total + coefficient * moment
        weights.append(total / scale)
    return weights


def interpolation_error(places: Sequence[float]) -> float:
    """Integral over [0, 1] of prod_j (s - places_j), over p!: what the p-th derivative adds to the true integral.

    >>> round(12 * interpolation_error([0.0, -1.0]))  # 5/12
    5
    """
    whole = Polynomial.fromroots(places).integ()
    return float(whole(1.0) - whole(0.0)) / factorial(len(places))


def rates(first: Polynomial, growth: Polynomial, count: int) -> list[Polynomial]:
    """Derivatives by -log sigma, over a quantity g, of g times a polynomial in the denoiser's weight W.

    On Gaussian data dW/d(-log sigma) = 2 W (1 - W); `growth` is the derivative of log g (docs/theory.md section 3.1).

    Returns:
        `count` + 1 polynomials in W, the first one `first`.

    >>> x, clean = Polynomial([-1, 1]), Polynomial([0, 1])  # of the state: -(1 - W)
    >>> rates(clean, x, 2)[2].coef.tolist()  # W (1 - W) (1 - 3 W)
    [0.0, 1.0, -4.0, 3.0]
    """
    found = [first]
    for _ in range(count):
        found.append(growth * found[-1] + Polynomial([0, 2, -2]) * found[-1].deriv())
    return found
