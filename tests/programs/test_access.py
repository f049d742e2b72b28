"""What a problem gives out beside its plan: parameters, sweeps, cvxpy's own program, slacks, sensitivities, time."""

import csv
import os
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
MODEL = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
TABLE = MODEL.coefficients(0.01, 25)
SIZE = len(TABLE.levels)
TABLE = replace(TABLE, floor=np.full(SIZE, 1e-4), truncation=1e-5, initial=1e-6)
PRICES = co.Prices(3.0, 1.0, 1_000)
ERROR = co.ScoreError(TABLE) + co.Discretization(TABLE)


@dataclass(frozen=True, eq=False)
class Crowding(co.Term):
    price: float = 1e-9

    def expression(self, design):
        return self.price * cp.sum(cp.multiply(design.log_width, cp.power(design.density, 1.5)))


# ------------------------------------------------------------------ algebra


def test_a_constant_moves_the_optimum_and_nothing_else():
    plain = co.Problem(ERROR, [co.Compute(PRICES) <= 1e5]).solve()
    for term, factor, constant in ((ERROR + 3.0, 1, 3.0), (0.5 + ERROR, 1, 0.5), ((ERROR - 2e-4) / 2, 0.5, -1e-4)):
        plan = co.Problem(term, [co.Compute(PRICES) <= 1e5]).solve()
        assert plan.error == pytest.approx(factor * plain.error + constant, rel=1e-9)
        assert plan.attempts[0]["solver"] == "dual Newton"
        assert sum(plan.breakdown.values()) == pytest.approx(plan.error, rel=1e-12)
        assert plan.breakdown["constant"] == pytest.approx(constant)
        np.testing.assert_allclose(plan.examples, plain.examples, rtol=1e-6)


def test_a_constant_in_a_bound_moves_its_limit_and_keeps_it_a_budget():
    plain = co.Problem(ERROR, [co.Compute(PRICES) <= 1e5]).solve()
    for bound in (co.Compute(PRICES) - 2e4 <= 8e4, co.Compute(PRICES) / 4 + 5e3 <= 3e4):
        plan = co.Problem(ERROR, [bound]).solve()
        assert plan.error == pytest.approx(plain.error, rel=1e-9)
        assert plan.attempts[0]["solver"] == "dual Newton"
    two = co.Compute(PRICES, part="training") + co.Compute(PRICES, part="sampling")
    assert co.Problem(ERROR, [two <= 1e5]).solve().error == pytest.approx(plain.error, rel=1e-9)


def test_minus_a_term_is_refused_and_numbers_alone_can_be_added():
    for wrong in (lambda: 3.0 - ERROR, lambda: ERROR - ERROR, lambda: -ERROR):
        with pytest.raises(TypeError, match="concave"):
            wrong()
    with pytest.raises(TypeError, match="terms and numbers"):
        ERROR + "x"
    with pytest.raises(ValueError, match="divisor"):
        ERROR / 0
    assert repr(co.Steps() / 2 - 3 <= 4) == "0.5 Steps - 3 <= 4"


# ------------------------------------------------------------------ parameters and sweeps


@pytest.mark.parametrize("method", ["auto", "declared"])
def test_a_parameter_is_read_at_every_solve(method):
    limit, weight = cp.Parameter(name="budget"), cp.Parameter(nonneg=True, name="price")
    problem = co.Problem(ERROR + Crowding() * weight, [co.Compute(PRICES) <= limit])
    with pytest.raises(ValueError, match="has no value"):
        problem.solve()
    for budget, price in ((1e5, 1.0), (3e5, 0.2), (1e5, 0.0)):
        limit.value, weight.value = budget, price
        plan = problem.solve(method=method)
        truth = co.Problem(ERROR + price * Crowding(), [co.Compute(PRICES) <= budget]).solve()
        assert plan.error == pytest.approx(truth.error, rel=1e-6)
        assert plan.shadow_prices["Compute"] == pytest.approx(truth.shadow_prices["Compute"], rel=1e-3)


