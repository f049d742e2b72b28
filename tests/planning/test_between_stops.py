"""Bounds over intervals of stopping points: all at once against one by one, and against solves inside."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import codesign_opt as co
from codesign_opt.certificate.lagrangian import LagrangianBound, ScorePart
from codesign_opt.certificate.levels import least_of_levels
from codesign_opt.planning.between_stops import interval_bounds
from codesign_opt.planning.stopping_points import _interval_bound, _interval_bounds, _nearest, bound_between, sweep
from tests.planning.test_codesign import STUDIES, study

LOW, HIGH = 0.002, 0.2
BATCHED = [name for name in STUDIES if name not in ("spent", "full matrix")]  # the others have no batch


def random_intervals(seed, count):
    ends = np.sort(np.exp(np.random.default_rng(seed).uniform(np.log(LOW), np.log(HIGH), (count, 2))), axis=1)
    ends[0, 0] = LOW
    return [(float(a), float(b)) for a, b in ends]


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


@pytest.mark.parametrize("name", BATCHED)
def test_bounds_of_all_intervals_are_those_of_each_and_below_every_solve_inside(name):
    found, rng = study(name, 60), np.random.default_rng(5)
    stops = [s for s in sweep(found, LOW, HIGH, 8, lambda text: None) if s.failure is None]
    intervals = [*random_intervals(7, 20), *((a.sigma, b.sigma) for a, b in pairwise(stops))]
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


def test_studies_without_a_batch_are_bounded_one_by_one():
    for name in ("spent", "full matrix"):
        found = study(name)
        stops = sweep(found, LOW, HIGH, 6, lambda text: None)
        assert interval_bounds(found, *np.ones((2, 1)), np.ones((1, 1)), np.ones((1, 3)), np.ones(1)) is None
        bound, evaluations = bound_between(found, stops, 1e-3)
        assert np.isfinite(bound)
        assert evaluations >= len(stops) - 1


@pytest.mark.parametrize("form", ["max", "per_step"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_least_of_levels_is_a_bound_and_sharp(form, order):
    rng = np.random.default_rng(order)
    errors, floors, drag, examples, steps = np.exp(rng.normal(0, 6, (5, 40)))
    kappa = np.exp(rng.normal(0, 2, 40))
    errors[::5], floors[::3], floors[::10], errors[::10] = 0.0, 0.0, 0.0, 0.0
    steps[1::4] = (order * drag / kappa ** (order + 1))[1::4] * 1.001  # minima at and near the kink
    bounds = least_of_levels(errors, floors, kappa, drag, order, examples, steps, form)
    for i in range(40):

        def value(logs, i=i):
            n = np.exp(logs)
            factor = kappa[i] / n if form == "per_step" else max(1.0, kappa[i] / n)
            least = 2 * np.sqrt(errors[i] * factor * examples[i]) + floors[i] * factor
            return least + drag[i] / n**order + steps[i] * n

        kink = float(np.log(kappa[i]))
        parts = [minimize_scalar(value, bounds=pair, method="bounded", options={"xatol": 1e-10}).fun
                 for pair in ((kink - 60, kink), (kink, kink + 60))]  # fmt: skip
        truth = min(*parts, value(kink))
        assert bounds[i] <= truth * (1 + 1e-12)
        assert bounds[i] >= truth * (1 - 1e-9)


@pytest.mark.parametrize("coupling", [co.Local(2.7), co.Local(2.7, form="p4"), co.PerStep(1.0)])
def test_the_lagrangian_of_a_level_is_a_bound_and_sharp_at_kinks_and_bounds(coupling):
    rng = np.random.default_rng(0)
    size = 30
    errors, floors, drag, examples, steps = np.exp(rng.normal(0, 5, (5, size)))
    kappa = np.exp(rng.normal(0, 2, size))
    drag[::4], errors[::5] = 0.0, 0.0
    low = np.where(rng.random(size) < 0.2, rng.random(size), 0.0)
    high = np.where(rng.random(size) < 0.5, low + np.exp(rng.normal(0, 3, size)), np.inf)
    total = 0.0
    for i in range(size):

        def value(logs, i=i):
            n = np.exp(logs)
            factor = float(coupling.factor(np.array(kappa[i] / n)))
            return 2 * np.sqrt(errors[i] * factor * examples[i]) + floors[i] * factor + drag[i] / n + steps[i] * n

        ends = np.log(np.clip([1e-25, kappa[i], 1e25], max(low[i], 1e-25), min(high[i], 1e25)))
        parts = [minimize_scalar(value, bounds=pair, method="bounded", options={"xatol": 1e-10}).fun
                 for pair in ((ends[0], ends[1] + 1e-12), (ends[1], ends[2] + 1e-12))]  # fmt: skip
        truth = min(*parts, *map(value, ends))
        total += truth
        bound = LagrangianBound(1, np.zeros(1))
        one = slice(i, i + 1)
        bound.parts.append(ScorePart(errors[one], floors[one], coupling, kappa[one]))
        bound.powers.append((1.0, drag[one]))
        bound.add_linear(0.0, examples[one], steps[one])
        bound.steps_box = (low[one], high[one])
        assert truth * (1 - 1e-9) <= bound.value() <= truth * (1 + 1e-12)
    whole = LagrangianBound(size, np.zeros(size))
    whole.parts.append(ScorePart(errors, floors, coupling, kappa))
    whole.powers.append((1.0, drag))
    whole.add_linear(0.0, examples, steps)
    whole.steps_box = (low, high)
    assert whole.value() == pytest.approx(total, rel=1e-9)
