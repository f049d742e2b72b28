"""What a sampler is to the planner: an exact law, a local error, a sensitivity, a positivity cap.

A sampler here is what it does to one band of the rescaled state x/s in the noise level sigma. Its
exact terminal law needs no simulation; its local error is what a plan is optimised with; its weight
sensitivity says what an error of the denoiser at one node does to the output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..basics.checks import Array, number, vector
from ..basics.registry import Registry
from .affine_steps import Numbers, Steps, TerminalLaw, prepare

__all__ = ["SAMPLERS", "MinimumSteps", "Sampler"]

SAMPLERS: Registry[type[Sampler]] = Registry("Sampler.name", "Sampler")


class MinimumSteps(NamedTuple):
    """Steps that the positivity cap asks for: of a real grid, and as a density in the program."""

    grid: float
    density: float


class Sampler(ABC):
    """A sampler of the reverse process, as a map on one band of Gaussian data.

    Attributes:
        name: the name of k-diffusion, without "sample_".
        order: order q; the terminal relative error of a std is -integral of step^q local_error.
        evaluations_per_step: calls of the denoiser per step (the last step to zero needs one).
        eta: strength of the injected noise, 0 for the probability-flow ODE, 1 for the reverse SDE.
        signed: whether the local error changes sign with sigma.
        positivity: steps must stay below v_min / (positivity sigma); 0 where nothing binds.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 1
    evaluations_per_step: ClassVar[int] = 1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            SAMPLERS.add(cls.name, cls)

    @property
    def eta(self) -> float:
        """Strength of the injected noise, 0 for samplers of the probability-flow ODE."""
        return 0.0

    @property
    def signed(self) -> bool:
        """Whether the local error changes sign with sigma."""
        return False

    @property
    def positivity(self) -> float:
        """1 + eta^2 for Euler-Maruyama with eta > 0, else 0 (docs/theory.md section 3)."""
        return 0.0

    def local_error(self, eigenvalues: Any, sigma: Any, stopping_sigma: float) -> Array:
        """Signed shrinkage of the terminal std per step^q and unit sigma, by band and noise level.

        The std at the end is off by the relative amount -integral step(sigma)^q l_b(sigma) dsigma to
        leading order; l > 0 shrinks. docs/theory.md section 3, table; for eta > 0 the factor
        (v(stopping) / v)^(eta^2) by which later noise forgets the error is included.

        Args:
            eigenvalues: (B,) nonnegative variances, squared data units.
            sigma: (L,) noise levels > 0, data units, in any order, at or above stopping_sigma.
            stopping_sigma: last positive noise level of the grid, data units.

        Returns:
            (B, L) in units of 1 / sigma^(q+1).

        Raises:
            ValueError: a malformed argument, by name.

        >>> from codesign_opt.samplers.members import Euler
        >>> Euler().local_error([1.0], [1.0, 2.0], 0.01).tolist()
        [[0.125, 0.02]]
        """
        lam = vector(eigenvalues, "eigenvalues", nonnegative=True)[:, None]
        level = vector(sigma, "sigma", positive=True)
        stop = number(stopping_sigma, "stopping_sigma", positive=True)
        local = self._local_error(lam, level)
        if self.eta == 0.0:
            return local
        return local * ((lam + stop**2) / (lam + level**2)) ** self.eta**2

    def positivity_cap(self, eigenvalues: Any, sigma: Any) -> Array:
        """Largest step of Euler-Maruyama that keeps every mean multiplier >= 0: v_min/((1+eta^2) sigma).

        The smallest eigenvalue binds. +inf for every other sampler: a real step, to sigma' >= 0,
        already keeps their multipliers in [0, 1] (docs/theory.md section 3, Stability).

        Args:
            eigenvalues: (B,) nonnegative variances, squared data units.
            sigma: (L,) noise levels > 0, data units.

        Returns:
            (L,) step sizes in sigma, data units.

        Raises:
            ValueError: a malformed argument, by name.

        >>> from codesign_opt.samplers.members import EulerMaruyama
        >>> EulerMaruyama(eta=1.0).positivity_cap([1.0, 0.25], [0.5, 1.0]).tolist()
        [0.5, 0.625]
        """
        smallest = float(vector(eigenvalues, "eigenvalues", nonnegative=True).min())
        level = vector(sigma, "sigma", positive=True)
        if self.positivity == 0.0:
            return np.full(level.size, np.inf)
        return (smallest + level**2) / (self.positivity * level)

    def stability_cap(self, eigenvalues: Any, sigma: Any) -> Array:
        """Largest step with every |mean multiplier| <= 1: twice the positivity cap.

        Every real step (to sigma' >= 0) respects it when eta <= 1; a true cap only for eta > 1
        (docs/theory.md section 3). Arguments, units and errors as in `positivity_cap`.

        >>> from codesign_opt.samplers.members import EulerMaruyama
        >>> EulerMaruyama(eta=2.0).stability_cap([0.0], [1.0]).tolist()
        [0.4]
        """
        return 2.0 * self.positivity_cap(eigenvalues, sigma)

    def minimum_steps(self, eigenvalues: Any, sigma_max: float, stopping_sigma: float) -> MinimumSteps:
        """Number of steps from sigma_max to stopping_sigma that the positivity cap asks for.

        `grid`: the longest admissible steps, sigma' = sigma - v_min/((1+eta^2) sigma), the last one
        counted as the fraction used. `density`: the cap on the step density in the convex program,
        (1+eta^2)/2 log(v_min(sigma_max) / v_min(stopping_sigma)), always more (docs/theory.md section
        3). Both are 0 where nothing binds.

        Args:
            eigenvalues: (B,) nonnegative variances, squared data units.
            sigma_max: start, data units.
            stopping_sigma: last positive noise level, below sigma_max.

        Raises:
            ValueError: a malformed argument, by name, or stopping_sigma not below sigma_max.

        >>> from codesign_opt.samplers.members import EulerMaruyama
        >>> [round(n, 1) for n in EulerMaruyama().minimum_steps([1.0, 1e-4], 80.0, 0.002)]
        [13.4, 17.9]
        """
        smallest = float(vector(eigenvalues, "eigenvalues", nonnegative=True).min())
        sigma = number(sigma_max, "sigma_max", positive=True)
        stop = number(stopping_sigma, "stopping_sigma", positive=True)
        if not stop < sigma:
            raise ValueError(f"stopping_sigma is {stop:g}; it must be below sigma_max = {sigma:g}.")
        if self.positivity == 0.0:
            return MinimumSteps(0.0, 0.0)
        ratio = (smallest + sigma**2) / (smallest + stop**2)
        density = 0.5 * self.positivity * float(np.log(ratio))
        full = 0
        while True:
            step = (smallest + sigma**2) / (self.positivity * sigma)
            if sigma - step <= stop:
                return MinimumSteps(full + (sigma - stop) / step, density)
            sigma, full = sigma - step, full + 1

    def terminal_law(
        self, sigmas: Any, eigenvalues: Any, *, denoiser: Any = None, initial_variance: Any = None
    ) -> TerminalLaw:
        """Exact law of the sampler's output on Gaussian data, no simulation: docs/theory.md section 2.

        A last step to 0 returns the denoiser at the last positive node without noise, whatever the
        sampler. All arrays may be complex: the result is analytic in them, so a complex step of
        `sigmas` differentiates it.

        Args:
            sigmas: (..., K+1) strictly descending noise levels, data units; only the last may be 0.
            eigenvalues: (B,) nonnegative variances, squared data units.
            denoiser: (..., K+1, B) weights W of a linear denoiser D = W x at every node (any finite
                value at a final 0, where it is not used); lambda/(lambda + sigma^2) by default.
            initial_variance: (..., B) variance of the start; lambda + sigma_max^2 by default.

        Returns:
            TerminalLaw with amplitude and variance of shape (..., B).

        Raises:
            ValueError: a malformed argument, by name; leading axes that do not broadcast.

        >>> from codesign_opt.samplers.members import Euler
        >>> Euler().terminal_law([2.0, 1.0, 0.0], [1.0]).variance.round(12).tolist()
        [0.45]
        """
        sigma, weights, start = prepare(sigmas, eigenvalues, denoiser, initial_variance)
        return self._steps(sigma, weights).law(start)

    def weight_sensitivity(
        self, sigmas: Any, eigenvalues: Any, *, denoiser: Any = None, initial_variance: Any = None
    ) -> Numbers:
        """Derivative of the terminal std by the denoiser's weight at every node: d std / d W_k.

        The adjoint of the sampler's own recursion, O(K B): all uses of one node's denoiser are added,
        so its square is the discrete kernel of docs/theory.md section 4. Arguments and errors as in
        `terminal_law`; analytic in complex input too.

        Returns:
            (..., K+1, B) data units; 0 at nodes whose denoiser is not used. At a terminal std of 0
            the one-sided derivative.

        >>> from codesign_opt.samplers.members import Euler
        >>> Euler().weight_sensitivity([2.0, 1.0, 0.0], [1.0]).round(6).tolist()
        [[0.559017], [1.341641], [0.0]]
        """
        sigma, weights, start = prepare(sigmas, eigenvalues, denoiser, initial_variance)
        by_current, by_previous = self._steps(sigma, weights).gradient(start)
        return self._by_weight(sigma, weights, by_current, by_previous)

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, as plain values.

        >>> from codesign_opt.samplers.members import Ancestral
        >>> Ancestral(eta=0.5).to_dict()
        {'name': 'euler_ancestral', 'eta': 0.5}
        """
        return {"name": self.name, **vars(self)}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Sampler:
        """The sampler that `to_dict` wrote.

        Raises:
            ValueError: an unknown name, or a parameter that this sampler does not have.

        >>> from codesign_opt.samplers.members import DPMpp2M
        >>> Sampler.from_dict({"name": "dpmpp_2m"})
        DPMpp2M()
        """
        parameters = dict(record)
        sampler: Sampler = SAMPLERS.make(parameters.pop("name", None), parameters)
        return sampler

    @abstractmethod
    def _local_error(self, lam: Array, sigma: Array) -> Array:
        """The table of section 3 without the factor of eta: lam (B, 1), sigma (L,) to (B, L)."""

    @abstractmethod
    def _steps(self, sigma: Numbers, weights: Numbers) -> Steps:
        """The affine steps of a checked grid (..., K+1, 1) with weights (..., K+1, B)."""

    @abstractmethod
    def _by_weight(self, sigma: Numbers, weights: Numbers, by_current: Numbers, by_previous: Numbers | None) -> Numbers:
        """Pull a gradient by the steps (..., K, B) back to the weights (..., K+1, B)."""
