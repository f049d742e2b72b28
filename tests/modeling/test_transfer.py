"""Learning from other levels and coherent score errors, against descents from many starts and closed forms."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

import codesign_opt as co
from codesign_opt.modeling import Point
from codesign_opt.models.estimated import _coupling
from tests.helpers.descent import descent

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def levels_of(size):
    return co.Levels.log_uniform(0.05, 20.0, size)


def table_of(errors, coupling, *, rows=None, order=1, **more):
    """Coefficients whose A_l are `errors` and whose R_bl are `rows`."""
    size = len(errors)
    levels = levels_of(size)
    response = np.zeros((0, size)) if rows is None else rows / levels.log_width ** (order + 1)
    more = {"terminal": "rescale", **more}
    return co.Coefficients(
        levels, errors / levels.log_width**2, np.zeros(size), response, order=order, coupling=coupling, **more
    )


def kernel(width, levels):
    """T by numerical integration over the bins, row by row."""
    u = np.log(levels.edges)
    bins = list(itertools.pairwise(u))
    gauss = lambda x, s: np.exp(-((x - s) ** 2) / 2 / width**2)  # noqa: E731
    result = np.array([[quad(gauss, a, b, args=(s,))[0] for a, b in bins] for s in np.log(levels.sigma)])
    return result / result.sum(axis=1, keepdims=True)


def serving(m, width, levels):
    """Examples that serve each level."""
    return levels.log_width * (kernel(width, levels) @ (m / levels.log_width))


def training(limit, price=1.0):
    return co.named("budget", co.Compute(co.Prices(price, 1.0, 1), part="training") <= limit)


# ------------------------------------------------------------------ Transfer


@pytest.mark.parametrize("width", [0.1, 0.6, 1.5])
def test_kernel_is_a_normalised_gaussian_average_that_keeps_constant_densities(width):
    levels = levels_of(12)
    pooling = co.Transfer(width).pooling(levels)
    np.testing.assert_allclose(pooling @ levels.log_width, levels.log_width, rtol=1e-12)
    m = np.random.default_rng(0).uniform(0, 1, 12)
    np.testing.assert_allclose(pooling @ m, serving(m, width, levels), rtol=1e-9)


def test_density_at_a_level_is_the_average_of_the_density_around_it():
    """Far from the ends T d is d's convolution with the Gaussian: of exp(-s^2/2v) one of variance v + width^2."""
    levels = co.Levels.log_uniform(np.exp(-8), np.exp(8), 800)
    s = np.log(levels.sigma)
    served = co.Transfer(0.6).kernel(levels) @ np.exp(-(s**2) / 2)
    wide = 1 + 0.6**2
    np.testing.assert_allclose(served[200:600], (np.exp(-(s**2) / 2 / wide) / np.sqrt(wide))[200:600], rtol=1e-3)


@pytest.mark.parametrize("steps_given", [True, False])
def test_transfer_much_narrower_than_a_level_is_local(steps_given):
    errors = np.random.default_rng(1).uniform(1, 5, 8)
    rows = np.random.default_rng(2).uniform(0, 1, (2, 8))

    def solve(coupling):
        table = table_of(errors, coupling, rows=rows)
        if steps_given:
            return co.Problem(co.ScoreError(table), [training(50.0)], steps=np.full(8, 2.0)).solve()
        terms = co.ScoreError(table) + co.Discretization(table)
        return co.Problem(terms, [co.Compute(co.Prices(1.0, 2.0, 1)) <= 50.0]).solve()

    narrow, local = solve(co.Transfer(1e-3, 1.5)), solve(co.Local(1.5))
    assert narrow.error == pytest.approx(local.error, rel=2e-6)
    np.testing.assert_allclose(narrow.examples, local.examples, rtol=1e-2)


def test_a_matrix_that_teaches_all_levels_alike_buys_the_cheapest_only():
    size, price = 6, np.array([3.0, 2.0, 5.0, 1.0, 4.0, 2.5])
    errors = np.arange(1.0, 7.0)
    table = table_of(errors, co.Transfer(np.full((size, size), 1 / size), 1.5))
    plan = co.Problem(co.ScoreError(table), [training(60.0, price)], steps=np.full(size, 9.0)).solve()
    assert plan.examples[3] == pytest.approx(60.0, rel=1e-5)
    assert plan.error == pytest.approx(errors.sum() * size / 60.0, rel=1e-6)
    assert plan.elasticities["budget"] == pytest.approx(-1.0, rel=1e-4)


