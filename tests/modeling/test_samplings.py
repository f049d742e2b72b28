"""Several samplers that share one training: against programs written by hand, single samplers and limits."""

import os
import warnings
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

FULL = bool(os.environ.get("CODESIGN_OPT_FULL"))
MODEL = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), training=co.AveragedSGD(prior=None))
PRICES = co.Prices(3.0, 1.0, 1_000)
FINE = replace(MODEL.coefficients(0.01, 40), final_score=0.0)
QUICK = replace(
    MODEL.with_sampler(co.Euler()).coefficients(0.01, 40),
    coupling=co.PerStep(2.0), score=FINE.score * FINE.sigma**0.3, final_score=0.0,
)  # fmt: skip
BUDGET = co.Compute(PRICES) <= 1e6


def two(weight=3.0, images=1e5):
    return co.Sampling("quick", QUICK, images=images), co.Sampling("fine", FINE, images=1e3, weight=weight)


def whole(*samplings):
    return co.ScoreErrors(samplings) + sum(each.discretization for each in samplings)


def by_hand(samplings, budget, most=None, price=3.0):
    """The same program as a geometric one, in logarithms of shares of the budget and of steps, solved around itself."""
    width = samplings[0].table.log_width / samplings[0].table.log_width.sum()
    share, steps, scale = 0.5 * width, {each.name: 0.2 * budget / each.images * width for each in samplings}, None
    for _ in range(6):
        u, v = cp.Variable(width.size), {each.name: cp.Variable(width.size) for each in samplings}
        error, paid, rows = 0, cp.sum(cp.multiply(share, cp.exp(u))), []
        for each in samplings:
            t, n = each.table, steps[each.name]
            kappa, weight = t.log_width / t.coupling.log_width / n, each.weight * t.log_width**2 * t.score
            weight = weight / (budget / price * share)
            slow = cp.multiply(weight * kappa, cp.exp(-u - v[each.name]))
            fast = cp.multiply(weight, cp.exp(-u))
            error += cp.sum(slow if isinstance(t.coupling, co.PerStep) else cp.maximum(fast, slow))
            drag = np.abs(t.response) * t.log_width ** (t.order + 1) / n**t.order * np.sqrt(each.weight)
            error += cp.sum_squares(drag @ cp.exp(-t.order * v[each.name]))
            count = cp.sum(cp.multiply(n, cp.exp(v[each.name])))
            paid += each.images / budget * (t.evaluations_per_step * count + 1)
            rows += [count + 1 <= most[each.name]] if most and each.name in most else []
            rows += [cp.abs(v[each.name]) <= 3]
        if scale is None:
            for variable in (u, *v.values()):
                variable.value = np.zeros(width.size)
            scale = error.value
        problem = cp.Problem(cp.Minimize(error / scale), [paid <= 1, cp.abs(u) <= 3, *rows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the first rounds, far from their own size
            scale = scale * problem.solve(solver="CLARABEL")
        share = share * np.exp(u.value)
        steps = {name: n * np.exp(v[name].value) for name, n in steps.items()}
    return scale


def drawn(seed, size=20):
    """Two or three random samplers on the same levels, a budget and the price of an example, over decades."""
    rng = np.random.default_rng(seed)
    levels = co.Levels.log_uniform(0.01, 10 ** rng.uniform(0, 2), size)
    base = rng.normal(0, 1.5, size)
    found, budget, price = [], 10 ** rng.uniform(3, 9), 10 ** rng.uniform(-2, 2)
    for name in ("first", "second", "third")[: int(rng.integers(2, 4))]:
        images = budget / 10 ** rng.uniform(1.2, 2.5)
        coupling = co.PerStep(rng.uniform(0.5, 3)) if rng.random() < 0.3 else co.Local(rng.uniform(0.5, 3))
        score = np.exp(base + rng.normal(0, 0.7, size)) * budget / price
        response = np.exp(rng.normal(0, 1, (int(rng.integers(1, 4)), size)))
        table = co.Coefficients(levels, score, np.zeros(size), response, order=int(rng.integers(1, 3)),
                                coupling=coupling)  # fmt: skip
        found.append(co.Sampling(name, table, images=images / 4, weight=10 ** rng.uniform(-1, 1)))
    return found, budget, price


@pytest.mark.parametrize("seed", range(40) if FULL else (0, 1))
def test_random_samplers_agree_with_the_program_by_hand(seed):
    samplings, budget, price = drawn(seed)
    paid = co.Compute(co.Prices(price, 1.0, 1))
    plan = co.Problem(whole(*samplings), [paid <= budget]).solve()
    truth = by_hand(samplings, budget, price=price)
    print(seed, plan.error / truth - 1, plan.certificate.relative_gap, len(plan.attempts))
    assert plan.certificate.optimal
    assert plan.error <= truth * (1 + 2e-6)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-6)


@pytest.mark.parametrize("most", [None, {"quick": 8.0}])
def test_two_samplers_agree_with_the_program_by_hand(most):
    samplings = two()
    rows = [samplings[0](co.Steps()) <= most["quick"]] if most else []
    plan = co.Problem(whole(*samplings), [BUDGET, *rows]).solve()
    assert plan.certificate.optimal
    truth = by_hand(samplings, 1e6, most)
    assert plan.error == pytest.approx(truth, rel=2e-6)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-7)


