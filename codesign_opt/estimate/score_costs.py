"""Costs of score-optimal schedules, measured on any denoiser: differences of scores at the same points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..basics.checks import AT_ONCE, choice, integer, number, takes, vector
from ..models.evidence import VELOCITIES, ScoreCost
from .denoisers.denoiser import Denoise, Denoiser, DenoiserError
from .draws.statistics import Estimate, Moments
from .draws.streams import Stream, batches, normal, processes, rademacher

__all__ = ["Corrector", "Predictor", "StepCost", "score_cost", "score_slope", "step_costs"]

_TOLERANCE = 1e-3  # relative residual of the linear solves
_BATCH = 256  # examples in one call of the denoiser where the stream says nothing


@takes(stream=Stream)
def score_cost(
    denoiser: Denoise,
    data: Any,
    sigma: ArrayLike,
    *,
    step: float = 0.02,
    stream: Stream | None = None,
    seed: int = 0,
) -> ScoreCost:
    """delta(sigma) = sigma^2 E |d score / d sigma|^2, what `peers.ScoreOptimal` reads, with its standard error.

    docs/theory.md section 11.2 (2412.07877). Score (D - x) / sigma^2, differentiated at a fixed point by central
    differences in log sigma: two evaluations per example and level, one pass over the data; three, to one side, at an
    end of the levels that the network was trained on (`Denoiser.sigma_range`). In float32 rounding adds up
    to 1e-7 |x| / (2 step sigma^2) to sqrt(delta), more than there is where sigma is far below the data's scale. In the
    length of a schedule it sums to 1e-7 |x| / (2 step sigma_min), which is little; use float64 for delta itself.

    Args:
        denoiser: D(x, sigma) -> x0, see `Denoiser`.
        data: clean examples (N, *shape), or batches of them, see `streams.batches`.
        sigma: (L,) ascending noise levels, data units; score-optimal schedules need both ends of their range.
        step: half the difference in log sigma; the relative bias is of the order of its square.
        stream: how many examples, on which device, and in which batches where the data are not in batches; all of
            them, 256 per call, unless given.
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
    with torch.no_grad():
        for index, clean in _mine(data, stream or Stream()):
            for level, at in enumerate(levels):
                x = clean + at * normal(seed, "score cost", level, index, shape=tuple(clean.shape), like=clean)
                moments[level].add(_squares(score_slope(asked, x, float(at), half, asked.sigma_range)))
    found = _collected(moments)
    return ScoreCost(levels, found.value, found.standard_error)


def score_slope(
    denoiser: Denoiser,
    x: torch.Tensor,
    sigma: float,
    half: float,
    ends: tuple[float, float] | None = None,
    clean: torch.Tensor | None = None,
) -> torch.Tensor:
    """sigma d score / d sigma at a fixed point, by differences of second order that stay within `ends`.

    Central over sigma e^(+-half); where that leaves the range, (4 s_1 - 3 s_0 - s_2) / (2 h) at sigma e^(k h) inwards,
    which has twice the error and, of rounding, three to four times.

    Args:
        half: half the width of the difference, in log sigma.
        ends: noise levels between which the denoiser is asked; None for all.
        clean: D(x, sigma), where it is known.

    >>> slope = score_slope(Denoiser(lambda x, sigma: 0 * x), torch.ones(1, 1), 2.0, 0.01, (0.1, 2.0))
    >>> round(float(slope), 3)  # of -1 / sigma^2: 2 / sigma^2
    0.5
    """
    low, high = (0.0, np.inf) if ends is None else ends
    up, down = sigma * np.exp(half), sigma * np.exp(-half)
    if low <= down and up <= high:
        return (_score(denoiser, x, up) - _score(denoiser, x, down)) / (2 * np.sinh(half))
    inwards = -1 if high / sigma < sigma / low else 1
    room = np.log(sigma / low) if inwards < 0 else np.log(high / sigma)
    step = min(half, float(room) / 2)  # not narrower where there is room: rounding grows as 1 / step
    near, far = (_score(denoiser, x, float(np.clip(sigma * np.exp(inwards * k * step), low, high))) for k in (1, 2))
    here = _score(denoiser, x, sigma) if clean is None else _score_of(clean, x, sigma)
    return inwards * (4 * near - 3 * here - far) / (2 * step)


