"""Measured responses as Gram forms, against descents from many starts, grids and hand cases."""

from __future__ import annotations

import itertools
import os

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.errors import InfeasibleError, NotCertifiedError
from codesign_opt.certificate.lagrangian import LagrangianBound, ScorePart
from codesign_opt.modeling.positive_form import declared_form, form_as_written, positive_part
from tests.helpers.descent import descent

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def table_of(responses, order=1, *, score=None, coupling=None, terminal="rescale"):
    """Coefficients whose R_bl (so that the error is |R n^-q|^2) are `responses`."""
    size = responses.shape[1]
    levels = co.Levels.log_uniform(0.01, 50.0, size)
    rows = responses / levels.log_width ** (order + 1)
    a = np.zeros(size) if score is None else score / levels.log_width**2
    coupling = co.Local(2.0) if coupling is None else coupling
    return co.Coefficients(levels, a, np.zeros(size), rows, order=order, coupling=coupling, terminal=terminal)


def random_rows(size, count, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)) * 10 ** rng.uniform(-spread, spread, size)


def smooth_rows(count, seed):
    """Rows of both signs as functions of sigma."""
    rng = np.random.default_rng(seed)
    centre, width, height = rng.uniform(-3, 3, (count, 3)), rng.uniform(0.5, 2, (count, 3)), rng.normal(size=(count, 3))

    def rows(sigma):
        bumps = np.exp(-((np.log(sigma)[:, None, None] - centre) ** 2) / 2 / width**2)
        return (height * bumps).sum(axis=2).T

    return rows


def signed_error(responses, order):
    return lambda n: float(np.sum((responses @ n**-order) ** 2))


def positive_error(responses, order):
    gram = np.maximum(responses.T @ responses, 0)
    return lambda n: float(n**-order @ gram @ n**-order)


# ------------------------------------------------------------------ the signed model


MATRIX = [(order, size, seed) for size, seed in ((2, 0), (4, 1), (5, 2)) for order in (1, 2, 3)]


@pytest.mark.cases(2)
@pytest.mark.parametrize(("order", "size", "seed"), MATRIX if FULL else MATRIX[::2])
def test_signed_program_is_the_global_optimum_of_descents_from_twenty_starts(size, seed, order):
    responses = random_rows(size, size + 1, seed, spread=0.5)
    price = np.random.default_rng(seed).uniform(0.5, 3, size)
    budget = co.Compute(co.Prices(1.0, price, 1)) <= 10.0
    plan = co.Problem(co.GramDiscretization(table_of(responses, order)), [budget]).solve()
    best = descent(signed_error(responses, order), lambda n: price @ n, 10.0, size)
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(signed_error(responses, order)(plan.steps), rel=1e-12)
    assert plan.error <= best * (1 + 1e-6)
    assert plan.error == pytest.approx(best, rel=1e-5)
    assert plan.certificate.lower_bound <= best * (1 + 1e-9)
    assert price @ plan.steps <= 10.0 * (1 + 1e-7)


@pytest.mark.cases(2)
@pytest.mark.parametrize("seed", range(6))
def test_level_bounds_hold_in_the_signed_program_and_its_bound_is_below_every_feasible_design(seed):
    rng = np.random.default_rng(seed)
    size, order = 5, 1 + seed % 3
    responses = random_rows(size, [2, 6][seed % 2], seed, spread=0.5)
    low = np.where(rng.random(size) < 0.6, rng.uniform(0.5, 2, size), 0.0)
    high = np.where(rng.random(size) < 0.3, low + rng.uniform(0.2, 2, size), np.inf)
    rows = [co.Steps() <= 12.0, co.Floor(low, "steps"), co.Cap(high, "steps")]
    plan = co.Problem(co.GramDiscretization(table_of(responses, order)), rows).solve()
    assert np.all(plan.steps >= low * (1 - 1e-9))
    assert np.all(plan.steps <= high * (1 + 1e-9))
    error = signed_error(responses, order)
    scale = np.sum((np.abs(responses) @ plan.steps**-order) ** 2)  # without cancellation
    designs = np.minimum(low + rng.dirichlet(np.full(size, 0.7), 20_000) * (12.0 - low.sum()), high)
    designs = np.maximum(designs, 1e-9)
    near = plan.steps + rng.uniform(0, 1, (20_000, 1)) ** 6 * (designs - plan.steps)
    for n in (designs, near):
        values = ((n**-order @ responses.T) ** 2).sum(axis=1)
        assert values.min() >= plan.certificate.lower_bound - 1e-12 * scale
        assert values.min() >= plan.error - 1e-6 * max(plan.error, 1e-6 * scale)
    assert error(plan.steps) == pytest.approx(plan.error, rel=1e-9, abs=1e-20 * scale)


