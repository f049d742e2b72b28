"""How far a network's slopes along the directions of the data are off: the error that Gaussian plans count.

docs/theory.md section 5.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, integer, number, takes, vector
from ...basics.fields import holds
from ...curves.error_law import ErrorLaw, TrainingErrors
from ...ingredients.levels import Levels
from ...ingredients.training_run import TrainingRun
from ..denoisers.denoiser import Denoise, Denoiser
from ..draws.statistics import Estimate
from ..draws.streams import first_of, normal
from .checkpoint_pair import sampled_images

__all__ = ["SlopeErrors", "slope_errors"]

_LEVELS = (0.002, 80.0, 25)
_LEAST_SHARE = 0.01  # of the examples within one correlation length: where a run trained less it extrapolates


@dataclass(frozen=True, eq=False)
class SlopeErrors(TrainingErrors):
    """Squared errors of a network's slopes, and the examples that they were left by.

    Attributes:
        sigma: (M,) ascending noise levels at which the run trained.
        error: (M,) sum over the directions of the data of v_b (slope - lambda_b / v_b)^2, squared data units.
        examples: (M,) examples of the run within one correlation length.
        run, log_width: whose examples, within which length in log sigma.
        left_out: levels at which the run hardly trained.
    """

    sigma: Array
    error: Estimate
    examples: Array
    run: TrainingRun
    log_width: float
    left_out: Array

    def __post_init__(self) -> None:
        holds(
            self, sigma="level", error=Estimate, examples="level", run=TrainingRun, log_width=float, left_out="*"
        )  # fmt: skip

    def law(self) -> ErrorLaw:
        """kappa1 = error x examples."""
        notes = []
        if self.left_out.size:
            levels = ", ".join(f"{sigma:.3g}" for sigma in self.left_out)
            notes.append(f"the run had less than {_LEAST_SHARE:.0%} of its examples around sigma = {levels}: left out.")
        return ErrorLaw(
            self.sigma,
            np.maximum(self.error.value, 0.0) * self.examples,
            self.error.standard_error * self.examples,
            log_width=self.log_width,
            run=self.run,
            notes=tuple(notes),
            remedy="measure it with more images",
        )


@takes(run=TrainingRun)
@torch.no_grad()
def slope_errors(
    denoiser: Denoise,
    data: Any,
    run: TrainingRun,
    *,
    sigma: ArrayLike | None = None,
    images: int = 4096,
    repeats: int = 4,
    groups: int = 8,
    log_width: float = 2.7,
    seed: int = 0,
) -> SlopeErrors:
    """Squared error of a denoiser's slopes along the directions of its data, from the network and the data alone.

    Of any data the best denoiser D* has E[(D* - x0) x] = 0: regressed on x along an eigenvector of the covariance its
    slope is lambda / v. What a network's residual D - x0 has of x is its error there,
    sum_b Cov(D_b - x0_b, x_b)^2 / v_b, and to first order all that moves the variances of samples
    (docs/theory.md section 5.7): an error that is nonlinear, or along other directions, does not. Products of slopes
    from different groups of images are unbiased.

    Args:
        denoiser: callable (x, sigma) -> x0, the weights that will be used: averages of the last iterates or these.
        data: images; see `batches`. At most `images` of them are sampled.
        run: that trained it, for the examples at each level; with its density, or a log.
        sigma: (M,) ascending noise levels; 25 from 0.002 to 80 unless given.
        images, repeats: images, and draws of noise for each.
        groups: units of independent images, >= 3.
        log_width: of the correlation length within which examples are counted.
        seed: of images and noise.

    Raises:
        ValueError: an argument out of range, a run that trained at none of the levels.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import LogNormal
    >>> from codesign_opt.testbed import LinearDenoiser
    >>> x = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> run = TrainingRun(LogNormal(0.0, 1.0), iterations=10, batch=100)
    >>> found = slope_errors(LinearDenoiser([1.0], perturbation=[[0.2]]), x, run, sigma=[1.0])  # 0.2^2 (1 + 1)
    >>> bool(abs(found.error.value[0] - 0.08) < 4 * found.error.standard_error[0])
    True
    """
    levels = vector(np.geomspace(*_LEVELS) if sigma is None else sigma, "slope_errors.sigma", positive=True,
                    ascending=True)  # fmt: skip
    length, count = number(log_width, "slope_errors.log_width", positive=True), integer(groups, "groups", minimum=3)
    repeats = integer(repeats, "slope_errors.repeats", minimum=1, maximum=AT_ONCE)
    within = examples_within(run, levels, length)
    seen = within >= _LEAST_SHARE * run.examples
    if not seen.any():
        raise ValueError("slope_errors: the run trained at none of the levels; give others, or the run's own density.")
    first, data = first_of(data)
    clean = sampled_images(
        data, integer(images, "slope_errors.images", minimum=2, maximum=AT_ONCE), seed=seed, like=first
    ).flatten(1)
    if len(clean) < 2 * count:
        raise ValueError(f"slope_errors: {len(clean)} images for {count} groups; give more images or fewer groups.")
    mean = clean.double().mean(0)
    away = clean.double() - mean
    axes = torch.linalg.eigh(away.T @ away)[1]
    own, shape = Denoiser.of(denoiser), tuple(first.shape[1:])
    values = []
    for index in np.flatnonzero(seen):
        level = float(levels[index])
        noises = (normal(seed, "slopes", int(index), i, shape=tuple(clean.shape), like=clean) for i in range(repeats))
        parts = [_moments(own, (clean, mean, axes), level, noise, shape, count) for noise in noises]
        values.append(_unbiased(np.mean([p[0] for p in parts], 0), np.mean([p[1] for p in parts], 0)))
    found = np.array(values)
    return SlopeErrors(
        levels[seen], Estimate(found[:, 0], found[:, 1], len(clean)), within[seen], run, length, levels[~seen]
    )


def examples_within(run: TrainingRun, sigma: Array, log_width: float) -> Array:
    """(M,) examples of a run per unit log sigma at each level, times the correlation length.

    The histogram of a log is coarse: of a run without a density the examples within the length itself.

    >>> from codesign_opt import LogNormal
    >>> run = TrainingRun(LogNormal(0.0, 1.0), iterations=10, batch=100)
    >>> examples_within(run, np.array([1.0]), 2.0).round()
    array([798.])
    """
    width = 0.05 if run.density is not None else log_width / 2
    edges = np.exp(np.log(sigma)[:, None] + np.array([-width, width]))
    return np.array([float(run.examples_on(Levels(pair))[0]) for pair in edges]) * (log_width / (2 * width))


def _moments(
    denoiser: Denoiser,
    data: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    sigma: float,
    noise: torch.Tensor,
    shape: tuple[int, ...],
    groups: int,
) -> tuple[Array, Array]:
    """(G, d) covariance of the residual with the input along each axis, and (G, d) variance of the input."""
    clean, mean, axes = data
    dealt = len(clean) // groups * groups
    noisy = clean + sigma * noise
    answers = torch.cat([denoiser(part.reshape(-1, *shape), sigma).flatten(1) for part in noisy.split(1024)])
    rest = (answers.double() - clean.double()) @ axes
    seen = (noisy.double() - mean) @ axes
    # dealt by stride: images that follow one another may be alike
    rest, seen = (part[:dealt].reshape(-1, groups, part.shape[1]) for part in (rest - rest.mean(0), seen))
    return (rest * seen).mean(0).numpy(), (seen**2).mean(0).numpy()


def _unbiased(covariance: Array, variance: Array) -> tuple[float, float]:
    """sum_b c_b^2 / v_b from products of different groups' c, and its standard error by jackknife."""
    slopes = covariance / np.sqrt(variance.mean(0))

    def value(part: Array) -> float:
        count = len(part)
        return float((part.sum(0) ** 2 - (part**2).sum(0)).sum() / (count * (count - 1)))

    count = len(slopes)
    without = np.array([value(np.delete(slopes, i, axis=0)) for i in range(count)])
    return value(slopes), float(np.sqrt((count - 1) * without.var()))