@pytest.mark.parametrize("width", [0.4, 1.0])
def test_given_sampler_trained_with_transfer_is_the_best_of_twenty_descents(width):
    size = 6
    rng = np.random.default_rng(int(10 * width))
    errors, price = rng.uniform(0.2, 5, size), rng.uniform(0.5, 2, size)
    levels = levels_of(size)
    steps = rng.uniform(0.3, 3, size)
    factor = np.maximum(1.0, levels.log_width / 1.5 / steps)
    matrix = kernel(width, levels)

    def error(m):
        return float(np.sum(errors * factor / (levels.log_width * (matrix @ (m / levels.log_width)))))

    best = descent(error, lambda m: price @ m, 40.0, size)
    plan = co.Problem(
        co.ScoreError(table_of(errors, co.Transfer(width, 1.5))), [training(40.0, price)], steps=steps
    ).solve()
    assert plan.error == pytest.approx(error(plan.examples), rel=1e-9)
    assert plan.error == pytest.approx(best, rel=1e-5)
    assert plan.error <= best * (1 + 2e-6)
    assert plan.certificate.lower_bound <= best * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["max", "p4"])
def test_joint_program_with_transfer_floors_caps_and_spent_examples_beats_random_and_descended_designs(form):
    size = 5
    rng = np.random.default_rng(7)
    errors, rows, spent = rng.uniform(0.5, 5, size), rng.uniform(0, 1, (2, size)), rng.uniform(0, 1, size)
    table = table_of(errors, co.Transfer(0.6, 1.5, form=form), rows=rows, order=2)
    levels = table.levels
    kappa, matrix = levels.log_width / 1.5, kernel(0.6, levels)
    high = np.array([3.0, np.inf, 2.0, np.inf, np.inf])
    terms = co.ScoreError(table) + co.Discretization(table)
    budget = co.Compute(co.Prices(1.0, 2.0, 1)) <= 40.0

    def error(x):
        served = levels.log_width * (matrix @ ((x[:size] + spent) / levels.log_width))
        ratio = kappa / x[size:]
        factor = np.maximum(1, ratio) if form == "max" else (1 + ratio**4) ** 0.25
        return float(np.sum(errors * factor / served) + np.sum((rows @ x[size:] ** -2.0) ** 2))

    free = co.Problem(terms, [budget], spent=spent).solve()
    best = descent(error, lambda x: x[:size].sum() + 2 * x[size:].sum(), 40.0, 2 * size)
    assert free.error == pytest.approx(error(np.r_[free.new_examples, free.steps]), rel=1e-9)
    assert free.error <= best * (1 + 2e-6)
    assert free.error == pytest.approx(best, rel=1e-4)
    boxed = co.Problem(terms, [budget, co.Cap(high, "examples"), co.Floor(0.8, "steps")], spent=spent).solve()
    assert np.all(boxed.examples <= high * (1 + 1e-7))
    for _ in range(3000):
        share = rng.dirichlet(np.full(2 * size, 1.0)) * (40.0 - 1.6 * size)
        near = rng.random() ** 3
        m = np.minimum(near * share[:size] + (1 - near) * boxed.new_examples, high - spent)
        n = near * (0.8 + share[size:] / 2) + (1 - near) * boxed.steps
        assert error(np.r_[m, n]) >= boxed.certificate.lower_bound


def test_best_sampler_for_given_examples_counts_those_that_serve():
    size = 6
    rng = np.random.default_rng(3)
    errors, rows, m = rng.uniform(5, 50, size), rng.uniform(0, 1, (2, size)), rng.uniform(0.1, 3, size)
    table = table_of(errors, co.Transfer(0.6, 0.5), rows=rows)
    served = serving(m, 0.6, table.levels)
    plan = co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Steps() <= 15.0], examples=m).solve()
    same = replace(table, coupling=co.Local(0.5), score=table.score * m / served)
    local = co.Problem(co.ScoreError(same) + co.Discretization(same), [co.Steps() <= 15.0], examples=m).solve()
    assert plan.error == pytest.approx(local.error, rel=2e-6)


