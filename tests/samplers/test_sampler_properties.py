"""Local errors, positivity, attributes and refusals of the samplers."""

import math
from itertools import pairwise

import numpy as np
import pytest

from codesign_opt.samplers.members import (
    Ancestral,
    DPMpp2M,
    Euler,
    EulerMaruyama,
    Heun,
    Sampler,
    TerminalLaw,
    check_grid,
)
from tests.helpers.literal_samplers import LAM, SAMPLERS, edm_grid, ids

ODE = [Euler(), Heun(), DPMpp2M()]


# ---- local error ----


def log_uniform(u):
    return 30.0 * (0.05 / 30.0) ** u


def rho_seven(u):
    return (30 ** (1 / 7) + u * (0.05 ** (1 / 7) - 30 ** (1 / 7))) ** 7


def wobbly(u):
    return log_uniform(u + 0.1 * np.sin(2 * np.pi * u))


@pytest.mark.parametrize("path", [log_uniform, rho_seven, wobbly])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_local_error_is_the_leading_order_of_the_signed_relative_std_error(sampler, path):
    lam, stop, q = np.array([4.0, 0.25, 1e-3]), 0.05, sampler.order
    exact = np.sqrt(lam + stop**2)

    def scaled_error(steps):
        grid = path(np.linspace(0, 1, steps + 1))
        return (sampler.terminal_law(grid, lam).std / exact - 1) * steps**q

    measured = 2 * scaled_error(4000) - scaled_error(2000)
    u = (np.arange(20_000) + 0.5) / 20_000
    slope = np.abs(path(u + 1e-5) - path(u - 1e-5)) / 2e-5
    predicted = -(sampler.local_error(lam, path(u), stop) * slope ** (q + 1)).mean(axis=1)
    if isinstance(sampler, DPMpp2M):  # its first step is Euler's: one more term of the same order
        first = (path(0.0) - path(1e-6)) / 1e-6
        predicted -= first**2 * Euler().local_error(lam, [path(0.0)], stop)[:, 0]
    scale = (np.abs(sampler.local_error(lam, path(u), stop)) * slope ** (q + 1)).mean(axis=1)
    assert (np.abs(measured - predicted) < 2e-3 * scale).all()


@pytest.mark.parametrize(("sampler", "ratios"), [(Euler(), (1.43, 1.17, 1.07)), (Heun(), (0.57, 0.78, 0.89))], ids=ids)
def test_leading_order_over_exact_error_on_edm_grids_is_that_of_the_theory(sampler, ratios):
    lam, stop = np.arange(1, 65.0) ** -1.5, 0.002
    target = np.sqrt(lam + stop**2)
    u = (np.arange(4000) + 0.5) / 4000
    sigma, end = (80 ** (1 / 7) + u * (stop ** (1 / 7) - 80 ** (1 / 7))) ** 7, stop ** (1 / 7) - 80 ** (1 / 7)
    slope = np.abs(7 * sigma ** (6 / 7) * end)
    for steps, ratio in zip((8, 18, 40), ratios, strict=True):
        exact = ((sampler.terminal_law(edm_grid(steps + 1, zero=False), lam).std - target) ** 2).sum()
        local = np.abs(sampler.local_error(lam, sigma, stop)) * slope ** (sampler.order + 1)
        leading = ((target * local.mean(axis=1) / steps**sampler.order) ** 2).sum()
        assert leading / exact == pytest.approx(ratio, abs=0.012)


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.4])
def test_euler_maruyama_inflates_a_band_without_variance(eta):
    grid = np.geomspace(30.0, 0.05, 4001)
    relative = EulerMaruyama(eta).terminal_law(grid, [0.0]).std[0] / 0.05 - 1
    local = EulerMaruyama(eta).local_error([0.0], grid[:-1], 0.05)[0]
    assert relative == pytest.approx(-(local * np.diff(grid) ** 2).sum(), rel=2e-2)
    assert relative > 0