@takes(stream=Stream)
def step_costs(
    denoiser: Denoise,
    data: Any,
    sigmas: ArrayLike,
    *,
    kind: str | StepCost = "corrector",
    velocity: str = "receiving",
    stream: Stream | None = None,
    seed: int = 0,
) -> Estimate:
    """Cost of the corrector from each level to the next, with its standard error (2412.07877).

    Args:
        denoiser, data, stream, seed: as for `score_cost`.
        sigmas: (N,) descending noise levels > 0, data units.
        kind: what precedes the corrector: "corrector", nothing; "predictor", an Euler step; or `Predictor(…)` with
            options of its own.
        velocity: v = sigma' ("receiving", as the paper) or v = sigma ("source", safe to iterate on).

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
    cost = kind if isinstance(kind, StepCost) else _KINDS[choice(kind, "kind", _KINDS)]
    choice(velocity, "velocity", VELOCITIES)
    asked = Denoiser.of(denoiser)
    moments = [Moments(()) for _ in levels[1:]]
    for index, clean in _mine(data, stream or Stream()):
        for number_, (before, after) in enumerate(pairwise(levels)):
            x = clean + before * normal(seed, "step cost", number_, index, shape=tuple(clean.shape), like=clean)
            squared = cost.squared(asked, x, (float(before), float(after)), seed, (number_, index))
            v = before if velocity == "source" else after
            moments[number_].add(squared * v**2)
    return _collected(moments)


def _mine(data: Any, stream: Stream) -> Iterator[tuple[int, torch.Tensor]]:
    """This process's numbered batches, up to the stream's examples of all."""
    left = stream.examples
    rank, world = processes()
    for index, part in enumerate(batches(data, stream.batch or _BATCH)):
        used = part if left is None else part[:left]
        if index % world == rank:
            yield index, stream.placed(used)
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
    return _score_of(denoiser(x, float(sigma)), x, sigma)


def _score_of(clean: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
    return (clean - x).double() / float(sigma) ** 2


def _squares(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float64).flatten(1).square().sum(dim=1)


class StepCost(ABC):
    """Squared difference of scores that one step of a schedule leaves to the corrector."""

    @abstractmethod
    def squared(
        self, denoiser: Denoiser, x: torch.Tensor, sigmas: tuple[float, float], seed: int, names: tuple[int, int]
    ) -> torch.Tensor:
        """(n,) estimates at states x of the law at the first level, for a step to the second; `names` of the draws."""


@dataclass(frozen=True)
class Corrector(StepCost):
    """v^2 E |score_{sigma'}(x) - score_sigma(x)|^2 at the same x of the law at sigma; two evaluations."""

    @torch.no_grad()
    def squared(
        self, denoiser: Denoiser, x: torch.Tensor, sigmas: tuple[float, float], seed: int, names: tuple[int, int]
    ) -> torch.Tensor:
        before, after = sigmas
        return _squares(_score(denoiser, x, after) - _score(denoiser, x, before))


@dataclass(frozen=True)
class Predictor(StepCost):
    """v^2 E |score_{sigma'}(x') - s_F(x')|^2 after an Euler step x' = F(x) of the probability-flow ODE.

    s_F = J^-T (score_sigma(x) - grad log|det J|) is the score of the predicted law, J = dF/dx. The gradient of the log
    determinant is Hutchinson's, grad of w^T J z with J^T w = z, and the square is the mean of the products of different
    probes: unbiased, and sometimes negative where it is small. The denoiser is differentiated twice. The paper's own
    estimator (2412.07877) could not be read.

    Args:
        probes: random signs per example, at least 2: the products are of different ones.
        iterations: of the linear solves with J, at most; each costs two products. Short steps take a few, J being
            near the identity.

    Raises:
        ValueError: a number out of range.

    >>> Predictor(probes=4)
    Predictor(probes=4, iterations=50)
    """

    probes: int = 2
    iterations: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", integer(self.probes, "Predictor.probes", minimum=2, maximum=AT_ONCE))
        object.__setattr__(
            self, "iterations", integer(self.iterations, "Predictor.iterations", minimum=1, maximum=AT_ONCE)
        )

    def squared(
        self, denoiser: Denoiser, x: torch.Tensor, sigmas: tuple[float, float], seed: int, names: tuple[int, int]
    ) -> torch.Tensor:
        """(n,) unbiased estimates; E over the probes is the square of the exact difference."""
        before, after = sigmas
        start = x.detach().requires_grad_()
        with torch.enable_grad():
            denoised = denoiser(start, before)
            landed = (after / before) * start + (1 - after / before) * denoised
        if not denoised.requires_grad:
            raise DenoiserError(f"denoiser {denoiser.name!r} carries no gradient by x (no_grad inside?).")
        score = ((denoised - start) / before**2).detach()
        jacobian = _Jacobian(start, landed)
        with torch.no_grad():
            wanted = _score(denoiser, landed.detach(), after)
        parts = []
        for probe in range(self.probes):
            z = rademacher(seed, "step probe", *names, probe, shape=tuple(x.shape), like=x)
            turned = self._solved(jacobian, z, before)
            law = self._solved(jacobian, score - jacobian.bent(turned, z), before)
            parts.append((wanted - law).to(torch.float64).flatten(1))
        # products of different probes only: a probe's own square would add its variance
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
            f"{left:.1g} after {self.iterations} iterations; raise Predictor.iterations, or take shorter steps."
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


_KINDS: dict[str, StepCost] = {"corrector": Corrector(), "predictor": Predictor()}
