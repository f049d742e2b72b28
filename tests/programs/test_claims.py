"""Claims: infeasible with a proof and amounts in the user's units, unbounded by name, and nothing claimed wrongly."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.certificate.verdict import Certificate
from codesign_opt.modeling.design import Point
from codesign_opt.programs.attempts import first_point
from codesign_opt.programs.conflicts import diagnose
from codesign_opt.programs.unlimited import refuse_unlimited
from tests.helpers.infeasible import KINDS, complaint

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SLOW = {"shares", "share_floor_and_cap", "user_sums", "monotone_floor_and_cap"}
LIKE_ANOTHER = {"floor_and_budget", "steps_and_step_size", "ball_and_cap"}  # rows of the same kinds
KIN = {"ball_and_sum", "largest_and_sum", "steps_and_trust"}  # of the divergence, of the vector, of the stable step
TABLE = co.GaussianModel(
    co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun(),
    training=co.AveragedSGD(prior=None),  # every level needs examples
).coefficients(levels=60)  # fmt: skip
S, D = co.ScoreError(TABLE), co.Discretization(TABLE)
SMALL = co.GaussianModel(
    co.Spectrum.power_law(4, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun(),
    training=co.AveragedSGD(prior=None),
).coefficients(levels=10)  # fmt: skip
FEW = co.ScoreError(SMALL) + co.Discretization(SMALL)
PRICES = co.Prices(3.0, 1.0, 10_000)
BUDGETS = [co.Compute(PRICES) <= 1e6, co.Steps() <= 18]


QUICK = [*sorted(set(KINDS) - SLOW - LIKE_ANOTHER), "shares"]


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "kind", KINDS if FULL else [pytest.param(k, marks=[pytest.mark.slow] if k in KIN else []) for k in QUICK]
)
def test_conflicts_are_named_with_the_amounts_of_closed_forms_and_remedies_solve(kind):
    for seed in range(25) if FULL else (8,):  # six levels
        assert complaint(KINDS[kind](np.random.default_rng(100 + seed))) is None, (kind, seed)


@pytest.mark.parametrize("kind", KINDS if FULL else sorted(set(KINDS) - SLOW)[::5])
def test_a_thin_feasible_set_is_never_refuted(kind):
    """Each conflict relaxed by a thousandth more than it needs: whatever else happens, nothing is proved empty."""
    for seed in range(8) if FULL else range(1):
        instance = KINDS[kind](np.random.default_rng(200 + seed))
        for name in instance.amounts:
            program = instance.relaxed(name, 1.001).declaration
            diagnose(program, first_point(program))


def test_feasible_programs_far_from_their_first_reference_are_solved():
    width = TABLE.log_width
    present = np.exp(-((np.log(TABLE.sigma) + 1.2) ** 2) / 2.88) * width
    z = (TABLE.sigma > 0.09) & (TABLE.sigma < 0.43)
    rows = [*BUDGETS, co.named("more", lambda d: cp.sum(d.new_examples[z]) >= 1e4)]
    spent = present / present.sum() * 5e5
    plan = co.Problem(S + D, rows, spent=spent).solve()
    assert plan.error == pytest.approx(8.5454e-4, rel=1e-4)
    table = co.Coefficients(
        co.Levels.log_uniform(0.01, 10, 20), np.tile([1.0, 0.0], 10), np.zeros(20), np.ones((1, 20)),
        terminal="rescale",
    )  # fmt: skip
    rows = [co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6, lambda d: cp.sum(d.examples[1::2]) >= 3e5]
    plan = co.Problem(co.ScoreError(table) + co.Discretization(table), rows).solve()
    assert plan.certificate.optimal
    assert plan.examples[1::2].sum() >= 3e5 * (1 - 1e-6)


@pytest.mark.parametrize("levels", [20, 120] if FULL else [20, 60])
def test_amounts_do_not_depend_on_the_number_of_levels(levels):
    table = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(levels=levels)
    terms = co.ScoreError(table) + co.Discretization(table)
    problem = co.Problem(terms, [co.Compute(PRICES) <= 1e9, co.Floor(1e4), co.Cap(5e3)])
    with pytest.raises(co.InfeasibleError, match=r"lower value of 'Floor\(density\)' to 5,000") as caught:
        problem.solve()
    assert [c["amount"] for c in caught.value.conflicts] == pytest.approx([5e3, 5e3], rel=1e-6)


def test_where_one_constraint_alone_does_not_suffice_a_set_that_works_together_is_told():
    def problem(floor, step):
        rows = [co.Floor(floor, high=0.1), co.Cap(5e3, high=0.1), co.Floor(step, "steps"), co.Cap(0.05, "steps")]
        return co.Problem(FEW, [co.Compute(PRICES) <= 1e9, *rows])

    with pytest.raises(co.InfeasibleError, match="none of them can be relaxed enough alone; together") as caught:
        problem(1e4, 0.1).solve()
    found = {c["name"]: c["together"] for c in caught.value.conflicts}
    assert all(c["amount"] is None for c in caught.value.conflicts)
    moved = {name: amounts[0] for name, amounts in found.items() if amounts is not None and amounts[0] > 1e-6}
    assert set(moved) == {"Floor(density, to 0.1)", "Floor(steps)"}
    floor, step = 1e4 - 1.01 * moved["Floor(density, to 0.1)"], 0.1 - 1.01 * moved["Floor(steps)"]
    assert problem(floor, step).solve().certificate.optimal


@pytest.mark.slow
def test_constraints_that_leave_nothing_where_the_error_needs_some_are_named():
    """Zero is admitted by them all, and the error is infinite there."""
    coarse = co.GaussianModel(
        co.Spectrum.power_law(4, exponent=1.5), sampler=co.Heun(), training=co.AveragedSGD(prior=None)
    ).coefficients(levels=8)
    cases = (
        ([co.Share(0.3, 0.001, 0.02), co.Share(0.3, 0.02, 1), co.Share(0.3, 1, 100)], "Share"),
        ([co.Share(0.0, 0.01, 0.1)], "Share"),
        ([co.named("none", lambda d: cp.sum(d.examples[:5]) <= 0)], "none"),
        ([co.Cap(0.0, high=0.1)], r"Cap\(density, to 0.1\)"),
        ([co.Cap(0.0, "steps", high=0.1)], r"Cap\(steps, to 0.1\)"),
    )
    for rows, name in cases if FULL else cases[::4]:  # rows of the user's: test_limits_of_zero.py
        with pytest.raises(co.InfeasibleError, match=f"{name}.*leave.* no (examples|steps) at sigma"):
            co.Problem(co.ScoreError(coarse) + co.Discretization(coarse), [*BUDGETS, *rows]).solve()


def test_without_a_proof_nothing_is_called_infeasible(monkeypatch):
    """The solver says "infeasible", rightly; the library says so only with a proof of its own."""
    monkeypatch.setattr("codesign_opt.programs.conflicts.refutation", lambda program, start: None)
    monkeypatch.setattr("codesign_opt.programs.conflicts.starvation", lambda program, needs, start: None)
    with pytest.raises(co.NotCertifiedError, match="No feasible point was found, and infeasibility is not proved"):
        co.Problem(FEW, [*BUDGETS, co.Floor(1e5)]).solve()


def test_a_cap_of_zero_forbids_nothing_where_no_term_needs_examples():
    class Pays(co.Term):
        def expression(self, design):
            return -1e-6 * cp.sum(design.examples)

    plan = co.Problem(D + Pays(), [co.Cap(0.0, high=0.1), co.Compute(PRICES) <= 1e6]).solve()
    assert plan.certificate.optimal
    assert np.all(plan.examples[TABLE.sigma <= 0.1] == 0)


@pytest.mark.slow
def test_what_nothing_limits_is_named_with_its_levels():
    class Pays(co.Term):
        def expression(self, design):
            return -1e-6 * cp.sum(design.examples)

    table = co.GaussianModel(
        co.Spectrum.power_law(4, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun()
    ).coefficients(levels=20 if FULL else 6)
    errors, centres = co.ScoreError(table) + co.Discretization(table), table.sigma
    below = rf"{centres[0]:.3g} to {centres[centres <= 1.0][-1]:.3g}"
    training = co.Compute(co.Prices(3.0, 1.0, 1), part="training") <= 1e6
    for terms, rows, message in (
        (errors + Pays(), BUDGETS[1:], "nothing limits the examples, .*Pays without end"),
        (errors, [BUDGETS[1], co.Cap(1e4, low=1.0)], f"nothing limits the examples at sigma {below}"),
        (errors, [training, co.Cap(3.0, "steps", low=1.0)], "nothing limits the steps at sigma"),
    ):
        with pytest.raises(co.UnboundedError, match=message):
            co.Problem(terms, rows).solve()


def test_mixes_without_end_of_what_each_alone_is_held_by_others_are_named():
    """Two levels tied to each other, a gain at another's price, steps tied: a direction, followed by value."""

    class Swap(co.Term):
        def expression(self, design):
            return 1e-9 * (design.examples[0] - 2 * design.examples[1])

    size = len(SMALL.levels)
    start = Point(np.full(size, 1e3), np.zeros(size), np.full(size, 0.5))
    sampling = co.Compute(PRICES, part="sampling") <= 1e6
    training = co.Compute(PRICES, part="training") <= 1e6
    others = co.named("others", lambda d: cp.sum(d.examples[2:]) <= 1e3 * size)
    low, high = (f"{sigma:.3g}" for sigma in SMALL.sigma[:2])

    def apart(design):
        return design.examples[0] - 0.7 * design.examples[1]

    cases = (
        (FEW, [sampling, others, co.named("tied", lambda d: d.examples[0] == d.examples[1])], "examples"),
        (FEW + Swap(), [sampling, others, co.named("tied", lambda d: d.examples[1] <= 1.5 * d.examples[0])],
         "examples"),
        (FEW, [training, co.named("tied", lambda d: d.steps[0] == d.steps[1]),
               co.named("few", lambda d: cp.sum(d.steps[2:]) <= size)], "steps"),
        # rows that cancel along the mix: a kink, a curve, and sums whose differences have no digits far out
        (FEW, [sampling, others, co.named("near", lambda d: cp.abs(apart(d)) <= 400.0)], "examples"),
        (FEW, [sampling, others, co.named("near", lambda d: cp.norm(cp.hstack([apart(d), apart(d) / 3])) <= 400.0)],
         "examples"),
        (FEW, [sampling, co.named("all but", lambda d: cp.sum(d.examples) - cp.sum(d.examples[:2]) <= 1e3 * size),
               co.named("tied", lambda d: d.examples[0] / 3 == d.examples[1] / 3)], "examples"),
    )  # fmt: skip
    for terms, rows, quantity in cases:
        program = co.Problem(terms, rows).declaration
        with pytest.raises(co.UnboundedError, match=f"nothing limits the {quantity} at sigma {low} to {high} together"):
            refuse_unlimited(program, start)
    ends = (  # the same, where the gain does not pay, where the mix has an end, and where it is curved
        (FEW + Swap(), [sampling, others, co.named("tied", lambda d: 3 * d.examples[1] <= d.examples[0])]),
        (FEW, [sampling, others, cases[0][1][2], co.named("end", lambda d: d.examples[0] + d.examples[1] <= 1e9)]),
        (FEW, [sampling, others, co.named("tied", lambda d: cp.square(d.examples[0]) <= 1e6 * d.examples[1]),
               co.named("back", lambda d: d.examples[1] <= 1.5 * d.examples[0])]),
        (FEW, [sampling, others, co.named("near", lambda d: apart(d) <= 400.0),  # to 4e11
               co.named("hardly", lambda d: (1 - 1e-9) * d.examples[0] >= 0.7 * d.examples[1])]),
    )  # fmt: skip
    for terms, rows in ends:
        refuse_unlimited(co.Problem(terms, rows).declaration, start)