def test_signed_says_whether_the_local_error_changes_sign():
    sigma = np.geomspace(1e-3, 1e3, 400)
    for sampler in SAMPLERS:
        local = sampler.local_error([1.0], sigma, 1e-3)[0]
        assert sampler.signed == (local.min() < 0 < local.max())
    assert abs(DPMpp2M().local_error([2.0], [3**0.5], 0.01)[0, 0]) < 1e-16
    assert abs(EulerMaruyama(0.5).local_error([0.25 * 2.25], [1.0], 0.01)[0, 0]) < 1e-16


def test_attributes_of_every_sampler():
    table = [(s.name, s.order, s.evaluations_per_step, s.eta) for s in (*ODE, Ancestral(0.5), EulerMaruyama())]
    assert table == [
        ("euler", 1, 1, 0.0),
        ("heun", 2, 2, 0.0),
        ("dpmpp_2m", 2, 1, 0.0),
        ("euler_ancestral", 1, 1, 0.5),
        ("euler_maruyama", 1, 1, 1.0),
    ]


# ---- positivity ----


def test_minimum_steps_are_the_worked_example_of_the_theory():
    steps = EulerMaruyama(1.0).minimum_steps([1.0, 1e-4], 80.0, 0.002)
    assert round(steps.density, 1) == 17.9
    assert round(steps.grid, 1) == 13.4


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.6])
def test_the_longest_positive_grid_has_zero_multipliers_and_the_stated_count(eta):
    sampler, lam = EulerMaruyama(eta), np.array([1.0, 1e-2])
    sigmas = [80.0]
    while sigmas[-1] > 0.05:
        sigmas.append(sigmas[-1] - sampler.positivity_cap(lam, [sigmas[-1]])[0])
    steps = sampler.minimum_steps(lam, 80.0, 0.05)
    assert math.ceil(steps.grid) == len(sigmas) - 1
    assert steps.density > steps.grid
    for a, b in pairwise(sigmas[:-1]):
        multipliers = sampler.terminal_law([a, b], lam).amplitude
        assert abs(multipliers[1]) < 1e-12
        assert multipliers[0] >= -1e-12  # the smallest eigenvalue binds first
    # the density is the integral of one over the cap
    sigma = np.geomspace(0.05, 80.0, 20_001)
    assert steps.density == pytest.approx(np.trapezoid(1 / sampler.positivity_cap(lam, sigma), sigma), rel=1e-6)


def test_stability_cap_is_where_the_multiplier_is_minus_one():
    sampler, sigma = EulerMaruyama(2.0), 3.0
    step = sampler.stability_cap([0.5, 4.0], [sigma])[0]
    assert sampler.terminal_law([sigma, sigma - step], [0.5]).amplitude[0] == pytest.approx(-1.0, rel=1e-12)
    assert (EulerMaruyama(1.0).stability_cap(LAM, [0.1, 9.0]) >= [0.1, 9.0]).all()


@pytest.mark.parametrize("sampler", [*ODE, Ancestral(), EulerMaruyama(0.0)], ids=ids)
def test_samplers_with_positive_multipliers_have_no_cap(sampler):
    assert np.isinf(sampler.positivity_cap(LAM, [0.1, 1.0])).all()
    assert np.isinf(sampler.stability_cap(LAM, [0.1, 1.0])).all()
    assert sampler.minimum_steps(LAM, 80.0, 0.002) == (0.0, 0.0)


# ---- values and refusals ----


def test_samplers_are_values_that_survive_a_round_trip():
    for sampler in SAMPLERS:
        assert Sampler.from_dict(sampler.to_dict()) == sampler
    assert Ancestral(0.5) != Ancestral(0.6)
    with pytest.raises(ValueError, match=r"Sampler.name is 'ddpm'; it must be one of .*'euler'"):
        Sampler.from_dict({"name": "ddpm"})
    with pytest.raises(ValueError, match="Sampler heun has no parameter eta"):
        Sampler.from_dict({"name": "heun", "eta": 1.0})
    with pytest.raises(AttributeError):
        Ancestral().eta = 2.0
    assert isinstance(Euler().terminal_law([1.0, 0.0], [1.0]), TerminalLaw)


