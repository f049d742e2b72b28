"""Bounds of single levels in closed form against line searches on both sides of the kink."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from codesign_opt.certificate.levels import least_of_levels


@pytest.mark.parametrize("form", ["max", "per_step"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_least_of_levels_is_a_bound_and_sharp(form, order):
    rng = np.random.default_rng(order)
    errors, floors, drag, examples, steps = np.exp(rng.normal(0, 6, (5, 40)))
    kappa = np.exp(rng.normal(0, 2, 40))
    errors[::5], floors[::3], floors[::10], errors[::10] = 0.0, 0.0, 0.0, 0.0
    steps[1::4] = (order * drag / kappa ** (order + 1))[1::4] * 1.001  # minima at and near the kink
    prior = np.exp(rng.normal(0, 3, 40)) * (np.arange(40) % 3 > 0)
    bounds = least_of_levels(errors, prior, floors, kappa, drag, order, examples, steps, form)
    for i in range(40):

        def value(logs, i=i):
            n = np.exp(logs)
            factor = kappa[i] / n if form == "per_step" else max(1.0, kappa[i] / n)
            total = max(np.sqrt(errors[i] * factor / examples[i]), prior[i], 1e-300)
            least = errors[i] * factor / total + examples[i] * (total - prior[i]) + floors[i] * factor
            return least + drag[i] / n**order + steps[i] * n

        kink = float(np.log(kappa[i]))
        parts = [minimize_scalar(value, bounds=pair, method="bounded", options={"xatol": 1e-10}).fun
                 for pair in ((kink - 60, kink), (kink, kink + 60))]  # fmt: skip
        truth = min(*parts, value(kink))
        assert bounds[i] <= truth * (1 + 1e-12)
        assert bounds[i] >= truth * (1 - 1e-9)


def test_levels_without_a_bound_are_nan_and_leave_the_others_alone():
    one = np.ones(4)
    drag, steps, examples = (
        np.array([1.0, 0.0, 1.0, 1.0]),
        np.array([1.0, 1.0, 0.0, 1.0]),
        np.array([1.0, 1.0, 1.0, -1.0]),
    )
    bounds = least_of_levels(one, 0 * one, 0 * one, one, drag, 1, examples, steps, "max")
    assert np.isnan(bounds).tolist() == [False, True, True, True]
    assert bounds[0] == pytest.approx(4.0, rel=1e-12)


@pytest.mark.parametrize("form", ["max", "per_step"])
def test_many_intervals_at_once_are_each_of_them(form):
    errors, prior, floors, kappa, drag, examples, steps = np.exp(np.random.default_rng(1).normal(0, 3, (7, 5, 8)))
    whole = least_of_levels(errors, prior, floors, kappa, drag, 2, examples, steps, form)
    for r in range(5):
        alone = least_of_levels(errors[r], prior[r], floors[r], kappa[r], drag[r], 2, examples[r], steps[r], form)
        np.testing.assert_allclose(whole[r], alone, rtol=1e-14)