@pytest.mark.parametrize("coupling", [co.Local(2.7), co.Transfer(2.0)])
def test_one_sampler_is_the_plan_without_samplings(coupling):
    table = replace(MODEL.coefficients(0.01, 40), coupling=coupling)  # with the last evaluation's error
    one = co.Sampling("one", table)
    rows = [BUDGET, co.Steps() <= 9]
    plain = co.Problem(co.ScoreError(table) + co.Discretization(table), rows).solve()
    plan = co.Problem(whole(one), [BUDGET, one(co.Steps()) <= 9]).solve()
    assert plan.error == pytest.approx(plain.error, rel=1e-7)
    np.testing.assert_allclose(plan.samplings["one"].steps, plain.steps, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(plan.samplings["one"].sigmas, plain.sigmas, rtol=1e-3)
    np.testing.assert_allclose(plan.examples, plain.examples, rtol=1e-3, atol=1.0)
    assert plan.shadow_prices["Compute"] == pytest.approx(plain.shadow_prices["Compute"], rel=1e-4)
    again = co.Problem(whole(one, co.Sampling("two", table, weight=0.5)), [BUDGET, one(co.Steps()) <= 9]).solve()
    assert again.certificate.optimal


def test_without_weight_and_images_a_sampler_changes_nothing():
    quick, fine = co.Sampling("quick", QUICK, images=1e3), co.Sampling("fine", FINE, images=0.0, weight=0.0)
    alone = co.Problem(whole(quick), [BUDGET]).solve()
    both = co.Problem(whole(quick, fine), [BUDGET, fine(co.Steps()) <= 20]).solve()
    assert both.error == pytest.approx(alone.error, rel=1e-6)
    np.testing.assert_allclose(both.samplings["quick"].steps, alone.samplings["quick"].steps, rtol=1e-2, atol=1e-5)


def test_equal_samplers_split_one_that_draws_all_images():
    first, second = (co.Sampling(name, FINE, images=500.0, weight=0.5) for name in ("first", "second"))
    both = co.Problem(whole(first, second), [co.Compute(PRICES) <= 1e6]).solve()
    plain = co.Problem(co.ScoreError(FINE) + co.Discretization(FINE), [BUDGET]).solve()
    assert both.error == pytest.approx(plain.error, rel=1e-6)


def kink(name, size):
    """size x the largest step density."""
    return type(name, (co.Term,), {"expression": lambda self, design: size * cp.max(design.step_density)})()


def test_kinks_of_the_users_are_proved_by_the_conic_dual_and_cost_what_their_bound_is_worth():
    quick, fine = two()
    soft = co.Problem(whole(quick, fine) + fine(kink("Peak", 1e-3)), [BUDGET, quick(co.Steps()) <= 8]).solve()
    assert soft.certificate.optimal
    top = float(np.max(soft.samplings["fine"].steps / FINE.log_width))
    hard = co.Problem(
        whole(quick, fine), [BUDGET, quick(co.Steps()) <= 8, fine(lambda d: cp.max(d.step_density) <= top)]
    ).solve()
    assert hard.certificate.optimal
    assert hard.error == pytest.approx(soft.error - soft.breakdown["fine: Peak"], rel=1e-5)
    assert hard.shadow_prices["fine: constraint 0"] == pytest.approx(-1e-3, rel=1e-2)


def test_shadow_prices_are_differences_of_optima():
    quick, fine = two()

    def solved(budget, steps):
        return co.Problem(whole(quick, fine), [co.Compute(PRICES) <= budget, quick(co.Steps()) <= steps]).solve()

    plan, h = solved(1e6, 8.0), 1e-3
    budget = (solved(1e6 * (1 + h), 8.0).error - solved(1e6 * (1 - h), 8.0).error) / (2e6 * h)
    steps = (solved(1e6, 8.0 * (1 + h)).error - solved(1e6, 8.0 * (1 - h)).error) / (16 * h)
    assert plan.shadow_prices["Compute"] == pytest.approx(budget, rel=1e-3)
    assert plan.shadow_prices["quick: Steps"] == pytest.approx(steps, rel=1e-3)


def test_no_sampled_design_is_below_the_bound():
    quick, fine = two()
    problem = co.Problem(whole(quick, fine), [BUDGET])
    plan, rng = problem.solve(), np.random.default_rng(0)
    for _ in range(4):
        at = {name: each.steps * np.exp(rng.normal(0, 0.1, each.steps.size)) for name, each in plan.samplings.items()}
        paid = sum(each.images * each.table.evaluations_per_step * at[each.name].sum() + each.images
                   for each in (quick, fine))  # fmt: skip
        examples = plan.examples * np.exp(rng.normal(0, 0.1, plan.examples.size))
        examples *= max(1e6 - paid, 1.0) / 3.0 / examples.sum()
        assert problem.certify(examples=examples, steps=at).value >= plan.certificate.lower_bound


@pytest.mark.slow
def test_infeasible_rows_name_the_sampler_and_the_remedy_works():
    quick, fine = two()
    cap = quick(co.Cap(lambda sigma: 0.7 * sigma, "step_size"))
    with pytest.raises(co.InfeasibleError, match=r"'quick: Steps' \(limit 8\).*'quick: Cap\(step_size\)'") as found:
        co.Problem(whole(quick, fine), [BUDGET, quick(co.Steps()) <= 8, cap]).solve()
    assert {record["name"] for record in found.value.conflicts} == {"quick: Steps", "quick: Cap(step_size)"}
    far = fine(lambda design: cp.sum(design.steps) >= 1e4)
    with pytest.raises(co.InfeasibleError) as found:
        co.Problem(whole(quick, fine), [BUDGET, far]).solve()
    relaxed = next(r["relaxed"] for r in found.value.conflicts if r["name"] == "Compute")
    assert co.Problem(whole(quick, fine), [co.Compute(PRICES) <= 1.01 * relaxed, far]).solve().certificate.optimal


def test_exact_errors_are_those_of_each_model_and_the_plan_is_saved(tmp_path):
    euler = MODEL.with_sampler(co.Euler())
    quick = co.Sampling("quick", euler.coefficients(0.01, 60), images=1e5, model=euler)
    fine = co.Sampling("fine", MODEL.coefficients(0.01, 60), images=1e3, weight=10, model=MODEL)
    plan = co.Problem(whole(quick, fine), [BUDGET, quick(co.Steps()) <= 8]).solve()
    for name, model in (("quick", euler), ("fine", MODEL)):
        each = plan.samplings[name]
        assert each.handed_out["bias"] == pytest.approx(model.bias(each.sigmas), rel=1e-9)
        assert np.sum(steps := co.steps_on_levels(plan.levels, each.sigmas)) == pytest.approx(each.number_of_steps - 1)
        assert steps.size == each.steps.size
    plan.save(tmp_path / "plan.json")
    again = co.Plan.load(tmp_path / "plan.json")
    assert str(again) == str(plan)
    np.testing.assert_array_equal(again.samplings["fine"].grid(7), plan.samplings["fine"].grid(7))
    assert "quick" in str(plan)
    assert plan.samplings["quick"].number_of_steps == 8


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda q, f: co.Problem(whole(q, f) + co.Discretization(FINE), [BUDGET]), "say of which"),
        (lambda q, f: co.Problem(whole(q, f), [BUDGET, co.Steps() <= 3]), "say of which"),
        (lambda q, f: co.Problem(whole(q, f), [BUDGET, co.Cap(1.0, "steps")]), "say of which"),
        (lambda q, f: co.Problem(whole(q, f), [BUDGET, lambda d: cp.sum(d.steps) <= 3]), "say of which"),
        (lambda q, f: co.Problem(q(co.Discretization(FINE)) + f.score, [BUDGET]), "differ in order"),
        (lambda q, f: co.ScoreErrors([q, q]), "names must differ"),
        (lambda q, f: co.Problem(q.score + co.Sampling("quick", FINE).score, [BUDGET]), "names must differ"),
        (lambda q, f: q(f(co.Steps())), "about a sampler already"),
        (lambda q, f: co.Problem(whole(q, f), [BUDGET], steps=np.ones(len(FINE.levels))), "steps of their own"),
        (lambda q, f: co.Problem(whole(q, f), [co.Compute(PRICES, part="training") <= 1e6]), "steps of 'quick'"),
        (lambda q, f: co.Problem(whole(q, f), [BUDGET]).certify(examples=FINE.score), "mapping"),
    ],
)
def test_what_does_not_say_whose_steps_is_refused(make, said):
    with pytest.raises((TypeError, ValueError), match=said):
        make(*two())


