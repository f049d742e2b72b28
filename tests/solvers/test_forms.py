"""The interior-point method for quadratic forms, against cvxpy with every pair of levels spelled out."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from codesign_opt.solvers.forms.interior import solve_forms
from codesign_opt.solvers.forms.newton import NewtonSystem
from codesign_opt.solvers.forms.program import FormProgram
from codesign_opt.solvers.forms.steps_alone import steps_alone
from codesign_opt.solvers.joint.program import JointProgram

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SIZE = 6
SIGNED = "signed"


def random_program(seed):
    """Every part in or out by the seed; coefficients over four decades."""
    rng = np.random.default_rng(seed)

    def spread(*shape):
        return 10 ** rng.uniform(-1, 1, shape)

    def maybe(value, chance=0.5):
        return value if rng.random() < chance else None

    form = ["max", "per_step", "settled", "p4"][seed % 4]
    kind = ["positive", "coherent", SIGNED, "pooled"][seed // 4 % 4]
    order = int(rng.integers(1, 4))
    room = float(100 * spread())
    rows = rng.normal(size=(8, SIZE)) * spread(SIZE)
    window = np.where(np.arange(SIZE) < 2, 1.0, 0.0)
    final = maybe(float(spread()))
    count = 1 + (rng.random() < 0.3)
    joint = JointProgram(
        np.zeros(SIZE) if kind == "coherent" else spread(SIZE),
        np.zeros(SIZE) if kind == "coherent" else 0.01 * spread(SIZE) * rng.integers(0, 2),
        spread(SIZE),
        np.zeros((0, SIZE)),
        order,
        spread(count, SIZE),
        spread(count, SIZE),
        room * np.array([1.0, 0.7])[:count],
        spent=maybe(spread(SIZE) * rng.integers(0, 2, SIZE)),
        steps_low=maybe(np.full(SIZE, 0.2 * room / SIZE / 10)),
        steps_high=maybe(np.full(SIZE, room)),
        examples_high=maybe(np.full(SIZE, 1e3 * room)),
        final_error=0.0 if final is None else final,
        final_window=None if final is None else window,
        form=form,
    )
    pairs = rng.normal(size=(4, SIZE)) * spread(SIZE)
    pooling = np.exp(-0.5 * (np.subtract.outer(np.arange(SIZE), np.arange(SIZE)) / 1.3) ** 2)
    return FormProgram(
        joint,
        np.maximum(pairs.T @ pairs, 0) if kind == "coherent" else None,
        None if kind == SIGNED else np.maximum(rows.T @ rows, 0),
        rows if kind == SIGNED else None,
        pooling / pooling.sum(axis=1, keepdims=True) if kind == "pooled" else None,
    )


def spelled_out(program):
    """The optimum by CLARABEL in logarithms of pairs: nothing of the library's formulations."""
    joint = program.joint
    unit = float(joint.budgets[0] / (2 * SIZE))
    examples, steps = unit * cp.Variable(SIZE), unit * cp.Variable(SIZE)
    spent = np.zeros(SIZE) if joint.spent is None else joint.spent
    total = spent + examples
    serving = total if program.pooling is None else program.pooling @ total
    rows = [examples >= 0, steps >= 0]
    rows += [joint.examples_prices @ examples + joint.steps_prices @ steps <= joint.budgets]
    for bound, sign, what in (
        (joint.steps_low, 1, steps), (joint.steps_high, -1, steps), (joint.examples_high, -1, total),
    ):  # fmt: skip
        rows += [] if bound is None else [sign * what >= sign * bound]
    log_m, log_n = cp.log(serving), cp.log(steps)

    def form(matrix, logs, power):
        i, j = np.nonzero(matrix)
        return matrix[i, j] @ cp.exp(-power * (logs[i] + logs[j]))

    error = 0.0
    on = np.flatnonzero(joint.errors > 0)
    if on.size:
        a, kappa = joint.errors[on], joint.kappa[on]
        alone, stretched = a @ cp.inv_pos(serving[on]), cp.exp(np.log(kappa) - log_m[on] - log_n[on])
        floors = joint.floors[on]
        if joint.form == "max":
            error += a @ cp.maximum(cp.inv_pos(serving[on]), stretched)
            error += floors @ cp.maximum(1.0, cp.multiply(kappa, cp.inv_pos(steps[on])))
        elif joint.form == "per_step":
            error += a @ stretched + floors @ cp.multiply(kappa, cp.inv_pos(steps[on]))
        elif joint.form == "settled":
            error += alone + floors.sum()
        else:
            for k, level in enumerate(on):
                both = cp.hstack([cp.inv_pos(serving[level]), stretched[k]])
                error += a[k] * cp.pnorm(both, 4)
                error += floors[k] * cp.pnorm(cp.hstack([1.0, kappa[k] * cp.inv_pos(steps[level])]), 4)
    if joint.final_error > 0:
        error += joint.final_error * cp.inv_pos(joint.final_window @ total)
    if program.examples_form is not None:
        error += form(program.examples_form, cp.log(total), 0.5)
    if program.steps_form is not None:
        error += form(program.steps_form, log_n, joint.order)
    if program.signed_rows is not None:
        u = cp.Variable(SIZE)
        rows += [unit**-joint.order * u >= cp.power(steps, -joint.order)]
        if joint.steps_low is not None:
            rows += [unit**-joint.order * u <= joint.steps_low**-joint.order]
        error += cp.sum_squares(program.signed_rows @ u * unit**-joint.order)
    problem = cp.Problem(cp.Minimize(error), rows)
    problem.solve(solver="CLARABEL")
    return problem.value


