"""Shared parameters beside steps, discretisation, floors, user terms and in bounds, against semidefinite programs."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.certificate.lagrangian import InformationPart, LagrangianBound
from codesign_opt.problems.shared_parameters import information
from tests.helpers.shared_program import SharedProgram

FULL = bool(os.environ.get("CODESIGN_OPT_FULL"))


def random_designs(program, seed, count):
    """Feasible examples and steps of a program without rows but its budget."""
    rng = np.random.default_rng(seed)
    size = len(program.table.levels)
    for _ in range(count):
        both = rng.dirichlet(np.full(2 * size, 10 ** rng.uniform(-1, 1))) * program.budget
        yield both[:size] / program.example, np.maximum(both[size:] / program.evaluation, 1e-9)


SIZES = [(12, 30), (12, 60), *([(12, 200), (60, 60)] if FULL else [])]  # 60 parameters take the cone two minutes


@pytest.mark.parametrize(("parameters", "size"), SIZES)
def test_value_and_bound_equal_the_semidefinite_program_to_a_millionth(parameters, size):
    program = SharedProgram.random(parameters + size, parameters=parameters, size=size, plain=True)
    value, m, n = program.truth(rounds=4)
    plan = program.problem().solve()
    assert plan.error == pytest.approx(value, rel=1e-6)
    assert plan.error <= program.value(m, n) * (1 + 1e-6)
    assert plan.certificate.lower_bound <= value * (1 + 1e-6)
    assert plan.certificate.relative_gap < 1e-9
    assert [a["solver"] for a in plan.attempts] == ["Newton in shares, split"]


@pytest.mark.cases(2)
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.97, 2.0])
def test_a_limit_of_steps_beside_the_budget_has_its_own_price(alike, share):
    """Step prices all alike make the two limits on steps one and the same, whose multipliers are not unique apart."""
    program = SharedProgram.random(31, parameters=4, size=12, plain=True)
    if alike:
        program = replace(program, evaluation=np.full(12, 100.0))
    free = program.problem().solve().steps.sum()
    program = replace(program, count=share * free)
    plan = program.problem().solve()
    assert plan.error == pytest.approx(program.truth()[0], rel=1e-6)
    assert plan.certificate.relative_gap < 1e-8
    assert [a["solver"] for a in plan.attempts] == ["Newton in shares, split"]
    for name, field in (("Compute", "budget"), ("Steps", "count")):
        values = [
            replace(program, **{field: getattr(program, field) * (1 + e)}).problem().solve().error
            for e in (-1e-4, 1e-4)
        ]
        slope = (values[1] - values[0]) / (2e-4 * getattr(program, field))
        assert plan.shadow_prices[name] == pytest.approx(slope, rel=1e-3, abs=1e-9 * plan.error / free)


@pytest.mark.cases(1)
@pytest.mark.parametrize("seed", range(0, 16, 1 if FULL else 5))
def test_generated_programs_equal_the_semidefinite_program(seed):
    """Spent examples, floors, caps, shares, counts of steps, steps given, a prior and a user's term, at random."""
    program = SharedProgram.random(seed)
    value, _, _ = program.truth()
    certificate = program.problem().solve().certificate
    assert certificate.value == pytest.approx(value, rel=2e-6)
    assert certificate.lower_bound <= value * (1 + 1e-6)


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1 runs the large matrix")
def test_of_three_hundred_generated_programs_no_bound_is_wrong_and_few_stay_open():
    opened = 0
    for seed in range(100, 400):
        program = SharedProgram.random(seed)
        found = program.truth()
        try:
            plan = program.problem().solve()
        except co.NotCertifiedError as error:
            opened, plan = opened + 1, error.plan
        except co.InfeasibleError:
            assert found is None, seed
            continue
        if found is not None:
            # by the values of both designs: the semidefinite program leaves out directions below 1e-14 of the largest
            own, theirs = program.value(plan.new_examples, plan.steps), program.value(*found[1:])
            certificate = plan.certificate
            assert certificate.lower_bound <= min(theirs, own) * (1 + 1e-6)
            if certificate.optimal:
                assert certificate.value <= theirs * (1 + 2e-6)
                assert certificate.value == pytest.approx(own, rel=1e-7)
    assert opened <= 9


@pytest.mark.parametrize("seed", [2, 3, 5, 7, 12] if FULL else [2, 5])
def test_the_least_compute_for_an_error_equals_the_semidefinite_program(seed):
    program = SharedProgram.random(seed)
    limit = 1.3 * program.truth()[0]
    plan = program.cheapest(limit).solve()
    assert plan.certificate.optimal
    assert plan.certificate.value == pytest.approx(program.truth(cost_at=limit)[0], rel=3e-6)
    assert program.value(plan.new_examples, plan.steps) <= limit * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(6 if FULL else 2))
