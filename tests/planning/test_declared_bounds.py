"""Bounds between stopping points with terms and constraints of the user's: below every program inside, and closing.

Programs at single stopping points are solved here in raw cvxpy as geometric programs, in logarithms, from the table's
numbers alone.
"""

import os
import warnings
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.interval_program import interval_program
from codesign_opt.planning.question import Study

FULL = bool(os.environ.get("CODESIGN_OPT_FULL"))
SAMPLERS = (co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(0.5), co.EulerMaruyama(1.0))
LEVELS = 40
SEARCH = (0.004, 0.2) if FULL else (0.035, 0.045)


@dataclass(frozen=True, eq=False)
class Congestion(co.Term):
    """weight x integral of density^1.5: dearer where it is dense."""

    weight: float
    nested = True

    def expression(self, design):
        return self.weight * cp.sum(cp.multiply(design.log_width, cp.power(design.density, 1.5)))


class Anonymous(Congestion):
    """The same, saying nothing of itself."""

    def expression(self, design):
        return super().expression(design)


class Refund(co.Term):
    def expression(self, design):
        return -1e-9 * cp.sum(design.examples)


def kinds(seed):
    """(terms, constraints) of each kind in turn, of a size that matters."""
    rng = np.random.default_rng(seed)
    weight = float(10 ** rng.uniform(-10.5, -9))
    peak = co.named("peak", lambda d: cp.max(d.density) <= 6_000, nested=True)
    return [
        ([Congestion(weight)], []),
        ([], [co.Cap(lambda s: 0.4 * s, "step_size")]),
        ([], [co.Floor(lambda s: 800 * s / (1 + s), "density", low=0.05, high=5.0)]),
        ([Congestion(weight)], [co.Cap(5.0, "step_density")]),
        ([co.Smooth("density", 1e-12)], []),
        ([], [co.Monotone("increasing")]),
        ([co.StepSizeError(lambda s: 1e-4 / s, lambda s: 1e-4 / s**2, 2)], [peak]),
        ([1e-9 * co.Compute(co.Prices(3.0, 1.0, 1000))], [Congestion(1.0) <= 2e7]),
        ([Anonymous(weight)], []),
        ([], [co.named("sum", lambda d: cp.sum(d.examples[d.sigma < 1.0]) >= 10_000)]),
    ][seed % 10]


def composed(seed):
    """(terms, constraints) with terms made of others, and penalties and departures."""
    rng = np.random.default_rng(seed)
    weight, price = float(10 ** rng.uniform(-10.5, -9)), float(10 ** rng.uniform(-8.5, -7))
    floor = co.Floor(lambda s: 3_000 * s / (1 + s), "density", low=0.05, high=5.0)
    soft = co.SoftConstraint(floor, price)
    bound = co.SoftConstraint(Congestion(1.0) <= 1e7, weight)
    training = co.Compute(co.Prices(3.0, 1.0, 1000), part="training")
    return [
        ([co.KLDivergence(co.LogNormal(0.0, 1.5), price=price / 10)], []),
        ([soft], []),
        ([co.SoftConstraint(floor, 1e-12, norm="squared")], []),
        ([co.SoftConstraint(co.Cap(3.0, "step_density"), 1e-4)], []),
        ([bound], []),
        ([co.WorstCase([bound, soft, weight * Congestion(0.5)])], []),
        ([co.CVaR([bound, soft, 1e-9 * training], 0.5)], []),
        ([], [co.KLDivergence(co.LogNormal(0.0, 1.5)) <= 3e3]),
        ([], [co.WorstCase({"a": Congestion(1.0), "b": 3e1 * training}) <= 2e7]),
        ([co.SoftConstraint(co.Monotone("increasing"), price)], []),
        ([co.SoftConstraint(co.Floor(3_000.0, high=0.5), price)], []),
    ][seed % 11]


