"""Features of programs in pairs that no other test puts side by side, against other ways to the same number."""

import os

import cvxpy as cp
import numpy as np
import pytest
from scipy.special import ndtr

import codesign_opt as co
from codesign_opt.planning.interval_program import interval_program
from codesign_opt.planning.question import Study

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

PRICES = co.Prices(3.0, 1.0, 1_000)
LEVELS = co.Levels.log_uniform(0.01, 20.0, 16)


def shared(seed=3, parameters=5):
    """Parameters that all levels share beside a sampler: the features, the response, the table, both terms."""
    rng = np.random.default_rng(seed)
    features, response = rng.normal(size=(16, 2, parameters)), rng.normal(size=(parameters, 2))
    rate = np.exp(rng.normal(size=(2, 16)))
    table = co.Coefficients(LEVELS, np.zeros(16), np.zeros(16), rate, terminal="rescale")
    return features, response, table, co.InformationError(features, response, sigma=LEVELS.sigma)


CAPS = {
    # a function of sigma is met by its mean on each level, where a row has the level's middle
    "step size": ([co.Cap(lambda s: 0.6 * s, "step_size")], lambda n: [n >= LEVELS.log_width / 0.6]),
    "user row": ([lambda d: d.step_sizes <= 0.6 * d.sigma], lambda n: [n >= LEVELS.width / (0.6 * LEVELS.sigma)]),
    "step density, both ways": (
        [co.Cap(2.5, "step_density"), co.Monotone("decreasing", "step_density")],
        lambda n: [n <= 2.5 * LEVELS.log_width, cp.diff(n) <= 0],
    ),
    "steps and examples": (
        [co.Cap(0.9, "steps"), co.Floor(50.0)],
        lambda n: [n <= 0.9],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(CAPS)[:: 1 if FULL else 2])
def test_shared_parameters_beside_capped_steps_are_one_second_order_cone_program(kind):
    """min sum |Z_l|^2 / m_l + D(n) with sum A_l' Z_l = G, written here in examples per mean level."""
    features, response, table, information = shared()
    rows, caps = CAPS[kind]
    plan = co.Problem(information + co.Discretization(table), [co.Compute(PRICES) <= 5e4, *rows]).solve()
    unit = float(plan.examples.mean())
    m, n = cp.Variable(16, nonneg=True), cp.Variable(16, nonneg=True)
    z = [cp.Variable((2, 2)) for _ in range(16)]
    spread = cp.sum([cp.quad_over_lin(z[i], m[i]) for i in range(16)])
    error = spread / unit + cp.sum_squares(table.step_response @ cp.power(n, -table.order))
    fits = sum(features[i].T @ z[i] for i in range(16)) == response
    floor = [m >= 50.0 * LEVELS.log_width / unit] if kind == "steps and examples" else []
    budget = (3.0 * unit * cp.sum(m) + 1_000 * table.evaluations_per_step * cp.sum(n)) / 5e4 <= 1
    other = cp.Problem(cp.Minimize(error / plan.error), [fits, budget, *floor, *caps(n)])
    other.solve(solver="CLARABEL")
    assert other.value == pytest.approx(1.0, rel=2e-6)
    assert plan.certificate.lower_bound <= plan.error * other.value * (1 + 1e-6)


def test_a_sweep_of_a_budget_and_of_a_weight_of_shared_parameters_is_each_problem_by_itself():
    _, _, table, information = shared()
    steps, budget, weight = co.Discretization(table), cp.Parameter(value=5e4), cp.Parameter(nonneg=True, value=1.0)
    limits, weights = [2e4, 5e4, 1e5][:: 1 if FULL else 2], [0.1, 1.0, 10.0][:: 1 if FULL else 2]
    found = co.Problem(information + steps, [co.Compute(PRICES) <= budget]).sweep(budget, limits)
    alone = [co.Problem(information + steps, [co.Compute(PRICES) <= x]).solve().error for x in limits]
    np.testing.assert_allclose(found.errors, alone, rtol=2e-6)
    assert budget.value == 5e4
    found = co.Problem(information * weight + steps, [co.Compute(PRICES) <= 5e4]).sweep(weight, weights)
    alone = [co.Problem(w * information + steps, [co.Compute(PRICES) <= 5e4]).solve().error for w in weights]
    np.testing.assert_allclose(found.errors, alone, rtol=2e-6)
    assert weight.value == 1.0


class Starved(co.Term):
    """An error of one's own where few examples are; nested, as an integral of something nonnegative is."""

    nested = True

    def __init__(self, size, power):
        self.size, self.power = size, power

    def expression(self, design):
        weight = self.size * design.log_width * design.sigma**self.power
        return cp.sum(cp.multiply(weight, cp.inv_pos(design.density)))


def test_a_worst_case_of_ones_own_terms_is_bounded_between_stopping_points():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.0), process=co.EDM(0.01, 20.0))
    term = co.WorstCase({"low": Starved(0.2, -0.2), "high": Starved(0.1, 1.0)})
    study = Study(model, PRICES, 1e5, None, None, (), (term,), 10, 1e-6)
    program = interval_program(study, 0.03, 0.036)
    assert program.nonnegative  # as its scenarios are
    assert not program.missing
    assert program.problem is not None
    bound = program.problem.solve().certificate.lower_bound
    table = model.coefficients(0.033, levels=10)
    terms = co.ScoreError(table) + co.Discretization(table) + co.Truncation(table) + term
    error = co.Problem(terms, [co.Compute(PRICES) <= 1e5]).solve().error
    assert 0.5 * error < bound <= error * (1 + 1e-6)