def test_check_grid_reads_the_terminal_and_the_stopping_point():
    grid = check_grid([80, 3, 0.5, 0], "Plan.sigmas")
    assert (grid.terminal, grid.stopping_sigma, grid.sigmas.dtype) == ("denoise", 0.5, np.float64)
    assert check_grid(np.array([3.0, 1.0])).terminal == "rescale"
    for bad, words in [
        ([1.0], "at least 2"),
        ([1.0, 2.0], "strictly descending"),
        ([1.0, 0.0, 0.0], "strictly descending"),
        ([1.0, -1.0], "must be >= 0"),
        ([np.nan, 1.0], "must be finite"),
        ([True, False], "dtype bool"),
        ([[2.0, 1.0]], "dimension"),
        ([], "at least 2"),
    ]:
        with pytest.raises(ValueError, match=f"Plan.sigmas.*{words}"):
            check_grid(bad, "Plan.sigmas")


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([1.0], [1.0]), {}, "sigmas has 1 node"),
        (([1.0, 2.0], [1.0]), {}, "sigmas is 2 at index 1; it must be below"),
        (([2.0, 0.0, -1.0], [1.0]), {}, "sigmas is -1 at index 2"),
        (([np.inf, 1.0], [1.0]), {}, "sigmas is inf at index 0; it must be finite"),
        (([True, False], [1.0]), {}, "sigmas has dtype bool"),
        ((2.0, [1.0]), {}, "sigmas has shape"),
        (([[2.0, 1.0], [1.0]], [1.0]), {}, "sigmas is not a rectangular"),
        (([2.0, 1.0], [-1.0]), {}, "eigenvalues is -1 at index 0"),
        (([2.0, 1.0], []), {}, "eigenvalues has 0 entries"),
        (
            ([2.0, 1.0], [1.0]),
            {"denoiser": np.ones((3, 1))},
            r"last axes must be \(nodes, bands\) = \(2, 1\)",
        ),
        (([2.0, 1.0], [1.0]), {"denoiser": [[np.nan], [1.0]]}, r"denoiser is nan at index \(0, 0\)"),
        (([2.0, 1.0], [1.0]), {"initial_variance": [-1.0]}, "initial_variance is -1 at index 0"),
        (([2.0, 1.0], [1.0]), {"initial_variance": [1.0, 2.0]}, "initial_variance has 2 bands"),
        ((np.ones((2, 1)) * [2.0, 1.0], [1.0]), {"denoiser": np.ones((3, 2, 1))}, "do not broadcast"),
    ],
)
@pytest.mark.parametrize("method", ["terminal_law", "weight_sensitivity"])
def test_malformed_laws_are_refused_by_name(method, arguments, options, words):
    with pytest.raises(ValueError, match=words):
        getattr(Heun(), method)(*arguments, **options)


def test_malformed_local_arguments_are_refused_by_name():
    for kind in (Ancestral, EulerMaruyama):
        for bad in (-0.1, math.nan, math.inf, True, "1", None, [1.0]):
            with pytest.raises(ValueError, match=f"{kind.__name__}.eta"):
                kind(bad)
    with pytest.raises(ValueError, match="stopping_sigma is 0; it must be > 0"):
        Euler().local_error([1.0], [1.0], 0.0)
    with pytest.raises(ValueError, match="sigma is 0 at index 1"):
        Euler().local_error([1.0], [1.0, 0.0], 0.1)
    with pytest.raises(ValueError, match="sigma is -1 at index 0"):
        EulerMaruyama().positivity_cap([1.0], [-1.0])
    with pytest.raises(ValueError, match="must be below sigma_max"):
        EulerMaruyama().minimum_steps([1.0], 1.0, 1.0)