def test_floor_on_steps_leaves_the_known_optimum_where_longer_steps_would_cancel_more():
    """(u_1 - 2 u_2)^2 + u_2^2 / 10: level 1 wants long steps; at least 4 there cap u_1 at 1/4."""
    responses = np.array([[1.0, -2.0], [0.0, np.sqrt(0.1)]])
    table = table_of(responses)
    low = np.array([4.0, 0.0])
    plan = co.Problem(co.GramDiscretization(table), [co.Steps() <= 10.0, co.Floor(low, "steps")]).solve()
    second = np.linspace(1.0, 6.0, 600_001)  # level 1 at its bound, or beyond it with what is left
    at_bound = (1 / 4 - 2 / second) ** 2 + 0.1 / second**2
    first = np.linspace(4.0, 9.0, 600_001)
    beyond = (1 / first - 2 / (10 - first)) ** 2 + 0.1 / (10 - first) ** 2
    assert plan.error == pytest.approx(min(at_bound.min(), beyond.min()), rel=1e-6)
    assert plan.steps[0] == pytest.approx(4.0, rel=1e-6)


def test_rows_that_can_cancel_completely_give_a_certified_zero():
    responses = np.array([[1.0, -1.0, 0.5]])
    plan = co.Problem(co.GramDiscretization(table_of(responses)), [co.Steps() <= 9.0]).solve()
    assert plan.certificate.optimal
    assert "the signed responses cancel at this plan" in plan.notes[0]
    assert plan.error <= 1e-12 * float(np.sum((np.abs(responses) @ (1 / plan.steps)) ** 2))


def test_rows_of_one_sign_make_signed_positive_and_sharp_the_same():
    responses = np.abs(random_rows(12, 4, 3))
    rows = [co.Steps() <= 15.0]
    errors = [
        co.Problem(term, rows).solve().error
        for term in (
            co.GramDiscretization(table_of(responses, 2)),
            co.GramDiscretization(table_of(responses, 2), model="positive"),
            co.Discretization(table_of(responses, 2)),
        )
    ]
    np.testing.assert_allclose(errors, errors[0], rtol=2e-6)


def test_many_draws_and_their_triangular_factor_give_the_same_plan():
    responses = random_rows(6, 300, 5, spread=0.3)
    plan = co.Problem(co.GramDiscretization(table_of(responses)), [co.Steps() <= 9.0]).solve()
    assert plan.error == pytest.approx(signed_error(responses, 1)(plan.steps), rel=1e-10)


@pytest.mark.parametrize("model", ["signed", "positive"])
def test_shadow_price_of_the_steps_is_the_derivative_of_the_error(model):
    table = table_of(random_rows(8, 9, 4, spread=0.5), 2)

    def solve(count):
        return co.Problem(co.GramDiscretization(table, model=model), [co.named("count", co.Steps() <= count)]).solve()

    plan = solve(10.0)
    slope = (solve(10.01).error - solve(9.99).error) / 0.02
    assert plan.shadow_prices["count"] == pytest.approx(slope, rel=1e-3)
    assert plan.elasticities["count"] == pytest.approx(-4.0, rel=1e-5)  # homogeneous of degree -2q in the steps