def test_terms_constraints_and_parameters_of_every_kind_are_said_of_a_sampler():
    quick, fine = two()
    weight = cp.Parameter(nonneg=True, value=2.0)
    error, rows = whole(quick, fine), [BUDGET, quick(co.Steps()) <= 8]
    present = np.full(len(FINE.levels), 0.5)
    soft = co.SoftConstraint(fine(co.Cap(0.5, "step_size", low=0.5)), 1e-4)
    kinds = [
        (error + soft + fine(co.Turnover(present, price=1e-6, quantity="steps")), rows),
        (error + fine(co.SoftConstraint(co.Steps() <= 10, 1e-6)) * weight, rows),
        (error, [*rows, fine(co.Monotone("increasing", "step_density")), quick(co.Share(0.3, 0.05, 0.5, "steps"))]),
        (co.Compute(PRICES), [error <= 0.5, quick(co.Steps()) <= 8]),
        (co.CVaR([quick.score + quick.discretization, fine.score + fine.discretization], 0.7), rows),
    ]
    for objective, constraints in kinds:
        assert co.Problem(objective, constraints).solve().certificate.optimal


def test_shared_parameters_beside_samplers_agree_with_a_program_by_hand():
    rng, size = np.random.default_rng(1), 12
    levels = co.Levels.around(np.geomspace(0.01, 10, size))
    none, response = np.zeros(size), rng.uniform(0.1, 1, (2, size))
    first, second = (co.Coefficients(levels, none, none, response, order=q, terminal="rescale") for q in (1, 2))
    error = co.InformationError(rng.normal(size=(size, 2, 4)), rng.normal(size=(4, 2)), sigma=levels.sigma)
    quick, fine = co.Sampling("quick", first, images=1e4), co.Sampling("fine", second, images=1e3)
    paid = co.Compute(co.Prices(3.0, 1.0, 1)) <= 1e6
    plan = co.Problem(error + quick.discretization + fine.discretization, [paid]).solve()
    share, n = cp.Variable(size, nonneg=True), [cp.Variable(size, nonneg=True) for _ in range(2)]
    information = sum(share[i] * error.roots[i].T @ error.roots[i] for i in range(size))
    unit = 1e6 / 3.0
    truth = sum(cp.matrix_frac(error.response[:, j], information) for j in range(2))
    for t, steps in ((first, n[0]), (second, n[1])):
        rows = np.sqrt(unit) * np.abs(t.response) * t.log_width ** (t.order + 1)
        truth = truth + cp.sum_squares(rows @ cp.power(steps, -t.order))
    spent = cp.sum(share) + (1e4 * cp.sum(n[0]) + 1e3 * cp.sum(n[1])) / 1e6
    value = cp.Problem(cp.Minimize(truth), [spent <= 1]).solve(solver="CLARABEL") / unit
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(value, rel=2e-6)
