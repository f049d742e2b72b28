"""The basin of stopping points, against plans that stop there."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.results.stopping_basin import StoppingBasin

PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)


def test_every_stopping_point_of_the_basin_has_a_plan_that_near_the_best_and_those_beside_it_have_none():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
    options = {"levels": 40, "points": 6, "polish": False}
    plan = co.codesign(model, PRICES, 1e5, **options)
    basin = plan.stopping_basin(0.05)
    low, high = basin.ends
    assert low <= (plan.program_stopping_sigma or plan.stopping_sigma) <= high
    for sigma in (low, high):
        there = co.codesign(model, PRICES, 1e5, stopping_sigma=sigma, **options)
        assert there.error <= 1.05 * plan.error * (1 + 1e-6)
    tried = np.array([record["stopping_sigma"] for record in plan.curve])
    beside = [tried[tried < low].max(initial=0.0), tried[tried > high].min(initial=np.inf)]
    for sigma in (s for s in beside if 0 < s < np.inf):
        there = co.codesign(model, PRICES, 1e5, stopping_sigma=sigma, **options)
        assert there.error > 1.05 * plan.outer["lower_bound"]
    middle = float(np.sqrt(low * high))
    assert basin.best([(middle, 3.0), (high, 4.0), (100 * high, 1.0)]) == middle
    with pytest.raises(ValueError, match="no pair lies between"):
        basin.best([(100 * high, 1.0)])
    with pytest.raises(ValueError, match="no proved bound over stopping points"):
        co.codesign(model, PRICES, 1e5, stopping_sigma=0.02, **options).stopping_basin()


def test_a_basin_is_one_piece_around_the_best():
    errors = [1.01, 1.2, 1.02, 1.0, 1.04, 1.3, 1.01]
    curve = [{"stopping_sigma": float(i), "error": error} for i, error in enumerate(errors, 1)]
    assert StoppingBasin.of([*curve, {"stopping_sigma": 9.0, "error": None}], 1.0, 0.05).ends == (3.0, 5.0)
    assert StoppingBasin.of(curve, 1.0, 0.5).ends == (1.0, 7.0)
    assert StoppingBasin.of(curve[3:4], 1.0, 0.01).ends == (4.0, 4.0)
    with pytest.raises(ValueError, match=r"that near the best; the nearest is within 1"):
        StoppingBasin.of(curve, 0.5, 0.05)
