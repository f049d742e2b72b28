"""Samplers that know the adjoint of their own steps: their sensitivity to the denoiser in O(K B)."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .affine_steps import Inputs, Numbers, StepGradient, with_last
from .base import Sampler

__all__ = ["Adjoint", "pad_after", "pad_before", "ratios"]


class Adjoint(Sampler):
    """Samplers whose sensitivity is their own recursion gone back, in real and complex numbers, O(K B)."""

    @abstractmethod
    def _by_weight(self, sigma: Numbers, weights: Numbers, by_steps: StepGradient) -> Numbers:
        """Pull a gradient by the steps (..., K, B) back to the weights (..., K+1, B)."""

    def _sensitivity(self, given: Inputs) -> Numbers:
        return self._pulled_back(given, self._closed_steps(given).gradient(given.initial_variance))

    def _pulled_back(self, given: Inputs, by_steps: StepGradient) -> Numbers:
        ends = given.to_zero[..., None]
        earlier = tuple(with_last(rows, ends, 0.0) for rows in by_steps.by_earlier) if by_steps.by_earlier else ()
        between = StepGradient(with_last(by_steps.by_current, ends, 0.0), earlier, by_steps.by_noise)
        result = self._by_weight(given.positive, given.weights, between)
        # the last step to zero is D(sigma_{K-1})
        result[..., -2, :] += np.where(ends, by_steps.by_current[..., -1, :], 0.0)
        return result


def ratios(sigma: Numbers) -> Numbers:
    """(..., K, 1) share of the noise level that every step keeps."""
    return sigma[..., 1:, :] / sigma[..., :-1, :]


def pad_after(steps: Numbers) -> Numbers:
    """(..., K, B) to (..., K+1, B): node k opens step k."""
    return np.concatenate([steps, _nothing(steps)], axis=-2)


def pad_before(steps: Numbers) -> Numbers:
    """(..., K, B) to (..., K+1, B): node k+1 closes step k."""
    return np.concatenate([_nothing(steps), steps], axis=-2)


def _nothing(steps: Numbers) -> Numbers:
    return np.zeros((*steps.shape[:-2], 1, steps.shape[-1]), steps.dtype)
