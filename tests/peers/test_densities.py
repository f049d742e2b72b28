"""Training densities of the literature: each against its own definition by other means, and all against each other."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.ingredients.densities import LogNormal, SigmaDensity
from codesign_opt.ingredients.levels import Levels

RANGE = {"sigma_min": 0.002, "sigma_max": 80.0}
LEVELS = Levels.log_uniform(0.002, 80.0, 12)
LOG = {
    "sigma": np.tile(LEVELS.sigma, 10),
    "loss": np.random.default_rng(0).gamma(2.0, 1.0, (10, 12)).ravel(),
}
PARAMETERS = {
    "loss_second_moment": {"log": LOG, "levels": LEVELS},
    "timesteps": {"table": np.geomspace(0.01, 40.0, 30)},
    "flow_timesteps": {"count": 40},
    "infonoise": {"risk": lambda sigma: sigma**2 / (1 + sigma**2), "levels": LEVELS},
}
NAMES = peers.training_densities()


def density(name: str) -> SigmaDensity:
    return peers.training_density(name, **PARAMETERS.get(name, {}))


@pytest.mark.cases(5)
@pytest.mark.parametrize("name", NAMES)
def test_mass_is_the_integral_of_the_density_per_log_sigma(name):
    law = density(name)
    edges = np.geomspace(0.003, 60.0, 7)
    found = law.mass(edges)
    steps = (
        law.levels.edges if hasattr(law, "levels") else law.process.sigma(law.knots) if hasattr(law, "knots") else []
    )
    jumps = np.log(np.concatenate([LEVELS.edges, steps]))
    for i in range(6):
        low, high = np.log(edges[i : i + 2])
        cuts = np.unique(
            np.concatenate([[low, high], jumps[(jumps > low) & (jumps < high)], [0.0] * bool(low < 0 < high)])
        )
        whole = sum(
            quad(lambda u: float(law.per_log_sigma(np.array([np.exp(u)]))[0]), a, b, epsabs=1e-12)[0]
            for a, b in itertools.pairwise(cuts)
        )
        assert found[i] == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_quantile_inverts_the_mass_in_both_tails(name):
    law = density(name)
    smallest = [] if name == "cauchy" else [1e-9, 1e-4]  # there beyond float64
    u = np.array([*smallest, 0.2, 0.5, 0.77])
    below, _ = law.tails(law.quantile(u))
    assert np.allclose(below, u, rtol=2e-6, atol=0)
    if name != "cauchy":
        _, above = law.tails(law.quantile(1 - np.array([1e-7, 1e-4])))
        assert np.allclose(above, [1e-7, 1e-4], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_draws_fall_on_the_levels_as_the_mass_says(name):
    law, count = density(name), 40_000
    sigma = law.quantile(np.random.default_rng(3).random(count))
    edges = np.geomspace(0.01, 30.0, 9)
    seen = np.histogram(sigma, edges)[0] / count
    mass = law.mass(edges)
    error = np.sqrt(np.maximum(mass * (1 - mass), 1 / count) / count)
    assert np.all(np.abs(seen - mass) < 4 * error)
    whole = law.tails(np.array([0.0, np.inf]))
    assert np.allclose(whole[0], [0, 1])
    assert np.allclose(whole[1], [1, 0])


@pytest.mark.parametrize("name", NAMES)
def test_a_restricted_density_is_the_conditional_one(name):
    law, edges = density(name), np.geomspace(0.05, 5.0, 6)
    inside = law.between(0.05, 5.0)
    assert np.allclose(inside.mass(edges), law.mass(edges) / law.mass(edges).sum(), rtol=1e-10)
    assert inside.mass(np.array([1e-6, 0.05])) == 0
    assert np.allclose(inside.quantile(np.array([0.0, 1.0])), [0.05, 5.0])
    below, above = inside.tails(inside.quantile(np.array([0.3])))
    assert below == pytest.approx(0.3)
    assert above == pytest.approx(0.7)


@pytest.mark.parametrize("name", NAMES)
def test_every_density_serves_a_training_run_and_plain_callables_agree(name):
    law = peers.training_density(name, **PARAMETERS.get(name, {}), **({} if name == "log_uniform" else RANGE))
    levels = Levels.log_uniform(0.002, 80.0, 40)
    run = co.TrainingRun(density=law, iterations=1000, batch=64)
    assert run.examples_on(levels).sum() == pytest.approx(64_000)
    if name in (
        "loss_second_moment",
        "infonoise",
        "timesteps",
        "flow_timesteps",
        "speed",
        "uniform_time",
        "vp_uniform",
        "mode",
    ):
        return  # stairs and narrow peaks, which quadrature inside a level does not resolve
    by_function = co.TrainingRun(lambda s: law.per_log_sigma(s) / s, iterations=1000, batch=64)
    assert np.allclose(by_function.examples_on(levels), run.examples_on(levels), rtol=3e-3, atol=2.0)


def test_laplace_and_cauchy_are_those_of_the_log_snr():
    rng, count = np.random.default_rng(5), 200_000
    for drawn, law in (
        (rng.laplace(0.7, 0.5, count), peers.LaplaceDensity(0.7, 0.5)),
        (0.7 + 0.5 * rng.standard_cauchy(count), peers.Cauchy(0.7, 0.5)),
    ):
        sigma = np.exp(np.clip(-0.5 * drawn, -300, 300))
        assert np.mean(sigma < 0.8) == pytest.approx(float(law.tails(np.array([0.8]))[0][0]), abs=0.0045)
    # Hang and Gu's own parameterisation: log-SNR = mean - b sgn(0.5 - t) ln(1 - 2 |t - 0.5|)
    t = np.array([0.03, 0.3, 0.5, 0.9])
    log_snr = 0.7 - 0.5 * np.sign(0.5 - t) * np.log(1 - 2 * np.abs(t - 0.5))
    assert np.allclose(peers.LaplaceDensity(0.7, 0.5).quantile(t), np.exp(-0.5 * log_snr))


def test_logit_normal_and_mode_are_those_of_flow_time():
    rng, count = np.random.default_rng(6), 200_000
    time = 1 / (1 + np.exp(-rng.normal(0.4, 0.9, count)))
    shifted = 3 * time / (1 + 2 * time)  # Esser et al. 2024, equation 23
    law = peers.LogitNormal(0.4, 0.9, shift=3.0)
    for at in (0.3, 0.8):
        share = float(law.tails(np.array([at / (1 - at)]))[0][0])
        assert np.mean(shifted < at) == pytest.approx(share, abs=0.0045)
    for scale in (-0.8, 0.81, 1.7):
        u = rng.random(count)
        time = 1 - u - scale * (np.cos(0.5 * np.pi * u) ** 2 - 1 + u)
        for at in (0.1, 0.5, 0.8):
            share = float(peers.Mode(scale).tails(np.array([at / (1 - at)]))[0][0])
            assert np.mean(time < at) == pytest.approx(share, abs=0.0045)


def test_v_diffusion_is_uniform_in_the_cosine_processs_time():
    process = co.Cosine()
    cut = peers.VDiffusion(1.0).between(process.sigma_min, process.sigma_max)
    edges = np.geomspace(0.01, 50.0, 8)
    assert np.allclose(cut.mass(edges), peers.uniform_time(process).mass(edges), rtol=1e-9)


def test_uniform_time_puts_equal_mass_between_equal_times_of_every_process():
    for process in (co.VP(), co.VE(), co.Cosine(), co.FlowMatching(), co.EDM()):
        times = np.linspace(process.t_min, process.t_max, 9)
        assert np.allclose(peers.uniform_time(process).mass(np.asarray(process.sigma(times))), 1 / 8, rtol=1e-6)


def test_speed_draws_times_and_partners_as_its_sampler_does():
    process, count = co.VP(), 400_000
    rng = np.random.default_rng(8)
    weight = np.array([0.699 * 5, 0.3])
    early = rng.random(count) < weight[0] / weight.sum()
    time = np.where(early, rng.uniform(0.001, 0.7, count), rng.uniform(0.7, 1.0, count))
    plain = peers.training_density("speed", paired=False)
    edges = np.asarray(process.sigma(np.linspace(0.001, 1.0, 11)))
    assert np.allclose(np.histogram(process.sigma(time), edges)[0] / count, plain.mass(edges), atol=0.003)
    # the partner |t - m| with m counted out on 1000 timesteps, as in the released code
    steps = np.linspace(0.001, 1.0, 1000)
    noise = np.asarray(process.sigma(steps)) / np.hypot(1.0, np.asarray(process.sigma(steps)))
    middle = steps[int(np.argmax(np.gradient(noise) < 1e-4)) + 1]
    both = np.maximum(np.concatenate([time, np.abs(time - middle)]), 0.001)
    law = peers.training_density("speed")
    assert np.allclose(np.histogram(process.sigma(both), edges)[0] / both.size, law.mass(edges), atol=0.003)
    assert 0.3 < middle < 0.9


def test_the_resampler_waits_for_ten_losses_then_follows_their_root_mean_square():
    law = peers.loss_second_moment(LOG, LEVELS)
    expected = np.sqrt((LOG["loss"].reshape(10, 12) ** 2).mean(axis=0))
    assert np.allclose(law.share, 0.999 * expected / expected.sum() + 0.001 / 12)
    early = {key: value[:-1] for key, value in LOG.items()}
    assert np.allclose(peers.loss_second_moment(early, LEVELS).share, 1 / 12)
    # only the last ten count
    old = {"sigma": np.tile(LEVELS.sigma, 20), "loss": np.concatenate([np.full(120, 9.0), LOG["loss"]])}
    assert np.allclose(peers.loss_second_moment(old, LEVELS).share, law.share)


def test_the_resamplers_density_minimises_the_variance_of_the_weighted_loss():
    rng = np.random.default_rng(9)
    second = rng.uniform(0.1, 5.0, 12)  # E[loss^2] by level
    best = peers.loss_second_moment({"sigma": np.tile(LEVELS.sigma, 10), "loss": np.tile(np.sqrt(second), 10)}, LEVELS,
                                    uniform=0.0)  # fmt: skip
    even = peers.OnLevels(LEVELS, np.ones(12))
    importance = best.importance(LEVELS.sigma, even)
    assert np.allclose(importance, 1 / (12 * best.share))  # IDDPM's 1 / (T p)

    def variance(share):
        return float((second / (12 * share) ** 2 * share).sum())

    assert all(variance(best.share) <= variance(rng.dirichlet(np.ones(12))) for _ in range(200))


def test_infonoise_of_one_gaussian_band_under_edms_weight_is_logistic():
    lam, fine = 0.25, Levels.log_uniform(1e-4, 1e4, 4000)  # risk 1/weight: the entropy's rate per weight is its square

    def risk(sigma: np.ndarray) -> np.ndarray:
        return lam * sigma**2 / (lam + sigma**2)

    law = peers.infonoise(risk, fine, weight=lambda sigma: (sigma**2 + lam) / (sigma**2 * lam), pivot=0.0)
    sigma = np.geomspace(0.01, 100.0, 9)
    np.testing.assert_allclose(law.tails(sigma)[0], sigma**2 / (lam + sigma**2), atol=2e-5)
    # the density times the weight follows the entropy, H = log(sigma^2 / (lam + sigma^2)) / 2, between any two levels
    edges = np.geomspace(0.02, 50.0, 7)
    even = peers.infonoise(risk, fine, pivot=0.0).mass(edges)
    entropy = np.diff(0.5 * np.log(edges**2 / (lam + edges**2)))
    np.testing.assert_allclose(even / even.sum(), entropy / entropy.sum(), rtol=1e-3)


def test_infonoises_gate_halves_at_its_pivot_which_is_where_information_sets_in():
    fine = Levels.log_uniform(0.002, 80.0, 2000)

    def risk(sigma: np.ndarray) -> np.ndarray:
        return sigma**2 / (1 + sigma**2)

    # rate 1 / (sigma (1 + sigma^2)), largest at the lowest level: .002 of 1 / .002 is 1, its root the pivot
    root = brentq(lambda sigma: sigma**3 + sigma - 1, 0.1, 1.0)
    assert peers.information_onset(risk, fine) == pytest.approx(root, rel=6e-3)
    gated, open_ = (peers.infonoise(risk, fine, pivot=c) for c in (None, 0.0))
    ratio = gated.per_log_sigma(fine.sigma) / open_.per_log_sigma(fine.sigma)
    at = np.interp(np.log([root, 2 * root]), np.log(fine.sigma), ratio) / ratio[-1]
    np.testing.assert_allclose(at, [1 / 2, 8 / 9], rtol=1e-2)


def test_importance_weights_keep_the_expected_loss_of_another_density():
    own, base = peers.training_density("laplace", scale=2.0), LogNormal(-0.5, 0.8)
    sigma = own.quantile((np.arange(40_000) + 0.5) / 40_000)
    found = np.mean(own.importance(sigma, base) * np.log(sigma) ** 2)
    assert found == pytest.approx(0.8**2 + 0.5**2, rel=2e-3)


@pytest.mark.usefixtures("undescended")
def test_an_audit_takes_a_peers_density():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    prices = co.Prices(example=3.0, evaluation=1.0, images=100)
    grid = peers.schedule("edm").sigmas(4, peers.Evidence.of(model))
    run = co.TrainingRun(density=peers.training_density("laplace"), iterations=100, batch=64)
    assert co.audit(model, prices, sigmas=grid, run=run, levels=24, points=3, polish=False).ratio >= 1


def test_a_plans_own_density_is_one_too():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    plan = co.codesign(
        model, co.Prices(example=3.0, evaluation=1.0, images=100), 2e4, levels=40, points=4, polish=False
    )
    law = plan.training_density
    assert isinstance(law, SigmaDensity)
    sigma = law.quantile((np.arange(20_000) + 0.5) / 20_000)
    edges = law.levels.edges[::8]
    assert np.allclose(np.histogram(sigma, edges)[0] / 20_000, law.mass(edges), atol=1e-3)
    assert np.allclose(law.per_log_sigma(law.levels.sigma) * law.levels.log_width, law.examples / law.total)


def test_wrong_parameters_are_refused_by_name():
    for call, words in (
        (lambda: peers.training_density("gauss"), "training_density is 'gauss'"),
        (lambda: peers.training_density("edm", p_mean=1.0), "has no parameter p_mean"),
        (lambda: peers.training_density("loss_second_moment"), "needs log, levels"),
        (lambda: peers.training_density("infonoise"), "needs risk, levels"),
        (lambda: peers.infonoise(lambda sigma: 0 * sigma, LEVELS), "risk is 0 on all levels"),
        (lambda: peers.infonoise(lambda sigma: sigma, LEVELS, weight=lambda sigma: 0 * sigma), "infonoise.weight"),
        (lambda: peers.infonoise(lambda sigma: sigma, LEVELS, pivot=-1.0), "infonoise.pivot is -1"),
        (lambda: peers.infonoise(3.0, LEVELS), "risk is 3.0"),
        (lambda: peers.training_density("edm", sigma_min=1.0), "together"),
        (lambda: peers.training_density("laplace", scale=0.0), "LaplaceDensity.scale is 0"),
        (lambda: peers.training_density("mode", scale=2.0), "Mode.scale is 2"),
        (lambda: peers.training_density("mode", scale=-1.5), "Mode.scale is -1.5"),
        (lambda: peers.training_density("log_uniform", sigma_min=3.0, sigma_max=1.0), "must be smaller"),
        (lambda: peers.training_density("speed", boundary=1.5), "boundary is 1.5"),
        (lambda: peers.training_density("uniform_time", process="vp"), "a Process"),
        (lambda: peers.TimeStairs(co.VP(), [0.0, 1.0], [1.0]), "must go from t_min"),
        (lambda: peers.OnLevels(LEVELS, np.zeros(12)), "sums to 0"),
        (lambda: LogNormal().between(2.0, 1.0), "must be smaller"),
        (lambda: LogNormal(0, 0.01).between(50.0, 80.0), "no mass"),
    ):
        with pytest.raises(ValueError, match=words.replace("(", r"\(")):
            call()
