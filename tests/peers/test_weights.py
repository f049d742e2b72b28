"""Loss weights of the literature: one loss on all targets, shown without a network, and each formula as published."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.ingredients.densities import LogNormal
from codesign_opt.ingredients.parameterization import PARAMETERIZATIONS, Parameterization

SIGMA = np.geomspace(0.01, 50.0, 23)
S = 1 / SIGMA**2
UNCERTAINTY = peers.LearnedUncertainty.fit({"sigma": SIGMA, "loss": 0.2 * SIGMA**2 / (1 + SIGMA)}, sigma_data=0.5)
NEEDS = {"edm2": {"uncertainty": UNCERTAINTY}}
# alpha and sigma_t of the path that each target belongs to
PATHS = {
    "eps": (np.ones_like(SIGMA), SIGMA),
    "x0": (np.ones_like(SIGMA), SIGMA),
    "v": (np.cos(np.arctan(SIGMA)), np.sin(np.arctan(SIGMA))),
    "flow": (1 - SIGMA / (1 + SIGMA), SIGMA / (1 + SIGMA)),
    "edm": (np.ones_like(SIGMA), SIGMA),
}


def losses(denoised, clean, noise, target, sigma_data):
    """|estimate - y|^2 at each level: the estimate is what a denoiser's output says of the target."""
    alpha, level = (part[:, None] for part in PATHS[target])
    x = alpha * clean + level * noise
    eps = (x - alpha * denoised) / level
    if target == "edm":
        skip = sigma_data**2 / (level**2 + sigma_data**2)
        out = level * sigma_data / np.sqrt(level**2 + sigma_data**2)
        return (((denoised - skip * x) / out - (clean - skip * x) / out) ** 2).sum(1)
    estimate, truth = {
        "eps": (eps, noise),
        "x0": (denoised, clean),
        "v": (alpha * eps - level * denoised, alpha * noise - level * clean),
        "flow": (eps - denoised, noise - clean),
    }[target]
    return ((estimate - truth) ** 2).sum(1)


@pytest.mark.parametrize("name", peers.weightings())
def test_the_weighted_loss_of_any_denoiser_is_the_same_on_every_target(name):
    rng = np.random.default_rng(1)
    clean, noise, denoised = rng.normal(size=(3, SIGMA.size, 4))
    weight = peers.weighting(name, **NEEDS.get(name, {}))
    expected = weight.denoiser(SIGMA) * ((denoised - clean) ** 2).sum(1)
    own = weight(SIGMA) * losses(denoised, clean, noise, weight.target, weight.sigma_data)
    assert np.allclose(own, expected, rtol=1e-9)
    for target in peers.TARGETS:
        stated = weight.on(target)(SIGMA) * losses(denoised, clean, noise, target, weight.sigma_data)
        assert np.allclose(stated, expected, rtol=1e-9)


def test_gains_and_parameterisations_are_the_closed_forms_of_the_table():
    """docs/theory.md section 5: c_out of every target, and the gain of an error is its inverse."""
    s, total = SIGMA, np.hypot(SIGMA, 0.7)
    table = {  # c_skip, c_out, c_in
        "x0": (0 * s, 1 + 0 * s, 1 + 0 * s),
        "eps": (1 + 0 * s, -s, 1 + 0 * s),
        "eps_vp": (1 + 0 * s, -s, 1 / np.hypot(1, s)),
        "v": (1 / (1 + s**2), -s / np.hypot(1, s), 1 / np.hypot(1, s)),
        "flow": (1 / (1 + s), -s / (1 + s), 1 / (1 + s)),
        "score": (1 + 0 * s, s**2, 1 + 0 * s),
        "score_weighted": (1 + 0 * s, s**2, 1 + 0 * s),
        "edm": (0.49 / total**2, s * 0.7 / total, 1 / total),
    }
    assert set(table) == set(PARAMETERIZATIONS)
    for name, row in table.items():
        form = Parameterization(name, sigma_data=0.7)
        for found, exact in zip((form.c_skip(s), form.c_out(s), form.c_in(s)), row, strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-15)
        if name in peers.TARGETS:
            np.testing.assert_allclose(peers.target_gain(name, s, sigma_data=0.7), 1 / row[1], rtol=1e-15)


def test_min_snr_has_the_published_form_on_every_target():
    weight = peers.weighting("min_snr", gamma=5.0)
    assert np.allclose(weight.on("eps")(SIGMA), np.minimum(S, 5) / S)
    assert np.allclose(weight.on("x0")(SIGMA), np.minimum(S, 5))
    assert np.allclose(weight.on("v")(SIGMA), np.minimum(S, 5) / (S + 1))


