"""Multistep samplers: what a step makes of the state and of the last outputs of the denoiser, once for all of them.

Step k is x_{k+1} = carry x_k + sum_j outputs_j D_{k-j} + sum_j earlier_j x_{k-j}. One method of a class, `_row`, gives
the coefficients from the noise levels that the step sees; from them follow the step on a network, the law on Gaussian
data and its sensitivity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

from ..basics.checks import Array
from .adjoint import Adjoint
from .affine_steps import AffineSteps, Numbers, StepGradient
from .interpolants import rates
from .network_step import DenoiserCall, NoisePath, Remembered, SigmaStep

if TYPE_CHECKING:
    import torch

__all__ = ["OUTPUT_RATES", "WEIGHT", "Multistep", "Near", "Row"]

WEIGHT = Polynomial([0, 1])
OUTPUT_RATES = rates(WEIGHT, Polynomial([-1, 1]), 4)
"""Derivatives of the denoiser's output by -log sigma, over the state, as polynomials in W: section 3.1."""


class Row(NamedTuple):
    """Coefficients of one step; entries are numbers, arrays (..., steps, 1) or tensors without axes.

    Args:
        carry: of x_k.
        outputs: of D_k, D_{k-1}, ...
        earlier: of x_{k-1}, x_{k-2}, ...
    """

    carry: Any
    outputs: Sequence[Any]
    earlier: Sequence[Any] = ()


class Near(NamedTuple):
    """What a step sees of its grid; entries as in `Row`.

    Args:
        levels: where it goes, where it starts, and the nodes before, as many as are remembered.
        lengths: of the step and those before it in log sigma, log(levels[1] / levels[0]) first.
        moments: of the same steps, what the sampler's `_moments` says of each.
        left: steps that follow.
    """

    levels: Sequence[Any]
    lengths: Sequence[Any]
    moments: Sequence[Sequence[Any]]
    left: int

    @property
    def decay(self) -> Any:
        """exp(-length), what of the noise is left."""
        return self.levels[0] / self.levels[1]

    def order(self, most: int, final: bool) -> int:
        """Order of the step: as many outputs as there are; near the end, if `final`, no more than steps to go."""
        return min(most, len(self.lengths), self.left + 1 if final else most)

    def places(self, count: int) -> list[Any]:
        """Where the last `count` nodes stand: the step's start at 0, its end at 1, the nodes before below 0."""
        places: list[Any] = [0.0]
        reach: Any = 0.0
        for length in self.lengths[1:count]:
            reach = reach + length
            places.append(-reach / self.lengths[0])
        return places

    @property
    def before(self) -> Near:
        """What the step before saw, as far as this one remembers."""
        return Near(self.levels[1:], self.lengths[1:], self.moments[1:], self.left + 1)


