"""The user code that the package promises, line by line as users will write it."""

import os
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.user_code import first_line, told_in

# where planning by the defaults is tested elsewhere
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
QUICK = {} if FULL else {"levels": 60, "points": 6}
MEASURED = (
    {} if FULL else {"measurement": co.estimate.Measurement(levels=8, draws=32, fine_steps=16, evaluations=4_000)}
)


@pytest.fixture(scope="module")
def model():
    spectrum = co.Spectrum.power_law(64, exponent=1.5)
    return co.GaussianModel(spectrum, process=co.EDM(sigma_min=0.002, sigma_max=80.0), sampler=co.Heun(),
                            training=co.AveragedSGD(),
                            coupling=co.Local(log_width=2.7),
                            terminal="denoise")  # fmt: skip


@pytest.fixture(scope="module")
def prices():
    return co.Prices(example=3.0, evaluation=1.0, images=10_000)


def test_1_plan_everything(model, prices, tmp_path):
    plan = co.codesign(model, prices, budget=1e6)
    assert "certificate" in str(plan).lower() or "optimal" in str(plan)
    assert plan.sigmas[0] == pytest.approx(80.0)
    assert plan.sigmas[-1] == 0.0
    assert plan.sigmas[-2] == pytest.approx(plan.stopping_sigma)
    assert np.all(np.diff(plan.sigmas) < 0)
    s = np.geomspace(1.01 * plan.stopping_sigma, 50, 7)
    assert np.all(plan.training_density(s) > 0)
    fit = plan.training_density.lognormal()
    assert fit.loss >= -1e-9
    assert fit.P_std > 0
    sigma, weight = plan.sample_sigmas(256, np.random.default_rng(0))
    assert sigma.shape == weight.shape == (256,)
    assert plan.certificate.relative_gap < 1e-6
    assert sum(plan.breakdown.values()) == pytest.approx(plan.error)
    assert plan.shadow_prices["budget"] < 0
    plan.save(tmp_path / "plan.json")
    again = co.Plan.load(tmp_path / "plan.json")
    assert str(again) == str(plan)
    np.testing.assert_array_equal(again.sigmas, plan.sigmas)
    figure = plan.plot()
    assert figure.axes


def test_1b_one_side_only(model, prices):
    sampler = co.codesign(model, steps=18)
    assert sampler.number_of_steps == 18
    grid = co.edm_grid(18, 0.002, 80.0)
    trained = co.codesign(model, prices, budget=1e6, sigmas=grid)
    np.testing.assert_array_equal(trained.sigmas, grid)
    assert trained.certificate.optimal


@pytest.mark.usefixtures("undescended")  # the search for grids is test_1's and the audits' of tests/planning
def test_1c_audit_and_a_run_already_made(model, prices):
    grid = co.edm_grid(18, 0.002, 80.0)
    run = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=2_000, batch=256, log="loss.csv")
    loose = QUICK | ({} if FULL else {"outer_tolerance": 0.1})
    report = co.audit(model, prices, sigmas=grid, run=run, **loose)
    assert report.ratio >= 1.0
    assert sum(report.gap.values()) == pytest.approx(report.current["total"] * (1 - 1 / report.ratio))
    budget = 5e6 if FULL else 1e6
    plan = co.codesign(model, prices, budget=budget, run=run, **QUICK)
    assert np.all(plan.examples >= plan.new_examples)
    assert plan.error < co.codesign(model, prices, budget=budget, polish=False, **QUICK).error


def test_2_own_cost_model(model):
    guided = co.Prices(example=3.0, evaluation=lambda sigma: 1.0 + ((sigma > 0.3) & (sigma < 5.0)), images=10_000)
    plan = co.codesign(model, guided, budget=1e6, stopping_sigma=0.01)
    assert plan.certificate.optimal


@dataclass(frozen=True, eq=False)
class Congestion(co.Term):
    "Superlinear price of many examples at one noise level."

    price: float
    power: float = 1.5

    def expression(self, design):
        return self.price * cp.sum(cp.multiply(design.log_width, cp.power(design.density, self.power)))


def test_3_own_constraints(model, prices):
    c = model.coefficients(levels=200)
    problem = co.Problem(co.ScoreError(c) + co.Discretization(c) + Congestion(1e-12),
                         [co.Compute(prices) <= 1e6, co.Steps() <= 18, co.StabilityCap(c),
                          co.named("low-noise floor", lambda design: cp.sum(design.examples[c.sigma < 0.1]) >= 5_000)])  # fmt: skip  # noqa: E501
    plan = problem.solve()
    assert plan.certificate.optimal
    assert plan.shadow_prices["Steps"] < 0
    assert plan.shadow_prices["low-noise floor"] >= 0
    assert plan.breakdown["Congestion"] > 0


def test_4_shared_parameters(prices):
    levels = np.geomspace(0.01, 50.0, 20)
    rng = np.random.default_rng(0)
    features, response = rng.normal(size=(20, 2, 6)), rng.normal(size=(6, 3))
    plan = co.Problem(co.InformationError(features, response, sigma=levels, prior=None, residual_variance=1.0),
                      [co.Compute(prices, part="training") <= 1e6]).solve()  # fmt: skip
    assert plan.certificate.optimal
    assert plan.sigmas is None
    assert any("sandwich" in note for note in plan.notes)


@pytest.mark.slow
def test_5_a_network_instead_of_a_gaussian(prices, tmp_path):
    from codesign_opt.testbed import LinearDenoiser

    eigenvalues = np.array([1.0, 0.3, 0.1, 0.03])
    data = np.random.default_rng(0).normal(size=(2_000, 4)) * np.sqrt(eigenvalues)
    denoiser = LinearDenoiser(eigenvalues)
    with (tmp_path / "loss.csv").open("w") as file:  # what a training loop wrote: losses that fall as 1 / examples
        file.write("examples,sigma,loss\n")
        for row in range(50):
            for sigma in np.geomspace(0.003, 60.0, 10):
                best = (eigenvalues * sigma**2 / (eigenvalues + sigma**2)).sum()
                file.write(f"1000,{sigma:.6g},{best * (1 + 0.5 / (row + 0.5)):.8g}\n")
    run = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=2_000, batch=256, log=tmp_path / "loss.csv")
    estimated = co.estimate.network(
        denoiser, data, process=co.EDM(), sampler=co.Heun(), training=run, seed=0, **MEASURED
    )
    plan = co.codesign(estimated, prices, budget=1e6, **QUICK)
    assert plan.certificate.optimal
    assert plan.costs["training"] + plan.costs["sampling"] == pytest.approx(1e6, rel=1e-5)
    assert plan.breakdown["score"] > 0
    for record in plan.peers.values():
        assert record["ratio"] > 1
    assert "for the model" in str(plan)


def test_errors_that_say_nothing_are_told_by_their_class():
    with pytest.raises(TypeError, match=r"^in the cost: NotImplementedError$"), told_in("the cost"):
        raise NotImplementedError
    with pytest.raises(ValueError, match=r"^in the cost: ValueError$"), told_in("the cost"):
        raise ValueError
    assert first_line(RuntimeError()) == "RuntimeError"
