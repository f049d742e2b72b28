"""Random joint programs and an independent evaluation of them, for test_joint.py and its benchmarks."""

from __future__ import annotations

import numpy as np

import codesign_opt as co
from codesign_opt.certificate.lagrangian import LagrangianBound, ScorePart
from codesign_opt.ingredients.coupling import Settled
from codesign_opt.solvers.joint.newton import JointProgram

COUPLINGS = {
    "max": co.Local(1.0),
    "p4": co.Local(1.0, form="p4"),
    "per_step": co.PerStep(1.0),
    "settled": Settled(np.ones(1)),
}


def random_program(seed, *, sizes=(1, 2, 3, 5, 12, 40), decades=(0.5, 2, 6, 16)):
    """A feasible instance with anything that may go wrong: decades, zeros, caps, floors, spent examples, budgets."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice(sizes))
    bands = int(rng.choice([0, 1, 2, 4, 8]))
    decades = float(rng.choice(decades))

    def spread(*shape, zeros=0.0):
        values = 10 ** rng.uniform(-decades / 2, decades / 2, shape)
        return np.where(rng.random(shape) < zeros, 0.0, values)

    def sometimes(value, chance, other=None):
        return value if rng.random() < chance else other

    zeros = float(rng.choice([0.0, 0.0, 0.2, 1.0]))
    errors = spread(size, zeros=zeros)
    floors = spread(size, zeros=float(rng.choice([0.0, 0.3, 1.0]))) * 10 ** rng.uniform(-8, 4)
    kappa = spread(size) * 10 ** rng.uniform(-3, 3)
    response = spread(bands, size, zeros=float(rng.choice([0.0, 0.3, 0.9]))) * 10 ** rng.uniform(-4, 4)
    if bands and rng.random() < 0.3:
        response[rng.integers(bands)] = 0.0
    c, k = spread(size), spread(size) * 10 ** rng.uniform(-4, 4)
    if rng.random() < 0.3:
        c, k = np.full(size, c[0]), np.full(size, k[0])
    spent = sometimes(spread(size, zeros=0.4) * 10 ** rng.uniform(-4, 4), 0.3)
    examples_low = sometimes(spread(size, zeros=0.5) * 10 ** rng.uniform(-6, 2), 0.3)
    steps_low = sometimes(spread(size, zeros=0.5) * 10 ** rng.uniform(-6, 2), 0.25)
    e = np.zeros(size) if spent is None else spent
    low = e if examples_low is None else np.maximum(e, examples_low)
    n_low = np.zeros(size) if steps_low is None else steps_low
    kind = rng.choice(["one", "two", "both", "steps"])
    zero, one = np.zeros(size), np.ones(size)
    rows = {
        "one": ([c], [k]), "two": ([c, zero], [zero, k]), "both": ([c, zero], [k, one]), "steps": ([zero], [k])
    }[kind]  # fmt: skip
    ex, st = np.array(rows[0]), np.array(rows[1])
    if kind == "steps":
        errors, spent, examples_low, low, e = np.zeros(size), None, None, zero, zero
    cheapest = ex @ (low - e) + st @ n_low
    typical = ex @ (spread(size) + low) + st @ (spread(size) + n_low)
    budgets = cheapest * (1 + 10 ** rng.uniform(-6, 1)) + typical * 10 ** rng.uniform(-6, 6, len(rows[0]))
    steps_high = sometimes(n_low * 1.0 + spread(size) * 10 ** rng.uniform(-3, 6), 0.3)
    if steps_high is not None and rng.random() < 0.5:
        steps_high = np.where(rng.random(size) < 0.5, np.maximum(n_low, 1e-3), np.inf)
    examples_high = sometimes(low + spread(size) * 10 ** rng.uniform(-3, 6), 0.3)
    if examples_high is not None and rng.random() < 0.5:
        examples_high = np.where(rng.random(size) < 0.5, np.maximum(low, 1e-3), np.inf)
    final = float(sometimes(10 ** rng.uniform(-12, 12), 0.4, 0.0)) if kind != "steps" else 0.0
    window = np.where(np.arange(size) < max(1, size // 4), rng.uniform(0.3, 1, size), 0.0)
    if rng.random() < 0.5:
        window = (window > 0).astype(float)
    return JointProgram(
        errors, floors, kappa, response, int(rng.integers(1, 4)), ex, st, budgets,
        spent=spent, examples_low=examples_low, examples_high=examples_high, steps_low=steps_low,
        steps_high=steps_high, final_error=final, final_window=window,
        form=str(rng.choice(["max", "per_step", "settled", "p4"])),
    )  # fmt: skip


def parts(p):
    """Bounds of (T, n) with the defaults filled in, and the spent examples."""
    spent = np.zeros(p.size) if p.spent is None else p.spent
    low = spent if p.examples_low is None else np.maximum(spent, p.examples_low)
    high = np.full(p.size, np.inf) if p.examples_high is None else np.maximum(p.examples_high, spent)
    n_low = np.zeros(p.size) if p.steps_low is None else p.steps_low
    n_high = np.full(p.size, np.inf) if p.steps_high is None else p.steps_high
    return spent, low, high, n_low, n_high


def objective(p, total, n):
    """The objective written once more, level by level."""
    value = 0.0
    sums = np.zeros(len(p.response))
    with np.errstate(all="ignore"):
        for l in range(p.size):
            x = p.kappa[l] / n[l] if p.kappa[l] > 0 else 0.0
            smooth = max(1.0, x) * (1 + min(x, 1 / x if x else 0) ** 4) ** 0.25
            factor = {"max": max(1.0, x), "per_step": x, "settled": 1.0, "p4": smooth}[p.form]
            if p.errors[l] > 0:
                value += p.errors[l] * factor / total[l]
            if p.floors[l] > 0:
                value += p.floors[l] * factor
            for b in range(len(sums)):
                if p.response[b, l] > 0:
                    sums[b] += p.response[b, l] / n[l] ** p.order
        if p.final_error > 0:
            value += p.final_error / (float(p.final_window @ total) + p.final_offset)
        return float(value + sums @ sums)


def independent_bound(p, found):
    """The Lagrangian at the solution's multipliers, minimised by the bisection of certificate.py."""
    spent, low, high, n_low, n_high = parts(p)
    bound = LagrangianBound(p.size, spent)
    bound.examples_box = (low - spent, np.maximum(high - spent, 0))
    bound.steps_box = (n_low, n_high)
    bound.parts.append(ScorePart(p.errors, p.floors, COUPLINGS[p.form], p.kappa))
    bound.powers.append((float(p.order), found.band_multipliers @ p.response))
    bound.constant -= float(found.band_multipliers @ found.band_multipliers) / 4
    for eta, c, k, budget in zip(found.budget_multipliers, p.examples_prices, p.steps_prices, p.budgets, strict=True):
        bound.add_linear(-float(eta * budget), eta * c, eta * k)
    if p.final_error > 0:
        nu = found.window_multiplier
        constant = 2 * np.sqrt(p.final_error * nu) - nu * (float(p.final_window @ spent) + p.final_offset)
        bound.add_linear(constant, -nu * p.final_window, np.zeros(p.size))
    with np.errstate(all="ignore"):
        return bound.value()


