"""The dual Newton of the joint program against bisection, cvxpy, SLSQP-free feasible points and finite differences."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import codesign_opt as co
from codesign_opt.basics.errors import NotCertifiedError
from codesign_opt.solvers.joint.dual import LevelDual
from codesign_opt.solvers.joint.newton import JointProgram, solve_joint
from codesign_opt.solvers.joint.program import FORMS
from codesign_opt.solvers.joint.slopes import sensitivity, stopping_slope
from tests.helpers.joint import check, objective, parts, random_program
from tests.helpers.programs import Joint

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def plain(size=12, bands=3, order=1, form="max", seed=0, budgets=(100.0,), **options):
    """A well-scaled program with one budget (prices 1 and 2) or a total and a bound on steps."""
    rng = np.random.default_rng(seed)
    c, k = np.array([np.ones(size), np.zeros(size)]), np.array([np.full(size, 2.0), np.ones(size)])
    count = len(budgets)
    return JointProgram(
        rng.uniform(0.5, 2, size), rng.uniform(0, 0.1, size), rng.uniform(0.5, 4, size),
        rng.uniform(0.1, 1, (bands, size)), order, c[:count], k[:count], np.array(budgets), form=form, **options,
    )  # fmt: skip


# ------------------------------------------------------------------ nothing wrong, nothing refused


@settings(max_examples=200 if FULL else 40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_every_random_program_is_solved_with_a_true_bound(seed):
    program = random_program(seed)
    found = solve_joint(program)
    assert found is not None
    assert check(program, found, np.random.default_rng(seed)) is None


def test_nearly_all_random_programs_are_certified():
    found = [solve_joint(random_program(seed)) for seed in range(60 if FULL else 12)]
    assert sum(answer is None or answer.relative_gap > 1e-6 for answer in found) <= 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_well_scaled_programs_need_few_iterations(form, order):
    found = solve_joint(plain(order=order, form=form))
    assert found.relative_gap < 1e-11
    assert found.iterations <= 8


# ------------------------------------------------------------------ against cvxpy


@pytest.mark.parametrize("seed", range(12 if FULL else 6))
def test_value_and_multiplier_equal_the_declared_program(seed):
    rng = np.random.default_rng(seed)
    coupling = [co.Local(1.2), co.PerStep(1.2), co.Local(1.2, form="p4")][seed % 3]
    truth = Joint.random(8, seed, order=int(rng.integers(1, 4)), coupling=coupling, decades=float(rng.choice([1, 4])))
    table, size = truth.table, 8
    rows, cap, low = [], None, None
    if seed % 2:
        free = solve_joint(program_of(truth))
        cap, low = free.examples * rng.uniform(0.5, 3, size), free.steps * rng.uniform(0.2, 1.1, size)
        rows = [co.Cap(cap, "examples"), co.Floor(low, "steps")]
    program = program_of(truth, examples_high=cap, steps_low=low)
    found = solve_joint(program)
    assert found.relative_gap < 1e-9
    try:
        plan = truth.problem(rows).solve(method="declared")
    except NotCertifiedError:
        pytest.skip("cvxpy did not certify")
    assert found.value + table.truncation == pytest.approx(plan.error, rel=1e-6)
    assert found.lower_bound <= plan.error * (1 + 1e-7)
    assert -found.budget_multipliers[0] == pytest.approx(plan.shadow_prices["budget"], rel=1e-3)


def program_of(truth, **options):
    table, coupling = truth.table, truth.coupling
    form = "per_step" if isinstance(coupling, co.PerStep) else coupling.form
    return JointProgram(
        table.example_error, table.floor_error, table.kappa, table.step_response, table.order,
        truth.prices.example_price(table.levels)[None], truth.prices.evaluation_price(table.levels)[None],
        np.array([truth.budget]), form=form, **options,
    )  # fmt: skip


# ------------------------------------------------------------------ degenerate levels and budgets


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_reduce_costs_nothing(form):
    zero, one = np.zeros(4), np.ones(4)
    found = solve_joint(
        JointProgram(zero, zero, one, np.zeros((2, 4)), 1, one[None], one[None], np.array([1.0]), form=form)
    )
    assert found.value == 0
    assert -1e-90 < found.lower_bound <= 0
    assert not found.steps.any()


@pytest.mark.parametrize("form", FORMS)
def test_one_level_without_response_matches_a_line_search(form):
    program = JointProgram(
        np.array([3.0]), np.array([0.2]), np.array([5.0]), np.zeros((0, 1)), 2,
        np.ones((1, 1)), np.full((1, 1), 4.0), np.array([50.0]), form=form,
    )  # fmt: skip
    found = solve_joint(program)
    steps = np.linspace(1e-3, 12.4, 200_001)
    best = min(objective(program, np.array([50 - 4 * n]), np.array([n])) for n in steps[::20])
    assert found.relative_gap < 1e-9
    assert best * (1 - 1e-4) <= found.value <= best * (1 + 1e-9)


def test_equal_caps_and_floors_leave_one_point():
    total, n = np.full(12, 2.0), np.full(12, 1.5)
    program = plain(examples_low=total, examples_high=total, steps_low=n, steps_high=n)
    found = solve_joint(program)
    assert np.array_equal(found.examples, total)
    assert np.array_equal(found.steps, n)
    assert found.relative_gap < 1e-9


def test_caps_that_all_bind_leave_the_budget_slack_without_a_price():
    program = plain(budgets=(1e6,), examples_high=np.full(12, 2.0), steps_high=np.full(12, 1.5))
    found = solve_joint(program)
    assert found.relative_gap < 1e-9
    assert found.budget_multipliers[0] * 1e6 < 1e-8 * found.value
    assert np.allclose(found.examples, 2.0)
    assert np.allclose(found.steps, 1.5)


def test_a_slack_budget_has_no_price_and_the_other_decides():
    both, alone = solve_joint(plain(budgets=(100.0, 1e5))), solve_joint(plain())
    assert both.budget_multipliers[1] == 0
    assert both.value == pytest.approx(alone.value, rel=1e-12)


def test_separate_budgets_give_the_two_separate_programs():
    p = plain(form="settled")
    c, k = np.array([np.ones(12), np.zeros(12)]), np.array([np.zeros(12), np.full(12, 2.0)])
    found = solve_joint(replace(p, examples_prices=c, steps_prices=k, budgets=np.array([30.0, 70.0])))
    assert found.relative_gap < 1e-9
    assert np.allclose(found.examples, 30 * np.sqrt(p.errors) / np.sqrt(p.errors).sum(), rtol=1e-6)


def test_floors_survive_the_repair():
    low, n_low = np.zeros(12), np.zeros(12)
    low[3], n_low[5] = 40.0, 8.0
    found = solve_joint(plain(examples_low=low, steps_low=n_low))
    assert found.examples[3] >= 40.0
    assert found.steps[5] >= 8.0
    assert found.relative_gap < 1e-9


def test_spent_examples_are_free():
    spent = np.where(np.arange(12) == 4, 1e3, 0.0)
    found = solve_joint(plain(spent=spent))
    assert found.examples[4] == 0
    assert found.relative_gap < 1e-9


@pytest.mark.parametrize("final", 10.0 ** np.arange(-12, 13, 3))
def test_last_evaluation_from_negligible_to_dominant(final):
    program = plain(final_error=final, final_window=np.where(np.arange(12) < 3, [1.0] * 12, 0.0))
    found = solve_joint(program)
    assert found.relative_gap < 1e-9
    near = found.examples[:3].sum()
    assert found.window_multiplier == pytest.approx(final / near**2, rel=1e-4)


def test_an_infeasible_program_is_refused():
    assert solve_joint(plain(examples_low=np.full(12, 20.0))) is None
    assert solve_joint(plain(steps_low=np.full(12, 2.0), steps_high=np.ones(12))) is None


def test_a_program_that_nothing_limits_is_refused():
    assert solve_joint(replace(plain(), examples_prices=np.zeros((1, 12)))) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("errors", np.full(12, -1.0)), ("kappa", np.full(12, np.nan)), ("response", np.ones((2, 3))),
        ("budgets", np.array([0.0])), ("order", 0), ("form", "sum"), ("final_error", -1.0), ("floors", [1.0] * 12),
    ],
)  # fmt: skip
def test_bad_input_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"JointProgram.{field}"):
        replace(plain(), **{field: value})


# ------------------------------------------------------------------ the dual function


@pytest.mark.parametrize("form", FORMS)
def test_gradient_and_curvature_of_the_dual_match_finite_differences(form):
    window = np.where(np.arange(12) < 4, 1.0, 0.0)
    program = plain(form=form, final_error=0.3, final_window=window, order=2, budgets=(60.0,))
    dual, h = LevelDual(program, [0]), 1e-5
    theta = np.array([0.3, -0.2, 0.1, -2.5, -2.0])

    def slopes(at):
        state = dual.state(at)
        near = np.sqrt(program.final_error / state.nu) - state.near
        return state, np.concatenate([state.sums - state.p / 2, state.cost - program.budgets, [near]])

    state, gradient = slopes(theta)
    own = np.diag([0.5] * 3 + [0.0] + [0.5 * np.sqrt(program.final_error) * state.nu**-1.5])
    for i in range(5):
        shift = h * np.eye(5)[i]
        (up, after), (down, before) = slopes(theta + shift), slopes(theta - shift)
        turn = (up.multipliers - down.multipliers) / (2 * h)
        assert (up.value - down.value) / (2 * h) == pytest.approx(gradient @ turn, rel=1e-5, abs=1e-7)
        assert (after - before) / (2 * h) == pytest.approx(-(dual.curvature(state) + own) @ turn, rel=2e-4, abs=1e-5)


# ------------------------------------------------------------------ derivatives of the value


@pytest.mark.parametrize("form", FORMS)
def test_sensitivities_match_finite_differences(form):
    program, h = plain(form=form, budgets=(100.0, 20.0)), 1e-5
    slopes = sensitivity(program, solve_joint(program))

    def value(**changes):
        return solve_joint(replace(program, **changes), tolerance=1e-13).value

    for j in range(2):
        step = h * program.budgets * (np.arange(2) == j)
        difference = (value(budgets=program.budgets + step) - value(budgets=program.budgets - step)) / (2 * step.max())
        assert slopes.budget[j] == pytest.approx(difference, rel=1e-4, abs=1e-9)
    for name, slope in (("examples_prices", slopes.example_price), ("steps_prices", slopes.step_price)):
        prices = getattr(program, name)
        difference = (value(**{name: prices * np.exp(h)}) - value(**{name: prices * np.exp(-h)})) / (2 * h)
        assert slope == pytest.approx(difference, rel=1e-4)


def test_slope_by_the_stopping_point_matches_finite_differences():
    model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), sampler=co.Euler())
    prices, stop, h = co.Prices(example=3.0, evaluation=1.0, images=100), 0.0503, 1e-5

    def program(sigma):
        table = model.coefficients(sigma, 60)
        return JointProgram(
            table.example_error, table.floor_error, table.kappa, table.step_response, table.order,
            prices.example_price(table.levels)[None], prices.evaluation_price(table.levels)[None], np.array([1e5]),
            final_error=table.final_score, final_window=table.final_window,
        )  # fmt: skip

    before, after = program(stop - h), program(stop + h)
    slope = stopping_slope(before, after, solve_joint(program(stop)), 2 * h)
    difference = (solve_joint(after).value - solve_joint(before).value) / (2 * h)
    assert slope == pytest.approx(difference, rel=1e-4)


def test_stopping_slope_refuses_programs_on_other_levels():
    program = plain()
    with pytest.raises(ValueError, match="same levels"):
        stopping_slope(program, plain(size=11), solve_joint(program), 1.0)
    with pytest.raises(ValueError, match="distance"):
        stopping_slope(program, program, solve_joint(program), 0.0)


def test_result_does_not_depend_on_units():
    program = plain(budgets=(100.0, 20.0))
    scaled = replace(
        program, errors=program.errors * 1e20, floors=program.floors * 1e20, response=program.response * 1e10,
        examples_prices=program.examples_prices * 1e-9, steps_prices=program.steps_prices * 1e-9,
        budgets=program.budgets * 1e-9,
    )  # fmt: skip
    assert solve_joint(scaled).value == pytest.approx(1e20 * solve_joint(program).value, rel=1e-10)


def test_bounds_helper_reads_defaults():
    spent, low, high, n_low, n_high = parts(plain())
    assert not np.concatenate([spent, low, n_low]).any()
    assert np.isinf(high).all()
    assert np.isinf(n_high).all()