def test_the_repeated_wrong_v_form_of_min_snr_is_another_loss():
    right, wrong = peers.weighting("min_snr").on("v")(SIGMA), np.minimum(S + 1, 5) / (S + 1)
    ratio = wrong / right
    assert ratio.max() / ratio.min() > 100  # not a constant factor: at high noise it trains 1 + 1 / S times as much
    assert np.allclose(ratio[S < 4], 1 + SIGMA[S < 4] ** 2)


def test_published_forms_of_the_others():
    s = 0.5
    forms = {
        ("p2", "eps"): 1 / (1 + S),
        ("debias", "eps"): 1 / np.sqrt(S),
        ("snr", "eps"): np.ones_like(S),
        ("snr", "x0"): S,
        ("edm", "edm"): np.ones_like(S),
        ("soft_min_snr", "edm"): (SIGMA * s) ** 2 / (SIGMA**2 + s**2) ** 2,
        ("sd3_sigma_sqrt", "flow"): (SIGMA / (1 + SIGMA)) ** -2.0,
        ("uniform", "eps"): np.ones_like(S),
    }
    for (name, target), expected in forms.items():
        assert np.allclose(peers.weighting(name).on(target)(SIGMA), expected, rtol=1e-12), name
    assert np.allclose(peers.weighting("edm").denoiser(SIGMA), (SIGMA**2 + s**2) / (SIGMA * s) ** 2)
    assert np.allclose(peers.weighting("soft_min_snr").denoiser(SIGMA), 1 / (SIGMA**2 + s**2))
    assert np.allclose(peers.weighting("p2", gamma=0.5, k=2.0)(SIGMA), (2 + S) ** -0.5)


def test_sd3s_weights_are_diffusers_own():
    torch = pytest.importorskip("torch")
    training = pytest.importorskip("diffusers.training_utils")
    time = SIGMA / (1 + SIGMA)
    for scheme in ("sigma_sqrt", "cosmap"):
        theirs = training.compute_loss_weighting_for_sd3(scheme, torch.tensor(time)).numpy()
        assert np.allclose(peers.weighting(f"sd3_{scheme}")(SIGMA), theirs, rtol=1e-6)


def test_sd3s_densities_are_diffusers_own_with_time_turned_round():
    torch = pytest.importorskip("torch")
    training = pytest.importorskip("diffusers.training_utils")
    from diffusers import FlowMatchEulerDiscreteScheduler

    steps = FlowMatchEulerDiscreteScheduler().timesteps
    assert steps[0] > steps[-1]  # their u indexes descending timesteps: the flow's time is 1 - u
    torch.manual_seed(0)
    options = {"batch_size": 100_000, "logit_mean": 0.4, "logit_std": 0.8, "mode_scale": 1.29}
    laws = {"logit_normal": peers.LogitNormal(-0.4, 0.8), "mode": peers.Mode(1.29)}
    for scheme, law in laws.items():
        time = 1 - training.compute_density_for_timestep_sampling(scheme, **options).double().numpy()
        edges = np.linspace(0.05, 0.95, 10)
        mass = law.mass(edges / (1 - edges))
        error = np.sqrt(mass * (1 - mass) / time.size)
        assert np.all(np.abs(np.histogram(time, edges)[0] / time.size - mass) < 4 * error)


def test_min_snr_agrees_with_diffusers_signal_to_noise_ratio():
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffusers.training_utils import compute_snr

    scheduler = diffusers.DDPMScheduler()
    times = torch.tensor([10, 300, 900])
    bar = scheduler.alphas_cumprod[times].double().numpy()
    theirs = compute_snr(scheduler, times).double().numpy()
    ours = peers.weighting("snr")(np.sqrt((1 - bar) / bar))
    assert np.allclose(ours, theirs, rtol=1e-4)


def test_cosmap_turns_uniform_time_into_the_cosine_density():
    # pi_CosMap(t) du: weight x uniform density of t = density of sigma = tan(pi u / 2) on the straight path's time
    edges = np.linspace(0.05, 0.95, 10)
    fine = np.linspace(edges[:-1], edges[1:], 2001)
    mass = np.trapezoid(peers.weighting("sd3_cosmap")(fine / (1 - fine)), fine, axis=0)
    assert np.allclose(mass, peers.VDiffusion(1.0).mass(edges / (1 - edges)), rtol=1e-6)


