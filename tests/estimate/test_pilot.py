"""A pilot measured for where to train next: against denoisers whose errors and correlations are known."""

import math
import os

import numpy as np
import pytest

import codesign_opt as co

torch = pytest.importorskip("torch")

from codesign_opt.estimate.denoisers.denoiser import Denoiser  # noqa: E402
from codesign_opt.estimate.training_errors.pilot import distance_of  # noqa: E402

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
DENSITY = co.LogNormal(-1.2, 1.2)
RUN = co.TrainingRun(DENSITY, iterations=1000, batch=128)
QUICK = co.estimate.PilotSampling(levels=24, images=1024, draws=8, steps=8)
MIXTURE = co.testbed.grid8()


def wrong_by(width, size=0.05, seed=0, *, waves=6.0):
    """The exact denoiser with an error whose squared correlation over log sigma is a Gaussian of this width.

    Of the usual shape, sigma^2 / (sigma^2 + 1) in square; of so many waves over the plane, 0: the same at all points.
    """
    rng = np.random.default_rng(seed)
    centres = torch.from_numpy(np.arange(-9.0, 8.0, 0.25 * width))
    field = torch.from_numpy(rng.standard_normal((len(centres), 2)))
    turn = torch.from_numpy(waves * rng.standard_normal((len(centres), 2)))
    phase = torch.from_numpy(rng.uniform(0, 6.28, len(centres)))

    def denoiser(x, sigma):
        level = sigma[:, None].double()
        shape = torch.sin(x.double() / (1 + level) @ turn.T + phase) if waves else 1.0
        bumps = torch.exp(-0.5 * ((level.log() - centres) / width) ** 2)  # correlation exp(-d^2 / 4 w^2)
        scale = size * math.sqrt(2 * 0.25 / math.sqrt(math.pi)) * level / (1 + level**2).sqrt()
        return MIXTURE(x, sigma) + (scale * (bumps * shape) @ field).to(x)

    return denoiser


def pilot(width=0.6, run=RUN, waves=6.0, **options):
    history = co.estimate.TrainingHistory(run, other=wrong_by(width, waves=waves), growth=2.0)
    given = {"weights": "raw", "sampling": QUICK} | options
    return co.estimate.pilot(MIXTURE, MIXTURE.sample(1024), history, **given)


@pytest.mark.slow
def test_width_and_errors_left_are_those_that_were_put_in():
    assert pilot(0.6, waves=2.0).width == pytest.approx(0.6, rel=0.3)
    found = pilot(0.6)
    assert found.measured_width == found.width
    # levels with a hundredth of the examples within a correlation length, and no others
    share = 2.7 * DENSITY.per_log_sigma(found.sigma)
    assert share.min() >= 0.01
    assert found.sigma[0] < 0.02
    assert found.sigma[-1] > 5.0
    x = MIXTURE.sample(4000, seed=1)
    sigma = torch.full((4000,), float(found.sigma[8]))
    noisy = x + sigma[:, None] * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    apart = (wrong_by(0.6)(noisy, sigma) - MIXTURE(noisy, sigma)).square().sum(1).mean()
    assert found.left[8] == pytest.approx(float(apart), rel=0.5)


def test_a_width_that_no_pilot_can_show_is_cut_off_and_said():
    found = pilot(20.0, waves=0.0)
    assert found.measured_width > 1.83
    assert found.width == pytest.approx(1.2 * math.sqrt(1 / 0.3 - 1))
    assert "wider than a pilot" in found.notes[0]
    if FULL:
        wider = co.TrainingRun(co.LogNormal(-1.2, 2.4), iterations=1000, batch=128)
        assert pilot(20.0, run=wider, waves=0.0).width > found.width


@pytest.mark.slow
def test_a_density_follows_from_it():
    found = co.pilot_density(pilot(0.8))
    assert found.gain <= 1
    assert found.P_std >= 0.6


