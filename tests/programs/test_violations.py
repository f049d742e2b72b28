"""Violations as an author counts them, (value - limit) / |limit|, and candidates brought back to what they miss."""

from __future__ import annotations

import os
import warnings
from itertools import combinations

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.constraints import Named
from codesign_opt.modeling.design import Box, Design, Point
from codesign_opt.programs.attempts import first_point
from codesign_opt.programs.compiled import Compiled
from codesign_opt.programs.restored import restored
from codesign_opt.programs.scaling import rows_of

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

LEVELS = co.Levels.log_uniform(0.01, 10.0, 6)


def generated(seed):
    """A point with examples over some decades, another beside it, and rows on it: (name, row, value in numpy)."""
    rng = np.random.default_rng(seed)
    examples = 10 ** rng.uniform(0, 12) * np.exp(rng.normal(0, 2, 6))
    steps = np.exp(rng.normal(1, 1, 6))
    weights, centre, unit = rng.uniform(0.5, 2, 6), examples * np.exp(rng.normal(0, 0.5, 6)), examples.max()
    power = float(rng.choice([1.0, 2.0, 4.0, 6.0]))
    large = examples / rng.uniform(20, 80)
    kinds = {
        "sum": (lambda d: weights @ d.examples, lambda m, n: weights @ m),
        "power": (lambda d: weights @ cp.power(d.steps, -power), lambda m, n: weights @ n**-power),
        "square of a sum": (
            lambda d: cp.square(weights @ cp.power(d.steps, -power)),
            lambda m, n: (weights @ n**-power) ** 2,
        ),
        "exponential": (lambda d: cp.max(cp.exp(d.examples / large)), lambda m, n: np.max(np.exp(m / large))),
        "norm": (lambda d: cp.norm(d.examples - centre) / unit, lambda m, n: np.linalg.norm(m - centre) / unit),
        "levels": (lambda d: d.examples, lambda m, n: m),
        "inverse": (lambda d: cp.inv_pos(weights @ d.examples), lambda m, n: 1 / (weights @ m)),
    }
    point = Point(examples, np.zeros(6), steps)
    off = Point(examples * (1 + 1e-6 * rng.normal(size=6)), np.zeros(6), steps * (1 + 1e-6 * rng.normal(size=6)))
    return rng, point, off, kinds


@pytest.mark.cases(3)
@pytest.mark.parametrize("seed", range(12))
def test_a_violation_is_what_the_author_of_a_row_counts(seed):
    rng, point, off, kinds = generated(seed)
    for name, (said, counted) in kinds.items():
        limit = counted(point.new_examples, point.steps) * (1 - 10 ** rng.uniform(-9, -1))
        for at in (point, off):
            design = Design.declare(LEVELS, reference=point)
            (row,) = rows_of(Named(name, lambda d, said=said, limit=limit: said(d) <= limit), design)
            design.set(at)
            expected = np.max((counted(at.new_examples, at.steps) - limit) / np.abs(limit))
            assert row.violation(at) == pytest.approx(max(expected, 0.0), rel=1e-5, abs=1e-12), name


def test_where_there_is_no_number_to_compare_with_the_pieces_are_what_a_violation_is_held_against():
    _, point, _, _ = generated(0)
    for said in (lambda d: d.examples[0] <= d.examples[1], lambda d: d.examples[0] - d.examples[1] <= 0):
        design = Design.declare(LEVELS, reference=point)
        (row,) = rows_of(Named("order", said), design)
        at = Point(np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.0]), np.zeros(6), point.steps)
        design.set(at)
        assert row.violation(at) == pytest.approx((3.0 - 1.0) / (3.0 + 1.0))