def test_plan_says_which_model_was_used_and_its_levels_add_up():
    table = table_of(random_rows(10, 12, 6))
    for model in ("signed", "positive"):
        plan = co.Problem(co.GramDiscretization(table, model=model), [co.Steps() <= 10.0]).solve()
        name = f"discretization ({model} Gram)"
        assert plan.breakdown == {name: pytest.approx(plan.error)}
        assert {"signed": "finite sampler steps, signed", "positive": "finite sampler steps, upper"}[model] in str(plan)
        assert len(plan.notes) == (model == "positive")
        assert plan.tables["discretization"].sum() == pytest.approx(plan.error, rel=1e-9)


def test_structured_reference_changes_no_answer():
    table = table_of(random_rows(10, 12, 6))
    problem = co.Problem(co.GramDiscretization(table), [co.Steps() <= 10.0])
    assert problem.solve(method="declared").error == pytest.approx(problem.solve().error, rel=2e-6)


# ------------------------------------------------------------------ the positive model


@pytest.mark.parametrize("order", [1, 2])
def test_exact_is_below_positive_is_below_rows_is_below_norms(order):
    rng = np.random.default_rng(0)
    design = None
    for seed in range(20):
        responses = random_rows(9, int(rng.integers(1, 14)), seed)
        table = table_of(responses, order)
        point = co.modeling.Point(np.zeros(9), np.zeros(9), rng.uniform(0.2, 3, 9))
        u = point.steps**-order
        values = [
            float(np.sum((responses @ u) ** 2)),
            co.GramDiscretization(table).value(design, point),
            co.GramDiscretization(table, model="positive").value(design, point),
            co.Discretization(table).value(design, point),
            float((np.linalg.norm(responses, axis=0) @ u) ** 2),
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-10)
        assert values[2] == pytest.approx(positive_error(responses, order)(point.steps), rel=1e-12)
        assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(values[1:]))


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_declared_upper_model_touches_the_form_and_lies_above_it(power):
    rng = np.random.default_rng(1)
    for seed in range(5):
        rows = random_rows(6, 3, seed, spread=0.3)
        form = positive_part(rows.T @ rows)
        x = cp.Variable(6, nonneg=True)
        expression, auxiliary = declared_form(form, power, x)
        exact = form_as_written(form, power, x)
        v = auxiliary[0].variables()[0] if auxiliary[0].variables()[0].id != x.id else auxiliary[0].variables()[1]
        for value in [np.ones(6), *rng.uniform(0.2, 4, (50, 6))]:
            x.value, v.value = value, value**-power
            truth = float(value**-power @ form @ value**-power)
            assert exact.value == pytest.approx(truth, rel=1e-12)
            assert expression.value >= truth * (1 - 1e-12)
        x.value, v.value = np.ones(6), np.ones(6)
        assert expression.value == pytest.approx(form.sum(), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "form"), [(1, "max"), (2, "p4"), (2, "max")])
def test_joint_program_with_positive_gram_is_the_best_of_twenty_descents(order, form):
    size = 4
    rng = np.random.default_rng(order)
    responses, score = random_rows(size, 3, order, spread=0.3), rng.uniform(1, 5, size)
    example, step = rng.uniform(0.5, 2, size), rng.uniform(0.5, 2, size)
    table = table_of(responses, order, score=score, coupling=co.Local(2.0, form=form))
    kappa = table.levels.log_width / 2.0
    discretization = positive_error(responses, order)

    def error(x):
        m, n = x[:size], x[size:]
        ratio = kappa / n
        factor = np.maximum(1.0, ratio) if form == "max" else (1 + ratio**4) ** 0.25
        return float(np.sum(score / m * factor)) + discretization(n)

    best = descent(error, lambda x: example @ x[:size] + step @ x[size:], 30.0, 2 * size)
    terms = co.ScoreError(table) + co.GramDiscretization(table, model="positive")
    plan = co.Problem(terms, [co.Compute(co.Prices(example, step, 1)) <= 30.0]).solve()
    assert plan.error == pytest.approx(error(np.r_[plan.examples, plan.steps]), rel=1e-10)
    assert plan.error <= best * (1 + 2e-6)
    assert plan.error == pytest.approx(best, rel=1e-4)  # descents stop short at the kinks of max
    assert plan.certificate.lower_bound <= best * (1 + 1e-9)


