"""Worst cases, means of the worst, penalties, turnover and divergence: certified, and the optimum of a raw program."""

import os
from dataclasses import replace
from itertools import product

import cvxpy as cp
import numpy as np
import pytest
from scipy.integrate import quad

import codesign_opt as co
from tests.helpers.raw_programs import KINDS, budgets, by_hand, least, own, tables

LEVELS = (60, 200, 400) if os.environ.get("CODESIGN_OPT_FULL") == "1" else (60,)
TABLES = {size: tables(size) for size in LEVELS}
SIZE = 60
LIKE_ANOTHER = (  # of the same rows as another kind
    "worst of scores and the mean discretization", "worst of a mean and another", "turnover", "soft price",
    "soft floor", "divergence of shapes",
)  # fmt: skip


def options(size, case):
    spent = np.random.default_rng(size).uniform(0.0, 2e5 / size, size) if case == "spent" else None
    return {"spent": spent, "steps": np.full(size, 17.0 / size) if case == "steps" else None}


def check(kind, size, case):
    made, given = TABLES[size], options(size, case)
    limits = budgets()[:1] if case == "steps" else budgets()
    plan = co.Problem(KINDS[kind][0](made), limits, **given).solve()
    assert plan.certificate.relative_gap <= 1e-6
    assert by_hand(kind, made, plan, given["spent"]) == pytest.approx(plan.error, rel=1e-7)
    assert sum(plan.breakdown.values()) == pytest.approx(plan.error, rel=1e-12)
    truth = least(kind, made, **given)
    assert plan.error <= truth * (1 + 1e-6)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-9)
    return plan.error / truth - 1


@pytest.mark.cases(3)
@pytest.mark.parametrize("size", LEVELS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if len(LEVELS) > 1 or kind not in LIKE_ANOTHER])
def test_a_composed_term_is_certified_and_is_the_optimum_of_a_program_written_by_hand(kind, size):
    assert check(kind, size, "free") > -1e-6  # by hand it is no worse either, where both are decided


@pytest.mark.cases(2)
@pytest.mark.parametrize("case", ["spent", "steps"])
@pytest.mark.parametrize("kind", list(KINDS)[:: 1 if len(LEVELS) > 1 else 6])
def test_so_it_is_with_spent_examples_and_with_given_steps(kind, case):
    for size in LEVELS:
        check(
            kind, size, case
        )  # the raw solver is less exact there; the value and the bound are held to it all the same


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", ["worst of five", "turnover", "divergence of shapes", "soft floor"])
def test_the_number_of_levels_does_not_matter(kind):
    errors = []
    for size in (100, 200, 400) if len(LEVELS) > 1 else (40, 60):
        made = TABLES.get(size) or tables(size)
        errors.append(co.Problem(KINDS[kind][0](made), budgets()).solve().error)
    assert np.ptp(errors) <= 1e-3 * errors[-1]


@pytest.mark.cases(1)
@pytest.mark.parametrize("what", [co.Floor(2e4), co.Cap(3e3), co.Monotone("increasing")], ids=lambda what: what.name)
def test_squares_of_single_levels_are_integrated(what):
    costs = []
    for size in (60, 120):
        made = tables(size)[0]
        soft = co.SoftConstraint(what, 1e-13, norm="squared")
        plan = co.Problem(co.ScoreError(made) + co.Discretization(made) + soft, budgets()).solve()
        costs.append(plan.breakdown[soft.name])
        assert plan.certificate.relative_gap <= 1e-6
        if not isinstance(what, co.Monotone):
            density = plan.examples / made.log_width
            beyond = np.maximum(2e4 - density if isinstance(what, co.Floor) else density - 3e3, 0.0)
            assert costs[-1] == pytest.approx(1e-13 * (beyond**2 @ made.log_width), rel=1e-9)
    assert costs[0] > 0
    assert costs[0] == pytest.approx(costs[1], rel=2e-2)  # counted level by level it would be half


