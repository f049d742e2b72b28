"""What the conic bound rests on: any dual, data that are the program declared, intervals of single levels."""

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.design import Point
from codesign_opt.programs import conic_proof
from codesign_opt.programs.attempts import first_point
from codesign_opt.programs.compiled import compile_problem
from codesign_opt.programs.conic_check import Declared
from codesign_opt.programs.conic_form import conic_form
from codesign_opt.programs.refutation import refutation
from tests.helpers.extensions import extensions
from tests.helpers.raw_user_programs import K, N, Plain, own

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PLAIN = Plain(10)
KINDS = ["L1 turnover", "maximum of two stages", "power -1.5", "max of 2", "largest five", "kl row", "semidefinite"]
LONG = np.longdouble


def declared(problem):
    """(compiled, form, the solver's answer, candidate)."""
    program = problem.declaration
    compiled = compile_problem(program, program.recentred(first_point(program)), program.box)
    form = conic_form(compiled)
    solution = form.solve(form.solve())
    return compiled, form, solution, candidate(compiled, form, solution)


def candidate(compiled, form, solution):
    design = compiled.design
    design.new_variable.value = np.maximum(solution.primal[form.examples], 1e-9)
    design.step_variable.value = np.maximum(solution.primal[form.steps], 1e-9)
    return design.point()


@pytest.mark.parametrize("name", KINDS if FULL else KINDS[::4])
def test_no_dual_whatever_gives_a_bound_above_the_optimum(monkeypatch, name):
    monkeypatch.setattr(Declared, "excess", lambda *_: 0.0)  # by the mathematics alone
    terms, rows, raw_terms, raw_rows, score = extensions(PLAIN)[name]
    truth = PLAIN.raw(raw_terms, raw_rows, score)
    compiled, form, solution, point = declared(PLAIN.problem(terms, rows, score))
    rng = np.random.default_rng(0)
    found = []
    for decade in np.repeat(np.arange(-9, 1), 3):
        shaken = solution.scaled_dual * np.exp(10.0**decade * rng.normal(size=len(solution.scaled_dual)))
        found.append(conic_proof.conic_bound(form, replace(solution, scaled_dual=shaken), compiled, point))
    assert max(found) <= truth * (1 + 1e-6)
    assert max(found) >= truth * (1 - 1e-4)  # and some of them prove something


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", ["L1 turnover", "power -1.5", "kl row"])
def test_data_that_are_not_the_program_declared_prove_nothing(monkeypatch, name):
    """Numbers of the translated program changed by some thousandths, as if they had been lost in rounding."""
    terms, rows, raw_terms, raw_rows, score = extensions(PLAIN)[name]
    truth = PLAIN.raw(raw_terms, raw_rows, score)
    compiled, form, plain, _ = declared(PLAIN.problem(terms, rows, score))
    held, caught = Declared.excess, 0
    for at in np.flatnonzero(form.kept)[np.argsort(-np.abs(plain.dual[form.kept]))[:6]]:
        right = form.program.right.copy()
        right[at] -= np.sign(plain.dual[at]) * 3e-3 * max(abs(right[at]), 1.0)
        other = replace(form, program=replace(form.program, right=right))
        solution = other.solve()
        if not solution.has_point:
            continue
        point = candidate(compiled, form, solution)
        monkeypatch.setattr(Declared, "excess", held)
        assert conic_proof.conic_bound(other, solution, compiled, point) <= truth * (1 + 1e-6)
        monkeypatch.setattr(Declared, "excess", lambda *_: 0.0)
        caught += conic_proof.conic_bound(other, solution, compiled, point) > truth * (1 + 1e-5)
    assert caught >= 2


def offset_functions(offset):
    """(as the user writes it, the same in longer numbers) of shares u, with a number that dwarfs the rest."""
    return [
        (
            lambda u: offset**0.7 * cp.sum(cp.power(u + offset, -0.7)),
            lambda u: LONG(offset) ** LONG(0.7) * np.sum((u + offset) ** LONG(-0.7)),
        ),
        (
            lambda u: 1e3 - cp.geo_mean(cp.hstack([u[0] + 1, u[1] + offset])) / offset**0.5,
            lambda u: 1000 - np.sqrt((u[0] + 1) * (u[1] + offset)) / LONG(offset) ** LONG(0.5),
        ),
        (
            lambda u: offset * cp.quad_over_lin(u[0] + 1, u[1] + offset),
            lambda u: offset * (u[0] + 1) ** 2 / (u[1] + offset),
        ),
        (lambda u: cp.sum_squares(u + offset) / offset, lambda u: np.sum((u + offset) ** 2) / offset),
        (
            lambda u: cp.max(cp.hstack([cp.inv_pos(u[0] + 1 / offset), offset - 1e3 * u[1]])),
            lambda u: np.maximum(1 / (u[0] + 1 / LONG(offset)), offset - 1000 * u[1]),
        ),
    ]