def test_a_bound_on_the_error_is_the_budget_turned_round(seed):
    program = SharedProgram.random(seed + 40, parameters=4, size=15, plain=True)
    plan = program.problem().solve()
    back = program.cheapest(plan.error).solve()
    assert back.certificate.value == pytest.approx(program.budget, rel=1e-5)
    # the price of the error is the inverse of the price of the budget
    (price,) = (v for k, v in back.shadow_prices.items() if "InformationError" in k)
    assert price * plan.shadow_prices["Compute"] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("levels", [40, 60] if FULL else [40])
def test_no_feasible_design_is_better_than_the_bound_of_free_steps(levels):
    """Shared parameters and a user's price of steps, which a bound over examples alone would not see."""
    table = co.GaussianModel(
        co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun()
    ).coefficients(levels=levels)
    rng = np.random.default_rng(0)
    features, response = rng.normal(size=(levels, 2, 5)), rng.normal(size=(5, 2))
    term = co.InformationError(features, response, sigma=table.sigma)

    class Slow(co.Term):
        def expression(self, design):
            return 1e-5 * cp.sum(cp.inv_pos(design.steps))

    prices = co.Prices(3.0, 1.0, 10_000)
    plan = co.Problem(term + 0 * co.Discretization(table) + Slow(), [co.Compute(prices) <= 1e6]).solve()
    assert plan.certificate.optimal
    own = SharedProgram(
        replace(table, response=np.zeros((1, levels))), features, response, np.ones(levels), None,
        np.full(levels, 3.0), np.full(levels, 1e4 * table.evaluations_per_step),
        1e6 - prices.images * table.final_steps, own=1e-5,
    )  # fmt: skip
    assert plan.error == pytest.approx(own.truth()[0], rel=1e-6)
    bound = plan.certificate.lower_bound * (1 - 1e-9)
    assert all(own.value(m, n) >= bound for m, n in random_designs(own, levels, 200))


def test_shared_gains_with_a_sampler_are_certified():
    """The declared problem `shared_parameters` with steps to plan."""
    spectrum = co.Spectrum.power_law(64, exponent=1.5).in_bands(8)
    table = co.GaussianModel(spectrum).coefficients(0.002, levels=60)
    features, response, variance = information(spectrum, table.levels, np.geomspace(0.002, 80, 12))
    table = replace(table, score=np.zeros(60), final_score=0.0)
    term = co.InformationError(features, response, sigma=table.sigma, residual_variance=variance)
    budget = [co.Compute(co.Prices(3.0, 1.0, 1000)) <= 1e5]
    plan = co.Problem(term + co.Discretization(table), budget).solve()
    assert plan.certificate.relative_gap < 1e-9
    own = SharedProgram(
        table, features, response, variance, None, np.full(60, 3.0), np.full(60, 2e3), 1e5 - 1e3
    )  # fmt: skip
    assert plan.error == pytest.approx(own.truth()[0], rel=1e-6)
    declared = co.Problem(term + co.Discretization(table), budget).solve(method="declared")
    assert declared.error == pytest.approx(plan.error, rel=1e-6)


def test_information_and_score_errors_of_one_training_are_one_program():
    """A sum of both, where each alone would train elsewhere."""
    program = SharedProgram.random(7, parameters=4, size=15, plain=True)
    table = replace(program.table, score=np.ones(15))
    plan = co.Problem(
        program.information + 0.1 * co.ScoreError(table) + co.Discretization(program.table),
        [co.Compute(program.prices) <= program.budget],
    ).solve()
    assert plan.certificate.optimal
    # no design near the optimum or far from it is better
    rng = np.random.default_rng(1)
    length = table.coupling.factor
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(40):
            m, n = (x * np.exp(scale * rng.normal(size=15)) for x in (plan.new_examples, plan.steps))
            shrink = program.budget / (program.example @ m + program.evaluation @ n)
            m, n = m * shrink, n * shrink
            score = 0.1 * float((table.example_error / m * length(table.kappa / n)).sum())
            assert program.value(m, n) + score >= plan.certificate.lower_bound * (1 - 1e-9)