def test_a_parameter_stands_for_a_field_of_a_users_term_and_in_a_users_constraint():
    price, floor = cp.Parameter(nonneg=True, value=1e-9), cp.Parameter(value=3e3)
    rows = [co.Compute(PRICES) <= 1e5, co.named("low", lambda d: cp.sum(d.examples[:10]) >= floor)]
    problem = co.Problem(ERROR + Crowding(price), rows)
    for value in (1e-9, 4e-9):
        price.value, floor.value = value, 3e3 * value / 1e-9
        plan = problem.solve()
        fixed = co.named("low", lambda d, low=float(floor.value): cp.sum(d.examples[:10]) >= low)
        truth = co.Problem(ERROR + Crowding(value), [co.Compute(PRICES) <= 1e5, fixed]).solve()
        assert plan.error == pytest.approx(truth.error, rel=1e-6)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_sweep_is_the_same_as_solving_one_by_one(by_name, tmp_path):
    limit = cp.Parameter(value=7e4, name="money")
    budget = co.named("money", co.Compute(PRICES) <= (2e5 if by_name else limit))
    problem = co.Problem(ERROR, [budget, co.Steps() <= 12])
    values = [5e4, 1e5, 1.0, 2e5]
    found = problem.sweep("money" if by_name else limit, values)
    for i in (0, 1, 3):
        alone = co.Problem(ERROR, [co.named("money", co.Compute(PRICES) <= values[i]), co.Steps() <= 12]).solve()
        assert found.errors[i] == pytest.approx(alone.error, rel=1e-6)
        assert found.prices("money")[i] == pytest.approx(alone.shadow_prices["money"], rel=1e-3)
    assert found.plans[2] is None
    assert "Infeasible" in found.failures[2]
    assert limit.value == 7e4
    assert "Infeasible" in str(found)
    assert str(found).count("\n") == 4
    with found.to_csv(tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["money"]) for row in rows] == values
    assert float(rows[3]["error"]) == found.errors[3]
    assert float(rows[0]["price of Steps"]) == found.prices("Steps")[0]
    assert found.plot().get_xlabel() == "money"


def test_a_sweep_over_what_is_not_there_is_refused():
    problem = co.Problem(ERROR, [co.Compute(PRICES) <= 1e5, co.Floor(1.0)])
    for wrong in ("budget", "Floor(density)", cp.Parameter()):
        with pytest.raises(ValueError, match=r"Problem\.sweep"):
            problem.sweep(wrong, [1.0])


def test_a_weight_of_any_sign_is_refused_before_it_can_make_a_term_concave():
    with pytest.raises(ValueError, match="nonneg=True"):
        ERROR * cp.Parameter()


# ------------------------------------------------------------------ cvxpy's own program


def test_cvxpy_alone_finds_the_same_optimum_and_duals_and_takes_more_constraints():
    problem = co.Problem(ERROR + Crowding() + 2.0, [co.Compute(PRICES) <= 1e5, co.Floor(50.0)])
    program, plan = problem.cvxpy(), problem.solve()
    assert program.unit * program.problem.solve(solver="CLARABEL") == pytest.approx(plan.error, rel=1e-7)
    assert float(program.objective.value) == pytest.approx(plan.error, rel=1e-7)
    np.testing.assert_allclose(program.examples, plan.examples, rtol=1e-3)
    np.testing.assert_allclose(program.design.density.value, program.examples / TABLE.log_width, rtol=1e-9)
    assert list(program.constraints) == list(plan.shadow_prices)
    more = [*program.problem.constraints, cp.sum(program.design.steps) <= 6.0]
    least = program.unit * cp.Problem(program.problem.objective, more).solve(solver="CLARABEL")
    truth = co.Problem(ERROR + Crowding() + 2.0, [co.Compute(PRICES) <= 1e5, co.Floor(50.0), co.Steps() <= 7.0]).solve()
    assert least == pytest.approx(truth.error, rel=1e-6)


def test_a_parameter_stays_one_in_cvxpys_program_and_is_not_compiled_again():
    limit = cp.Parameter(value=1e5, name="budget")
    problem = co.Problem(ERROR, [co.Compute(PRICES) <= limit])
    program = problem.cvxpy()
    assert program.problem.is_dpp()
    assert [p.id for p in program.problem.parameters()] == [limit.id]
    for value in (1e5, 1.2e5):
        limit.value = value
        least = program.unit * program.problem.solve(solver="CLARABEL")
        assert least == pytest.approx(problem.solve().error, rel=1e-6)


# ------------------------------------------------------------------ values, slacks, sensitivities


def test_every_constraint_says_its_value_its_limit_and_its_slack():
    rows = [
        co.Compute(PRICES) <= 1e5, co.Floor(50.0), co.Cap(0.4, "step_size", high=1.0),
        co.named("low", lambda d: cp.sum(d.examples[:10]) >= 2e3), co.named("steps", lambda d: cp.sum(d.steps) <= 30),
    ]  # fmt: skip
    plan = co.Problem(ERROR, rows).solve()
    said, density = plan.constraints, plan.examples / TABLE.log_width
    _, floor, cap, *others = said
    assert others == ["low", "steps"]
    assert list(said) == list(plan.shadow_prices)
    for record in said.values():
        assert abs(record["slack"]) == pytest.approx(abs(record["value"] - record["limit"]), abs=1e-9)
    assert said["Compute"]["slack"] == pytest.approx(0.0, abs=1e-2)
    assert said[floor]["value"] == pytest.approx(density.min(), rel=1e-9)
    assert said[floor]["limit"] == pytest.approx(50.0)
    sizes = (TABLE.width / plan.steps)[TABLE.sigma <= 1.0]
    assert said[cap]["value"] == pytest.approx(sizes.max(), rel=1e-9)
    assert said["low"]["value"] == pytest.approx(plan.examples[:10].sum(), rel=1e-9)
    assert said["steps"]["slack"] == pytest.approx(30 - plan.steps.sum(), rel=1e-9)


