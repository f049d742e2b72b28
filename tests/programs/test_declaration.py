"""What a program says before it is solved: one sampler and one coupling for all its terms, read once."""

from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co

PRICES = co.Prices(3.0, 1.0, 1000)
SPECTRUM = co.Spectrum.power_law(16, exponent=1.5)
HEUN, EULER = (co.GaussianModel(SPECTRUM, sampler=s).coefficients(0.01, 60) for s in (co.Heun(), co.Euler()))
OTHERS = {
    "order": EULER,
    "evaluations_per_step": replace(HEUN, evaluations_per_step=4),
    "terminal": replace(HEUN, terminal="rescale"),
    "coupling": replace(HEUN, coupling=co.PerStep(2.7)),
    "stopping points": co.GaussianModel(SPECTRUM).coefficients(0.02, 60),
}
BUDGET = [co.Compute(PRICES) <= 1e5]


@pytest.mark.parametrize("field", OTHERS)
@pytest.mark.parametrize("reverse", [False, True])
def test_terms_on_tables_of_two_samplers_or_couplings_are_refused_by_name_in_either_order(field, reverse):
    terms = [co.ScoreError(HEUN), co.Discretization(OTHERS[field])]
    with pytest.raises(ValueError, match=field) as refused:
        co.Problem(sum(reversed(terms) if reverse else terms), BUDGET)
    assert "ScoreError" in str(refused.value)
    assert "Discretization" in str(refused.value)


def test_a_refusal_states_both_values():
    with pytest.raises(ValueError, match=r"ScoreError and Discretization .* order, 2 and 1.*replace\(table, score="):
        co.Problem(co.ScoreError(HEUN) + co.Discretization(EULER), BUDGET)
    with pytest.raises(ValueError, match=r"stopping points 0\.01 and 0\.02"):
        co.Problem(co.ScoreError(HEUN) + co.Discretization(OTHERS["stopping points"]), BUDGET)


def test_a_bounded_term_on_another_samplers_table_is_refused_too():
    with pytest.raises(ValueError, match="order"):
        co.Problem(co.ScoreError(HEUN), [*BUDGET, co.Discretization(EULER) <= 1.0])
    with pytest.raises(ValueError, match="terminal"):
        co.Problem(co.Discretization(HEUN), [*BUDGET, co.ScoreError(OTHERS["terminal"]) <= 1.0])


def test_several_classes_on_one_sampler_are_one_program():
    """Tables that differ in their errors alone: the sum is that of one table with the summed error."""
    names = ("score", "final_score", "untrained", "final_untrained")
    twice, thrice = ({name: times * getattr(HEUN, name) for name in names} for times in (2, 3))
    other = replace(HEUN, truncation=0.5, **twice)
    both = co.Problem(co.ScoreError(HEUN) + co.ScoreError(other) + co.Discretization(HEUN), BUDGET).solve()
    once = replace(HEUN, **thrice)
    summed = co.Problem(co.ScoreError(once) + co.Discretization(HEUN), BUDGET).solve()
    assert both.error == pytest.approx(summed.error + HEUN.final_floor, rel=1e-6)


def test_couplings_are_compared_by_what_they_do():
    stated = replace(HEUN, coupling=co.Local(lambda sigma: 2.7 + 0.0 * sigma))
    co.Problem(co.ScoreError(stated) + co.Discretization(HEUN), BUDGET)
    for other in (co.Local(2.7, form="p4"), co.Local(2.6), co.Transfer(0.6), co.PerLevel([0.001, 1.0, 90.0])):
        with pytest.raises(ValueError, match="coupling"):
            co.Problem(co.ScoreError(replace(HEUN, coupling=other)) + co.Discretization(HEUN), BUDGET)


def test_a_coherent_score_has_no_coupling_to_differ_in():
    table = replace(HEUN, coupling=co.Transfer(0.6))
    coherent = co.CoherentScore(HEUN, np.diag(HEUN.score))
    for terms in (co.ScoreError(table) + coherent, coherent + co.ScoreError(table)):
        assert co.Problem(terms, BUDGET, steps=np.ones(len(HEUN.levels))).table is table


def test_a_price_that_is_a_function_is_asked_when_the_problem_is_made_and_for_the_plan():
    asked = []

    def example(sigma):
        asked.append(sigma.size)
        return 3.0 + 0.0 * sigma

    prices = co.Prices(example, 1.0, 1000)
    problem = co.Problem(co.ScoreError(HEUN) + co.Discretization(HEUN), [co.Compute(prices) <= 1e5])
    assert len(asked) == 1
    plan = problem.solve()
    assert plan.attempts[0]["solver"] == "dual Newton"
    assert len(asked) <= 4  # the Lagrangian, what the budget was used for, the plan's table of prices


def test_what_is_decided_follows_from_what_is_given_and_needed():
    size = len(HEUN.levels)
    terms = co.ScoreError(HEUN) + co.Discretization(HEUN)
    free = co.Problem(terms, BUDGET).declaration
    assert (free.decides_examples, free.decides_steps) == (True, True)
    given = co.Problem(terms, BUDGET, examples=np.ones(size)).declaration
    assert (given.decides_examples, given.decides_steps) == (False, True)
    sampler = co.Problem(co.Discretization(HEUN), [co.Steps() <= 20.0]).declaration
    assert (sampler.decides_examples, sampler.decides_steps, sampler.uses_examples) == (False, True, False)


def test_budgets_and_level_bounds_are_read_into_numbers():
    steps = co.named("steps", co.Steps() <= 20.0)
    constraints = [*BUDGET, steps, co.Floor(2.0, "examples"), co.Cap(9.0, "examples"), co.Share(0.5, 0.1, 1.0)]
    program = co.Problem(co.ScoreError(HEUN) + co.Discretization(HEUN), constraints).declaration
    assert list(program.budgets) == ["Compute", "steps"]
    assert program.budgets["steps"].room == 19.0  # the last step to zero is one of the twenty
    assert program.budgets["Compute"].room == 1e5 - 1000
    assert np.all(program.budgets["Compute"].step == 2 * 1000)
    assert program.boxes == {"Floor(examples)", "Cap(examples)"}
    assert np.all(program.box.examples_low == 2.0)
    assert np.all(program.box.examples_high == 9.0)
    assert not program.only_budgets_and_boxes
