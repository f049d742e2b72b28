"""GaussianModel: exact laws against scalar loops and mpmath, the score kernel against Monte Carlo, refinement."""

import os
from dataclasses import replace

import mpmath
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.prediction import predict
from codesign_opt.models import gaussian_exact
from codesign_opt.planning.question import Study
from tests.helpers.gaussian_truth import scalar_output, wasserstein2

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

SAMPLERS = {"euler": co.Euler(), "heun": co.Heun(), "dpmpp_2m": co.DPMpp2M()}
PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)


def spectrum_with_mean():
    return co.Spectrum.from_bands([1.3, 0.2, 0.004], [2, 5, 30], mean_power=[0.7, 0.0, 2.0])


def model(**changes):
    settings = {"spectrum": co.Spectrum.power_law(32, exponent=1.5), "process": co.EDM(0.002, 80.0)}
    return co.GaussianModel(**{**settings, **changes})


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("steps", [2, 7, 40])
def test_exact_distance_is_that_of_a_scalar_implementation(kind, terminal, steps):
    spectrum = spectrum_with_mean()
    m = co.GaussianModel(spectrum, sampler=SAMPLERS[kind], terminal=terminal)
    grid = co.edm_grid(steps, 0.01, 60.0, terminal=terminal)
    truth = wasserstein2(kind, grid, spectrum.eigenvalues, spectrum.counts, spectrum.mean_power)
    assert float(m.wasserstein2(grid)) == pytest.approx(truth, rel=1e-10, abs=1e-14)
    parts = predict(m, grid, None, 60)
    assert parts["bias"] == pytest.approx(truth, rel=1e-10, abs=1e-14)


def test_long_grids_of_large_spectra_are_summed_in_blocks_without_a_difference(monkeypatch):
    m = model(sampler=co.Heun())
    grids = np.stack([co.edm_grid(9, 0.01, 80.0, rho=rho) for rho in (3.0, 7.0)])
    whole = m.wasserstein2(grids)
    monkeypatch.setattr(gaussian_exact, "BLOCK", 61)
    np.testing.assert_allclose(m.wasserstein2(grids), whole, rtol=1e-13)
    assert m.terminal_std(grids).shape == (2, 32)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("stop", [1e-6, 0.002, 0.3])
def test_truncation_has_no_cancellation(terminal, stop):
    spectrum = co.Spectrum.from_bands([2.0, 1e-3, 0.0], [3, 10, 4])
    with mpmath.workdps(50):
        total = mpmath.mpf(0)
        for lam, n in zip(spectrum.eigenvalues, spectrum.counts, strict=True):
            lam, s2 = mpmath.mpf(float(lam)), mpmath.mpf(stop) ** 2
            weight = lam + s2 if terminal == "rescale" else lam**2 / (lam + s2)
            total += int(n) * (mpmath.sqrt(weight) - mpmath.sqrt(lam)) ** 2
    m = co.GaussianModel(spectrum, terminal=terminal)
    assert m.truncation(stop) == pytest.approx(float(total), rel=1e-12)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_initial_error_is_what_the_exact_ode_makes_of_a_noise_start(terminal):
    spectrum, stop, high = spectrum_with_mean(), 0.05, 80.0
    m = co.GaussianModel(spectrum, co.EDM(0.002, high), terminal=terminal)
    lam, n, power = spectrum.eigenvalues, spectrum.counts, spectrum.mean_power
    top, end = lam + high**2, lam + stop**2
    gain = np.sqrt(end / top) * (1.0 if terminal == "rescale" else lam / end)
    exact = n @ (gain * (np.sqrt(top) - high)) ** 2 + power @ gain**2
    assert m.initial_error(stop) == pytest.approx(exact, rel=1e-3)
    assert replace(m, start="marginal").initial_error(stop) == 0.0
    only_variance = n @ (gain * (np.sqrt(top) - high)) ** 2
    assert replace(m, start="mean").initial_error(stop) == pytest.approx(only_variance, rel=1e-3)
    # and a fine grid of a real sampler agrees
    grid = co.log_snr_grid(4000, stop, high, terminal=terminal)
    std = replace(m, sampler=co.Heun()).terminal_std(grid)
    np.testing.assert_allclose(std, gain * high, rtol=1e-5)


@pytest.mark.cases(1)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["euler", "heun"])
def test_kl_is_the_integral_of_the_log_ratio(kind, reverse):
    spectrum = spectrum_with_mean()
    m = co.GaussianModel(spectrum, sampler=SAMPLERS[kind])
    grid = co.edm_grid(12, 0.01, 60.0)
    total = mpmath.mpf(0)
    for lam, n, power in zip(spectrum.eigenvalues, spectrum.counts, spectrum.mean_power, strict=True):
        std, multiplier = scalar_output(kind, list(grid), float(lam))
        shift = abs(multiplier) * np.sqrt(power / n)  # the mean's error, spread evenly over the band
        p, q = (mpmath.mpf(float(np.sqrt(lam))), mpmath.mpf(0)), (mpmath.mpf(std), mpmath.mpf(shift))
        p, q = (q, p) if reverse else (p, q)

        def integrand(x, p=p, q=q):
            def log_density(law):
                return -((x - law[1]) ** 2) / (2 * law[0] ** 2) - mpmath.log(law[0])

            return mpmath.npdf(x, p[1], p[0]) * (log_density(p) - log_density(q))

        reach = 12 * p[0]
        total += int(n) * mpmath.quad(integrand, mpmath.linspace(p[1] - reach, p[1] + reach, 9))
    assert m.kl_divergence(grid, reverse=reverse) == pytest.approx(float(total), rel=1e-8)


