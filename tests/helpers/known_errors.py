"""A denoiser whose error is known, and how often intervals cover the truth."""

import numpy as np
import torch

F64 = torch.zeros((), dtype=torch.float64)


def covered(values, errors, truth):
    return float(np.mean(np.abs(np.asarray(values) - truth) <= 1.96 * np.asarray(errors)))


LAM = torch.tensor([2.0, 0.5, 0.05], dtype=torch.float64)


def wiener(x, sigma, gain=0.0):
    return x * LAM / (LAM + sigma[:, None] ** 2) * (1 + gain)


def flawed(x, sigma):
    """Relative error of the gain that changes sign at sigma = 1, different in the three directions."""
    wave = torch.tanh(torch.log(sigma))[:, None] * torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    return wiener(x, sigma, 0.05 * wave)