@pytest.mark.parametrize("quantity", ["examples", "steps"])
def test_shares_of_everything_below_one_are_named_where_the_error_is_finite_without_any(quantity):
    """A design of nothing meets them, and is nobody's plan: 0.3 + 0.25 + 0.2 of the whole, a fourth share needless."""
    table = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5), sampler=co.Heun()).coefficients(levels=8)
    flat = replace(table, response=np.zeros((0, len(table.levels))), floor=np.zeros(len(table.levels)))
    steps = np.full(len(table.levels), 2.0) if quantity == "examples" else None
    objective = co.ScoreError(flat) if quantity == "examples" else co.Steps() + 0 * co.Discretization(flat)
    given = {"steps": steps} if quantity == "examples" else {"examples": np.ones(len(table.levels))}
    cuts = (0.001, 0.02, 1.0, 100.0)

    def rows(*limits):
        return [
            co.Share(limit, low, high, quantity) for limit, low, high in zip(limits, cuts[:-1], cuts[1:], strict=True)
        ]

    budget = co.Compute(PRICES, part="training" if quantity == "examples" else "sampling") <= 1e6
    with pytest.raises(co.InfeasibleError, match=f"leave no {quantity} at all") as caught:
        co.Problem(objective, [budget, *rows(0.3, 0.25, 0.2), co.Share(0.9, 0.01, 0.1, quantity)], **given).solve()
    assert [record["amount"] for record in caught.value.conflicts] == pytest.approx([0.25] * 3, rel=1e-12)
    assert co.Problem(objective, [budget, *rows(0.3, 0.25, 0.4501)], **given).solve().certificate.optimal