def test_scenarios_of_parts_that_state_no_levels_are_solved():
    made = TABLES[SIZE][0]
    worst = co.WorstCase({
        "scarce": co.SoftConstraint(co.Floor(2e4), 1e-9), "moved": co.Turnover(np.full(SIZE, 1e3), 1e-9)
    })  # fmt: skip
    assert co.Problem(co.ScoreError(made) + co.Discretization(made) + worst, budgets()).solve().certificate.optimal


def test_the_worst_case_names_its_scenarios_and_breaks_down_as_the_worst():
    low, high = TABLES[SIZE][1], TABLES[SIZE][4]
    plan = co.Problem(co.WorstCase({"rough": own(low), "smooth": own(high)}), budgets()).solve()
    (note,) = [note for note in plan.notes if "WorstCase" in note]
    assert "rough" in note
    assert "smooth" in note
    assert set(plan.breakdown) == {"score", "floor", "last evaluation", "discretization"}
    alone = [co.Problem(own(table), budgets()).solve().error for table in (low, high)]
    assert plan.error >= max(alone) * (1 - 1e-9)


def test_one_scenario_is_its_term_and_a_full_share_is_the_mean():
    table, other = TABLES[SIZE][2], TABLES[SIZE][0]
    alone = co.Problem(own(table), budgets()).solve().error
    assert co.Problem(co.WorstCase([own(table)]), budgets()).solve().error == pytest.approx(alone, rel=1e-6)
    mean = co.Problem((own(table) + own(other)) / 2, budgets()).solve().error
    assert co.Problem(co.CVaR([own(table), own(other)], 1.0), budgets()).solve().error == pytest.approx(mean, rel=1e-6)


def test_scenarios_may_differ_in_coupling_and_not_in_levels_or_sampler():
    table = TABLES[SIZE][2]
    short = replace(table, coupling=co.Local(1.0))
    plan = co.Problem(co.WorstCase([own(table), own(short)]), budgets()).solve()
    apart = [co.Problem(own(t), budgets()).solve().error for t in (table, short)]
    assert plan.error == pytest.approx(max(apart), rel=1e-2)
    assert plan.error >= max(apart) * (1 - 1e-9)
    for other, name in ((replace(table, order=1), "order"), (replace(table, terminal="rescale"), "terminal"),
                        (tables(50, 1)[0], "levels")):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            co.Problem(co.WorstCase([own(table), own(other)]), budgets())


def test_a_users_term_is_a_scenario_too():
    table = TABLES[SIZE][2]

    class Crowding(co.Term):
        def expression(self, design):
            return 3e-10 * cp.sum(cp.multiply(design.log_width, cp.power(design.density, 1.5)))

    plan = co.Problem(co.WorstCase([own(table) + Crowding(), own(TABLES[SIZE][1])]), budgets()).solve()
    crowd = 3e-10 * float(np.sum(table.log_width * (plan.examples / table.log_width) ** 1.5))
    errors = [co.Problem(own(t), budgets()).certify(examples=plan.examples, steps=plan.steps).value
              for t in (table, TABLES[SIZE][1])]  # fmt: skip
    assert plan.error == pytest.approx(max(errors[0] + crowd, errors[1]), rel=1e-9)
    for alone in (own(table) + Crowding(), own(TABLES[SIZE][1])):
        assert plan.error >= co.Problem(alone, budgets()).solve().error * (1 - 1e-6)


def test_an_l1_price_above_the_shadow_price_forbids_and_below_it_buys():
    table = TABLES[SIZE][2]
    hard = co.Problem(own(table), [co.Compute(co.Prices(3.0, 1.0, 10_000)) <= 3e5, co.Steps() <= 18]).solve()
    price = -hard.shadow_prices["Compute"]

    def soft(factor):
        limit = co.Compute(co.Prices(3.0, 1.0, 10_000)) <= 3e5
        return co.Problem(own(table) + co.SoftConstraint(limit, factor * price), [co.Steps() <= 18]).solve()

    dear, cheap = soft(1.5), soft(0.5)
    assert dear.error == pytest.approx(hard.error, rel=1e-6)
    assert any("is met" in note for note in dear.notes)
    assert cheap.breakdown["SoftConstraint(Compute)"] > 0
    assert cheap.error < hard.error
    assert any("violated by" in note for note in cheap.notes)