def test_positive_form_written_out_pair_by_pair_gives_the_same_optimum():
    class Written(co.Term):
        scales_itself = True

        def __init__(self, term):
            self.term = term

        def expression(self, design):
            return self.term.expression(design)

    table = table_of(random_rows(10, 4, 8, spread=0.5), 2, score=np.full(10, 3.0))
    rows = [co.Compute(co.Prices(1.0, 2.0, 1)) <= 100.0]
    term = co.GramDiscretization(table, model="positive")
    majorised = co.Problem(co.ScoreError(table) + term, rows).solve()
    written = co.Problem(co.ScoreError(table) + Written(term), rows).solve(tolerance=1e-4)
    assert majorised.error == pytest.approx(written.error, rel=1e-6)


def test_bound_of_the_joint_positive_program_is_below_every_random_design():
    rng = np.random.default_rng(3)
    responses, score = random_rows(8, 4, 2), rng.uniform(1, 5, 8)
    table = table_of(responses, 2, score=score)
    terms = co.ScoreError(table) + co.GramDiscretization(table, model="positive")
    floors = [co.Floor(0.4, "steps"), co.Cap(6.0, "examples")]
    plan = co.Problem(terms, [co.Compute(co.Prices(1.0, 1.0, 1)) <= 60.0, *floors]).solve()
    kappa = table.levels.log_width / 2.0
    for _ in range(3000):
        share = rng.dirichlet(np.full(16, 1.0)) * (60.0 - 0.4 * 8)
        near = rng.random() ** 3
        m = np.minimum(near * share[:8] + (1 - near) * plan.examples, 6.0)
        n = near * (0.4 + share[8:]) + (1 - near) * plan.steps
        value = float(np.sum(score / m * np.maximum(1, kappa / n))) + positive_error(responses, 2)(n)
        assert value >= plan.certificate.lower_bound


@pytest.mark.slow
def test_signed_gram_in_a_joint_program_is_certified_where_tight_and_refused_with_advice_elsewhere():
    """u >= n^-q is a relaxation there: exact where the signed gradient in u is >= 0 at its solution."""
    budget = [co.Compute(co.Prices(1.0, 1.0, 1)) <= 60.0]
    mild = np.array([[1.0, -0.2, 0.5], [0.3, 1.0, 0.4], [0.2, 0.1, 1.0]])
    table = table_of(mild, score=np.full(3, 4.0))
    plan = co.Problem(co.ScoreError(table) + co.GramDiscretization(table), budget).solve()
    kappa = table.levels.log_width / 2.0

    def error(x):
        return float(np.sum(4.0 / x[:3] * np.maximum(1, kappa / x[3:]))) + signed_error(mild, 1)(x[3:])

    assert plan.error <= descent(error, np.sum, 60.0, 6) * (1 + 1e-6)
    strong = table_of(np.array([[1.0, -8.0, 3.0]]), score=np.full(3, 50.0))
    with pytest.raises(NotCertifiedError, match='model="positive"'):
        co.Problem(co.ScoreError(strong) + co.GramDiscretization(strong), budget).solve()


