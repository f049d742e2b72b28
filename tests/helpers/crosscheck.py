"""Random problems stated through the modelling layer, solved by structure and as declared in cvxpy, and compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import codesign_opt as co
from codesign_opt.basics.errors import CodesignError, NotCertifiedError
from codesign_opt.ingredients.coupling import Settled
from codesign_opt.solvers.joint.program import FORMS
from codesign_opt.solvers.waterfill.fill import waterfill
from tests.helpers.joint import random_program
from tests.helpers.programs import boxed_training

ORDERS = (1, 2, 3)
TIGHT = 1e-7  # declared answers with a smaller certified gap are compared


# ------------------------------------------------------------------ problems


def joint_problem(seed, sizes=(5, 8, 12, 20, 30)):
    """A random joint program as terms, budgets and level bounds; the form and the order turn with the seed."""
    rng = np.random.default_rng([seed, 1])
    program = random_program(seed, sizes=sizes, decades=(0.5, 2, 4, 8, 16))
    program = replace(program, form=FORMS[seed % 4], order=ORDERS[seed // 4 % 3])
    levels = co.Levels.log_uniform(0.01, 10 ** rng.uniform(-1, 2), program.size)
    width = levels.log_width
    lengths = width / program.kappa
    coupling = {
        "max": co.Local(lambda _: lengths), "p4": co.Local(lambda _: lengths, form="p4"),
        "per_step": co.PerStep(lambda _: lengths), "settled": Settled(lengths),
    }[program.form]  # fmt: skip
    table = co.Coefficients(
        levels, score=program.errors / width**2, floor=program.floors / (width * lengths),
        response=program.response / width ** (program.order + 1), order=program.order, coupling=coupling,
        terminal="rescale", final_score=program.final_error,
    )  # fmt: skip
    rows = [*_budgets(program), *_bounds(program)]
    return co.Problem(co.ScoreError(table) + co.Discretization(table), rows, spent=program.spent)


def _budgets(program):
    """The bounds on price and steps behind the program's rows."""
    ex, st, limits = program.examples_prices, program.steps_prices, program.budgets
    one = np.ones(program.size)
    trains, samples = ex[0].any(), st[0].any()
    prices = co.Prices(ex[0] if trains else one, st[0] if samples else st[-1], 1)
    part = None if trains and samples else "training" if trains else "sampling"
    rows = [co.Compute(prices, part=part) <= limits[0]]
    if len(limits) == 2:  # a budget of its own for the sampler, or a bound on the steps beside the total
        second = co.Steps() if samples else co.Compute(prices, part="sampling")
        rows.append(second <= limits[1])
    return rows


def _bounds(program):
    given = [
        (co.Floor, program.examples_low, "examples"), (co.Cap, program.examples_high, "examples"),
        (co.Floor, program.steps_low, "steps"), (co.Cap, program.steps_high, "steps"),
    ]  # fmt: skip
    return [kind(value, quantity) for kind, value, quantity in given if value is not None]


def information_problem(seed, blocks=1):
    """Shared parameters of every kind: equal levels, smooth features, decades, prior, spent, floors, caps."""
    rng = np.random.default_rng([seed, 2])
    count = int(rng.choice([5, 8, 12, 20, 30]))
    sigma = np.geomspace(0.01, 50.0, count)
    prices, budget = np.exp(rng.standard_normal(count)), float(10 ** rng.uniform(-3, 3))
    share = budget / prices / count
    decades = float(rng.choice([0, 0, 2, 6]))
    terms = [
        10 ** rng.uniform(-1, 1) * _information_term(rng, sigma, decades, share, plain=bool(i)) for i in range(blocks)
    ]
    low, high, spent = np.zeros(count), np.full(count, np.inf), None
    if rng.random() < 0.3:
        spent = share * rng.uniform(0, 1, count)
    already = np.zeros(count) if spent is None else spent
    rows = [co.Compute(co.Prices(prices, 1.0, 0), part="training") <= budget]
    if rng.random() < 0.4:
        low = already + share * rng.uniform(0, 0.9, count) * (rng.random(count) < 0.5)
        rows.append(co.Floor(low, "examples"))
    if rng.random() < 0.4:
        high = np.maximum(low, already) + share * 10 ** rng.uniform(-0.5, 1.5, count)
        rows.append(co.Cap(high, "examples"))
    return co.Problem(sum(terms), rows, spent=spent)