def error_of(program, examples, steps):
    """The objective from its definition."""
    joint = program.joint
    serving = examples if program.pooling is None else program.pooling @ examples
    x = joint.kappa / steps
    factor = {"max": np.maximum(1, x), "per_step": x, "settled": 1.0, "p4": (1 + x**4) ** 0.25}[joint.form]
    error = np.sum((joint.errors / serving + joint.floors) * factor)
    if joint.final_error > 0:
        error += joint.final_error / (joint.final_window @ examples)
    for matrix, v in ((program.examples_form, examples**-0.5), (program.steps_form, steps ** -float(joint.order))):
        error += 0.0 if matrix is None else v @ matrix @ v
    if program.signed_rows is not None:
        error += np.sum((program.signed_rows @ steps ** -float(joint.order)) ** 2)
    return error


@pytest.mark.cases(8)
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("seed", range(160 if FULL else 32))
def test_optimum_is_that_of_cvxpy_with_every_pair_spelled_out(seed):
    program = random_program(seed)
    found = solve_forms(program)
    assert found is not None
    joint = program.joint
    spent = 0.0 if joint.spent is None else joint.spent
    used = joint.examples_prices @ (found.examples - spent) + joint.steps_prices @ found.steps
    assert np.all(used <= joint.budgets * (1 + 1e-9))
    assert np.all(found.examples >= spent)
    assert np.all((joint.steps_low is None) | (found.steps >= (0.0 if joint.steps_low is None else joint.steps_low)))
    error = error_of(program, found.examples, found.steps)
    if program.signed_rows is not None:  # the relaxation's optimum is below; equal where u = n^-q
        assert error >= spelled_out(program) * (1 - 1e-6)
    else:
        reference = spelled_out(program)  # cones of all pairs leave it up to 1e-5 above
        assert reference * (1 - 1e-5) <= error <= reference * (1 + 1e-6)


@pytest.mark.parametrize("seed", [1, 5, 9, 13])
def test_budget_multipliers_are_finite_differences(seed):
    program = random_program(seed)
    joint = program.joint
    found = solve_forms(program)
    change = 1e-4 * joint.budgets[0]
    first = np.eye(len(joint.budgets))[0]
    near = [replace(joint, budgets=joint.budgets + sign * change * first) for sign in (1, -1)]
    error = [
        error_of(program, each.examples, each.steps) for each in (solve_forms(replace(program, joint=j)) for j in near)
    ]
    slope = (error[1] - error[0]) / (2 * change)
    assert found.budget_multipliers[0] == pytest.approx(slope, rel=1e-5, abs=1e-8 * error[0] / joint.budgets[0])


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("kept", [(2,), (0, 2), (3,), (0,)])
def test_newton_system_is_the_dense_one(kept, pooled):
    rng = np.random.default_rng(len(kept) + 10 * pooled)
    size, borders = 5, rng.normal(size=(2, 4, 5))
    factors = rng.normal(size=(size, 4, 4))
    blocks = factors @ factors.transpose(0, 2, 1) + np.eye(4)
    dense = {q: (lambda f: f @ f.T)(rng.normal(size=(size, size))) for q in kept}
    frozen = rng.random((4, size)) < 0.2
    pooling = rng.random((size, size)) if pooled else None
    own, rates = rng.random(size) if pooled else 0.0, rng.random(2) + 0.1
    whole = np.zeros((4, size, 4, size))
    for level in range(size):
        whole[:, level, :, level] = blocks[level]
    spread = np.eye(4 * size)
    if pooled:
        spread[:size, :size] = pooling
    matrix = spread.T @ whole.reshape(4 * size, -1) @ spread
    for q, form in dense.items():
        matrix[q * size : (q + 1) * size, q * size : (q + 1) * size] += form
    if pooled:
        matrix[:size, :size] += np.diag(own)
    flat = borders.reshape(2, -1)
    matrix += flat.T @ np.diag(rates) @ flat
    side, move = rng.normal(size=(4, size)), ~frozen.ravel()
    expected = np.zeros(4 * size)
    expected[move] = np.linalg.solve(matrix[np.ix_(move, move)], side.ravel()[move])
    found, pulls = NewtonSystem(blocks, dense, borders, rates, frozen, pooling, own).factored()(side)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(pulls, rates * (flat @ expected), rtol=1e-8, atol=1e-10)


