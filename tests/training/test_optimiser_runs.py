"""Runs of optimisers against simulation, closed forms and the limits of docs/theory.md section 5.9."""

from __future__ import annotations

import os
from math import gamma

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.ingredients.parameterization import Parameterization
from codesign_opt.training.base import TrainingNoise
from codesign_opt.training.burn_in import averaged_sgd_excess
from codesign_opt.training.optimiser_runs import SGD, Adam
from codesign_opt.training.optimisers import constant_step_variance, ema_variance
from codesign_opt.training.rates import power_exponent, power_relative_std
from codesign_opt.training.run_moments import Updates, run_moments
from tests.helpers.training_noise import within

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SPECTRA = {"isotropic": [1.0, 1.0], "power law": [1.0, 0.16], "spiked": [1.5, 0.02]}
LAM = np.concatenate([SPECTRA[name] for name in SPECTRA])
EMA, POWER, ALL = co.WeightAverage.exponential(25), co.WeightAverage.power(0.1), co.WeightAverage.uniform()


def runs(batch, updates, scale=1.0):
    rising = co.LearningRate(0.02 * scale, warmup=20)
    cosine = co.LearningRate(0.02 * scale, "cosine", warmup=20)
    falling = co.LearningRate(0.02 * scale, "inverse_sqrt", reference=updates / 5)
    own = {"parameterization": "x0"}
    return {
        "plain, all averaged": SGD(0.15 * scale, batch, updates, average=ALL, **own),
        "heavy ball": SGD(rising, batch, updates, 0.9, **own),
        "Nesterov, exponential": SGD(falling, batch, updates, 0.9, True, average=EMA, **own),
        "heavy ball, cosine": SGD(cosine, batch, updates, 0.9, **own),
        "plain, power": SGD(0.15 * scale, batch, updates, average=POWER, **own),
    }


def adams(batch, updates, scale=1.0):
    own, peak = {"parameterization": "x0"}, 0.02 * scale
    found = {
        "Adam": Adam(peak, batch, updates, **own),
        "Adam, cosine, exponential": Adam(co.LearningRate(peak, "cosine", 20), batch, updates, average=EMA, **own),
    }
    if FULL:
        found["Adam, falling"] = Adam(co.LearningRate(peak, "inverse_sqrt", 20, updates / 5), batch, updates, **own)
    return found


class Simulated:
    """torch.optim.SGD and Adam written out on many replicas of diagonal weights, with what is averaged beside."""

    def __init__(self, run, shape):
        self.run, self.t = run, 0
        self.weight, self.momentum, self.second, self.average = (np.zeros(shape) for _ in range(4))
        self.rates = run.learning_rate.peak * run.learning_rate.factors(run.iterations)
        self.power = power_exponent(run.average.length) if run.average.kind == "power" else None

    def update(self, clean, noisy):
        run, self.t = self.run, self.t + 1
        gradient = ((self.weight[..., None] * noisy - clean) * noisy).mean(axis=-1)
        if isinstance(run, Adam):
            self.momentum = run.beta1 * self.momentum + (1 - run.beta1) * gradient
            self.second = run.beta2 * self.second + (1 - run.beta2) * gradient**2
            root = np.sqrt(self.second / (1 - run.beta2**self.t)) + 1e-12
            move = self.momentum / (1 - run.beta1**self.t) / root
        else:
            self.momentum = run.momentum * self.momentum + gradient
            move = gradient + run.momentum * self.momentum if run.nesterov else self.momentum
        self.weight = self.weight - self.rates[self.t - 1] * move
        kept = 0.0
        if self.power is not None:
            kept = (1 - 1 / self.t) ** (self.power + 1)
        elif run.average.kind == "exponential":
            kept = 1 - 1 / run.average.length
        self.average = kept * self.average + (1 - kept) * self.weight


def simulated(optimisers, sigma, replicas, seed):
    rng, first = np.random.default_rng(seed), next(iter(optimisers.values()))
    shape = (replicas, LAM.size, first.batch)
    all_of = {name: Simulated(run, shape[:2]) for name, run in optimisers.items()}
    for _ in range(first.iterations):
        clean = np.sqrt(LAM)[:, None] * rng.standard_normal(shape)
        noisy = clean + sigma * rng.standard_normal(shape)
        for each in all_of.values():
            each.update(clean, noisy)
    best = LAM / (LAM + sigma**2)
    return {name: (each.average - best) ** 2 for name, each in all_of.items()}


