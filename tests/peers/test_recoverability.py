"""ERD's recoverability and Bayes floors, against Monte Carlo and quadrature, at three standard errors."""

import numpy as np
import pytest
from scipy.integrate import quad

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.ingredients.densities import LogNormal
from codesign_opt.ingredients.levels import Levels

torch = pytest.importorskip("torch")
from codesign_opt.testbed.data.mixtures import clusters4  # noqa: E402

TARGETS = ("eps", "x0", "v", "flow")
PROCESSES = (co.FlowMatching(), co.VP(), co.Cosine())
COVARIANCE = np.array([[3.0, 0.8, 0.0], [0.8, 1.0, -0.2], [0.0, -0.2, 0.25]])


def within(values, truth, errors=3.0):
    """Mean of independent values against the truth, in standard errors of the mean."""
    values = np.asarray(values, dtype=np.float64)
    return abs(values.mean() - truth) <= errors * values.std(ddof=1) / np.sqrt(values.size)


def of_target(target, alpha, level, clean, noise):
    return {
        "eps": noise,
        "x0": clean,
        "v": alpha * noise - level * clean,
        "flow": noise - clean,
    }[target]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.name)
def test_recoverability_is_the_scaled_targets_root_mean_square_for_general_covariance(target, process):
    rng, count = np.random.default_rng(11), 100_000
    clean = rng.multivariate_normal(np.zeros(3), COVARIANCE, count)
    noise = rng.normal(size=(count, 3))
    for sigma in (0.05, 0.7, 20.0):
        alpha = float(process.scale(process.time(sigma)))
        level = alpha * sigma
        # the parts of the target apart: each scaled by its amplitude in x (equation 114)
        part_x = of_target(target, alpha, level, clean, 0 * noise)
        part_eps = of_target(target, alpha, level, 0 * clean, noise)
        squares = ((alpha * part_x + level * part_eps) ** 2).mean(axis=1)
        omega = float(peers.recoverability(target, [sigma], process=process, variance=COVARIANCE)[0])
        assert within(squares, omega**2)


def test_recoverability_has_the_papers_four_forms_for_whitened_data():
    for process in PROCESSES:
        sigma = np.geomspace(0.02, 50.0, 9)
        alpha = np.asarray(process.scale(process.time(sigma)))
        level = alpha * sigma
        forms = {"x0": alpha, "eps": level, "u": np.hypot(alpha, level), "v": np.sqrt(2) * alpha * level}
        for target, expected in forms.items():
            found = peers.recoverability(target, sigma, process=process)
            assert np.allclose(found, expected, rtol=1e-12)
    assert np.allclose(
        peers.recoverability("eps", sigma), sigma / np.hypot(1, sigma)
    )  # variance preserving unless given


def test_variance_is_taken_from_spectrum_eigenvalues_or_covariance():
    spectrum = co.Spectrum.from_eigenvalues(np.linalg.eigvalsh(COVARIANCE))
    for value in (spectrum, np.linalg.eigvalsh(COVARIANCE), COVARIANCE, np.trace(COVARIANCE) / 3):
        found = peers.recoverability("v", [0.3], variance=value)
        assert np.allclose(found, peers.recoverability("v", [0.3], variance=4.25 / 3))
    assert clusters4().covariance.diagonal() == pytest.approx(4.09)  # the paper's toy: not whitened


def mixture_mmse(sigma):
    """clusters4 is a product of two equal mixtures (N(-2, .09) + N(2, .09)) / 2: twice the risk by quadrature."""
    total = 0.09 + sigma**2

    def inside(x):
        heights = np.exp(-0.5 * (x - np.array([-2.0, 2.0])) ** 2 / total) / np.sqrt(2 * np.pi * total) / 2
        share = heights / heights.sum() if heights.sum() > 0 else np.array([x < 0, x >= 0], dtype=float)
        means = np.array([-2.0, 2.0]) + 0.09 / total * (x - np.array([-2.0, 2.0]))
        spread = 0.09 * sigma**2 / total + share @ means**2 - (share @ means) ** 2
        return heights.sum() * spread

    reach = 2 + 9 * np.sqrt(total)
    return 2 * quad(inside, -reach, reach, points=[-2, 0, 2], limit=400, epsabs=1e-12)[0]


def test_floors_of_all_targets_from_one_mmse_curve_agree_with_monte_carlo_on_the_mixture():
    mixture, count = clusters4(), 60_000
    for index, sigma in enumerate((0.1, 0.6, 1.5, 4.0, 15.0)):
        mmse = mixture_mmse(sigma)
        clean = mixture.sample(count, seed=index, dtype=torch.float64).numpy()
        noise = np.random.default_rng(100 + index).normal(size=(count, 2))
        x_hat = torch.tensor(clean + sigma * noise)
        # both posterior means on their own: the denoiser, and -sigma_t score for the noise
        mean_clean = mixture(x_hat, torch.tensor(sigma)).numpy()
        mean_noise = -sigma * mixture.score(x_hat, sigma).numpy()
        for process in PROCESSES:
            alpha = float(process.scale(process.time(sigma)))
            level = alpha * sigma
            for target in TARGETS:
                truth = of_target(target, alpha, level, clean, noise)
                best = of_target(target, alpha, level, mean_clean, mean_noise)
                floor = peers.bayes_floor(target, [sigma], [mmse], process=process)[0]
                assert within(((truth - best) ** 2).sum(1), floor), (sigma, process, target)