def test_a_program_without_a_feasible_point_is_no_answer():
    program = random_program(0)
    bad = replace(program, joint=replace(program.joint, steps_low=np.full(SIZE, 1e9), steps_high=None))
    assert solve_forms(bad) is None


def test_a_system_that_is_not_positive_definite_is_refused():
    blocks = np.tile(np.diag([1.0, 1.0, -2.0, 1.0]), (3, 1, 1))
    none = np.zeros((0, 4, 3))
    assert NewtonSystem(blocks, {2: np.eye(3)}, none, np.zeros(0), np.zeros((4, 3), dtype=bool)).factored() is None


def signed_steps(seed):
    """Signed rows under a budget of steps alone: rows that agree to rows that all but cancel, prices of their own."""
    rng = np.random.default_rng(seed)
    size, count = int(rng.integers(2, 9)), int(rng.integers(1, 6))
    rows = (rng.normal(size=(count, size)) + rng.uniform(0, 2)) * 10 ** rng.uniform(-3, 3, size)
    none, prices = np.zeros(size), 10 ** rng.uniform(-1, 1, (1, size))
    joint = JointProgram(
        none, none, np.ones(size), np.zeros((0, size)), int(rng.integers(1, 4)), 0 * prices, prices,
        10 ** rng.uniform(0, 3, 1),
    )  # fmt: skip
    return FormProgram(joint, signed_rows=rows)


def test_signed_rows_under_a_budget_of_steps_end_where_no_other_steps_are_better():
    """By duality of its own arithmetic: c = 2 R'p > 0 at p = R u proves steps with n ~ (c/a)^(1/(q+1)) optimal."""
    taken = 0
    for seed in range(60):
        program = signed_steps(seed)
        found = steps_alone(program)
        if found is None:  # errors that cancel altogether, or the steps of a level that only cancels others
            continue
        taken += 1
        joint, q = program.joint, float(program.joint.order)
        prices, budget = joint.steps_prices[0], float(joint.budgets[0])
        u = found.steps**-q
        np.testing.assert_allclose(prices @ found.steps, budget, rtol=1e-12)
        p = program.signed_rows @ u
        c = 2 * p @ program.signed_rows
        assert np.all(c > 0)
        least = np.sum((c * prices**q) ** (1 / (q + 1))) ** (q + 1) / budget**q  # of c.u, by Hölder's inequality
        assert least - p @ p >= (1 - 1e-9) * (p @ p), seed  # a lower bound that the candidate's |p|^2 meets
        paid, worth = found.budget_multipliers[0] * prices * found.steps, q * c * u
        np.testing.assert_allclose(paid, worth, rtol=0, atol=1e-6 * paid.sum())
    assert taken >= 30


def test_steps_alone_and_the_interior_point_method_agree(monkeypatch):
    for seed in range(12):
        program = signed_steps(seed)
        found = solve_forms(program)
        monkeypatch.setattr("codesign_opt.solvers.forms.interior.steps_alone", lambda program: None)
        other = solve_forms(program)
        monkeypatch.undo()
        if other is not None:
            errors = [float(np.sum((program.signed_rows @ each.steps**-float(program.joint.order)) ** 2))
                      for each in (found, other)]  # fmt: skip
            assert errors[0] <= (1 + 1e-7) * errors[1], seed