def _information_term(rng, sigma, decades, share, *, plain):
    count = sigma.size
    size, k, r = (int(rng.choice(options)) for options in ([1, 3, 6], [1, 2], [1, 2, 8]))
    roots = rng.standard_normal((count, k, size)) * 10 ** rng.uniform(-decades / 2, decades / 2, (count, 1, 1))
    if rng.random() < 0.3 and not plain:
        place = np.log(sigma)[:, None, None] - rng.uniform(-4, 4, (k, size))
        roots = rng.standard_normal((k, size)) * np.exp(-0.5 * (place / rng.uniform(0.5, 2, (k, size))) ** 2)
    if rng.random() < 0.2:
        roots[count // 2 :] = roots[: count - count // 2]
    response = np.einsum("lkp,lkr->pr", roots, rng.standard_normal((count, k, r)))
    prior = None
    if rng.random() < 0.4:
        half = rng.standard_normal((size, int(rng.integers(1, size + 1))))
        prior = float((share * (roots**2).sum(axis=(1, 2))).sum()) * 10 ** rng.uniform(-3, 0) * half @ half.T
    return co.InformationError(roots, response, sigma=sigma, prior=prior)


def training_problem(seed):
    """(problem, what water-filling finds, with its value as its own bound)."""
    rng = np.random.default_rng([seed, 3])
    size, decades = int(rng.choice([5, 12, 30])), float(rng.choice([0, 2, 6, 12, 16]))
    scale = 10.0 ** rng.choice([-9, -3, 0, 3, 9], 2)
    table, steps, s, c, budget, low, high, e = boxed_training(size, decades, *scale, seed, spent=bool(seed % 2))
    exact = waterfill(s, c, budget, low=low, high=high, spent=e)
    rows = [co.Compute(co.Prices(c, 1.0, 1), part="training") <= budget]
    rows += [co.Floor(low, "examples"), co.Cap(high, "examples")]
    return co.Problem(co.ScoreError(table), rows, steps=steps, spent=e), (exact.value, exact.value)


# ------------------------------------------------------------------ comparison


@dataclass(frozen=True)
class Comparison:
    """One instance solved twice; gaps and differences are relative to what the design can change.

    Attributes:
        own, declared: certified gaps; inf where there was no certified-feasible point.
        difference: of the two values.
        crossed: how far a lower bound of one lies above the value of the other; above rounding, one proof is wrong.
        structured: whether the structured solver's answer was accepted.
    """

    own: float
    declared: float
    difference: float
    crossed: float
    structured: bool

    @property
    def wrong(self) -> str | None:
        """The complaint, or None."""
        if self.crossed > TIGHT:
            return f"a bound lies {self.crossed:.2g} above a feasible value"
        if self.structured and self.declared <= TIGHT and self.difference > 1.001 * TIGHT:
            return f"values differ by {self.difference:.2g}, gaps {self.own:.2g} and {self.declared:.2g}"
        return None


def compare(problem, exact=None):
    """The structured answer, or a given (value, lower bound), against the declared program."""
    if exact is None:
        try:
            plan = problem.solve()
        except NotCertifiedError:
            return Comparison(np.inf, np.inf, 0.0, 0.0, False)
        proof = plan.certificate
        value, lower, own = proof.value, proof.lower_bound, proof.relative_gap
        structured = str(plan.attempts[-1]["solver"]) in ("dual Newton", "Newton in shares")
    else:
        (value, lower), own, structured = exact, 0.0, True
    other = declared_plan(problem)
    if other is None or other.certificate.infeasibility > TIGHT:
        return Comparison(own, np.inf, 0.0, 0.0, structured)
    proof = other.certificate
    scale = max(value - constant(problem), 1e-8 * value, 1e-300)
    crossed = max(lower - proof.value, proof.lower_bound - value) / scale
    return Comparison(own, abs(proof.relative_gap), abs(value - proof.value) / scale, crossed, structured)


def declared_plan(problem):
    """The declared program's answer, certified or the best there is; None without a point."""
    try:
        return problem.solve(method="declared", tolerance=TIGHT)
    except NotCertifiedError as error:
        return error.plan
    except CodesignError:
        return None


def constant(problem):
    """What no design changes."""
    table = problem.table
    if table is None or isinstance(table.coupling, co.PerStep):
        return 0.0
    factor = 1.0 if problem.steps is None else table.coupling.factor(table.kappa / problem.steps)
    return float(np.sum(table.floor_error * factor))


KINDS = {
    "joint": lambda seed: (joint_problem(seed), None),
    "water-filling": training_problem,
    "information": lambda seed: (information_problem(seed), None),
    "information, blocks": lambda seed: (information_problem(seed, 2 + seed % 2), None),
}
