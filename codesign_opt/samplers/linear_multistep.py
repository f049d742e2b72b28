"""A multistep sampler of given coefficients, on noise levels of its own: what a fit of a solver finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.polynomial import Polynomial

from ..basics.checks import Array, array, instance, matrix, vector
from ..ingredients.grids import check_grid
from .affine_steps import AffineSteps, Inputs, Numbers, StepGradient, prepare
from .base import Sampler
from .multistep import Multistep, Near, Row
from .network_step import DenoiserCall, NoisePath, Remembered, SigmaStep
from .own_levels import OnOwnLevels

if TYPE_CHECKING:
    import torch

__all__ = ["LinearMultistep"]


@dataclass(frozen=True, eq=False, repr=False)
class LinearMultistep(OnOwnLevels, Multistep):
    """A multistep sampler of given coefficients: x_{k+1} - m = a_k (x_k - m) + sum_j c_{k,j} (D_{k-j} - m).

    x is the rescaled state x_t / s_t, as everywhere in the package, and D_k the denoiser's output at x_k and levels[k].
    The step to zero is one of the rows, like any other. m is the data's mean; where a_k + sum_j c_{k,j} = 1 it cancels
    and may be left at 0. Every explicit multistep sampler on fixed levels is of this form, UniPC (on its predicted
    states) and those on slopes (D_0, ..., D_k in place of former states) too. docs/theory.md section 2.4.

    It has no order in the step: programs that need a local error refuse it. Plan the levels with a stock sampler, fit
    the coefficients there, and give `sigmas=sampler.levels` wherever a grid is asked for.

    Args:
        levels: (K+1,) strictly descending noise levels, data units; only the last may be 0.
        a: (K,) factors of the states.
        c: (K, h+1) factors of the outputs, c[k, j] of D_{k-j}; 0 where j > k, before the first output.
        mean: the data's mean, a number or an array of one state's shape, data units.

    Raises:
        ValueError: a field of a wrong shape, not finite, or an output before the first.

    >>> euler = LinearMultistep([2.0, 1.0, 0.0], a=[0.5, 0.0], c=[[0.5], [1.0]])
    >>> euler.terminal_law(euler.levels, [1.0]).variance.round(12).tolist()
    [0.45]
    >>> Multistep.from_dict(euler.to_dict()) == euler
    True
    """

    levels: Array
    a: Array
    c: Array
    mean: Any = 0.0
    name: ClassVar[str] = "linear_multistep"

    def __post_init__(self) -> None:
        levels = check_grid(self.levels, "LinearMultistep.levels").sigmas
        steps = levels.size - 1
        given = matrix(self.c, "LinearMultistep.c", shape=(steps, None))
        step, back = np.nonzero(np.triu(given, k=1))
        if step.size:
            raise ValueError(
                f"LinearMultistep.c is {given[step[0], back[0]]:g} at index ({step[0]}, {back[0]}), of an output "
                f"{back[0]} before step {step[0]}, where there is none; it must be 0."
            )
        mean = array(self.mean, "LinearMultistep.mean", hint="Give the data's mean, a number or an array.")
        self._keep(levels=levels, a=vector(self.a, "LinearMultistep.a", length=steps), c=given, mean=mean)

    @classmethod
    def of(cls, sampler: Sampler, sigmas: Any) -> LinearMultistep:
        """A stock sampler's steps on these levels as rows: x and D enter them linearly, with coefficients of the grid.

        Samplers on slopes use former states, which are combinations of the present one and of former outputs: their
        rows then have all of them. The step to zero is the plain denoiser.

        Args:
            sampler: without noise, one call of the denoiser a step.
            sigmas: (K+1,) strictly descending noise levels, data units; only the last may be 0.

        Raises:
            ValueError: a sampler with noise, or of more calls a step; malformed levels.

        >>> LinearMultistep.of(Sampler.from_dict({"name": "dpmpp_2m"}), [4.0, 2.0, 1.0, 0.0]).c.tolist()
        [[0.5, 0.0], [0.75, -0.25], [1.0, 0.0]]
        """
        instance(sampler, Sampler, "LinearMultistep.of: sampler")
        if sampler.stochastic or sampler.evaluations_per_step != 1:
            does = "adds noise" if sampler.stochastic else "asks twice a step"
            raise ValueError(f"{sampler!r} {does}: rows have one call of the denoiser a step and no noise.")
        levels = check_grid(sigmas, "sigmas").sigmas
        to_zero = np.array(levels[-1] == 0)
        nodes = np.append(levels[:-1], levels[-2] / 2 if to_zero else levels[-1])[:, None]
        nothing, everything = np.zeros_like(nodes), np.ones_like(nodes)
        bare = sampler.affine_steps(nodes, nothing).closed(to_zero, nothing[0])  # what of the states alone
        whole = sampler.affine_steps(nodes, everything).closed(to_zero, everything[0])
        states = np.hstack([bare.current, *bare.earlier])
        outputs = np.hstack([whole.current, *whole.earlier]) - states
        if np.any(states[:, 1:]):
            states, outputs = _without_states(states, outputs)
        return cls(levels, states[:, 0], outputs)

    def __repr__(self) -> str:
        nodes = f"{self.levels[0]:g} to {self.levels[self.levels > 0][-1]:g}{' and 0' if self.levels[-1] == 0 else ''}"
        return f"LinearMultistep({self.a.size} steps, {self.c.shape[1]} outputs a step, sigma {nodes})"

    @property
    def memory(self) -> int:  # type: ignore[override]
        """h."""
        return self.c.shape[1] - 1

    def coefficient_gradient(
        self, eigenvalues: Any, *, denoiser: Any = None, initial_variance: Any = None
    ) -> tuple[Array, Array]:
        """Derivatives of the terminal std by the coefficients: d std / d a_k and d std / d c_{k,j}.

        Args:
            eigenvalues, denoiser, initial_variance: as `terminal_law` gets them.

        Returns:
            (..., K, B) and (..., K, h+1, B), data units; 0 for outputs before the first.

        >>> euler = LinearMultistep([2.0, 1.0, 0.0], a=[0.5, 0.0], c=[[0.5], [1.0]])
        >>> euler.coefficient_gradient([1.0])[0].round(6).tolist()
        [[1.118034], [1.341641]]
        """
        given = prepare(self.levels, eigenvalues, denoiser, initial_variance)
        by_steps = self._closed_steps(given).gradient(given.initial_variance)
        by_outputs = np.zeros((*by_steps.by_current.shape[:-1], self.c.shape[1], by_steps.by_current.shape[-1]))
        rows = (by_steps.by_current, *by_steps.by_earlier)
        for back, adjoint in enumerate(rows):
            weights = given.weights[..., : given.weights.shape[-2] - 1 - back, :]
            by_outputs[..., back:, back, :] = adjoint[..., back:, :] * weights
        return by_steps.by_current, by_outputs

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """The row of the step that starts at levels.high; other levels than its own are refused."""
        k = self._number(levels, len(memory))
        moved = float(self.a[k]) * x + float(self.c[k, 0]) * denoiser(x, levels.high)
        for weight, past in zip(self.c[k, 1:], memory[::-1], strict=False):
            moved = moved + float(weight) * past.output
        rest = 1 - self.a[k] - self.c[k].sum()
        if np.any(rest * self.mean):
            moved = moved + x.new_tensor(rest * self.mean)
        return moved

    def _number(self, levels: SigmaStep, remembered: int) -> int:
        """Which step goes between two levels; refuses levels that are not neighbours here, and a lost memory."""
        high, low = float(levels.high.detach()), float(levels.low.detach())
        k = int(np.argmin(np.abs(self.levels[:-1] - high)))
        self.check_levels([*self.levels[:k], high, low, *self.levels[k + 2 :]])
        needed = np.flatnonzero(self.c[k])[-1:]
        if needed.size and needed[0] > remembered:
            raise ValueError(
                f"linear_multistep: the step from sigma {high:g} uses outputs at {needed[0]} levels before and "
                f"{remembered} are remembered; start at levels[0] = {self.levels[0]:g}, or give before=."
            )
        return k

    # ---- its rows in place of a function of the levels ----

    def _closed_steps(self, given: Inputs) -> AffineSteps:
        self.check_levels(given.nodes[..., 0])
        return self.affine_steps(given.nodes, given.weights)

    def _pulled_back(self, given: Inputs, by_steps: StepGradient) -> Numbers:
        return self._by_weight(given.nodes, given.weights, by_steps)

    def _rows(self, sigma: Numbers) -> Row:
        outputs = [column[:, None] for column in self.c.T]
        return Row(self.a[:, None], outputs, [np.zeros((self.a.size, 1))] * self.memory)

    def _row(self, near: Near) -> Row:
        raise AssertionError("the rows are given")

    def _relative_error(self) -> Polynomial:
        raise AssertionError("refused by leading_error")


def _without_states(states: Array, outputs: Array) -> tuple[Array, Array]:
    """Rows of the present state and all outputs, for rows that take former states: (K, 1 + m) and (K, 1 + m) each.

    Every state is x_k = s_k x_0 + sum_m t_km D_m; x_0 leaves by the present state's own.
    """
    count = len(states)
    parts = np.eye(1, count + 1)  # s_0, and then s_k and t_km row by row
    rows = np.zeros((count, count))
    for k, (own, taken) in enumerate(zip(states, outputs, strict=True)):
        reach = min(k + 1, own.size)
        made = own[:reach] @ parts[k::-1][:reach]
        made[1 + np.arange(k, k - reach, -1)] += taken[:reach]
        left = made - made[0] / parts[k, 0] * parts[k]
        rows[k, : k + 1] = left[k + 1 : 0 : -1]
        parts = np.vstack([parts, made])
    return parts[1:, :1] / parts[:-1, :1], rows
