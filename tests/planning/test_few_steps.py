"""Limits of few steps beside a budget that many more would serve better."""

from itertools import pairwise

import pytest

import codesign_opt as co
from tests.planning.test_hand_out import free_descent, random_question


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "limits"), [(1068, (3, 4, 8)), (74, (3, 5))])
def test_few_steps_of_noise_leave_no_more_than_fewer(seed, limits):
    model, asked = random_question(seed)  # of one band: many moves win three steps a third
    errors = [co.codesign(model, **asked, steps=k).handed_out["total"] for k in limits]
    assert all(more <= fewer * (1 + 1e-6) for fewer, more in pairwise(errors))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 6, 12])
@pytest.mark.parametrize("sampler", [co.Heun(), co.Ancestral(1.0)], ids=lambda s: s.name)
def test_few_steps_beside_a_budget_are_within_two_percent_of_free_descents(sampler, steps):
    # the budget would buy a hundred: links of few moved once, and the last one no farther than the next had got
    model = co.GaussianModel(co.Spectrum.power_law(32, exponent=1.3), sampler=sampler)
    plan = co.codesign(model, prices=co.Prices(3.0, 1.0, 100), budget=1e8, steps=steps)
    assert plan.sigmas is not None
    free = free_descent(model.wasserstein2, plan.sigmas, plan.stopping_sigma, 80.0, 20, steps)
    assert plan.handed_out["bias"] <= 1.02 * free


@pytest.mark.slow
def test_few_steps_are_searched_to_the_end_where_no_more_are_allowed():
    model, asked = random_question(194)  # the best of all, 93 steps, leaves a hundredth of what twelve leave
    errors = [co.codesign(model, **asked, steps=k).handed_out["total"] for k in (4, 5, 12, 16)]
    assert all(more <= fewer * (1 + 1e-6) for fewer, more in pairwise(errors))
    assert errors[2] < 0.5 * errors[1]  # four to eleven steps leave as much as each other


def test_of_one_band_several_starts_go_on_as_narrow_valleys_leave_little_of_both():
    model, asked = random_question(524)  # two steps leave no bias, four also a sixteenth of what the examples leave
    plan = co.codesign(model, **asked)
    assert plan.handed_out["total"] < 3e-8