def test_soft_min_snr_is_below_min_snr_and_meets_it_at_both_ends():
    hard, soft = peers.weighting("min_snr", gamma=4.0), peers.weighting("soft_min_snr", sigma_data=0.5)
    ratio = soft.denoiser(SIGMA) / hard.denoiser(SIGMA)
    assert np.all(ratio < 1)
    assert ratio[0] > 0.999
    assert ratio[-1] > 0.999
    assert soft.denoiser(0.5) == pytest.approx(2.0)  # half of min(4, 4) where they part the most
    assert isinstance(soft.denoiser(0.5), float)


def test_learned_uncertainty_is_the_log_of_the_expected_loss_and_equalises_it():
    rng, n, d = np.random.default_rng(2), 60_000, 8
    sigma = LogNormal(-0.4, 1.0).quantile(rng.random(n))
    truth = 0.1 + 0.6 / (1 + sigma)  # expected loss on F, per dimension
    squares = truth * rng.chisquare(d, n) * (0.5 * sigma) ** 2 / (sigma**2 + 0.25)
    fit = peers.LearnedUncertainty.fit({"sigma": sigma, "loss": squares}, sigma_data=0.5, dimension=d)
    middle = LogNormal(-0.4, 1.0).quantile(np.linspace(0.03, 0.97, 9))
    error = np.sqrt(2 / d / (n / 30))  # each coefficient sees more than 1/30 of the rows
    assert np.all(np.abs(fit(middle) - np.log(0.1 + 0.6 / (1 + middle))) < 3 * error)
    weighted = peers.weighting("edm2", uncertainty=fit).denoiser(sigma) * squares / d
    part = np.argsort(sigma).reshape(20, -1)
    spread = weighted[part].std(axis=1, ddof=1) / np.sqrt(part.shape[1])
    assert np.all(np.abs(weighted[part].mean(axis=1) - 1) < 4 * spread)
    assert weighted.mean() == pytest.approx(1, abs=1e-4)  # exactly 1 but for the smoothness penalty


def test_learned_uncertainty_minimises_edm2s_objective():
    rng = np.random.default_rng(3)
    sigma = np.exp(rng.normal(size=400))
    loss = rng.gamma(1.0, 1.0, 400) * sigma**2 / (1 + sigma**2)
    fit = peers.LearnedUncertainty.fit({"sigma": sigma, "loss": loss}, sigma_data=1.0, pieces=4, smoothness=0.0)
    scaled = loss * (sigma**2 + 1) / sigma**2

    def objective(coefficients):
        u = peers.LearnedUncertainty(fit.knots, coefficients, 1.0)(sigma)
        return np.mean(scaled * np.exp(-u) + u)

    best = objective(fit.coefficients)
    for _ in range(100):
        assert objective(fit.coefficients + 0.05 * rng.normal(size=fit.coefficients.size)) > best


def test_learned_uncertainty_reads_a_log_file_and_its_end(tmp_path):
    sigma = np.tile(np.geomspace(0.1, 10.0, 30), 2)
    loss = np.repeat([9.0, 1.0], 30) * sigma**2
    path = tmp_path / "loss.csv"
    rows = "\n".join(f"{i},{s},{l}" for i, (s, l) in enumerate(zip(sigma, loss, strict=True)))
    path.write_text(f"examples,sigma,loss\n{rows}\n")
    late = peers.LearnedUncertainty.fit(path, sigma_data=1.0, last=0.5)
    assert np.allclose(np.exp(late(np.array([0.5, 3.0]))), [1.25, 10.0], rtol=2e-3)
    assert np.allclose(late(np.array([1e-5])), late(np.array([0.1])))


def test_speeds_weight_is_that_of_its_thousand_timesteps():
    process = co.VP()
    times = np.linspace(0.001, 1.0, 1000)
    bar = 1 / (1 + np.asarray(process.sigma(times)) ** 2)
    rise = np.gradient(1 - bar)
    expected = 0.4 + 0.2 * (rise - rise.min()) / (rise.max() - rise.min())
    expected[times >= 0.7] = 1.0
    found = peers.weighting("speed")(np.asarray(process.sigma(times)))
    assert np.allclose(found[1:-1], expected[1:-1], atol=2e-3)


