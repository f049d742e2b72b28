"""Bounds by the prices of another problem's plan: below the optimum whatever plan it is, and close to it nearby."""

import pytest

import codesign_opt as co
from codesign_opt.planning.question import Study
from codesign_opt.programs.priced_bound import bound_by_prices
from tests.planning.test_declared_bounds import composed, kinds

PRICES, BUDGET, LEVELS = co.Prices(3.0, 1.0, 1000), 1e5, 30


def study(seed, exponent=1.3, budget=BUDGET):
    terms, constraints = (kinds if seed % 2 else composed)(seed // 2)
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=exponent), sampler=co.Heun())
    return Study(model, PRICES, budget, None, None, constraints, terms, LEVELS, 1e-6)


@pytest.mark.parametrize("seed", range(16))
def test_prices_of_any_plan_bound_the_optimum_from_below(seed):
    here = study(seed)
    problem, best = here.problem(0.04), here.solve(0.04)
    elsewhere = [here.solve(0.06), study(seed, budget=3 * BUDGET).solve(0.04), study(seed, exponent=2.0).solve(0.04)]
    for plan in (best, *elsewhere):
        assert bound_by_prices(problem, plan) <= best.error * (1 + 1e-9)


@pytest.mark.parametrize("apart", [1.02, 1.01])
def test_prices_of_a_plan_nearby_bound_as_closely_as_the_square_of_how_far_it_is(apart):
    here = study(1)  # a price of crowding that is no term of the library
    problem, best = here.problem(0.04), here.solve(0.04)
    short = best.error - bound_by_prices(problem, here.solve(0.04 * apart))
    assert 0 <= short < 0.02 * (apart - 1) ** 2 * best.error + 1e-6 * best.error


def test_a_row_without_a_price_leaves_nothing_proved():
    summed = study(19)  # whose constraint is a sum that must be met
    assert bound_by_prices(summed.problem(0.04), summed.solve(0.04)) > 0
    assert bound_by_prices(summed.problem(0.04), study(1).solve(0.04)) == -float("inf")