def feasible_points(p, found, rng, count=12):
    """Random designs inside every bound and budget, some near the solution."""
    spent, low, high, n_low, n_high = parts(p)
    for i in range(count):
        if i % 2:
            total = low + rng.exponential(1, p.size) * (1 / np.maximum(p.examples_prices.max(axis=0), 1e-300))
            n = n_low + rng.exponential(1, p.size) / np.maximum(p.steps_prices.max(axis=0), 1e-300)
        else:
            total = spent + found.examples
            n = found.steps * np.exp(10 ** rng.uniform(-5, 0.3) * rng.normal(size=p.size))
            total = low + (total - low) * np.exp(10 ** rng.uniform(-5, 0.3) * rng.normal(size=p.size))
            n = np.maximum(n, n_low)
        total, n = np.minimum(total, high), np.minimum(n, n_high)
        room = p.budgets - p.examples_prices @ (low - spent) - p.steps_prices @ n_low
        with np.errstate(all="ignore"):
            cost = p.examples_prices @ (total - low) + p.steps_prices @ (n - n_low)
            share = float(np.min(np.where(cost > 0, room / cost, 1e6)))
            point = np.minimum(low + share * (total - low), high), np.minimum(n_low + share * (n - n_low), n_high)
        yield point


def check(p, found, rng):
    """None where every claim about the solution holds; else what doesn't."""
    spent, low, high, n_low, n_high = parts(p)
    total = spent + found.examples
    cost = p.examples_prices @ found.examples + p.steps_prices @ found.steps
    if np.any(cost > p.budgets * (1 + 1e-9)):
        return f"over budget by {(cost / p.budgets).max() - 1:.2g}"
    for value, least, most in ((total, low, high), (found.steps, n_low, n_high)):
        if np.any(value < least * (1 - 1e-12)) or np.any(value > most * (1 + 1e-12)):
            return "outside a bound"
    value = objective(p, total, found.steps)
    if not np.isclose(value, found.value, rtol=1e-9, atol=0):
        return f"value {found.value} is {value}"
    scale = max(abs(found.value), 1e-300)
    again = independent_bound(p, found)
    if abs(again - found.lower_bound) > 1e-7 * scale and found.lower_bound > -scale:
        return f"bound {found.lower_bound} is {again} by bisection, value {value}"
    if found.lower_bound > found.value + 1e-10 * scale:
        return f"bound {found.lower_bound} above the value {found.value}"
    for point in feasible_points(p, found, rng):
        other = objective(p, *point)
        if other < found.lower_bound - 1e-9 * scale:
            return f"bound {found.lower_bound} above a feasible {other}"
    return None
