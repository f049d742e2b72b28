"""Errors of a network's slopes: against linear denoisers whose errors are known, docs/theory.md section 5.7."""

import numpy as np
import pytest

import codesign_opt as co

torch = pytest.importorskip("torch")

RUN = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=100, batch=100)
LAM = np.array([2.0, 0.5, 0.1])


def data(count=4000, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, 3)) * np.sqrt(LAM))


def test_slope_errors_are_those_of_a_perturbed_linear_denoiser():
    off = np.array([0.1, -0.05, 0.2])
    denoiser = co.testbed.LinearDenoiser(LAM, perturbation=np.diag(off))
    found = co.estimate.slope_errors(denoiser, data(), RUN, sigma=[0.1, 0.4, 1.0])
    truth = [float(off**2 @ (LAM + s**2)) for s in found.sigma]
    assert np.all(np.abs(found.error.value - truth) < 4 * found.error.standard_error)
    law = found.law()
    within = RUN.examples * RUN.density.per_log_sigma(law.sigma) * 2.7
    np.testing.assert_allclose(law.reducible / found.error.value, within, rtol=1e-3)


def test_a_perfect_denoiser_of_any_data_has_none():
    # nonlinear: the exact denoiser of a mixture, whose slopes are lambda / v all the same
    mixture = co.testbed.grid8()
    found = co.estimate.slope_errors(
        mixture, mixture.sample(20_000), RUN, sigma=[0.1, 0.3, 1.0], images=20_000, repeats=1
    )
    assert np.all(np.abs(found.error.value) < 4 * found.error.standard_error + 1e-6)


def test_errors_that_move_no_variance_are_not_counted():
    # along another direction than the input: a rotation
    turn = np.zeros((3, 3))
    turn[0, 1], turn[1, 0] = 0.3, -0.3
    found = co.estimate.slope_errors(
        co.testbed.LinearDenoiser(LAM, perturbation=turn), data(8000, 1), RUN, sigma=[0.3], images=8000
    )
    assert abs(found.error.value[0]) < 0.02 * 0.09 * LAM.sum()


def test_levels_at_which_the_run_hardly_trained_are_left_out_and_said():
    found = co.estimate.slope_errors(co.testbed.LinearDenoiser(LAM), data(), RUN, sigma=[1e-4, 0.3, 60.0])
    assert found.sigma.tolist() == [0.3]
    assert "left out" in found.law().notes[0]
    with pytest.raises(ValueError, match="trained at none of the levels"):
        co.estimate.slope_errors(co.testbed.LinearDenoiser(LAM), data(), RUN, sigma=[60.0])


def test_predicted_distance_of_perturbed_slopes_is_what_samples_have():
    # end to end: the law of slope errors, contracted by the Gaussian model, against the variance of samples. One error
    # over a bump in log sigma: (int bump)^2 is 2.7 int bump^2 for one of width 0.76
    spectrum, size = co.Spectrum.from_eigenvalues([1.0]), torch.ones(1, dtype=torch.float64)

    def denoiser(x, sigma):
        bump = torch.exp(-0.5 * ((sigma[:, None] / 0.4).log() / 0.76) ** 2)
        return x * (1 / (1 + sigma[:, None] ** 2) + 0.05 * bump)

    images, levels = data(40_000)[:, :1] / LAM[0] ** 0.5, np.geomspace(0.02, 8.0, 25)
    errors = co.estimate.slope_errors(denoiser, images, RUN, sigma=levels, images=40_000, repeats=2)
    law = co.Measured.of(errors, spectrum, prior=None)
    grid = co.edm_grid(60, 0.02, 8.0)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn((4000, 1), generator=generator, dtype=torch.float64) * (size + 64.0).sqrt()
    made, exact = (
        co.estimate.run(co.estimate.Denoiser.of(one), co.Heun(), grid, start)
        for one in (denoiser, co.testbed.LinearDenoiser([1.0]))
    )
    realised = float(((made.std(0) - exact.std(0)) ** 2).sum())  # linear: the same starts leave no sampling noise
    model = co.GaussianModel(spectrum, process=co.EDM(0.02, 8.0), training=law, start="marginal")
    table = model.coefficients(float(grid[-2]))
    m = RUN.examples_on(table.levels)
    point = co.Point(m, np.zeros(m.size), 10.0 * table.levels.log_width)
    predicted = float(co.ScoreError(table).value(None, point))
    assert predicted == pytest.approx(realised, rel=0.15)
