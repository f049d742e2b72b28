"""Other settings of a plan at once: against plans of their own, proofs, and a saved file."""

import os
from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning import what_if_settings

MODEL = co.GaussianModel(co.Spectrum.power_law(12, exponent=1.5), co.EDM(0.01, 20.0), co.Heun(), start="mean")
PRICES = co.Prices(3.0, 1.0, 1000)


@pytest.fixture(scope="module")
def plan():
    return co.codesign(MODEL, PRICES, 1e6, levels=80, polish=False, points=8)


def alone(budget, steps, images, levels=80):
    """The same setting by a plan of its own: its least error and the bound over all stopping points."""
    limit = None if np.isinf(steps) else int(steps)
    found = co.codesign(MODEL, PRICES.with_images(images), budget, steps=limit, levels=levels, polish=False, points=8)
    return found.error, found.outer["lower_bound"]


def test_answers_are_the_optima_of_plans_of_their_own(plan):
    found = co.what_if(plan, budget=[3e5, 4e6], steps=[9, None], images=[300, 1000])
    assert found.error.shape == (2, 2, 2)
    assert (found.lower_bound <= found.error * (1 + 1e-12)).all()
    np.testing.assert_allclose(found.lower_bound, found.error, rtol=1e-8)
    records = found.records()
    for i in range(len(records)) if os.environ.get("CODESIGN_OPT_FULL") else (0, 6):
        record = records[i]
        error, bound = alone(record["budget"], record["most_steps"], record["images"])
        assert bound * (1 - 1e-6) <= record["error"] <= 1.005 * error
        assert record["number_of_steps"] <= record["most_steps"] * (1 + 1e-9)


def test_its_own_setting_gives_the_plan_back(plan):
    found = co.what_if(plan)
    assert found.error.shape == (1, 1, 1)
    assert found.error[0, 0, 0] == pytest.approx(plan.error, rel=1e-3)
    assert found.base["error"] == found.error[0, 0, 0]
    assert found.ratio[0, 0, 0] == 1.0
    share = plan.costs["training"] / (plan.costs["training"] + plan.costs["sampling"])
    assert found.training_share[0, 0, 0] == pytest.approx(share, abs=0.03)


@pytest.mark.slow
def test_more_settings_than_are_swept_agree_with_each_alone(plan):
    budgets = np.geomspace(2e5, 5e6, 60)
    many = co.what_if(plan, budget=budgets, steps=[6, 20, 1000])
    for i, j in ((0, 0), (17, 1), (44, 2), (59, 0)):
        one = co.what_if(plan, budget=budgets[i], steps=[6, 20, 1000][j])
        assert many.error[i, j, 0] == pytest.approx(one.error[0, 0, 0], rel=2e-3)
    assert (np.diff(many.error, axis=0) < 0).all()  # more compute, less error
    assert (np.diff(many.error, axis=1) <= 2e-3 * many.error[:, 1:]).all()  # a wider limit never costs


def test_few_steps_are_left_to_no_solver_of_single_settings(plan, monkeypatch):
    """A start from afar misses small limits: their neighbours, which are reached, start them."""
    left, one = [], what_if_settings._one_by_one

    def counted(batch, found, row):
        left.append(batch.budgets[row].tolist())
        one(batch, found, row)

    monkeypatch.setattr(what_if_settings, "_one_by_one", counted)
    found = co.what_if(plan, budget=np.geomspace(2e5, 1e7, 12), steps=range(3, 15))
    assert left == []
    np.testing.assert_allclose(found.lower_bound, found.error, rtol=1e-8)


def test_a_saved_plan_answers_as_the_living_one(plan, tmp_path):
    loaded = co.Plan.load(plan.save(tmp_path / "plan.json"))
    asked = {"budget": [5e5, 2e6], "steps": [8, None]}
    np.testing.assert_array_equal(co.what_if(loaded, **asked).error, co.what_if(plan, **asked).error)


def test_a_sampler_alone_is_asked_for_other_steps():
    plan = co.codesign(MODEL, steps=12, levels=60, polish=False, points=6)
    found = co.what_if(plan, steps=[6, 12, 24])
    errors = found.error.ravel()
    assert (np.diff(errors) < 0).all()
    assert errors[1] == pytest.approx(plan.error, rel=3e-3)
    assert "budget" not in str(found).splitlines()[1]
    with pytest.raises(ValueError, match="sampler alone"):
        co.what_if(plan, budget=1e5)
    with pytest.raises(ValueError, match="give numbers of steps"):
        co.what_if(plan, steps=[None])


def test_a_given_stopping_point_stays():
    plan = co.codesign(MODEL, PRICES, 1e6, stopping_sigma=0.05, levels=60, polish=False)
    found = co.what_if(plan, budget=[1e5, 1e7])
    assert (found.stopping_sigma == 0.05).all()


def test_a_budget_below_the_last_evaluation_has_no_plan(plan):
    found = co.what_if(plan, budget=[500.0, 1e6])
    assert np.isnan(found.error[0, 0, 0])
    assert np.isfinite(found.error[1, 0, 0])
    assert "no plan" in str(found)


def test_what_cannot_be_asked_anew_is_refused_with_the_remedy(plan):
    limited = replace(plan, question={})  # as of a plan with constraints of one's own
    assert dict(limited.question) == {}
    with pytest.raises(ValueError, match=r"give model= and prices="):
        co.what_if(limited, budget=1e5)
    with pytest.raises(ValueError, match=r"what_if\.budget"):
        co.what_if(plan, budget=-1.0)
    with pytest.raises(ValueError, match=r"co\.Plan\.load"):
        co.what_if("plan.json")
    again = co.what_if(limited, budget=[5e5], model=MODEL, prices=PRICES)
    assert again.error[0, 0, 0] == pytest.approx(co.what_if(plan, budget=[5e5]).error[0, 0, 0], rel=2e-3)


def test_prices_that_are_functions_are_asked_for_once_more():
    prices = co.Prices(3.0, lambda s: 1.0 + (s < 1), 1000)
    options = {"stopping_sigma": 0.05, "levels": 40, "polish": False}
    plan = co.codesign(MODEL, prices, 1e6, **options)
    assert dict(plan.question) == {}
    found = co.what_if(plan, budget=[1e6], model=MODEL, prices=prices)
    assert found.error[0, 0, 0] == pytest.approx(plan.error, rel=5e-3)


def test_a_question_is_plain_json_and_a_model_comes_back_whole():
    record = MODEL.to_dict()
    again = co.GaussianModel.from_dict(record)
    grid = co.edm_grid(6, 0.02, 20.0)
    assert again.bias(grid) == MODEL.bias(grid)
    with pytest.raises(ValueError, match="coupling is missing"):
        co.GaussianModel.from_dict({name: part for name, part in record.items() if name != "coupling"})