@pytest.mark.parametrize("limit", [1e101, 1e160, 1e300, -1e200, 1e-160, 5e-324])
def test_limits_beyond_what_can_be_computed_with_are_refused_by_name_and_amount(limit):
    with pytest.raises(ValueError, match=f"limit of 'Compute' is {limit:g}.*another unit".replace("+", r"\+")):
        co.Problem(FEW, [co.Compute(PRICES) <= limit])


def test_what_a_budget_prices_is_not_called_unlimited_however_much_it_allows():
    problem = co.Problem(FEW, [co.Compute(PRICES) <= 1e99])
    refuse_unlimited(problem.declaration, first_point(problem.declaration))
    rows = [co.Compute(PRICES, part="sampling") <= 1e6, co.Cap(1e4, low=1.0)]
    problem = co.Problem(FEW, rows)
    with pytest.raises(co.UnboundedError, match="nothing limits the examples"):
        refuse_unlimited(problem.declaration, first_point(problem.declaration))


def test_a_value_below_its_lower_bound_is_not_called_optimal_whatever_its_violations_cost():
    """Budgets a hair above the floors: a violation of 1e-7 is worth a thousandth of the error."""
    from codesign_opt.programs.proof import relative_gap

    assert relative_gap(4.6442, 4.6490, 4.6442, price=0.0048, tolerance=1e-6) < -1e-4
    assert not Certificate(4.6442, 4.6490, -1e-3, 1e-8).optimal
    assert relative_gap(np.inf, 1.0, np.inf, tolerance=1e-6) == np.inf
    prices = co.Prices(1.0, 1.0, 1)
    steps = np.ones(len(TABLE.levels))
    floor = 10.0
    needed = floor * float(TABLE.log_width.sum())
    for room in (1e-9, 1e-7, 1e-5):
        rows = [co.Compute(prices, part="training") <= needed * (1 + room), co.Floor(floor, low=0.003)]
        try:
            plan = co.Problem(S, rows, steps=steps).solve()
        except co.NotCertifiedError:
            continue
        assert plan.error >= plan.certificate.lower_bound * (1 - 2e-6)


