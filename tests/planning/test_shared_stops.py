"""Shared parameters searched over stopping points: bounds of intervals against solved stopping points inside."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.interval_program import interval_program
from codesign_opt.planning.question import Study
from codesign_opt.planning.stopping_points import _interval_bound, _solve
from tests.helpers.shared_gains import shared_gains

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PRICES = co.Prices(3.0, 1.0, 1000)
INTERVALS = [(0.0025, 0.02), (0.004, 0.3), (0.01, 0.1), (0.05, 0.003)]  # start, width in log sigma


def study_of(prices=PRICES, run=None, **options):
    model, term = shared_gains(**options)
    return Study(model, prices, 1e5, None, run, (), [term], len(term.levels), 1e-6)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "study",
    [
        study_of(),
        study_of(terminal="denoise"),
        study_of(sampler=co.Euler(), prior=1e3, levels=30),
        study_of(prices=co.Prices(lambda s: 1 + 3 * (s > 0.0045) + s**0.2, lambda s: 1 + s, 1000)),
        study_of(run=co.TrainingRun(density=co.LogNormal(-2.0, 2.0), iterations=50, batch=64), levels=30),
    ],
    ids=["rescale", "denoise", "prior", "prices", "run"],
)
def test_no_stopping_point_of_an_interval_is_better_than_its_bound(study):
    rng = np.random.default_rng(0)
    for start, width in INTERVALS if FULL else INTERVALS[1::2]:
        low, high = start, start * np.exp(width)
        near = _solve(study, start * np.exp(width * rng.uniform(-0.5, 1.5)), None)
        bound = _interval_bound(study, low, high, near)
        inside = [_solve(study, stop, near).error for stop in np.geomspace(low, high, 4 if FULL else 3)]
        assert bound <= min(inside) * (1 + 1e-9)
        assert bound >= min(inside) * (1 - 8 * width)  # it shrinks to the error with the interval


def test_the_bound_of_a_single_stopping_point_is_its_certified_error():
    study = study_of()
    for stop in (0.003, 0.02):
        solved = _solve(study, stop, None)
        found = _interval_bound(study, stop, stop * (1 + 1e-9), solved)
        assert found == pytest.approx(solved.error, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("terminal", ["rescale", "denoise"])
def test_the_search_over_stopping_points_is_proved_optimal(terminal):
    model, term = shared_gains(terminal=terminal)
    search = (0.002, 0.02) if FULL else (0.004, 0.01)
    plan = co.codesign(model, PRICES, 1e5, terms=[term], levels=60, points=4, search=search, polish=False)
    assert plan.outer["status"] == "optimal"
    assert plan.breakdown["InformationError"] > 0
    study = Study(model, PRICES, 1e5, None, None, (), [term], 60, 1e-6)
    for stop in np.geomspace(1.05 * search[0], 0.95 * search[1], 6 if FULL else 3):
        assert _solve(study, stop, None).error >= plan.outer["lower_bound"] * (1 - 1e-9)
    assert plan.handed_out["InformationError"] > 0
    assert plan.handed_out["score"] == 0


def test_a_cut_level_counts_with_its_part_and_keeps_its_information():
    model, term = shared_gains(levels=30)
    whole = term.at_levels(term.levels)
    assert np.allclose(whole.response @ whole.response.T, _outer(term.response.sum(axis=0) * term.factors(0.002)))
    stop = float(term.levels.sigma[4])
    cut = term.at_levels(model.coefficients(stop, 30).levels)
    response = (0.5 * term.response[4] + term.response[5:].sum(axis=0)) * term.factors(stop)
    assert np.allclose(cut.response @ cut.response.T, _outer(response))
    assert np.allclose(cut.features, term.features[4:])
    assert np.allclose(cut.residual_variance, term.residual_variance[4:])


def _outer(root):
    return root @ root.T


def test_shared_parameters_may_be_bounded_by_name():
    model, term = shared_gains(levels=30)
    table = model.coefficients(0.004, levels=30)
    plan = co.Problem(co.Compute(PRICES), [term + co.Discretization(table) <= 1e-3, co.Steps() <= 40]).solve()
    assert plan.certificate.optimal
    point = co.Point(plan.new_examples, np.zeros(len(table.levels)), plan.steps)
    value = term.at_levels(table.levels).error(plan.examples) + co.Discretization(table).value(None, point)
    assert value == pytest.approx(1e-3, rel=1e-6)


def test_bad_input_is_named():
    levels = co.Levels.log_uniform(0.01, 10.0, 4)
    good = co.SharedParameters(levels, np.ones((4, 1, 2)) * [1, 2], np.ones((4, 2, 1)) * [[1], [2]])
    with pytest.raises(ValueError, match=r"SharedParameters\.levels is 3"):
        replace(good, levels=3)
    with pytest.raises(ValueError, match=r"SharedParameters\.response"):
        replace(good, response=np.ones((4, 3, 1)))
    with pytest.raises(ValueError, match=r"SharedParameters\.factor"):
        replace(good, factor=lambda stop: np.ones(3))
    with pytest.raises(ValueError, match="state them over the whole range"):
        good.at_levels(co.Levels.log_uniform(0.001, 10.0, 4))
    with pytest.raises(ValueError, match="add a prior or features"):
        replace(good, response=np.ones((4, 2, 1)))


@pytest.mark.slow
def test_constraints_beside_shared_parameters_are_bounded_by_programs_of_intervals():
    """Floors, and a user's term that says that it is nested, hold in the program below those of an interval."""
    model, term = shared_gains(levels=30, terminal="denoise")
    floor = co.Floor(300.0, low=0.1, high=1.0)
    study = Study(model, PRICES, 1e5, None, None, (floor,), [term, Wear()], 30, 1e-6)
    near = study.solve(0.0038)
    for low, width in ((0.004, 0.2), (0.005, 0.01)):
        high = low * np.exp(width)
        bound = interval_program(study, low, high, near).problem.solve().certificate.lower_bound
        inside = [study.solve(stop).error for stop in np.geomspace(low, high, 3 if FULL else 2)]
        assert bound <= min(inside) * (1 + 1e-9)
        assert bound >= min(inside) * (1 - 8 * width)


@pytest.mark.slow
def test_the_search_is_proved_optimal_beside_a_floor():
    model, term = shared_gains(levels=20, terminal="denoise")
    plan = co.codesign(
        model, PRICES, 1e5, terms=[term], constraints=[co.Floor(300.0, low=0.1, high=1.0)], levels=20, points=3,
        search=(0.004 if FULL else 0.0045, 0.005), polish=False, outer_tolerance=3e-3,
    )  # fmt: skip
    assert plan.outer["status"] == "optimal"
    assert plan.outer["lower_bound"] <= plan.error


class Wear(co.Term):
    """A price of many examples at one noise level, an integral of something nonnegative."""

    nested = True

    def expression(self, design):
        return 1e-13 * cp.sum(cp.multiply(design.log_width, cp.square(design.density)))
