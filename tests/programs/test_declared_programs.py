"""The declared programs P1 to P3 against water-filling, geometric programs, SLSQP and closed forms."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

import codesign_opt as co
from codesign_opt.basics.errors import NotCertifiedError
from codesign_opt.solvers.waterfill.fill import square_root_rule, waterfill
from tests.helpers.declared import COUPLINGS, named_budget
from tests.helpers.programs import Joint, boxed_training

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

pytestmark = pytest.mark.usefixtures("declared_programs_only")


COUPLING_NAMES = ["max", "p4", "per_step"]


# ------------------------------------------------------------------ P1, sampler given


@pytest.mark.cases(9)
@pytest.mark.parametrize("decades", [2, 6, 10])
@pytest.mark.parametrize(
    ("size", "budget_scale", "price_scale"),
    [
        (size, *scales)
        for size in (10, 100, 1000)
        for scales in ((1, 1), (1e9, 1), (1e-9, 1), (1, 1e9), (1, 1e-9))
        if FULL or size < 1000 or scales == (1, 1)
    ],
)
def test_training_program_with_boxes_equals_exact_waterfilling(size, decades, budget_scale, price_scale):
    seed = int(decades + np.log10(size) + np.log10(budget_scale * price_scale**2)) % 7
    spent = (size // 10 + decades) % 4 == 0
    table, steps, s, c, budget, low, high, e = boxed_training(
        size, decades, budget_scale, price_scale, seed, spent=spent
    )
    exact = waterfill(s, c, budget, low=low, high=high, spent=e)
    constraints = [named_budget(co.Prices(c, 1.0, 1), budget, "training")]
    constraints += [co.Floor(low, "examples"), co.Cap(high, "examples")]
    plan = co.Problem(co.ScoreError(table), constraints, steps=steps, spent=e).solve()
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(exact.value, rel=1e-6)
    assert plan.error >= exact.value * (1 - 1e-9)
    assert c @ plan.new_examples <= budget * (1 + 1e-7)
    assert -plan.shadow_prices["budget"] == pytest.approx(exact.multiplier, rel=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize("settings", [{"max_iter": 3}, {"max_iter": 5}, {"tol_gap_rel": 1e-3, "tol_gap_abs": 1e-3}])
def test_a_solver_that_stops_early_is_never_called_optimal_on_a_wrong_answer(settings):
    for seed in range(4):
        table, steps, s, c, budget, low, high, e = boxed_training(40, 6, 1, 1, seed)
        exact = waterfill(s, c, budget, low=low, high=high, spent=e)
        constraints = [named_budget(co.Prices(c, 1.0, 1), budget, "training")]
        constraints += [co.Floor(low, "examples"), co.Cap(high, "examples")]
        problem = co.Problem(co.ScoreError(table), constraints, steps=steps)
        try:
            plan = problem.solve(**settings)
        except NotCertifiedError:
            continue
        assert plan.error == pytest.approx(exact.value, rel=2e-6)


@pytest.mark.parametrize("dominance", [1e3, 1e6])
@pytest.mark.parametrize("where", ["floor", "final_floor"])
def test_an_irreducible_floor_does_not_hide_a_wrong_split_of_the_examples(where, dominance):
    """The gap is relative to what the design can change: 1e-6 of the whole would hide all of it."""
    table, steps, s, c, budget, *_ = boxed_training(30, 4, 1, 1, 3)
    exact = waterfill(s, c, budget)
    size = dominance * exact.value
    change = {"floor": np.full(30, size)} if where == "floor" else {"final_floor": size, "terminal": "denoise"}
    plan = co.Problem(
        co.ScoreError(replace(table, **change)),
        [named_budget(co.Prices(c, 1.0, 1), budget, "training")],
        steps=steps,
    ).solve()
    assert plan.breakdown["score"] == pytest.approx(exact.value, rel=1e-5)
    assert plan.elasticities["budget"] == pytest.approx(-1.0, rel=1e-4)


def test_marginal_gain_is_flat_where_training_is_active():
    table, steps, s, c, budget, low, high, _ = boxed_training(60, 6, 1, 1, 4)
    constraints = [named_budget(co.Prices(c, 1.0, 1), budget, "training")]
    constraints += [co.Floor(low, "examples"), co.Cap(high, "examples")]
    plan = co.Problem(co.ScoreError(table), constraints, steps=steps).solve()
    free = (plan.examples > low * (1 + 1e-3)) & (plan.examples < high * (1 - 1e-3))
    gain = plan.tables["marginal_gain"]
    assert free.sum() > 10
    np.testing.assert_allclose(gain[free], waterfill(s, c, budget, low=low, high=high).multiplier, rtol=1e-4)
    assert np.all(gain[plan.examples <= low * (1 + 1e-6)] <= -plan.shadow_prices["budget"] * (1 + 1e-4))


# ------------------------------------------------------------------ P3, joint


@pytest.mark.cases(2)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("coupling", COUPLINGS, ids=COUPLING_NAMES)
def test_joint_program_equals_geometric_program_and_slsqp(coupling, order):
    for seed, size in ((0, 5), (1, 8)):
        truth = Joint.random(size, seed, order=order, coupling=coupling)
        plan = truth.problem().solve()
        assert plan.error == pytest.approx(truth.value(plan.examples, plan.steps), rel=1e-12)
        assert truth.cost(plan.examples, plan.steps) <= truth.budget * (1 + 1e-7)
        geometric, multiplier = truth.geometric()
        assert plan.error == pytest.approx(geometric, rel=1e-6)
        assert -plan.shadow_prices["budget"] == pytest.approx(multiplier, rel=1e-4)
        nonlinear = truth.nonlinear(seed)
        assert plan.error == pytest.approx(nonlinear, rel=1e-5)
        assert plan.certificate.lower_bound <= nonlinear * (1 + 1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_joint_program_does_not_depend_on_the_unit_of_money(scale):
    one, other = (Joint.random(40, 7, decades=6.0, scale=k).problem().solve() for k in (1.0, scale))
    assert other.error == pytest.approx(one.error, rel=2e-6)
    _, multiplier = Joint.random(40, 7, decades=6.0).geometric()
    for plan, unit in ((one, 1.0), (other, scale)):
        assert -plan.shadow_prices["budget"] * unit == pytest.approx(multiplier, rel=1e-3)


def test_certified_bound_is_below_every_random_feasible_design():
    truth = Joint.random(12, 3)
    plan = truth.problem().solve()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        share = rng.dirichlet(np.full(24, rng.choice([0.3, 1.0, 5.0])))
        near = rng.random()
        m = (1 - near) * share[:12] * truth.budget / truth.example + near * plan.examples
        n = (1 - near) * share[12:] * truth.budget / truth.evaluation + near * plan.steps
        assert truth.value(np.maximum(m, 1e-12), np.maximum(n, 1e-12)) >= plan.certificate.lower_bound


@pytest.mark.parametrize("coupling", COUPLINGS, ids=COUPLING_NAMES)
def test_budget_multiplier_satisfies_the_identity_without_active_caps(coupling):
    """eta Omega = E_A + sum theta (E_A + E_tau) + 2 q E_d, theta = x M'(x) / M (section 7)."""
    for order in (1, 2):
        truth = Joint.random(25, 11, order=order, coupling=coupling)
        plan = truth.problem().solve()
        score, floor, steps = truth.parts(plan.examples, plan.steps)
        x = truth.width / plan.steps / truth.length
        spent = -plan.shadow_prices["budget"] * truth.budget
        rest = spent - score.sum() - 2 * order * steps
        if isinstance(coupling, co.PerStep):
            assert rest == pytest.approx(score.sum() + floor.sum(), rel=1e-5, abs=1e-5 * spent)
        elif coupling.form == "p4":
            theta = x**4 / (1 + x**4)
            assert rest == pytest.approx(theta @ (score + floor), abs=1e-5 * spent)
        else:
            assert ((score + floor)[x > 1.001]).sum() - 1e-5 * spent <= rest
            assert rest <= ((score + floor)[x > 0.999]).sum() + 1e-5 * spent
        share = float(truth.example @ plan.examples) / truth.budget
        assert share == pytest.approx(score.sum() / spent, rel=1e-4)


