"""Schedules that users set by a flag: against the formulas and code of the libraries they come from."""

import math

import numpy as np
import pytest
from scipy import stats

from codesign_opt import peers

RANGES = [(0.002, 80.0), (0.0291675, 14.614642), (0.02, 700.0)]
NEEDLESS = [
    "beta_sigma", "beta_timesteps", "cosine", "edm", "flow_uniform", "kl_optimal", "laplace", "linear_sigma", "log_snr",
    "polyexponential", "time_uniform", "timestep_uniform",
]  # fmt: skip
NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers


def evidence(low=0.002, high=80.0, terminal="denoise"):
    return peers.Evidence(sigma_min=low, sigma_max=high, terminal=terminal)


def levels(name, steps, low, high, **parameters):
    """Positive levels under "denoise"."""
    grid = peers.schedule(name, **parameters).sigmas(steps, evidence(low, high))
    assert grid[-1] == 0.0
    return grid[:-1]


@pytest.mark.parametrize("name", NEEDLESS)
@pytest.mark.parametrize("ends", RANGES)
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_every_schedule_descends_between_the_ends_at_every_number_of_steps(name, ends, terminal):
    chosen = peers.schedule(name, **({"ends": "truncate"} if name == "laplace" else {}))
    for steps in (2, 3, 5, 18, 50):
        grid = chosen.sigmas(steps, evidence(*ends, terminal))
        assert grid.size == steps + 1
        assert np.all(np.diff(grid) < 0)
        assert grid[0] == ends[1]
        positive = grid[grid > 0]
        if (name, terminal) != ("beta_timesteps", "denoise"):  # whose quantiles stop above sigma_min, as ComfyUI's
            assert positive[-1] == ends[0]


@NUMPY_2
def test_grids_equal_those_of_diffusers_under_its_flags():
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    cases = {"edm": "use_karras_sigmas", "log_snr": "use_exponential_sigmas", "beta_sigma": "use_beta_sigmas"}
    for name, flag in cases.items():
        for steps in (5, 10, 31):
            scheduler = diffusers.EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **{flag: True}
            )
            scheduler.set_timesteps(steps)
            theirs = scheduler.sigmas.to(torch.float64).numpy()
            ours = levels(name, steps, float(theirs[-2]), float(theirs[0]))
            np.testing.assert_allclose(ours, theirs[:-1], rtol=3e-6)  # theirs is float32


@NUMPY_2
def test_timestep_uniform_equals_diffusers_linspace_spacing_at_whole_timesteps():
    diffusers = pytest.importorskip("diffusers")
    for law, ends in (("scaled_linear", (0.00085, 0.012)), ("linear", (1e-4, 0.02))):
        scheduler = diffusers.EulerDiscreteScheduler(
            beta_start=ends[0], beta_end=ends[1], beta_schedule=law, timestep_spacing="linspace"
        )
        scheduler.set_timesteps(28)  # 999 / 27 = 37: every timestep whole, nothing interpolated
        theirs = scheduler.sigmas.numpy().astype(float)
        parameters = {"beta_start": ends[0], "beta_end": ends[1], "law": law}
        ours = levels("timestep_uniform", 28, float(theirs[-2]), float(theirs[0]), **parameters)
        np.testing.assert_allclose(ours, theirs[:-1], rtol=2e-5)  # float32 products of 1000 factors


def test_flow_uniform_equals_the_flow_matching_scheduler_with_its_shift():
    diffusers = pytest.importorskip("diffusers")
    for shift in (1.0, 3.0):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
        u = scheduler.sigmas.numpy().astype(float)[1::111]  # shifted, from the second: the first is infinite noise
        sigma = u / (1 - u)
        ours = levels("flow_uniform", sigma.size, sigma[-1], sigma[0], shift=shift)
        np.testing.assert_allclose(ours, sigma, rtol=1e-3)  # u is float32 and close to 1 at the top


