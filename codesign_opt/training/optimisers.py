"""Training noise of averaged and of constant-step SGD, docs/theory.md section 5.

The formulas as functions are in `codesign_opt.training.constant_step`, `codesign_opt.training.sgd_variance` and
`codesign_opt.training.lower_bounds`, and offered here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, integer, noise_levels, number, variances, vector
from ..ingredients.parameterization import Parameterization, TabulatedWeight, evaluate_weight
from .base import TrainingNoise
from .burn_in import averaged_sgd_excess
from .constant_step import check_stable, constant_step_variance, largest_stable_rate
from .lower_bounds import check_flag, dataset_floor
from .sgd_variance import (
    WeightNoise,
    average_step_factor,
    burn_in_bias,
    ema_variance,
    finite_dataset_variance,
    least_squares_variance,
)

__all__ = [
    "AveragedSGD",
    "ConstantStepSGD",
    "Parameterization",
    "TabulatedWeight",
    "TrainingNoise",
    "WeightNoise",
    "average_step_factor",
    "burn_in_bias",
    "constant_step_variance",
    "dataset_floor",
    "ema_variance",
    "finite_dataset_variance",
    "largest_stable_rate",
    "least_squares_variance",
]

_ENOUGH_PER_WEIGHT = 40  # examples, from which on a full matrix was found to leave A / m within a fifth
_FEWEST = 1e-60  # examples: fewer are none
_NOTED = 1.5  # averaged SGD over least squares from which a plan says so


@dataclass(frozen=True)
class AveragedSGD(TrainingNoise):
    """Least squares, and averaged SGD after burn-in: Var W = lambda sigma^2 / (v^2 m), no floor of its own.

    docs/theory.md section 5; the same for every parameterisation. `warnings_for` says by how much averaged SGD itself
    would miss it; a run whose burn-in is in the law is `SGD`.

    Fields:
        matrix: "diagonal" (W is diagonal in the data's eigenbasis) or "full" (all d^2 weights are learned).
        intercept: whether the mean is learned too.
        dataset_size: number of images N; None: every example is fresh.
        replacement: with a data set, whether each level draws its images independently (as when the noise
            level of an image is drawn afresh at every visit); False: whole passes at every level.
        prior: "untrained" (before the first example the denoiser is that of a network of output 0, which is worth m0
            examples: A / (m + m0)) or None (A / m, infinite where a level has no examples).
        parameterization, sigma_data: what that denoiser is, c_skip x: "x0" knows the mean alone; as in
            `ConstantStepSGD`.

    Raises:
        ValueError: a field is out of its range.

    >>> AveragedSGD(matrix="full").name
    'AveragedSGD'
    """

    matrix: str = "diagonal"
    intercept: bool = False
    dataset_size: int | None = None
    replacement: bool = True
    prior: str | None = "untrained"
    parameterization: str = "x0"
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        self._check_common()

    @property
    def final_floor_is_monotone(self) -> bool:
        return True  # there is none

    def _stationary(self, eigenvalues: Array, counts: Array | None, sigma: Array) -> None:
        return None

    def warnings_for(
        self, sigma: ArrayLike, eigenvalues: ArrayLike, examples: ArrayLike, counts: ArrayLike | None = None
    ) -> list[str]:
        """That averaged SGD at the best constant rate of each level leaves half as much again as least squares.

        Args, errors as in `TrainingNoise.warnings_for`; errors of levels add per unit log sigma.

        >>> print(*AveragedSGD().warnings_for([0.1, 0.2], [1.0, 1e-3], [1e3, 1e3]))
        the score error is least squares'; averaged SGD leaves 1.96 times as much at best (burn-in; 2.59 at sigma \
0.1): training=co.SGD(...) plans it
        """
        level, lam = noise_levels(sigma, "sigma"), variances(eigenvalues, "eigenvalues")
        m = vector(examples, "examples", nonnegative=True, length=level.size)
        n = np.ones(lam.size) if counts is None else vector(counts, "counts", length=lam.size, positive=True)
        on = m > _FEWEST
        if not on.any() or not lam.any():  # nobody learns anything
            return []
        if self.matrix != "diagonal":
            return _full_matrix_message(level[on], m[on], float(n.sum()))
        start = self.untrained_slopes(lam, level[on])
        width = np.gradient(np.log(level))[on] if np.ptp(level) > 0 else np.ones(np.count_nonzero(on))
        start = lam[:, None] / (lam[:, None] + level[on] ** 2) if start is None else np.sqrt(start)
        ours, least = averaged_sgd_excess(lam, n, level[on], m[on], start)
        if not least.all():  # variances whose squares are no floats
            return []
        factor, worst = float(width @ ours / (width @ least)), int(np.argmax(ours / least))
        if factor < _NOTED:
            return []
        return [
            f"the score error is least squares'; averaged SGD leaves {factor:.3g} times as much at best (burn-in; "
            f"{ours[worst] / least[worst]:.3g} at sigma {level[on][worst]:.3g}): training=co.SGD(...) plans it"
        ]


@dataclass(frozen=True)
class ConstantStepSGD(TrainingNoise):
    """SGD with a constant step: A / m plus a floor, tau omega_F c_in^2 lambda sigma^2 / (2 beta v) if small.

    Finite steps by the fixed point of the second moments, with the multiplicative noise that a discrete
    Lyapunov equation omits (docs/theory.md section 5). A / m + F bounds both the averaged and the last
    iterate after burn-in.

    Fields:
        learning_rate: tau on the loss omega_F |F - target|^2 / 2 of the network's output, > 0.
        batch: examples per step at one noise level beta, >= 1.
        parameterization: a name of `codesign_opt.ingredients.parameterization.PARAMETERIZATIONS`.
        weight: omega on the denoising loss, a positive number or a function of sigma (omega_F = omega
            c_out^2); None: the plain loss of the parameterisation.
        sigma_data: standard deviation of the data per dimension, for "edm", data units, > 0.
        matrix, intercept, dataset_size, replacement, prior: as in `AveragedSGD`.
        finite_step: False for the formulas of the limit tau -> 0 (an unstable rate is refused all the same).

    Raises:
        ValueError: a field is out of its range. An unstable rate is refused where levels are first seen, with
            the noise level and the largest stable rate.

    >>> sgd = ConstantStepSGD(0.1, 64, parameterization="x0")
    >>> sgd.weight_variance([1.0], [1.0])[1].round(6)
    array([[0.000436]])
    """

    learning_rate: float
    batch: int
    parameterization: str = "edm"
    weight: float | Callable[[Array], Any] | None = None
    sigma_data: float = 0.5
    matrix: str = "diagonal"
    intercept: bool = False
    dataset_size: int | None = None
    finite_step: bool = True
    replacement: bool = True
    prior: str | None = "untrained"

    def __post_init__(self) -> None:
        self._check_common()
        rate = number(self.learning_rate, "ConstantStepSGD.learning_rate", positive=True)
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "batch", integer(self.batch, "ConstantStepSGD.batch", minimum=1))
        flag = check_flag(self.finite_step, "ConstantStepSGD.finite_step")
        object.__setattr__(self, "finite_step", flag)
        if self.weight is not None and not callable(self.weight):
            value = number(self.weight, "ConstantStepSGD.weight", positive=True)
            object.__setattr__(self, "weight", value)

    def rate_factors(self, sigma: ArrayLike) -> tuple[Array, Array]:
        """Effective rates per unit learning rate: omega_F c_in^2 of the slope, omega_F of the intercept.

        >>> ConstantStepSGD(0.1, 64).rate_factors([0.5])
        (array([2.]), array([1.]))
        """
        level = noise_levels(sigma, "sigma")
        form = Parameterization(self.parameterization, self.sigma_data)
        if self.weight is None:
            omega = form.output_weight(level)
        else:
            # D = c_skip x + c_out F: omega |D - x_0|^2 = omega c_out^2 |F - target|^2
            omega = evaluate_weight(self.weight, level, "ConstantStepSGD.weight") * form.c_out(level) ** 2
        # the network sees c_in x, which scales its curvature; the intercept's input is 1
        return omega * form.c_in(level) ** 2, omega

    @property
    def speaks_of(self) -> str:
        return "a linear denoiser trained by SGD with a constant step"

    @property
    def final_floor_is_monotone(self) -> bool:
        return self.weight is None  # a weight of one's own may rise and fall with sigma

    def _stationary(self, eigenvalues: Array, counts: Array | None, sigma: Array) -> WeightNoise:
        rate, omega = self.rate_factors(sigma)
        options: dict[str, Any] = {
            "counts": counts,
            "rate_factor": rate,
            "intercept_factor": omega if self.intercept else None,
        }
        step = (eigenvalues, sigma, self.learning_rate, self.batch)
        # refused before the variance is asked for: beyond the pole its formula is negative, not infinite
        check_stable(*step, name="ConstantStepSGD.learning_rate", **options)
        return constant_step_variance(*step, finite_step=self.finite_step, **options)

    def warnings_for(
        self, sigma: ArrayLike, eigenvalues: ArrayLike, examples: ArrayLike, counts: ArrayLike | None = None
    ) -> list[str]:
        """Levels where burn-in is not over: m tau h / beta < 10, h the smallest omega_F c_in^2 v.

        Before it A / m + F is no bound (docs/theory.md section 5): `burn_in_bias` says what comes on top.

        Args:
            sigma: (L,), noise levels, data units, > 0.
            eigenvalues: (B,), squared data units, >= 0.
            examples: (L,), m, examples within one correlation length of each level, >= 0.
            counts: not used.

        Returns:
            One message per run of neighbouring levels in ascending sigma; empty when all is well.

        Raises:
            ValueError: an argument is out of its range.

        >>> print(*ConstantStepSGD(1e-3, 64).warnings_for([0.5, 5.0], [1.0], [1e3, 1e9]))
        burn-in is not over at sigma = 0.5: 1000 examples are 0.0391 relaxation times (10 take 256000)
        """
        level = noise_levels(sigma, "sigma")
        lam = variances(eigenvalues, "eigenvalues")
        m = vector(examples, "examples", nonnegative=True, length=level.size)
        rate, omega = self.rate_factors(level)
        slowest = rate * (lam.min() + level**2)
        if self.intercept:
            slowest = np.minimum(slowest, omega)
        time = self.batch / (self.learning_rate * slowest)  # examples per relaxation time
        order = np.argsort(level)
        bad = np.flatnonzero((m < 10 * time)[order])
        runs = np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1) if bad.size else []
        return [_burn_in_message(level[run], m[run], time[run]) for run in (order[part] for part in runs)]


def _full_matrix_message(sigma: Array, examples: Array, weights: float) -> list[str]:
    """That a row of so many weights has few examples, with what m - p - 1 makes of the law."""
    least = int(np.argmin(examples))
    each = float(examples[least] / weights)
    if each >= _ENOUGH_PER_WEIGHT:
        return []
    left = examples[least] - weights - 1
    factor = f"{examples[least] / left:.3g} times A / m (m - p - 1)" if left > 0 else "no bound without a prior"
    return [
        f"a full matrix has {weights:g} weights a row and {each:.3g} examples for each at sigma {sigma[least]:.3g}: "
        f"least squares leaves {factor} there, and more in the second order; model.predict counts the first, "
        "co.validate trains it"
    ]


def _burn_in_message(sigma: Array, examples: Array, time: Array) -> str:
    i = int(np.argmin(examples / time))
    where = f"sigma = {sigma[i]:g}"
    if sigma.size > 1:
        where = f"{sigma.size} levels, sigma = {sigma[0]:g} to {sigma[-1]:g}, worst at {where}"
    return (
        f"burn-in is not over at {where}: {examples[i]:.6g} examples are "
        f"{examples[i] / time[i]:.3g} relaxation times (10 take {10 * time[i]:.6g})"
    )