def test_at_the_kink_many_steps_equal_the_correlation_length():
    truth = Joint.random(25, 11)
    plan = truth.problem().solve()
    x = truth.width / plan.steps / truth.length
    assert (np.abs(x - 1) < 1e-4).sum() >= 2
    assert (x > 1.01).sum() >= 3
    assert (x < 0.99).sum() >= 3


def given_examples(truth, m, share):
    """Best steps for given examples within a price: P2."""
    terms = co.ScoreError(truth.table) + co.Discretization(truth.table)
    return co.Problem(terms, [co.Compute(truth.prices, part="sampling") <= share], examples=m).solve().steps


def given_steps(truth, n, room):
    """Best examples for given steps within a price: P1, in closed form."""
    s = truth.width**2 * truth.a * truth.factor(truth.width / n / truth.length)
    return square_root_rule(s, truth.example, room).examples


def alternate(truth, rng, *, resplit, rounds=4):
    """The paper's alternation from a random start: its error after some rounds."""
    size = len(truth.levels)
    share = rng.dirichlet(np.ones(size), 2)
    split = rng.uniform(0.1, 0.9)
    m = split * share[0] * truth.budget / truth.example
    n = (1 - split) * share[1] * truth.budget / truth.evaluation
    for _ in range(rounds):
        m = given_steps(truth, n, truth.budget - float(truth.evaluation @ n))
        n = given_examples(truth, m, truth.budget - float(truth.example @ m))
        if resplit:
            training, sampling = float(truth.example @ m), float(truth.evaluation @ n)
            best = minimize_scalar(
                lambda x, m=m, n=n, a=truth.budget / training, b=truth.budget / sampling: truth.value(
                    x * a * m, (1 - x) * b * n
                ),
                bounds=(1e-3, 1 - 1e-3), method="bounded", options={"xatol": 1e-10},
            ).x  # fmt: skip
            m, n = best * truth.budget / training * m, (1 - best) * truth.budget / sampling * n
    return truth.value(m, n)