class Multistep(Adjoint):
    """A linear multistep sampler, its coefficients a function of the noise levels."""

    @abstractmethod
    def _row(self, near: Near) -> Row:
        """Coefficients of a step."""

    def _moments(self, length: Any, decay: Any) -> Sequence[Any]:
        """What of the coefficients depends on one step alone: integrals of 1, s, s^2, ..."""
        return ()

    @abstractmethod
    def _relative_error(self) -> Polynomial:
        """Relative error of a step of length h in log sigma after equal ones, over h^(order + 1), in W; section 3.1."""

    @property
    def signed(self) -> bool:
        """Whether the local error changes sign with sigma: whether its polynomial in W does on (0, 1)."""
        values = _over_carry(self)(np.linspace(0, 1, 4001)[1:-1])
        return bool(values.min() < 0 < values.max())

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler: after steps of equal length in log sigma."""
        variance = lam + sigma**2
        share = sigma**2 / variance  # 1 - W, without cancellation at low noise
        return -share * _over_carry(self)(lam / variance) / sigma ** (self.order + 1)

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """docs/theory.md section 2, the row of this sampler."""
        row = self._rows(sigma)
        current = row.carry + row.outputs[0] * weights[..., :-1, :]
        earlier = []
        for back in range(1, self._remembered(sigma) + 1):
            rows = np.zeros_like(current)
            own = row.outputs[back][..., back:, :] * weights[..., : -1 - back, :]
            rows[..., back:, :] = own + row.earlier[back - 1][..., back:, :]
            earlier.append(rows)
        return AffineSteps(current, earlier)

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_steps: StepGradient) -> Numbers:
        row = self._rows(sigma)
        result = np.zeros(
            (*by_steps.by_current.shape[:-2], weights.shape[-2], weights.shape[-1]),
            np.result_type(by_steps.by_current, row.carry),
        )
        result[..., :-1, :] = by_steps.by_current * row.outputs[0]
        for back, rows in enumerate(by_steps.by_earlier, 1):  # D_k serves the steps k, k + 1, ...
            result[..., : -1 - back, :] += rows[..., back:, :] * row.outputs[back][..., back:, :]
        return result

    def _remembered(self, sigma: Numbers) -> int:
        return min(self.memory, sigma.shape[-2] - 2)

    def _rows(self, sigma: Numbers) -> Row:
        """Coefficients (..., K, 1) of all steps: alike ones together, the few at both ends apart."""
        count, memory = sigma.shape[-2] - 1, self._remembered(sigma)
        lengths = np.log(sigma[..., :-1, :] / sigma[..., 1:, :])
        moments = self._moments(lengths, sigma[..., 1:, :] / sigma[..., :-1, :])
        filled = np.zeros((2 * memory + 2, *sigma.shape[:-2], count, 1), sigma.dtype)
        for first, end, used, left in self._alike(count):
            steps = [slice(first - back, end - back) for back in range(used + 1)]
            near = Near(
                [sigma[..., first + 1 : end + 1, :], *(sigma[..., step, :] for step in steps)],
                [lengths[..., step, :] for step in steps],
                [[values[..., step, :] for values in moments] for step in steps],
                left,
            )
            row = self._row(near)
            filled[0][..., first:end, :] = row.carry
            for back, values in enumerate(row.outputs):
                filled[1 + back][..., first:end, :] = values
            for back, values in enumerate(row.earlier):
                filled[memory + 2 + back][..., first:end, :] = values
        return Row(filled[0], list(filled[1 : memory + 2]), list(filled[memory + 2 :]))

    def _alike(self, count: int) -> Iterator[tuple[int, int, int, int]]:
        """(first, end, outputs remembered, steps left) of runs of steps that differ in their noise levels alone."""
        most = self.memory + 1

        def kind(k: int) -> tuple[int, int]:
            return min(k, self.memory), min(count - 1 - k, most)

        for (used, left), steps in groupby(range(count), kind):
            members = list(steps)
            yield members[0], members[-1] + 1, used, left

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """The same coefficients, of the state and of the denoiser's output here and at the nodes remembered."""
        clean, before = denoiser(x, levels.high), memory[::-1]
        steps = [levels, *(past.step for past in before)]
        row = self._row(
            Near(
                [levels.low, *(step.high for step in steps)],
                [step.log_ratio for step in steps],
                [self._moments(step.log_ratio, step.low / step.high) for step in steps[:2]],
                levels.place.left,
            )
        )
        moved = row.carry.to(x.dtype) * x
        for weight, output in zip(row.outputs, [clean, *(past.output for past in before)], strict=False):
            moved = moved + weight.to(x.dtype) * output
        for weight, past in zip(row.earlier, before, strict=False):
            moved = moved + weight.to(x.dtype) * past.state
        return moved


@lru_cache(maxsize=64)
def _over_carry(sampler: Multistep) -> Polynomial:
    """Its error over 1 - W, which divides it: without noise left no step errs."""
    return sampler._relative_error() // Polynomial([1, -1])
