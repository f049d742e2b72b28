"""Random programs and plans from end to end: their objective by hand, bounds against random points, peers."""

from __future__ import annotations

import os

import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PROGRAMS, PLANS = (4_000, 1_000) if FULL else (6, 1)
POINTS = 50
SAMPLERS = (co.Euler, co.Heun, co.DPMpp2M, co.DPMpp3M, co.UniPC)


def stated(seed):
    """A random model and random prices, over many decades of each."""
    rng = np.random.default_rng(seed)
    spectrum = co.Spectrum.power_law(int(rng.integers(2, 64)), exponent=float(rng.uniform(0.3, 3.0)))
    process = co.EDM(float(10 ** rng.uniform(-3, -1.5)), float(10 ** rng.uniform(1, 2.5)))
    coupling = co.Local(float(rng.uniform(0.5, 5.0)))
    model = co.GaussianModel(spectrum, process, SAMPLERS[int(rng.integers(len(SAMPLERS)))](), coupling=coupling)
    images = float(10 ** rng.uniform(1, 6))
    return rng, model, co.Prices(float(10 ** rng.uniform(-1, 1)), float(10 ** rng.uniform(-1, 1)), images)


def score(table, m, n):
    """sum_l (A_l / (m_l + p_l) + F_l) max(1, kappa_l / n_l) + A_r / (m_r + p_r) + F_r, docs/theory.md section 6."""
    prior = 0.0
    if table.untrained is not None:
        prior = table.log_width * table.score / (table.coupling.log_width * table.untrained)
    found = ((table.example_error / (m + prior) + table.floor_error) * np.maximum(1.0, table.kappa / n)).sum()
    if table.final_score > 0:
        beside = 0.0 if table.final_untrained is None else table.final_score / table.final_untrained
        found += table.final_score / (table.final_window @ m + beside)
    return found + table.final_floor


def discretization(table, n):
    """sum_b (sum_l R_bl / n_l^q)^2."""
    return ((table.step_response / n**table.order).sum(axis=1) ** 2).sum()


def test_random_programs_by_hand():
    for seed in range(PROGRAMS):
        rng, model, prices = stated(seed)
        low = model.process.sigma_min
        table = model.coefficients(float(low * 10 ** rng.uniform(0.1, 1.0)), int(rng.integers(4, 40)))
        example = np.full(len(table.levels), prices.example)
        step = np.full(len(table.levels), prices.images * prices.evaluation * table.evaluations_per_step)
        last = prices.images * prices.evaluation * table.final_steps
        budget = float(last + (step.mean() + prices.example) * 10 ** rng.uniform(1, 5))
        plan = co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Compute(prices) <= budget]).solve()
        own = score(table, plan.examples, plan.steps) + discretization(table, plan.steps)
        said = f"seed {seed}"
        assert plan.error == pytest.approx(own, rel=1e-9), said
        assert example @ plan.examples + step @ plan.steps + last <= budget * (1 + 1e-9), said
        bound = plan.certificate.lower_bound
        assert plan.certificate.value - bound <= 1e-6 * plan.certificate.value, said
        for _ in range(POINTS):  # around the optimum and far from it: no feasible point is below what was proved
            m, n = (
                x * np.exp(rng.normal(size=x.size) * 10 ** rng.uniform(-4, 0.5)) for x in (plan.examples, plan.steps)
            )
            both = (budget - last) / (example @ m + step @ n)
            assert score(table, both * m, both * n) + discretization(table, both * n) >= bound * (1 - 1e-12), said


def test_random_plans_are_no_worse_than_the_peers_they_print():
    for seed in range(PLANS):
        rng, model, prices = stated(10_000 + seed)
        steps = int(rng.integers(4, 12))
        budget = prices.images * prices.evaluation * steps * 2 * float(10 ** rng.uniform(0.5, 3))
        plan = co.codesign(model, prices, budget, levels=int(rng.integers(8, 24)), points=3, outer_tolerance=1.0)
        said = f"seed {10_000 + seed}"
        assert plan.peers, said
        best = min(record["total"] for record in plan.peers.values())
        assert plan.handed_out["total"] <= best * (1 + 1e-6) + 1e-14, f"{said}: {plan.handed_out['total']} above {best}"
        assert plan.costs["training"] + plan.costs["sampling"] <= budget * (1 + 1e-6), said
        assert plan.certificate.value - plan.certificate.lower_bound <= 1e-6 * plan.certificate.value, said