@pytest.mark.parametrize("resplit", [False, True], ids=["fixed split", "split re-optimised"])
def test_joint_design_is_never_worse_than_the_papers_alternation(resplit):
    truth = Joint.random(12, 5)
    joint = truth.problem().solve().error
    rng = np.random.default_rng(42)
    gains = np.array([alternate(truth, rng, resplit=resplit) / joint - 1 for _ in range(8 if FULL else 4)])
    print(f"alternation over joint - 1: min {gains.min():.2e}, median {np.median(gains):.2e}, max {gains.max():.2e}")
    assert np.all(gains >= -2e-6)
    assert resplit or gains.max() > 0.01


# ------------------------------------------------------------------ P2, training given


def sampler_only(truth, term, table):
    prices = co.Prices(1.0, truth.evaluation, 1)
    m = truth.budget / truth.example / len(truth.levels)
    budget = named_budget(prices, truth.budget, "sampling")
    return co.Problem(term, [budget], examples=m if np.any(table.score > 0) else None).solve(), m


@pytest.mark.parametrize("order", [1, 2])
def test_separable_discretisation_alone_gives_steps_as_the_power_of_price_over_weight(order):
    """gamma ~ (k/d)^(1/(p+1)), p = 2q for the separable form and p = q for one band of the sharp one."""
    truth = Joint.random(30, 2, order=order, bands=1)
    table = replace(truth.table, score=np.zeros(30), floor=np.zeros(30))
    reference = np.random.default_rng(0).uniform(1, 3, 30)
    separable = co.SeparableDiscretization(table, reference)
    d_separable = separable.weights / truth.width ** (2 * order + 1)
    for term, p, d in (
        (separable, 2 * order, d_separable),
        (co.Discretization(table), order, np.abs(truth.rows[0])),
    ):
        plan, _ = sampler_only(truth, term, table)
        shape = truth.width / plan.steps * (d / truth.evaluation) ** (1 / (p + 1))
        np.testing.assert_allclose(shape / shape.mean(), 1.0, atol=1e-4)


def test_score_error_alone_gives_steps_as_the_root_of_price_over_error():
    """gamma ~ sqrt(k / (a / (rho l) + tau b)) where every step is longer than the correlation length."""
    truth = Joint.random(30, 2, coupling=co.PerStep(1.2))
    table = replace(truth.table, response=np.zeros((0, 30)))
    plan, m = sampler_only(truth, co.ScoreError(table), table)
    density = truth.a / (m / truth.width * truth.length) + truth.tau_b
    shape = truth.width / plan.steps * np.sqrt(density / truth.evaluation)
    np.testing.assert_allclose(shape / shape.mean(), 1.0, atol=1e-4)


