"""The declared programs P1 to P4 against water-filling, geometric programs, SLSQP, SDPs and closed forms."""

from __future__ import annotations

import functools
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

import codesign_opt as co
from codesign_opt.basics.errors import InfeasibleError, NotCertifiedError
from codesign_opt.solvers.waterfill.fill import square_root_rule, waterfill
from tests.helpers.programs import Joint, boxed_training


@pytest.fixture(autouse=True)
def _declared_programs_only(monkeypatch):
    """This file holds the cvxpy declarations; the structured solver is held to them in test_joint.py."""
    monkeypatch.setattr(co.Problem, "solve", functools.partialmethod(co.Problem.solve, method="declared"))


COUPLINGS = [co.Local(1.2), co.Local(1.2, form="p4"), co.PerStep(1.2)]
COUPLING_NAMES = ["max", "p4", "per_step"]


def named_budget(prices, limit, part=None):
    return co.named("budget", co.Compute(prices, part=part) <= limit)


# ------------------------------------------------------------------ P1, sampler given


@pytest.mark.parametrize("decades", [2, 6, 10])
@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize(("budget_scale", "price_scale"), [(1, 1), (1e9, 1), (1e-9, 1), (1, 1e9), (1, 1e-9)])
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
    assert other.shadow_prices["budget"] * scale == pytest.approx(one.shadow_prices["budget"], rel=1e-3)


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
    gains = np.array([alternate(truth, rng, resplit=resplit) / joint - 1 for _ in range(20)])
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


# ------------------------------------------------------------------ shadow prices


def test_budget_multiplier_is_the_finite_difference_of_the_optimum():
    for coupling in COUPLINGS:
        truth = Joint.random(20, 8, coupling=coupling)
        step = 2e-3
        up, down = (
            replace(truth, budget=truth.budget * (1 + k)).problem().solve(tolerance=1e-8).error for k in (step, -step)
        )
        slope = (up - down) / (2 * step * truth.budget)
        plan = truth.problem().solve()
        assert plan.shadow_prices["budget"] < 0
        assert plan.shadow_prices["budget"] == pytest.approx(slope, rel=1e-4)


def test_shadow_prices_of_lower_and_upper_rows_have_the_sign_of_the_change():
    truth = Joint.random(20, 8)
    free = truth.problem().solve()
    inside = truth.levels.sigma < 0.2
    need = 1.5 * free.examples[inside].sum()
    most = 0.7 * free.steps[~inside].sum()

    def rows(a, b):
        return [
            co.named("at least", lambda d: cp.sum(d.examples[inside]) >= a),
            co.named("at most", lambda d: cp.sum(d.steps[~inside]) <= b),
            co.named("turned round", lambda d: 0.1 * a <= cp.sum(d.examples[~inside])),
        ]

    plan = truth.problem(rows(need, most)).solve(tolerance=1e-8)
    h = 1e-3
    for name, change in (("at least", (h * need, 0)), ("at most", (0, h * most))):
        up, down = (
            truth.problem(rows(need + k * change[0], most + k * change[1])).solve(tolerance=1e-8).error for k in (1, -1)
        )
        slope = (up - down) / (2 * sum(change))
        assert plan.shadow_prices[name] == pytest.approx(slope, rel=1e-3)
    assert plan.shadow_prices["at least"] > 0
    assert plan.shadow_prices["at most"] < 0
    assert abs(plan.shadow_prices["turned round"]) * need < 1e-6 * plan.error


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


# ------------------------------------------------------------------ P4, shared parameters


def shared(seed, *, levels=7, outputs=2, parameters=5, responses=2, prior=False):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(levels, outputs, parameters)) * 10 ** rng.uniform(-1, 1, (levels, 1, 1))
    response = rng.normal(size=(parameters, responses))
    root = rng.normal(size=(parameters, parameters))
    return co.InformationError(
        features,
        response,
        sigma=np.logspace(-2, 1, levels),
        prior=0.3 * root @ root.T if prior else None,
        residual_variance=10 ** rng.uniform(-1, 1, levels),
    ), 10 ** rng.uniform(-0.5, 0.5, levels)