def test_kl_is_refused_where_it_is_infinite_and_leaves_out_degenerate_directions():
    spectrum = co.Spectrum.from_bands([1.0, 0.0], [3, 2])
    with pytest.raises(ValueError, match="infinite"):
        co.GaussianModel(spectrum, terminal="rescale").kl_divergence(co.edm_grid(5, 0.01, 80.0, terminal="rescale"))
    positive = co.GaussianModel(co.Spectrum.from_bands([1.0], [3]))
    grid = co.edm_grid(5, 0.01, 80.0)
    assert co.GaussianModel(spectrum).kl_divergence(grid) == pytest.approx(positive.kl_divergence(grid), rel=1e-12)


def test_one_dimension_and_directions_without_variance_are_planned():
    spectra = (co.Spectrum.from_eigenvalues([0.25]), co.Spectrum.from_bands([1.0, 0.0], [2, 50]))
    for spectrum, ends in zip(
        spectra, [("denoise", "rescale")] * 2 if FULL else [["denoise"], ["rescale"]], strict=True
    ):
        for terminal in ends:
            plan = co.codesign(model(spectrum=spectrum, terminal=terminal), PRICES, 1e5, levels=40, points=4)
            assert plan.certificate.optimal
            assert np.isfinite(plan.handed_out["total"])


# the score kernel


def monte_carlo(kind, grid, spectrum, variances, draw, draws):
    """Mean over draws of sum_b n_b (std - std*)^2, and its standard error; errors of every node from `draw`."""
    rng = np.random.default_rng(7)
    lam, n = spectrum.eigenvalues, spectrum.counts
    nodes = grid[grid > 0]
    optimal = np.concatenate([lam / (lam + nodes[:, None] ** 2), np.zeros((grid.size - nodes.size, lam.size))])
    sampler = SAMPLERS[kind]
    start = np.full(lam.size, grid[0] ** 2)
    exact = np.array([scalar_output(kind, list(grid), float(x))[0] for x in lam])
    total = np.empty(draws)
    for first in range(0, draws, 500):
        noise = np.stack([draw(rng, nodes, lam.size) for _ in range(500)])
        weights = np.broadcast_to(optimal, (500, *optimal.shape)).copy()
        weights[:, : nodes.size] += noise * np.sqrt(variances)
        std = np.sqrt(sampler.terminal_law(grid, lam, denoiser=weights, initial_variance=start).variance)
        total[first : first + 500] = (std - exact) ** 2 @ n
    return total.mean(), total.std() / np.sqrt(draws)


def independent(rng, nodes, bands):
    return rng.normal(size=(nodes.size, bands))


def blocks_of(length):
    def draw(rng, nodes, bands):
        block = np.floor((np.log(nodes) - np.log(nodes[-1])) / length + rng.random()).astype(int)
        return rng.normal(size=(block.max() + 1, bands))[block]

    return draw


@pytest.mark.cases(3)
@pytest.mark.parametrize("steps", [10, 40])
@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_discrete_score_kernel_is_monte_carlo_of_independent_errors(kind, steps, terminal):
    spectrum = co.Spectrum.power_law(6, exponent=1.5)
    length, density = 1e-3, 1e11
    m = co.GaussianModel(spectrum, co.EDM(0.01, 40.0), SAMPLERS[kind], coupling=co.PerStep(length), terminal=terminal)
    grid = co.edm_grid(steps, 0.01, 40.0, terminal=terminal)
    table = m.settled(grid, 100)
    parts = predict(m, grid, density * table.log_width, 100)
    nodes = grid[grid > 0]
    lam = spectrum.eigenvalues
    variances = lam * nodes[:, None] ** 2 / (lam + nodes[:, None] ** 2) ** 2 / (density * length)
    truth, error = monte_carlo(kind, grid, spectrum, variances, independent, 4000)
    assert abs(parts["score"] + parts["last evaluation"] - truth) < 3 * error


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("kind", "steps", "length"),
    [
        ("heun", 10, 0.3),
        ("heun", 40, 1.0),
        ("heun", 40, 0.2765),
        ("euler", 40, 0.1),
        ("euler", 40, 1.0),
        ("dpmpp_2m", 40, 1.0),
    ],
)
def test_score_error_of_block_correlated_errors_is_the_max_form_within_its_stated_accuracy(kind, steps, length):
    spectrum = co.Spectrum.power_law(6, exponent=1.5)
    density = 1e9
    m = co.GaussianModel(spectrum, co.EDM(0.01, 40.0), SAMPLERS[kind], coupling=co.Local(length), terminal="rescale")
    grid = co.log_snr_grid(steps, 0.01, 40.0, terminal="rescale")
    table = m.settled(grid, 100)
    parts = predict(m, grid, density * table.log_width, 100)
    nodes, lam = grid[grid > 0], spectrum.eigenvalues
    variances = lam * nodes[:, None] ** 2 / (lam + nodes[:, None] ** 2) ** 2 / (density * length)
    truth, error = monte_carlo(kind, grid, spectrum, variances, blocks_of(length), 4000)
    ratio = truth / parts["score"]
    step = np.log(grid[0] / grid[-1]) / steps
    print(
        f"{kind} K = {steps}, length/step = {length / step:.2f}: Monte Carlo / prediction {ratio:.3f} "
        f"+- {error / parts['score']:.3f}"
    )
    assert 0.8 < ratio < 1.25