# every optimiser alone has less than a hundredth of its error left of the start in the cases of Adam
CASES = [(runs, 0.6, 8, 160, 1200, 1.0, 0), (adams, 0.6, 8, 300, 800, 1.0, 1)]
LARGE = [
    (runs, 0.3, 8, 1500, 3000, 0.5, 1),
    (runs, 1.5, 16, 600, 3000, 0.25, 2),
    (runs, 0.6, 4, 1000, 12_000, 0.5, 3),
    (adams, 0.3, 8, 1500, 3000, 0.5, 4),
    (adams, 1.5, 16, 1000, 2000, 0.5, 5),
]


@pytest.mark.parametrize(
    ("kind", "sigma", "batch", "updates", "replicas", "scale", "seed"), CASES + (LARGE if FULL else [])
)
def test_runs_leave_what_simulations_leave_on_three_spectra(kind, sigma, batch, updates, replicas, scale, seed):
    optimisers = kind(batch, updates, scale)
    truth = simulated(optimisers, sigma, replicas, seed)
    for name, run in optimisers.items():
        a, floor = run.weight_variance(LAM, [sigma])
        expected = (a / (updates * batch) + floor)[:, 0]
        if FULL:
            z = (truth[name].mean(axis=0) - expected) / (truth[name].std(axis=0) / np.sqrt(replicas))
            print(f"sigma {sigma:g} {name}: z {z.round(2).tolist()}, start {(floor[:, 0] / expected).max():.2g}")
        within(truth[name], expected)  # 3 standard errors


def test_long_constant_runs_reach_the_closed_forms_of_constant_steps():
    v, rate, batch, count = 1.64, 0.1, 4, 60_000
    one = np.ones(1)
    noise = constant_step_variance([1.0], [0.8], rate, batch).diagonal()[0, 0]

    def moments(decays):
        return run_moments(v * one, 0.64 * one, one, Updates(np.full(count, rate), decays, 0.0, False, batch))

    np.testing.assert_allclose(moments(np.zeros(count)).noise, noise, rtol=1e-9)
    np.testing.assert_allclose(
        moments(np.full(count, 0.99)).noise, ema_variance(noise, rate, v, batch, 0.99), rtol=1e-3
    )
    polyak = run_moments(v * one, 0.64 * one, one, Updates(np.full(count, rate), ALL.decays(count), 0.0, False, batch))
    step = 0.64 / v**2 / (count * batch) * (2 - rate * v) / (2 - 1.5 * rate * v)
    np.testing.assert_allclose(polyak.noise, step, rtol=2e-3)
    phi, square = 1 - rate * v, 1 - 2 * rate * v + 1.5 * (rate * v) ** 2
    left = square / (1 - square) * (1 + phi) / (1 - phi) / count**2  # of the products of all pairs of updates
    np.testing.assert_allclose(polyak.start, left, rtol=0.02)


def test_power_averages_schedules_and_momentum_tend_to_their_limits():
    one, count, batch = np.ones(1), 40_000, 10**6

    def left(rates, decays, momentum=0.0):
        return run_moments(one, one, one, Updates(rates, decays, momentum, False, batch))

    for g in (0.5, 2.0, 7.0):
        average = co.WeightAverage.power(power_relative_std(g))
        rate = 0.003 if g < 3 else 0.03
        found = left(np.full(count, rate), average.decays(count))
        np.testing.assert_allclose(found.noise * batch * count, (g + 1) ** 2 / (2 * g + 1), rtol=0.03)
        if g < 3:
            np.testing.assert_allclose(found.start, (gamma(g + 2) / (rate * count) ** (g + 1)) ** 2, rtol=0.03)
    none = np.zeros(count)
    peak = 0.02
    cosine = left(peak * co.LearningRate(1.0, "cosine").factors(count), none).noise * batch
    limit = gamma(5 / 3) / 3 * 1.5 ** (5 / 3) * (peak * np.pi**2 / (4 * count**2)) ** (1 / 3)
    np.testing.assert_allclose(cosine, limit, rtol=0.02)
    falling = peak * co.LearningRate(1.0, "inverse_sqrt", reference=1000.0).factors(count)
    np.testing.assert_allclose(left(falling, none).noise * batch, falling[-1] / 2, rtol=0.02)
    np.testing.assert_allclose(left(np.full(count, 0.001), none, 0.9).noise * batch, 0.01 / 2, rtol=0.01)


