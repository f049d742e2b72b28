"""Sums of products rounded once: what a limit leaves beside prices that nearly use it up."""

from __future__ import annotations

import math

import numpy as np

from .checks import Array

__all__ = ["sum_of_products"]

_SPLIT = 2.0**27 + 1  # halves the digits of a float64


def sum_of_products(constant: float, *pairs: tuple[Array, Array]) -> float:
    """constant + sum of a_i b_i over all pairs of arrays (a, b) of one length, rounded once.

    A product is the sum of two floats, its rounded value and what that misses (Dekker 1971); `math.fsum` rounds the sum
    of all of them once. In plain sums what is left of 1e16 - 1e16 + 1 is lost. Where a product, or a number given, is
    not finite, the plain sum is returned; what lies below the smallest float is lost.

    >>> big = np.array([1e8 + 1, 1e8])
    >>> sum_of_products(1.0, (big, np.array([1e8 - 1, -1e8])))  # 1 + (1e16 - 1) - 1e16
    0.0
    """
    found = [np.array([constant])]
    for left, right in pairs:
        if np.any(left) and np.any(right):  # else nothing, or with what is not finite a number that is none
            found += _products(np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64))
        else:
            found.append(np.array([0.0 if np.all(np.isfinite(left)) and np.all(np.isfinite(right)) else np.nan]))
    every = np.concatenate(found)
    if not np.all(np.isfinite(every)):
        with np.errstate(all="ignore"):
            return float(constant + sum(float(np.dot(left, right)) for left, right in pairs))
    try:
        return math.fsum(every.tolist())
    except OverflowError:
        return float(np.sum(every))


def _products(left: Array, right: Array) -> list[Array]:
    """(N,) rounded products and (N,) what each misses, by mantissas, whose halves cannot overflow."""
    (a, first), (b, second) = np.frexp(left), np.frexp(right)
    product = a * b
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    missed = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    exponent = first + second
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return [np.ldexp(product, exponent), np.ldexp(missed, exponent)]


def _high(values: Array) -> Array:
    with np.errstate(invalid="ignore"):
        shifted = _SPLIT * values
        return np.asarray(shifted - (shifted - values))
