"""What planning costs: one declared program, build and solve apart, and the loop over stopping points.

Run with `pytest tests/benchmarks/test_cost.py --benchmark-enable -s`.
"""

import pytest
from sklearn.datasets import load_digits

import codesign_opt as co

pytest.importorskip("pytest_benchmark")
PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)


@pytest.fixture(scope="module")
def model():
    spectrum = co.Spectrum.from_samples(load_digits().data / 16 * 2 - 1)
    return co.GaussianModel(spectrum, co.EDM(0.002, 80.0), co.Heun(), start="mean")


@pytest.mark.parametrize("method", ["declared", "auto"])
@pytest.mark.parametrize("levels", [100, 200, 400])
def test_one_program(benchmark, model, levels, method):
    table = model.coefficients(0.02, levels)
    problem = co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Compute(PRICES) <= 1e6])
    plan = benchmark(problem.solve, method=method)
    assert plan.certificate.optimal
    split = {part: sum(attempt[part] for attempt in plan.attempts) for part in ("build_seconds", "solve_seconds")}
    benchmark.extra_info.update(split)
    print(f"{method} {levels} levels: build {split['build_seconds']:.4f} s, solve {split['solve_seconds']:.4f} s")


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun()], ids=lambda s: s.name)
def test_codesign_over_24_stopping_points_at_200_levels(benchmark, model, sampler):
    own = co.GaussianModel(model.spectrum, model.process, sampler)
    plan = benchmark.pedantic(
        co.codesign, (own, PRICES, 1e6), {"points": 24, "levels": 200}, rounds=3, iterations=1, warmup_rounds=1
    )
    assert plan.certificate.optimal
    benchmark.extra_info["stopping_points"] = len(plan.curve)
    benchmark.extra_info["bound_evaluations"] = plan.outer["bound_evaluations"]
    benchmark.extra_info["status"] = plan.outer["status"]