def test_marginal_gain_is_the_derivative_of_the_score_and_the_weights_bound_it():
    errors = np.random.default_rng(4).uniform(1, 5, 10)
    table = table_of(errors, co.Transfer(0.6, 1.5), terminal="denoise", final_score=3.0)
    term = co.ScoreError(table)
    plan = co.Problem(term, [training(60.0)], steps=np.full(10, 2.0)).solve()
    point = Point(plan.examples, np.zeros(10), np.full(10, 2.0))

    def score(m):
        return term.value(None, replace(point, new_examples=m))

    for l in range(10):
        shift = np.zeros(10)
        shift[l] = 1e-5
        slope = (score(plan.examples) - score(plan.examples + shift)) / 1e-5
        assert plan.tables["marginal_gain"][l] == pytest.approx(slope, rel=1e-3)
    weight, used = plan.tables["score_weight"], plan.examples > 1e-9
    assert (weight[used] / plan.examples[used]).sum() == pytest.approx(plan.breakdown["score"], rel=1e-5)
    rng = np.random.default_rng(5)
    for _ in range(200):
        m = plan.examples * rng.uniform(0.3, 3, 10)
        reducible = term.levels_value(replace(point, new_examples=m))[0].sum()
        assert (weight[used] / m[used]).sum() >= reducible * (1 - 1e-6)


@pytest.mark.parametrize("mean", [-0.5, 0.8])
def test_lognormal_of_a_plan_with_transfer_is_the_best_by_the_error_itself(mean):
    """Against a search over P_mean and P_std with the kernel integrated numerically; the plan's bound is not it."""
    levels, width = levels_of(24), 0.8
    logs = np.log(levels.sigma)
    errors = np.exp(-((logs - mean) ** 2))
    plan = co.Problem(
        co.ScoreError(table_of(errors, co.Transfer(width, 1.5))), [training(60.0)], steps=np.full(24, 9.0)
    ).solve()
    matrix = kernel(width, levels)

    def error(p_mean, p_std):
        mass = co.LogNormal(p_mean, p_std).mass(levels.edges)
        return np.sum(errors / (levels.log_width * (matrix @ (60.0 * mass / mass.sum() / levels.log_width))))

    fit = plan.training_density.lognormal()
    own = error(fit.P_mean, fit.P_std)
    assert plan.training_density.score_error(plan.examples) == pytest.approx(plan.breakdown["score"], rel=1e-9)
    assert fit.loss == pytest.approx(own / plan.breakdown["score"] - 1, rel=1e-4, abs=1e-9)
    assert fit.loss > -1e-6
    for p_mean in np.linspace(mean - 1, mean + 1, 21):
        for p_std in np.geomspace(0.15, 2.5, 21):
            assert own <= error(p_mean, p_std) * (1 + 1e-6)


def test_saved_plans_with_transfer_keep_their_lognormal(tmp_path):
    table = table_of(np.exp(-(np.linspace(-2, 2, 10) ** 2)), co.Transfer(0.8, 1.5))
    plan = co.Problem(co.ScoreError(table), [training(60.0)], steps=np.full(10, 9.0)).solve()
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert again.training_density.lognormal() == plan.training_density.lognormal()
    local = co.Problem(co.ScoreError(replace(table, coupling=co.Local(1.5))), [training(60.0)], steps=np.full(10, 9.0))
    assert "pooling" not in local.solve().tables


def test_last_evaluation_is_served_by_the_examples_around_the_stopping_point():
    table = table_of(np.ones(10), co.Transfer(0.6, 1.5), terminal="denoise", final_score=3.0)
    m = np.random.default_rng(6).uniform(0, 2, 10)
    near = table.levels.overlap(0.05, 0.05 * np.exp(1.5)) / table.levels.log_width
    point = Point(m, np.zeros(10), np.ones(10))
    served = serving(m, 0.6, table.levels)
    assert co.ScoreError(table).final_value(point)[0] == pytest.approx(3.0 / (near @ served), rel=1e-9)


@pytest.mark.parametrize("width", [0.3, 0.6])
def test_refining_the_levels_changes_no_answer_with_transfer(width):
    errors = []
    for size in (100, 200, 400) if FULL else (100, 200):
        levels = co.Levels.log_uniform(0.01, 50.0, size)
        table = co.Coefficients(
            levels, levels.average(lambda s: 10 * np.exp(-(np.log(s) ** 2) / 2)), np.zeros(size), np.zeros((0, size)),
            coupling=co.Transfer(width), terminal="rescale",
        )  # fmt: skip
        plan = co.Problem(co.ScoreError(table), [training(1e3)], steps=40 * levels.log_width).solve()
        assert plan.certificate.optimal
        errors.append(plan.error)
    np.testing.assert_allclose(errors, errors[-1], rtol=1e-3)