@pytest.mark.slow
def test_rows_that_select_no_level_at_the_far_stopping_points_do_not_end_the_search():
    """With a term that may not be nested beside them, as the interval's own far end is asked about it."""

    class Peak(co.Term):
        def expression(self, design):
            return 1e-9 * cp.max(design.density)

    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.01, 20.0))
    few = co.named("few", lambda d: cp.sum(d.examples[d.sigma < 0.2]) <= 3e3)
    options = {"levels": 12, "points": 3, "polish": False, "outer_tolerance": 0.5}
    plan = co.codesign(model, PRICES, 3e4, constraints=[few], terms=[Peak()], **options)
    assert plan.examples[plan.levels.sigma < 0.2].sum() <= 3e3 * (1 + 1e-6)
    assert plan.outer["high"] > 0.2 > plan.stopping_sigma


def test_a_run_already_made_goes_on_under_caps_that_every_real_step_obeys():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.01, 20.0), sampler=co.Euler())
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=100, batch=64)
    cap = co.Cap(lambda s: 0.5 * s, "step_size")
    options = {"constraints": [cap], "stopping_sigma": 0.05, "levels": 40, "steps": 18}
    fresh, on = (co.codesign(model, PRICES, 5e4, run=r, **options) for r in (None, run))
    nodes = on.sigmas[on.sigmas > 0]
    assert nodes.size <= 18
    assert np.all(nodes[:-1] - nodes[1:] <= 0.5 * nodes[:-1] * (1 + 1e-9))
    spent = 100 * 64 * np.diff(ndtr((np.log(on.levels.edges) + 1.2) / 1.2))
    np.testing.assert_allclose(on.examples - on.new_examples, spent, rtol=1e-9)
    assert on.costs["training"] + on.costs["sampling"] <= 5e4 * (1 + 1e-6)
    assert on.error < fresh.error
    with pytest.raises(co.InfeasibleError, match=r"raise value of 'Cap\(density\)'") as caught:
        co.codesign(model, PRICES, 5e4, run=run, **{**options, "constraints": [cap, co.Cap(1e3)]})
    most = float(np.max(spent / on.levels.log_width))
    assert caught.value.conflicts[0]["relaxed"] == pytest.approx(most, rel=1e-6)