def drawn(seed, kinds=kinds):
    rng = np.random.default_rng(1000 + seed)
    spectrum = co.Spectrum.power_law(int(rng.integers(3, 30)), exponent=float(rng.uniform(0.8, 2)))
    model = co.GaussianModel(
        spectrum,
        process=co.EDM(0.002, 80.0),
        sampler=SAMPLERS[seed % 5],
        terminal=("denoise", "rescale")[seed % 3 == 0],
    )
    example = [3.0, lambda s: 2 + s / (1 + s)][seed % 7 == 6]
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 32) if seed % 11 == 5 else None
    budget = float(10 ** rng.uniform(4.9, 5.6))
    terms, constraints = kinds(seed)
    return Study(model, co.Prices(example, 1.0, 1000), budget, None, run, constraints, terms, LEVELS, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60) if FULL else (0, 6))
def test_no_program_inside_an_interval_is_below_its_bound(seed):
    _checked(drawn(seed), seed)


@pytest.mark.parametrize("seed", range(66) if FULL else (1, 8))
def test_no_program_with_terms_made_of_others_is_below_its_bound(seed):
    missing = _checked(drawn(seed, composed), seed)
    assert not any("nested" in each for each in missing)


def _checked(found, seed):
    """What the bounds of two intervals leave out, after they were held against programs inside."""
    rng, missing = np.random.default_rng(seed), []
    edge = float(co.Levels.log_uniform(0.002, 80.0, LEVELS).edges[8])
    for width in (0.4, 0.02):
        low = float(np.exp(rng.uniform(np.log(0.004), np.log(0.2))))
        if rng.uniform() < 0.3:
            low = edge * float(np.exp(-width * rng.uniform()))
        high = low * float(np.exp(width))
        program = interval_program(found, low, high)
        try:
            bound = program.problem.solve().certificate.lower_bound
        except co.InfeasibleError:
            bound = np.inf
        for share in (0.0, rng.uniform(), 1.0):
            inside = low * (high / low) ** share
            try:
                error = found.solve(inside).error
            except co.InfeasibleError:
                continue
            print(seed, width, bound / error, program.missing)
            assert bound <= error * (1 + 2e-6)
        missing += program.missing
    return missing


def literal(table, prices, budget, weight=0.0, cap=None):
    """Error of a design at one stopping point, least in u = log m and v = log n, by plain arithmetic."""
    size, delta = len(table.levels), table.log_width
    u, v = cp.Variable(size), cp.Variable(size)
    m0, n0 = budget / prices.example / size / 2, budget / prices.images / size / 2
    kappa, rows = table.kappa / n0, table.step_response / n0**table.order
    score = cp.multiply(table.example_error / m0, cp.maximum(cp.exp(-u), cp.multiply(kappa, cp.exp(-u - v))))
    sums = [cp.sum(cp.multiply(row, cp.exp(-table.order * v))) for row in rows if row.any()]
    near = cp.Variable()
    unit = float(table.example_error.sum() / m0)
    error = (cp.sum(score) + sum(cp.square(s) for s in sums)) / unit
    error = error + weight / unit * cp.sum(cp.multiply(delta * (m0 / delta) ** 1.5, cp.exp(1.5 * u)))
    final = table.final_steps * prices.images
    paid = prices.example * m0 * cp.sum(cp.exp(u)) + prices.images * table.evaluations_per_step * n0 * cp.sum(cp.exp(v))
    limits = [paid / budget <= (budget - final) / budget, u >= -12, v >= -12]
    if table.final_score > 0:
        # at fixed shares of a feasible design the window is linear; its reciprocal stays convex in m, not in u: the
        # last evaluation is bounded by examples of the window's first whole level, which is a restriction
        first = int(np.argmax(table.final_window))
        limits.append(near == u[first])
        error = error + table.final_score / m0 / unit * cp.exp(-near)
    if cap is not None:
        limits.append(v >= np.log(table.levels.width / table.levels.average(cap) / n0))
    with warnings.catch_warnings():  # what counts is the value of the design, by plain arithmetic below
        warnings.simplefilter("ignore", UserWarning)
        cp.Problem(cp.Minimize(error), limits).solve(solver="CLARABEL")
    m, n = m0 * np.exp(u.value), n0 * np.exp(v.value)
    scale = (budget - final) / (prices.example * m.sum() + prices.images * table.evaluations_per_step * n.sum())
    m = m * min(scale, 1.0) if cap is not None else m * scale
    n = n if cap is not None else n * scale
    value = np.sum(table.example_error / m * np.maximum(1, table.kappa / n))
    value += ((table.step_response / n**table.order).sum(axis=1) ** 2).sum() + table.truncation + table.initial
    value += np.sum(table.floor_error * np.maximum(1, table.kappa / n)) + table.final_floor
    value += table.final_score / (table.final_window @ m) if table.final_score > 0 else 0.0
    return float(value + weight * np.sum(delta * (m / delta) ** 1.5))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["term", "cap"])