def test_misuse_is_refused_by_name():
    table = TABLES[SIZE][2]
    with pytest.raises(ValueError, match="empty"):
        co.WorstCase([])
    with pytest.raises(TypeError, match="scenario 1"):
        co.WorstCase([own(table), 3.0])
    with pytest.raises(ValueError, match="share"):
        co.CVaR([own(table)], 1.5)
    with pytest.raises(ValueError, match="probabilities"):
        co.CVaR([own(table)], 0.5, probabilities=[1, 2])
    with pytest.raises(ValueError, match="total"):
        co.Turnover(co.LogNormal())
    with pytest.raises(ValueError, match="60 are needed"):
        co.Problem(own(table) + co.Turnover([1.0, 2.0]), budgets())
    with pytest.raises(ValueError, match="no mass at sigma"):
        co.Problem(own(table) + co.KLDivergence(np.eye(60)[0]), budgets())
    with pytest.raises(ValueError, match="price"):
        co.SoftConstraint(co.Steps() <= 3, -1.0)
    with pytest.raises(co.ConvexityError, match="SoftConstraint"):
        co.Problem(own(table) + co.SoftConstraint(lambda d: cp.sqrt(d.density) <= 3.0, 1.0), budgets())


def test_a_part_that_is_no_convex_function_of_the_design_is_blamed_by_its_own_name():
    table = TABLES[SIZE][2]

    class Concave(co.Term):
        def expression(self, design):
            return cp.sum(cp.sqrt(design.density))

    worst = co.WorstCase([own(table), own(table) + Concave()])
    for objective, rows in ((worst, []), (own(table), [worst <= 1.0])):
        with pytest.raises(co.ConvexityError, match="Concave"):
            co.Problem(objective, [*budgets(), *rows])
    with pytest.raises(TypeError, match="not the design's"):
        co.Problem(own(table) + co.SoftConstraint(lambda d: cp.sum(cp.Variable(3)) <= 1, 1.0), budgets())


def coherent(table):
    distance = np.abs(np.subtract.outer(np.log(table.sigma), np.log(table.sigma)))
    return co.CoherentScore(table, np.exp(-distance) * np.sqrt(np.outer(table.score, table.score)))


def information():
    rng = np.random.default_rng(0)
    return co.InformationError(rng.normal(size=(SIZE, 2, 5)), rng.normal(size=(5, 2)), sigma=TABLES[SIZE][2].sigma)


class Kinked(co.Term):
    def expression(self, design):
        return 1e-9 * cp.norm1(cp.diff(design.density))


class KinkedByVariables(co.Term):
    """The same, with variables and rows of its own."""

    def expression(self, design):
        slope = cp.Variable(len(design) - 1)
        return 1e-9 * cp.sum(slope), [slope >= cp.diff(design.density), slope >= -cp.diff(design.density)]


