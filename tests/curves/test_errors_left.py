"""Errors left, smoothed over noise levels: against draws from the model that is assumed."""

import numpy as np
import pytest

from codesign_opt.curves.errors_left import smooth_errors_left, usual_shape


def test_stated_spread_covers_what_was_drawn():
    rng = np.random.default_rng(0)
    sigma = np.geomspace(0.01, 10.0, 14)
    shape, roots = usual_shape(sigma, 0.5), 0.7 * np.sqrt(np.diff(np.log(sigma)))
    scores = []
    for _ in range(60):
        logs = np.concatenate([[0.0], np.cumsum(roots * rng.standard_normal(13))])
        truth = shape * np.exp(logs)
        error = truth * np.exp(rng.uniform(np.log(0.03), np.log(3.0), 14))
        value = truth + error * rng.standard_normal(14)
        found, spread = smooth_errors_left(sigma, value, error, 0.5)
        scores.append((np.log(found) - np.log(truth)) / spread)
    scores = np.concatenate(scores)
    # 60 walks of 14 correlated scores: about 300 independent ones, the standard error of their spread is 0.04
    assert scores.std() == pytest.approx(1.0, abs=0.15)
    assert abs(scores.mean()) < 0.15


def test_levels_without_a_word_follow_their_neighbours_and_not_a_straight_line():
    # the log's kappa1 / m rose a hundredfold above the last level with losses enough
    sigma = np.geomspace(0.05, 20.0, 10)
    value = 0.1 * usual_shape(sigma, 0.5)
    error = np.where(sigma < 3, 0.01 * value, 50.0)
    found, _ = smooth_errors_left(sigma, value, error, 0.5)
    assert found[-1] == pytest.approx(0.1, rel=0.05)


def test_losses_that_fell_nowhere_are_refused():
    with pytest.raises(ValueError, match="the loss fell nowhere"):
        smooth_errors_left(np.array([0.1, 1.0]), np.array([-0.1, -0.2]), np.array([0.1, 0.1]), 0.5)
