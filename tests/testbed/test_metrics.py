"""Distances between samples, against closed forms of normal laws."""

import math

import numpy as np
import pytest
import torch

from codesign_opt.testbed.data.mixtures import Mixture, circle8
from codesign_opt.testbed.metrics import (
    energy_distance,
    frechet_distance,
    frechet_of_moments,
    negative_log_likelihood,
    sliced_wasserstein2,
)

RANDOM = np.random.default_rng(7)


def mean_distance(spread):
    """E |Z| of a centred normal variable with this standard deviation."""
    return spread * math.sqrt(2 / math.pi)


def shifted_distance(shift, spread):
    """E |shift + spread Z|."""
    ratio = shift / spread
    density = math.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
    return 2 * spread * density + shift * math.erf(ratio / math.sqrt(2))


@pytest.mark.cases(1)
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.5, 2.0)])
def test_energy_distance_of_normal_laws_on_the_line(shift, scale):
    one = RANDOM.normal(size=(20_000, 1))
    two = shift + scale * RANDOM.normal(size=(20_000, 1))
    truth = 2 * shifted_distance(shift, math.hypot(1, scale)) - mean_distance(math.sqrt(2)) * (1 + scale)
    found = energy_distance(one, two)
    assert abs(found.value - truth) < 3 * found.standard_error
    assert found.standard_error < 0.02
    assert found.count == 20


def test_standard_error_of_the_energy_distance_is_the_spread_over_repetitions():
    def once(size):
        return energy_distance(RANDOM.normal(size=(size, 2)), RANDOM.normal(1.0, size=(size, 2)), block=100)

    runs = [once(1000) for _ in range(60)]
    spread = np.std([run.value for run in runs], ddof=1)
    assert np.mean([run.standard_error for run in runs]) == pytest.approx(spread, rel=0.3)  # three sigma of 60 runs


def test_sliced_wasserstein_of_normal_laws():
    scales = np.array([2.0, 0.5, 1.0])
    one = RANDOM.normal(size=(30_000, 3))
    two = RANDOM.normal(size=(30_000, 3)) * scales + np.array([0.3, 0.0, -0.4])
    axes = RANDOM.normal(size=(200_000, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    # along u: standard deviations 1 and |scales u|, shift m.u
    values = (np.sqrt((axes**2) @ scales**2) - 1) ** 2 + (axes @ np.array([0.3, 0.0, -0.4])) ** 2
    found = sliced_wasserstein2(one, two, directions=150)
    wanted = 3 * values.mean()
    slack = 3 * 3 * values.std() / math.sqrt(150)  # of the random directions
    assert abs(found.value - wanted) < 3 * found.standard_error + slack
    assert found.standard_error < 0.05 * wanted


def test_sliced_wasserstein_of_a_turned_set_is_the_same_with_many_directions():
    one, two = RANDOM.normal(size=(2000, 2)), RANDOM.normal(size=(2000, 2)) * [3.0, 1.0]
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    plain, turned = (sliced_wasserstein2(a, b, directions=1000) for a, b in ((one, two), (one @ turn, two @ turn)))
    assert float(turned.value) == pytest.approx(float(plain.value), rel=0.03)


def test_frechet_distance_of_moments_is_the_wasserstein_distance_of_normal_laws():
    lam, other = np.array([1.0, 4.0]), np.array([9.0, 0.25])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    commuting = frechet_of_moments(
        np.zeros(2), turn @ np.diag(lam) @ turn.T, np.ones(2), turn @ np.diag(other) @ turn.T
    )
    assert commuting == pytest.approx(2 + np.sum((np.sqrt(lam) - np.sqrt(other)) ** 2))
    # not commuting: 2 x 2 matrices have tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))
    a, b = turn @ np.diag(lam) @ turn.T, np.diag(other)
    root = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    wanted = np.trace(a) + np.trace(b) - 2 * root
    assert frechet_of_moments(np.zeros(2), a, np.zeros(2), b) == pytest.approx(wanted)


def test_frechet_distance_of_samples_and_its_bootstrap_error():
    def once(seed):
        return frechet_distance(RANDOM.normal(size=(2000, 2)) * 1.5 + 0.5, other, bootstraps=30, seed=seed)

    other = RANDOM.normal(size=(200_000, 2))
    runs = [once(seed) for seed in range(40)]
    truth = 2 * 0.5**2 + 2 * 0.5**2
    values = np.array([float(run.value) for run in runs])
    assert abs(values.mean() - truth) < 3 * values.std(ddof=1) / math.sqrt(40) + 0.005  # bias of 2,000 samples
    assert np.mean([run.standard_error for run in runs]) == pytest.approx(values.std(ddof=1), rel=0.4)


def test_likelihood_under_the_mixture_is_its_entropy_on_its_own_samples():
    far = Mixture([[-50.0, 0.0], [50.0, 0.0]], [0.5, 2.0], [1.0, 3.0])
    w = np.array([0.25, 0.75])
    entropy = np.sum(w * (-np.log(w) + 1 + np.log(2 * np.pi * np.array([0.5, 2.0]) ** 2)))  # components do not touch
    found = negative_log_likelihood(far, far.sample(20_000, dtype=torch.float64))
    assert abs(found.value - entropy) < 3 * found.standard_error
    assert found.standard_error < 0.01


def test_worse_samples_are_farther_by_every_measure():
    world = circle8()
    data = world.sample(4000, dtype=torch.float64)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    near, far = (world.sample(4000, seed=1, dtype=torch.float64) + s * noise for s in (0.0, 0.8))
    for measure in (
        lambda x: negative_log_likelihood(world, x),
        lambda x: energy_distance(x, data),
        lambda x: sliced_wasserstein2(x, data),
        lambda x: frechet_distance(x, data, bootstraps=10),
    ):
        one, other = measure(near), measure(far)
        assert other.value - one.value > 3 * np.hypot(one.standard_error, other.standard_error)


@pytest.mark.parametrize("measure", [energy_distance, sliced_wasserstein2, frechet_distance])
def test_samples_of_other_dimensions_or_too_few_are_refused(measure):
    with pytest.raises(ValueError, match="samples have 2 dimensions, others 3"):
        measure(np.zeros((50, 2)), np.zeros((50, 3)))
    with pytest.raises(ValueError, match="finite"):
        measure(np.full((50, 2), np.nan), np.zeros((50, 2)))


def test_too_few_samples_for_blocks_are_refused():
    with pytest.raises(ValueError, match="give 1 blocks of 1000"):
        energy_distance(np.zeros((1500, 1)), np.zeros((1500, 1)))
    with pytest.raises(ValueError, match="too few for 8 blocks"):
        sliced_wasserstein2(np.zeros((10, 1)), np.zeros((10, 1)))