def solved(table, prices=PRICES, terms=()):
    objective = sum((make(table) for make in terms), co.ScoreError(table) + co.Discretization(table))
    rows = [co.Compute(prices) <= 1e5, co.named("worth", 3 * co.ScoreError(table) + co.Truncation(table) <= 8.2e-3)]
    return co.Problem(objective + co.Truncation(table), rows).solve(tolerance=1e-8)


def dearer(sigma):
    return 1 / (1 + (sigma / 0.5) ** 2)


def changed(name, h):
    if name == "example price":
        return TABLE, replace(PRICES, example=3.0 * (1 + h))
    if name == "evaluation price":
        return TABLE, replace(PRICES, evaluation=lambda sigma: 1.0 + h * dearer(sigma))
    if name == "images":
        return TABLE, PRICES.with_images(1_000 * (1 + h))
    if name == "log response of bands":
        return replace(
            TABLE, response=TABLE.response * (1 + h * np.linspace(0, 2, len(TABLE.response)))[:, None]
        ), PRICES
    if name == "log response of levels":
        return replace(TABLE, response=TABLE.response * (1 + h * np.linspace(2, 0, SIZE))), PRICES
    shape = np.linspace(0.5, 1.5, np.size(getattr(TABLE, name)))
    shape = shape if np.ndim(getattr(TABLE, name)) else float(shape[0])
    return replace(TABLE, **{name: getattr(TABLE, name) * (1 + h * shape)}), PRICES


def predicted(name, told):
    if name in ("example price", "images"):
        return float(np.sum(told[name])) * (3.0 if name == "example price" else 1_000)
    if name == "evaluation price":
        return float(told[name] @ TABLE.levels.average(dearer, points=16))
    if name.startswith("log"):
        count = len(TABLE.response)
        return float(told[name] @ (np.linspace(0, 2, count) if name.endswith("bands") else np.linspace(2, 0, SIZE)))
    shape = np.linspace(0.5, 1.5, np.size(getattr(TABLE, name)))
    return float(np.sum(told[name] * getattr(TABLE, name) * shape))


@pytest.mark.parametrize("kind", ["plain", "worst case"])
def test_sensitivities_are_finite_differences_of_the_optimum(kind):
    """By every coefficient of the table and by the prices, a bound on an error among the constraints."""
    harder = (lambda t: co.WorstCase([co.ScoreError(t), 0.7 * co.ScoreError(t) + 4 * co.Discretization(t)]),)
    terms = harder if kind == "worst case" else ()
    plan = solved(TABLE, terms=terms)
    told = plan.sensitivities
    names = ["score", "floor", "final_score", "truncation", "initial", "example price", "evaluation price", "images"]
    names += ["log response of bands", "log response of levels"]
    for name in names[:: (1 if FULL else 2) if kind == "plain" else (3 if FULL else 5)]:
        h = 3e-4
        ends = [solved(*changed(name, sign * h), terms=terms).error for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * h)
        assert predicted(name, told) == pytest.approx(slope, rel=1e-3, abs=1e-9 * plan.error / h), name


# ------------------------------------------------------------------ time, solver, log


def test_a_time_limit_is_for_all_attempts_together():
    problem = co.Problem(ERROR + Crowding(), [co.Compute(PRICES) <= 1e5])
    assert problem.solve(time_limit=100.0).certificate.optimal
    with pytest.raises(co.NotCertifiedError, match=r"time limit of 0\.001 s is over") as late:
        problem.solve(time_limit=1e-3, method="declared")
    assert len(late.value.attempts) == 1
    with pytest.raises(ValueError, match="time_limit"):
        problem.solve(time_limit=0.0)


def test_another_solver_and_its_log(capfd):
    problem = co.Problem(ERROR, [co.Compute(PRICES) <= 1e5])
    plan = problem.solve(solver="CLARABEL", verbose=True)
    assert "Clarabel" in capfd.readouterr().out
    assert plan.error == pytest.approx(problem.solve().error, rel=1e-6)
    with pytest.raises(ValueError, match="solver"):
        problem.solve(solver="NOBODY")


@pytest.mark.parametrize("many", [False, True])
def test_a_convexity_error_names_the_part_in_300_characters(many):
    class Concave(co.Term):
        def expression(self, design):
            return cp.sum(cp.sqrt(design.density))

    long = [
        co.named("a" * 40, lambda d: cp.sum(cp.sqrt(cp.multiply(d.examples, 1.0 + d.sigma))) <= np.arange(float(SIZE)))
    ]
    problem = [(ERROR + Concave(), [], "Concave"), (ERROR, long, "a" * 40)][many]
    with pytest.raises(co.ConvexityError, match=problem[2]) as refused:
        co.Problem(problem[0], [*problem[1], co.Compute(PRICES) <= 1e5])
    assert len(str(refused.value)) <= 300