def test_a_tiny_other_error_leaves_both_limits_in_place():
    truth = Joint.random(20, 4, coupling=co.PerStep(1.2), bands=1)
    for weak, p in ((co.Discretization, None), (co.ScoreError, 1)):
        scale = 1e-7
        if weak is co.Discretization:
            table = replace(truth.table, response=truth.table.response * np.sqrt(scale))
        else:
            table = replace(truth.table, score=truth.table.score * scale, floor=truth.table.floor * scale)
        plan, m = sampler_only(truth, co.ScoreError(table) + co.Discretization(table), table)
        d = truth.a / (m / truth.width * truth.length) + truth.tau_b if p is None else np.abs(truth.rows[0])
        shape = truth.width / plan.steps * (d / truth.evaluation) ** 0.5
        np.testing.assert_allclose(shape / shape.mean(), 1.0, atol=1e-3)


def test_a_price_of_examples_is_not_charged_where_no_term_needs_examples():
    truth = Joint.random(10, 1, bands=1)
    table = replace(truth.table, score=np.zeros(10), floor=np.zeros(10))
    prices = co.Prices(1e6 * truth.example, truth.evaluation, 1)
    plan = co.Problem(co.Discretization(table), [named_budget(prices, truth.budget)]).solve()
    assert truth.evaluation @ plan.steps == pytest.approx(truth.budget, rel=1e-6)
    assert plan.costs.get("training", 0.0) == 0


# ------------------------------------------------------------------ pooled blocks


def test_per_level_blocks_equal_a_direct_nonlinear_solution():
    """Every example of a block serves all of it: E = sum_l (A_l len / (delta_l M_block) + F_l) max(1, kappa_l/n_l)."""
    rng = np.random.default_rng(6)
    levels = co.Levels.log_uniform(0.02, 20.0, 8)
    delta, sigma = levels.log_width, levels.sigma
    edges = np.array([0.02, sigma[1] * sigma[2], sigma[5] * sigma[6], 400.0]) ** [1, 0.5, 0.5, 0.5]
    block = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    length = np.bincount(block, weights=delta)[block]
    score, floor = 10 ** rng.uniform(-1, 1, 8), 1e-3 * 10 ** rng.uniform(-1, 1, 8)
    response = 0.03 * 10 ** rng.uniform(-1, 1, (2, 8))
    table = co.Coefficients(
        levels, score=score, floor=floor, response=response, coupling=co.PerLevel(edges), terminal="rescale"
    )
    c, k, budget = 10 ** rng.uniform(-1, 0, 8), 400 * 10 ** rng.uniform(-1, 0, 8), 3e3
    plan = co.Problem(
        co.ScoreError(table) + co.Discretization(table), [named_budget(co.Prices(c, k, 1), budget)]
    ).solve()
    cheapest = np.array([c[block == b].min() for b in range(3)])
    big_a, big_f, big_r = delta**2 * score, delta * length * floor, delta**2 * response

    def value(big_m, n):
        served = (delta / length) * big_m[block]
        factor = np.maximum(1.0, delta / length / n)
        return ((big_a / served + big_f) * factor).sum() + ((big_r @ (1 / n)) ** 2).sum()

    totals = np.bincount(block, weights=plan.examples)
    assert plan.error == pytest.approx(value(totals, plan.steps), rel=1e-10)

    def objective(z):
        t, big_m, n = np.exp(z[11:]), np.exp(z[:3]), np.exp(z[3:11])
        served = (delta / length) * big_m[block]
        return np.log(((big_a / served + big_f) * t).sum() + ((big_r @ (1 / n)) ** 2).sum())

    constraints = [
        {
            "type": "ineq",
            "fun": lambda z: np.log(budget) - np.log(cheapest @ np.exp(z[:3]) + k @ np.exp(z[3:11])),
        },
        {"type": "ineq", "fun": lambda z: z[11:] + z[3:11] - np.log(delta / length)},
    ]
    best = np.inf
    for seed in range(3):
        share = np.random.default_rng(seed).dirichlet(np.ones(11))
        z = np.log(np.concatenate([share[:3] / cheapest, share[3:] / k]) * budget)
        z = np.concatenate([z, np.maximum(np.log(delta / length) - z[3:], 0)])
        found = minimize(
            objective, z, bounds=[(-30, 30)] * 11 + [(0, 30)] * 8, constraints=constraints, method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 2000},
        )  # fmt: skip
        best = min(best, float(np.exp(found.fun)))
    assert plan.error == pytest.approx(best, rel=1e-5)
    assert plan.certificate.lower_bound <= best * (1 + 1e-8)