def test_averages_that_share_iterates_are_refused_and_so_are_pairs_that_are_none():
    with pytest.raises(ValueError, match="remembers 2,000 iterations, and the checkpoints are only 500 apart"):
        pilot(weights="ema", ema=0.9995)
    with pytest.raises(ValueError, match="leave it out for raw"):
        pilot(ema=0.99)
    with pytest.raises(ValueError, match="pilot: weights"):
        pilot(weights="averaged")
    near = co.estimate.TrainingHistory(RUN, other=wrong_by(0.6), growth=1.1)
    with pytest.raises(ValueError, match=r"growth is 1\.1"):
        co.estimate.pilot(MIXTURE, MIXTURE.sample(256), near, weights="raw")
    alone = co.estimate.TrainingHistory(RUN, other=wrong_by(0.6))
    with pytest.raises(ValueError, match="needs the growth"):
        co.estimate.pilot(MIXTURE, MIXTURE.sample(256), alone, weights="raw")
    with pytest.raises(ValueError, match="needs the run with its density"):
        co.estimate.pilot(MIXTURE, MIXTURE.sample(256), None, weights="raw")
    with pytest.raises(ValueError, match="neither a log nor an earlier checkpoint"):
        co.estimate.pilot(MIXTURE, MIXTURE.sample(256), RUN, weights="raw", sampling=QUICK)


def test_sizes_of_independent_errors_differ_as_their_degrees_of_freedom_say():
    # errors a x with Gaussian coefficients a in so many directions: 2 d^2 / k by simulation, k by the ratio
    rng, images = np.random.default_rng(0), torch.eye(8, dtype=torch.float64)
    for rank in (1, 4, 8):
        draws = rng.standard_normal((4000, 2, rank)) ** 2
        differ = (draws[:, 0].sum(1) - draws[:, 1].sum(1)).std()
        distance = (draws[:, 0].sum(1) + draws[:, 1].sum(1)).mean()  # of independent errors: the sum of their squares
        spread = torch.diag(torch.tensor([1.0] * rank + [0.0] * (8 - rank), dtype=torch.float64))
        # at the unit vectors without noise the differences have the covariance `spread`
        found, freedom = distance_of(
            Denoiser.of(lambda x, sigma: x),
            Denoiser.of(lambda x, sigma, s=spread: x + x @ s),
            images,
            np.array([1e-9]),
            0,
        )
        assert found[0] == pytest.approx(rank / 8)
        assert freedom[0] == pytest.approx(rank)
        assert differ == pytest.approx(distance / np.sqrt(freedom[0]), rel=0.1)


def logged(path, ema=0.0, examples=128_000):
    """A log whose losses fall as floor + kappa1 / m at every level, with the noise of single examples."""
    stats = co.LevelStatistics(np.geomspace(0.002, 80.0, 25), batch=128, ema=ema)
    rng = np.random.default_rng(0)
    for step in range(examples // 1280):
        sigma = np.exp(-1.2 + 1.2 * rng.standard_normal(1280))
        m = (step + 1) * 1280 * 2.7 * DENSITY.per_log_sigma(sigma)
        mean = (1 + 3000 / m) * sigma**2 / (sigma**2 + 1)
        stats.record(sigma, mean * rng.gamma(8.0, 1 / 8.0, 1280))
    stats.save(path)
    return co.TrainingRun(DENSITY, examples // 128, 128, log=path)


def test_a_log_alone_says_what_was_left_and_is_refused_where_its_losses_are_averaged(tmp_path):
    run = logged(tmp_path / "log.csv")
    found = co.estimate.pilot(MIXTURE, MIXTURE.sample(1024), run, weights="raw", sampling=QUICK)
    middle = np.abs(np.log(found.sigma) + 1.2) < 1.2
    truth = 3000 / (run.examples * 2.7 * DENSITY.per_log_sigma(found.sigma)) * found.sigma**2 / (found.sigma**2 + 1)
    assert np.all(np.abs(found.left - truth)[middle] < 4 * found.left_error[middle])
    assert np.median(found.left[middle] / truth[middle]) == pytest.approx(1.0, abs=0.4)
    assert found.measured_width is None
    averaged = logged(tmp_path / "ema.csv", ema=0.999)
    with pytest.raises(ValueError, match="losses of a moving average"):
        co.estimate.pilot(MIXTURE, MIXTURE.sample(256), averaged, weights="ema", sampling=QUICK)
