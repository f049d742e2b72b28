"""A subclass of a library's term, coupling or constraint is the program that its own expression states."""

from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.design import Design, Point

TABLE = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 50)
SIZE = len(TABLE.levels)
PRICES = co.Prices(3.0, 1.0, 1000)
BUDGET = [co.Compute(PRICES) <= 1e5]
PRICE = 1e-9


def crowding(design, price=PRICE):
    return price * cp.sum(cp.multiply(design.log_width, cp.power(design.density, 1.5)))


@dataclass(frozen=True, eq=False)
class Crowding(co.Term):
    price: float = PRICE

    def expression(self, design):
        return crowding(design, self.price)


def heavy(parent):
    class Heavy(parent):
        def expression(self, design):
            return super().expression(design) + crowding(design)

    return Heavy


def stated_value(term, plan):
    """The term's own expression at the plan, by cvxpy alone."""
    point = Point(plan.new_examples, np.zeros(SIZE), plan.steps)
    design = Design.declare(TABLE.levels, reference=Point(np.ones(SIZE), np.zeros(SIZE), np.ones(SIZE)), final_steps=1)
    design.set(point)
    return float(term.expression(design).value)


@pytest.mark.cases(2)
@pytest.mark.parametrize("method", ["auto", "declared"])
@pytest.mark.parametrize("parent", [co.ScoreError, co.Discretization, co.GramDiscretization])
def test_a_penalty_in_a_subclass_is_the_penalty_as_a_term_beside_it(parent, method):
    options = {"model": "positive"} if parent is co.GramDiscretization else {}
    other = co.Discretization(TABLE) if parent is co.ScoreError else co.ScoreError(TABLE)
    term = heavy(parent)(TABLE, **options)
    truth = co.Problem(parent(TABLE, **options) + Crowding() + other, BUDGET).solve(method="declared")
    without = co.Problem(parent(TABLE, **options) + other, BUDGET).solve()
    plan = co.Problem(term + other, BUDGET).solve(method=method)
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(truth.error, rel=1e-6)
    assert plan.error > 1.5 * without.error
    assert plan.error == pytest.approx(stated_value(term, plan) + stated_value(other, plan), rel=1e-6)
    assert sum(plan.breakdown.values()) == pytest.approx(plan.error, rel=1e-12)
    (added,) = [name for name in plan.breakdown if "beyond" in name]
    assert plan.breakdown[added] == pytest.approx(truth.breakdown["Crowding"], rel=1e-3)


def test_a_weighted_subclass_weighs_what_it_adds():
    plan = co.Problem(2 * heavy(co.ScoreError)(TABLE) + co.Discretization(TABLE), BUDGET).solve()
    terms = 2 * co.ScoreError(TABLE) + 2 * Crowding() + co.Discretization(TABLE)
    assert plan.error == pytest.approx(co.Problem(terms, BUDGET).solve().error, rel=1e-6)


def test_a_subclass_inside_a_bound_is_bounded_by_its_own_expression():
    rows = [
        co.named("quality", term <= 1.2e-3) for term in (heavy(co.ScoreError)(TABLE), co.ScoreError(TABLE) + Crowding())
    ]
    plan, truth = (co.Problem(co.Discretization(TABLE), [row, *BUDGET]).solve() for row in rows)
    assert plan.error == pytest.approx(truth.error, rel=1e-6)
    assert plan.shadow_prices["quality"] == pytest.approx(truth.shadow_prices["quality"], rel=1e-3)
    assert stated_value(heavy(co.ScoreError)(TABLE), plan) == pytest.approx(1.2e-3, rel=1e-6)


def test_a_schedule_of_ones_own_is_valued_by_the_subclass():
    problem = co.Problem(heavy(co.ScoreError)(TABLE) + co.Discretization(TABLE), BUDGET)
    best = problem.solve()
    proof = problem.certify(examples=0.9 * best.examples, steps=best.steps)
    assert proof.value == pytest.approx(
        sum(stated_value(t, replace(best, new_examples=0.9 * best.examples)) for t in
            (heavy(co.ScoreError)(TABLE), co.Discretization(TABLE))), rel=1e-9,
    )  # fmt: skip
    assert not proof.optimal


def test_prices_and_counts_of_ones_own_are_no_budgets_of_the_parents():
    class Surcharge(co.Compute):
        def expression(self, design):
            return super().expression(design) + 50.0 * cp.sum_squares(design.steps)

    class Double(co.Steps):
        def expression(self, design):
            return 2.0 * super().expression(design)

    terms = co.ScoreError(TABLE) + co.Discretization(TABLE)
    plan = co.Problem(terms, [Surcharge(PRICES) <= 1e5]).solve()
    paid = 3.0 * plan.examples.sum() + 2_000.0 * plan.steps.sum() + 1_000.0 + 50.0 * float(plan.steps @ plan.steps)
    assert paid == pytest.approx(1e5, rel=1e-6)
    assert plan.error > co.Problem(terms, BUDGET).solve().error * (1 + 1e-3)
    counted = co.Problem(terms, [*BUDGET, Double() <= 20.0]).solve()
    truth = co.Problem(terms, [*BUDGET, co.Steps() <= 10.0]).solve()
    assert counted.error == pytest.approx(truth.error, rel=1e-6)
    assert 2 * counted.shadow_prices["Double"] == pytest.approx(truth.shadow_prices["Steps"], rel=1e-4)