@pytest.mark.slow
def test_a_users_term_with_variables_of_its_own_is_a_scenario():
    found = [
        co.Problem(co.WorstCase([own(TABLES[SIZE][2]) + kinked(), own(TABLES[SIZE][1])]), budgets()).solve().error
        for kinked in (Kinked, KinkedByVariables)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


PARTS = {
    "errors": own,
    "coherent": lambda t: coherent(t) + co.Discretization(t),
    "gram": lambda t: co.ScoreError(t) + co.GramDiscretization(t, "positive"),
    "smooth": lambda t: own(t) + co.Smooth(weight=1e-14),
    "divergence": lambda t: own(t) + co.KLDivergence(co.LogNormal(-1.2, 1.2), 1e-9),
    "turnover": lambda t: own(t) + co.Turnover(co.LogNormal(-1.2, 1.2), 1e-9, total=1.5e5),
    "information": lambda t: information() + co.Discretization(t),
    "kinked": lambda t: own(t) + Kinked(),
    "short coupling": lambda t: own(replace(t, coupling=co.Local(1.0))),
    "worst": lambda t: co.WorstCase([own(t), 0.7 * co.ScoreError(t) + 3 * co.Discretization(t)]),
}
PAIRS = [(one, other) for i, one in enumerate(PARTS) for other in list(PARTS)[i + 1 :]]


PLACES = ("worst", "risk", "bound", "soft")
SAMPLE = [  # every kind of term and every place
    ("worst", ("errors", "divergence")), ("risk", ("smooth", "turnover")), ("soft", ("information", "short coupling")),
    ("bound", ("coherent", "gram")), ("worst", ("kinked", "worst")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("place", "pair"), list(product(PLACES, PAIRS)) if len(LEVELS) > 1 else SAMPLE)
def test_any_two_kinds_of_terms_are_scenarios_of_one_term(pair, place):
    """The optimum is no worse than solving for the weights of a grid, and no grid's bound is above it."""
    one, other = PARTS[pair[0]](TABLES[SIZE][2]), PARTS[pair[1]](TABLES[SIZE][1])
    if place == "worst":
        problem = co.Problem(co.WorstCase([one, other]), budgets())
    elif place == "risk":
        problem = co.Problem(co.CVaR([one, other], 0.8), budgets())
    elif place == "soft":
        problem = co.Problem(one + co.SoftConstraint(other <= 1.1e-3, 0.5), budgets())
    else:
        limit = 1.3 * co.Problem(co.WorstCase([one, other]), budgets()).solve().error
        problem = co.Problem(
            co.Compute(co.Prices(3.0, 1.0, 10_000)), [co.WorstCase([one, other]) <= limit, co.Steps() <= 18]
        )
    plan = problem.solve()
    assert plan.certificate.optimal
    if place in ("worst", "risk"):  # weak duality: every allowed mean of the two is a lower bound
        weights = (0.45, 0.55) if place == "risk" else (0.2, 0.5, 0.8)
        for weight in weights if len(LEVELS) > 1 else weights[1:2]:
            mixed = co.CVaR([one, other], 1.0, probabilities=[weight, 1 - weight])
            mean = co.Problem(mixed, budgets()).solve(tolerance=1e-5).error
            assert mean <= plan.error * (1 + 2e-6)


@pytest.mark.parametrize("kind", ["worst", "tail"])
def test_levels_converge_to_the_continuous_optimum_with_the_square_of_their_width(kind):
    """Two spectra that mirror each other are equally bad at the optimum, (int sqrt((a + b) / 2) d log sigma)^2 / B.

    Of three, the third of them better everywhere, the worst two thirds are these two.
    """
    low, high, budget = np.log(0.01), np.log(10.0), 1e5

    def one(logs):
        return np.exp(np.sin(2 * logs) + 0.3 * logs)

    def other(logs):
        return one(low + high - logs)

    exact = quad(lambda t: np.sqrt((one(t) + other(t)) / 2), low, high, epsabs=0, epsrel=1e-12)[0] ** 2 / budget

    def found(size):
        levels = co.Levels.log_uniform(0.01, 10.0, size)
        logs = np.log(levels.sigma)
        made = [co.Coefficients(levels, score=score, floor=np.zeros(size), response=np.zeros((0, size)),
                                terminal="rescale") for score in (one(logs), other(logs), 0.2 * one(logs))]  # fmt: skip
        scores = [co.ScoreError(table) for table in made]
        term = co.WorstCase(scores) if kind == "worst" else co.CVaR(scores, 2 / 3)
        training = co.Compute(co.Prices(1.0, 1.0, 1), part="training") <= budget
        return co.Problem(term, [training], steps=np.full(size, 100.0)).solve(tolerance=1e-8).error

    sizes = np.array((100, 200, 400) if len(LEVELS) > 1 else (20, 40, 80))
    off = np.array([found(size) / exact - 1 for size in sizes])
    assert np.all(np.abs(off) <= 10.0 / sizes**2)
    assert off[:-1] / off[1:] == pytest.approx(4.0, rel=0.1)
