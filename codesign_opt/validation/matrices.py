"""Full matrices: denoisers whose d x d weights were all learned, and the exact law of what they sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ..basics.checks import Array
from ..models.gaussian import GaussianModel
from ..samplers.network_step import Place, Remembered, SigmaStep
from .learners import Nodes, Taught

__all__ = ["covariance_distance", "full_distance", "trained_matrices"]


class _Plain(np.ndarray[Any, Any]):
    """An array with those methods of a tensor that steps of samplers use."""

    def to(self, *where: Any) -> Self:
        """Itself."""
        return self

    def detach(self) -> Self:
        """Itself."""
        return self

    def log(self) -> Any:
        """Elementwise."""
        return np.log(self)

    def sqrt(self) -> Any:
        """Elementwise."""
        return np.sqrt(self)

    def clamp(self, min: float | None = None, max: float | None = None) -> Any:
        """Elementwise."""
        return np.clip(self, min, max)


def _plain(values: Any) -> Any:
    return np.asarray(values, dtype=np.float64).view(_Plain)


class _Silence:
    """No noise: the mean map of a step."""

    def draw(self, high: Any, low: Any, like: Any) -> Any:
        return 0.0 * like


def trained_matrices(nodes: Nodes, who: Taught, rng: np.random.Generator) -> tuple[Array, Array]:
    """(P, d, d) errors of two trainings of opposite noise by least squares, blocks sharing their whitened examples.

    With whitened inputs Z (m, d), G = Z^T Z: dW = [sqrt(S) N^T Z + k dW_0 sqrt(V)] (G + k)^-1 V^-1/2, N^T Z of the law
    g G^1/2 with g normal.
    """
    d = nodes.eigenvalues.size
    v = nodes.eigenvalues + nodes.sigmas[:, None] ** 2
    noise, start = np.empty((2, nodes.sigmas.size, d, d))
    for block, examples in enumerate(who.examples):
        values, vectors = np.linalg.eigh(_wishart(int(examples), d, rng))
        values = np.maximum(values, 0.0)
        normal = rng.standard_normal((d, d))
        for k in np.flatnonzero(who.block == block):
            prior = nodes.prior[k]
            seen = values + prior
            left = np.sqrt(nodes.noise[k] * v[k])[:, None] * (normal * (np.sqrt(values) / seen)) @ vectors.T
            kept = (nodes.lacking[k] * np.sqrt(v[k]))[:, None] * ((vectors * (prior / seen)) @ vectors.T)
            noise[k], start[k] = left / np.sqrt(v[k]), kept / np.sqrt(v[k])
    return start + noise, start - noise


def _wishart(examples: int, d: int, rng: np.random.Generator) -> Array:
    """Z^T Z of (m, d) unit normals: by Bartlett's triangle where there are as many examples as directions."""
    if examples < d:
        z = rng.standard_normal((examples, d))
        return z.T @ z
    lower = np.tril(rng.standard_normal((d, d)), -1)
    lower[np.diag_indices(d)] = np.sqrt(rng.chisquare(examples - np.arange(d)))
    return lower @ lower.T


def full_distance(model: GaussianModel, sigmas: Array, nodes: Nodes, errors: Array) -> float:
    """Exact squared Wasserstein-2 distance of what these denoisers sample to the data, both about the mean.

    Raises:
        ValueError: the sampler asks its denoiser between nodes.
    """
    weights = errors + np.einsum("pd,de->pde", nodes.weights, np.eye(nodes.eigenvalues.size))

    def denoiser(x: Any, sigma: Any) -> Any:
        k = int(np.argmin(np.abs(np.log(nodes.sigmas / float(sigma)))))
        if abs(np.log(nodes.sigmas[k] / float(sigma))) > 1e-9:
            raise ValueError(f"validate: {model.sampler.name} asks between nodes; matrix='full' is not simulated.")
        return _plain(np.asarray(x) @ weights[k].T)

    covariance = np.eye(nodes.eigenvalues.size) * sigmas[0] ** 2
    if model.start == "marginal":
        covariance += np.diag(nodes.eigenvalues)
    return covariance_distance(_sampled(model, sigmas, denoiser, covariance), nodes.eigenvalues)


def _sampled(model: GaussianModel, sigmas: Array, denoiser: Callable[[Any, Any], Any], covariance: Array) -> Array:
    """(d, d) covariance of the output."""
    sampler, d = model.sampler, covariance.shape[0]
    states, steps = _plain(np.eye(d)), sigmas.size - 1
    memory: list[Remembered] = []
    positive = sigmas[sigmas > 0]
    added = sampler.affine_steps(positive[:, None], np.zeros((positive.size, 1))).noise if sampler.stochastic else None
    for k in range(positive.size - 1):
        levels = SigmaStep(_plain(sigmas[k]), _plain(sigmas[k + 1]), Place(steps, steps - 1 - k))
        asked: list[Any] = []

        def listened(x: Any, sigma: Any, asked: list[Any] = asked) -> Any:
            asked.append(denoiser(x, sigma))
            return asked[-1]

        before = states
        states = sampler.step(listened, states, levels, memory[-sampler.memory :] if sampler.memory else [], _Silence())
        if sampler.memory:
            memory.append(Remembered(levels, asked[0], before))
        if added is not None:
            moved = np.asarray(states)
            covariance = moved.T @ covariance @ moved + float(added[k, 0]) * np.eye(d)
            states = _plain(np.eye(d))
    if sigmas[-1] == 0:
        states = denoiser(states, positive[-1])
    moved = np.asarray(states)  # rows are images of the axes
    return np.asarray(moved.T @ covariance @ moved)


def covariance_distance(covariance: Array, eigenvalues: Array) -> float:
    """Bures distance squared of a covariance to diag(eigenvalues).

    >>> round(covariance_distance(np.diag([4.0, 1.0]), np.array([1.0, 1.0])), 12)
    1.0
    """
    root = np.sqrt(eigenvalues)
    between = np.linalg.eigvalsh(root[:, None] * covariance * root)
    return float(np.trace(covariance) + eigenvalues.sum() - 2 * np.sqrt(np.maximum(between, 0.0)).sum())