def test_tables_are_the_recursion_and_stops_are_the_levels():
    lam, sigma, stops = np.array([1.0, 0.1, 1e-3]), np.geomspace(0.05, 40, 7), np.array([0.01, 0.03])
    form = Parameterization("edm", 0.5)
    v = lam[:, None] + sigma**2
    start = form.c_skip(sigma) - lam[:, None] / v
    for run, close in ((SGD(0.02, 32, 900, 0.8, average=POWER), 1e-3), (Adam(0.01, 32, 900, average=EMA), 0.04)):
        size = form.rate_factor(sigma) if run.name == "SGD" else np.abs(form.c_out(sigma) * form.c_in(sigma))
        step = np.broadcast_to(run.learning_rate.peak * size, v.shape).ravel()
        exact = run_moments(v.ravel(), (lam[:, None] * sigma**2).ravel(), start.ravel(), run._updates, step)
        a, floor = run.weight_variance(lam, sigma)
        np.testing.assert_allclose(a.ravel(), exact.noise * 32 * 900, rtol=close)
        np.testing.assert_allclose(a.ravel() / (32 * 900) + floor.ravel(), exact.noise + exact.start, rtol=close)
        score, left, prior = run.at_stops(lam, np.array([1.0, 2.0, 5.0]), sigma, stops, eta=0.5, terminal="denoise")
        assert prior is None
        for row, stop in enumerate(stops):
            at = (lam, [1.0, 2.0, 5.0], sigma, stop)
            np.testing.assert_allclose(score[row], run.reducible(*at, eta=0.5), rtol=1e-9)
            np.testing.assert_allclose(left[row], run.floor(*at, eta=0.5), rtol=1e-9)


def test_runs_are_saved_refuse_what_is_unstable_and_name_what_is_wrong():
    run = SGD(co.LearningRate(0.1, "inverse_sqrt", 10, 100.0), 16, 500, 0.5, True, average=POWER)
    assert TrainingNoise.from_dict(run.to_dict()) == run
    assert TrainingNoise.from_dict(Adam(0.1, 16, 500).to_dict()) == Adam(0.1, 16, 500)
    assert TrainingNoise.from_dict({"type": "SGD", "learning_rate": 0.1, "batch": 16, "iterations": 5}).momentum == 0
    with pytest.raises(ValueError, match=r"SGD.learning_rate is 3, unstable at sigma = 0.5"):
        SGD(3.0, 16, 500).weight_variance([1.0], [0.5])
    limit = SGD(0.1, 16, 500, 0.9).largest_rate([1.0], [0.5])
    assert SGD(0.99 * limit, 16, 500, 0.9).weight_variance([1.0], [0.5])[0] > 0
    for make, name in (
        (lambda: SGD(0.1, 16, 500, momentum=1.0), "SGD.momentum"),
        (lambda: Adam(0.1, 0, 500), "Adam.batch"),
        (lambda: Adam(0.1, 1, 500, prior="untrained"), "Adam.prior"),
        (lambda: co.WeightAverage.power(0.5), "WeightAverage.length"),
        (lambda: co.LearningRate(0.1, "inverse_sqrt"), "LearningRate.reference"),
        (lambda: co.LearningRate(0.1, "step"), "LearningRate.shape"),
    ):
        with pytest.raises(ValueError, match=name):
            make()
    assert "fewer than 10 examples an update" in run.warnings_for([0.5, 1.0], [1.0], [500.0, 1e6])[0]


def test_what_averaged_sgd_adds_to_least_squares_is_that_of_its_exact_moments():
    lam, sigma, m = np.array([1.0, 0.1, 0.01]), 0.1, 400
    v = lam + sigma**2
    start = lam / v
    limit, totals = 2 / (3 * v.max()), []
    for rate in np.geomspace(0.05, 0.95, 12) * limit:
        one = Updates(np.full(m, rate), ALL.decays(m), 0.0, False, 1)
        found = run_moments(v, lam * sigma**2, start, one)
        totals.append(lam @ (found.start + found.noise))
    ours, least = averaged_sgd_excess(lam, np.ones(3), np.array([sigma]), np.array([float(m)]), start[:, None])
    assert ours[0] == pytest.approx(min(totals), rel=0.12)
    note = co.AveragedSGD().warnings_for([sigma], lam, [m])
    assert min(totals) / least[0] > 5
    assert f"leaves {ours[0] / least[0]:.3g} times" in note[0]
    assert co.AveragedSGD().warnings_for([sigma], lam, [1e7]) == []
