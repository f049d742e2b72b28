"""The closed forms of one level against brute minimisation; over arrays of any shape against each program alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from codesign_opt.solvers.joint.closed_forms import LevelForms
from codesign_opt.solvers.joint.program import FORMS
from codesign_opt.solvers.joint.roots import scaled_root
from codesign_opt.solvers.joint.sums import dot, mix, pick, weigh

ORDERS = (1, 2, 3, 4)


def multiplier(form, x):
    return {"max": np.maximum(1.0, x), "per_step": x, "settled": np.ones_like(x), "p4": (1 + x**4) ** 0.25}[form]


def levels(form, order, shape, seed, *, bounds="none"):
    """(forms, drag, step price, price): decades of everything, zeros among errors, floors and drags."""
    rng = np.random.default_rng(seed)
    errors, floors, kappa, drag, steps, examples = np.exp(rng.normal(0, 2, (6, *shape)))
    errors, floors = np.where(rng.random(shape) < 0.2, 0, errors), np.where(rng.random(shape) < 0.5, 0, floors)
    low = np.exp(rng.normal(0, 2, shape)) if bounds != "none" else np.zeros(shape)
    rest = {}
    if bounds == "boxes":
        rest = {"high": low * 4, "steps_low": np.full(shape, 0.05), "steps_high": np.full(shape, 20.0)}
    forms = LevelForms(form, order, errors, floors, kappa, low, floored=bounds != "none", **rest)
    return forms, order * drag, steps, examples


def lagrangian(forms, i, drag, steps, examples, n):
    """Least value of level i over T at n steps, written once more."""
    factor = multiplier(forms.form, forms.kappa.flat[i] / n)
    a, f = forms.errors.flat[i], forms.floors.flat[i]
    c, low = examples.flat[i], forms.low.flat[i]
    high = np.inf if forms.high is None else forms.high.flat[i]
    total = np.clip(np.sqrt(a * factor / c), low, high) if a > 0 else low
    score = a * factor / total if a > 0 else 0.0
    return score + f * factor + drag.flat[i] / forms.order / n**forms.order + steps.flat[i] * n + c * total


@pytest.mark.cases(12)
@pytest.mark.parametrize("bounds", ["none", "spent", "boxes"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_minimum_is_that_of_a_scan_and_a_line_search(form, order, bounds):
    forms, *prices = levels(form, order, (30,), order, bounds=bounds)
    with np.errstate(all="ignore"):
        found = forms.minimum(*prices)
    ends = (0.05, 20.0) if bounds == "boxes" else (1e-6, 1e6)
    for i in range(30):
        grid = np.geomspace(*ends, 400)
        best = int(np.argmin(lagrangian(forms, i, *prices, grid)))
        around = np.log(grid[max(best - 1, 0)]), np.log(grid[min(best + 1, 399)])
        truth = minimize_scalar(
            lambda t, i=i: lagrangian(forms, i, *prices, np.exp(t)), bounds=around, method="bounded",
            options={"xatol": 1e-12},
        ).fun  # fmt: skip
        assert lagrangian(forms, i, *prices, found.n[i]) <= truth * (1 + 1e-11)
        assert ends[0] <= found.n[i] <= ends[1]


@pytest.mark.parametrize("form", FORMS)
def test_examples_at_the_minimum_are_where_their_price_balances_the_score(form):
    forms, *prices = levels(form, 2, (40,), 7, bounds="boxes")
    with np.errstate(all="ignore"):
        found = forms.minimum(*prices)
    gain = found.score / found.total  # - d (A M / T) / d T
    free = found.free
    assert 0 < free.sum() < 40
    np.testing.assert_allclose(gain[free], prices[2][free], rtol=1e-12)
    held_low, held_high = ~free & (found.total == forms.low), ~free & (found.total == forms.high)
    assert (held_low | held_high | free).all()
    assert np.all(gain[held_low] <= prices[2][held_low] * (1 + 1e-12))
    assert np.all(gain[held_high] >= prices[2][held_high] * (1 - 1e-12))


@pytest.mark.parametrize("bounds", ["none", "spent"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_of_the_minimisers_match_finite_differences(form, order, bounds):
    forms, drag, steps, examples = levels(form, order, (40,), 11 + order, bounds=bounds)
    h = 1e-6
    with np.errstate(all="ignore"):
        at = forms.minimum(drag, steps, examples)
        up, down = (forms.minimum(drag, steps * np.exp(s * h), examples) for s in (1, -1))
        in_steps, half, in_examples = forms.second_derivatives(at)
    moved = np.log(up.n / down.n) / (2 * h)  # d log n / d log k = - k n / (second derivative in log n)
    same = (np.sign(up.n - forms.kappa) == np.sign(down.n - forms.kappa)) | (form != "max")
    kept = same & (up.free == down.free)
    np.testing.assert_allclose(moved[kept], (-steps * at.n * in_steps)[kept], rtol=2e-4, atol=1e-7)
    assert kept.sum() > 20
    if half is not None:  # d log T = - half d log n where T is free
        turned = np.where(at.free, np.log(np.maximum(up.total, 1e-300) / np.maximum(down.total, 1e-300)), 0) / (2 * h)
        np.testing.assert_allclose(turned[kept], (-half * moved)[kept], rtol=2e-3, atol=1e-6)
    free = at.free & kept
    np.testing.assert_allclose(in_examples[free], 0.5 / (examples * at.total)[free], rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_slack_bounds_what_an_unconverged_number_of_steps_costs(form):
    forms, *prices = levels(form, 2, (200,), 3)
    with np.errstate(all="ignore"):
        best = forms.minimum(*prices)
        wrong = forms.minimum(*prices)
        wrong.n = best.n * np.exp(np.random.default_rng(0).normal(0, 0.2, 200))
        wrong.factor, wrong.excess, wrong.slope = forms.factor(forms.safe(wrong.n))
        wrong.total, wrong.free = forms.examples(prices[2], forms.errors * wrong.factor)
        wrong.score = np.where(forms.trains, forms.errors * wrong.factor / wrong.total, 0.0)
        wrong.power, wrong.moving = forms.power(forms.safe(wrong.n)), None
        slack = forms.slack(wrong)
    values = [np.array([lagrangian(forms, i, *prices, s.n[i]) for i in range(200)]) for s in (best, wrong)]
    assert np.all(values[1] - slack <= values[0] * (1 + 1e-12))
    assert np.median(slack / values[0]) < 0.2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", ["max", "per_step", "settled", "p4"])
def test_many_programs_at_once_are_each_of_them(form, order):
    forms, *prices = levels(form, order, (6, 25), 5, bounds="spent")
    with np.errstate(all="ignore"):
        whole = forms.minimum(*prices)
        for r in range(6):
            rows = [getattr(forms, name)[r] for name in ("errors", "floors", "kappa", "low")]
            alone = LevelForms(form, order, *rows).minimum(*(price[r] for price in prices))
            for name in ("n", "total", "score", "power", "factor", "excess"):
                np.testing.assert_allclose(getattr(whole, name)[r], getattr(alone, name), rtol=1e-11, atol=0)


def test_rows_of_a_minimum_are_taken_and_put_back_with_what_none_stands_for():
    per_step, *prices = levels("per_step", 1, (3, 4), 0)
    with np.errstate(all="ignore"):
        first = per_step.minimum(*prices)
        second = per_step.minimum(*(2 * price for price in prices))
    first.moving, first.slope, second.slope = None, None, np.full((3, 4), 0.5)
    second.moving = np.zeros((3, 4), dtype=bool)
    first[np.array([1])] = second[np.array([1])]
    assert first.moving.tolist() == [[True] * 4, [False] * 4, [True] * 4]
    assert first.slope[:, 0].tolist() == [0.0, 0.5, 0.0]
    np.testing.assert_array_equal(first.n[1], second.n[1])
    second.moving = None
    first[np.array([1])] = second[np.array([1])]
    assert first.moving.all()


@pytest.mark.parametrize("order", ORDERS)
def test_scaled_root_solves_its_equation(order):
    rng = np.random.default_rng(order)
    short, half, floor, cap = np.exp(rng.normal(0, 4, (4, 50)))
    half[::3], floor[::5], short[1::9] = 0, 0, 0
    for held in (None, cap):
        found = scaled_root(order, short, half, floor, held)
        for i in range(50):
            at_cap = 0.0 if held is None else cap[i]

            def off(t, i=i, at_cap=at_cap):
                n = np.exp(t)
                score = max((half[i] / n) ** 1.5, (at_cap / n) ** 2)
                return (short[i] / n) ** (order + 1) + score + (floor[i] / n) ** 2 - 1

            assert found[i] == pytest.approx(np.exp(brentq(off, -40, 40, xtol=1e-13)), rel=1e-11)


def test_sums_are_those_of_einsum_for_one_program_and_for_many():
    rng = np.random.default_rng(0)
    for shape in ((), (5,)):
        rows, weights, values = rng.random((*shape, 3, 7)), rng.random((*shape, 3)), rng.random((*shape, 7))
        np.testing.assert_allclose(mix(weights, rows), np.einsum("...j,...jl->...l", weights, rows))
        np.testing.assert_allclose(weigh(rows, values), np.einsum("...jl,...l->...j", rows, values))
        np.testing.assert_allclose(dot(values, values), np.einsum("...l,...l->...", values, values))
        place = values.argmax(axis=-1)
        np.testing.assert_array_equal(pick(values, place), values.max(axis=-1))