def semidefinite(term, c, budget, rows=()):
    """Optimal value with cp.matrix_frac: tr G^T M(m)^-1 G."""
    x = cp.Variable(c.size, nonneg=True)  # share of the budget
    fisher = [f.T @ f / s for f, s in zip(term.features, term.residual_variance, strict=True)]
    m = cp.multiply(budget / c, x)
    information = sum(m[l] * fisher[l] for l in range(c.size))
    if term.prior is not None:
        information = information + term.prior
    value = sum(cp.matrix_frac(column, information) for column in term.response.T)
    program = cp.Problem(cp.Minimize(value), [cp.sum(x) <= 1, *(row(m) for row in rows)])
    program.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10)
    return float(program.value)


@pytest.mark.parametrize("prior", [False, True])
def test_shared_parameters_cone_form_equals_the_semidefinite_form_and_slsqp(prior):
    for seed in range(3):
        term, c = shared(seed, prior=prior)
        plan = co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0, "training")]).solve()
        truth = semidefinite(term, c, 50.0)
        assert plan.error == pytest.approx(truth, rel=1e-5)
        assert plan.certificate.lower_bound <= truth * (1 + 1e-7)
        assert c @ plan.examples <= 50 * (1 + 1e-7)

        def direct(z, term=term, c=c):
            m = 50.0 * np.exp(z - z.max()) / np.exp(z - z.max()).sum() / c
            flat = (term.features * np.sqrt(m / term.residual_variance)[:, None, None]).reshape(-1, 5)
            information = flat.T @ flat + (0 if term.prior is None else term.prior)
            return np.log(np.sum(term.response * np.linalg.solve(information, term.response)))

        found = minimize(direct, np.zeros(7), method="SLSQP", bounds=[(-25, 25)] * 7, options={"ftol": 1e-14})
        assert plan.error <= np.exp(found.fun) * (1 + 1e-6)
        assert plan.error == pytest.approx(np.exp(found.fun), rel=1e-4)


def test_shared_parameters_with_a_floor_and_a_linear_row_equal_the_semidefinite_form():
    term, c = shared(4)
    rows = [
        co.named("few low", lambda d: cp.sum(d.examples[:3]) <= 5.0),
        co.Floor(0.5, "examples"),
    ]
    plan = co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0, "training"), *rows]).solve()
    truth = semidefinite(term, c, 50.0, [lambda m: cp.sum(m[:3]) <= 5.0, lambda m: m >= 0.5])
    assert plan.error == pytest.approx(truth, rel=1e-5)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-7)


def test_orthogonal_features_reduce_to_the_square_root_rule():
    rng = np.random.default_rng(1)
    s, g, c = rng.uniform(0.1, 10, 6), rng.normal(size=6), rng.uniform(0.5, 2, 6)
    term = co.InformationError(np.eye(6)[:, None, :], g[:, None], sigma=np.logspace(-2, 1, 6), residual_variance=s)
    plan = co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 30.0, "training")]).solve()
    exact = square_root_rule(g**2 * s, c, 30.0)
    assert plan.error == pytest.approx(exact.value, rel=1e-7)
    np.testing.assert_allclose(plan.examples, exact.examples, rtol=1e-3)
    assert -plan.shadow_prices["budget"] == pytest.approx(exact.multiplier, rel=1e-4)


def test_a_price_of_evaluations_is_not_charged_where_no_sampler_is_planned():
    term, c = shared(0)
    plan = co.Problem(term, [named_budget(co.Prices(c, 1e3, 10), 50.0)]).solve()
    assert plan.error == pytest.approx(semidefinite(term, c, 50.0), rel=1e-5)
    assert plan.sigmas is None


def test_sandwich_error_equals_weighted_least_squares_by_simulation():
    rng = np.random.default_rng(5)
    term, _ = shared(5, levels=4, outputs=2, parameters=3, responses=2)
    m, weight, repeats = np.array([7, 3, 12, 5]), np.array([1.0, 0.2, 3.0, 0.5]), 20_000
    rows = np.concatenate([np.tile(f, (k, 1)) for f, k in zip(term.features, m, strict=True)])
    root = np.sqrt(np.repeat(weight, 2 * m))[:, None]
    spread = np.sqrt(np.repeat(term.residual_variance, 2 * m))[:, None]
    truth = rng.normal(size=3)
    targets = (rows @ truth)[:, None] + spread * rng.normal(size=(rows.shape[0], repeats))
    fitted = np.linalg.lstsq(root * rows, root * targets, rcond=None)[0]
    squares = ((term.response.T @ (fitted - truth[:, None])) ** 2).sum(axis=0)
    error = squares.std() / np.sqrt(repeats)
    assert abs(squares.mean() - term.sandwich_error(m, weight)) < 3 * error
    efficient = term.sandwich_error(m, 1 / np.asarray(term.residual_variance))
    assert efficient == pytest.approx(term.error(m), rel=1e-10)


