"""What a sampler is to the planner: an exact law, a local error, a sensitivity, a positivity cap, a step on a network.

A sampler here is what it does to one band of the rescaled state x/s in the noise level sigma. Its
exact terminal law needs no simulation; its local error is what a plan is optimised with; its weight
sensitivity says what an error of the denoiser at one node does to the output. On a network it is its step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..basics.checks import Array, ndim, noise_level, noise_levels, shown, variances, vector
from ..basics.registry import Registry
from .affine_steps import AffineSteps, Inputs, Numbers, StepGradient, StepSlopes, TerminalLaw, prepare
from .minimum_steps import MinimumSteps, counted_steps
from .network_step import DenoiserCall, NoisePath, Remembered, SigmaStep

if TYPE_CHECKING:
    import torch

__all__ = ["SAMPLERS", "MinimumSteps", "Sampler"]

SAMPLERS: Registry[type[Sampler]] = Registry("Sampler.name", "Sampler")
_NUDGE = 1e-30  # of a weight, for complex steps


class Sampler(ABC):
    """A sampler of the reverse process, as a map on one band of Gaussian data and as a step on a network.

    To add one, write a frozen dataclass with a `name` and two methods, `leading_error` and `affine_steps`: it then
    plans on Gaussian data. With `step` it plans on a network too. All three are about steps between positive noise
    levels: a last step to zero is the plain denoiser, whatever the sampler, and the library takes it itself.

    Attributes:
        name: the name of k-diffusion, without "sample_"; what files know the sampler by.
        order: order q; the terminal relative error of a std is -integral of step^q local_error.
        evaluations_per_step: calls of the denoiser per step (the last step to zero needs one).
        memory: former outputs of the denoiser that a step on a network asks for.
        eta: strength of the injected noise, 0 for the probability-flow ODE, 1 for the reverse SDE.
        stochastic: whether a step on a network draws noise.
        signed: whether the local error changes sign with sigma.
        positivity: steps must stay below v_min / (positivity sigma); 0 where nothing binds.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 1
    evaluations_per_step: ClassVar[int] = 1
    memory: ClassVar[int] = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            SAMPLERS.add(cls.name, cls)

    @property
    def eta(self) -> float:
        """Strength of the injected noise, 0 for samplers of the probability-flow ODE."""
        return 0.0

    @property
    def stochastic(self) -> bool:
        """Whether a step on a network draws noise: eta > 0, unless the sampler says otherwise."""
        return self.eta > 0

    @property
    def signed(self) -> bool:
        """Whether the local error changes sign with sigma."""
        return False

    @property
    def positivity(self) -> float:
        """1 + eta^2 for Euler-Maruyama with eta > 0, else 0 (docs/theory.md section 3)."""
        return 0.0

    @property
    def own_levels(self) -> Array | None:
        """(K+1,) the only noise levels that the sampler runs on, the last step to zero its own; None for any levels."""
        return None

    def check_levels(self, sigmas: Any) -> None:
        """Refuse noise levels that are not `own_levels`, to a relative 1e-9; samplers of any levels refuse none.

        Raises:
            ValueError: other levels, by the first that differs.
        """
        own = self.own_levels
        if ndim(sigmas) < 1:
            raise ValueError(f"sigmas is {shown(sigmas)}; noise levels are needed.")
        given = np.real(sigmas) if isinstance(sigmas, np.ndarray) else vector(sigmas, "sigmas")
        if own is None or (given.shape[-1:] == own.shape and np.all(np.abs(given - own) <= 1e-9 * own)):
            return
        if given.shape[-1:] != own.shape:
            said = f"sigmas has {given.shape[-1]} levels, the sampler {own.size}"
        else:
            rows = given.reshape(-1, own.size)
            row, k = np.argwhere(np.abs(rows - own) > 1e-9 * own)[0]
            said = f"sigmas is {rows[row, k]:g} at index {k}, the sampler's level is {own[k]:g}"
        raise ValueError(
            f"{self.name}: its coefficients belong to its own noise levels and {said}; give sigmas=sampler.levels, or "
            "fit coefficients for other levels."
        )

    def check_plannable(self) -> None:
        """Refuse a sampler with levels of its own where noise levels are to be planned.

        Raises:
            ValueError: it has `own_levels`.
        """
        if self.own_levels is not None:
            raise ValueError(
                f"{self.name} has no order in the step, so that nothing plans its noise levels by a local error: plan "
                "the grid with a stock sampler, such as co.DPMpp2M(), and fit coefficients on it; with these, give "
                "sigmas=sampler.levels."
            )

    @property
    def error_separates(self) -> bool:
        """Whether `local_error` is a function of the level times one of the stopping point: the one written here."""
        return type(self).local_error is Sampler.local_error

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
        lam = variances(eigenvalues, "eigenvalues")[:, None]
        level = noise_levels(sigma, "sigma")
        stop = noise_level(stopping_sigma, "stopping_sigma")
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # said below
            found = self.unchecked_local_error(lam, level, stop)
        if not np.isfinite(found).all():
            raise ValueError(
                f"local_error: at noise levels from {level.min():g} to {level.max():g} and eigenvalues from "
                f"{lam.min():g} to {lam.max():g} there are errors that no float holds; give data in other units."
            )
        return found

    def unchecked_local_error(self, lam: Array, level: Array, stop: float | Array) -> Array:
        """`local_error` of checked arguments, the variances as (B, 1), the stopping points one or (L,)."""
        local = self.leading_error(lam, level)
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
        smallest = float(variances(eigenvalues, "eigenvalues").min())
        level = noise_levels(sigma, "sigma")
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
        3). Both are 0 where nothing binds, and beyond 100,000 both are the latter, which is less than one part in
        10,000 more.

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
        smallest = float(variances(eigenvalues, "eigenvalues").min())
        sigma = noise_level(sigma_max, "sigma_max")
        stop = noise_level(stopping_sigma, "stopping_sigma")
        if not stop < sigma:
            raise ValueError(f"stopping_sigma is {stop:g}; it must be below sigma_max = {sigma:g}.")
        return counted_steps(smallest, self.positivity, sigma, stop)

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
        given = prepare(sigmas, eigenvalues, denoiser, initial_variance)
        with np.errstate(over="ignore"):  # steps that are not stable grow without end
            return self._closed_steps(given).law(given.initial_variance)

    def weight_sensitivity(
        self, sigmas: Any, eigenvalues: Any, *, denoiser: Any = None, initial_variance: Any = None
    ) -> Numbers:
        """Derivative of the terminal std by the denoiser's weight at every node: d std / d W_k.

        All uses of one node's denoiser are added, so its square is the discrete kernel of docs/theory.md
        section 4. Arguments and errors as in `terminal_law`. The library's samplers go back through their own
        recursion, O(K B), and take complex input too; others take one complex step of the law for every node.

        Returns:
            (..., K+1, B) data units; 0 at nodes whose denoiser is not used. At a terminal std of 0
            the one-sided derivative.

        >>> from codesign_opt.samplers.members import Euler
        >>> Euler().weight_sensitivity([2.0, 1.0, 0.0], [1.0]).round(6).tolist()
        [[0.559017], [1.341641], [0.0]]
        """
        return self._sensitivity(prepare(sigmas, eigenvalues, denoiser, initial_variance))

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, as plain values.

        >>> from codesign_opt.samplers.members import Ancestral
        >>> Ancestral(eta=0.5).to_dict()
        {'name': 'euler_ancestral', 'eta': 0.5}
        """
        return {"name": self.name, **vars(self)}

    @property
    def tag(self) -> str:
        """Name and parameters in one word, for files.

        >>> from codesign_opt.samplers.members import Ancestral
        >>> Ancestral(eta=0.5).tag
        'euler_ancestral-0.5'
        """
        return "-".join([self.name, *(f"{v}" if isinstance(v, str) else f"{v:g}" for v in vars(self).values())])

    @staticmethod
    def named(value: Any, what: str = "sampler") -> Sampler:
        """A sampler as it is, or the one of a name with its own parameters: what every argument for samplers takes.

        Args: value, a Sampler or its `name`; what, whose argument it is, for messages.
        Raises ValueError: another object, or an unknown name, with the nearest.

        >>> Sampler.named("heun"), Sampler.named("euler_ancestral")
        (Heun(), Ancestral(eta=1.0))
        """
        found: Sampler = SAMPLERS.named(value, Sampler, what)
        return found

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

    # what a sampler is made of

    @abstractmethod
    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """The table of section 3 without the factor of eta: `local_error` of checked arguments.

        Args:
            lam: (B, 1) variances, squared data units.
            sigma: (L,) noise levels, data units.

        Returns:
            (B, L) relative shrinkage of the terminal std per step^order and unit sigma.
        """

    @abstractmethod
    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """The steps on bands whose denoiser is linear, D(x, sigma_k) = W_k x: docs/theory.md section 2.

        Analytic in both arguments (no absolute values, no conjugates), so that complex steps pass through.

        Args:
            sigma: (..., K+1, 1) descending noise levels, all positive.
            weights: (..., K+1, B) W at every node; see `weights_at` for levels between the nodes.
        """

    def step_slopes(self, sigma: Array, weights: Array, weight_slopes: Array) -> StepSlopes | None:
        """Derivatives of `affine_steps` by log sigma of the nodes that each step sees, in closed form.

        None where a sampler states none: complex steps of `affine_steps` hold them too, and take longer.

        Args:
            sigma, weights: as `affine_steps` gets them, real.
            weight_slopes: (..., K+1, B) derivatives of W by log sigma of its node.
        """
        return None

    @staticmethod
    def weights_at(levels: Numbers, sigma: Numbers, weights: Numbers) -> Numbers:
        """W at levels between nodes, for samplers that ask the denoiser there: exact for the optimal one.

        The node that opens the step tells the variance lambda = sigma^2 W / (1 - W), and W at the level is
        lambda / (lambda + level^2): an error of the denoiser in between counts at that node.

        Args:
            levels: (..., K, 1) one noise level in each step.
            sigma, weights: as `affine_steps` gets them.

        >>> Sampler.weights_at(np.array([[1.0]]), np.array([[2.0], [0.5]]), np.array([[0.2], [0.8]])).round(12).tolist()
        [[0.5]]
        """
        opening, variance = weights[..., :-1, :], sigma[..., :-1, :] ** 2
        return variance * opening / (variance * opening + levels**2 * (1 - opening))

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """One step on a network, from states at `levels.high` to states at `levels.low`.

        Args:
            denoiser: (x, sigma) -> x0, asked `evaluations_per_step` times.
            x: (N, *shape) states in x / s.
            levels: the two noise levels, float64; `low` is positive.
            memory: the last steps before this one, latest last, with the denoiser's output at the start of each;
                `self.memory` of them, fewer where the run began.
            noise: its `draw(high, low, x)` is the unit normal draw of a step; None where the sampler has no noise.

        Returns:
            (N, *shape) states, differentiable in `x` and in the levels where the denoiser is.

        Raises:
            ValueError: the sampler has no step of its own on a network.
        """
        raise ValueError(self._without_step())

    def check_network_step(self) -> None:
        """Refuse a sampler that only knows Gaussian data, by the method to write.

        Raises:
            ValueError: its class has no `step`.
        """
        if type(self).step is Sampler.step:
            raise ValueError(self._without_step())

    def _without_step(self) -> str:
        return (
            f"{self!r} has no step on a network: write {type(self).__name__}.step(self, denoiser, x, levels, memory, "
            "noise), which returns the states at levels.low (see codesign_opt.Sampler.step)."
        )

    # from the steps to the law

    def _closed_steps(self, given: Inputs) -> AffineSteps:
        """The steps with a last one to zero, if there is one, as the plain denoiser."""
        steps = self.affine_steps(given.positive, given.weights)
        return steps.closed(given.to_zero, given.weights[..., -2, :])

    def _sensitivity(self, given: Inputs) -> Numbers:
        """d std / d W by one complex step of the law for every node: any sampler, real input, O(K^2 B)."""
        if any(part.dtype.kind == "c" for part in (given.nodes, given.weights, given.initial_variance)):
            raise ValueError(f"{self!r}: weight_sensitivity takes complex input for the library's own samplers alone.")
        by_weight = np.zeros(given.weights.shape)
        for k in range(given.weights.shape[-2]):
            moved = given.weights.astype(np.complex128)
            moved[..., k, :] += 1j * _NUDGE
            std = self._closed_steps(replace(given, weights=moved)).law(given.initial_variance).std
            by_weight[..., k, :] = std.imag / _NUDGE
        return by_weight

    def _pulled_back(self, given: Inputs, by_steps: StepGradient) -> Numbers | None:
        """`_sensitivity` from the gradient of the std by the steps; None where it does not tell."""
        return None