# ------------------------------------------------------------------ both


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("model", ["signed", "positive"])
def test_refining_the_levels_changes_no_answer(model, order):
    rows = smooth_rows(6, order)
    errors, steps = [], []
    sizes = (100, 200, 400) if FULL else (100, 200)
    for size in sizes:
        levels = co.Levels.log_uniform(0.01, 50.0, size)
        table = co.Coefficients(
            levels, 1e3 * levels.average(lambda s: s**-0.3), np.zeros(size), levels.average(rows),
            order=order, coupling=co.Local(2.0), terminal="rescale",
        )  # fmt: skip
        if model == "signed":
            plan = co.Problem(co.GramDiscretization(table), [co.Steps() <= 18.0]).solve()
        else:
            terms = co.ScoreError(table) + co.GramDiscretization(table, model=model)
            plan = co.Problem(terms, [co.Compute(co.Prices(1.0, 3.0, 100)) <= 2e4]).solve()
        errors.append(plan.error)
        steps.append([plan.steps @ levels.overlap(0.01, 0.3) / levels.log_width[0], plan.steps.sum()])
    np.testing.assert_allclose(errors, errors[-1], rtol=1e-3)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[-1], (len(sizes), 2)), rtol=1e-2)


def test_infeasible_steps_are_named_with_the_amount():
    table = table_of(random_rows(5, 6, 1))
    rows = [co.named("few", co.Steps() <= 4.0), co.named("floor", co.Floor(1.0, "steps"))]
    for model in ("signed", "positive"):
        with pytest.raises(InfeasibleError, match="few") as caught:
            co.Problem(co.GramDiscretization(table, model=model), rows).solve()
        found = {c["name"]: c for c in caught.value.conflicts}
        assert found["few"]["relaxed"] == pytest.approx(5.0, rel=1e-5)


def test_bad_input_is_named():
    table = table_of(random_rows(5, 6, 1))
    with pytest.raises(ValueError, match=r"GramDiscretization\.model is 'best'; it must be one of"):
        co.GramDiscretization(table, model="best")
    with pytest.raises(ValueError, match=r"GramDiscretization\.table is 3"):
        co.GramDiscretization(3)
    with pytest.raises(ValueError, match="nothing limits the steps"):
        co.Problem(co.GramDiscretization(table), [])
    with pytest.raises(TypeError, match=r"GramDiscretization\(signed\) has auxiliary variables"):
        co.GramDiscretization(table).expression(None)


@pytest.mark.parametrize("seed", range(8))
def test_lagrangian_with_negative_powers_and_logarithms_is_below_a_fine_grid(seed):
    """phi(m, n) on one level at a time, over a grid of two million points and beyond its edges."""
    rng = np.random.default_rng(seed)
    size = 3
    bound = LagrangianBound(size, rng.uniform(0, 1, size))
    low = rng.uniform(0.1, 1, size)
    bound.steps_box = (low, low + rng.uniform(1, 5, size))
    bound.examples_box = (np.zeros(size), rng.uniform(2, 9, size))
    a, kappa = rng.uniform(0, 3, size), rng.uniform(0.1, 3, size)
    bound.parts.append(ScorePart(a, np.zeros(size), co.Local(1.0), kappa))
    power = rng.normal(size=size)
    bound.powers.append((2.0, power))
    logs = np.where(rng.random((2, size)) < 0.7, rng.uniform(0, 2, (2, size)), 0.0)
    bound.add_logarithms(0.0, *logs)
    price = rng.uniform(0.1, 2, (2, size))
    bound.add_linear(0.0, *price)
    lower, least = bound.value(), 0.0
    for l in range(size):
        m = np.linspace(0, bound.examples_box[1][l], 1500)[:, None]
        n = np.linspace(bound.steps_box[0][l], bound.steps_box[1][l], 1500)[None]
        with np.errstate(divide="ignore"):
            total = bound.spent[l] + m
            phi = a[l] / total * np.maximum(1, kappa[l] / n) + power[l] / n**2 - logs[0, l] * np.log(total)
        least += float((phi - logs[1, l] * np.log(n) + price[0, l] * m + price[1, l] * n).min())
    assert lower <= least + 1e-12
    if np.all(power >= 0):  # then it is the minimum itself
        assert lower == pytest.approx(least, rel=1e-4)
    bound.steps_box = (np.zeros(size), bound.steps_box[1])
    assert np.all(power >= 0) or bound.value() == -np.inf