def test_unit_loss_weights_make_more_data_worse():
    """Section 6: two levels of residual variance 1 and 10: .0275 with both, .0100 training only the first."""
    term = co.InformationError(
        np.ones((2, 1, 1)), np.ones((1, 1)), sigma=[0.1, 1.0], residual_variance=np.array([1.0, 10.0])
    )
    assert term.sandwich_error(np.array([100.0, 100.0])) == pytest.approx(0.0275)
    assert term.sandwich_error(np.array([100.0, 0.0])) == pytest.approx(0.0100)
    assert term.error(np.array([100.0, 100.0])) == pytest.approx(1 / 110)


@pytest.mark.parametrize("unit", [1e-8, 1e-5, 1e5])
def test_shared_parameters_in_another_unit_give_the_same_plan(unit):
    """A parameter measured in other units changes features and response together and nothing else."""
    term, c = shared(2, parameters=4)
    scale = np.array([1.0, unit, 1.0, 1.0])
    other = co.InformationError(
        term.features * scale, term.response * scale[:, None], sigma=term.sigma,
        residual_variance=term.residual_variance,
    )  # fmt: skip
    budget = named_budget(co.Prices(c, 1.0, 1), 50.0, "training")
    truth = co.Problem(term, [budget]).solve().error
    assert co.Problem(other, [budget]).solve().error == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_shared_parameters_scale_with_the_budget(scale):
    """Without a prior the error is proportional to 1 / budget, and so must be the solver's answer."""
    for seed in range(3):
        term, c = shared(seed)
        one, other = (
            co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0 * k, "training")]).solve() for k in (1, scale)
        )
        assert other.error * scale == pytest.approx(one.error, rel=2e-6)


def test_a_direction_that_only_a_weak_level_determines_is_paid_for():
    """F = diag(1, 1e-16), G = (1, 1e-9): the second direction costs as much as a tenth of the first."""
    features = np.array([[[1.0, 0.0]], [[0.0, 1e-8]]])
    term = co.InformationError(features, np.array([[1.0], [1e-9]]), sigma=[0.1, 1.0])
    plan = co.Problem(term, [named_budget(co.Prices(1.0, 1.0, 1), 1.0, "training")]).solve()
    assert plan.error == pytest.approx(1.1**2, rel=1e-6)
    assert term.error(np.array([1.0, 0.0])) == np.inf


# ------------------------------------------------------------------ infeasible


def conflict(problem, name):
    with pytest.raises(InfeasibleError) as caught:
        problem.solve()
    found = {record["name"]: record for record in caught.value.conflicts}
    assert name in str(caught.value)
    assert name in found, str(caught.value)
    return found


def test_floors_beyond_the_budget_name_both_with_right_amounts():
    truth = Joint.random(12, 3)
    steps = np.full(12, 2.0)
    cheap = replace(truth, evaluation=np.full(12, 1.0))
    floor = 2 * truth.budget / truth.example.sum()

    def problem(budget, low):
        rows = [named_budget(cheap.prices, budget, "training"), co.named("floor", co.Floor(low, "examples"))]
        return co.Problem(co.ScoreError(truth.table), rows, steps=steps)

    found = conflict(problem(truth.budget, floor), "budget")
    assert "floor" in found
    needed = float(truth.example.sum() * floor)
    assert found["budget"]["relaxed"] == pytest.approx(needed, rel=1e-4)
    assert found["budget"]["amount"] == pytest.approx(needed - truth.budget, rel=1e-4)
    problem(found["budget"]["relaxed"] * (1 + 1e-6), floor).solve()
    with pytest.raises(InfeasibleError):
        problem(truth.budget + 0.99 * found["budget"]["amount"], floor).solve()


