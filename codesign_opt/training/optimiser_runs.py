"""Training noise of a run of an optimiser as it is: SGD with momentum, Adam, schedules, averages of the weights.

All levels are trained in one run of a given number of updates, and a plan chooses how many examples of each update a
level gets. The gradients' noise then leaves A / m at any schedule and average, and what is left of the start is a
floor that no example removes: burn-in is in the program (docs/theory.md section 5.9).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, integer, noise_level, noise_levels, number, shown, variances, vector
from ..ingredients.parameterization import Parameterization
from .base import TrainingNoise
from .lower_bounds import check_flag
from .rates import LearningRate, WeightAverage
from .run_moments import AdamScale, Updates, run_moments, stable
from .sensitivity_kernel import diagonal_kernel
from .untrained import kernel_arguments

if TYPE_CHECKING:  # a tenth of a second, which every start of the command line would pay
    from scipy.interpolate import PchipInterpolator, RectBivariateSpline

__all__ = ["SGD", "Adam", "OptimiserRun"]

_NODES = 384  # of the table over rate times curvature
_SMALLEST = 1e-9  # rate times curvature per update: nothing is learned below it
_ADAM_NODES = (150, 20)
_ADAM_STEPS, _ADAM_STARTS = (1e-9, 1e2), (1e-2, 1e6)
_FEW = 10  # examples an update, below which second moments of minibatches matter
_TINY = 1e-300


@dataclass(frozen=True)
class OptimiserRun(TrainingNoise):
    """A run of N updates with `batch` examples each: A / m from the gradients' noise, a floor from the start.

    m = N x (examples of a level's correlation length in each update). Levels keep their weight in the loss whatever
    their examples (importance weights do that), so that more of them change the noise alone.

    Fields:
        learning_rate: a `LearningRate`, or a number: constant.
        batch: examples of a level's correlation length in each update, for which the law is exact, >= 1.
        iterations: N, updates of the run, >= 1.
        average: of the weights, which is what is used in the end; by keyword, as are the rest.
        parameterization, sigma_data: of the network, whose output is 0 before the run.
        prior: None; what is left of the start is in the floor.
    """

    learning_rate: LearningRate
    batch: int
    iterations: int
    average: WeightAverage = field(default_factory=WeightAverage, kw_only=True)
    parameterization: str = field(default="edm", kw_only=True)
    sigma_data: float = field(default=0.5, kw_only=True)
    prior: str | None = field(default=None, kw_only=True)
    # weights of a diagonal matrix, each alone: optimisers rotate no axes
    matrix = "diagonal"
    intercept = False
    dataset_size = None
    replacement = True

    @property
    @abstractmethod
    def _updates(self) -> Updates:
        """The updates at a peak rate of 1."""

    @abstractmethod
    def _moments(self, lam: Array, level: Array, start: Array) -> tuple[Array, Array]:
        """(B, L) mean squares of the slope: left of its error `start`, and left by the gradients' noise at `batch`."""

    def plain(self) -> OptimiserRun:
        return self

    def with_rate(self, peak: float) -> OptimiserRun:
        """The same run at another peak learning rate.

        >>> SGD(0.1, 64, 1000).with_rate(0.2).learning_rate.peak
        0.2
        """
        found = replace(self, learning_rate=replace(self.learning_rate, peak=peak))
        self._share_tables(found)
        return found

    @abstractmethod
    def _share_tables(self, other: OptimiserRun) -> None:
        """Hand on what is a function of rate times curvature, the same at every peak."""

    @property
    def monotone_in_rate(self) -> bool:
        """Whether noise rises and what is left of the start falls with the rate, while every step is at most
        1 / (1 + 2 / batch) of the curvature (docs/theory.md section 5.9)."""
        return False

    def largest_rate(self, eigenvalues: ArrayLike, sigma: ArrayLike) -> float:
        """Largest stable peak learning rate on all levels; infinite where updates have a size of their own."""
        return np.inf

    def with_average(self, average: WeightAverage) -> OptimiserRun:
        """The same run with another average of its weights."""
        return replace(self, average=average)

    # the law

    def weight_variance(self, eigenvalues: Any, sigma: Any) -> tuple[Array, Array]:
        lam = variances(eigenvalues, "eigenvalues")
        return self._laws(lam, noise_levels(sigma, "sigma"))

    def unchecked_weight_variance(self, lam: Array, level: Array) -> tuple[Array, Array]:
        return self._laws(lam, level)

    def _laws(self, lam: Array, level: Array) -> tuple[Array, Array]:
        """(B, L) A and F of the slope's mean square A / m + F."""
        form = Parameterization(self.parameterization, self.sigma_data)
        start = form.c_skip(level) - lam[:, None] / (lam[:, None] + level**2)
        left, noise = self._moments(lam, level, start)
        return noise * (self.batch * self.iterations), left

    def reducible(
        self, eigenvalues: Any, counts: Any, sigma: Any, stopping_sigma: float, *, eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:  # fmt: skip
        """The kernel contracted with A: what the gradients' noise leaves, times examples."""
        return self._contracted(0, eigenvalues, counts, sigma, stopping_sigma, eta, terminal)

    def floor(
        self, eigenvalues: Any, counts: Any, sigma: Any, stopping_sigma: float, *, eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:  # fmt: skip
        """The kernel contracted with F: what is left of the start."""
        return self._contracted(1, eigenvalues, counts, sigma, stopping_sigma, eta, terminal)

    def _contracted(
        self, which: int, eigenvalues: Any, counts: Any, sigma: Any, stop: float, eta: float, terminal: str
    ) -> Array:
        lam, n, level, options = kernel_arguments(eigenvalues, counts, sigma, eta, terminal)
        kernel = diagonal_kernel(lam, level, stop, **options)
        return np.asarray(n @ (kernel * self._laws(lam, level)[which] / level**4))

    def at_stops(
        self, eigenvalues: Array, counts: Array, sigma: Array, stops: Array, *, eta: float, terminal: str
    ) -> tuple[Array, Array, Array | None] | None:
        weight, unit = self._stop_weights(eigenvalues, counts, sigma, stops, eta=eta, terminal=terminal)
        variance, left = self._laws(np.asarray(eigenvalues), np.asarray(sigma))
        return weight @ (unit * variance), weight @ (unit * left), None

    def intercept_variance(self, eigenvalues: Any, sigma: Any) -> tuple[Array, Array]:
        none = np.zeros((vector(eigenvalues, "eigenvalues").size, vector(sigma, "sigma").size))
        return none, none.copy()

    def last_evaluation(self, eigenvalues: Any, counts: Any, stopping_sigma: float) -> tuple[float, float]:
        found = self.last_evaluations(eigenvalues, counts, np.array([noise_level(stopping_sigma, "stopping_sigma")]))
        return float(found[0][0]), float(found[1][0])

    def last_evaluations(self, eigenvalues: Array, counts: Array, stops: Array) -> tuple[Array, Array]:
        lam, n, level, _ = kernel_arguments(eigenvalues, counts, stops, 0.0, "denoise")
        variance, left = self._laws(lam, level)
        power = n[:, None] * (lam[:, None] + level**2)
        return (power * variance).sum(axis=0), (power * left).sum(axis=0)

    def _stationary(self, eigenvalues: Array, counts: Array | None, sigma: Array) -> None:
        return None

    def warnings_for(self, sigma: Any, eigenvalues: Any, examples: Any, counts: Any = None) -> list[str]:
        """Levels with fewer than ten examples an update, where minibatches of that size are another law."""
        level = noise_levels(sigma, "sigma")
        each = vector(examples, "examples", nonnegative=True, length=level.size) / self.iterations
        few = np.flatnonzero((each < _FEW) & (each < self.batch / 2) & (each > 0))
        if not few.size:
            return []
        worst = few[np.argmin(each[few])]
        return [
            f"{few.size} levels get fewer than {_FEW} examples an update within a correlation length, "
            f"{each[worst]:.3g} at sigma = {level[worst]:g}: the law is that of {self.batch}, and small minibatches "
            "leave more"
        ]

    def to_dict(self, sigma: Any = None) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = super().to_dict(sigma)
        return found | {"learning_rate": self.learning_rate.to_dict(), "average": self.average.to_dict()}

    def _check(self) -> None:
        put, name = object.__setattr__, self.name
        rate, average = self.learning_rate, self.average
        if isinstance(rate, dict):
            rate = _stated(LearningRate, rate, f"{name}.learning_rate")
        elif not isinstance(rate, LearningRate):
            rate = LearningRate(number(rate, f"{name}.learning_rate", positive=True))
        if isinstance(average, dict):
            average = _stated(WeightAverage, average, f"{name}.average")
        if not isinstance(average, WeightAverage):
            raise ValueError(f"{name}.average is {shown(average)}; a WeightAverage is needed.")
        put(self, "learning_rate", rate)
        put(self, "average", average)
        put(self, "batch", integer(self.batch, f"{name}.batch", minimum=1))
        put(self, "iterations", integer(self.iterations, f"{name}.iterations", minimum=1))
        if self.prior is not None:
            raise ValueError(
                f"{name}.prior is {shown(self.prior)}; what is left of the start is in the floor already: None."
            )
        self._check_prior(name)

    def _share(self, value: float, field: str) -> None:
        found = number(value, f"{self.name}.{field}", nonnegative=True)
        if found >= 1:
            raise ValueError(f"{self.name}.{field} is {found:g}; it must be < 1.")
        object.__setattr__(self, field, found)


@dataclass(frozen=True)
class SGD(OptimiserRun):
    """A run of SGD with momentum (as torch.optim.SGD), a learning-rate schedule and an average of the weights.

    Second moments are exact for Gaussian data. Per unit of the error at the start and of Sigma / (beta h^2) both parts
    are functions of rate times curvature alone (docs/theory.md section 5.9), tabulated once.

    Fields:
        learning_rate, batch, iterations, average, parameterization, sigma_data: as in `OptimiserRun`.
        momentum: mu, in [0, 1).
        nesterov: Nesterov's, as torch.optim.SGD states it.

    Raises:
        ValueError: a field out of its range. A rate that is unstable is refused where levels are first seen, with the
            noise level and the largest stable rate.

    >>> run = SGD(0.02, 64, 2000, momentum=0.9, average=WeightAverage.uniform())
    >>> a, floor = run.weight_variance([1.0], [1.0])
    >>> a.round(3).tolist(), bool(floor < 1e-3)    # least squares has 0.25
    ([[0.251]], True)
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        self._check()
        self._share(self.momentum, "momentum")
        object.__setattr__(self, "nesterov", check_flag(self.nesterov, "SGD.nesterov"))

    @property
    def speaks_of(self) -> str:
        return f"a linear denoiser trained by SGD in {self.iterations:,} updates"

    @property
    def _updates(self) -> Updates:
        n = self.iterations
        factors = self.learning_rate.factors(n)
        return Updates(factors, self.average.decays(n), self.momentum, self.nesterov, self.batch)

    def _share_tables(self, other: OptimiserRun) -> None:
        vars(other).update(_table=self._table, largest_step=self.largest_step)

    @property
    def monotone_in_rate(self) -> bool:
        plain = self.momentum == 0 and self.learning_rate.is_constant
        return plain and self.average in (WeightAverage(), WeightAverage.uniform())

    def largest_rate(self, eigenvalues: ArrayLike, sigma: ArrayLike) -> float:
        """Largest stable peak learning rate on all levels.

        >>> round(SGD(0.1, 2, 100, parameterization="x0").largest_rate([1.0], [1.0]), 9)
        0.5
        """
        lam, level = variances(eigenvalues, "eigenvalues"), noise_levels(sigma, "sigma")
        return float(self.largest_step / self._unit_step(lam, level).max())

    def _unit_step(self, lam: Array, level: Array) -> Array:
        form = Parameterization(self.parameterization, self.sigma_data)
        return form.output_weight(level) * form.c_in(level) ** 2 * (lam[:, None] + level**2)

    @cached_property
    def largest_step(self) -> float:
        """Largest stable rate times curvature, at a constant rate: second moments stay bounded below it."""
        low, high = 0.0, 4.0 / (1 - self.momentum)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if stable(middle, self._updates) else (low, middle)
        return low

    @cached_property
    def _table(self) -> tuple[PchipInterpolator, PchipInterpolator]:
        """log of what is left of the start and of the noise, over log rate times curvature."""
        from scipy.interpolate import PchipInterpolator

        step = np.geomspace(_SMALLEST, self.largest_step * (1 - 1e-9), _NODES)
        one = np.ones(_NODES)
        found = run_moments(one, one, one, self._updates, step)
        logs = (np.log(np.maximum(part, _TINY)) for part in (found.start, found.noise))
        first, second = (PchipInterpolator(np.log(step), part) for part in logs)
        return first, second

    def _moments(self, lam: Array, level: Array, start: Array) -> tuple[Array, Array]:
        v = lam[:, None] + level**2
        step = self.learning_rate.peak * self._unit_step(lam, level)
        self._refuse_unstable(step, level)
        at = np.log(np.maximum(step, _SMALLEST))
        left, noise = (np.exp(part(at)) for part in self._table)
        return start**2 * left, lam[:, None] * level**2 / v**2 * noise

    def _refuse_unstable(self, step: Array, level: Array) -> None:
        limit = self.largest_step
        steepest = step.max(axis=0)
        if not np.any(steepest >= limit):
            return
        worst = int(np.argmax(steepest))
        most = self.learning_rate.peak * limit / steepest[worst]
        raise ValueError(
            f"SGD.learning_rate is {self.learning_rate.peak:g}, unstable at sigma = {level[worst]:g}, where the "
            f"largest stable rate is {most:.6g} at batch {self.batch} and momentum {self.momentum:g}; use a rate "
            "below it, a larger batch, or a parameterization with a smaller omega_F c_in^2 there."
        )


@dataclass(frozen=True)
class Adam(OptimiserRun):
    """A run of Adam (as torch.optim.Adam), with a learning-rate schedule and an average of the weights.

    The division by the root of the squared gradients is taken at their mean, as beta2 -> 1 has it past burn-in. It
    grows with the gradients' noise, hence with fewer examples an update: A / m is the law at m = iterations x batch.
    What is left of a start is of its order alone: where it was more than a third of the error, simulations had 0.75 to
    2.3 times the law (docs/theory.md section 5.9).

    Fields:
        learning_rate, batch, iterations, average, parameterization, sigma_data: as in `OptimiserRun`.
        beta1, beta2: decays of the mean gradient and of its square, in [0, 1).

    Raises:
        ValueError: a field out of its range.

    >>> run = Adam(0.01, 64, 2000, average=WeightAverage.power(0.1))
    >>> bool(run.weight_variance([1.0], [1.0])[0] > 0.25)    # what least squares has
    True
    """

    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        self._check()
        self._share(self.beta1, "beta1")
        self._share(self.beta2, "beta2")

    @property
    def speaks_of(self) -> str:
        return f"a linear denoiser trained by Adam in {self.iterations:,} updates"

    @property
    def _updates(self) -> Updates:
        n = self.iterations
        factors = self.learning_rate.factors(n)
        scale = AdamScale(self.beta2, 0.0)
        return Updates(factors, self.average.decays(n), self.beta1, False, self.batch, scale)

    def _share_tables(self, other: OptimiserRun) -> None:
        vars(other).update(_table=self._table)

    @cached_property
    def _table(self) -> tuple[RectBivariateSpline, RectBivariateSpline]:
        """log of what is left of the start, and of the noise, over the logs of step / (1 + start) and start.

        In units of the gradients' noise over the curvature, sqrt(Sigma / beta) / h, one weight differs from another by
        the size of Adam's step and of its start alone. Burn-in ends after about (1 + start) / step updates.
        """
        from scipy.interpolate import RectBivariateSpline

        steps, starts = np.geomspace(*_ADAM_STEPS, _ADAM_NODES[0]), np.geomspace(*_ADAM_STARTS, _ADAM_NODES[1])
        step, start = (part.ravel() for part in np.meshgrid(steps, starts, indexing="ij"))
        step = step * (1 + start)
        one = np.ones(step.size)
        found = run_moments(one, self.batch * one, start, self._updates, step)
        logs = [np.log(np.maximum(part, _TINY)).reshape(_ADAM_NODES) for part in (found.start / start**2, found.noise)]
        first, second = (RectBivariateSpline(np.log(steps), np.log(starts), part) for part in logs)
        return first, second

    def _moments(self, lam: Array, level: Array, start: Array) -> tuple[Array, Array]:
        form = Parameterization(self.parameterization, self.sigma_data)
        v, shape = lam[:, None] + level**2, start.shape
        unit = np.broadcast_to(np.sqrt(lam[:, None] / self.batch) * level / v, shape)
        on = (unit > 0) & (start != 0)
        left, noise = np.zeros(shape), np.zeros(shape)
        factor = np.broadcast_to(np.abs(form.c_out(level) * form.c_in(level)), shape)[on]
        starts = np.clip(np.abs(start[on]) / unit[on], *_ADAM_STARTS)
        steps = np.clip(self.learning_rate.peak * factor / unit[on] / (1 + starts), *_ADAM_STEPS)
        at = np.log(steps), np.log(starts)
        left[on], noise[on] = (np.exp(part(*at, grid=False)) for part in self._table)
        return start**2 * left, unit**2 * noise


def _stated(kind: Any, values: dict[str, Any], name: str) -> Any:
    """An object of plain values, as files hold them."""
    known = [field.name for field in fields(kind)]
    if not set(values) <= set(known) or not {"peak"} & set(known) <= set(values):
        raise ValueError(f"{name} is {shown(values)}; the fields of {kind.__name__} are {', '.join(known)}.")
    return kind(**values)
