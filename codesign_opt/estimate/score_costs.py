"""Costs of score-optimal schedules, measured on any denoiser: differences of scores at the same points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..basics.checks import choice, integer, number, vector
from ..models.evidence import VELOCITIES, ScoreCost
from .denoisers.denoiser import Denoiser, DenoiserError
from .draws.statistics import Estimate, Moments
from .draws.streams import batches, normal, processes, rademacher

__all__ = ["score_cost", "step_costs"]

_TOLERANCE = 1e-3  # relative residual of the linear solves


def score_cost(
    denoiser: Any,
    data: Any,
    sigma: Any,
    *,
    step: float = 0.02,
    examples: int | None = None,
    batch: int = 256,
    seed: int = 0,
) -> ScoreCost:
    """delta(sigma) = sigma^2 E |d score / d sigma|^2, what `peers.ScoreOptimal` reads, with its standard error.

    docs/theory.md section 11.2 (2412.07877). Score (D - x) / sigma^2, differentiated at a fixed point by central
    differences in log sigma: two evaluations per example and level, one pass over the data. In float32 rounding adds up
    to 1e-7 |x| / (2 step sigma^2) to sqrt(delta), more than there is where sigma is far below the data's scale. In the
    length of a schedule it sums to 1e-7 |x| / (2 step sigma_min), which is little; use float64 for delta itself.

    Args:
        denoiser: D(x, sigma) -> x0, see `Denoiser`.
        data: clean examples (N, *shape), or batches of them, see `streams.batches`.
        sigma: (L,) ascending noise levels, data units; score-optimal schedules need both ends of their range.
        step: half the difference in log sigma; the relative bias is of the order of its square.
        examples: how many to use; all unless given.
        batch: examples per call where the data are not in batches.
        seed: of the noise.

    Raises:
        ValueError: a malformed argument, or fewer than two examples.
        DenoiserError: see `Denoiser`.

    >>> linear = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> data = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> found = score_cost(linear, data, [0.5, 1.0])
    >>> bool(np.all(np.abs(found.delta - [4 / 16 / 1.25**3, 4 / 8]) < 3 * found.standard_error))
    True
    """
    levels = vector(sigma, "sigma", minimum_length=2, positive=True, ascending=True)
    half = number(step, "step", positive=True, maximum=0.5)
    asked = Denoiser.of(denoiser)
    moments = [Moments(()) for _ in levels]
    width = 2 * np.sinh(half)  # of the difference over sigma
    with torch.no_grad():
        for index, clean in _mine(data, batch, examples):
            for level, at in enumerate(levels):
                x = clean + at * normal(seed, "score cost", level, index, shape=tuple(clean.shape), like=clean)
                change = _score(asked, x, at * np.exp(half)) - _score(asked, x, at * np.exp(-half))
                moments[level].add(_squares(change) / width**2)
    found = _collected(moments)
    return ScoreCost(levels, found.value, found.standard_error)


def step_costs(
    denoiser: Any,
    data: Any,
    sigmas: Any,
    *,
    kind: str = "corrector",
    velocity: str = "receiving",
    probes: int = 2,
    iterations: int = 50,
    examples: int | None = None,
    batch: int = 256,
    seed: int = 0,
) -> Estimate:
    """Cost of the corrector from each level to the next, with its standard error (2412.07877).

    "corrector": v^2 E |score_{sigma'}(x) - score_sigma(x)|^2 at the same x of the law at sigma; two evaluations.
    "predictor": v^2 E |score_{sigma'}(x') - s_F(x')|^2 after an Euler step x' = F(x) of the probability-flow ODE, with
    s_F = J^-T (score_sigma(x) - grad log|det J|) the score of the predicted law, J = dF/dx. The gradient of the log
    determinant is Hutchinson's, grad of w^T J z with J^T w = z, and the square is the mean of the products of different
    probes: unbiased, and sometimes negative where it is small. The paper's own estimator could not be read.

    Args:
        denoiser, data, examples, batch, seed: as for `score_cost`; "predictor" differentiates the denoiser twice.
        sigmas: (N,) descending noise levels > 0, data units.
        kind: "corrector" or "predictor".
        velocity: v = sigma' ("receiving", as the paper) or v = sigma ("source", safe to iterate on).
        probes: random signs per example, at least 2.
        iterations: of the linear solves with J, at most; each costs two products.

    Returns:
        (N-1,) costs, no unit.

    Raises:
        ValueError: a malformed argument, or linear solves that do not converge.
        DenoiserError: see `Denoiser`; also a denoiser that carries no gradient.

    >>> linear = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> data = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> found = step_costs(linear, data, [1.0, 0.5], velocity="source")
    >>> bool(abs(found.value[0] - 0.18) < 3 * found.standard_error[0])
    True
    """
    levels = vector(sigmas, "sigmas", minimum_length=2, positive=True, descending=True)
    choice(kind, "kind", ("corrector", "predictor"))
    choice(velocity, "velocity", VELOCITIES)
    asked = Denoiser.of(denoiser)
    work = _Predicted(asked, integer(probes, "probes", minimum=2), integer(iterations, "iterations", minimum=1), seed)
    moments = [Moments(()) for _ in levels[1:]]
    for index, clean in _mine(data, batch, examples):
        for number_, (before, after) in enumerate(pairwise(levels)):
            x = clean + before * normal(seed, "step cost", number_, index, shape=tuple(clean.shape), like=clean)
            if kind == "corrector":
                with torch.no_grad():
                    squared = _squares(_score(asked, x, after) - _score(asked, x, before))
            else:
                squared = work.squared(x, float(before), float(after), (number_, index))
            v = before if velocity == "source" else after
            moments[number_].add(squared * v**2)
    return _collected(moments)


def _mine(data: Any, batch: int, examples: int | None) -> Iterator[tuple[int, torch.Tensor]]:
    """This process's numbered batches, up to `examples` of all."""
    left = None if examples is None else integer(examples, "examples", minimum=2)
    rank, world = processes()
    for index, part in enumerate(batches(data, integer(batch, "batch", minimum=1))):
        used = part if left is None else part[:left]
        if index % world == rank:
            yield index, used
        if left is not None:
            left -= used.shape[0]
            if left <= 0:
                return


def _collected(moments: list[Moments]) -> Estimate:
    parts = [m.reduced().estimate() for m in moments]
    if parts[0].count < 2:
        raise ValueError(f"data: {parts[0].count} example; at least 2 are needed for a standard error.")
    value, error = (np.array([float(getattr(p, name)) for p in parts]) for name in ("value", "standard_error"))
    return Estimate(value, error, parts[0].count)


def _score(denoiser: Denoiser, x: torch.Tensor, sigma: float) -> torch.Tensor:
    return (denoiser(x, float(sigma)) - x) / float(sigma) ** 2


def _squares(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float64).flatten(1).square().sum(dim=1)


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Squared difference of the score at a predicted point from the score of the predicted law."""

    denoiser: Denoiser
    probes: int
    iterations: int
    seed: int

    def squared(self, x: torch.Tensor, before: float, after: float, names: tuple[int, int]) -> torch.Tensor:
        """(n,) unbiased estimates; E over the probes is the square of the exact difference."""
        start = x.detach().requires_grad_()
        with torch.enable_grad():
            denoised = self.denoiser(start, before)
            landed = (after / before) * start + (1 - after / before) * denoised
        if not denoised.requires_grad:
            raise DenoiserError(f"denoiser {self.denoiser.name!r} carries no gradient by x (no_grad inside?).")
        score = ((denoised - start) / before**2).detach()
        jacobian = _Jacobian(start, landed)
        with torch.no_grad():
            wanted = _score(self.denoiser, landed.detach(), after)
        parts = []
        for probe in range(self.probes):
            z = rademacher(self.seed, "step probe", *names, probe, shape=tuple(x.shape), like=x)
            turned = self._solved(jacobian, z, before)
            law = self._solved(jacobian, score - jacobian.bent(turned, z), before)
            parts.append((wanted - law).to(torch.float64).flatten(1))
        stacked = torch.stack(parts)
        total = stacked.sum(dim=0).square().sum(dim=1) - stacked.square().sum(dim=(0, 2))
        return total / (self.probes * (self.probes - 1))

    def _solved(self, jacobian: _Jacobian, right: torch.Tensor, sigma: float) -> torch.Tensor:
        """y of J^T y = right by conjugate gradients on the normal equations, example by example."""
        y = torch.zeros_like(right)
        rest = right.clone()
        normal_rest = jacobian.times(rest)
        direction = normal_rest.clone()
        size = _dot(normal_rest, normal_rest)
        goal = _TOLERANCE**2 * _dot(right, right)
        for _ in range(self.iterations):
            if bool((_dot(rest, rest) <= goal).all()):
                return y
            along = jacobian.transposed(direction)
            length = size / _dot(along, along).clamp_min(torch.finfo(y.dtype).tiny)
            y, rest = y + _each(length, y) * direction, rest - _each(length, y) * along
            normal_rest = jacobian.times(rest)
            following = _dot(normal_rest, normal_rest)
            direction = normal_rest + _each(following / size.clamp_min(torch.finfo(y.dtype).tiny), y) * direction
            size = following
        if bool((_dot(rest, rest) <= goal).all()):
            return y
        left = float((_dot(rest, rest) / goal.clamp_min(torch.finfo(y.dtype).tiny)).max()) ** 0.5 * _TOLERANCE
        raise ValueError(
            f"step_costs: the solve with the predictor's Jacobian at sigma = {sigma:g} is at a relative residual of "
            f"{left:.1g} after {self.iterations} iterations; raise iterations, or take shorter steps."
        )


@dataclass(frozen=True, eq=False)
class _Jacobian:
    """J = d landed / d start, as products."""

    start: torch.Tensor
    landed: torch.Tensor

    def transposed(self, w: torch.Tensor) -> torch.Tensor:
        """J^T w."""
        return torch.autograd.grad(self.landed, self.start, w, retain_graph=True)[0]

    def times(self, z: torch.Tensor) -> torch.Tensor:
        """J z, as the derivative of (J^T u)^T z by u."""
        u = torch.zeros_like(self.landed, requires_grad=True)
        pulled = torch.autograd.grad(self.landed, self.start, u, create_graph=True)[0]
        return torch.autograd.grad(pulled, u, z)[0]

    def bent(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Gradient of w^T J z by x at fixed w and z; 0 for an affine denoiser."""
        pulled = torch.autograd.grad(self.landed, self.start, w, create_graph=True)[0]
        if not pulled.requires_grad:
            return torch.zeros_like(z)
        found = torch.autograd.grad((pulled * z).sum(), self.start, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(z) if found is None else found


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).flatten(1).sum(dim=1)


def _each(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