def test_formulas_of_k_diffusion_typed_anew():
    low, high, steps = 0.03, 14.6, 12
    for rho in (0.5, 1.0, 3.0):
        ramp = [(1 - i / (steps - 1)) ** rho for i in range(steps)]
        theirs = [math.exp(r * math.log(high / low) + math.log(low)) for r in ramp]
        np.testing.assert_allclose(levels("polyexponential", steps, low, high, rho=rho), theirs, rtol=1e-12)
    beta_d, beta_min, eps = 19.9, 0.1, 1e-3
    times = [1 + (eps - 1) * i / (steps - 1) for i in range(steps)]
    theirs = [math.sqrt(math.exp(beta_d * t * t / 2 + beta_min * t) - 1) for t in times]
    np.testing.assert_allclose(levels("time_uniform", steps, theirs[-1], theirs[0]), theirs, rtol=1e-9)


def test_time_uniform_fits_the_betas_as_the_ablations_of_edm():
    low, high, eps, steps = 0.002, 80.0, 1e-3, 9
    beta_d = 2 * (math.log(low**2 + 1) / eps - math.log(high**2 + 1)) / (eps - 1)
    beta_min = math.log(high**2 + 1) - 0.5 * beta_d
    times = [1 + i / (steps - 1) * (eps - 1) for i in range(steps)]
    theirs = [math.sqrt(math.exp(0.5 * beta_d * t**2 + beta_min * t) - 1) for t in times]
    np.testing.assert_allclose(levels("time_uniform", steps, low, high, fit=True), theirs, rtol=1e-7)
    native = (peers.TimeUniform().sigma(eps), peers.TimeUniform().sigma(1.0))
    both = [levels("time_uniform", steps, *native, fit=fit) for fit in (False, True)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-9)


def test_formulas_of_comfyui_typed_anew():
    low, high, steps = 0.0291675, 14.614642, 10
    adjusted = [i / (steps - 1) for i in range(steps)]
    theirs = [math.tan(a * math.atan(low) + (1 - a) * math.atan(high)) for a in adjusted]
    np.testing.assert_allclose(levels("kl_optimal", steps, low, high), theirs, rtol=1e-12)
    quantiles = np.linspace(0, 1, steps)
    tail = np.sign(0.5 - quantiles) * np.log(1 - 2 * np.abs(0.5 - quantiles) + 1e-5)
    theirs = np.clip(np.exp(0.0 - 0.5 * tail), low, high)
    np.testing.assert_allclose(levels("laplace", steps, low, high), theirs, rtol=1e-12)


def comfyui_beta(sigmas, steps, alpha=0.6, beta=0.6):
    """`beta_scheduler` of ComfyUI on an ascending table of noise levels."""
    total = len(sigmas) - 1
    quantiles = 1 - np.linspace(0, 1, steps, endpoint=False)
    chosen, last = [], -1
    for t in np.rint(stats.beta.ppf(quantiles, alpha, beta) * total):
        if t != last:
            chosen.append(float(sigmas[int(t)]))
        last = t
    return [*chosen, 0.0]


def stable_diffusion_table():
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = np.cumprod(1 - beta)
    return np.sqrt((1 - signal) / signal)


def test_beta_timesteps_equals_comfyui_where_it_keeps_every_level():
    table = stable_diffusion_table()
    for steps in (3, 10, 20, 50):
        theirs = comfyui_beta(table, steps)
        assert len(theirs) == steps + 1
        ours = peers.BetaTimesteps().sigmas(steps, evidence(table[0], table[-1]))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        assert not np.allclose(ours[:-1], levels("beta_sigma", steps, table[0], table[-1]), rtol=0.05)