def test_certify_refuses_fewer_examples_than_are_spent():
    problem = co.Problem(S + D, BUDGETS, spent=np.full(60, 10.0))
    with pytest.raises(ValueError, match=r"examples are 5 at index 3 \(sigma = .*fewer than the 10 already spent"):
        problem.certify(examples=np.where(np.arange(60) == 3, 5.0, 20.0), steps=np.full(60, 0.2))
    proof = problem.certify(examples=np.full(60, 10.0), steps=np.full(60, 0.2))
    assert proof.relative_gap > 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0.0, r"Problem.steps is 0 at index 7 \(sigma = .*infinite without any"),
        ("examples", 0.0, r"Problem.examples is 0 at index 7 \(sigma = .*infinite without any"),
        ("steps", np.nan, "Problem.steps is nan at index 7"),
        ("steps", 1e300, r"Problem.steps is 1e\+300 at index 7"),
        ("examples", 1e300, r"Problem.examples is 1e\+300 at index 7"),
    ],
)
def test_given_quantities_that_make_no_finite_error_are_refused_by_field_and_level(name, value, message):
    given = np.where(np.arange(60) == 7, value, 1.0)
    with pytest.raises(ValueError, match=message):
        co.Problem(S + D, BUDGETS, **{name: given})


def test_zero_steps_are_accepted_where_nothing_needs_any():
    table = replace(TABLE, score=np.where(np.arange(60) == 7, 0.0, TABLE.score), final_score=0.0)
    steps = np.where(np.arange(60) == 7, 0.0, 1.0)
    plan = co.Problem(co.ScoreError(table), [co.Compute(PRICES, part="training") <= 1e6], steps=steps).solve()
    assert plan.certificate.optimal


@pytest.mark.parametrize("kind", ["steps", "examples"])
def test_given_quantities_that_touch_a_limit_are_not_refuted_for_a_rounding(kind):
    """Rows of what is given are numbers; at equality they are off by a rounding either way."""
    edges = np.exp(np.sort(np.random.default_rng(1646).uniform(-5.0, 2.0, 8)))
    levels = co.Levels(edges)
    table = co.Coefficients(levels, np.ones(7), np.zeros(7), np.ones((1, 7)), order=2)
    given = 0.1 * levels.log_width / levels.log_width.sum()  # one density everywhere
    quantity = "step_density" if kind == "steps" else "density"
    rows = [co.Monotone("decreasing", quantity), co.Monotone("increasing", quantity)]
    rows += [co.named("even", lambda d: cp.diff(getattr(d, quantity)) == 0)]
    error, paid = co.ScoreError(table) + co.Discretization(table), co.Prices(1.0, 100.0, 1.0)
    fixed = {"steps": 1e3 * given} if kind == "steps" else {"examples": 1e5 * given}
    for scale in (1.0, 0.1, 30.0):
        fixed = {name: scale * value for name, value in fixed.items()}
        plan = co.Problem(error, [co.Compute(paid) <= 1e5 * scale, *rows], **fixed).solve()
        assert plan.certificate.optimal
    off = fixed[kind] * np.linspace(1.0, 1.0 + 1e-6, 7)
    with pytest.raises(co.InfeasibleError, match="Monotone"):
        co.Problem(error, [co.Compute(paid) <= 1e5 * scale, *rows[:2]], **{kind: off}).solve()