# refinement


def split(plan):
    return plan.costs["training"] / (plan.costs["training"] + plan.costs["sampling"])


CASES = {
    "heun": {"sampler": co.Heun()},
    "euler with floors": {"sampler": co.Euler(), "training": co.ConstantStepSGD(1e-3, 256)},
    "heun rescale, floors": {"sampler": co.Heun(), "training": co.ConstantStepSGD(1e-3, 256), "terminal": "rescale"},
    "full matrix": {"sampler": co.Euler(), "training": co.AveragedSGD(matrix="full")},
    "blocks": {"sampler": co.Heun(), "coupling": co.PerLevel(np.geomspace(0.002, 80.0, 9))},
    "per step": {"sampler": co.Heun(), "coupling": co.PerStep(0.3)},
    "heun, A / m": {"sampler": co.Heun(), "training": co.AveragedSGD(prior=None)},
}


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("case", "guided"), [*((case, False) for case in CASES), ("heun", True), ("euler with floors", True)]
)
def test_100_200_and_400_levels_give_the_same_optimum_split_and_density(case, guided):
    def guidance(sigma):
        return 1.0 + ((sigma > 0.3) & (sigma < 5.0))

    prices = co.Prices(3.0, guidance, 10_000) if guided else PRICES
    plans = [
        Study(model(**CASES[case]), prices, 1e6, None, None, (), (), n, 1e-6).solve(0.011) for n in (100, 200, 400)
    ]
    for coarse in plans[:2]:
        assert coarse.error == pytest.approx(plans[2].error, rel=1e-3)
        assert split(coarse) == pytest.approx(split(plans[2]), abs=1e-3)
        assert coarse.steps.sum() == pytest.approx(plans[2].steps.sum(), rel=2e-3)
    if case != "blocks":  # within a block every distribution is as good
        # of the prior's law the density falls to 0 near 30, where no share of it is a measure any more
        sigma = np.geomspace(0.03, 20.0 if "A / m" in case else 10.0, 9)
        found = [p.training_density(sigma) for p in plans]
        np.testing.assert_allclose(found[1], found[2], rtol=1e-3)
        np.testing.assert_allclose(found[0], found[2], rtol=1e-3)


@pytest.mark.slow
def test_codesign_agrees_between_100_and_400_levels():
    plans = [
        co.codesign(model(training=co.ConstantStepSGD(1e-3, 256)), PRICES, 1e6 if FULL else 2e5, levels=n, points=8)
        for n in (100, 400)
    ]
    assert plans[0].error == pytest.approx(plans[1].error, rel=1e-3)
    assert plans[0].handed_out["total"] == pytest.approx(plans[1].handed_out["total"], rel=3e-3)
    assert plans[0].number_of_steps == plans[1].number_of_steps


def test_interval_table_bounds_every_table_inside():
    rng = np.random.default_rng(3)
    for sampler in (co.Euler(), co.Heun(), co.Ancestral(0.5), co.EulerMaruyama(1.0), co.Ancestral(0.85)):
        for terminal in ("denoise", "rescale"):
            for training in (co.AveragedSGD(), co.ConstantStepSGD(1e-3, 64), co.AveragedSGD(intercept=True)):
                m = model(sampler=sampler, terminal=terminal, training=training)
                low, high = np.sort(np.exp(rng.uniform(np.log(0.002), np.log(0.5), 2)))
                bound = m.interval_coefficients(low, high, 60)
                if bound is None:
                    assert training.intercept
                    assert terminal == "denoise"
                    assert 0.5 < sampler.eta**2 < 1
                    continue
                for stop in np.exp(rng.uniform(np.log(low), np.log(high), 3)):
                    inner = m.coefficients(stop, 60)
                    kept = len(bound.levels) - 1  # levels that the cut does not touch
                    for name in ("score", "floor"):
                        assert np.all(getattr(bound, name)[-kept:] <= getattr(inner, name)[-kept:] * (1 + 1e-12))
                    assert np.all(np.abs(bound.response)[:, -kept:] <= np.abs(inner.response)[:, -kept:] * (1 + 1e-12))
                    assert bound.truncation <= inner.truncation * (1 + 1e-12)
                    assert bound.initial <= inner.initial * (1 + 1e-12)
                    assert bound.final_floor <= inner.final_floor * (1 + 1e-12)