def test_a_helper_replaced_behind_the_expression_counts_as_another_expression():
    class Longer(co.ScoreError):
        def _reducible(self, *given):
            return 3.0 * super()._reducible(*given)

    tripled = replace(TABLE, score=3 * TABLE.score, untrained=3 * TABLE.untrained)
    plan = co.Problem(Longer(TABLE), BUDGET, steps=np.full(SIZE, 9.0 / SIZE)).solve(tolerance=1e-2)
    truth = co.Problem(co.ScoreError(tripled), BUDGET, steps=np.full(SIZE, 9.0 / SIZE)).solve()
    assert plan.error == pytest.approx(truth.error, rel=1e-2)
    assert plan.attempts[0]["solver"] == "CLARABEL"


def test_another_name_alone_changes_nothing_but_the_route():
    class Mine(co.ScoreError):
        name = "my score error"

    class Same(co.ScoreError):
        structured = True

    plain = co.Problem(co.ScoreError(TABLE) + co.Discretization(TABLE), BUDGET).solve()
    renamed = co.Problem(Mine(TABLE) + co.Discretization(TABLE), BUDGET).solve()
    said = co.Problem(Same(TABLE) + co.Discretization(TABLE), BUDGET).solve()
    assert renamed.error == pytest.approx(plain.error, rel=1e-6)
    assert renamed.attempts[-1]["solver"] == "CLARABEL"
    assert said.error == plain.error
    assert [a["solver"] for a in said.attempts] == ["dual Newton"]


def test_saying_structured_is_not_inherited():
    class Same(co.ScoreError):
        structured = True

    assert Same(TABLE).is_structured
    assert not heavy(Same)(TABLE).is_structured
    plan = co.Problem(heavy(Same)(TABLE) + co.Discretization(TABLE), BUDGET).solve()
    truth = co.Problem(co.ScoreError(TABLE) + Crowding() + co.Discretization(TABLE), BUDGET).solve()
    assert plan.error == pytest.approx(truth.error, rel=1e-6)


def test_a_subclass_that_does_not_add_is_solved_as_stated_and_not_at_its_parents_optimum():
    class Twice(co.ScoreError):
        def expression(self, design):
            return 2.0 * super().expression(design)

    problem = co.Problem(Twice(TABLE) + co.Discretization(TABLE), BUDGET)
    truth = co.Problem(2 * co.ScoreError(TABLE) + co.Discretization(TABLE), BUDGET).solve()
    best = problem.solve()
    assert best.certificate.method == "conic dual"
    assert best.error == pytest.approx(truth.error, rel=2e-6)
    doubled = sum(truth.breakdown[name] for name in ("score", "floor", "last evaluation"))
    assert best.breakdown["Twice"] == pytest.approx(doubled, rel=1e-2)


def test_an_own_m_of_a_coupling_is_solved_as_stated():
    class Doubled(co.Local):
        def factor(self, x):
            return 2.0 * super().factor(x)

        def slope(self, x):
            return 2.0 * super().slope(x)

        def expression(self, steps, scale):
            return 2.0 * super().expression(steps, scale)

        def product(self, examples, steps, scale):
            return 2.0 * super().product(examples, steps, scale)

    assert Doubled(2.7).form == "max"
    assert Doubled(2.7).known_form is None
    doubled = replace(TABLE, coupling=Doubled(2.7))
    plan = co.Problem(co.ScoreError(doubled) + co.Discretization(doubled), BUDGET).solve()
    errors = replace(TABLE, score=2 * TABLE.score, floor=2 * TABLE.floor, untrained=2 * TABLE.untrained)
    truth = co.Problem(co.ScoreError(errors) + co.Discretization(TABLE), BUDGET).solve()
    assert plan.error == pytest.approx(truth.error, rel=1e-6)


def test_forms_of_the_librarys_couplings():
    levels = TABLE.levels
    forms = [co.Local(2.0), co.Local(2.0, form="p4"), co.PerStep(2.0), co.Transfer(0.6), co.PerLevel([0.001, 90.0])]
    assert [c.solver_form(levels) for c in forms] == ["max", "p4", "per_step", None, None]
    assert [c.known_form for c in forms] == ["max", "p4", "per_step", "max", "max"]


def test_a_cap_with_a_row_more_is_no_bound_of_levels():
    class Corner(co.Cap):
        def constraints(self, design):
            return [*super().constraints(design), cp.sum(design.steps) <= 7.0]

    terms = co.ScoreError(TABLE) + co.Discretization(TABLE)
    plan = co.Problem(terms, [*BUDGET, Corner(1e9)]).solve()
    truth = co.Problem(terms, [*BUDGET, co.Steps() <= 8.0]).solve()
    assert plan.steps.sum() == pytest.approx(7.0, rel=1e-6)
    assert plan.error == pytest.approx(truth.error, rel=1e-6)


def test_a_penalty_that_is_not_convex_is_blamed_on_what_was_added():
    class Sunken(co.ScoreError):
        def expression(self, design):
            return super().expression(design) + cp.sum(cp.sqrt(design.examples))

    with pytest.raises(co.ConvexityError, match="Sunken beyond ScoreError"):
        co.Problem(Sunken(TABLE) + co.Discretization(TABLE), BUDGET)