@pytest.mark.parametrize("seed", range(12))
def test_the_nearest_point_that_meets_linear_rows_is_found(seed):
    """Least sum of squared relative changes, against the best of all sets of rows met exactly."""
    rng = np.random.default_rng(seed)
    examples, steps = np.exp(rng.normal(8, 3, 6)), np.exp(rng.normal(1, 1, 6))
    costs = rng.uniform(0.1, 3, (4, 12)) * np.where(rng.random((4, 12)) < 0.7, 1.0, 0.0)
    point = np.concatenate([examples, steps])
    costs /= point
    limits = costs @ point * (1 + 1e-5 * rng.normal(size=4))  # some are missed, some have a little room
    design = Design.declare(LEVELS, reference=Point(examples, np.zeros(6), steps))
    rows = []
    for index in range(4):
        sign = 1.0 if index else -1.0  # the first is a lower bound
        rows += rows_of(
            Named(
                f"row {index}",
                lambda d, i=index, s=sign: s * (costs[i, :6] @ d.examples + costs[i, 6:] @ d.steps) <= s * limits[i],
            ),
            design,
        )
    compiled = Compiled(design, Box.empty(6), [], rows, 1.0, None)
    candidate = Point(examples, np.zeros(6), steps)
    design.set(candidate)
    missed = compiled.infeasibility(candidate)
    found = restored(compiled, candidate)
    signs = np.array([-1.0, 1.0, 1.0, 1.0])
    slope, room = signs[:, None] * costs * point, signs * (limits - costs @ point)
    sets = [list(chosen) for k in range(5) for chosen in combinations(range(4), k)]
    changes = [np.linalg.pinv(slope[chosen]) @ room[chosen] for chosen in sets]
    least = min((x for x in changes if np.all(slope @ x <= room + 1e-14)), key=np.linalg.norm)
    if found is None:
        assert missed == 0.0
        return
    design.set(found)
    assert compiled.infeasibility(found) <= 1e-13
    moved = np.concatenate([found.new_examples, found.steps]) / point - 1
    np.testing.assert_allclose(moved, least, rtol=1e-6, atol=1e-8 * np.abs(least).max())


@pytest.mark.parametrize("seed", [0, 1, 25, 28, 38] if FULL else [0, 25])
def test_the_cheapest_plan_for_a_target_meets_it_as_its_author_counts(seed):
    """A target of powers of sums beside floors: pieces of such a row come to many times its limit."""
    rng = np.random.default_rng(seed)
    size, order = int(rng.choice([3, 5, 8])), int(rng.choice([1, 2, 3]))
    levels = co.Levels.log_uniform(0.02, 0.02 * 10 ** rng.uniform(0.5, 3), size)
    table = co.Coefficients(
        levels, score=np.exp(rng.normal(size=size)), floor=1e-3 * np.exp(rng.normal(size=size)),
        response=np.exp(rng.normal(size=(1, size))), order=order, coupling=co.Local(1.0), terminal="rescale",
    )  # fmt: skip
    examples, steps = 10 ** rng.uniform(1, 8) * levels.log_width, rng.uniform(3, 30) * np.exp(rng.normal(size=size))

    def error(m, n):
        slower = np.maximum(levels.log_width / 1.0 / n, 1.0)
        score = (table.example_error / m + table.floor_error) * slower
        return float(score.sum() + np.sum(np.abs(table.step_response[0]) * n**-order) ** 2)

    target = 1.3 * error(examples, steps)
    prices = co.Prices(float(10 ** rng.uniform(-3, 3)), 1.0, 100)
    plan = co.Problem(co.Compute(prices), [co.ScoreError(table) + co.Discretization(table) <= target]).solve()
    assert plan.certificate.optimal
    assert (error(plan.examples, plan.steps) - target) / target <= 1e-7