@pytest.mark.cases(3)
@pytest.mark.parametrize("seed", range(10))
def test_the_lagrangian_of_any_trial_and_any_price_is_below_every_feasible_value(seed):
    """Trials that have nothing to do with the optimum, prices at random, several errors at once."""
    rng = np.random.default_rng(seed)
    program = SharedProgram.random(seed, parameters=3, size=6, plain=True)
    roots = program.features / np.sqrt(program.variance)[:, None, None]
    spent = rng.uniform(0, 1, 6) * program.budget / program.example / 6
    bound = LagrangianBound(6, spent)
    for _ in range(2):
        tried = rng.normal(size=(3, *program.response.shape)) * 10 ** rng.uniform(-4, 4, (3, 1, 1))
        gains = (np.einsum("lkp,ypr->ylkr", roots, tried) ** 2).sum(axis=(2, 3))
        prior = np.zeros(3) if program.prior is None else np.einsum("ypr,pq,yqr->y", tried, program.prior, tried)
        bound.information.append(InformationPart(np.einsum("pr,ypr->y", program.response, tried), prior, gains))
    rows = np.abs(program.table.response) * program.table.log_width ** (program.table.order + 1)
    p = np.abs(rng.normal(size=len(rows)))
    bound.powers.append((float(program.table.order), p @ rows))
    bound.constant -= float(p @ p) / 4
    price = 10 ** rng.uniform(-9, -3)
    bound.add_linear(-price * program.budget, price * program.example, price * program.evaluation)
    bound.examples_box = (np.zeros(6), program.budget / program.example)
    bound.steps_box = (np.zeros(6), program.budget / program.evaluation)
    lower, own = bound.value(), replace(program, spent=spent)
    plain = replace(program, table=replace(program.table, response=np.zeros((1, 6))), spent=spent)
    for m, n in random_designs(program, seed, 300):
        assert lower <= (own.value(m, n) + plain.value(m, n)) * (1 + 1e-9)


def test_signed_gram_forms_may_be_bounded_too():
    rng = np.random.default_rng(3)
    levels = co.Levels.log_uniform(0.01, 10.0, 8)
    table = co.Coefficients(
        levels, np.zeros(8), np.zeros(8), rng.normal(size=(20, 8)), order=2, terminal="rescale", measured=True
    )
    term = co.GramDiscretization(table)
    error = co.Problem(term, [co.Steps() <= 12]).solve().error
    assert co.Problem(co.Steps(), [term <= error]).solve().certificate.value == pytest.approx(12, rel=1e-6)


@pytest.mark.cases(2)
@pytest.mark.parametrize("given", [True, False], ids=["steps given", "steps planned"])
@pytest.mark.parametrize("seed", range(8 if FULL else 3))
def test_untrained_priors_of_levels_beside_shared_parameters_equal_the_semidefinite_program(seed, given):
    """sum A_l M / (m_l + m0_l) + <G G', (M0 + sum m_l F_l)^-1>, with the last evaluation's prior where it ends so."""
    rng, size, parameters = np.random.default_rng(seed), 6, 3
    levels, last = co.Levels.log_uniform(0.05, 10.0, size), seed % 2
    score = 10 ** rng.uniform(0, 2, size)
    untrained = score * 10 ** rng.uniform(-3, -1, size)
    features, response = rng.normal(size=(size, 2, parameters)), rng.normal(size=(parameters, 2))
    known = np.diag(10 ** rng.uniform(-2, 0, parameters)) if seed % 4 < 2 else np.zeros((parameters, parameters))
    rows = rng.normal(size=(0 if given else 2, size))
    table = co.Coefficients(
        levels, score=score, floor=np.zeros(size), response=rows, coupling=co.Local(1.0), untrained=untrained,
        terminal="denoise" if last else "rescale", final_score=last * score[0] / 3,
        final_untrained=untrained[0] / 3 if last else None,
    )  # fmt: skip
    shared = co.InformationError(features, response, sigma=levels.sigma, prior=known if known.any() else None)
    prices, budget = co.Prices(1.0, 1.0, 1), float(10 ** rng.uniform(1, 3))
    steps, spent = (rng.uniform(0.5, 3, size) if given else None), rng.uniform(0, budget / 10, size) * (seed % 3 == 0)
    total = co.ScoreError(table) + shared + co.Discretization(table)
    part = {"part": "training"} if given else {}
    plan = co.Problem(total, [co.Compute(prices, **part) <= budget], steps=steps, spent=spent).solve()

    bought = cp.Variable(size, nonneg=True)
    examples, n = spent + bought, steps if given else cp.Variable(size)
    served = examples + table.prior_examples
    assert table.prior_examples.min() > 0
    if given:
        error = (table.example_error * np.maximum(1, table.kappa / steps)) @ cp.inv_pos(served)
    else:
        stretched = cp.exp(np.log(table.kappa) - cp.log(served) - cp.log(n))
        error = table.example_error @ cp.maximum(cp.inv_pos(served), stretched)
        error += cp.sum_squares(table.step_response @ cp.power(n, -table.order))
    if last:
        error += table.final_score * cp.inv_pos(table.final_window @ examples + table.final_prior)
    matrix = known + sum(examples[k] * (features[k].T @ features[k]) for k in range(size))
    error += sum(cp.matrix_frac(column, matrix) for column in response.T)
    paid = cp.sum(bought) + (0 if given else cp.sum(n) + last)
    truth = cp.Problem(cp.Minimize(error), [paid <= budget]).solve(solver="CLARABEL")
    assert plan.error == pytest.approx(truth, rel=5e-6)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-6)
    assert plan.certificate.optimal
