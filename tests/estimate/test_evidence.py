"""Evidence measured on a denoiser, against closed forms of Gaussian data within three standard errors."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.estimate.denoisers.denoiser import Denoiser, DenoiserError
from codesign_opt.estimate.measured_evidence import EvidenceMeasurement, evidence
from codesign_opt.estimate.score_costs import score_slope
from codesign_opt.testbed.networks.linear import LinearDenoiser

LAM = np.array([2.0, 0.5, 0.03])
PROCESS = co.EDM(0.01, 40.0)
SMALL = EvidenceMeasurement(draws=20, levels=4, teacher_steps=2)


def examples(count=4000, seed=0):
    z = torch.randn(count, LAM.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z * torch.tensor(LAM).sqrt()


@pytest.fixture(scope="module")
def measured():
    size = EvidenceMeasurement(draws=3000, levels=24, teachers=8)
    return evidence(LinearDenoiser(LAM), examples(), process=PROCESS, measurement=size)


@pytest.fixture(scope="module")
def exact():
    model = co.GaussianModel(co.Spectrum.from_eigenvalues(LAM), PROCESS, co.Euler())
    return peers.Evidence.of(model)


def within(value, truth, error, z=3.5):
    """All of some dozen correlated numbers: three and a half standard errors."""
    return np.all(np.abs(value - truth) <= z * error + 1e-12)


def test_the_risk_is_the_closed_form_within_its_standard_errors(measured, exact):
    truth = np.sum(LAM * measured.risk.sigma[:, None] ** 2 / (LAM + measured.risk.sigma[:, None] ** 2), axis=1)
    assert within(measured.risk.risk, truth, measured.risk.standard_error)
    assert np.all(measured.risk.standard_error < 0.05 * truth)
    np.testing.assert_allclose(exact.risk(measured.risk.sigma), truth, rtol=2e-4)


def test_gaps_of_the_exact_denoiser_are_differences_of_risks(measured):
    s = measured.gaps.sigma[:, None] ** 2
    risk = np.sum(LAM * s / (LAM + s), axis=1)
    truth = np.abs(risk[:, None] - risk)
    assert within(measured.gaps.squared, truth, measured.provenance["standard_errors"]["gaps"])


def test_the_score_cost_is_the_closed_form_within_its_standard_errors(measured):
    v = LAM + measured.score_cost.sigma[:, None] ** 2
    truth = 4 * measured.score_cost.sigma**4 * np.sum(v**-3.0, axis=1)
    error = measured.provenance["standard_errors"]["score_cost"]
    assert within(
        measured.score_cost.delta, truth, error + 2e-3 * truth
    )  # the central difference is off by _NUDGE^2 or so
    assert np.all(error < 0.06 * truth)


def test_trajectories_are_proportional_to_the_square_root_of_the_variance(measured):
    path = measured.trajectories
    assert path.states.shape == (61, 8, 3)
    shape = np.sqrt(LAM + path.sigma[:, None] ** 2)
    truth = path.states[0] * (shape / shape[0])[:, None]
    np.testing.assert_allclose(path.states, truth, rtol=0.02, atol=1e-3)
    by_sigma = path.states * (path.sigma[:, None] / (LAM + path.sigma[:, None] ** 2))[:, None]
    np.testing.assert_allclose(path.slopes, by_sigma, rtol=1e-9)


def test_spectrum_range_and_count_of_evaluations_are_told():
    denoiser = Denoiser(LinearDenoiser(LAM))
    size = EvidenceMeasurement(draws=100, levels=8, teachers=3, teacher_steps=5)
    found = evidence(denoiser, examples(300), process=PROCESS, measurement=size)
    assert size.calls(100) == found.provenance["evaluations"]
    assert (found.sigma_min, found.sigma_max) == (0.01, 40.0)
    assert found.provenance["evaluations"] == {"paths": 2400, "trajectories": 33}
    assert denoiser.evaluations == 2400 + 33 + 2 * 8  # and the check that the folder's items are of this denoiser
    np.testing.assert_allclose(found.spectrum.trace, examples(300).var(dim=0, unbiased=False).sum(), rtol=0.01)


def test_a_killed_measurement_goes_on_to_the_same_numbers(tmp_path):
    size = EvidenceMeasurement(draws=200, levels=8, teachers=3, teacher_steps=5)
    options = {"process": PROCESS, "measurement": size}
    whole = evidence(LinearDenoiser(LAM), examples(300), **options)
    calls = 0

    def failing(x, sigma):
        nonlocal calls
        calls += 1
        if calls > 70:
            raise KeyboardInterrupt
        return LinearDenoiser(LAM)(x, sigma)

    with pytest.raises(KeyboardInterrupt):
        evidence(Denoiser(failing, name="linear"), examples(300), folder=tmp_path, **options)
    again = Denoiser(LinearDenoiser(LAM), name="linear")
    found = evidence(again, examples(300), folder=tmp_path, **options)
    assert again.evaluations < 3 * 8 * 200  # two of four chunks were there
    np.testing.assert_array_equal(found.gaps.squared, whole.gaps.squared)
    np.testing.assert_array_equal(found.risk.risk, whole.risk.risk)


def test_schedules_take_measured_evidence(measured):
    for name in ("edm", "log_snr"):
        assert peers.schedule(name).sigmas(6, measured).size == 7


def test_evidence_of_another_denoiser_in_the_folder_is_refused(tmp_path):
    size = EvidenceMeasurement(draws=20, levels=4, teachers=2, teacher_steps=2)
    options = {"process": PROCESS, "measurement": size, "folder": tmp_path}
    evidence(Denoiser(LinearDenoiser(LAM), name="one"), examples(50), **options)
    with pytest.raises(ValueError, match="another denoiser"):
        evidence(Denoiser(LinearDenoiser(2 * LAM), name="one"), examples(50), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"terminal": "never"}, "terminal"),
        ({"process": 3}, "process is 3"),
        ({"sampler": "eulr"}, "evidence: sampler is .eulr.* did you mean .euler."),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        evidence(LinearDenoiser(LAM), examples(50), measurement=SMALL, **options)


@pytest.mark.parametrize(
    "options", [{"levels": 2}, {"draws": 1}, {"teachers": 0}, {"teacher_steps": 1}, {"chunk": 0}], ids=str
)
def test_sizes_out_of_range_are_named(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"EvidenceMeasurement\.{name} is {value}; it must be >= "):
        EvidenceMeasurement(**options)


def test_a_denoiser_that_fails_is_told_with_its_noise_level():
    with pytest.raises(DenoiserError, match="not finite at sigma"):
        evidence(lambda x, sigma: x / (sigma[:, None] > 1), examples(50), measurement=SMALL)


@pytest.mark.parametrize("process", [co.VP(), co.EDM(0.05, 20.0)], ids=repr)
def test_a_network_with_a_range_is_asked_within_it_alone_and_the_cost_at_its_ends_is_right(process):
    """Of N(0, I) data the score is -x / (1 + sigma^2): closed form at both ends, where differences are one-sided."""
    asked = []

    def exact(x, t):  # the score of x_t = s x has variance s^2 (1 + sigma^2)
        asked.append(float(process.sigma(float(t[0]))))
        s = float(process.scale(float(t[0])))
        return -x / (s**2 * (1 + asked[-1] ** 2))

    data = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = EvidenceMeasurement(draws=1000, levels=12, teachers=2, teacher_steps=3)
    denoiser = co.estimate.from_prediction(exact, "score", process)
    found = evidence(denoiser, data, process=process, measurement=size)
    assert process.sigma_min * (1 - 1e-6) <= min(asked)
    assert max(asked) <= process.sigma_max * (1 + 1e-6)
    sigma = found.score_cost.sigma
    truth = 4 * sigma**4 * 4 / (1 + sigma**2) ** 3
    error = found.provenance["standard_errors"]["score_cost"]
    assert np.all(np.abs(found.score_cost.delta - truth) <= 3.5 * error + 8e-3 * truth)


def test_the_call_that_always_failed_runs():
    process = co.VP()
    denoiser = co.estimate.from_prediction(lambda x, t: -x, "score", process)
    data = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    assert co.estimate.evidence(denoiser, data, process=process, measurement=SMALL).score_cost.delta.size == 4


@pytest.mark.parametrize("range_", [1.001, 1.06, 1.5])
def test_differences_of_the_score_stay_within_narrow_ranges(range_):
    """The slope of -x / sigma^2 is 2 x / sigma^2 at any level of a range, narrower than the difference too."""
    low, high = 2.0, 2.0 * range_
    asked = []

    def zero(x, sigma):
        asked.append(float(sigma[0]))
        return 0 * x

    for sigma in np.linspace(low, high, 9):
        x = torch.ones(1, 1, dtype=torch.float64)
        slope = float(score_slope(Denoiser(zero), x, float(sigma), 0.05, (low, high)))
        assert abs(slope * sigma**2 / 2 - 1) < 4e-3
    assert low <= min(asked)
    assert max(asked) <= high


def test_score_cost_of_an_adapted_network_reaches_the_ends_of_its_range():
    process = co.VP()
    denoiser = co.estimate.from_prediction(lambda x, t: -x, "score", process)  # D = x / (1 + sigma^2)
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = np.array([process.sigma_min, process.sigma_max])
    found = co.estimate.score_cost(denoiser, x, ends)
    truth = 4 * ends**4 * 2 / (1 + ends**2) ** 3
    assert np.all(np.abs(found.delta - truth) < 3 * found.standard_error + 2e-3 * truth)


def test_the_same_function_under_another_name_goes_on_and_another_one_is_refused(tmp_path):
    options = {"process": PROCESS, "measurement": SMALL, "folder": tmp_path}
    first = evidence(Denoiser(LinearDenoiser(LAM), name="one"), examples(50), **options)
    again = Denoiser(LinearDenoiser(LAM), name="other")
    found = evidence(again, examples(50), **options)
    assert again.calls <= 8  # the questions whether it is the same
    np.testing.assert_array_equal(found.gaps.squared, first.gaps.squared)
    with pytest.raises(ValueError, match="another denoiser"):
        evidence(Denoiser(LinearDenoiser(2 * LAM), name="one"), examples(50), **options)
