"""The truth of Gaussian laws by other means: scalar loops, nothing shared with the package."""

import math

import numpy as np


def scalar_output(kind, sigmas, lam, weights=None, start=None):
    """(std, multiplier of the mean) of one direction after an ODE sampler, step by step.

    weights[k] is the linear denoiser at node k; the optimal one unless given.
    """
    w = [lam / (lam + s * s) if lam + s * s > 0 else 0.0 for s in sigmas] if weights is None else list(weights)
    x, previous, h_previous = 1.0, None, None
    for k in range(len(sigmas) - 1):
        s, t = sigmas[k], sigmas[k + 1]
        d = w[k] * x
        if t == 0.0:
            following = d
        elif kind == "euler":
            following = x + (t - s) * (x - d) / s
        elif kind == "heun":
            slope = (x - d) / s
            guess = x + (t - s) * slope
            following = x + (t - s) * 0.5 * (slope + (guess - w[k + 1] * guess) / t)
        elif kind == "dpmpp_2m":
            h = math.log(s / t)
            used = d
            if previous is not None:
                ratio = h_previous / h
                used = (1 + 1 / (2 * ratio)) * d - previous / (2 * ratio)
            following = t / s * x - math.expm1(-h) * used
            h_previous = h
        else:
            raise AssertionError(kind)
        previous, x = d, following
    spread = sigmas[0] if start is None else start
    return abs(x) * spread, x


def wasserstein2(kind, sigmas, eigenvalues, counts, mean_power=None):
    """Sum over directions of (std - sqrt(lambda))^2 and of the squared error of the mean, from N(0, sigma_max^2)."""
    total = 0.0
    for i, (lam, n) in enumerate(zip(eigenvalues, counts, strict=True)):
        std, multiplier = scalar_output(kind, list(map(float, sigmas)), float(lam))
        total += n * (std - math.sqrt(lam)) ** 2
        total += 0.0 if mean_power is None else multiplier**2 * mean_power[i]
    return total


def responses(kind, sigmas, lam, step=1e-6):
    """d std / d W_k by central differences."""
    base = [lam / (lam + s * s) if lam + s * s > 0 else 0.0 for s in sigmas]
    found = np.zeros(len(sigmas))
    for k in range(len(sigmas)):
        up, down = list(base), list(base)
        up[k] += step
        down[k] -= step
        start = math.sqrt(sigmas[0] ** 2)
        high, low = (scalar_output(kind, sigmas, lam, w, start)[0] for w in (up, down))
        found[k] = (high - low) / (2 * step)
    return found


def gaussian_risk(lam):
    return lambda sigma: lam * sigma**2 / (lam + sigma**2)