def test_floors_agree_with_monte_carlo_on_an_anisotropic_gaussian():
    rng, count = np.random.default_rng(12), 100_000
    values, vectors = np.linalg.eigh(COVARIANCE)
    spectrum = co.Spectrum.from_eigenvalues(values)
    clean = rng.multivariate_normal(np.zeros(3), COVARIANCE, count)
    for sigma in (0.1, 0.8, 10.0):
        noise = rng.normal(size=(count, 3))
        x_hat = clean + sigma * noise
        best = x_hat @ vectors @ np.diag(values / (values + sigma**2)) @ vectors.T
        mmse = peers.gaussian_mmse(spectrum, [sigma])
        for process in PROCESSES:
            alpha = float(process.scale(process.time(sigma)))
            for target in (*TARGETS, "edm"):
                if target == "edm":  # F, whose coefficients are Karras et al.'s c_skip and c_out
                    skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / np.hypot(sigma, 0.5)
                    error = ((clean - skip * x_hat) / out - (best - skip * x_hat) / out) ** 2
                else:
                    truth = of_target(target, alpha, alpha * sigma, clean, noise)
                    error = (truth - of_target(target, alpha, alpha * sigma, best, (x_hat - best) / sigma)) ** 2
                assert within(error.sum(1), peers.bayes_floor(target, [sigma], mmse, process=process)[0])


def test_floors_have_the_closed_forms_of_each_targets_own_path():
    sigma, mmse = np.array([0.2, 3.0]), np.array([0.05, 1.7])
    assert np.allclose(peers.bayes_floor("eps", sigma, mmse), mmse / sigma**2)
    assert np.allclose(peers.bayes_floor("x0", sigma, mmse), mmse)
    assert np.allclose(peers.bayes_floor("v", sigma, mmse), mmse * (1 + sigma**2) / sigma**2)
    assert np.allclose(peers.bayes_floor("flow", sigma, mmse), mmse * ((1 + sigma) / sigma) ** 2)


def test_a_risk_curves_floor_is_the_gaussian_mmse():
    model = co.GaussianModel(co.Spectrum.power_law(6, exponent=1.5))
    curve = peers.Evidence.of(model).risk
    assert np.allclose(curve.floor, peers.gaussian_mmse(model.spectrum, curve.sigma))


def test_allocation_through_time_and_jacobian_is_the_density_per_log_snr():
    for process in (*PROCESSES, co.VE(), co.EDM()):
        times = np.linspace(process.t_min, process.t_max, 13)[1:-1]
        weight = peers.weighting("erd", target="v")
        sigma = np.asarray(process.sigma(times))
        by_parts = peers.time_allocation(weight, times, process)
        # the Jacobian by finite differences of the log-SNR
        step = 1e-5 * (process.t_max - process.t_min)
        slope = np.abs((process.log_snr(times + step) - process.log_snr(times - step)) / (2 * step))
        assert np.allclose(by_parts, weight(sigma) / (process.t_max - process.t_min) / slope, rtol=1e-4)
        assert np.allclose(by_parts, peers.allocation(weight, sigma, peers.uniform_time(process)), rtol=1e-9)


def test_effort_as_density_is_the_share_of_weighted_draws():
    law, weight = LogNormal(-0.5, 1.3), peers.weighting("erd", target="eps")
    levels = Levels.log_uniform(1e-3, 1e3, 60)
    sigma = law.quantile((np.arange(200_000) + 0.5) / 200_000)
    expected = np.histogram(sigma, levels.edges, weights=weight(sigma))[0]
    found = peers.allocation_density(weight, law, levels).share
    assert np.allclose(found, expected / expected.sum(), atol=2e-5)
    run = co.TrainingRun(density=peers.allocation_density(weight, law, levels), iterations=10, batch=10)
    assert run.examples_on(levels).sum() == pytest.approx(100)


def test_erd_takes_effort_from_where_the_floor_is_high():
    """eps is hard at low noise and x0 at high noise: ERD moves the effort away from there, over plain training."""
    law, levels = peers.uniform_time(co.VP()), Levels.log_uniform(2e-2, 1e2, 40)
    plain = law.on_levels(levels)
    erd = {target: peers.weighting("erd", target=target, process=co.VP()) for target in ("eps", "x0")}
    share = {target: peers.allocation_density(weight, law, levels).share for target, weight in erd.items()}
    low, high = levels.sigma < 0.1, levels.sigma > 10
    assert share["eps"][low].sum() < 0.25 * plain[low].sum()
    assert share["x0"][high].sum() < 0.25 * plain[high].sum()


def test_bad_input_is_refused_by_name():
    for call, words in (
        (lambda: peers.recoverability("y", [1.0]), "recoverability: target"),
        (lambda: peers.recoverability("v", [0.0]), "sigma is 0"),
        (lambda: peers.recoverability("v", [1.0], variance=np.ones((2, 3))), "variance has shape"),
        (lambda: peers.bayes_floor("v", [1.0, 2.0], [1.0]), "mmse has 1 entries"),
        (lambda: peers.bayes_floor("v", [1e9], [1.0], process=co.VP()), "within"),
        (lambda: peers.allocation(-1.0, [1.0], LogNormal()), "weight is -1"),
        (lambda: peers.time_allocation(1.0, [0.5], co.VP(), per_time=[1.0, 2.0]), "per_time has 2"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
