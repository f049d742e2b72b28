"""A spectrum and noise levels for tests of training noise, moments of SGD, and agreement with simulations."""

from __future__ import annotations

import numpy as np

LAM, STOP = np.array([1.0, 0.5, 0.2]), 0.2


def within(samples, expected, errors=3.0, relative=0.0):
    """Mean over axis 0 agrees within `errors` standard errors (plus a stated relative bias)."""
    mean, se = samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(samples.shape[0])
    assert np.all(se < 0.06 * np.abs(expected)), "too few replicas to say anything"
    np.testing.assert_array_less(np.abs(mean - expected), errors * se + relative * np.abs(expected))


def moment_operator(v, rate, batch):
    """One SGD step on the second moment of a row, (d^2, d^2): Gaussian fourth moments written out."""
    h, eye = np.diag(v), np.eye(v.size)
    twice = np.kron(h, h)
    fourth = 2 * twice + np.outer(h.ravel(), h.ravel())
    return np.eye(v.size**2) - rate * (np.kron(h, eye) + np.kron(eye, h)) + rate**2 * (twice + (fourth - twice) / batch)


SIGMA = np.array([0.3, 1.1, 4.0])
COUNTS = np.array([2.0, 3.0, 1.0])