def test_fewer_steps_than_positivity_needs_name_both_with_right_amounts():
    truth = Joint.random(12, 3)
    ratio = 10 ** np.random.default_rng(0).uniform(-1, 0.5, 12)
    table = replace(truth.table, variance_ratio=ratio, positivity=2.0)
    needed = float(2 * ratio @ truth.levels.log_width)

    def problem(count):
        rows = [named_budget(truth.prices, 1e9), co.Steps() <= count, co.StabilityCap(table)]
        return co.Problem(co.ScoreError(table) + co.Discretization(table), rows)

    found = conflict(problem(0.5 * needed), "Steps")
    assert "StabilityCap" in found
    assert found["Steps"]["relaxed"] == pytest.approx(needed, rel=1e-4)
    plan = problem(found["Steps"]["relaxed"] * (1 + 1e-6)).solve()
    assert np.all(plan.steps >= 2 * ratio * truth.levels.log_width * (1 - 1e-6))
    with pytest.raises(InfeasibleError):
        problem(0.5 * needed + 0.99 * found["Steps"]["amount"]).solve()


def test_conflicting_user_constraint_is_named_with_the_right_amount():
    truth = Joint.random(12, 3)
    inside = truth.levels.sigma < 0.2
    cheapest = float(truth.example[inside].min())
    most = (truth.budget) / cheapest

    def problem(count):
        return truth.problem([co.named("low-noise floor", lambda d: cp.sum(d.examples[inside]) >= count)])

    found = conflict(problem(3 * most), "low-noise floor")
    assert found["low-noise floor"]["relaxed"] == pytest.approx(most, rel=1e-3)
    assert found["budget"]["relaxed"] == pytest.approx(3 * truth.budget, rel=1e-3)
    relaxed = 3 * most - 0.99 * found["low-noise floor"]["amount"]
    with pytest.raises(InfeasibleError):
        problem(relaxed).solve()
    assert problem(0.9 * found["low-noise floor"]["relaxed"]).solve().certificate.optimal


def test_two_user_constraints_that_exclude_each_other_are_both_named():
    truth = Joint.random(12, 3)
    rows = [
        co.named("many", lambda d: cp.sum(d.steps) >= 6),
        co.named("few", lambda d: cp.sum(d.steps) <= 4),
    ]
    found = conflict(replace(truth, budget=1e7).problem(rows), "many")
    assert found["many"]["relaxed"] == pytest.approx(4, rel=1e-5)
    assert found["few"]["relaxed"] == pytest.approx(6, rel=1e-5)
    assert "budget" not in found


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


def test_largest_entry_as_a_row_equals_a_cap_and_functions_without_gradient_are_named():
    truth = Joint.random(10, 1)
    top = 0.6 * (truth.problem().solve().examples / truth.levels.log_width).max()
    capped = truth.problem([co.Cap(top)]).solve()
    largest = truth.problem([co.named("largest", lambda d: cp.max(d.density) <= top)]).solve()
    assert largest.error == pytest.approx(capped.error, rel=2e-6)
    with pytest.raises(co.ConvexityError, match="'infinite norm' uses a function whose gradient"):
        truth.problem([co.named("infinite norm", lambda d: cp.norm_inf(d.density) <= top)])


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


def test_structured_solvers_and_declared_programs_agree_in_value_and_shadow_prices():
    term, c = shared(3)
    box = [co.Floor(0.02, "examples"), co.Cap(30.0, "examples")]
    problems = {
        "Newton in shares": co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0, "training"), *box]),
        "dual Newton": Joint.random(30, 5).problem(),
    }
    for method, problem in problems.items():
        fast, slow = problem.solve(method="auto", tolerance=1e-7), problem.solve(tolerance=1e-5)
        assert [a["solver"] for a in fast.attempts] == [method]
        assert fast.error == pytest.approx(slow.error, rel=1e-5)
        assert fast.shadow_prices["budget"] == pytest.approx(slow.shadow_prices["budget"], rel=1e-3)
        for name, value in slow.shadow_prices.items():
            scale = np.abs(value).max() if np.ndim(value) else abs(value)
            np.testing.assert_allclose(fast.shadow_prices[name], value, atol=1e-2 * scale + 1e-9)
