"""Robust plans: a raw cvxpy program of one's own, and the worst case by brute force."""

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.coefficient_sets import _Ball
from codesign_opt.planning.question import Study

PRICES, BUDGET, STOP = co.Prices(3.0, 1.0, 1e3), 3e5, 0.05


def model(seed=0):
    spectrum = co.Spectrum.power_law(4, 1.5)
    rows = np.random.default_rng(seed).normal(size=(40, 4)) * np.sqrt(spectrum.eigenvalues)
    return co.GaussianModel(co.Spectrum.from_samples(rows), sampler=co.Euler(), training=co.AveragedSGD(prior=None))


def slopes_of(which, table, reach):
    """(L + 1, K) relative derivatives of score error and last evaluation, by other differences than the library's."""
    known = which.unknowns()
    rows = []
    for column in known.factor.T:
        up, down = (known.moved(s * 1e-5 * column).coefficients(STOP, table.levels) for s in (1, -1))
        rows.append([
            *(np.log(up.score / down.score) / 2e-5), np.log(up.final_score / down.final_score) / 2e-5,
        ])  # fmt: skip
    return reach * np.array(rows).T


def raw_program(table, slopes, limit):
    """min over (m, n) of max over |z| <= 1: epigraphs of every level's error, and one second-order cone."""
    size = len(table.levels)
    m, n, error = cp.Variable(size, pos=True), cp.Variable(size, pos=True), cp.Variable(size + 1)
    m0, n0 = BUDGET / 2 / 3.0 / size, BUDGET / 2 / 1e3 / size
    product = cp.exp(-cp.log(m) - cp.log(n))
    unit = float(table.example_error.sum() / m0)
    rows = [
        error[:size] >= cp.multiply(table.example_error / m0 / unit,
                                    cp.maximum(cp.inv_pos(m), cp.multiply(table.kappa / n0, product))),
        error[size] >= table.final_score / m0 / unit * cp.inv_pos(table.final_window @ m),
        3.0 * m0 * cp.sum(m) + 1e3 * n0 * cp.sum(n) <= limit - 1e3,
    ]  # fmt: skip
    steps = cp.sum_squares((table.step_response / n0 / np.sqrt(unit)) @ cp.inv_pos(n))
    problem = cp.Problem(cp.Minimize(cp.sum(error) + cp.norm(slopes.T @ error) + steps), rows)
    problem.solve(solver="CLARABEL")
    return unit * problem.value + table.truncation + table.initial


def test_the_worst_case_over_an_ellipsoid_is_that_of_a_raw_second_order_cone_program():
    own, reach = model(), 2.0
    found = co.robust(own, PRICES, BUDGET, within=co.Ellipsoid(reach), stopping_sigma=STOP, levels=14)
    table = Study(own, PRICES, BUDGET, None, None, (), (), 14, 1e-8).table(STOP)
    assert found.worst == pytest.approx(raw_program(table, slopes_of(own, table, reach), BUDGET), rel=1e-6)
    assert 0 <= found.relative_gap <= 1e-6
    assert found.worst < found.nominal_worst * (1 - 1e-4)  # where it matters
    assert found.price > 1e-4
    assert found.error >= found.nominal_error


def test_no_coefficients_of_an_ellipsoid_are_worse_than_the_worst():
    own = model()
    study = Study(own, PRICES, BUDGET, None, None, (), (), 14, 1e-8)
    table, plan = study.table(STOP), study.solve(STOP)
    near = co.Ellipsoid(2.0).at(own, table)
    assert isinstance(near, _Ball)
    point = co.Point(plan.new_examples, np.zeros(len(table.levels)), plan.steps)
    score = co.ScoreError(table)
    errors = np.concatenate([*score.levels_value(point), score.final_value(point)])
    worst = co.ScoreError(near.worst(table, point).of(table)).value(None, point)
    z = np.random.default_rng(1).normal(size=(20_000, near.slopes.shape[1]))
    tried = (1 + (z / np.linalg.norm(z, axis=1)[:, None]) @ near.slopes.T) @ errors
    assert tried.max() <= worst * (1 + 1e-12)
    toward = near.slopes.T @ errors
    assert worst == pytest.approx(errors @ (1 + near.slopes @ toward / np.linalg.norm(toward)), rel=1e-12)


def test_a_box_is_the_program_of_its_upper_corner_and_the_stopping_point_is_searched():
    own, box = model(), co.Box(score=lambda sigma: 3.0 * (sigma > 0.5), response=0.4, last=0.2, truncation=0.1)
    found = co.robust(own, PRICES, BUDGET, within=box, levels=20)
    assert found.worst <= found.nominal_worst
    assert found.relative_gap <= 1e-6
    assert found.worst >= found.error >= found.nominal_error * (1 - 1e-6)
    table = own.coefficients(found.plan.stopping_sigma, 20)
    wide = np.where(table.sigma > 0.5, 4.0, 1.0)
    corner = co.Coefficients(
        table.levels, table.score * wide, table.floor, table.response * 1.4, coupling=table.coupling,
        final_score=1.2 * table.final_score, truncation=1.1 * table.truncation, initial=1.1 * table.initial,
    )  # fmt: skip
    terms = co.ScoreError(corner) + co.Discretization(corner)
    best = co.Problem(terms, [co.Compute(PRICES) <= BUDGET]).solve(tolerance=1e-7)
    assert best.error + corner.truncation + corner.initial == pytest.approx(found.worst, rel=1e-6)


def test_what_cannot_be_is_refused_by_name():
    stated = co.GaussianModel(co.Spectrum.power_law(4, 1.5))
    with pytest.raises(ValueError, match="no number of the model is measured"):
        co.robust(stated, PRICES, BUDGET, within=co.Ellipsoid(), stopping_sigma=STOP, levels=14)
    with pytest.raises(ValueError, match=r"Ellipsoid.reach is 50.*it might be negative"):
        co.robust(model(), PRICES, BUDGET, within=co.Ellipsoid(50.0), stopping_sigma=STOP, levels=14)
    with pytest.raises(ValueError, match=r"Box.score is -0.1"):
        co.Box(score=-0.1)
    with pytest.raises(ValueError, match=r"within is 0\.1"):
        co.robust(stated, PRICES, BUDGET, within=0.1)
