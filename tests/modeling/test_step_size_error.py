"""The paper's problem for the step size against its optimality conditions, solved here level by level by bisection."""

import os

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.optimize import brentq

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

LOW, HIGH, PRICE, ROOM = 0.01, 10.0, lambda s: 1 + s / (1 + s), 40.0
CAP = 0.3


def score(s):
    return 0.3 / s**1.5


def local(order):
    return lambda s: s ** (-0.5 - order)


def table(levels, count):
    zero = np.zeros(count)
    return co.Coefficients(levels, zero, zero, np.zeros((0, count)), coupling=co.PerStep(1.0), terminal="rescale")


def moments(levels, function, power):
    """<f sigma^power> over each level in log sigma, by Simpson's rule on 40 parts."""
    logs = np.log(levels.edges)
    at = np.exp(logs[:-1, None] + np.diff(logs)[:, None] * np.linspace(0.0, 1.0, 41))
    return simpson(function(at) * at**power, dx=1 / 40, axis=1)


def optimum(levels, order, least):
    """Steps and error with a / n^2 + q d / n^(q+1) = y k above the least steps, its price by a root."""
    delta = np.diff(np.log(levels.edges))
    a, d = delta**2 * moments(levels, score, 2), delta ** (order + 1) * moments(levels, local(order), order + 1)
    k = moments(levels, PRICE, 0)

    def steps(log_price):
        low, high = np.full(a.size, -60.0), np.full(a.size, 60.0)
        for _ in range(120):
            middle = 0.5 * (low + high)
            more = a * np.exp(-2 * middle) + order * d * np.exp(-(order + 1) * middle) > np.exp(log_price) * k
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        return np.maximum(np.exp(0.5 * (low + high)), least)

    n = steps(brentq(lambda y: k @ steps(y) - ROOM, -80, 80, xtol=1e-14, rtol=1e-14))
    return n, float((a / n + d / n**order).sum())


MATRIX = [(capped, order) for capped in (False, True) for order in (1, 2, 4)]


@pytest.mark.cases(1)
@pytest.mark.parametrize(("capped", "order"), MATRIX if FULL else MATRIX[::2])
def test_certified_at_the_optimality_conditions_and_refinement_changes_nothing(order, capped):
    errors = []
    for count in (100, 200, 400):
        levels = co.Levels.log_uniform(LOW, HIGH, count)
        bounds = [co.Compute(co.Prices(1.0, PRICE, 1.0), part="sampling") <= ROOM]
        bounds += [co.Cap(lambda s: CAP * s, "step_size")] if capped else []
        plan = co.Problem(co.StepSizeError(score, local(order), order, table(levels, count)), bounds).solve(
            tolerance=1e-9
        )
        least = levels.width / moments(levels, lambda s: CAP * s, 0) if capped else np.zeros(count)
        n, best = optimum(levels, order, least)
        assert not capped or 0.2 * count < np.sum(n <= least * (1 + 1e-12)) < 0.8 * count, "the cap binds on a part"
        assert plan.error == pytest.approx(best, rel=2e-9)
        assert best * (1 - 2e-9) <= plan.certificate.lower_bound <= best * (1 + 1e-11)
        np.testing.assert_allclose(plan.steps, n, rtol=3e-4)
        errors.append(plan.error)
    assert np.ptp(errors) <= 1e-4 * errors[0]


@pytest.mark.parametrize("seed", range(4 if FULL else 2))
def test_arrays_and_zeros_and_a_price_of_their_own_are_certified_too(seed):
    rng, count = np.random.default_rng(seed), 80
    levels = co.Levels.log_uniform(LOW, HIGH, count)
    a, d = 10.0 ** rng.uniform(-3, 3, (2, count)) * (rng.uniform(size=(2, count)) < 0.7)
    term = co.StepSizeError(a, d, float(rng.choice([1.0, 1.5, 3.0])), table(levels, count))
    for unit in (1e-9, 1.0, 1e9):  # also as the price of a bound on the error
        plan = co.Problem(unit * term, [co.Steps() <= 25]).solve()
        assert plan.certificate.optimal
    dual = co.Problem(co.Steps(), [term <= plan.error / unit]).solve()
    assert dual.error == pytest.approx(25.0, rel=1e-5)


def test_the_paper_s_problem_of_one_power_has_its_closed_form():
    # case of equation 20: d gamma^2 alone, steps n ~ w^(1/3)
    count = 200
    levels = co.Levels.log_uniform(LOW, HIGH, count)
    weight = levels.log_width**3 * moments(levels, lambda s: s**-1.5, 3)
    plan = co.Problem(
        co.ScoreError(table(levels, count)) + co.StepSizeError(0.0, lambda s: s**-1.5, 2), [co.Steps() <= 20]
    ).solve()
    assert plan.certificate.optimal
    assert plan.error == pytest.approx((weight ** (1 / 3)).sum() ** 3 / 20**2, rel=1e-6)
    assert plan.certificate.lower_bound <= (weight ** (1 / 3)).sum() ** 3 / 20**2 * (1 + 1e-9)


def test_it_is_a_term_at_every_stopping_point_with_caps_that_bind_on_real_steps():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Euler())
    term = co.StepSizeError(lambda s: 1e-4 / s, lambda s: 1e-4 / s**2, 2)
    cap = co.Cap(lambda s: 0.5 * s, "step_size")
    plan = co.codesign(
        model, co.Prices(3.0, 1.0, 1000), 1e5, stopping_sigma=0.02, terms=[term], constraints=[cap], levels=60
    )
    nodes = plan.sigmas[plan.sigmas > 0]
    assert plan.certificate.optimal
    assert plan.breakdown["StepSizeError"] > 0
    assert np.all(-np.diff(nodes) <= 0.5 * nodes[1:] * (1 + 1e-9))


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"StepSizeError\.score"):
        co.StepSizeError(-1.0, 1.0)
    with pytest.raises(ValueError, match=r"StepSizeError\.order"):
        co.StepSizeError(1.0, 1.0, order=0.0)
    levels = co.Levels.log_uniform(LOW, HIGH, 10)
    with pytest.raises(ValueError, match=r"StepSizeError\.local"):
        co.Problem(co.StepSizeError(1.0, np.ones(9), table=table(levels, 10)), [co.Steps() <= 5])
    with pytest.raises(ValueError, match=r"StepSizeError\.local"):
        co.Problem(co.StepSizeError(1.0, lambda s: -s, table=table(levels, 10)), [co.Steps() <= 5])