@pytest.mark.parametrize("seed", [0, 7, 18, 24, 36] if FULL else [0, 18])
def test_beside_a_row_that_takes_nearly_all_of_the_budget_the_rest_is_right(seed):
    """Then steps decide the error, by Hoelder's inequality in closed form, and examples elsewhere hardly matter."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice([6, 12, 30]))
    levels = co.Levels.log_uniform(0.01, 30.0, size)
    response = np.exp(rng.normal(size=size))
    table = co.Coefficients(
        levels, score=1e-6 * np.exp(rng.normal(size=size)), floor=np.zeros(size), response=response[None], order=2,
        coupling=co.Local(1.0), terminal="rescale",
    )  # fmt: skip
    cost, cheap = np.exp(rng.normal(0, 0.5, size)), np.zeros(size, bool)
    cheap[np.argmin(cost)] = True
    wanted, evaluation = 10 ** rng.uniform(2, 8), 10 ** rng.uniform(-2, 4)
    least = float(cost[cheap][0] * wanted)
    left = least * 10 ** rng.uniform(-4, -2)
    prices = co.Prices(cost, np.full(size, evaluation), 1.0)
    plan = co.Problem(
        co.ScoreError(table) + co.Discretization(table),
        [co.Compute(prices) <= least + left, co.named("more", lambda d: cp.sum(d.examples[cheap]) >= wanted)],
    ).solve()
    assert plan.certificate.optimal
    assert np.sum(plan.examples[cheap]) >= wanted * (1 - 1e-7)
    rate = table.step_response[0]
    alone = np.sum(rate ** (1 / 3)) ** 6 / (left / evaluation) ** 4
    steps = rate ** (1 / 3) / np.sum(rate ** (1 / 3)) * left / evaluation

    def feasible(share):
        """The error where a share of what is left buys examples elsewhere, the same amount of money on each level."""
        bought = np.where(cheap, wanted, share * left / (size - 1) / cost)
        slower = np.maximum(table.kappa / ((1 - share) * steps), 1.0)
        return alone / (1 - share) ** 4 + float(table.example_error / bought @ slower)

    least_found = min(feasible(share) for share in 10 ** np.linspace(-20, -0.1, 200))
    assert plan.certificate.lower_bound <= least_found
    assert alone * (1 - 1e-6) <= plan.error <= least_found * (1 + 2e-6)


@pytest.mark.parametrize("holds", [True, False])
def test_rows_of_numbers_alone_that_overflow_are_told_without_a_warning(holds):
    table = co.Coefficients(LEVELS, np.ones(6), np.zeros(6), np.ones((1, 6)))

    def row(design):  # numbers, as the examples are given
        return cp.exp(design.examples) >= 1.0 if holds else cp.exp(design.examples) <= 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = co.ScoreError(table) + co.Discretization(table)
        problem = co.Problem(parts, [co.Steps() <= 20, co.named("more", row)], examples=np.full(6, 1e4))
        if holds:
            assert problem.solve().certificate.optimal
        else:
            with pytest.raises(co.InfeasibleError, match="more"):
                problem.solve()


@pytest.mark.parametrize("share", [1e-6, 1e-3, 1.0])
def test_sums_of_given_examples_that_are_mostly_spent_lift_no_bound(share):
    """A sum that equals its number but for rounding, priced by a solver's garbage, is a number times that rounding."""
    rng = np.random.default_rng(3)
    levels = co.Levels.log_uniform(0.01, 10.0, 12)
    table = co.Coefficients(levels, np.exp(rng.normal(size=12)), np.zeros(12), np.ones((1, 12)), terminal="rescale")
    spent, new = 1e14 * np.exp(rng.normal(size=12)), share * 1e14 * np.exp(rng.normal(size=12))
    given = spent + new
    total = float(np.nextafter(np.nextafter(sum(137.0 * m for m in given[::-1]), np.inf), np.inf))
    row = co.named("total", lambda d: cp.sum(137.0 * d.examples) == total)
    program = co.Problem(
        co.ScoreError(table) + co.Discretization(table), [co.Steps() <= 40, row], spent=spent, examples=given
    ).declaration
    rows = rows_of(program.constraints[-1], program.design(first_point(program)))
    assert all(np.all(each.expression.value == 0) for each in rows)
