"""The Lagrangian of levels against line searches: a bound, and sharp."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import codesign_opt as co
from codesign_opt.certificate.lagrangian import LagrangianBound, ScorePart


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


def test_a_quantity_that_nothing_bounds_leaves_no_bound():
    for examples, steps in ((-1.0, 1.0), (1.0, -1.0), (1.0, 0.0)):
        bound = LagrangianBound(1, np.zeros(1))
        bound.parts.append(ScorePart(np.ones(1), np.zeros(1), co.Local(1.0), np.ones(1)))
        bound.powers.append((1.0, np.ones(1)))
        bound.add_linear(0.0, np.array([examples]), np.array([steps]))
        with np.errstate(all="ignore"):
            assert bound.value() == -np.inf


def test_a_power_that_rises_is_taken_at_the_least_number_of_steps():
    bound = LagrangianBound(1, np.zeros(1))
    bound.powers += [(1.0, np.array([4.0])), (2.0, np.array([-3.0]))]
    bound.add_linear(0.0, np.zeros(1), np.ones(1))
    assert bound.value() == -np.inf  # -3 / n^2 has no least value without a floor of the steps
    bound.steps_box = (np.array([1.5]), np.array([np.inf]))
    n = np.linspace(1.5, 50, 200_001)
    truth = (4 / n - 3 / n**2 + n).min()
    assert bound.value() == pytest.approx(4.0 - 3 / 1.5**2, rel=1e-12)  # min of 4 / n + n, and -3 / n^2 at the floor
    assert bound.value() <= truth


def test_brackets_close_at_kinks_at_once_whatever_their_logarithms_round_to(monkeypatch):
    rounds, plain = [], LagrangianBound._round
    monkeypatch.setattr(LagrangianBound, "_round", lambda self, bracket: rounds.append(1) or plain(self, bracket))
    kappa = np.exp(np.linspace(-9, 9, 300))
    bound = LagrangianBound(300, np.zeros(300))
    bound.parts.append(ScorePart(np.zeros(300), np.ones(300), co.Local(1.0), kappa))
    bound.add_logarithms(0.0, np.zeros(300), np.full(300, 1e-3))  # the kink is the minimiser, logarithms bend the rest
    bound.add_linear(0.0, np.zeros(300), 0.4 / kappa)
    np.testing.assert_allclose(bound.value(), np.sum(1.4 - 1e-3 * np.log(kappa)), rtol=1e-12)
    assert len(rounds) <= 8  # halving brackets down to the kink's rounding took 40
