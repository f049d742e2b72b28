"""Orders and local error coefficients of the stock samplers, measured on the exact law under refinement."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import run

LAM, TOP, STOP = np.array([4.0, 0.25, 0.01]), 1e4, 0.05  # so high that first steps of lower order do not show
TRUE = np.sqrt((LAM + STOP**2) / (LAM + TOP**2))
FREE = {"lower_order_final": False}
SAMPLERS = [
    *[co.UniPC(p, kind, **FREE) for p in (2, 3) for kind in ("bh1", "bh2")],
    co.DPMpp3M(**FREE),
    co.DPMpp2M(),
    co.DPMpp2S(),
    co.DEIS(2, **FREE),
    co.DEIS(3, **FREE),
    *[co.IPNDM(p, kind) for p in (3, 4) for kind in ("epsilon", "x0")],
    *[co.AdamsBashforth(p) for p in (2, 3, 4)],
]
ORDERS = [3, 3, 4, 4, 2, 2, 2, 2, 3, 2, 2, 2, 2, 2, 3, 4]


def relative(sampler, steps):
    return sampler.terminal_law(np.geomspace(TOP, STOP, steps + 1), LAM).amplitude / TRUE - 1


def last_prediction(sampler):
    """UniPC's last state is not corrected: its predictor's error there, by hand from D/x = W along the flow."""
    w = LAM / (LAM + STOP**2)
    slope, bend = w * (1 - w), w * (1 - w) * (1 - 3 * w)
    if sampler.order == 4:
        return -3 / 8 * w * (1 - w) * (1 - 12 * w + 15 * w**2)
    return -5 / 12 * bend + (1 / 6 if sampler.solver_type == "bh1" else -1 / 12) * slope


@pytest.mark.parametrize(("sampler", "order"), list(zip(SAMPLERS, ORDERS, strict=True)), ids=repr)
def test_local_error_is_the_leading_order_on_steps_equal_in_log_sigma(sampler, order):
    assert sampler.order == order
    whole, (coarse, fine) = np.log(TOP / STOP), (600, 1200)
    scaled = [relative(sampler, n) * (n / whole) ** order for n in (coarse, fine)]
    measured = 2 * scaled[1] - scaled[0]
    u = (np.arange(20_000) + 0.5) / 20_000
    sigma = TOP * (STOP / TOP) ** u
    density = sampler.local_error(LAM, sigma, STOP) * sigma ** (order + 1)
    predicted = -density.mean(axis=1) * whole
    if isinstance(sampler, co.UniPC):
        predicted = predicted + last_prediction(sampler)
    scale = np.abs(density).mean(axis=1) * whole
    assert np.all(np.abs(measured - predicted) < 0.01 * scale)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_bias_falls_at_the_stated_order_on_grids_that_end_in_zero(sampler):
    """Exact squared distance to what a perfect sampler leaves, so of twice the order.

    The stop lies amid the data: down to where bands are done, the errors of DEIS(3) sum to 0 (theory, section 3.1).
    """
    spectrum, stop = co.Spectrum.from_eigenvalues(LAM), 0.5
    model = co.GaussianModel(spectrum, co.EDM(stop, TOP), sampler, terminal="denoise", start="marginal")
    errors = [model.discretization(np.append(np.geomspace(TOP, stop, n + 1), 0.0)) for n in (150, 300)]
    assert np.log2(errors[0] / errors[1]) / 2 == pytest.approx(sampler.order, abs=0.25)


def test_churn_of_a_given_total_has_order_two_and_without_excess_noise_no_bias():
    sampler = co.HeunChurn(s_churn=5.0, s_tmin=0.0, s_tmax=1e4, s_noise=1.0)
    errors = []
    for steps in (200, 400):
        law = sampler.terminal_law(np.geomspace(TOP, STOP, steps + 1), LAM)
        errors.append(np.abs(law.std / np.sqrt(LAM + STOP**2) - 1))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 2.0, atol=0.1)
    np.testing.assert_allclose(
        co.HeunChurn(0.0).terminal_law([3.0, 1.0, 0.5], LAM).std, co.Heun().terminal_law([3.0, 1.0, 0.5], LAM).std
    )


def test_errors_of_deis_of_three_slopes_sum_to_nothing_over_a_whole_band():
    sigma = np.geomspace(1e-4, 1e4, 20_001)
    density = co.DEIS(3).local_error([1.0], sigma, 1e-4)[0] * sigma**4
    assert abs(density.mean()) < 1e-6 * np.abs(density).mean()


def test_signed_is_whether_the_local_error_changes_sign():
    sigma = np.geomspace(1e-3, 1e3, 2000)
    for sampler in SAMPLERS:
        local = sampler.local_error([1.0], sigma, 1e-3)[0]
        assert sampler.signed == (
            local.min() < -1e-12 * np.abs(local).max() and local.max() > 1e-12 * np.abs(local).max()
        )


def test_local_error_of_three_m_is_that_of_half_a_second_difference():
    """-h^3 D'' / 12: docs/theory.md section 3.1."""
    w = LAM / (LAM + 1.0)
    found = co.DPMpp3M(**FREE).local_error(LAM, [1.0], 0.01)[:, 0]
    np.testing.assert_allclose(found, w * (1 - w) * (1 - 3 * w) / 12, rtol=1e-12)


@pytest.mark.parametrize(
    ("sampler", "path", "order"),
    [
        (co.IPNDM(3, "epsilon"), np.linspace, 3),
        (co.IPNDM(4, "epsilon"), np.linspace, 4),
        (co.IPNDM(3, "x0"), lambda a, b, n: 1 / np.linspace(1 / a, 1 / b, n), 3),
        (co.IPNDM(4, "x0"), lambda a, b, n: 1 / np.linspace(1 / a, 1 / b, n), 4),
        (co.IPNDM(4, "epsilon"), np.geomspace, 2),
        (co.IPNDM(4, "x0"), np.geomspace, 2),
        (co.DEIS(3, lower_order_final=False), np.linspace, 3),
    ],
    ids=lambda value: value.__name__ if callable(value) else repr(value),
)
def test_equal_weights_have_their_full_order_on_equal_steps_alone(sampler, path, order):
    """One step from exact states and outputs at the nodes before: its error is of one order more."""
    lam, errors = 0.7, []

    def exact(sigma):
        return torch.full((1, 1), np.sqrt(lam + sigma**2), dtype=torch.float64)

    for half in (4, 8):
        nodes = path(1.0, 0.8, 4 * half + 1)[-5:]
        before = [(s, exact(s), lam / (lam + s**2) * exact(s)) for s in nodes[:3]]
        out = run(lambda x, s: x * lam / (lam + s[:, None] ** 2), sampler, nodes[3:], exact(nodes[3]), before=before)
        errors.append(abs(float(out - exact(nodes[4]))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.35)
