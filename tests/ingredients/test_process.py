"""Processes against integration of beta, finite differences, and the definition of sigma = sigma_t / s_t."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from codesign_opt.ingredients.process import EDM, VE, VP, Cosine, FlowMatching, Process

ALL = [
    VP(),
    VP(beta_min=0.0, beta_max=8.0, t_min=1e-5),
    VP(beta_min=5.0, beta_max=5.0),
    VE(),
    EDM(),
    Cosine(),
    FlowMatching(),
    FlowMatching(0.01, 0.5),
]
NAMES = [repr(p) for p in ALL]
every = pytest.mark.parametrize("process", ALL, ids=NAMES)


def times(process, number=41):
    return np.linspace(process.t_min, process.t_max, number)


# ------------------------------------------------------------------------------------- the definitions


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("process", ALL[:3], ids=NAMES[:3])
def test_vp_scale_and_sigma_match_the_integral_of_beta(process, t):
    integral, _ = quad(lambda u: process.beta_min + u * (process.beta_max - process.beta_min), 0.0, t)
    assert process.scale(t) == pytest.approx(np.exp(-0.5 * integral), rel=1e-10)
    variance_of_noise = 1.0 - np.exp(-integral)  # unit data variance is preserved
    assert process.sigma(t) == pytest.approx(np.sqrt(variance_of_noise) / process.scale(t), rel=1e-8)


def test_vp_noise_variance_solves_the_forward_equation():
    process = VP(0.1, 20.0)
    solution = solve_ivp(
        lambda t, v: (0.1 + 19.9 * t) * (1.0 - v),
        (0.0, 1.0),
        [0.0],
        rtol=1e-11,
        atol=1e-14,
        dense_output=True,
    )
    t = np.linspace(0.05, 1.0, 20)
    assert np.allclose((process.sigma(t) * process.scale(t)) ** 2, solution.sol(t)[0], rtol=1e-8)


def test_ve_noise_grows_geometrically_between_its_limits():
    process = VE(0.02, 100.0)
    sigma = process.sigma(np.linspace(0.0, 1.0, 11))
    assert (sigma[0], sigma[-1]) == pytest.approx((0.02, 100.0), rel=1e-13)
    assert np.allclose(sigma[1:] / sigma[:-1], 5000.0**0.1, rtol=1e-13)


def test_edm_time_is_the_noise_level():
    t = np.geomspace(0.002, 80.0, 9)
    assert np.array_equal(EDM().sigma(t), t)
    assert np.array_equal(EDM().time(t), t)


@every
def test_sigma_is_noise_over_scale_of_the_named_process(process):
    t = times(process)
    noise = {
        "vp": lambda: np.sqrt(1.0 - process.scale(t) ** 2),
        "ve": lambda: 0.02 * 5000.0**t,
        "edm": lambda: t,
        "cosine": lambda: np.sin(np.pi * t / 2),
        "flow_matching": lambda: t,
    }[process.name]()
    assert np.allclose(process.sigma(t) * process.scale(t), noise, rtol=1e-6)


def test_cosine_preserves_variance_and_flow_matching_interpolates_linearly():
    t = np.linspace(0.01, 0.98, 30)
    assert np.allclose(Cosine().scale(t) ** 2 * (1.0 + Cosine().sigma(t) ** 2), 1.0, rtol=1e-12)
    assert np.allclose(FlowMatching().scale(t) * (1.0 + FlowMatching().sigma(t)), 1.0, rtol=1e-14)


# ---------------------------------------------------------------------------------------- calculus, maps


@every
def test_dsigma_dt_is_the_finite_difference_of_sigma(process):
    t = times(process)[1:-1]
    h = 1e-6 * np.minimum(t - process.t_min, process.t_max - t) + 1e-7 * t
    difference = (process.sigma(t + h) - process.sigma(t - h)) / (2 * h)
    assert np.allclose(process.dsigma_dt(t), difference, rtol=2e-6)


@every
def test_sigma_increases_and_its_ends_are_the_limits(process):
    sigma = process.sigma(times(process, 301))
    assert np.all(np.diff(sigma) > 0)
    assert sigma[0] == pytest.approx(process.sigma_min, rel=1e-13)
    assert sigma[-1] == pytest.approx(process.sigma_max, rel=1e-13)
    assert sigma.min() >= process.sigma_min
    assert sigma.max() <= process.sigma_max


@every
def test_round_trips_between_time_noise_level_and_log_snr(process):
    sigma = np.geomspace(process.sigma_min, process.sigma_max, 57)
    t = process.time(sigma)
    assert np.allclose(process.sigma(t), sigma, rtol=1e-11)
    assert np.allclose(process.log_snr(t), -2.0 * np.log(sigma), rtol=0, atol=1e-10)
    assert np.allclose(process.time_from_log_snr(process.log_snr(t)), t, rtol=1e-11)
    assert np.allclose(process.time(process.sigma(times(process))), times(process), rtol=1e-9)
    assert t.min() >= process.t_min
    assert t.max() <= process.t_max


@every
def test_log_snr_is_the_log_ratio_of_signal_to_noise_power(process):
    t = times(process)
    signal, noise = process.scale(t), process.sigma(t) * process.scale(t)
    assert np.allclose(process.log_snr(t), np.log(signal**2 / noise**2), atol=1e-11)


@every
def test_numbers_give_floats_and_arrays_keep_their_shape(process):
    t = 0.5 * (process.t_min + process.t_max)
    grid = np.full((2, 3), t)
    for method in (process.sigma, process.scale, process.log_snr, process.dsigma_dt):
        assert type(method(t)) is float
        assert type(method(np.float64(t))) is float
        assert type(method(np.array(t))) is float
        assert method(grid).shape == (2, 3)
        assert np.array_equal(method(grid), np.full((2, 3), method(t)))
        assert method([t, t]).shape == (2,)
    assert type(process.time(process.sigma(t))) is float
    assert type(process.time_from_log_snr(process.log_snr(t))) is float
    assert process.time(process.sigma(grid)).shape == (2, 3)


@every
def test_methods_leave_their_input_alone_and_return_writable_arrays(process):
    t = times(process)
    before = t.copy()
    for method in (process.sigma, process.scale, process.log_snr, process.dsigma_dt):
        out = method(t)
        out[0] = 1.0
        assert np.array_equal(t, before)


# ------------------------------------------------------------------------------------------ bad input

NAN, INF = float("nan"), float("inf")
BAD_ARGUMENTS = [
    NAN,
    INF,
    -INF,
    -1.0,
    True,
    "1",
    None,
    [],
    [NAN],
    [[0.5]],
    [True],
    np.array([False]),
    1j,
    1e9,
]


@pytest.mark.cases(140)
@pytest.mark.parametrize("bad", BAD_ARGUMENTS, ids=repr)
@pytest.mark.parametrize(
    ("method", "field"),
    [("sigma", "t"), ("scale", "t"), ("log_snr", "t"), ("dsigma_dt", "t"), ("time", "sigma")],
)
@every
def test_bad_arguments_are_refused_by_field(process, method, field, bad):
    with pytest.raises(ValueError, match=rf"{type(process).__name__}\.{field} "):
        getattr(process, method)(bad)


@pytest.mark.parametrize("bad", [b for b in BAD_ARGUMENTS if b != -1.0], ids=repr)
@every
def test_bad_log_snr_is_refused_by_field(process, bad):
    with pytest.raises(ValueError, match=rf"{type(process).__name__}\.log_snr "):
        process.time_from_log_snr(bad)


@every
def test_values_just_outside_the_range_are_refused_and_rounding_is_clipped(process):
    low, high = process.sigma_min, process.sigma_max
    assert process.time(high * (1 + 1e-12)) == process.time(high)
    for outside in (low * (1 - 1e-6), high * (1 + 1e-6), 0.0):
        with pytest.raises(ValueError, match="must be within"):
            process.time(outside)
    with pytest.raises(ValueError, match="at index 2; it must be within"):
        process.sigma(np.array([process.t_min, process.t_max, 1.01 * process.t_max]))


@pytest.mark.parametrize("bad", [NAN, INF, -1.0, True, "1", None, [0.5], []], ids=repr)
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (VP, "beta_min"),
        (VP, "beta_max"),
        (VP, "t_min"),
        (VE, "sigma_min"),
        (VE, "sigma_max"),
        (EDM, "sigma_min"),
        (EDM, "sigma_max"),
        (Cosine, "t_min"),
        (Cosine, "t_max"),
        (FlowMatching, "t_min"),
        (FlowMatching, "t_max"),
    ],
)
def test_bad_parameters_are_refused_by_field(kind, field, bad):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.{field} "):
        kind(**{field: bad})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VP(beta_min=2.0, beta_max=1.0), r"VP\.beta_max is 1; it must be >= beta_min = 2"),
        (lambda: VP(beta_max=5000.0), r"VP\.beta_max is 5000: .* at most 600"),
        (lambda: VP(t_min=1.0), r"VP\.t_min is 1; it must be < t_max"),
        (lambda: VP(t_min=0.0), r"VP\.t_min is 0; it must be > 0"),
        (lambda: VE(2.0, 1.0), r"VE\.sigma_min is 2; it must be < sigma_max = 1"),
        (lambda: EDM(1.0, 1.0), r"EDM\.sigma_min is 1; it must be <"),
        (lambda: EDM(0.0), r"EDM\.sigma_min is 0"),
        (lambda: Cosine(t_max=1.0), r"Cosine\.t_max is 1; it must be < 1"),
        (lambda: FlowMatching(t_min=0.5, t_max=0.5), r"FlowMatching\.t_min is 0\.5; it must be < t_max"),
        (lambda: FlowMatching(t_max=1.0), r"FlowMatching\.t_max is 1; it must be < 1, where sigma is inf"),
    ],
)
def test_inconsistent_parameters_are_refused_with_the_reason(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --------------------------------------------------------------------------------- values and the registry


@every
def test_dictionary_round_trip_through_json(process):
    assert Process.from_dict(json.loads(json.dumps(process.to_dict()))) == process


def test_processes_are_frozen_values_that_hash_and_normalise_to_float():
    assert EDM(1, 2) == EDM(1.0, 2.0)
    assert type(EDM(1, 2).sigma_min) is float
    assert len({EDM(), EDM(), VE()}) == 2
    with pytest.raises(FrozenInstanceError):
        EDM().sigma_min = 3.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, r"Process\.name is None; it must be one of 'vp', 've', 'edm', 'cosine', 'flow_matching'"),
        ({"name": "ddpm"}, r"Process\.name is 'ddpm'"),
        ({"name": ["edm"]}, r"Process\.name is \['edm'\]"),
        ({"name": "edm", "rho": 7}, r"EDM\.from_dict: unknown parameters \['rho'\]"),
        ({"name": "vp", "beta_max": NAN}, r"VP\.beta_max is nan"),
        (3, "a mapping is needed"),
    ],
)
def test_wrong_dictionaries_are_refused_with_the_reason(data, message):
    with pytest.raises(ValueError, match=message):
        Process.from_dict(data)


def test_the_base_class_cannot_be_built_and_a_taken_name_is_refused():
    with pytest.raises(TypeError, match="abstract"):
        Process()
    with pytest.raises(ValueError, match=r"Mine\.name is 'edm', which is taken by EDM"):
        type("Mine", (Process,), {"name": "edm"})


def test_a_process_of_the_user_needs_four_formulas_and_then_does_everything():
    @dataclass(frozen=True)
    class Quadratic(Process):
        name: ClassVar[str] = "quadratic"
        t_min: float = 0.1
        t_max: float = 9.0

        def _sigma(self, t: Any) -> Any:
            return t**2

        def _time(self, sigma: Any) -> Any:
            return np.sqrt(sigma)

        def _scale(self, t: Any) -> Any:
            return 1.0 + 0.0 * t

        def _dsigma_dt(self, t: Any) -> Any:
            return 2.0 * t

    process = Quadratic(t_max=8.0)
    assert process.sigma_max == 64.0
    assert process.time(16.0) == pytest.approx(4.0)
    assert Process.from_dict(process.to_dict()) == process