def test_spent_examples_in_the_joint_program_are_free_and_kept():
    truth = Joint.random(20, 9)
    plain = truth.problem().solve()
    e = plain.examples * np.random.default_rng(0).uniform(0, 2, 20)
    plan = truth.problem(spent=e).solve()
    assert np.all(plan.examples >= e * (1 - 1e-12))
    assert plan.error < plain.error
    exact = waterfill(  # the examples are optimal for the plan's own steps
        truth.width**2 * truth.a * truth.factor(truth.width / plan.steps / truth.length),
        truth.example, truth.budget - truth.evaluation @ plan.steps, spent=e,
    )  # fmt: skip
    score, _, _ = truth.parts(plan.examples, plan.steps)
    assert score.sum() == pytest.approx(exact.value, rel=1e-5)


# ------------------------------------------------------------------ what the declaration must survive


@pytest.mark.parametrize("floor", [1e2, 1e4])
def test_joint_program_under_a_dominating_floor_still_splits_the_examples_right(floor):
    """The floor is 1e4 to 1e6 times the score error; the gap counts only what the design can change."""
    truth = Joint.random(30, 2, floor=floor)
    truth = replace(truth, budget=truth.budget * 100)
    plan = truth.problem().solve()
    assert plan.breakdown["floor"] > 1e3 * plan.breakdown["score"]
    again = given_steps(truth, plan.steps, truth.budget - float(truth.evaluation @ plan.steps))
    score, _, _ = truth.parts(again, plan.steps)
    assert plan.breakdown["score"] == pytest.approx(score.sum(), rel=1e-4)


def test_a_bound_on_a_single_level_is_accepted():
    truth = Joint.random(10, 1)
    free = truth.problem().solve()
    cap = np.full(10, np.inf)
    cap[4] = 0.5 * free.examples[4]
    plan = truth.problem([co.Cap(cap, "examples")]).solve()
    assert plan.examples[4] == pytest.approx(cap[4], rel=1e-5)
    one = truth.problem([co.named("one", lambda d: d.examples[4:5] <= cap[4])]).solve()
    assert one.error == pytest.approx(plan.error, rel=2e-6)


def test_largest_entry_as_a_row_equals_a_cap_and_so_does_an_infinite_norm():
    truth = Joint.random(10, 1)
    top = 0.6 * (truth.problem().solve().examples / truth.levels.log_width).max()
    capped = truth.problem([co.Cap(top)]).solve()
    largest = truth.problem([co.named("largest", lambda d: cp.max(d.density) <= top)]).solve()
    assert largest.error == pytest.approx(capped.error, rel=2e-6)
    norm = truth.problem([co.named("infinite norm", lambda d: cp.norm_inf(d.density) <= top)]).solve()
    assert norm.error == pytest.approx(capped.error, rel=2e-6)


def test_least_price_of_an_error_inverts_the_joint_program():
    truth = Joint.random(15, 2)
    error = truth.problem().solve().error
    terms = co.ScoreError(truth.table) + co.Discretization(truth.table)
    plan = co.Problem(co.Compute(truth.prices), [co.named("error", terms <= error)]).solve()
    assert plan.error == pytest.approx(truth.budget, rel=1e-5)


def test_last_evaluation_and_its_step_are_part_of_the_optimum():
    """Under "denoise" A_r / m_r and the last evaluation's price enter: against L-BFGS in logarithms."""
    truth = Joint.random(12, 3)
    table = replace(truth.table, terminal="denoise", final_score=50.0, final_floor=0.1)
    plan = co.Problem(
        co.ScoreError(table) + co.Discretization(table), [named_budget(truth.prices, truth.budget)]
    ).solve()
    near = truth.levels.overlap(0.02, 0.02 * np.exp(1.2)) / truth.levels.log_width

    def objective(z):
        m, n = np.exp(z[:12]), np.exp(z[12:])
        scale = (truth.budget - truth.evaluation[0]) / truth.cost(m, n)
        return np.log(truth.value(scale * m, scale * n) + 50 / (near @ (scale * m)) + 0.1)

    best = min(
        minimize(
            objective, np.random.default_rng(k).normal(0, 0.3, 24) + np.log(np.r_[plan.examples, plan.steps]),
            method="L-BFGS-B", options={"maxiter": 3000, "maxfun": 10**6, "ftol": 1e-15},
        ).fun
        for k in range(2)
    )  # fmt: skip
    assert plan.error <= np.exp(best) * (1 + 1e-6)
    assert plan.error == pytest.approx(np.exp(best), rel=1e-4)