def test_bound_of_the_search_is_below_every_raw_program_and_within_its_tolerance(kind):
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5))
    prices, budget, weight, cap = co.Prices(3.0, 1.0, 1000), 1e5, 3e-10, lambda s: 0.4 * s
    asked = {"terms": [Congestion(weight)]} if kind == "term" else {"constraints": [co.Cap(cap, "step_size")]}
    plan = co.codesign(
        model,
        prices,
        budget,
        levels=LEVELS,
        points=5 if FULL else 3,
        search=SEARCH,
        outer_tolerance=5e-3,
        polish=False,
        **asked,
    )
    given = {"weight": weight} if kind == "term" else {"cap": cap}
    values = [
        literal(model.coefficients(float(stop), LEVELS), prices, budget, **given)
        for stop in np.geomspace(*SEARCH, 41 if FULL else 3)
    ]
    print(kind, plan.outer["status"], plan.error, plan.outer["lower_bound"], min(values))
    assert plan.outer["lower_bound"] <= min(values) * (1 + 1e-9)
    assert plan.outer["status"] == "optimal"
    assert plan.error <= min(values) * (1 + 5e-3)
    bounds = plan.outer["intervals"]
    assert min(each["lower_bound"] for each in bounds) >= plan.outer["lower_bound"] * (1 - 1e-12)
    assert bounds[0]["low"] == pytest.approx(SEARCH[0])
    assert bounds[-1]["high"] == pytest.approx(SEARCH[1])


@pytest.mark.slow
def test_what_is_missing_from_the_bound_is_named():
    model, prices = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5)), co.Prices(3.0, 1.0, 1000)
    small = {"levels": LEVELS if FULL else 24, "points": 3, "search": (0.03, 0.04), "polish": False}
    plan = co.codesign(model, prices, 1e5, terms=[Anonymous(3e-10)], **small)
    assert 0 < plan.outer["lower_bound"] < plan.error
    assert plan.outer["status"].startswith("best of")
    assert any("Anonymous" in note and "nested" in note for note in plan.notes)
    floor = co.named("low noise", lambda d: cp.sum(d.examples[d.sigma < 1.0]) >= 20_000)
    plan = co.codesign(model, prices, 1e5, constraints=[floor], **small)
    assert 0 < plan.outer["lower_bound"] < plan.error
    assert any("low noise" in note for note in plan.notes)
    plan = co.codesign(model, prices, 1e5, terms=[Refund()], **small)
    assert plan.outer["lower_bound"] == -np.inf
    assert any("Refund may be negative" in note for note in plan.notes)


def test_a_subclass_says_nothing_by_what_its_parent_said():
    assert Congestion.nested
    assert not Anonymous.nested

    class Wider(co.Cap):
        def constraints(self, design):
            return []

    assert co.Cap.nested
    assert not Wider.nested