def test_beta_timesteps_says_how_many_levels_are_left_or_fills_them():
    table = stable_diffusion_table()
    known = evidence(table[0], table[-1])
    kept = len(comfyui_beta(table, 700)) - 1
    assert kept < 700
    with pytest.raises(ValueError, match=rf"700 levels fall on {kept} of 1000 timesteps.*fill"):
        peers.BetaTimesteps().sigmas(700, known)
    filled = peers.BetaTimesteps(fewer="fill").sigmas(700, known)
    assert filled.size == 701
    index = np.searchsorted(table, filled[:-1] * (1 - 1e-6))
    np.testing.assert_allclose(table[index], filled[:-1], rtol=1e-9)  # whole timesteps still
    assert np.unique(index).size == 700
    with pytest.raises(ValueError, match="up to 1000"):
        peers.BetaTimesteps(fewer="fill").sigmas(1001, known)


def test_cosine_is_uniform_in_the_time_of_nichol_and_dhariwal():
    def sigma(t, s):
        def f(u):
            return math.cos((u + s) / (1 + s) * math.pi / 2) ** 2

        signal = f(t) / f(0)
        return math.sqrt(1 / signal - 1)

    for offset in (0.0, 0.008, 0.1):
        times = np.linspace(0.99, 0.01, 8)
        theirs = [sigma(t, offset) for t in times]
        ours = levels("cosine", 8, theirs[-1], theirs[0], offset=offset)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(levels("cosine", 9, 0.002, 80, offset=0.0), levels("kl_optimal", 9, 0.002, 80))


@pytest.mark.parametrize("ends", [(0.05, 20.0), (2.0, 9.0), (0.01, 0.5)])
def test_truncated_laplace_has_equal_probability_between_its_levels(ends):
    found = levels("laplace", 14, *ends, ends="truncate", mean=0.2, spread=0.7)
    share = np.diff(stats.laplace.cdf(np.log(found[::-1]), loc=0.2, scale=0.7))
    np.testing.assert_allclose(share, share.mean(), rtol=1e-9)


def test_clamped_laplace_refuses_to_repeat_an_end():
    with pytest.raises(ValueError, match=r"laplace: \d+ of 20 quantiles fall outside .*truncate"):
        levels("laplace", 20, 0.002, 1.5)


@pytest.mark.parametrize(
    ("name", "parameters", "word"),
    [
        ("polyexponential", {"rho": 0.0}, "Polyexponential.rho"),
        ("polyexponential", {"rho": float("nan")}, "Polyexponential.rho"),
        ("beta_sigma", {"alpha": -1.0}, "BetaSigma.alpha"),
        ("beta_sigma", {"beta": True}, "BetaSigma.beta"),
        ("beta_timesteps", {"beta": 0.0}, "BetaTimesteps.beta"),
        ("beta_timesteps", {"fewer": "drop"}, "BetaTimesteps.fewer"),
        ("beta_timesteps", {"timesteps": 1}, "BetaTimesteps.timesteps"),
        ("timestep_uniform", {"beta_start": 0.02}, "beta_end"),
        ("timestep_uniform", {"law": "cosine"}, "TimestepUniform.law"),
        ("timestep_uniform", {"beta_end": 1.5}, "TimestepUniform.beta_end"),
        ("time_uniform", {"beta_d": -1.0}, "TimeUniform.beta_d"),
        ("time_uniform", {"eps_s": 1.0}, "TimeUniform.eps_s"),
        ("time_uniform", {"fit": 1}, "TimeUniform.fit"),
        ("kl_optimal", {"scale": 0.0}, "KLOptimal.scale"),
        ("laplace", {"spread": 0.0}, "Laplace.spread"),
        ("laplace", {"mean": "a"}, "Laplace.mean"),
        ("laplace", {"ends": "cut"}, "Laplace.ends"),
        ("cosine", {"offset": -0.1}, "CosineTime.offset"),
        ("flow_uniform", {"shift": 0.0}, "FlowUniform.shift"),
    ],
)
def test_bad_parameters_are_refused_by_name(name, parameters, word):
    with pytest.raises(ValueError, match=word):
        peers.schedule(name, **parameters)


def test_a_fit_without_a_rising_process_is_refused():
    with pytest.raises(ValueError, match="eps_s or fit=False"):
        levels("time_uniform", 5, 1.0, 80.0, fit=True)