@pytest.mark.parametrize("seed", range(15) if FULL else range(3))
def test_a_large_number_beside_small_ones_gives_no_bound_above_a_feasible_value(seed):
    rng = np.random.default_rng([seed, 11])
    plain, offset = Plain(3), 10 ** rng.uniform(12 * (seed % 3) / 3, 12 * (seed % 3 + 1) / 3)
    stated, longer = offset_functions(offset)[seed % 5]
    problem = plain.problem([lambda d: 100 * stated(d.examples * 3 / N)])
    try:
        plan = problem.solve()
        proof = plan.certificate
    except co.NotCertifiedError as error:
        plan = error.plan
        if plan is None:
            return
        proof = plan.certificate
    design = problem.design(first_point(problem.declaration))
    pair = co.ScoreError(plain.table), co.Discretization(plain.table)
    for index in range(200):
        factors = np.exp(10 ** rng.uniform(-5, 0) * rng.normal(size=(2, 3)) * (index > 0))
        m, n = plan.new_examples * factors[0] + 1e-9 * N, plan.steps * factors[1] + 1e-9
        over = max(1.0, (m.sum() + 0.1 * N / K * n.sum()) / N, n.sum() / K)
        point = Point(m / over, np.zeros(3), n / over)
        value = sum(term.value(design, point) for term in pair) + 100 * float(longer(LONG(3) * point.examples / N))
        assert proof.lower_bound <= value + 1e-9 * abs(value)


def test_rows_of_one_level_are_intervals_and_rows_of_two_are_none():
    spent = np.full(10, 50.0)
    rows = [
        co.named("two times", lambda d: 2 * d.new_examples[3] <= 7e3),
        co.named("all in", lambda d: d.examples[4] <= 1e3),
        co.named("below", lambda d: 3 - 0.5 * d.steps[5] >= 1),
        co.named("above", lambda d: d.steps[2] >= 0.25),
        co.named("floor", lambda d: -d.new_examples[6] <= -80.0),
        co.named("two", lambda d: d.examples[7] + d.examples[8] <= 4e3),
        co.named("both", lambda d: d.examples[9] / 1e4 + d.steps[9] <= 3.0),
        co.named("curved", lambda d: cp.square(d.steps[0]) <= 4.0),
        co.named("several", lambda d: d.step_density[6:8] <= 30.0),
        co.named("equal", lambda d: d.steps[1] == 1.5),
    ]
    stated = co.ScoreError(PLAIN.table) + co.Discretization(PLAIN.table) + own(lambda d: cp.inv_pos(d.steps[0]))
    program = co.Problem(stated, [co.Steps() <= K, *rows], spent=spent).declaration
    reference = first_point(program)
    compiled = compile_problem(program, program.recentred(reference), program.box)
    box = conic_proof._boxed(compiled, reference)
    low, high = np.zeros(10), np.full(10, np.inf)
    high[3], high[4], low[6] = 3.5e3, 950.0, 80.0
    assert np.allclose(box.examples_box[0], low, rtol=1e-12)
    assert np.allclose(box.examples_box[1], high, rtol=1e-12)
    low, high = np.zeros(10), np.full(10, K)
    low[2], high[5], high[6:8] = 0.25, 4.0, np.minimum(30.0 * PLAIN.width[6:8], K)
    assert np.allclose(box.steps_box[0], low, rtol=1e-12)
    assert np.allclose(box.steps_box[1], high, rtol=1e-12)
    assert np.all(box.examples_box[1][[3, 4]] >= [3.5e3, 950.0])  # rounded outwards, never inwards
    assert box.examples_box[0][6] <= 80.0


@pytest.mark.parametrize("seed", range(4) if FULL else range(1))
def test_rows_with_variables_of_their_own_refute_nothing_that_is_feasible(seed):
    """They hold for some choice of those variables; a tangent at the choice at hand would say less of the design."""
    rng = np.random.default_rng(seed)
    m = rng.dirichlet(np.ones(10)) * 0.8 * N
    center = m * np.exp(rng.normal(size=10))
    away = np.abs(m - center).sum() * (1 + 1e-3)

    def turnover(design):
        above = cp.Variable(10)
        return [design.examples - center <= above, center - design.examples <= above, cp.sum(above) <= away]

    def asked(design):
        return cp.sum(design.examples[:4]) >= m[:4].sum()

    problem = PLAIN.problem([], [co.named("turnover", turnover), co.named("asked", asked)])
    program = problem.declaration
    for start in (first_point(program), Point(np.full(10, 1e-3 * N), np.zeros(10), np.full(10, K / 20))):
        assert refutation(program, start) is None
    proof = problem.solve().certificate
    x, y = cp.Variable(10, nonneg=True), cp.Variable(10, nonneg=True)
    rows = [cp.norm1(x - center / N) <= away / N, cp.sum(x[:4]) >= m[:4].sum() / N, cp.sum(y) <= 1]
    objective = PLAIN.score(x, K * y, PLAIN.error) + cp.sum_squares(PLAIN.response / K @ cp.inv_pos(y))
    truth = cp.Problem(cp.Minimize(objective), [*rows, cp.sum(x) + 0.1 * cp.sum(y) <= 1]).solve(solver="CLARABEL")
    assert proof.value == pytest.approx(truth, rel=2e-6)