def test_cvxpys_own_program_holds_variables_of_terms_and_takes_more_of_them():
    table = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.01, 20.0)).coefficients(0.02, 16)

    class Peak(co.Term):
        def expression(self, design):
            top = cp.Variable(name="top")
            return 1e-8 * top, [top >= cp.max(design.density), top >= 1e3]

    terms = co.ScoreError(table) + co.Discretization(table) + Peak()
    problem = co.Problem(terms, [co.Compute(PRICES) <= 5e4])
    program = problem.cvxpy(start=problem.solve())
    program.problem.solve(solver="CLARABEL")
    assert float(program.objective.value) == pytest.approx(problem.solve().error, rel=1e-6)
    least = cp.Variable()
    added = [program.design.examples[3] >= least, least >= 2e3]
    more = cp.Problem(program.problem.objective, [*program.problem.constraints, *added])
    more.solve(solver="CLARABEL")
    row = co.named("least", lambda d: d.examples[3] >= 2e3)
    plan = co.Problem(terms, [co.Compute(PRICES) <= 5e4, row]).solve()
    assert plan.shadow_prices["least"] > 0
    assert float(program.objective.value) == pytest.approx(plan.error, rel=2e-6)


def test_coherent_errors_under_caps_and_a_budget_are_the_same_quadratic_form_by_hand():
    """sum_jk R_jk w_j w_k / sqrt(m_j m_k), w the widths to the power 3/2, as |exp of halves of logarithms|^2."""
    table = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.01, 20.0)).coefficients(0.01, 12)
    log, width = np.log(table.sigma), table.log_width
    gram = np.sqrt(np.outer(table.score, table.score)) * np.exp(-np.abs(log[:, None] - log[None])) / 2
    rows = [co.Compute(PRICES) <= 5e4, co.Cap(lambda s: 0.6 * s, "step_size"), co.Cap(1500.0), co.Floor(20.0)]
    plan = co.Problem(co.CoherentScore(table, gram) + co.Discretization(table), rows).solve()
    m, n = cp.Variable(12), cp.Variable(12, nonneg=True)  # m: log of examples per unit log sigma
    parts = []
    for j in range(12):
        for k in range(12):
            parts.append(gram[j, k] * width[j] * width[k] * cp.exp(-0.5 * (m[j] + m[k])))
    error = cp.sum(cp.hstack(parts)) + cp.sum_squares(table.step_response @ cp.power(n, -table.order))
    least = width / 0.6  # the cap by its mean on each level
    paid = 3.0 * width @ cp.exp(m) + 1_000 * (table.evaluations_per_step * cp.sum(n) + table.final_steps)
    other = cp.Problem(cp.Minimize(error * 1e3), [paid / 5e4 <= 1, n >= least, m <= np.log(1500.0), m >= np.log(20.0)])
    other.solve(solver="CLARABEL")
    assert plan.error == pytest.approx(other.value / 1e3, rel=1e-5)
    assert plan.certificate.lower_bound <= other.value / 1e3 * (1 + 1e-5)


def test_prices_that_are_functions_of_sigma_beside_caps_are_paid_level_by_level():
    table = co.GaussianModel(
        co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.01, 20.0), sampler=co.Euler(), terminal="rescale",
        training=co.AveragedSGD(prior=None),
    ).coefficients(0.01, 12)  # fmt: skip
    prices = co.Prices(example=lambda s: 2 + s / (1 + s), evaluation=lambda s: 1.0 + 0.5 / (1 + s), images=1_000)
    example = table.levels.average(prices.example)
    step = 1_000 * table.levels.average(prices.evaluation)
    rows = [co.Compute(prices) <= 5e4, co.Cap(lambda s: 0.6 * s, "step_size"), co.Cap(1500.0)]
    plan = co.Problem(co.ScoreError(table) + co.Discretization(table), rows).solve()
    x, n, unit = cp.Variable(12, nonneg=True), cp.Variable(12, nonneg=True), 1e3
    both = cp.exp(-cp.log(x) - cp.log(n))
    reducible = cp.maximum(cp.inv_pos(x), cp.multiply(table.kappa, both))
    floor = cp.maximum(1, cp.multiply(table.kappa, cp.inv_pos(n)))
    error = (table.example_error / unit) @ reducible + table.floor_error @ floor
    error += cp.sum_squares(table.step_response @ cp.power(n, -table.order))
    caps = [x <= 1500.0 * table.log_width / unit, n >= table.log_width / 0.6]
    other = cp.Problem(cp.Minimize(error), [(unit * example @ x + step @ n) / 5e4 <= 1, *caps])
    other.solve(solver="CLARABEL")
    assert plan.error - table.final_floor == pytest.approx(other.value, rel=1e-5)
    assert plan.certificate.lower_bound - table.final_floor <= other.value * (1 + 1e-5)