def test_smooth_spreads_a_density_that_wide_transfer_makes_spiky():
    levels = levels_of(60)
    bump = levels.average(lambda s: 10 * np.exp(-(np.log(s) ** 2) / 2))
    table = co.Coefficients(
        levels, bump, np.zeros(60), np.zeros((0, 60)), coupling=co.Transfer(1.0), terminal="rescale"
    )

    def solve(*terms):
        return co.Problem(sum([co.ScoreError(table), *terms]), [training(1e3)], steps=np.full(60, 2.0)).solve()

    spiky, smooth = solve(), solve(co.Smooth(weight=1e-7))
    roughness = [np.sum(np.diff(p.examples) ** 2) for p in (spiky, smooth)]
    assert roughness[1] < 0.05 * roughness[0]
    assert spiky.error <= smooth.breakdown["score"] * (1 + 1e-6)
    assert smooth.breakdown["score"] <= 1.05 * spiky.error


def test_bad_transfer_is_named():
    with pytest.raises(ValueError, match=r"Transfer\.transfer is -1"):
        co.Transfer(-1.0)
    with pytest.raises(ValueError, match=r"row sum of 2 in row 0"):
        co.Transfer(np.full((2, 2), 1.0))
    with pytest.raises(ValueError, match=r"Transfer\.transfer is -0\.5 at index \(0, 1\)"):
        co.Transfer([[1.5, -0.5], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"Transfer\.transfer has shape \(2, 2\)"):
        co.Transfer(np.eye(2)).pooling(levels_of(3))
    with pytest.raises(ValueError, match=r"Transfer\.form"):
        co.Transfer(0.6, form="min")
    assert co.Transfer(0.6, 2.0).to_dict() == {"kind": "Transfer", "transfer": 0.6, "log_width": 2.0, "form": "max"}


@pytest.mark.parametrize("transfer", [0.6, np.full((3, 3), 1 / 3)])
def test_saved_models_come_back_with_their_transfer(transfer):
    coupling = co.Transfer(transfer, 1.5, form="p4")
    record = json.loads(json.dumps({"coupling": coupling.to_dict()}))
    again = _coupling(record, np.ones(3))
    assert isinstance(again, co.Transfer)
    levels = levels_of(3)
    np.testing.assert_array_equal(again.pooling(levels), coupling.pooling(levels))
    assert (again.log_width, again.form) == (1.5, "p4")


def test_pooling_is_the_estimated_kernels():
    pytest.importorskip("torch")
    from codesign_opt.estimate.training_errors.transfer import TransferKernel

    levels = levels_of(9)
    np.testing.assert_allclose(TransferKernel(0.6).pooling(levels), co.Transfer(0.6).pooling(levels), atol=1e-12)


# ------------------------------------------------------------------ CoherentScore


def coherent(gram_of_examples, *, rows=None, order=1):
    """The term whose error is sum_jk H+_jk (m_j m_k)^(-1/2), and its table."""
    size = len(gram_of_examples)
    table = table_of(np.zeros(size), co.Local(1.5), rows=rows, order=order)
    unit = table.log_width**1.5
    return co.CoherentScore(table, gram_of_examples / unit / unit[:, None]), table


def test_diagonal_gram_is_the_independent_score_error():
    size, rng = 12, np.random.default_rng(0)
    errors, price = rng.uniform(0.1, 5, size), rng.uniform(0.5, 2, size)
    term, _ = coherent(np.diag(errors))
    plan = co.Problem(term, [training(30.0, price)], steps=np.ones(size)).solve()
    assert plan.error == pytest.approx(np.sqrt(errors * price).sum() ** 2 / 30.0, rel=1e-6)
    np.testing.assert_allclose(plan.examples, np.sqrt(errors / price) * 30 / np.sqrt(errors * price).sum(), rtol=1e-3)
    assert plan.elasticities["budget"] == pytest.approx(-1.0, rel=1e-5)


def test_fully_coherent_levels_have_the_power_two_thirds_in_closed_form():
    """min (sum a_l m_l^(-1/2))^2 over sum c m <= W is (sum a^(2/3) c^(1/3))^3 / W, at m ~ (a / c)^(2/3)."""
    size, rng = 9, np.random.default_rng(1)
    a, price = rng.uniform(0.1, 5, size), rng.uniform(0.5, 2, size)
    term, _ = coherent(np.outer(a, a))
    plan = co.Problem(term, [training(30.0, price)], steps=np.ones(size)).solve()
    assert plan.error == pytest.approx(float(np.sum(a ** (2 / 3) * price ** (1 / 3)) ** 3 / 30.0), rel=1e-6)
    shape = plan.examples / (a / price) ** (2 / 3)
    np.testing.assert_allclose(shape / shape.mean(), 1.0, rtol=1e-3)
    np.testing.assert_allclose(plan.tables["marginal_gain"], -plan.shadow_prices["budget"], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_joint_program_with_coherent_score_is_the_best_of_twenty_descents(seed):
    size, rng = 4, np.random.default_rng(seed)
    root, rows = rng.normal(size=(3, size)), rng.normal(size=(3, size))
    gram, steps_gram = np.maximum(root.T @ root, 0), np.maximum(rows.T @ rows, 0)
    term, table = coherent(root.T @ root, rows=rows, order=2)
    example, step = rng.uniform(0.5, 2, size), rng.uniform(0.5, 2, size)

    def error(x):
        y, u = x[:size] ** -0.5, x[size:] ** -2.0
        return float(y @ gram @ y + u @ steps_gram @ u)

    best = descent(error, lambda x: example @ x[:size] + step @ x[size:], 30.0, 2 * size)
    budget = co.named("budget", co.Compute(co.Prices(example, step, 1)) <= 30.0)
    terms = term + co.GramDiscretization(table, model="positive")
    plan = co.Problem(terms, [budget]).solve()
    assert plan.error == pytest.approx(best, rel=1e-6)
    assert plan.certificate.lower_bound <= best * (1 + 1e-9)
    assert plan.breakdown["score (coherent)"] == pytest.approx(plan.tables["score"].sum())
    # the least price of that error is the budget: both terms inside a bound
    back = co.Problem(co.Compute(co.Prices(example, step, 1)), [co.named("error", terms <= plan.error)]).solve()
    assert back.error == pytest.approx(30.0, rel=1e-5)


def test_bound_of_the_coherent_score_with_boxes_and_spent_examples_is_below_every_random_design():
    size, rng = 7, np.random.default_rng(5)
    root, spent = rng.normal(size=(4, size)), np.where(rng.random(size) < 0.5, rng.uniform(0, 2, size), 0.0)
    term, _ = coherent(root.T @ root)
    high = np.where(rng.random(size) < 0.5, 5.0, np.inf)
    rows = [training(30.0), co.Cap(high, "examples"), co.Floor(1.0, "examples")]
    plan = co.Problem(term, rows, steps=np.ones(size), spent=spent).solve()
    gram, low = np.maximum(root.T @ root, 0), np.maximum(1.0 - spent, 0.0)
    for _ in range(3000):
        near = rng.random() ** 3
        new = near * (low + rng.dirichlet(np.ones(size)) * (30 - low.sum())) + (1 - near) * plan.new_examples
        y = np.minimum(spent + new, high) ** -0.5
        assert y @ gram @ y >= plan.certificate.lower_bound
    y = plan.examples**-0.5
    assert y @ gram @ y == pytest.approx(plan.error, rel=1e-9)


def test_refining_the_levels_changes_no_answer_with_a_coherent_score():
    errors = []
    for size in (100, 200, 400):
        levels = co.Levels.log_uniform(0.01, 50.0, size)
        s = np.log(levels.sigma)
        table = co.Coefficients(levels, np.zeros(size), np.zeros(size), np.zeros((0, size)), terminal="rescale")
        height = levels.average(lambda sigma: np.exp(-(np.log(sigma) ** 2) / 4))
        gram = np.outer(height, height) * np.exp(-((s[:, None] - s) ** 2) / 2)
        term = co.CoherentScore(table, gram) + co.Smooth(weight=1e-8)
        errors.append(co.Problem(term, [training(1e3)], steps=np.ones(size)).solve().error)
    np.testing.assert_allclose(errors, errors[-1], rtol=1e-3)


def test_bad_gram_of_the_coherent_score_is_named():
    table = table_of(np.zeros(2), co.Local(1.5))
    for gram, message in (
        ([[1.0, 2.0], [0.0, 1.0]], r"CoherentScore\.gram differs from its transpose by 2"),
        ([[1.0]], r"CoherentScore\.gram has shape \(1, 1\)"),
        ([[0.0, 1.0], [1.0, 1.0]], "has 0 on its diagonal at level 0"),
        ([[np.nan, 1.0], [1.0, 1.0]], "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            co.CoherentScore(table, gram)
    with pytest.raises(ValueError, match=r"pools examples over levels \(Transfer\)"):
        co.CoherentScore(table_of(np.zeros(2), co.Transfer(0.6)), np.eye(2))
    with pytest.raises(ValueError, match="nothing limits the examples"):
        co.Problem(co.CoherentScore(table, np.eye(2)), [co.Steps() <= 3.0])