def test_a_normalised_weight_keeps_the_average_scale_of_the_loss():
    law = peers.uniform_time(co.VP())
    for name in ("min_snr", "p2", "erd"):
        weight = peers.weighting(name).normalised(law, target="eps")
        time = np.random.default_rng(4).uniform(0.001, 1.0, 200_000)
        drawn = weight.on("eps")(np.asarray(co.VP().sigma(time)))
        assert abs(drawn.mean() - 1) < 4 * drawn.std() / np.sqrt(drawn.size)
        assert weight.name == peers.weighting(name).name


def test_a_weight_serves_torch_and_the_training_of_the_testbed():
    torch = pytest.importorskip("torch")
    from codesign_opt.testbed import MLP, Optimisation, train

    weight = peers.weighting("min_snr")
    sigma = torch.tensor([0.1, 1.0], dtype=torch.float32)
    assert weight.denoiser(sigma).dtype == torch.float32
    assert np.allclose(weight.denoiser(sigma).numpy(), weight.denoiser(sigma.numpy()), rtol=1e-6)
    how = Optimisation(peers.training_density("laplace"), batch=16, weight=weight.denoiser)
    done = train(MLP(2, sigma_data=1.0, width=8), torch.randn(64, 2), iterations=2, optimisation=how)
    assert done.iterations == 2


def test_wrong_parameters_are_refused_by_name():
    for call, words in (
        (lambda: peers.weighting("snr5"), "weighting is 'snr5'"),
        (lambda: peers.weighting("snr", gamma=1.0), "has no parameter gamma; it has none"),
        (lambda: peers.weighting("edm2"), "needs uncertainty"),
        (lambda: peers.weighting("edm2", uncertainty=3.0), "LearnedUncertainty.fit"),
        (lambda: peers.weighting("min_snr", gamma=0.0), "min_snr.gamma is 0"),
        (lambda: peers.weighting("erd", target="noise"), "erd.target is 'noise'"),
        (lambda: peers.weighting("erd", variance=-1.0), "variance is -1"),
        (lambda: peers.weighting("snr").on("y"), "Weighting.on: target"),
        (lambda: peers.weighting("snr").denoiser(-1.0), "sigma is -1"),
        (lambda: peers.Weighting("w", "eps", 3.0), "a function of sigma"),
        (lambda: peers.weighting("snr").normalised(peers.Cauchy()), "restrict the density"),
        (lambda: peers.LearnedUncertainty.fit({"sigma": [1.0], "loss": [1.0]}, sigma_data=1.0), "1 rows"),
        (lambda: peers.LearnedUncertainty.fit({"sigma": SIGMA, "loss": 0 * SIGMA}, sigma_data=1.0), "must be > 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_density_for_another_keeps_the_mean_at_the_variance_that_is_said():
    now, other = co.LogNormal(-0.5, 1.0), co.LogNormal(0.0, 1.3)
    weight, moment = (lambda s: 1 + 1 / s), (lambda s: s / (1 + s))
    found = peers.reweighted(now, other, weight, second_moment=moment, sigma_min=1e-4, sigma_max=1e4)
    rng, count = np.random.default_rng(0), 400_000
    before, after = np.exp(rng.normal(-0.5, 1.0, count)), np.exp(rng.normal(0.0, 1.3, count))

    def per_example(sigma):  # a loss whose second moment at a level is `moment`
        return np.sqrt(moment(sigma)) * rng.choice([0.5**0.5, 1.5**0.5], sigma.size)

    one, two = weight(before) * per_example(before), found.weight(after) * per_example(after)
    error = np.hypot(one.std(), two.std()) / count**0.5
    assert abs(one.mean() - two.mean()) < 4 * error
    ratio = np.mean(two**2) / np.mean(one**2)
    spread = np.hypot(np.std(one**2) / np.mean(one**2), np.std(two**2) / np.mean(two**2)) / count**0.5
    assert found.variance == pytest.approx(ratio, rel=4 * spread)
    # the least is at p w sqrt(G), and a weight moved into the density costs what Cauchy and Schwarz say
    best = peers.weight_as_density(now, lambda s: weight(s) * np.sqrt(moment(s)), sigma_min=1e-4, sigma_max=1e4).density
    least = peers.reweighted(now, best, weight, second_moment=moment, sigma_min=1e-4, sigma_max=1e4).variance
    assert least < found.variance
    for shift in (0.8, 1.25):
        near = peers.weight_as_density(now, lambda s, k=shift: (weight(s) * np.sqrt(moment(s))) ** k, sigma_min=1e-4,
                                       sigma_max=1e4).density  # fmt: skip
        assert peers.reweighted(now, near, weight, second_moment=moment, sigma_min=1e-4, sigma_max=1e4).variance > least
