"""Bounds over intervals of stopping points: all at once against one by one, and against solves inside."""

import os
from itertools import pairwise

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.between_stops import interval_bounds
from codesign_opt.planning.stopping_points import _interval_bound, _interval_bounds, _nearest, bound_between, sweep
from tests.planning.test_codesign import STUDIES, study

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LOW, HIGH = 0.002, 0.2
BATCHED = [name for name in STUDIES if name not in ("spent", "full matrix")]  # the others have no batch


def random_intervals(seed, count):
    ends = np.sort(np.exp(np.random.default_rng(seed).uniform(np.log(LOW), np.log(HIGH), (count, 2))), axis=1)
    ends[0, 0] = LOW
    return [(float(a), float(b)) for a, b in ends]


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", BATCHED)
def test_tables_of_all_intervals_are_those_of_each(name):
    m = study(name, 60).model
    edges = co.Levels.log_uniform(0.002, 80.0, 60).edges
    intervals = [*random_intervals(3, 12), (float(edges[3]), float(edges[4])), (0.01, 0.01)]
    lows, highs = np.array(intervals).T
    batch = m.interval_batch(lows, highs, 60)
    for r, (low, high) in enumerate(intervals):
        single, on = m.interval_coefficients(low, high, 60), batch.levels.used[r]
        for field in ("example_error", "floor_error", "kappa", "step_response"):
            np.testing.assert_allclose(getattr(batch, field)[r][..., on], getattr(single, field), rtol=1e-12)
        for field in ("truncation", "initial", "final_floor"):
            assert getattr(batch, field)[r] == pytest.approx(getattr(single, field), rel=1e-12)
        assert batch.final_score[r] == pytest.approx(m.coefficients(low, 60).final_score, rel=1e-12)


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", BATCHED)
def test_bounds_of_all_intervals_are_those_of_each_and_below_every_solve_inside(name):
    found, rng = study(name, 60), np.random.default_rng(5)
    stops = [s for s in sweep(found, LOW, HIGH, 8, lambda text: None) if s.failure is None]
    intervals = [*random_intervals(7, 20 if FULL else 6), *((a.sigma, b.sigma) for a, b in pairwise(stops))]
    near = _nearest(stops, intervals)
    values = _interval_bounds(found, intervals, near)
    assert values is not None
    for (low, high), value, stop in zip(intervals, values, near, strict=True):
        single = _interval_bound(found, low, high, stop)  # also knows that no level takes more than the budget
        assert value <= single + 1e-12 * abs(single)
        assert value >= single - 1e-4 * abs(single)
        inside = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        assert value <= found.solve(inside).error * (1 + 1e-9)


def test_prices_that_are_functions_of_sigma_are_bounded_together_too():
    prices = co.Prices(example=lambda s: 1 + s / (1 + s), evaluation=lambda s: 1.0 + (s < 1), images=1_000)
    found = study("joint, heun", 60)
    found = type(found)(found.model, prices, 1e5, None, None, (), (), 60, 1e-6)
    stops = [s for s in sweep(found, LOW, HIGH, 8, lambda text: None) if s.failure is None]
    intervals = random_intervals(1, 10)
    near = _nearest(stops, intervals)
    values = _interval_bounds(found, intervals, near)
    singles = [_interval_bound(found, a, b, stop) for (a, b), stop in zip(intervals, near, strict=True)]
    np.testing.assert_allclose(values, singles, rtol=1e-9)


@pytest.mark.slow
def test_studies_without_a_batch_are_bounded_one_by_one():
    for name in ("spent", "full matrix"):
        found = study(name)
        stops = sweep(found, LOW, HIGH, 6, lambda text: None)
        assert interval_bounds(found, *np.ones((2, 1)), np.ones((1, 1)), np.ones((1, 3)), np.ones(1)) is None
        bound, evaluations = bound_between(found, stops, 1e-3)
        assert np.isfinite(bound)
        assert evaluations >= len(stops) - 1
