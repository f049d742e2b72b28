"""Sums of products against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from codesign_opt.basics.exact_sums import sum_of_products


def exact(constant, *pairs):
    found = Fraction(constant)
    for left, right in pairs:
        found += sum(Fraction(a) * Fraction(b) for a, b in zip(left.tolist(), right.tolist(), strict=True))
    return float(found)


@pytest.mark.parametrize("decades", [0, 8, 30, 140])
def test_sums_that_cancel_are_those_of_fractions_rounded_once(decades):
    rng = np.random.default_rng(decades)
    for _ in range(30):
        size = int(rng.integers(1, 60))
        a, b, c = rng.normal(size=(3, size)) * 10.0 ** (decades * rng.uniform(-1, 1, (3, size)))
        nearly = -float(a @ b)
        assert sum_of_products(nearly, (a, b)) == exact(nearly, (a, b))
        assert sum_of_products(nearly, (a, b), (-a, b), (c, a)) == exact(nearly, (a, b), (-a, b), (c, a))


def test_numbers_at_the_ends_of_the_range_neither_overflow_in_halves_nor_turn_into_nan():
    big = np.array([1.5e308])
    assert sum_of_products(-1.5e308, (big, np.ones(1))) == 0.0
    assert sum_of_products(0.0, (big, np.array([-1e300]))) == -np.inf
    assert sum_of_products(np.inf, (big, np.ones(1))) == np.inf
    assert sum_of_products(-1e-300, (np.array([1e-150]), np.array([1e-150]))) == pytest.approx(0.0, abs=1e-315)
